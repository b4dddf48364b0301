"""Quotas, enforced while the bytes arrive."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Self

from sessionstore._threads import run_together
from sessionstore.backend import Backend, HasFreeSpace, ReclaimsLate
from sessionstore.errors import FileNotStored, LimitExceeded, SettingsError
from sessionstore.model import Saved, SessionKey, Stored
from sessionstore.names import UPLOADS
from sessionstore.owners import OwnerLists
from sessionstore.parsers import show_size
from sessionstore.room import StoreQuota
from sessionstore.sums import (
    AT_THE_EDGE,
    REFRESH,
    Change,
    Counted,
    OwnerQuota,
    SessionQuota,
    counted_size,
)

_REMEMBERED = 4096  # sessions, and owners, with cached sums; others are summed again at their save
_LOOKS = 100  # the most sessions of an owner that are listed for one save


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, None for no limit. Every field is a setting of the same name.

    Raises SettingsError for a value that is not a whole number of at least 0.
    """

    max_file: int | None = None
    """One file."""

    max_session: int | None = None
    """The sum of a session's files. Exact in one process, within a minute across replicas."""

    max_session_files: int | None = None
    """The number of a session's files; exact and soft in the same way."""

    max_owner: int | None = None
    """The sum of the files of all sessions of one owner. Exact in one process. Beside what others
    save within ten seconds, each further process can exceed it by an eighth."""

    max_owner_files: int | None = None
    """The number of files of all sessions of one owner; exact and soft in the same way."""

    max_store: int | None = None
    """All content, each blob once: the total of the last sweep and the saves of this process since.
    Bytes of a save in progress count before it is known whether they deduplicate. When less
    than a fortieth is free, files of sessions that are not live are deleted, oldest first. On
    object stores it limits the content of all files; deleted content takes space until it is
    collected."""

    min_free: int | None = None
    """The free space that the disk must have after a save, for backends on a disk."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            name, value = setting.name, getattr(self, setting.name)
            if value is not None and (type(value) is not int or value < 0):
                raise SettingsError(
                    f"invalid {name}={value!r}: give a whole number from 0, or None."
                )


_moved: Final[ContextVar[int | None]] = ContextVar("sessionstore_moved", default=None)


@contextlib.contextmanager
def moving(size: int) -> Iterator[None]:
    """Context manager for a save that takes a file of ``size`` bytes out of another session.

    Both are of one owner, whose sums the file is in already. The caller deletes it there.
    """
    token = _moved.set(size)
    try:
        yield
    finally:
        _moved.reset(token)


def _trim(quotas: OrderedDict[str, Any], used: str) -> None:
    """Forget the sums that were not used for longest, beyond ``_REMEMBERED``."""
    quotas.move_to_end(used)
    while len(quotas) > _REMEMBERED:
        unused = (key for key, sums in quotas.items() if not sums.users)
        if (oldest := next(unused, None)) is None:
            break
        del quotas[oldest]


def _limited(backend: Backend) -> Stored:
    return backend.referred() if isinstance(backend, ReclaimsLate) else backend.stored()


class QuotaLedger:
    """Admits saves of one store, chunk by chunk.

    ``evict`` deletes files to make room for ``max_store``, as ``StoreQuota`` describes it.
    """

    def __init__(
        self,
        limits: Limits,
        backend: Backend,
        evict: Callable[[], Iterator[int]],
        owners: OwnerLists,
    ) -> None:
        self.limits = limits
        self.limited: Final = limits != Limits()
        """Whether any limit is set."""
        self.by_owner: Final = (limits.max_owner, limits.max_owner_files) != (None, None)
        """Whether the sessions of an owner have a limit together."""
        by_session = limits.max_session is not None or limits.max_session_files is not None
        self._sums = by_session or self.by_owner
        self._owner_lists = owners
        self._owners: OrderedDict[str, OwnerQuota] = OrderedDict()
        self._backend = backend
        self._lock = threading.RLock()
        self._tallies: OrderedDict[str, SessionQuota] = OrderedDict()
        self.room: Final = StoreQuota(
            limits.max_store, lambda: _limited(self._backend), evict, self._now
        )
        """What ``max_store`` limits."""
        if limits.min_free is not None and not isinstance(backend, HasFreeSpace):
            raise SettingsError(
                f"invalid min_free={limits.min_free}: this backend is not on a disk; leave it "
                "out, or set max_store."
            )
        self.room.recount()

    def use(self, backend: Backend) -> None:
        """Use ``backend`` from now on: the same backend with a wrapper around it."""
        self._backend = backend

    def _now(self) -> datetime:
        return self._backend.now()

    def fullest(self) -> tuple[str, str, int] | None:
        """Return the owner nearest to a limit, of those that this process knows.

        The result is the owner, the limit's name, and the bytes or files that the owner has.
        """
        with self._lock:
            owners = list(self._owners.values())
        known: list[tuple[float, str, str, int]] = []
        for limit in ("max_owner", "max_owner_files"):
            most = getattr(self.limits, limit)
            for owner in owners if most else ():
                has = owner.bytes if limit == "max_owner" else owner.files
                known.append((has / most, owner.name, limit, has))
        return max(known)[1:] if known else None

    def reservation(self, key: SessionKey, name: str, *, fresh: bool) -> Reservation:
        """Return the share of a save in the limits, which is used as a context manager."""
        owner = key.owner if self.by_owner else None
        moved = None if owner is None else _moved.get()
        return Reservation(key.sid, name, fresh, owner, moved, ledger=self)

    def join(self, save: Reservation) -> None:
        """Add the save to the sums of its session and owner, if a limit needs them."""
        if not self._sums:
            return
        tally = save.tally = self._tally(save.sid, save.owner)
        try:
            owner = tally.owner
            if owner is not None and owner.needs_look(0):
                self._look(owner)
            with tally.lock:
                self.refresh(tally, save.sid)
                if not save.fresh:
                    save.replaced = self._replaced(tally, save)
                over = self._counts_file(tally, save)
            if over == "max_owner_files" and owner is not None and self._look(owner, edge=True):
                with tally.lock:
                    over = self._counts_file(tally, save)
        except BaseException:
            self.leave(save)
            raise
        if over is not None:
            self.leave(save)
            raise self._refused(over, save, tally)

    def _counts_file(self, tally: SessionQuota, save: Reservation) -> str | None:
        """Add the save to the sums, or return the limit that its file exceeds."""
        tally.saves.append(save)
        over, limit = None, self.limits.max_session_files
        if save.replaced is not None or save.name.startswith(UPLOADS):
            tally.report()
        elif limit is not None and tally.held().files > limit:
            over = "max_session_files"
        elif not tally.report(max_files=self.limits.max_owner_files):
            over = "max_owner_files"
        if over is not None:
            tally.leave(save)
        return over

    def grow(self, save: Reservation, count: int) -> None:
        """Add ``count`` bytes to a save. Raises LimitExceeded for a session or owner."""
        tally, limits = save.tally, self.limits
        owner = None if tally is None or limits.max_owner is None else tally.owner
        if tally is None or (limits.max_session is None and owner is None):
            save.taken += count
            return
        if owner is not None and owner.needs_look(count):
            self._look(owner)
        with tally.lock:
            over = self._counts_bytes(tally, save, count)
            if over == "max_session" and self.refresh(tally, save.sid):
                over = self._counts_bytes(tally, save, count)
        if over == "max_owner" and owner is not None and self._look(owner, edge=True):
            with tally.lock:
                over = self._counts_bytes(tally, save, count)
        if over is not None:
            raise self._refused(over, save, tally)

    def _counts_bytes(self, tally: SessionQuota, save: Reservation, count: int) -> str | None:
        """Add ``count`` bytes to the sums, or return the limit that they exceed."""
        before = tally.held().bytes
        save.taken += count
        over, limit, after = None, self.limits.max_session, tally.held().bytes
        # Bytes that add nothing are admitted, even if the session exceeds a limit set later.
        if limit is not None and after != before and after > limit:
            over = "max_session"
        elif not tally.report(max_bytes=self.limits.max_owner):
            over = "max_owner"
        if over is not None:
            save.taken -= count
        return over

    def _refused(self, limit: str, save: Reservation, tally: SessionQuota) -> LimitExceeded:
        owner, value = tally.owner or OwnerQuota(""), getattr(self.limits, limit)
        words = {
            "max_session": f"Saving {save.shown!r} would take the session over max_session="
            f"{show_size(value)}: delete some of its files first.",
            "max_owner": f"Saving {save.shown!r} would take all sessions of its owner together "
            f"over max_owner={show_size(value)}: delete some of their files first.",
            "max_session_files": f"The session has {tally.files} files and max_session_files="
            f"{value}: delete some before saving {save.shown!r}.",
            "max_owner_files": f"All sessions of the owner together have {owner.files} files and "
            f"max_owner_files={value}: delete some before saving {save.shown!r}.",
        }
        return LimitExceeded(words[limit], limit=limit)

    def leave(self, save: Reservation) -> None:
        if save.tally is not None:
            with save.tally.lock:
                if not save.over:
                    save.tally.leave(save)
                    save.tally.report()
            self._release(save.sid, save.tally)
        self.room.release(save)

    def refresh(self, tally: SessionQuota, sid: str, age: timedelta = REFRESH) -> bool:
        """Refresh the sums from a listing if it is due; return whether it was.

        The caller holds the lock.
        """
        now = self._backend.now()
        if due := tally.is_due(now, age):
            tally.listed(self._backend.files(sid), now)
        return due

    def _look(self, owner: OwnerQuota, *, edge: bool = False) -> bool:
        """Read the owner's list and list its sessions, unless that was done within ten seconds.

        At the ``edge``, before a refusal, sessions whose sums are uncertain are listed all the
        same. Return whether anything was listed. The caller holds no lock of a session.
        """
        with owner.looking:
            now, limits = self._backend.now(), self.limits
            is_new = owner.at is None or now - owner.at >= AT_THE_EDGE
            if not (is_new or edge):
                return False
            more = self._owner_lists.sids(owner.name) if is_new else []
            tallies = [self._tally(sid, owner.name) for sid in owner.known(more)]
            try:
                due = [tally for tally in tallies if tally.is_due(now, AT_THE_EDGE)][:_LOOKS]
                looks = [partial(self._list, tally) for tally in due]
                run_together(looks, getattr(self._backend, "at_once", 1))
            finally:
                for tally in tallies:
                    self._release(tally.sid, tally)
            if is_new:
                owner.looked(now, limits.max_owner, limits.max_owner_files)
            return is_new or bool(due)

    def _list(self, tally: SessionQuota) -> None:
        with tally.lock:
            self.refresh(tally, tally.sid, AT_THE_EDGE)

    def _replaced(self, tally: SessionQuota, save: Reservation) -> int | None:
        """Return the size that the sums have for the file of that name, None for no file.

        The backend is called only if no other save of the name is in progress: it may show a file
        that such a save has made and that the sums do not include yet.
        """
        for other in tuple(tally.saves):
            if other.name == save.name:
                return other.replaced
        try:
            return self._backend.get(save.sid, save.name).size
        except FileNotStored:
            return None

    def _tally(self, sid: str, owner: str | None = None) -> SessionQuota:
        """Return the session's sums. While they are in use a session has only one such object."""
        with self._lock:
            tally = self._tallies.get(sid)
            if tally is None:
                tally = self._tallies[sid] = SessionQuota(sid)
            if owner is not None:
                tally.owner = self._owners.setdefault(owner, OwnerQuota(owner))
                _trim(self._owners, owner)
            tally.users += 1
            if tally.owner is not None:
                tally.owner.users += 1
            _trim(self._tallies, sid)
        return tally

    def _release(self, sid: str, tally: SessionQuota) -> None:
        with self._lock:
            tally.users -= 1
            if tally.owner is not None:
                tally.owner.users -= 1
            if not tally.users and tally.at is None:  # without a listing they are not kept
                self._tallies.pop(sid, None)

    def keep(self, save: Reservation, put: Callable[[], Saved]) -> Saved:
        """Have the backend save a file by ``put()``, and note the outcome."""
        if save.tally is None:
            saved = put()
        else:
            with save.tally.working(Change(frozenset([save.name]), save)) as change:
                saved = put()
                change.size = counted_size(saved.reference)
        self.room.release(save, kept=0 if saved.deduplicated else saved.reference.size)
        return saved

    def removing(
        self, sid: str, names: Iterable[str] | None = None
    ) -> contextlib.AbstractContextManager[Change]:
        """Surround the backend's removal of files of these names, or a drop of the session.

        The block sets ``gone`` or ``dropped`` of the yielded change.
        """
        change = Change(None if names is None else frozenset(names))
        self.room.may_have_room()
        return self._counting(sid, change) if self._sums else contextlib.nullcontext(change)

    @contextlib.contextmanager
    def _counting(self, sid: str, change: Change) -> Iterator[Change]:
        tally = self._tally(sid)
        try:
            with tally.working(change):
                yield change
        finally:
            self._release(sid, tally)

    def check_free(self, coming: int, name: str) -> None:
        """Raise LimitExceeded if ``coming`` more bytes would leave less than ``min_free``."""
        limit = self.limits.min_free
        if limit is not None and isinstance(self._backend, HasFreeSpace):
            free = self._backend.free()
            if free - coming < limit:
                raise LimitExceeded(
                    f"Saving {name!r} would leave less than min_free={show_size(limit)} on the "
                    f"disk, which has {show_size(free)}: free some space.",
                    limit="min_free",
                )


@dataclass(slots=True, eq=False)
class Reservation(Counted):
    """One save in progress, for the block in which it is used.

    Entering it raises LimitExceeded if the session or its owner has the maximum number of files.

    ``reserved`` is the number of bytes reserved of ``max_store``. A piece of an upload is a file of
    its own: ``before`` are the bytes of the pieces before it, which count for ``max_file``, and
    ``title`` is the file's name for messages.
    """

    ledger: QuotaLedger = field(kw_only=True)
    tally: SessionQuota | None = None
    reserved: int = 0
    before: int = 0
    title: str | None = None

    @property
    def shown(self) -> str:
        return self.name if self.title is None else self.title

    def __enter__(self) -> Self:
        self.ledger.join(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.ledger.leave(self)

    def admit(self, count: int) -> None:
        limit = self.ledger.limits.max_file
        if limit is not None and self.before + self.taken + count > limit:
            raise LimitExceeded(
                f"{self.shown!r} is larger than max_file={show_size(limit)}: save a "
                "smaller file, or raise the limit.",
                limit="max_file",
            )
        more = self.taken + count - max(self.taken, self.credit)
        if more > 0 or not self.credit:
            self.ledger.room.reserve(self, more)
        self.ledger.check_free(count, self.shown)
        self.ledger.grow(self, count)
