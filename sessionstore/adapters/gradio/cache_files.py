"""The map from paths in Gradio's cache to files in the store, and back. It is in the store itself.

* A file that an event of a visitor handled is a file of the visitor's session, by its cache path
  below ``@/``.
* An upload that no event has used is in the private session *unclaimed* of its owner, with a time
  to live. So is a file made by a call without a session.
* A request for a file names only its owner, whose sessions are found by ``store.owners``. A link
  has session and file in its path, with an HMAC.
* The files that the app itself has (component defaults, examples) are *pinned*: in one private
  session, with a time to live that every process with the app renews.

A process caches its lookups for ``RECHECK`` seconds. So a file that is deleted anywhere is served
nowhere after that time.
"""

from __future__ import annotations

import contextlib
import contextvars
import hmac
import io
import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

from sessionstore import content
from sessionstore._threads import Deferred, run_together
from sessionstore.adapters.gradio.cache import (
    CacheDir,
    Copying,
    Stamp,
    copied,
    gradio_hash,
)
from sessionstore.adapters.gradio.fetches import Fetch, Fetches
from sessionstore.adapters.gradio.paths import CachePaths, LocationCache, Pointer, remember
from sessionstore.adapters.gradio.presence import Visitor
from sessionstore.adapters.gradio.recent_saves import KeptSession, Needed, RecentSaves
from sessionstore.backend import Forgets
from sessionstore.errors import BackendUnavailable, Corrupted, FileNotStored, SessionStoreError
from sessionstore.limits import moving
from sessionstore.model import Reference
from sessionstore.names import HIDDEN, decode, encode, private_key, session_key, shared_key

if TYPE_CHECKING:
    from sessionstore.store import SessionStore

T = TypeVar("T")

UNCLAIMED: Final = timedelta(hours=6)
"""The time until an unused upload is deleted: a form may be left open over lunch."""

HISTORY_SIZE: Final = 256 << 20
"""The most bytes of files in the run history of one owner."""

_UNCLAIMED: Final = "gradio unclaimed"
_HISTORY: Final = "gradio history"
"""The purposes of the private sessions of an owner."""

_LOOKS: Final = 4
"""The most sessions in a bucket that are asked for a file at the same time."""

LARGE: Final = content.CHUNK
"""The most bytes of a file that a backend gives only when all of them are right.

A larger one is sent while it is fetched: with a worker thread of its own, and from its first byte.
"""

_TRIES: Final = 10
SMALL: Final = 64 << 10
"""Bytes up to which a file is hashed, or its first bytes written, on the event loop.

That takes about 50 microseconds, less than the use of a worker thread.
"""

_LOGGED: Final = 100
"""The most refused links that are logged: a visitor can make up any number."""

_is_hashed = re.compile(r"[0-9a-f]{64}/").match
"""Matches the paths that Gradio makes, also in an earlier process for its visitors."""

_EVERYONE: Final = ""
"""The visitor in the path of a file that everyone may read. No owner is the empty string."""

_LINK: Final = "everyone with the link"
"""The visitor in the path of a file that everyone who has this path may read."""

log: Final = logging.getLogger("sessionstore")


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
        self.recent: Final = RecentSaves(seconds, store.backend.digest)
        self.lists: Final = store.owners
        self.lists.tidied = True
        self.lists.private |= {_UNCLAIMED, _HISTORY}
        self.dropped: OrderedDict[str, str] = OrderedDict()
        """The sessions of files that were deleted with them, by name, at most ``REMEMBERED``."""
        self._lock = threading.Lock()
        self._deferred = Deferred()
        self._fetches = Fetches()
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
        for sid in self.seen.sessions(owner, name):
            reference = self.seen.recent(owner, name, sid)
            if reference is not None:
                return FoundFile(name, sid, reference)
        return None

    def find(self, owner: str | None, name: str) -> FoundFile | None:
        """Return the file if it belongs to the owner or to everyone. Raises BackendUnavailable."""
        found = self.known(owner, name)
        if found is not None:
            return found
        if self.paths.kept(name) is None:
            return self._pointed(owner, name)
        tried = set(sids := self.seen.sessions(owner, name))
        found = self._first(owner, name, sids)
        if found is not None:
            return found
        looks: list[Callable[[], Any]] = [
            partial(self._look, self.unclaimed(owner).sid, owner, name),
            partial(self._sessions_of, owner),
        ]
        found, others = self.together(looks)
        if found is None:
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
            looks = [partial(self._look, sid, owner, name) for sid in sids[start : start + count]]
            for found in self.together(looks):
                if found is not None:
                    return found
        return None

    def _sessions_of(self, owner: str | None) -> list[str]:
        """List the sessions that the owner's files may be in, the newest first."""
        sids = [] if owner is None else self.lists.newest(owner)
        if owner is not None and self.history is not None:
            sids.append(self.runs(owner).sid)
        return [*sids, self._pins.sid]

    def _look(self, sid: str, owner: str | None, name: str) -> FoundFile | None:
        """Read the file's current version from the session; without one, drop the local copy."""
        found = self._current(sid, owner, name)
        if found is None:
            self.local.release(sid, [name])
        return found

    def _current(self, sid: str, owner: str | None, name: str) -> FoundFile | None:
        """Like ``_look``, but keep the local copy: it may be saved next."""
        with contextlib.suppress(FileNotStored):
            reference = self.store.backend.get(sid, HIDDEN + name)
            if not self._is_over(reference):
                self.seen.add(owner, name, sid, reference)
                return FoundFile(name, sid, reference)
        self.seen.discard(sid, name)
        return None

    def _is_over(self, reference: Reference) -> bool:
        return reference.expires is not None and reference.expires <= self.store.now()

    def _gone(self, sid: str, name: str) -> None:
        self.seen.discard(sid, name)
        self.local.release(sid, [name])

    # Local copies

    def ready(self, found: FoundFile) -> bool:
        """Return whether the file's bytes are on the local disk."""
        return self.local.ready(found.name, found.reference, found.sid)

    def fetch(self, found: FoundFile, equal: Path | None = None) -> Path:
        """Return the path of the local copy, and make it if it is missing, as ``CacheDir.make``."""
        # Another process that shares the directory may have made this copy.
        if self.ready(found) or self._is_unchanged(found):
            return self.local.path(found.name)
        source = self.recent.opener(found.sid, found.reference)
        if source is not None and not self._is_over(found.reference):
            # The file of ``source`` may be gone, or have other bytes by now.
            with contextlib.suppress(OSError, Corrupted):
                return self.local.make(found.name, found.reference, found.sid, source)
        fetch = self.fetching(found) if equal is None and self.is_far(found) else None
        if fetch is not None:
            fetch.wait(found.reference.size)
        # Mostly it is there now, and only its holder is noted.
        return self._make(found, equal)

    def _make(self, found: FoundFile, equal: Path | None = None, copy: Copying = copied) -> Path:
        opened = partial(self._open, found)
        return self.local.make(found.name, found.reference, found.sid, opened, equal, copy=copy)

    def copy(self, found: FoundFile, bytes_: content.Content) -> None:
        """Make the local copy of a large file from the bytes just saved, if the disk has room.

        Also one beyond the cap: the event that uses the file makes it in any case.
        """
        size = found.reference.size
        if size > LARGE and self.local.has_room(size):
            with contextlib.suppress(OSError, SessionStoreError):  # it is made when it is needed
                self.local.make(
                    found.name, found.reference, found.sid, io.BytesIO,
                    copy=lambda _, target: target.writelines(bytes_.chunks()),
                )  # fmt: skip

    def obtain(self, owner: str | None, name: str) -> FoundFile | None:
        """Find the file and fetch it. Return None when the owner has no such file.

        One that moves to another session in between, as an upload does, is searched again.
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

    def is_far(self, found: FoundFile) -> bool:
        """Return whether the file is large and ``fetch`` would read it from the store."""
        size, stamp = found.reference.size, self.local.stamp(found.name)
        if size <= LARGE or self.ready(found):
            return False
        elsewhere = self.recent.opener(found.sid, found.reference) is None
        return elsewhere and (stamp is None or stamp[1] != size)

    def fetching(self, found: FoundFile) -> Fetch | None:
        """Return the fetch of a large file, which begins now unless it is in progress.

        Return None if its copy would not stay, or if too many are in progress.
        """
        if not self.local.takes(found.reference.size):
            return None
        key = found.name, found.reference.digest
        return self._fetches.of(key, partial(self._fetched, found))

    def _fetched(self, found: FoundFile, copy: Copying) -> None:
        try:
            self._make(found, copy=copy)
        except FileNotStored:
            self._gone(found.sid, found.name)
            raise

    def _open(self, found: FoundFile) -> BinaryIO:
        try:
            return self.store.backend.open(found.sid, found.reference)
        except FileNotStored:
            if found.sid != self._pins.sid:
                raise
        # Each process that starts saves a pinned file again.
        reference = self.store.backend.get(found.sid, HIDDEN + found.name)
        if found.name in self._pinned:
            self._pinned[found.name] = reference
        return self.store.backend.open(found.sid, reference)

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

        Return None for one that is neither on the disk nor in the store. Raises as ``Session.put``.
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
        small = found.reference.size <= SMALL
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
        # Its last holder may have left while it was read, and the file with it.
        return self.ready(found)

    def claim(self, visitor: Visitor | None, owner: str | None, name: str) -> FoundFile | None:
        """Move the input of an event into the visitor's session and return it.

        Return None when the owner has no such file. Raises as ``Session.put``.
        """
        for _ in range(_TRIES - 1):
            # The local copy may be evicted before it is saved, and the file may move.
            with contextlib.suppress(FileNotStored):
                return self._claim(visitor, owner, name)
        return self._claim(visitor, owner, name)

    def _claim(self, visitor: Visitor | None, owner: str | None, name: str) -> FoundFile | None:
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
        """Save a file that another session has, mostly without reading its bytes again."""
        if found.sid == self.unclaimed(owner).sid:  # from there it is deleted
            with moving(found.reference.size):
                return self._copied(home, owner, found)
        return self._copied(home, owner, found)

    def _copied(self, home: KeptSession, owner: str | None, found: FoundFile) -> FoundFile:
        stamp = self.local.stamp(found.name)
        # On a disk a link is cheaper than any bytes; on a bucket it takes requests in a row.
        refers = self.at_once == 1 or found.reference.size > content.CHUNK
        if refers and stamp is not None and self.ready(found):
            with contextlib.suppress(Needed):
                refer = partial(home.refer, found.name, found.reference)
                return self._keep(home, owner, found.name, None, put=lambda: (refer(), stamp))
        return self._keep(home, owner, found.name, None, whole=True)

    def _obtain_in(self, home: KeptSession, owner: str | None, name: str) -> FoundFile | None:
        """Fetch a file of the session itself, which is in no list if it has no owner."""
        found = self._current(home.sid, owner, name)
        if found is not None:
            self.fetch(found)
        return found

    def _take_from_unclaimed(
        self, owner: str | None, name: str, upload: FoundFile | None = None
    ) -> None:
        """Delete the owner's unclaimed ``upload``: a session has the file now.

        On a bucket no event waits for that. After a crash the upload expires.
        """
        unclaimed = self.unclaimed(owner)
        self._gone(unclaimed.sid, name)
        if upload is None:
            return

        def discard() -> None:
            try:
                # This version only: another tab may upload the file again right now.
                gone = [upload.reference]
                with self.store.ledger.removing(unclaimed.sid, [upload.reference.name]) as change:
                    if isinstance(self.store.backend, Forgets):
                        self.store.backend.forget(unclaimed.sid, gone)
                    else:
                        gone = self.store.backend.discard(unclaimed.sid, gone)
                    change.gone = gone
                self.store.on_removed(unclaimed.key, gone, "deleted", "an event used it")
            except SessionStoreError as error:
                log.warning("An upload that an event used was not deleted yet: %s", error)

        if self.store.ledger.limited or self.at_once == 1:
            discard()  # a late deletion is counted late in a limit, and on a disk it is quick
        else:
            self._deferred.call(discard)

    def drain(self) -> None:
        self._deferred.drain()

    def home(self, visitor: Visitor | None, owner: str | None) -> KeptSession:
        """Return the session for an event's files. Raises InvalidName for an invalid session id."""
        if visitor is None:
            return self.unclaimed(owner)
        return KeptSession(self.store, session_key(*visitor))

    def unclaimed(self, owner: str | None) -> KeptSession:
        """Return the private session of the owner's uploads that no event has used."""
        return KeptSession(self.store, private_key(_UNCLAIMED, owner))

    def _known_in(
        self, sid: str, owner: str | None, name: str, *, look: bool = False
    ) -> FoundFile | None:
        """Return the file if it was seen in the session; with ``look`` also if it was not."""
        reference = self.seen.recent(owner, name, sid)
        if reference is not None:
            return FoundFile(name, sid, reference)
        look = look or sid in self.seen.sessions(owner, name)
        return self._current(sid, owner, name) if look else None

    def _keep(
        self,
        home: KeptSession,
        owner: str | None,
        name: str,
        ttl: timedelta | None,
        *,
        whole: bool = False,
        put: Callable[[], tuple[Reference, Stamp]] | None = None,
    ) -> FoundFile:
        """Save the local file, or ``put`` another way, and list its session for the owner."""
        # A name that is the hash of its bytes has no version with others, so none is looked for.
        # One that was seen there is replaced, so that no version is left.
        fresh = home.sid not in self.seen.sessions(owner, name) and self._is_hash(name)
        save = partial(self._put, home, name, ttl, whole=whole, fresh=fresh)
        tasks: list[Callable[[], Any]] = [put or save]
        if ttl is None and owner is not None and home.owner == owner:
            tasks.append(partial(self.lists.record, owner, home.sid))
        file, stamp = self.together(tasks)[0]
        return self.noted(home, owner, name, file, stamp)

    def noted(
        self, home: KeptSession, owner: str | None, name: str, file: Reference, stamp: Stamp
    ) -> FoundFile:
        """Note that the local file is a copy of this version. Fit for an event loop."""
        self.local.note(name, file, home.sid, stamp)
        self.seen.add(owner, name, home.sid, file)
        return FoundFile(name, home.sid, file)

    def together(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """Call the tasks, on a bucket at the same time, and return their results in order."""
        calls = [partial(contextvars.copy_context().run, task) for task in tasks]
        return run_together(calls, self.at_once)

    @property
    def at_once(self) -> int:
        """Return the number of calls that the store's backend is worth making at the same time."""
        return getattr(self.store.backend, "at_once", 1)

    def _put(
        self,
        home: KeptSession,
        name: str,
        ttl: timedelta | None,
        *,
        whole: bool,
        fresh: bool = False,
    ) -> tuple[Reference, Stamp]:
        """Save the local file, and return its version and its stamp at that time.

        Uploads and copies are ``whole``: renamed into place. Gradio writes other files in place,
        and again for each visitor, so a young empty one is read again. Raises FileNotStored when
        there is no file, BackendUnavailable when it changed during each attempt.
        """
        for attempt in range(_TRIES):
            stamp = self.local.stamp(name)
            if stamp is None:
                raise FileNotStored(name)
            young = time.time() - stamp[0] / 1e9 < 1
            if whole or stamp[1] or not young or attempt == _TRIES - 1:
                file = home.put(name, self.local.path(name), ttl, fresh=fresh)
                if self.local.stamp(name) == stamp and file.size == stamp[1]:
                    return file.reference, stamp
            time.sleep(0.01 * (attempt + 1))
        raise BackendUnavailable(
            f"{name!r} was not saved: the file changed during each of {_TRIES} attempts. Try again."
        )

    def _is_hash(self, name: str) -> bool:
        """Return whether a small local file is named by Gradio's hash of its bytes.

        A larger one is not read for that: it would take longer than the request that it saves.
        """
        stamp = None if self.at_once == 1 else self.local.stamp(name)
        if stamp is None or stamp[1] > content.CHUNK:
            return False
        with contextlib.suppress(OSError), self.local.path(name).open("rb", buffering=0) as file:
            return name.startswith(f"{gradio_hash(file)}/")
        return False

    # Stored files

    def give(
        self, sid: str, reference: Reference, owner: str | None, *, link: bool = False
    ) -> FoundFile:
        """Return a stored file as one of the cache, for this owner, or for everyone (``link``)."""
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
        reference = self._named(pointer)
        if reference is not None:
            marks = self.marks(pointer.sid, owner)
            proofs = [self.paths.proof(pointer.sid, reference, mark) for mark in marks]
            if any(hmac.compare_digest(proof, pointer.proof) for proof in proofs):
                self.seen.add(owner, name, pointer.sid, reference)
                return FoundFile(name, pointer.sid, reference)
        self._gone(pointer.sid, name)
        if owner is not None and self.history is not None:
            return self._look(self.runs(owner).sid, owner, name)
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
        return None if self._is_over(reference) else reference

    def marks(self, sid: str, owner: str | None) -> tuple[str, str]:
        """Return the visitors in the paths of stored files that this owner may read."""
        return self._visitor_mark(sid, owner), _LINK

    def _visitor_mark(self, sid: str, owner: str | None) -> str:
        if sid == shared_key().sid:
            return _EVERYONE
        return "anonymous" if owner is None else f"owner {owner}"

    # Run history

    def runs(self, owner: str) -> KeptSession:
        """Return the private session of the files in the owner's run history."""
        return KeptSession(self.store, private_key(_HISTORY, owner))

    def keep_run(self, owner: str, names: Iterable[str]) -> None:
        """Save the files of a run, and delete the owner's oldest beyond ``HISTORY_SIZE``."""
        runs = self.runs(owner)
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
            # Without the file on the disk no page can show it. The local copy stays: Gradio makes
            # eager examples from it when the app starts, in events of its own.
            with contextlib.suppress(FileNotStored):
                self._pin(name)

    def _pin(self, name: str) -> None:
        file, stamp = self._put(self._pins, name, self.pinned_for, whole=True)
        self.local.note(name, file, self._pins.sid, stamp)
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
                self._pin(name)
            except FileNotStored:
                log.warning(
                    "A file of the app itself (a default or an example) was deleted from the store."
                )

    # Deletions

    def forget_session(self, sid: str) -> None:
        """Drop the cached data of a session that was deleted from the store."""
        self.recent.forget(sid)
        with self._lock:
            for name in self.seen.discard_session(sid):
                remember(self.dropped, name, sid)
        self.local.release(sid)

    def forget_file(self, sid: str, name: str) -> None:
        """Drop the cached data of a deleted file; ``name`` is its name in the store."""
        self.recent.forget(sid, name)
        if name.startswith(HIDDEN):
            self._gone(sid, name.removeprefix(HIDDEN))
        stored = encode(name)
        for copy in self.local.held_by(sid):
            pointer = self.paths.pointer(copy)
            if pointer is not None and pointer.stored == stored:
                self._gone(sid, copy)

    def sweep(self) -> None:
        """Keep the local copies, within their limit.

        A single file that another process deleted is noticed at the next request for it.
        """
        self.local.renew()
        self.local.make_room()
