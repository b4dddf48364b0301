"""Large files go up and down in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import seaweed

ALLOWANCE = 48
"""MB that the process may grow by."""


@pytest.mark.server
@pytest.mark.parametrize(("engine", "size"), [("boto3", 512), ("obstore", 128)])
def test_a_large_file_takes_little_memory(
    seaweed_server: seaweed.Server, prefix: str, engine: str, size: int
) -> None:
    """``size`` in MB."""
    url = f"{seaweed_server.url(prefix)}&engine={engine}"
    command = [sys.executable, "-m", "tests.s3.streaming", url, str(size)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert told["size"] == size * 1_000_000
    assert told["memory up"] <= ALLOWANCE
    assert told["memory down"] <= ALLOWANCE
