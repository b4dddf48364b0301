"""More patience for Gradio and httpx, which give up after three to five seconds.

    python -m tests.support.patience PROGRAM        runs a program that has it

A busy machine may take longer for a server's start, for its first page and for any response.
"""

from __future__ import annotations

import os
import runpy
import sys
import time
from types import SimpleNamespace

from gradio import http_server, networking
from httpx._config import DEFAULT_TIMEOUT_CONFIG  # httpx has no option for it

PATIENCE = 60.0
"""Seconds for a response."""

_SLOWLY = SimpleNamespace(sleep=time.sleep, time=lambda: time.time() / 20)
"""A clock by which the start of a server takes a twentieth of the time."""


def be_patient() -> None:
    """Give the Gradio and the httpx of this process more time. Twice is no error."""
    vars(networking)["url_ok"] = lambda _url: True  # its own look at the page
    vars(http_server)["time"] = _SLOWLY
    vars(DEFAULT_TIMEOUT_CONFIG).update(dict.fromkeys(vars(DEFAULT_TIMEOUT_CONFIG), PATIENCE))


if __name__ == "__main__":
    be_patient()
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(sys.argv[0])  # as if it were the program
    runpy.run_path(sys.argv[0], run_name="__main__")
