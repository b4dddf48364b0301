"""Small saves take turns within a process, as long as the disk is quick.

A small save is a row of system calls, each of which lets go of Python's global lock and wants it
back. Many threads at once hand it to each other at every call, and then a save takes twice (two
threads) to seven times (forty) the CPU. Who waits for a turn wants no lock meanwhile.

Where the disk keeps a save waiting, as one over a network does, threads have to wait for it side by
side: who has waited in vain goes ahead, and soon nobody takes turns.
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
"""Seconds that a save waits for its turn, before it looks whether that has come nearer."""

QUICK = 40
"""Saves that are done in that time where the disk is quick: some 400 are, of an idle processor."""

WAITS = 10
"""So often a save waits where it is. Then it goes ahead in any case: nobody is served in turn."""

IN_VAIN = 4
"""So many in a row that gave up earlier are the disk's doing."""

PAUSE = 1.0
"""Seconds in which nobody waits, after that."""


class Turns:
    """Safe to use from any thread, and after a fork."""

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
        """Call it, alone among those that are called here if that can be had soon."""
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
        """The lock, taken; None when it was not to be had."""
        if self._pid != os.getpid():  # a thread of the parent may have had the turn
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
