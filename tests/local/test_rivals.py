"""The short form of the campaign with several processes that write to one upload."""

from __future__ import annotations

import subprocess
import sys


def test_what_rival_processes_were_acknowledged_is_in_the_file() -> None:
    command = [sys.executable, "-m", "tests.campaigns.rivals", "--seconds", "0", "--kills", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("1 uploads, ")
    assert done.stdout.endswith(" 1 kills, 0 lost\n")
