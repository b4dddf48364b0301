"""Events of a store, and their subscribers. A callback that fails stops nothing."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

KINDS = (
    "saved", "deduplicated", "deleted", "expired", "dropped", "ended", "resumed", "limit_exceeded",
    "sweep_started", "sweep_finished", "sweep_held", "sweep_failed", "copied", "copy_finished",
)  # fmt: skip
"""Every kind of event. ``saved`` is every save, and ``deduplicated`` follows it if the bytes were
stored already. ``deleted`` is a deletion on request, ``expired`` one by a sweep; ``dropped`` is a
whole session. The source of a copy emits ``copied`` and ``copy_finished``."""

log: Final = logging.getLogger("sessionstore")


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    ``session_id``, ``owner`` and ``name`` are None where they do not apply. ``size`` is in bytes
    (of the file, of a dropped session's files, or freed by a sweep). ``at`` is the backend's time,
    aware UTC. ``files`` is the number of files: those of a dropped session, or 1 with a ``name``.
    """

    kind: str
    session_id: str | None
    owner: str | None
    name: str | None
    size: int
    reason: str
    at: datetime
    files: int = field(default=0, compare=False)
    limit: str | None = field(default=None, compare=False)
    """For ``limit_exceeded``: the setting, such as "max_file"; None if the device is full."""


Callback = Callable[[Event], object]


class Events:
    """The subscribers of one store."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.callbacks: dict[str, tuple[Callback, ...]] = {}

    def on(self, kind: str, callback: Callback) -> Callable[[], None]:
        """Do the work of ``SessionStore.on``."""
        if kind not in KINDS:
            raise ValueError(f"unknown event kind {kind!r}: choose one of {', '.join(KINDS)}.")
        with self._lock:
            self.callbacks[kind] = (*self.callbacks.get(kind, ()), callback)
        return lambda: self._off(kind, callback)

    def _off(self, kind: str, callback: Callback) -> None:
        with self._lock:
            left = list(self.callbacks.get(kind, ()))
            if callback in left:
                left.remove(callback)
            self.callbacks[kind] = tuple(left)

    def wanted(self, kind: str) -> bool:
        """Return whether the kind has a subscriber, so that an unused event need not be made."""
        return bool(self.callbacks.get(kind))

    def emit(self, event: Event) -> None:
        """Call every subscriber. An exception is logged, and the next subscriber is called."""
        for callback in self.callbacks.get(event.kind, ()):
            try:
                callback(event)
            except Exception:
                log.exception("A callback for %r failed; the store goes on.", event.kind)
