"""Small saves take turns within a process, as long as the disk is quick.

A small save is a row of system calls, each of which lets go of Python's global lock and wants it
back. Many threads at once hand it to each other at every call, and then a save takes twice (two
threads) to seven times (forty) the CPU. Who waits for a turn wants no lock meanwhile.

Where the disk keeps a save waiting, as one over a network does, threads have to wait for it side by
side: then nobody takes turns.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")

_PATIENCE = 0.02
"""Seconds that a save waits for its turn, before it goes ahead without: some 400 saves."""

_QUICK = 0.005
"""Seconds that a save with the turn may take: a hundred times what it should."""

_SLOW = 4
"""So many in a row that took longer are the disk's doing, and not that of a busy processor."""

_PAUSE = 1.0
"""Seconds without turns after that."""


class Turns:
    """Safe to use from any thread, and after a fork."""

    def __init__(self, *, patience: float = _PATIENCE, quick: float = _QUICK) -> None:
        self._patience = patience
        self._quick = quick
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._slow = 0
        self._again = 0.0
        self._pid = os.getpid()

    def run(self, save: Callable[[], R]) -> R:
        """Call it, alone among those that are called here if that can be had soon."""
        if self._pid != os.getpid():  # a thread of the parent may have had the turn
            self._begin()
        lock, began = self._lock, time.monotonic()
        if began < self._again or not lock.acquire(timeout=self._patience):
            return save()
        began = time.monotonic()
        try:
            return save()
        finally:
            ended = time.monotonic()
            self._slow = self._slow + 1 if ended - began > self._quick else 0
            if self._slow == _SLOW:
                self._slow, self._again = 0, ended + _PAUSE
            lock.release()
