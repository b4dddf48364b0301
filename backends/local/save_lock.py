"""A lock for the small saves of one process, used as long as the disk is quick.

A small save is a series of system calls. Each of them releases Python's global interpreter lock
(GIL) and takes it again. With many threads the GIL changes hands at every call, and a save takes
twice (two threads) to seven times (forty) the CPU. A thread that waits for this lock does not
compete for the GIL.

On a slow disk, as over a network, saves should overlap. A thread that times out proceeds without
the lock. After ``IN_VAIN`` timeouts the lock is skipped for ``PAUSE`` seconds.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

PATIENCE = 0.02
"""Seconds that a save waits for the lock before it checks how many other saves finished."""

QUICK = 40
"""Saves that finish in that time if the disk is quick. With an idle processor some 400 do."""

WAITS = 10
"""Times that a save waits at most. Then it proceeds in any case, because the lock is not fair."""

IN_VAIN = 4
"""Consecutive saves that gave up early, after which the disk counts as slow."""

PAUSE = 1.0
"""Seconds after that in which no save waits for the lock."""


class SaveLock:
    """The lock. Safe to use from any thread, and after a fork."""

    def __init__(self, *, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._done = 0
        self._in_vain = 0
        self._again = 0.0
        self._pid = os.getpid()

    def run(self, save: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call ``save`` and return its result, under the lock if that is free soon enough."""
        lock = self._lock
        if not lock.acquire(blocking=False):
            waited_for = self._wait()
            if waited_for is None:
                return save(*args, **kwargs)
            lock = waited_for
        try:
            return save(*args, **kwargs)
        finally:
            self._done += 1
            lock.release()

    def _wait(self) -> threading.Lock | None:
        """Take the lock and return it; return None when it was not free in time."""
        if self._pid != os.getpid():  # at the fork a thread of the parent may have had the lock
            self._begin()
        lock = self._lock
        if time.monotonic() < self._again:
            return None
        for _ in range(WAITS):
            before = self._done
            if lock.acquire(timeout=self._patience):
                self._in_vain = 0
                return lock
            if self._done - before < QUICK:
                self._give_up()
                break
        return None

    def _give_up(self) -> None:
        self._in_vain += 1
        if self._in_vain >= IN_VAIN:
            self._in_vain, self._again = 0, time.monotonic() + PAUSE
