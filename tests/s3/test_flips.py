"""The bit flip campaign, in short: on the local disk and on a real server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import seaweed


@pytest.mark.server
def test_every_flipped_bit_is_found_refused_and_healed(seaweed_server: seaweed.Server) -> None:
    command = [sys.executable, "-m", "tests.campaigns.bit_flips", "--flips", "12", "--endpoint"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*command, seaweed_server.endpoint], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("12 found by verify") == 2
