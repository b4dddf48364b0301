"""A log of deletions, as a proof that a visitor's files were deleted.

The store writes it if ``audit`` is set: a line, one JSON object, for every way in which a file can
be deleted. docs/metrics.md describes the actions and fields.

Several processes can append to one file: each line is one write at the end of the file, under a
lock. If a crash or a full disk cut a line short, the next line begins on a new line. Rotation is a
rename: each line goes to the file that has the name at that moment, which is created if it does not
exist. A line that cannot be written is logged in full, as an error of the logger ``sessionstore``;
the deletion goes on.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import Final

from sessionstore._os.locks import lock
from sessionstore.errors import SettingsError
from sessionstore.events import Event
from sessionstore.model import Reference, SessionKey

log: Final = logging.getLogger("sessionstore")

EVENTS: Final = {
    "deleted": "deleted",
    "expired": "expired",
    "dropped": "dropped",
    "sweep_finished": "swept",
    "sweep_held": "held",
}
"""The events that are written: kind -> action."""

_actor: ContextVar[str | None] = ContextVar("sessionstore.audit.actor", default=None)


@contextlib.contextmanager
def acting(who: str) -> Iterator[None]:
    """Set the actor of the deletions in the block: a login, a ticket, a job.

    It applies to this thread or task, and to the threads that run the ``_async`` methods.
    """
    token = _actor.set(who)
    try:
        yield
    finally:
        _actor.reset(token)


_receipt: ContextVar[list[dict[str, object]] | None] = ContextVar(
    "sessionstore.audit.receipt", default=None
)


@contextlib.contextmanager
def receipt() -> Iterator[list[dict[str, object]]]:
    """Provide a list of the entries that the block writes to the log, for the person who asked.

    It applies as ``acting`` does. The entries have all fields of the log.
    """
    entries: list[dict[str, object]] = []
    token = _receipt.set(entries)
    try:
        yield entries
    finally:
        _receipt.reset(token)


class Audit:
    """Appends to one file. Safe to use from any thread and any process, forked ones included."""

    def __init__(self, path: Path, *, fsync: bool = False) -> None:
        """Open the file at ``path``; if it does not exist, create it, readable for its owner only.

        With ``fsync`` each line is forced to the disk before the call that deletes returns. Raises
        SettingsError if the file cannot be written.
        """
        self.path: Final = path.absolute()
        self._fsync = fsync
        try:
            os.close(self._open())
        except OSError as error:
            raise SettingsError(
                f"invalid audit={str(path)!r} ({error.strerror}): name a file in a directory "
                "that exists and that this process may write to."
            ) from error

    def dropping(self, key: SessionKey, reason: str, at: datetime) -> None:
        self._write("dropping", at, session=key.id, owner=key.owner, reason=reason)

    def spared(self, key: SessionKey, at: datetime) -> None:
        reason = "there was none, or it was in use"
        self._write("spared", at, session=key.id, owner=key.owner, reason=reason)

    def replaced(self, key: SessionKey, old: Reference, at: datetime) -> None:
        self._write(
            "replaced", at, session=key.id, owner=key.owner, name=old.name, files=1, bytes=old.size,
            reason="another file was saved under its name",
        )  # fmt: skip

    def happened(self, event: Event) -> None:
        files = None if event.session_id is None else event.files  # a sweep counts blobs
        self._write(
            EVENTS[event.kind], event.at, session=event.session_id, owner=event.owner,
            name=event.name, files=files, bytes=event.size, reason=event.reason,
        )  # fmt: skip

    def _write(self, action: str, at: datetime, **more: str | int | None) -> None:
        import socket  # here: rarely needed, and 10 % of the load time of the package

        entry: dict[str, object] = {"at": at.isoformat(), "action": action}
        entry |= {name: value for name, value in more.items() if value is not None}
        entry |= {"by": _actor.get(), "host": socket.gethostname(), "pid": os.getpid()}
        kept = _receipt.get()
        line = json.dumps(entry)  # ASCII: no name can begin a line or send codes to a terminal
        try:
            self._append(line.encode() + b"\n")
            if kept is not None:
                kept.append(entry)
        except OSError as error:
            log.error("The audit log %s cannot be written (%s): %s", self.path, error, line)  # noqa: TRY400 - the line is what matters

    def _append(self, line: bytes) -> None:
        fd = self._current()
        try:
            if os.fstat(fd).st_size:
                os.lseek(fd, -1, os.SEEK_END)
                if os.read(fd, 1) != b"\n":
                    line = b"\n" + line  # a crash cut the last line
            while line:
                line = line[os.write(fd, line) :]
            if self._fsync:
                os.fsync(fd)
        finally:
            os.close(fd)

    def _current(self) -> int:
        """Open and lock the file of that name. Retry if it was rotated away during the wait."""
        while True:
            fd = self._open()
            try:
                lock(fd)
                if os.path.samestat(os.fstat(fd), os.stat(self.path)):
                    return fd
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        return os.open(self.path, flags, 0o600)
