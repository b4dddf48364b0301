"""The command line, run in this process, or in one of its own on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any, NamedTuple

from typer.testing import CliRunner

from sessionstore.cli.app import app

ROOT = Path(__file__).parents[2]


class Done(NamedTuple):
    """What a command did: its exit status and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def rows(self) -> list[list[str]]:
        """The cells of its table."""
        return [line.split("\t") for line in self.out.splitlines()]

    @property
    def value(self) -> Any:
        """The JSON that it wrote."""
        return json.loads(self.out)


def run(*words: str | Path, typed: str | bytes | None = None) -> Done:
    """Run ``sessionstore`` with these words."""
    result = CliRunner().invoke(app, [str(word) for word in words], input=typed)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


def on_a_terminal(*words: str | Path, width: int = 120, typed: bytes = b"") -> tuple[int, str]:
    """Run it with a terminal for all three streams; exit status, and what the terminal got."""
    # The size of the tests' own terminal, where there is one, is not this one's.
    inherited = {it: os.environ[it] for it in os.environ if it not in {"COLUMNS", "LINES"}}
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    with subprocess.Popen(
        [sys.executable, "-m", "sessionstore.cli", *words],
        stdin=theirs, stdout=theirs, stderr=theirs,
        env={**inherited, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"},
    ) as process:  # fmt: skip
        os.close(theirs)
        if typed:
            os.write(ours, typed)
        shown = b""
        with contextlib.suppress(OSError):  # EIO: nobody has the terminal any more
            while more := os.read(ours, 65536):
                shown += more
        os.close(ours)
    return process.returncode, shown.decode()
