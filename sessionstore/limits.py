"""Quotas, enforced while the bytes arrive."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Final, Self

from sessionstore.backend import Backend, HasFreeSpace, ReclaimsLate
from sessionstore.errors import FileNotStored, LimitExceeded, SettingsError
from sessionstore.model import Reference, Saved
from sessionstore.parsers import show_size

_REMEMBERED = 4096  # sessions with cached sums; others are summed again at their save
_FULL = timedelta(seconds=10)  # so long it is remembered that nothing can make room
_SHARE = 20  # a part of max_store that is freed at once, as each time lists the whole store
_REFRESH = timedelta(seconds=60)  # so long, saves of other replicas can be missed


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

    max_store: int | None = None
    """All content, each blob once: the total of the last sweep and the saves of this process since.
    Bytes of a save in progress count before it is known whether they deduplicate. Before a save is
    refused for this limit, files of sessions that are not live are deleted, oldest first. On object
    stores it limits the content of all files; deleted content takes space until it is collected."""

    min_free: int | None = None
    """The free space that the disk must have after a save, for backends on a disk."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            name, value = setting.name, getattr(self, setting.name)
            if value is not None and (type(value) is not int or value < 0):
                raise SettingsError(
                    f"invalid {name}={value!r}: give a whole number from 0, or None."
                )


@dataclass(slots=True, eq=False)
class Change:
    """One change of a session's files, while the backend works on it.

    ``names`` are the files that it may change, None for all. ``certain`` becomes False when another
    change of the same file, or a listing, overlaps it: the order of the two is then unknown. A
    removal sets ``gone`` or ``dropped`` to the backend's result, and ``save`` its ``size``.
    """

    names: frozenset[str] | None
    save: Reservation | None = None
    certain: bool = True
    gone: Sequence[Reference] = ()
    dropped: bool = False
    size: int = 0

    def overlaps(self, other: Change) -> bool:
        if self.names is None or other.names is None:
            return True
        return not self.names.isdisjoint(other.names)


@dataclass(slots=True, eq=False)
class _SessionQuota:
    """The sums of one session.

    ``bytes`` and ``files`` are never less than the sums of the existing files, without the files
    that ``saves`` may have added. They are exact if ``certain`` and no change is in progress: only
    a change without an overlap is added or subtracted. Until the next listing, a save with an
    overlap stays in ``saves``, and a removal with an overlap subtracts nothing.
    """

    # Reentrant, because a writer that is garbage-collected releases its share in any thread, at any
    # line. For the same reason no code iterates over ``saves`` itself, but over a copy.
    lock: threading.RLock = field(default_factory=threading.RLock)
    bytes: int = 0
    files: int = 0
    saves: list[Reservation] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    users: int = 0
    at: datetime | None = None
    certain: bool = True

    def coming_bytes(self) -> int:
        """Return the most bytes that the saves can add, for any outcome of each of them.

        Several saves of one name leave one file. A save that replaces a file adds only the bytes
        beyond the old size, and frees nothing before it is done.
        """
        most: dict[str, int] = {}
        for save in tuple(self.saves):
            growth = save.taken - (save.replaced or 0)
            most[save.name] = max(most.get(save.name, 0), growth)
        return sum(most.values())

    def is_due(self, now: datetime) -> bool:
        """Return whether the files must be listed now.

        Not during a change, since such a listing is uncertain, unless there was no listing yet.
        """
        if self.at is None:
            return True
        return not self.changes and (not self.certain or now - self.at > _REFRESH)

    def listed(self, files: Iterable[Reference], now: datetime) -> None:
        sizes: dict[str, int | None] = {save.name: None for save in tuple(self.saves)}
        size = count = 0
        for reference in files:
            size += reference.size
            count += 1
            if reference.name in sizes:
                sizes[reference.name] = reference.size
        self.bytes, self.files, self.at = size, count, now
        self.certain = not self.changes
        for change in self.changes:
            change.certain = False
        for save in tuple(self.saves):
            save.replaced = sizes[save.name]
            if save.over:
                self.leave(save)

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

    def _end(self, change: Change) -> None:
        self.changes.remove(change)
        self.certain &= change.certain
        save = change.save
        if save is not None and not change.certain:
            save.over = True
        elif save is not None:
            self.bytes += change.size - (save.replaced or 0)
            self.files += save.replaced is None
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
                self.files = max(self.files - (counted is not None), 0)
                self.bytes = max(self.bytes - (counted or 0), 0)
                self._now_has(reference.name, None)

    def _counted(self, gone: Reference) -> int | None:
        """Return the size that the sums have for a file that is gone now, None for no file.

        That is not its own size if an uncertain save of its name is not in the sums yet.
        """
        for save in tuple(self.saves):
            if save.over and save.name == gone.name:
                return save.replaced
        return gone.size

    def _now_has(self, name: str, size: int | None) -> None:
        """Set the size of the file that saves of that name replace, None for no file."""
        for save in tuple(self.saves):
            if save.name == name:
                save.replaced = size

    def leave(self, save: Reservation) -> None:
        if save in self.saves:
            self.saves.remove(save)


def limited_bytes(backend: Backend) -> int:
    """Return the bytes that ``max_store`` limits."""
    if isinstance(backend, ReclaimsLate):
        return backend.referred().bytes
    return backend.stored().bytes


class QuotaLedger:
    """Admits saves of one store, chunk by chunk.

    ``make_room(n, sid)`` is called to free ``n`` bytes before a save into the session ``sid`` is
    refused for ``max_store``. It returns whether it deleted a file.
    """

    def __init__(
        self, limits: Limits, backend: Backend, make_room: Callable[[int, str], bool]
    ) -> None:
        self.limits = limits
        self.limited: Final = limits != Limits()
        """Whether any limit is set."""
        self._sums = limits.max_session is not None or limits.max_session_files is not None
        self._backend = backend
        self._make_room = make_room
        self._lock = threading.RLock()
        self._making_room = threading.RLock()
        self._tallies: OrderedDict[str, _SessionQuota] = OrderedDict()
        self._total = 0
        self._coming = 0
        self.added = 0
        """The bytes that saves of this process have added to the total."""
        self._full_at: datetime | None = None
        """When nothing could make room, unless a session has ended or files were removed since."""
        if limits.min_free is not None and not isinstance(backend, HasFreeSpace):
            raise SettingsError(
                f"invalid min_free={limits.min_free}: this backend is not on a disk; leave it "
                "out, or set max_store."
            )
        self.recount()

    def use(self, backend: Backend) -> None:
        """Use ``backend`` from now on: the same backend with a wrapper around it."""
        self._backend = backend

    @property
    def total(self) -> int | None:
        """The bytes that ``max_store`` limits, as far as is known; None without the limit."""
        return None if self.limits.max_store is None else self._total

    def recount(self, total: int | None = None, added: int = 0) -> None:
        """Read the store's total again if ``max_store`` is set. A sweep calls this.

        ``total`` is what a sweep counted, which began when ``self.added`` was ``added``. Saves
        since then may be in both: the total is too high rather than too low.
        """
        if self.limits.max_store is not None:
            if total is None:
                total, added = limited_bytes(self._backend), self.added
            with self._lock:
                self._total = total + self.added - added
            self.may_have_room()

    def may_have_room(self) -> None:
        """Forget that nothing could make room: a session has ended, or files were removed."""
        self._full_at = None

    def join(self, save: Reservation) -> None:
        """Add the save to the sums of its session, if a limit needs them."""
        if not self._sums:
            return
        tally = save.tally = self._tally(save.sid)
        limit = self.limits.max_session_files
        try:
            with tally.lock:
                self.refresh(tally, save.sid)
                if not save.fresh:
                    save.replaced = self._replaced(tally, save)
                tally.saves.append(save)
                new = {each.name for each in tuple(tally.saves) if each.replaced is None}
                full = limit is not None and tally.files + len(new) > limit
                refused = full and save.replaced is None
        except BaseException:
            self.leave(save)
            raise
        if refused:
            self.leave(save)
            raise LimitExceeded(
                f"The session has {tally.files} files and max_session_files={limit}: delete some "
                f"before saving {save.name!r}.",
                limit="max_session_files",
            )

    def leave(self, save: Reservation) -> None:
        if save.tally is not None:
            with save.tally.lock:
                if not save.over:
                    save.tally.leave(save)
            self._release(save.sid, save.tally)
        self.release(save)

    def refresh(self, tally: _SessionQuota, sid: str) -> bool:
        """Refresh the sums from a listing if it is due; return whether it was.

        The caller holds the lock.
        """
        now = self._backend.now()
        if due := tally.is_due(now):
            tally.listed(self._backend.files(sid), now)
        return due

    def _replaced(self, tally: _SessionQuota, save: Reservation) -> int | None:
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

    def _tally(self, sid: str) -> _SessionQuota:
        """Return the session's sums. While they are in use a session has only one such object."""
        with self._lock:
            tally = self._tallies.setdefault(sid, _SessionQuota())
            self._tallies.move_to_end(sid)
            tally.users += 1
            while len(self._tallies) > _REMEMBERED:
                unused = (key for key, sums in self._tallies.items() if not sums.users)
                if (oldest := next(unused, None)) is None:
                    break
                del self._tallies[oldest]
        return tally

    def _release(self, sid: str, tally: _SessionQuota) -> None:
        with self._lock:
            tally.users -= 1
            if not tally.users and tally.at is None:  # without a listing they are not kept
                self._tallies.pop(sid, None)

    def keep(self, save: Reservation, put: Callable[[], Saved]) -> Saved:
        """Have the backend save a file by ``put()``, and note the outcome."""
        if save.tally is None:
            saved = put()
        else:
            with save.tally.working(Change(frozenset([save.name]), save)) as change:
                saved = put()
                change.size = saved.reference.size
        self.release(save, kept=0 if saved.deduplicated else saved.reference.size)
        return saved

    @contextlib.contextmanager
    def removing(self, sid: str, names: Iterable[str] | None = None) -> Iterator[Change]:
        """Surround the backend's removal of files of these names, or a drop of the session.

        The block sets ``gone`` or ``dropped`` of the yielded change.
        """
        change = Change(None if names is None else frozenset(names))
        self.may_have_room()
        if not self._sums:
            yield change
            return
        tally = self._tally(sid)
        try:
            with tally.working(change):
                yield change
        finally:
            self._release(sid, tally)

    def reserve(self, save: Reservation, count: int) -> None:
        """Reserve ``count`` more bytes of the whole store's limit for a save, or refuse it."""
        limit = self.limits.max_store
        if limit is None or self._reserve(save, count, limit) <= 0:
            return
        # One thread at a time. It reads the sum first: others may have evicted or deleted files.
        # Not just after a refusal: then only files of live sessions were left.
        with self._making_room:
            lacking = self._reserve(save, count, limit)
            full = self._full_at
            if lacking > 0 and (full is None or self._backend.now() - full >= _FULL):
                lacking = self._reserve(save, count, limit, limited_bytes(self._backend))
                if lacking > 0 and save.reserved + count <= limit:
                    freed = self._make_room(max(lacking, limit // _SHARE), save.sid)
                    total = limited_bytes(self._backend) if freed else None
                    lacking = self._reserve(save, count, limit, total)
                    self._full_at = self._backend.now() if lacking > 0 else None
        if lacking > 0:
            raise LimitExceeded(
                f"Saving {save.name!r} would take the store over max_store={show_size(limit)}, and "
                "only files of live sessions are left to delete: wait for visitors to leave, or "
                "raise the limit.",
                limit="max_store",
            )

    def _reserve(self, save: Reservation, count: int, limit: int, total: int | None = None) -> int:
        """Reserve ``count`` bytes if they fit; return how many bytes are lacking.

        ``total`` is the store's total if it was read again.
        """
        with self._lock:
            self._total = self._total if total is None else total
            lacking = self._total + self._coming + count - limit
            if lacking <= 0:
                self._coming += count
                save.reserved += count
            return lacking

    def release(self, save: Reservation, kept: int = 0) -> None:
        """Release the bytes that a save has reserved; ``kept`` bytes of them are content now."""
        if self.limits.max_store is None:
            return
        with self._lock:
            self._coming -= save.reserved
            save.reserved = 0
            self._total += kept
            self.added += kept

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
class Reservation:
    """One save in progress, for the block in which it is used.

    Entering it raises LimitExceeded if the session has its maximum number of files.

    ``replaced`` is the size that the session's sums have for the file of that name, None for no
    file. ``taken`` is the number of bytes admitted so far, ``reserved`` the number reserved of
    ``max_store``. ``over``: the save has ended, and the next listing shows whether its file exists.
    """

    ledger: QuotaLedger
    sid: str
    name: str
    fresh: bool
    tally: _SessionQuota | None = None
    replaced: int | None = None
    taken: int = 0
    reserved: int = 0
    over: bool = False

    def __enter__(self) -> Self:
        self.ledger.join(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.ledger.leave(self)

    def admit(self, count: int) -> None:
        limits = self.ledger.limits
        taken = self.taken + count
        if limits.max_file is not None and taken > limits.max_file:
            raise LimitExceeded(
                f"{self.name!r} is larger than max_file={show_size(limits.max_file)}: save a "
                "smaller file, or raise the limit.",
                limit="max_file",
            )
        self.ledger.reserve(self, count)
        self.ledger.check_free(count, self.name)
        tally, limit = self.tally, limits.max_session
        if tally is None or limit is None:
            self.taken = taken
            return
        with tally.lock:
            if not self._fits(tally, limit, count) and not (
                self.ledger.refresh(tally, self.sid) and self._fits(tally, limit, count)
            ):
                raise LimitExceeded(
                    f"Saving {self.name!r} would take the session over "
                    f"max_session={show_size(limit)}: delete some of its files first.",
                    limit="max_session",
                )
            self.taken = taken

    def _fits(self, tally: _SessionQuota, limit: int, count: int) -> bool:
        before = tally.coming_bytes()
        self.taken += count
        after = tally.coming_bytes()
        self.taken -= count
        # Bytes that add nothing are admitted, even if the session exceeds a limit set later.
        return after == before or tally.bytes + after <= limit
