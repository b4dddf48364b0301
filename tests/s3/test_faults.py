"""The fault campaign behind the proxy, in short."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import seaweed


@pytest.mark.server
def test_no_fault_loses_spoils_or_leaves_anything(seaweed_server: seaweed.Server) -> None:
    command = [sys.executable, "-m", "tests.campaigns.faults_s3", "--operations", "90"]
    options = ["--rates", "10", "--attempts", "1", "--endpoint", seaweed_server.endpoint]
    done = subprocess.run(
        [*command, *options],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 lost, 0 wrong, 0 left after two sweeps, 0 errors not ours" in done.stdout
