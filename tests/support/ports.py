"""Free ports of 127.0.0.1, below those that the system hands out itself (32768 and up on Linux)."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import socket

_WORKERS = 16
"""Each worker of pytest-xdist has ports of its own, each sixteenth: another one must not choose the
same port before the server listens, which on a busy machine takes it some seconds."""

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS

_numbers = itertools.count(secrets.randbelow(10_000 // _WORKERS))
"""A process takes its ports in turn: its threads start servers at the same time.

The first is not of the common random numbers: a test may seed them, and then two processes draw the
same.
"""


def free_port(first: int = 20_000, beside: int = 0) -> int:
    """A free TCP port of the 10,000 from ``first`` on; so is the one ``beside`` further up."""
    while True:
        port = first + _WORKERS * (next(_numbers) % (10_000 // _WORKERS)) + _worker
        with contextlib.suppress(OSError):
            for number in {port, port + beside}:
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
            return port
