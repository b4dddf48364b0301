"""``max_store``: the sum that it limits, and the thread that makes room before the store is full.

A save makes no request for the limit. The thread does: it reads the sum, and deletes files of the
sessions that were not used for longest (``eviction.py``). It begins when little is free, so
that saves seldom wait for it.
"""

from __future__ import annotations

import heapq
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Final, Protocol

from sessionstore.errors import LimitExceeded
from sessionstore.model import SessionRecord, Stored
from sessionstore.parsers import show_size

log: Final = logging.getLogger("sessionstore")

_BEGIN: Final = 40
"""The thread makes room when less than this part of the limit is free."""

_ENOUGH: Final = 20
"""It frees this part: on a bucket each time lists the whole store."""

_FULL: Final = timedelta(seconds=10)
"""So long, at least, it is remembered that nothing can make room."""

_A_PAGE = timedelta(seconds=4)
"""And so long for each 1,000 blobs: three listings in that time are 2,700 requests an hour."""

_OLDEST = 20_000
"""Sessions that are remembered for eviction."""

_AGAIN: Final = 2
"""Times that the sum is read again before a refusal, because saves ended meanwhile."""


class Oldest:
    """The sessions that were not used for longest, of those that it sees; in bounded memory."""

    def __init__(self) -> None:
        self._newest_first: list[tuple[float, str]] = []  # a heap
        self._sorted = False
        self.is_cut: bool = False
        """Whether it saw more than it keeps."""

    def see(self, record: SessionRecord) -> None:
        """Keep the session if it is among the oldest, and has files."""
        if record.empty:
            return
        one, self._sorted = (-record.active.timestamp(), record.sid), False
        if len(self._newest_first) < _OLDEST:
            heapq.heappush(self._newest_first, one)
        else:
            heapq.heappushpop(self._newest_first, one)
            self.is_cut = True

    def first(self) -> tuple[str, float] | None:
        """Return the oldest session and the time of its last activity; None if there is none."""
        if not self._sorted:
            self._newest_first.sort()
            self._sorted = True
        if not self._newest_first:
            return None
        active, sid = self._newest_first[-1]
        return sid, -active

    def forget_first(self) -> None:
        self._newest_first.pop()


class Save(Protocol):
    """A save in progress; ``reserved`` is the number of bytes reserved for it."""

    sid: str
    reserved: int

    @property
    def shown(self) -> str:
        """The name of its file, for messages."""
        ...


class StoreQuota:
    """The bytes of all content, those of saves in progress, and the thread that makes room."""

    def __init__(
        self,
        limit: int | None,
        count: Callable[[], Stored],
        evict: Callable[[], Iterator[int]],
        now: Callable[[], datetime],
    ) -> None:
        """Configure the quota of ``limit`` bytes; None for no limit.

        ``count()`` returns what is limited, and may list the whole store. ``evict()`` deletes
        files, oldest first, none of a session that is ``spared``, about as many bytes as are
        ``wanted``. It yields the size of each part.
        """
        self.limit: Final = limit
        self._read = count
        self._evict = evict
        self._now = now
        self._changed = threading.Condition()
        self._sum = 0
        self._coming = 0
        self._freed = 0
        self._doubted = 0
        self.oldest: Oldest = Oldest()
        """The sessions to evict first, as the last sweep or the last listing has seen them."""
        self._waiting: dict[Save, int] = {}
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._failed = 0
        self._news = 0
        self._full_until: datetime | None = None
        """Nothing can make room until then, unless a session ends or files are removed before."""
        self._closed = False
        self.added: int = 0
        """The bytes that saves of this process have added to the total."""

    @property
    def total(self) -> int | None:
        """The bytes that are limited, as far as is known; None without a limit."""
        return None if self.limit is None else self._sum

    def recount(self, total: int | None = None, added: int = 0) -> None:
        """Read the sum again if there is a limit. A sweep calls this.

        ``total`` is what a sweep counted, which began when ``self.added`` was ``added``. Saves
        since then may be in both: the sum is too high rather than too low.
        """
        if self.limit is not None:
            if total is None:
                total, added = self._read().bytes, self.added
            with self._changed:
                self._sum = total + self.added - added
            self.may_have_room()

    def may_have_room(self) -> None:
        """Forget that nothing could make room: a session has ended, or files were removed."""
        if self.limit is None:
            return
        with self._changed:
            if self._thread is not threading.current_thread():  # which reads the sum itself
                self._news += 1
            self._full_until = None
            self._changed.notify_all()

    def reserve(self, save: Save, count: int) -> None:
        """Reserve ``count`` more bytes for a save, or raise LimitExceeded.

        If they do not fit, waits until there is room for them, or nothing left that can make room.
        """
        limit = self.limit
        if limit is None:
            return
        with self._changed:
            if self._fits(save, count, limit):
                return
            if save.reserved + count <= limit and self._waits(save, count, limit):
                return
        raise LimitExceeded(
            f"Saving {save.shown!r} would take the store over max_store={show_size(limit)}, "
            "and only files of live sessions are left to delete: wait for visitors to leave, "
            "or raise the limit.",
            limit="max_store",
        )

    def _fits(self, save: Save, count: int, limit: int) -> bool:
        """Reserve the bytes if there is room for them; return whether there was."""
        fits = self._sum + self._coming + count <= limit
        if fits:
            self._coming += count
            save.reserved += count
        return fits

    def _waits(self, save: Save, count: int, limit: int) -> bool:
        """Wait for the bytes to fit; return whether they are reserved. The caller holds the lock.

        Raises the error of the thread if it fails.
        """
        failed = self._failed
        self._waiting[save] = count
        try:
            while not self._fits(save, count, limit):
                # A callback of the thread's own events would wait for itself.
                if self._thread is threading.current_thread() or not self._start():
                    return False
                self._changed.wait()
                if self._failed != failed and self._error is not None:
                    raise self._error
        finally:
            del self._waiting[save]
        return True

    def release(self, save: Save, kept: int = 0) -> None:
        """Release the bytes that a save has reserved; ``kept`` bytes of them are content now."""
        if self.limit is None:
            return
        with self._changed:
            self._coming -= save.reserved
            save.reserved = 0
            self._sum += kept
            self.added += kept
            if self._waiting:
                self._changed.notify_all()
            free = self.limit - self._sum - self._coming
            # Only after a save, whose session is live by now.
            if kept and free < self.limit // _BEGIN:
                self._start()

    def close(self) -> None:
        """End the thread after its present request, and refuse what does not fit."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    # The thread

    def _start(self) -> bool:
        """Have the thread make room; return False if it cannot. The caller holds the lock."""
        if self._thread is None or not self._thread.is_alive():  # after a fork
            if self._closed or (self._is_full() and not (self._waiting and self._doubted)):
                return False
            self._thread = threading.Thread(target=self._run, name="sessionstore-room", daemon=True)
            self._thread.start()
        return True

    def _is_full(self) -> bool:
        return self._full_until is not None and self._now() < self._full_until

    def _run(self) -> None:
        try:
            while not self._round():
                pass
        except Exception as error:  # noqa: BLE001 - raised by the saves that wait
            with self._changed:
                if not self._waiting:
                    log.warning("No room could be made for max_store: %s", error)
                self._error = error
                self._failed += 1
        finally:
            with self._changed:
                self._thread = None
                self._changed.notify_all()

    def _round(self) -> bool:
        """Make room; return whether that is done, or cannot be.

        Not if a session has ended meanwhile, or files were removed, and room is still lacking.
        """
        with self._changed:
            news = self._news
        blobs = self._count()  # first: others may have deleted files
        parts, again = self._evict(), _AGAIN
        while (lacking := self._lacking()) > 0:
            if self._freed >= lacking:  # summed only now: deleted files may share content
                self._count()
            elif (size := next(parts, None)) is not None:
                self._freed += size
            elif self._freed:
                self._count()
            elif self._doubted and self._waiting:
                again -= 1
                self._doubt(again)
            else:
                return self._ends(news, blobs)
        return True

    def spared(self) -> set[str]:
        """Return the sessions of the saves that wait."""
        with self._changed:
            return {save.sid for save in self._waiting}

    def wanted(self) -> int:
        """Return how many bytes are lacking beside those that were freed."""
        return self._lacking() - self._freed

    def _ends(self, news: int, blobs: int) -> bool:
        """Note that nothing can make room, unless there is news."""
        with self._changed:
            if news != self._news and not self._closed:
                return False
            full = max(_FULL, blobs // 1000 * _A_PAGE)
            self._full_until = self._now() + full
        return True

    def _count(self) -> int:
        """Read the sum, and let the saves go on that fit now; return the number of blobs.

        A save that ends meanwhile may be in what was read: it is counted, and noted as doubted.
        """
        added = self.added
        found = self._read()
        with self._changed:
            self._doubted = self.added - added
            self._sum, self._freed = found.bytes + self._doubted, 0
            self._changed.notify_all()
        return found.blobs

    def _doubt(self, again: int) -> None:
        """Read the sum again, or leave out what may be in it twice: no save is refused for that."""
        if again >= 0:
            self._count()
        else:
            with self._changed:
                self._sum, self._doubted = self._sum - self._doubted, 0
                self._changed.notify_all()

    def _lacking(self) -> int:
        """Return how many bytes are lacking: for a save that waits, else until enough is free."""
        limit = self.limit or 0
        with self._changed:
            if self._closed:
                return 0
            used = self._sum + self._coming - limit
            urgent = max((used + count for count in self._waiting.values()), default=0)
            return urgent if urgent > 0 else used + limit // _ENOUGH
