"""A log of deletions, for whoever must prove that a visitor's files are gone.

One JSON object a line: when, what, whose, why, and by which process. It is written by the store
with the setting ``audit``, for every way in which a file can go::

    dropping   a session is about to be deleted whole; dropped or spared follows
    dropped    it is gone, with so many files and bytes
    spared     it is not: there was none, or it was in use
    deleted    a file was deleted because somebody asked, or because it was damaged
    expired    a file was deleted by the rules, or to make room
    replaced   a file was saved over by one of other bytes
    swept      a sweep is over: content that nothing refers to was collected
    held       a sweep collected nothing, because the store looked wrong

``dropping`` without an end means that the process died in between: what it left of the session is
deleted by a later sweep.

**Several processes** append to one file: each line is one write at the end of the file, under a
lock, and one that a crash or a full disk has cut ends there: the next begins on a line of its own.
**Rotation** is a rename: each line goes to the file that has the name at that moment, which is made
when there is none. **A line that cannot be written** is logged in full, as an error of the logger
``sessionstore``; nothing is kept for that.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sessionstore.errors import SettingsError
from sessionstore.locks import lock

if TYPE_CHECKING:
    from datetime import datetime

    from sessionstore.backend import Reference, SessionKey
    from sessionstore.events import Event

log = logging.getLogger("sessionstore")

_EVENTS: Final = {
    "deleted": "deleted",
    "expired": "expired",
    "dropped": "dropped",
    "sweep_finished": "swept",
    "sweep_held": "held",
}
"""Each event that is written, and as what."""

_actor: ContextVar[str | None] = ContextVar("sessionstore.audit.actor", default=None)


@contextlib.contextmanager
def acting(who: str) -> Iterator[None]:
    """Say who asks for what is deleted in the block: a login, a ticket, a job.

    It holds for this thread or task, and for the threads that the ``_async`` verbs run in.
    """
    token = _actor.set(who)
    try:
        yield
    finally:
        _actor.reset(token)


class Audit:
    """Appends to one file. Safe to use from any thread, and in any process, forked ones too."""

    def __init__(self, path: Path, *, fsync: bool = False) -> None:
        """Open the file, making it, for its owner alone, when there is none.

        With ``fsync`` each line is on the platter before the deletion's call returns. Raises
        SettingsError when the file cannot be written.
        """
        self.path = path.absolute()
        self._fsync = fsync
        try:
            os.close(self._open())
        except OSError as error:
            raise SettingsError(
                f"invalid audit={str(path)!r} ({error.strerror}): name a file in a directory "
                "that is there and that this process may write to."
            ) from error

    def is_about(self, kind: str) -> bool:
        """Whether events of this kind are written."""
        return kind in _EVENTS

    def dropping(self, key: SessionKey, reason: str, at: datetime) -> None:
        """A session is about to be dropped."""
        self._write("dropping", at, session=key.id, owner=key.owner, reason=reason)

    def spared(self, key: SessionKey, at: datetime) -> None:
        """It was not."""
        reason = "there was none, or it was in use"
        self._write("spared", at, session=key.id, owner=key.owner, reason=reason)

    def replaced(self, key: SessionKey, old: Reference, at: datetime) -> None:
        """A file was saved over."""
        self._write(
            "replaced", at, session=key.id, owner=key.owner, name=old.name, files=1, bytes=old.size,
            reason="another file was saved under its name",
        )  # fmt: skip

    def happened(self, event: Event) -> None:
        """Something was deleted, or a sweep is over."""
        files = None if event.session_id is None else event.files  # a sweep is about contents
        self._write(
            _EVENTS[event.kind], event.at, session=event.session_id, owner=event.owner,
            name=event.name, files=files, bytes=event.size, reason=event.reason,
        )  # fmt: skip

    def _write(self, action: str, at: datetime, **more: str | int | None) -> None:
        import socket  # here, as few have an audit log and it takes a tenth of the package's time

        entry = {"at": at.isoformat(), "action": action}
        entry |= {name: value for name, value in more.items() if value is not None}  # type: ignore[misc]  # numbers too
        entry |= {"by": _actor.get(), "host": socket.gethostname(), "pid": os.getpid()}  # type: ignore[dict-item]  # as above
        line = json.dumps(entry)  # ASCII: no name can begin a line or speak to a terminal
        try:
            self._append(line.encode() + b"\n")
        except OSError as error:
            log.error("The audit log %s cannot be written (%s): %s", self.path, error, line)  # noqa: TRY400 - the line is what matters

    def _append(self, line: bytes) -> None:
        fd = self._current()
        try:
            if os.fstat(fd).st_size:
                os.lseek(fd, -1, os.SEEK_END)
                if os.read(fd, 1) != b"\n":
                    line = b"\n" + line  # the last one was cut
            while line:
                line = line[os.write(fd, line) :]
            if self._fsync:
                os.fsync(fd)
        finally:
            os.close(fd)

    def _current(self) -> int:
        """The file of that name, locked. One that is rotated away while we wait is not it."""
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
