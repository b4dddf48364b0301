"""The sums of a session and of an owner, which the limits need. Bookkeeping, without I/O."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from sessionstore.model import Reference
from sessionstore.names import SIGNED, UPLOADS

REFRESH = timedelta(seconds=60)  # so long, saves of other replicas can be missed
AT_THE_EDGE = timedelta(seconds=10)  # so long near the limit of an owner
_SHARE = 8  # a part of an owner's room that a process uses without another look


class Sum(NamedTuple):
    """Files and their bytes."""

    bytes: int = 0
    files: int = 0


def _is_file(name: str) -> bool:
    """Return whether limits of a number of files count it: not what is kept of an upload."""
    return not name.startswith(UPLOADS)


def counted_size(reference: Reference) -> int:
    """Return the bytes that limits count for a file.

    The note of an upload straight to the backend counts as many as the upload has, which no other
    reference shows: they are at the end of its name.
    """
    name = reference.name
    if name.startswith(UPLOADS) and SIGNED in name:
        return int(name.rpartition(".")[2])
    return reference.size


@dataclass(slots=True, eq=False)
class Counted:
    """One save in progress, as the sums know it.

    ``owner`` is the session's, None if no limit counts it. ``moved`` is the size of the file of the
    same owner that this save replaces in another session, None for no such file: it adds nothing to
    the owner's sum. ``replaced`` is the size that the session's sums have for the file of that
    name, None for no file. ``taken`` is the number of bytes admitted so far. ``over``: the save has
    ended, and the next listing shows whether its file exists. ``credit`` are the bytes of the
    pieces of an upload that the finished file replaces.
    """

    sid: str
    name: str
    fresh: bool
    owner: str | None = None
    moved: int | None = None
    replaced: int | None = None
    taken: int = 0
    over: bool = False
    credit: int = 0


@dataclass(slots=True, eq=False)
class Change:
    """One change of a session's files, while the backend works on it.

    ``names`` are the files that it may change, None for all. ``certain`` becomes False when another
    change of the same file, or a listing, overlaps it: the order of the two is then unknown. A
    removal sets ``gone`` or ``dropped`` to the backend's result, and ``save`` its ``size``.
    """

    names: frozenset[str] | None
    save: Counted | None = None
    certain: bool = True
    gone: Sequence[Reference] = ()
    dropped: bool = False
    size: int = 0

    def overlaps(self, other: Change) -> bool:
        if self.names is None or other.names is None:
            return True
        return not self.names.isdisjoint(other.names)


@dataclass(slots=True, eq=False)
class OwnerQuota:
    """The sums of one owner: of the sessions that this process knows, with the saves in progress.

    ``at`` is the time of the last look at the owner's sessions. Until the sums reach ``enough``,
    saves need no other look: this process adds at most an eighth of what was free at the last one.
    """

    name: str
    lock: threading.RLock = field(default_factory=threading.RLock)
    looking: threading.Lock = field(default_factory=threading.Lock)
    by_session: dict[str, Sum] = field(default_factory=dict)
    bytes: int = 0
    files: int = 0
    users: int = 0
    at: datetime | None = None
    enough: Sum = field(default_factory=Sum)

    def set(self, sid: str, now: Sum, max_bytes: int | None, max_files: int | None) -> bool:
        """Set the sums of one session, or return False if what they add exceeds a limit.

        The caller holds the lock of the session.
        """
        with self.lock:
            before = self.by_session.get(sid, Sum())
            more_bytes, more_files = now.bytes - before.bytes, now.files - before.files
            if more_bytes > 0 and max_bytes is not None and self.bytes + more_bytes > max_bytes:
                return False
            if more_files > 0 and max_files is not None and self.files + more_files > max_files:
                return False
            if any(now):
                self.by_session[sid] = now
            else:
                self.by_session.pop(sid, None)
            self.bytes += more_bytes
            self.files += more_files
            self.enough = Sum(
                self.enough.bytes + min(more_bytes, 0), self.enough.files + min(more_files, 0)
            )
            return True

    def known(self, more: Iterable[str]) -> list[str]:
        """Return the sessions in the sums and ``more``, each once."""
        with self.lock:
            return list(dict.fromkeys([*more, *self.by_session]))

    def looked(self, now: datetime, max_bytes: int | None, max_files: int | None) -> None:
        """Note that the owner's list was read, and that its sessions are in the sums."""
        with self.lock:
            self.at = now
            self.enough = Sum(_enough(self.bytes, max_bytes), _enough(self.files, max_files))

    def needs_look(self, count: int) -> bool:
        """Return whether ``count`` more bytes, or 0 and one more file, are more than ``enough``."""
        more_files = 0 if count else 1
        return (
            self.at is None
            or self.bytes + count > self.enough.bytes
            or self.files + more_files > self.enough.files
        )


def _enough(present: int, limit: int | None) -> int:
    return sys.maxsize if limit is None else present + max(limit - present, 0) // _SHARE


@dataclass(slots=True, eq=False)
class SessionQuota:
    """The sums of one session.

    ``bytes`` and ``files`` are never less than the sums of the existing files, without the files
    that ``saves`` may have added. They are exact if ``certain`` and no change is in progress: only
    a change without an overlap is added or subtracted. Until the next listing, a save with an
    overlap stays in ``saves``, and a removal with an overlap subtracts nothing.
    """

    sid: str
    # Reentrant, because a writer that is garbage-collected releases its share in any thread, at any
    # line. For the same reason no code iterates over ``saves`` itself, but over a copy.
    lock: threading.RLock = field(default_factory=threading.RLock)
    owner: OwnerQuota | None = None
    bytes: int = 0
    files: int = 0
    saves: list[Counted] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    users: int = 0
    at: datetime | None = None
    certain: bool = True

    def held(self) -> Sum:
        """Return the most that the session can have, for any outcome of each save.

        Several saves of one name leave one file. A save that replaces a file adds only the bytes
        beyond the old size, and frees nothing before it is done.
        """
        return self._with((save, None) for save in tuple(self.saves))

    def shared(self) -> Sum:
        """Return what of it counts for the owner: without files that come from another session."""
        return self._with((save, save.moved) for save in tuple(self.saves))

    def _with(self, saves: Iterable[tuple[Counted, int | None]]) -> Sum:
        most: dict[str, int] = {}
        new: set[str] = set()
        for save, moved in saves:
            growth = save.taken - (save.replaced or 0) - min(save.taken, moved or 0) - save.credit
            most[save.name] = max(most.get(save.name, 0), growth)
            if save.replaced is None and moved is None and _is_file(save.name):
                new.add(save.name)
        return Sum(self.bytes + sum(most.values()), self.files + len(new))

    def report(self, *, max_bytes: int | None = None, max_files: int | None = None) -> bool:
        """Set the owner's sums after a change of the session's, which is under the lock.

        Return False, and set nothing, if what this adds to them exceeds a limit.
        """
        return self.owner is None or self.owner.set(self.sid, self.shared(), max_bytes, max_files)

    def is_due(self, now: datetime, age: timedelta = REFRESH) -> bool:
        """Return whether the files must be listed now.

        Not during a change, since such a listing is uncertain, unless there was no listing yet.
        """
        if self.at is None:
            return True
        return not self.changes and (not self.certain or now - self.at > age)

    def listed(self, files: Iterable[Reference], now: datetime) -> None:
        sizes: dict[str, int | None] = {save.name: None for save in tuple(self.saves)}
        size = count = 0
        for reference in files:
            size += counted_size(reference)
            count += _is_file(reference.name)
            if reference.name in sizes:
                sizes[reference.name] = counted_size(reference)
        self.bytes, self.files, self.at = size, count, now
        self.certain = not self.changes
        for change in self.changes:
            change.certain = False
        for save in tuple(self.saves):
            save.replaced = sizes[save.name]
            if save.over:
                self.leave(save)
        self.report()

    @contextlib.contextmanager
    def working(self, change: Change) -> Iterator[Change]:
        """Surround the backend's work on a change, and note the outcome."""
        with self.lock:
            for other in self.changes:
                if other.overlaps(change):
                    other.certain = change.certain = False
            self.changes.append(change)
        try:
            yield change
        except BaseException:
            change.certain = False  # a file may be saved, some of several may be gone
            raise
        finally:
            with self.lock:
                self._end(change)
                self.report()

    def _end(self, change: Change) -> None:
        self.changes.remove(change)
        self.certain &= change.certain
        save = change.save
        if save is not None and not change.certain:
            save.over = True
        elif save is not None:
            self.bytes += change.size - (save.replaced or 0)
            self.files += save.replaced is None and _is_file(save.name)
            self.leave(save)
            self._now_has(save.name, change.size)
        elif change.certain and change.dropped:
            self.files = self.bytes = 0
            for each in tuple(self.saves):
                each.replaced = None
        elif change.certain:
            for reference in change.gone:
                counted = self._counted(reference)
                # At least 0: another replica may have saved the file since the last listing.
                lost = counted is not None and _is_file(reference.name)
                self.files = max(self.files - lost, 0)
                self.bytes = max(self.bytes - (counted or 0), 0)
                self._now_has(reference.name, None)

    def _counted(self, gone: Reference) -> int | None:
        """Return the size that the sums have for a file that is gone now, None for no file.

        That is not its own size if an uncertain save of its name is not in the sums yet.
        """
        for save in tuple(self.saves):
            if save.over and save.name == gone.name:
                return save.replaced
        return counted_size(gone)

    def _now_has(self, name: str, size: int | None) -> None:
        """Set the size of the file that saves of that name replace, None for no file."""
        for save in tuple(self.saves):
            if save.name == name:
                save.replaced = size

    def leave(self, save: Counted) -> None:
        if save in self.saves:
            self.saves.remove(save)
