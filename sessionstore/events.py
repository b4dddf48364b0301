"""What happened, told to whoever asked. A callback that fails stops nothing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

KINDS = (
    "saved",
    "deduplicated",
    "deleted",
    "expired",
    "dropped",
    "ended",
    "resumed",
    "limit_exceeded",
    "sweep_started",
    "sweep_finished",
    "sweep_held",
    "sweep_failed",
    "copied",
    "copy_finished",
)
"""Every kind of event. ``saved`` is every save, and ``deduplicated`` follows it when the bytes were
there already; ``deleted`` was asked for, ``expired`` is a sweep's doing; ``dropped`` is a whole
session. ``copied`` and ``copy_finished`` are told by the store that is copied from."""

log = logging.getLogger("sessionstore")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    ``session_id``, ``owner`` and ``name`` are None where they do not apply; ``size`` is in bytes
    (of the file, of a dropped session's files, or freed by a sweep); ``at`` is the backend's time,
    aware UTC. ``files`` is how many files it is about: those of a dropped session, else the one
    with the name.
    """

    kind: str
    session_id: str | None
    owner: str | None
    name: str | None
    size: int
    reason: str
    at: datetime
    files: int = field(default=0, compare=False)


Callback = Callable[[Event], object]


class Events:
    """The subscribers of one store."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: dict[str, tuple[Callback, ...]] = {}

    def on(self, kind: str, callback: Callback) -> Callable[[], None]:
        """Call ``callback`` at every event of that kind; returns a function that ends it.

        Raises ValueError for a kind that does not exist.
        """
        if kind not in KINDS:
            raise ValueError(f"There is no event {kind!r}; there are {', '.join(KINDS)}.")
        with self._lock:
            self._callbacks[kind] = (*self._callbacks.get(kind, ()), callback)
        return lambda: self._off(kind, callback)

    def _off(self, kind: str, callback: Callback) -> None:
        with self._lock:
            left = list(self._callbacks.get(kind, ()))
            if callback in left:
                left.remove(callback)
            self._callbacks[kind] = tuple(left)

    def wanted(self, kind: str) -> bool:
        """Whether anybody listens, so that an event nobody hears need not be made."""
        return bool(self._callbacks.get(kind))

    def emit(self, event: Event) -> None:
        """Tell every subscriber. What one raises is logged, and the next is told all the same."""
        for callback in self._callbacks.get(event.kind, ()):
            try:
                callback(event)
            except Exception:
                log.exception("A callback for %r failed; the store goes on.", event.kind)
