"""Defects that ``--catch`` adds to ``attach``, to see that the driver finds each."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from sessionstore.adapters.gradio import cache, cache_files, events, file_routes
from sessionstore.errors import BackendUnavailable


def refuses_files() -> None:
    """Answer 403 for every file."""

    async def serving(*_: Any) -> None:
        return None

    file_routes._serving = serving  # type: ignore[assignment]  # the defect


def drops_outputs() -> None:
    """Delete each output from the store and the disk as soon as it is saved."""
    keep = cache_files.CacheFiles.keep

    def keep_and_drop(self: Any, visitor: Any, owner: Any, name: str) -> Any:
        found = keep(self, visitor, owner, name)
        if found is not None and found.sid != self._pins.sid:
            self.store.backend.discard(found.sid, [found.reference])
            self.local.path(name).unlink(missing_ok=True)
            self._gone(found.sid, name)
        return found

    cache_files.CacheFiles.keep = keep_and_drop  # type: ignore[method-assign]  # the defect


def changes_bytes() -> None:
    """Change the last byte of each file in Gradio's cache when it is in the store."""
    note = cache.CacheDir.note

    def note_changed(self: Any, name: str, reference: Any, holder: str, stamp: Any) -> None:
        path: Path = self.path(name)
        if path.exists():
            path.write_bytes(path.read_bytes()[:-1] + b"?")
            os.utime(path, ns=(stamp[0], stamp[0]))
        note(self, name, reference, holder, stamp)

    cache.CacheDir.note = note_changed  # type: ignore[method-assign]  # the defect


def fails_events() -> None:
    """Raise an error for every output."""

    async def move(*_: Any) -> str:
        raise BackendUnavailable("a defect")

    events.Event.move = move  # type: ignore[assignment]  # the defect


BREAKS: Final[dict[str, Callable[[], None]]] = {
    function.__name__.replace("_", "-"): function
    for function in (refuses_files, drops_outputs, changes_bytes, fails_events)
}
