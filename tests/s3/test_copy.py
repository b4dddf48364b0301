"""The campaign of killed copies, in short: a real server, real processes, real kills."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import seaweed


@pytest.mark.server
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_copy_that_is_killed_half_way_is_finished_by_the_next(
    seaweed_server: seaweed.Server,
) -> None:
    command = [sys.executable, "-m", "tests.campaigns.copy_kills", "--files", "24", "--kills", "1"]
    done = subprocess.run(
        [*command, "--endpoint", seaweed_server.endpoint],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("1 kills") == done.stdout.count("0 wrong") == 2
