"""How much may be kept, enforced while the bytes come in."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Self

from sessionstore.backend import Backend, HasFreeSpace, ReclaimsLate, Saved
from sessionstore.errors import FileNotStored, LimitExceeded, SettingsError
from sessionstore.values import show_size

_REMEMBERED = 4096
"""Sessions whose sums a process keeps at hand; any other is summed up again when it saves."""

_REFRESH = timedelta(seconds=60)
"""How long a sum is trusted: this is how far other replicas' saves can go unseen."""


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
    """All content, each blob once: the last sweep's total and what this process saved since. Bytes
    on their way in count before it is known whether they are there already. Before a save is
    refused for it, files of sessions that are not live make room, oldest first. On object stores it
    is the content of all files; what was deleted takes room there until it is collected."""

    min_free: int | None = None
    """What the disk must have free after a save, for backends on a disk."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None and (type(value) is not int or value < 0):
                raise SettingsError(
                    f"{each.name}={value!r} is not right: give a whole number from 0, or None."
                )


@dataclass(slots=True, eq=False)
class _Tally:
    """The sums of one session: what is there, and what saves on their way in may add to it."""

    # Reentrant, because a writer that is garbage-collected lets go of its share wherever its thread
    # happens to be.
    lock: threading.RLock = field(default_factory=threading.RLock)
    bytes: int = 0
    files: int = 0
    saves: list[Admission] = field(default_factory=list)
    users: int = 0
    at: datetime | None = None

    def coming_files(self) -> int:
        """The most files that the saves under way can add."""
        return len({save.name for save in self.saves if save.replaced is None})

    def coming_bytes(self) -> int:
        """The most bytes that the saves under way can add, whichever of them fail.

        Several under one name leave one file. One that replaces a file adds only what is beyond it,
        and frees nothing before it is done.
        """
        most: dict[str, int] = {}
        for save in self.saves:
            growth = save.taken - (save.replaced or 0)
            most[save.name] = max(most.get(save.name, 0), growth)
        return sum(most.values())

    def now_has(self, name: str, size: int | None) -> None:
        """Tell the saves of that name what they replace now: so many bytes, None for nothing."""
        for save in self.saves:
            if save.name == name:
                save.replaced = size

    def leave(self, save: Admission) -> None:
        """A save is over, done or not. Twice is no error."""
        if save in self.saves:
            self.saves.remove(save)


def limited_bytes(backend: Backend) -> int:
    """The bytes that ``max_store`` limits."""
    if isinstance(backend, ReclaimsLate):
        return backend.referred().bytes
    return backend.stored().bytes


class Ledger:
    """Admits saves of one store, chunk by chunk.

    ``make_room(n, sid)`` is asked to free ``n`` bytes before a save into the session ``sid`` is
    refused for ``max_store``.
    """

    def __init__(
        self, limits: Limits, backend: Backend, make_room: Callable[[int, str], None]
    ) -> None:
        self.limits = limits
        self._limited = limits != Limits()
        self._backend = backend
        self._make_room = make_room
        self._lock = threading.RLock()
        self._making_room = threading.RLock()
        self._tallies: OrderedDict[str, _Tally] = OrderedDict()
        self._total = 0
        self._coming = 0
        if limits.min_free is not None and not isinstance(backend, HasFreeSpace):
            raise SettingsError(
                f"min_free={limits.min_free} is not right: this backend is not on a disk; leave it "
                "out, or set max_store."
            )
        self.recount()

    def use(self, backend: Backend) -> None:
        """Ask this backend from now on: the same one, with something around it."""
        self._backend = backend

    def recount(self) -> None:
        """Take the store's total anew, where a limit asks for it. A sweep does this."""
        if self.limits.max_store is not None:
            total = limited_bytes(self._backend)
            with self._lock:
                self._total = total

    def admission(self, sid: str, name: str, *, fresh: bool) -> Admission | Unlimited:
        """Around one save: entering raises LimitExceeded when the session has all its files."""
        return Admission(self, sid, name, fresh) if self._limited else _UNLIMITED

    def join(self, save: Admission) -> None:
        """Make the save one of its session's, where a limit counts those."""
        if self.limits.max_session is None and self.limits.max_session_files is None:
            return
        save.tally = self._tally(save.sid)
        try:
            self._join(save.tally, save)
        except BaseException:
            self.leave(save)
            raise

    def leave(self, save: Admission) -> None:
        """The save is over, done or not."""
        if save.tally is not None:
            with save.tally.lock:
                save.tally.leave(save)
            with self._lock:
                save.tally.users -= 1
        self.let_go(save)

    def _join(self, tally: _Tally, save: Admission) -> None:
        with tally.lock:
            self._refresh(tally, save.sid)
            if not save.fresh:
                with contextlib.suppress(FileNotStored):
                    save.replaced = self._backend.get(save.sid, save.name).size
            tally.saves.append(save)
            limit = self.limits.max_session_files
            added = save.replaced is None
            if limit is not None and added and tally.files + tally.coming_files() > limit:
                raise LimitExceeded(
                    f"The session has {tally.files} files and max_session_files={limit}: delete "
                    f"some before saving {save.name!r}."
                ).over("max_session_files")

    def _tally(self, sid: str) -> _Tally:
        """The session's sums. While they are used they are the only ones of the session."""
        with self._lock:
            tally = self._tallies.setdefault(sid, _Tally())
            self._tallies.move_to_end(sid)
            tally.users += 1
            while len(self._tallies) > _REMEMBERED:
                unused = (each for each, it in self._tallies.items() if not it.users)
                if (oldest := next(unused, None)) is None:
                    break
                del self._tallies[oldest]
        return tally

    def _refresh(self, tally: _Tally, sid: str) -> None:
        """Read the sums from the backend when they are not at hand or old, and no save is on."""
        now = self._backend.now()
        if not tally.saves and (tally.at is None or now - tally.at > _REFRESH):
            sizes = [reference.size for reference in self._backend.files(sid)]
            tally.bytes, tally.files, tally.at = sum(sizes), len(sizes), now

    def removed(self, sid: str, name: str, size: int) -> None:
        """Note that a file was deleted."""
        with self._lock:
            tally = self._tallies.get(sid)
        if tally is not None:
            with tally.lock:
                tally.files, tally.bytes = max(tally.files - 1, 0), max(tally.bytes - size, 0)
                tally.now_has(name, None)

    def forget(self, sid: str) -> None:
        """Note that a session was dropped."""
        with self._lock:
            tally = self._tallies.get(sid)
        if tally is not None:
            with tally.lock:
                tally.files = tally.bytes = 0
                for save in tally.saves:
                    save.replaced = None

    def take_of_store(self, save: Admission, count: int) -> None:
        """Reserve ``count`` more bytes of the whole store's limit for a save, or refuse it."""
        limit = self.limits.max_store
        if limit is None or self._reserve(save, count, limit) <= 0:
            return
        # One at a time, and the sum first: others may have made room, or deleted files.
        with self._making_room:
            lacking = self._reserve(save, count, limit, limited_bytes(self._backend))
            if lacking > 0 and save.reserved + count <= limit:
                self._make_room(lacking, save.sid)
                lacking = self._reserve(save, count, limit, limited_bytes(self._backend))
        if lacking > 0:
            raise LimitExceeded(
                f"Saving {save.name!r} would take the store over max_store={show_size(limit)}, and "
                "nothing may be deleted for it but files of live sessions: wait for visitors to "
                "leave, or raise the limit."
            ).over("max_store")

    def _reserve(self, save: Admission, count: int, limit: int, total: int | None = None) -> int:
        """Reserve, if they fit, ``count`` bytes; how many are lacking. ``total``: taken anew."""
        with self._lock:
            self._total = self._total if total is None else total
            lacking = self._total + self._coming + count - limit
            if lacking <= 0:
                self._coming += count
                save.reserved += count
            return lacking

    def let_go(self, save: Admission, kept: int = 0) -> None:
        """Give back what a save has reserved; ``kept`` bytes of it are content now."""
        if self.limits.max_store is None:
            return
        with self._lock:
            self._coming -= save.reserved
            save.reserved = 0
            self._total += kept

    def check_free(self, coming: int, name: str) -> None:
        """Refuse to write ``coming`` more bytes when the disk would be left with too little."""
        limit = self.limits.min_free
        if limit is not None and isinstance(self._backend, HasFreeSpace):
            free = self._backend.free()
            if free - coming < limit:
                raise LimitExceeded(
                    f"Saving {name!r} would leave less than min_free={show_size(limit)} on the "
                    f"disk, which has {show_size(free)}: free some space."
                ).over("min_free")


@dataclass(slots=True, eq=False)
class Admission:
    """One save on its way in, for the block it is used in.

    ``replaced`` is the size of the file that it replaces as things are, None when it replaces none;
    ``taken`` is how many of its bytes have been admitted, ``reserved`` how many of ``max_store``.
    """

    ledger: Ledger
    sid: str
    name: str
    fresh: bool
    tally: _Tally | None = None
    replaced: int | None = None
    taken: int = 0
    reserved: int = 0

    def __enter__(self) -> Self:
        self.ledger.join(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.ledger.leave(self)

    def admit(self, count: int) -> None:
        """Admit ``count`` more bytes, or raise LimitExceeded."""
        limits = self.ledger.limits
        taken = self.taken + count
        if limits.max_file is not None and taken > limits.max_file:
            raise LimitExceeded(
                f"{self.name!r} is larger than max_file={show_size(limits.max_file)}: save a "
                "smaller file, or raise the limit."
            ).over("max_file")
        self.ledger.take_of_store(self, count)
        self.ledger.check_free(count, self.name)
        if self.tally is None:
            self.taken = taken
        else:
            self._admit_to_session(self.tally, count)

    def _admit_to_session(self, tally: _Tally, count: int) -> None:
        limit = self.ledger.limits.max_session
        with tally.lock:
            before = tally.coming_bytes()
            self.taken += count
            after = tally.coming_bytes()
            # What adds nothing is let in even when the session is over a limit set since.
            if limit is not None and after > before and tally.bytes + after > limit:
                self.taken -= count
                raise LimitExceeded(
                    f"Saving {self.name!r} would take the session over "
                    f"max_session={show_size(limit)}: delete some of its files first."
                ).over("max_session")

    def settle(self, saved: Saved) -> None:
        """Note what the save did."""
        size, old = saved.reference.size, saved.replaced
        self.ledger.let_go(self, kept=0 if saved.deduplicated else size)
        if self.tally is not None:
            # At one instant, or another save would find these bytes both there and coming.
            with self.tally.lock:
                self.tally.leave(self)
                self.tally.bytes += size - (old.size if old is not None else 0)
                self.tally.files += old is None
                self.tally.now_has(self.name, size)


class Unlimited:
    """The admission of every save where there is no limit: nothing is counted."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def admit(self, count: int) -> None:
        pass

    def settle(self, saved: Saved) -> None:
        pass


_UNLIMITED = Unlimited()
