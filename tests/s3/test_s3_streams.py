"""Large files go up and down in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import seaweed

ALLOWANCE = 48
"""MB that the process may grow by."""

SIZE = 512
"""MB."""


@pytest.mark.server
def test_a_large_file_takes_little_memory(seaweed_server: seaweed.Server, prefix: str) -> None:
    command = [sys.executable, "-m", "tests.s3.streaming", seaweed_server.url(prefix), str(SIZE)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert told["size"] == SIZE * 1_000_000
    assert told["memory up"] <= ALLOWANCE
    assert told["memory down"] <= ALLOWANCE
