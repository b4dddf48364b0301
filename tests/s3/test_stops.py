"""The campaigns of stopped requests and of suspended processes, in short."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import seaweed


def run(server: seaweed.Server, campaign: str, *options: str) -> str:
    command = [sys.executable, "-m", f"tests.campaigns.{campaign}", *options]
    done = subprocess.run(
        [*command, "--endpoint", server.endpoint],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.server
def test_a_request_that_is_stopped_anywhere_loses_and_leaves_nothing(
    seaweed_server: seaweed.Server,
) -> None:
    said = run(seaweed_server, "stops_s3", "--every", "20")
    assert "0 lost, 0 left after two sweeps, 0 second tries failed, 0 errors not ours" in said


@pytest.mark.server
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork and no SIGSTOP")
def test_a_process_that_sleeps_anywhere_loses_and_leaves_nothing(
    seaweed_server: seaweed.Server,
) -> None:
    said = run(seaweed_server, "sleeps_s3", "--every", "10", "--seconds", "12")
    assert "0 lost, 0 left after two sweeps, 0 errors" in said
