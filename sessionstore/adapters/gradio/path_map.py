"""The map from paths in Gradio's cache to files in the store, and back.

The map is in the store itself, so every replica has it:

* A file that an event of a visitor handled is a file of the visitor's session. Its name is its
  cache path below ``@/``.
* The request of an upload names no session. Until an event uses the upload, it is in the private
  session *unclaimed* of its owner, with a time to live of its own. A file made by a call without a
  session is there too.
* A request for a file names no session either, only its owner. The private session *tabs* of an
  owner has an empty file for each of the owner's sessions that has files.
* A client that is no page gets a path that names session and file and proves by an HMAC that it was
  given out: a link. It needs neither owner nor list, and ends with the file.
* The files that the app itself has (component defaults, examples) are *pinned*: they are in one
  private session, with a time to live. Every process that has the app attached renews it.

A process caches its lookups for ``RECHECK`` seconds and then looks in the store again. So a file
that is deleted anywhere is served nowhere after that time.
"""

from __future__ import annotations

import contextlib
import contextvars
import hmac
import io
import logging
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, TypeVar

from sessionstore import content, images
from sessionstore._threads import Deferred, run_together
from sessionstore.adapters.gradio.cache import CacheDir, Stamp
from sessionstore.adapters.gradio.paths import REMEMBERED, CachePaths, LocationCache, Pointer
from sessionstore.adapters.gradio.presence import Visitor
from sessionstore.content import verified
from sessionstore.errors import BackendUnavailable, Corrupted, FileNotStored, SessionStoreError
from sessionstore.local_copies import RECHECK
from sessionstore.model import Reference, SessionKey
from sessionstore.names import (
    HIDDEN,
    decode,
    encode,
    file_name,
    private_key,
    session_key,
    shared_key,
)
from sessionstore.session import Session, Source

if TYPE_CHECKING:
    from sessionstore.store import SessionStore
    from sessionstore.storedfile import StoredFile

T = TypeVar("T")

UNCLAIMED: Final = timedelta(hours=6)
"""The time until an unused upload is deleted: a form may be left open over lunch."""

HISTORY_SIZE: Final = 256 << 20
"""The most bytes of files in the run history of one owner."""

_TABS_SEARCHED: Final = 100
"""The most sessions of one owner in which a file is searched; a visitor has a few tabs."""

_LOOKS: Final = 4
"""The most sessions in a bucket that are asked for a file at the same time."""

_SETTLED: Final = timedelta(seconds=2)
"""Lists used more recently are not deleted: some stores count in whole seconds."""

_TRIES: Final = 10
_LOCKS: Final = 64
_SMALL: Final = 64 << 10
"""Bytes up to which a file is hashed on the event loop.

That takes about 50 microseconds, less than the use of a worker thread.
"""

_SOURCES: Final = 32 << 20
"""The most bytes of files just saved that are remembered for events that return them."""

_LOGGED: Final = 100
"""The most refused links that are logged: a visitor can make up any number."""

_is_hashed = re.compile(r"[0-9a-f]{64}/").match
"""Matches the paths that Gradio makes, also in an earlier process for its visitors."""

_EVERYONE: Final = ""
"""The visitor in the path of a file that everyone may read. No owner is the empty string."""

_LINK: Final = "everyone with the link"
"""The visitor in the path of a file that everyone who has this path may read."""

log: Final = logging.getLogger("sessionstore")


class KeptSession(Session):
    """A session with paths in Gradio's cache as file names."""

    __slots__ = ()

    def _named(self, name: str) -> str:
        return file_name(HIDDEN + name)

    def refer(self, name: str, known: Reference) -> Reference:
        """Save a file with the bytes of ``known``; raise _Needed if the store must have them again.

        So it is for a backend that adopts the bytes that it has, by their digest.
        """
        with self.pending_save(self._named(name), None, fresh=False) as saving:
            if saving.reservation is not None:
                saving.reservation.admit(known.size)
            bytes_ = content.Content(known.digest, known.size, spool=_Absent())
            return saving.keep(bytes_).reference


class _Needed(Exception):
    """The bytes of a content are needed that were not given."""


class _Absent(content.TempSpool):
    """A spool without the bytes."""

    def __init__(self) -> None:
        """Make no file."""

    @property
    def file(self) -> Any:  # type: ignore[override]  # nothing sets it
        raise _Needed

    def chunks(self) -> Iterator[bytes]:
        raise _Needed

    def close(self) -> None:
        """Close nothing."""


class VisitorSession(Session):
    """The session of a visitor, whose new files the page gets without a request to the store."""

    __slots__ = ("_cache",)

    def __init__(self, store: SessionStore, key: SessionKey, files: CacheFiles) -> None:
        super().__init__(store, key)
        self._cache = files

    def __reduce__(self) -> tuple[Any, ...]:
        return Session(self.store, self.key).__reduce__()

    def _save(
        self, name: str, content: Source, ttl: timedelta | None, *, fresh: bool
    ) -> StoredFile:
        if images.is_image(content):
            content = images.encode(content, PurePath(name).suffix)
        file = super()._save(name, content, ttl, fresh=fresh)
        if type(content) is bytes or isinstance(content, os.PathLike):
            self._cache.saved_here(self.sid, file.reference, content)
        return file


class _Source(NamedTuple):
    """The bytes of a file that was saved here ``at`` that time, or a local file with them."""

    reference: Reference
    content: bytes | os.PathLike[str]
    at: float


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of the cache: its name, its session in the store and its version."""

    name: str
    sid: str
    reference: Reference


class CacheFiles:
    """The files of one store that appear in Gradio's cache directory, for one process."""

    def __init__(
        self,
        store: SessionStore,
        paths: CachePaths,
        local: CacheDir,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.paths = paths
        self.local = local
        self.seen: Final = LocationCache(seconds)
        self._lock = threading.Lock()
        self._listed: OrderedDict[tuple[str, str], datetime] = OrderedDict()
        self.dropped: OrderedDict[str, str] = OrderedDict()
        """The sessions of files that were deleted with them, by name, at most ``REMEMBERED``."""
        self._deferred = Deferred()
        self._sources: OrderedDict[tuple[str, str], _Source] = OrderedDict()
        self._listing = [threading.Lock() for _ in range(_LOCKS)]
        self._pinned: dict[str, Reference] = {}
        self._logged: set[str] = set()
        self.serving_since: Final = time.time_ns()
        self._pins = KeptSession(store, private_key("gradio pinned"))
        self.history: timedelta | None = None
        """The time for which the files of a page's run history are kept, None for no such time."""

    # Lookup

    def known(self, owner: str | None, name: str) -> FoundFile | None:
        """Return the file if this process saw it within the last ``RECHECK`` seconds. No I/O."""
        if name in self._pinned:
            return FoundFile(name, self._pins.sid, self._pinned[name])
        fresh = self.seen.fresh(owner, name)
        return None if fresh is None else FoundFile(name, *fresh)

    def find(self, owner: str | None, name: str) -> FoundFile | None:
        """Return the file if it belongs to the owner or to everyone. Raises BackendUnavailable."""
        if self.paths.kept(name) is None:
            return self._pointed(owner, name)
        found = self.known(owner, name)
        if found is not None:
            return found
        tried = set(sids := self.seen.sessions(owner, name))
        found = self._first(owner, name, sids)
        if found is not None:
            return found
        unclaimed = self.unclaimed(owner).sid
        looks: list[Callable[[], Any]] = [
            partial(self._look, unclaimed, owner, name),
            partial(self._sessions_of, owner),
        ]
        reference, others = self.together(looks)
        if reference is not None:
            return FoundFile(name, unclaimed, reference)
        found = self._first(owner, name, [sid for sid in others if sid not in tried])
        if found is None and self.at_once > 1:
            # Between the two requests an event may have moved the upload to a new session.
            tried.update(others)
            again = self._sessions_of(owner)
            found = self._first(owner, name, [sid for sid in again if sid not in tried])
        return found

    def _first(self, owner: str | None, name: str, sids: list[str]) -> FoundFile | None:
        """Return the file of the first session that has it. A bucket is asked for a few at once."""
        count = min(_LOOKS, self.at_once)
        for start in range(0, len(sids), count):
            part = sids[start : start + count]
            looks = [partial(self._look, sid, owner, name) for sid in part]
            for sid, reference in zip(part, self.together(looks), strict=True):
                if reference is not None:
                    return FoundFile(name, sid, reference)
        return None

    def _sessions_of(self, owner: str | None) -> list[str]:
        """List the sessions that the owner's files may be in, the newest first."""
        sids = []
        if owner is not None:
            tabs = self.store.backend.files(_tabs(owner).sid)
            newest = sorted(tabs, key=lambda tab: tab.created, reverse=True)
            sids = [tab.name for tab in newest[:_TABS_SEARCHED]]
        if owner is not None and self.history is not None:
            sids.append(self._runs(owner).sid)
        return [*sids, self._pins.sid]

    def _look(self, sid: str, owner: str | None, name: str) -> Reference | None:
        """Read the file's current version from the session; without one, drop the local copy."""
        reference = self._current(sid, owner, name)
        if reference is None:
            self.local.release(sid, [name])
        return reference

    def _current(self, sid: str, owner: str | None, name: str) -> Reference | None:
        """Like ``_look``, but keep the local copy: it may be saved next."""
        with contextlib.suppress(FileNotStored):
            reference = self.store.backend.get(sid, HIDDEN + name)
            if reference.expires is None or reference.expires > self.store.now():
                self.seen.add(owner, name, sid, reference)
                return reference
        self.seen.discard(sid, name)
        return None

    def _gone(self, sid: str, name: str) -> None:
        self.seen.discard(sid, name)
        self.local.release(sid, [name])

    # Local copies

    def ready(self, found: FoundFile) -> bool:
        """Return whether the file's bytes are on the local disk."""
        return self.local.ready(found.name, found.reference, found.sid)

    def fetch(self, found: FoundFile, equal: Path | None = None) -> Path:
        """Return the path of the local copy; fetch it first if it is missing.

        Raises FileNotStored, and the errors of ``CacheDir.make``.
        """
        # Another process that shares the directory may have made this copy.
        if self._is_unchanged(found):
            return self.local.path(found.name)
        make = partial(self.local.make, found.name, found.reference, found.sid)
        source = self._source(found)
        if source is not None:
            # The file of ``source`` may be gone, or have other bytes by now.
            with contextlib.suppress(OSError, Corrupted):
                return make(source)
        return make(lambda: self._open(found), equal)

    def saved_here(self, sid: str, reference: Reference, content: bytes | os.PathLike[str]) -> None:
        """Remember the content of a file for ``RECHECK`` seconds: an event may return the file."""
        now = self.seen.seconds()
        with self._lock:
            self._sources.pop((sid, reference.name), None)
            self._sources[sid, reference.name] = _Source(reference, content, now)
            held = sum(_bytes_of(it) for it in self._sources.values())
            while self._sources:
                oldest = next(iter(self._sources.values()))
                if now - oldest.at < RECHECK and held <= _SOURCES:
                    break
                held -= _bytes_of(oldest)
                self._sources.popitem(last=False)

    def _source(self, found: FoundFile) -> Callable[[], BinaryIO] | None:
        """Return a function that opens the content of a file just saved here, else None."""
        reference = found.reference
        with self._lock:
            source = self._sources.get((found.sid, reference.name))
        if (
            source is None
            or source.reference != reference
            or self.seen.seconds() - source.at >= RECHECK
            or (reference.expires is not None and reference.expires <= self.store.now())
        ):
            return None

        def open_source() -> BinaryIO:
            data = source.content
            stream: Any = io.BytesIO(data) if isinstance(data, bytes) else open(data, "rb")  # noqa: SIM115 - closed with the stream around it
            return verified(stream, reference, self.store.backend.digest)

        return open_source

    def obtain(self, owner: str | None, name: str) -> FoundFile | None:
        """Find the file and fetch it. Return None when the owner has no such file.

        A file that moves to another session in between is searched again: an upload moves when
        an event of another replica uses it.
        """
        for _ in range(_TRIES):
            found = self.find(owner, name)
            if found is None:
                return None
            try:
                self.fetch(found)
            except FileNotStored:
                self._gone(found.sid, name)
            else:
                return found
        return None

    def _open(self, found: FoundFile) -> BinaryIO:
        try:
            return self.store.backend.open(found.sid, found.reference)
        except FileNotStored:
            if found.sid != self._pins.sid:
                raise
            return self.store.backend.open(found.sid, self._reread_pinned(found.name))

    def _reread_pinned(self, name: str) -> Reference:
        """Read a pinned file's version again: each process that starts saves the file again."""
        reference = self.store.backend.get(self._pins.sid, HIDDEN + name)
        if name in self._pinned:
            self._pinned[name] = reference
        return reference

    # Saving

    def keep_upload(self, owner: str | None, name: str) -> None:
        """Save an upload for ``UNCLAIMED``, until an event uses it. Raises as ``Session.put``."""
        try:
            self._keep(self.unclaimed(owner), owner, name, UNCLAIMED, whole=True)
        except BaseException:
            self.local.abandon(name)
            raise
        self.local.settle(name)
        self.local.make_room()

    def keep(self, visitor: Visitor | None, owner: str | None, name: str) -> FoundFile | None:
        """Save a file that an event of the visitor made. Cheap when it is already saved.

        Return None for a file that is not on the local disk and not in the store. Raises as
        ``Session.put``.
        """
        if self.paths.kept(name) is None or name in self._pinned:
            return self.obtain(owner, name)
        home = self.home(visitor, owner)
        mine = self._known_in(home.sid, owner, name)
        if mine is not None and (self.ready(mine) or self._is_unchanged(mine)):
            return mine
        if self.local.stamp(name) is None:
            return self.obtain(owner, name)
        return self._keep(home, owner, name, None if visitor else UNCLAIMED)

    def adopt(
        self, visitor: Visitor | None, owner: str | None, name: str, began: int
    ) -> FoundFile | None:
        """Save a local file for the visitor, or for everyone, if the app itself has written it.

        A visitor can have the app show a link to any path. So a file is taken only if no visitor
        has it: it is not marked as a copy, or it was written after ``began``, the beginning of the
        visitor's event. One that was there when the app started serving is pinned.
        """
        if self.paths.kept(name) is None or name in self._pinned:
            return None
        stamp = self.local.stamp(name)
        if stamp is None:
            return None
        settled = self.settled(visitor, owner, name)
        if settled is not None:
            return settled
        older, unmarked = stamp[0] < self.serving_since, self.local.is_of_the_app(name)
        rewritten = stamp[0] >= began and not self.local.is_copy(name, stamp)
        if older and unmarked and not _is_hashed(name):
            self.pin([name])
        elif not older and (unmarked or rewritten):
            return self.keep(visitor, owner, name)
        elif self.find(owner, name) is None:
            self._refused(name)
        return None

    def _refused(self, name: str) -> None:
        """Log, once for each file, that visitors cannot fetch it."""
        with self._lock:
            if name in self._logged or len(self._logged) >= _LOGGED:
                return
            self._logged.add(name)
        log.warning(
            "A visitor's page links to %s, which is not the visitor's file and was not written by "
            "this event: the page gets 403. Return the file itself, or write it in each event.",
            self.paths.absolute(name),
        )

    def settled(self, visitor: Visitor | None, owner: str | None, name: str) -> FoundFile | None:
        """Return the file if ``keep`` and ``claim`` need not do anything. Fit for an event loop."""
        pinned = self._pinned.get(name)
        if pinned is not None:
            found = FoundFile(name, self._pins.sid, pinned)
        else:
            home = self.home(visitor, owner)
            reference = self.seen.recent(owner, name, home.sid)
            # The visitor may have uploaded the file again: then that upload is to be claimed.
            again = visitor is not None and self.unclaimed(owner).sid in self.seen.sessions(
                owner, name
            )
            if reference is None or again:
                return None
            found = FoundFile(name, home.sid, reference)
        if self.ready(found):
            return found
        # Gradio writes a picture again each time it is shown, so a small one is compared here.
        small = found.reference.size <= _SMALL
        return found if small and self._is_unchanged(found) else None

    def _is_unchanged(self, found: FoundFile) -> bool:
        """Note a local file that was written again as a copy if it has the bytes in the store."""
        stamp = self.local.stamp(found.name)
        if stamp is None or stamp[1] != found.reference.size:
            return False
        hasher = content.hasher(self.store.backend.digest)
        try:
            with self.local.path(found.name).open("rb", buffering=0) as file:
                while chunk := file.read(content.CHUNK):
                    hasher.update(chunk)
        except OSError:
            return False
        if hasher.hexdigest() != found.reference.digest:
            return False
        self.local.note(found.name, found.reference, found.sid, stamp)
        return True

    def claim(self, visitor: Visitor | None, owner: str | None, name: str) -> FoundFile | None:
        """Move the input of an event into the visitor's session and return it.

        Return None when the owner has no such file. Raises BackendUnavailable, and as
        ``Session.put``.
        """
        if self.paths.kept(name) is None:
            return self.obtain(owner, name)
        home = self.home(visitor, owner)
        looks = [partial(self._known_in, home.sid, owner, name)]
        if visitor is not None and name not in self._pinned:
            # Another replica may have received the upload, so this looks in the store.
            looks.append(partial(self._known_in, self.unclaimed(owner).sid, owner, name, look=True))
        mine, *uploads = self.together(looks)
        ready = mine is not None and self.ready(mine)
        found = mine if ready else self.obtain(owner, name) or self._obtain_in(home, owner, name)
        if found is None or found.sid == self._pins.sid or visitor is None:
            return found
        claimed = found if found.sid == home.sid else self._claimed(home, owner, found)
        self._take_from_unclaimed(owner, name, *uploads)
        return claimed

    def _claimed(self, home: KeptSession, owner: str | None, found: FoundFile) -> FoundFile:
        """Save a file that another session has, without reading the bytes of a large one again."""
        stamp = self.local.stamp(found.name)
        large = found.reference.size > content.CHUNK and self.at_once > 1
        if large and stamp is not None and self._takes_temporary() and self.ready(found):
            with contextlib.suppress(_Needed):
                refer = partial(home.refer, found.name, found.reference)
                return self._saved(home, owner, found.name, lambda: (refer(), stamp))
        return self._keep(home, owner, found.name, None, whole=True)

    def _takes_temporary(self) -> bool:
        with contextlib.closing(self.store.backend.spool()) as spool:
            return isinstance(spool, content.TempSpool)

    def _obtain_in(self, home: KeptSession, owner: str | None, name: str) -> FoundFile | None:
        """Fetch a file of the session itself, which is in no list if it has no owner."""
        reference = self._current(home.sid, owner, name)
        if reference is None:
            return None
        found = FoundFile(name, home.sid, reference)
        self.fetch(found)
        return found

    def _take_from_unclaimed(
        self, owner: str | None, name: str, upload: FoundFile | None = None
    ) -> None:
        """Delete the owner's unclaimed ``upload`` of a file that a session now has.

        On a bucket no event waits for that. After a crash the upload expires.
        """
        unclaimed = self.unclaimed(owner)
        self._gone(unclaimed.sid, name)
        if upload is None:
            return

        def discard() -> None:
            # This version only: another tab may upload the file again right now.
            gone = self.store.backend.discard(unclaimed.sid, [upload.reference])
            self.store.on_removed(unclaimed.key, gone, "deleted", "an event used it")

        def discard_later() -> None:
            try:
                discard()
            except SessionStoreError as error:
                log.warning("An upload that an event used was not deleted yet: %s", error)

        # A late deletion would be counted late in a limit.
        if self.at_once > 1 and not self.store.ledger.limited:
            self._deferred.call(discard_later)
        else:
            discard()

    def drain(self) -> None:
        """Wait for the deletions that no event waited for."""
        self._deferred.drain()

    def home(self, visitor: Visitor | None, owner: str | None) -> KeptSession:
        """Return the session for an event's files. Raises InvalidName for an invalid session id."""
        if visitor is None:
            return self.unclaimed(owner)
        return KeptSession(self.store, session_key(*visitor))

    def unclaimed(self, owner: str | None) -> KeptSession:
        """Return the private session of the owner's uploads that no event has used."""
        return KeptSession(self.store, private_key("gradio unclaimed", owner))

    def _known_in(
        self, sid: str, owner: str | None, name: str, *, look: bool = False
    ) -> FoundFile | None:
        """Return the file if this process saw it in the session and it is still there.

        With ``look`` also if another process has saved it.
        """
        reference = self.seen.recent(owner, name, sid)
        if reference is None and (look or sid in self.seen.sessions(owner, name)):
            reference = self._current(sid, owner, name)
        return None if reference is None else FoundFile(name, sid, reference)

    def _keep(
        self,
        home: KeptSession,
        owner: str | None,
        name: str,
        ttl: timedelta | None,
        *,
        whole: bool = False,
    ) -> FoundFile:
        put = partial(self._put, home, name, ttl, whole=whole)
        return self._saved(home, owner, name, put, lasting=ttl is None)

    def _saved(
        self,
        home: KeptSession,
        owner: str | None,
        name: str,
        put: Callable[[], tuple[Reference, Stamp]],
        *,
        lasting: bool = True,
    ) -> FoundFile:
        """Save a file by ``put``, and record its session for the owner if it is ``lasting``."""
        tasks: list[Callable[[], Any]] = [put]
        if lasting and owner is not None and home.owner == owner:
            tasks.append(partial(self._record_tab, owner, home.sid))
        file, stamp = self.together(tasks)[0]
        self.local.note(name, file, home.sid, stamp)
        self.seen.add(owner, name, home.sid, file)
        return FoundFile(name, home.sid, file)

    def together(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """Call the tasks, on a bucket at the same time, and return their results in order.

        After an error no further task starts; it is raised when the running ones have ended.
        """
        calls = [partial(contextvars.copy_context().run, task) for task in tasks]
        return run_together(calls, self.at_once)

    @property
    def at_once(self) -> int:
        """Return the number of calls that the store's backend is worth making at the same time."""
        return getattr(self.store.backend, "at_once", 1)

    def _put(
        self, home: KeptSession, name: str, ttl: timedelta | None, *, whole: bool
    ) -> tuple[Reference, Stamp]:
        """Save the local file, and return its version and its stamp at that time.

        ``whole`` says that the file was renamed into place, as uploads and copies are. Gradio
        writes other files in place, and again for each visitor who makes the same file. Such a
        file may be empty for a moment, so a young empty one is read again. Raises FileNotStored
        when there is no file, BackendUnavailable when it changed during each attempt.
        """
        for attempt in range(_TRIES):
            stamp = self.local.stamp(name)
            if stamp is None:
                raise FileNotStored(name)
            young = time.time() - stamp[0] / 1e9 < 1
            if whole or stamp[1] or not young or attempt == _TRIES - 1:
                file = home.put(name, self.local.path(name), ttl)
                if self.local.stamp(name) == stamp and file.size == stamp[1]:
                    return file.reference, stamp
            time.sleep(0.01 * (attempt + 1))
        raise BackendUnavailable(
            f"{name!r} was not saved: the file changed during each of {_TRIES} attempts. Try again."
        )

    def _record_tab(self, owner: str, sid: str) -> None:
        """Record in the store that this session has files of its owner."""
        key, now = (owner, sid), self.store.now()
        with self._listing[hash(key) % _LOCKS]:  # the files of an event are saved together
            with self._lock:
                # A session that was not used for the linger may have been dropped, and its entry.
                present = self._listed.get(key, now) - now + self.store.retention.linger
                is_listed = key in self._listed and present > timedelta(0)
            if not is_listed:
                Session(self.store, _tabs(owner)).put(sid, b"")
            with self._lock:
                self._remember(self._listed, key, now)

    @staticmethod
    def _remember(known: OrderedDict[Any, Any], key: Any, value: Any) -> None:
        known[key] = value
        while len(known) > REMEMBERED:
            known.popitem(last=False)

    def tidy(self, owner: str, sid: str) -> None:
        """Forget a dropped session of the owner, and delete the owner's lists that are empty."""
        for key in (_tabs(owner), self.unclaimed(owner).key):
            record = self.store.backend.session(key.sid)
            if record is None:
                continue
            others = [file for file in self.store.backend.files(key.sid) if file.name != sid]
            if others:
                Session(self.store, key).delete(sid)
            elif self.store.now() - record.active > _SETTLED:
                self.store.drop(key, "its owner left", unless_active_after=record.active)

    def touch_tabs(self, owner: str) -> None:
        """Mark the owner's list of sessions as used, so that it does not become idle."""
        self.store.backend.touch(_tabs(owner).sid)

    # Stored files

    def give(
        self, sid: str, reference: Reference, owner: str | None, *, link: bool = False
    ) -> FoundFile:
        """Return a file as one of the cache for this owner, or with ``link`` for everyone.

        Fetches no bytes. The proof in the path cannot be made without the store's secret.
        """
        name = self.paths.to(sid, reference, _LINK if link else self._visitor_mark(sid, owner))
        self.seen.add(owner, name, sid, reference)
        return FoundFile(name, sid, reference)

    def is_of_session(self, found: FoundFile) -> bool:
        """Return whether the path is Gradio's, and the file that of a visitor."""
        return found.sid != self._pins.sid and self.paths.kept(found.name) is not None

    def _pointed(self, owner: str | None, name: str) -> FoundFile | None:
        """Return the stored file behind a path that ``give`` made for this owner, else None."""
        pointer = self.paths.pointer(name)
        if pointer is None:
            return None
        found = self.known(owner, name)
        if found is not None:
            return found
        reference = self._named(pointer)
        if reference is not None:
            marks = (self._visitor_mark(pointer.sid, owner), _LINK)
            proofs = [self.paths.proof(pointer.sid, reference, mark) for mark in marks]
            if any(hmac.compare_digest(proof, pointer.proof) for proof in proofs):
                self.seen.add(owner, name, pointer.sid, reference)
                return FoundFile(name, pointer.sid, reference)
        self._gone(pointer.sid, name)
        if owner is not None and self.history is not None:
            sid = self._runs(owner).sid
            kept = self._look(sid, owner, name)
            return None if kept is None else FoundFile(name, sid, kept)
        return None

    def _named(self, pointer: Pointer) -> Reference | None:
        name = decode(pointer.stored)
        try:
            if name is not None:
                reference = self.store.backend.get(pointer.sid, name)
            else:  # a long name cannot be decoded from its stored form
                files = self.store.backend.files(pointer.sid)
                reference = next(ref for ref in files if encode(ref.name) == pointer.stored)
        except (FileNotStored, StopIteration):
            return None
        alive = reference.expires is None or reference.expires > self.store.now()
        return reference if alive else None

    def _visitor_mark(self, sid: str, owner: str | None) -> str:
        if sid == shared_key().sid:
            return _EVERYONE
        return "anonymous" if owner is None else f"owner {owner}"

    # Run history

    def _runs(self, owner: str) -> KeptSession:
        """Return the private session of the files in the owner's run history."""
        return KeptSession(self.store, private_key("gradio history", owner))

    def keep_run(self, owner: str, names: Iterable[str]) -> None:
        """Save the files of a run, and delete the owner's oldest beyond ``HISTORY_SIZE``."""
        runs = self._runs(owner)
        for name in names:
            found = self.obtain(owner, name)
            if found is None or found.sid == self._pins.sid or not self.local.pin(name):
                continue
            try:
                runs.put(name, self.local.path(name), self.history)
            finally:
                self.local.unpin(name)
        total = 0
        files = self.store.backend.files(runs.sid)
        for file in sorted(files, key=lambda file: file.created, reverse=True):
            total += file.size
            if total > HISTORY_SIZE:
                runs.delete(file.name.removeprefix(HIDDEN))

    # Pinned

    def pin(self, names: Iterable[str]) -> None:
        """Save the app's own files, for as long as any process has the app attached."""
        for name in names:
            if name in self._pinned or self.paths.kept(name) is None:
                continue
            try:
                file, stamp = self._put(self._pins, name, self.pinned_for, whole=True)
            except FileNotStored:
                continue  # the file is not on the disk, so no page can show it
            self.local.note(name, file, self._pins.sid, stamp)
            # The local copy stays: Gradio makes eager examples from it when the app starts, in
            # events of its own that no visitor sent.
            self._pinned[name] = file

    @property
    def pinned_for(self) -> timedelta:
        """The time to live of a pinned file that no process renews."""
        bounds = [timedelta(hours=24), self.store.retention.max_age, self.store.retention.idle]
        return min(bound for bound in bounds if bound is not None)

    def renew_pins(self) -> None:
        """Save the pinned files again, so that their age and time to live start at zero."""
        for name, reference in list(self._pinned.items()):
            found = FoundFile(name, self._pins.sid, reference)
            try:
                self.fetch(found)
                file, stamp = self._put(self._pins, name, self.pinned_for, whole=True)
                self.local.note(name, file, self._pins.sid, stamp)
                self._pinned[name] = file
            except FileNotStored:
                log.warning(
                    "A file of the app itself (a default or an example) was deleted from the store."
                )

    # Deletions

    def forget_session(self, sid: str) -> None:
        """Drop the cached data of a session that was deleted from the store."""
        with self._lock:
            for key in [key for key in self._sources if key[0] == sid]:
                del self._sources[key]
            for name in self.seen.discard_session(sid):
                self._remember(self.dropped, name, sid)
        self.local.release(sid)

    def forget_file(self, sid: str, name: str) -> None:
        """Drop the cached data of a deleted file; ``name`` is its name in the store."""
        with self._lock:
            self._sources.pop((sid, name), None)
        if name.startswith(HIDDEN):
            self._gone(sid, name.removeprefix(HIDDEN))
        stored = encode(name)
        for copy in self.local.held_by(sid):
            pointer = self.paths.pointer(copy)
            if pointer is not None and pointer.stored == stored:
                self._gone(sid, copy)

    def sweep(self) -> None:
        """Remove local copies of sessions that other processes dropped.

        A single file that another process deleted is noticed at the next request for it.
        """
        holders = self.local.holders()
        alive = {record.sid for record in self.store.backend.sessions()} if holders else set()
        for sid in holders:
            if sid not in alive:
                self.forget_session(sid)
        self.local.renew()
        self.local.make_room()


def _bytes_of(source: _Source) -> int:
    return len(source.content) if isinstance(source.content, bytes) else 0


def _tabs(owner: str) -> SessionKey:
    """Return the key of the list of an owner's sessions."""
    return private_key("gradio tabs", owner)
