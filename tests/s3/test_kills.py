"""The kill campaign, in short, with every process's clock wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import seaweed


@pytest.mark.server
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork and no SIGKILL")
def test_nothing_is_lost_and_nothing_leaks(seaweed_server: seaweed.Server) -> None:
    # In a process of its own: this one has threads, and a fork would copy their locks.
    command = [sys.executable, "-m", "tests.campaigns.kill_s3", "--writes", "150"]
    options = ["--skew", "600", "--endpoint", seaweed_server.endpoint]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*command, *options], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 lost, 0 damaged, 0 leaked, 0 errors" in done.stdout
