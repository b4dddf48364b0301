"""Which files of Gradio's cache are whose: the map from cache paths to the store, and back.

The map is in the store itself, so that any replica has it:

* A file that an event of a visitor handled is a file of the visitor's session, named by its cache
  path below ``@/``.
* An upload names no session. Until an event uses it, it is in the private session *unclaimed* of
  its owner, with a time to live of its own. So is what a call without any session makes.
* A request for a file names no session either, only its owner. The private session *tabs* of an
  owner has an empty file for each of the owner's sessions that files were kept in. Clients without
  an owner are many, so theirs are kept apart by cache path.
* What the app itself brings along (component defaults, examples) is *pinned*: in one private
  session, with a time to live that every process renews that has the app attached.

What this process knows is remembered, and believed for ``RECHECK`` seconds; then the store is asked
again, so what is deleted anywhere is served nowhere after that time.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from sessionstore import content
from sessionstore.adapters.gradio_local import LocalCopies, Stamp
from sessionstore.adapters.gradio_paths import CachePaths, Pointer
from sessionstore.adapters.gradio_presence import Visitor
from sessionstore.adapters.gradio_sightings import REMEMBERED, Sightings
from sessionstore.backend import Reference, SessionKey
from sessionstore.errors import BackendUnavailable, FileNotStored
from sessionstore.names import (
    HIDDEN,
    decode,
    encode,
    file_name,
    private_key,
    session_key,
    shared_key,
)
from sessionstore.session import Session
from sessionstore.storedfile import StoredFile

if TYPE_CHECKING:
    from sessionstore.adapters.gradio_uploads import Upload
    from sessionstore.store import SessionStore

UNCLAIMED: Final = timedelta(hours=6)
"""How long an upload waits for an event that uses it: a form that was left open over lunch."""

_TABS_LOOKED_AT: Final = 100
"""Sessions of one owner that a file is looked for in; a visitor has a few tabs at a time."""

_TRIES: Final = 10
_SMALL: Final = 64 << 10
"""Bytes that are read and hashed in some 50 microseconds, less than a worker thread costs."""

_EVERYONE: Final = ""
"""Stands for the visitor in the path of a file that everyone may have. No owner is empty."""

log = logging.getLogger("sessionstore")


class Kept(Session):
    """A session, seen by its files of Gradio's cache: names are cache paths."""

    __slots__ = ()

    def _named(self, name: str) -> str:
        return file_name(HIDDEN + name)


@dataclass(frozen=True, slots=True)
class Found:
    """A file of the cache in the store: where, and which version."""

    name: str
    sid: str
    reference: Reference


class Files:
    """The files of one store that Gradio's cache directory stands for, as one process has them."""

    def __init__(
        self,
        store: SessionStore,
        paths: CachePaths,
        local: LocalCopies,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        self.paths = paths
        self.local = local
        self.seen = Sightings(seconds)
        self.arriving: list[Upload] = []
        """The uploads that are being received or saved."""
        self._lock = threading.Lock()
        self._listed: OrderedDict[tuple[str | None, str], None] = OrderedDict()
        self._pinned: dict[str, Reference] = {}
        self._pins = Kept(store, private_key("gradio pinned"))

    # Looking

    def known(self, owner: str | None, name: str) -> Found | None:
        """``find`` as far as this process saw it within the last moments. No I/O."""
        if name in self._pinned:
            return Found(name, self._pins.sid, self._pinned[name])
        fresh = self.seen.fresh(owner, name)
        return None if fresh is None else Found(name, *fresh)

    def find(self, owner: str | None, name: str) -> Found | None:
        """The file, if it is the owner's or everyone's; None when it is not there for the owner.

        Raises BackendUnavailable.
        """
        if self.paths.kept(name) is None:
            return self._pointed(owner, name)
        found = self.known(owner, name)
        if found is not None:
            return found
        tried: set[str] = set()
        for sid in chain(self.seen.sessions(owner, name), self._places(owner, name)):
            if sid not in tried:
                tried.add(sid)
                reference = self._look(sid, owner, name)
                if reference is not None:
                    return Found(name, sid, reference)
        return None

    def _places(self, owner: str | None, name: str) -> Iterator[str]:
        """The sessions in the store that the owner's file may be in. Asks as it goes."""
        yield self.unclaimed(owner).sid
        tabs = self.store.backend.files(self._tabs(owner, name).sid)
        newest = sorted(tabs, key=lambda it: it.created, reverse=True)
        yield from (it.name for it in newest[:_TABS_LOOKED_AT])
        yield self._pins.sid

    def _look(self, sid: str, owner: str | None, name: str) -> Reference | None:
        """The file in that session, as it is now."""
        reference = self._now(sid, owner, name)
        if reference is None:
            self.local.release(sid, [name])
        return reference

    def _now(self, sid: str, owner: str | None, name: str) -> Reference | None:
        """The same, and whatever is on the local disk stays there: it may be about to be kept."""
        with contextlib.suppress(FileNotStored):
            reference = self.store.backend.get(sid, HIDDEN + name)
            if reference.expires is None or reference.expires > self.store.now():
                self.seen.saw(owner, name, sid, reference)
                return reference
        self.seen.gone(sid, name)
        return None

    def _gone(self, sid: str, name: str) -> None:
        self.seen.gone(sid, name)
        self.local.release(sid, [name])

    # Bytes

    def ready(self, found: Found) -> bool:
        """Whether the file's bytes are on the local disk."""
        return self.local.ready(found.name, found.reference, found.sid)

    def fetch(self, found: Found, twin: Path | None = None) -> Path:
        """The file on the local disk, fetched if need be. Raises FileNotStored and as ``make``.

        Another process that shares the directory may have made the very copy.
        """
        if self._is_same(found):
            return self.local.path(found.name)
        return self.local.make(
            found.name, found.reference, found.sid, lambda: self._open(found), twin
        )

    def obtain(self, owner: str | None, name: str) -> Found | None:
        """``find`` and ``fetch``. What has moved to another session meanwhile is looked for there.

        An upload does, when another replica's event uses it.
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

    def _open(self, found: Found) -> BinaryIO:
        try:
            return self.store.backend.open(found.sid, found.reference)
        except FileNotStored:
            if found.sid != self._pins.sid:
                raise
            return self.store.backend.open(found.sid, self._pinned_anew(found.name))

    def _pinned_anew(self, name: str) -> Reference:
        """Look for a pinned file in the store again: a process that starts saves it once more."""
        reference = self.store.backend.get(self._pins.sid, HIDDEN + name)
        if name in self._pinned:
            self._pinned[name] = reference
        return reference

    # Keeping

    def keep_upload(self, owner: str | None, name: str) -> None:
        """Keep what was just uploaded until an event uses it. Raises as ``Session.put``."""
        try:
            self._keep(self.unclaimed(owner), owner, name, UNCLAIMED, whole=True)
        except BaseException:
            self.local.abandon(name)
            raise
        self.local.settle(name)
        self.local.make_room()

    def keep(self, visitor: Visitor | None, owner: str | None, name: str) -> Found | None:
        """Keep a file that an event of the visitor made. Cheap when it is kept already.

        None for one that needs no keeping, or cannot be kept. Raises as ``Session.put``.
        """
        if self.paths.kept(name) is None or name in self._pinned:
            return self.obtain(owner, name)
        home = self.home(visitor, owner)
        mine = self._mine(home.sid, owner, name)
        if mine is not None and (self.ready(mine) or self._is_same(mine)):
            return mine
        if self.local.stamp(name) is None:
            return self.obtain(owner, name)
        return self._keep(home, owner, name, None if visitor else UNCLAIMED)

    def settled(self, visitor: Visitor | None, owner: str | None, name: str) -> Found | None:
        """The file, if ``keep`` and ``claim`` have nothing to do for it. Fit for an event loop.

        Not when this process saw it come in once more: then it is to be claimed again.

        Gradio writes a picture that is shown again once more: a small one is compared here.
        """
        pinned = self._pinned.get(name)
        if pinned is not None:
            found = Found(name, self._pins.sid, pinned)
        else:
            home = self.home(visitor, owner)
            reference = self.seen.recent(owner, name, home.sid)
            again = visitor is not None and self.unclaimed(owner).sid in self.seen.sessions(
                owner, name
            )
            if reference is None or again:
                return None
            found = Found(name, home.sid, reference)
        if self.ready(found):
            return found
        small = found.reference.size <= _SMALL
        return found if small and self._is_same(found) else None

    def _is_same(self, found: Found) -> bool:
        """Whether the local file was written again with the very bytes that are in the store."""
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

    def claim(self, visitor: Visitor | None, owner: str | None, name: str) -> Found | None:
        """The file that an event of the visitor was given, in the visitor's session from now on.

        None when the owner has no such file. Raises as ``Session.put`` and BackendUnavailable.
        """
        if self.paths.kept(name) is None:
            return self.obtain(owner, name)
        home = self.home(visitor, owner)
        mine = self._mine(home.sid, owner, name)
        ready = mine is not None and self.ready(mine)
        found = mine if ready else self.obtain(owner, name)
        if found is None or found.sid == self._pins.sid or visitor is None:
            return found
        claimed = (
            found if found.sid == home.sid else self._keep(home, owner, name, None, whole=True)
        )
        self._take_from_unclaimed(owner, name)
        return claimed

    def _take_from_unclaimed(self, owner: str | None, name: str) -> None:
        """Delete the owner's upload of a file that a session has now, or had already.

        The upload may have come in by another replica, so the store is asked.
        """
        unclaimed = self.unclaimed(owner)
        upload = self.seen.recent(owner, name, unclaimed.sid) or self._now(
            unclaimed.sid, owner, name
        )
        if upload is not None:  # this very one: a tab may just upload it again
            gone = self.store.backend.discard(unclaimed.sid, [upload])
            self.store.removed(unclaimed.key, gone, "deleted", "an event used it")
        self._gone(unclaimed.sid, name)

    def home(self, visitor: Visitor | None, owner: str | None) -> Kept:
        """Where an event's files belong. Raises InvalidName for an impossible session id."""
        if visitor is None:
            return self.unclaimed(owner)
        return Kept(self.store, session_key(*visitor))

    def unclaimed(self, owner: str | None) -> Kept:
        """Where the owner's uploads are until an event uses them."""
        return Kept(self.store, private_key("gradio unclaimed", owner))

    def _mine(self, sid: str, owner: str | None, name: str) -> Found | None:
        """The file in a session that this process saw it in, if it still is there."""
        reference = self.seen.recent(owner, name, sid)
        if reference is None and sid in self.seen.sessions(owner, name):
            reference = self._now(sid, owner, name)
        return None if reference is None else Found(name, sid, reference)

    def _keep(
        self,
        home: Kept,
        owner: str | None,
        name: str,
        ttl: timedelta | None,
        *,
        whole: bool = False,
    ) -> Found:
        file, stamp = self._put(home, name, ttl, whole=whole)
        self.local.note(name, file, home.sid, stamp)
        self.seen.saw(owner, name, home.sid, file)
        if ttl is None:
            self._list(owner, name, home.sid)
        return Found(name, home.sid, file)

    def _put(
        self, home: Kept, name: str, ttl: timedelta | None, *, whole: bool
    ) -> tuple[Reference, Stamp]:
        """Save the local file, and only as it was when it was ``whole``.

        Gradio writes some files in place, again for each visitor who makes the same: while one is
        read here, it may just have been emptied there. Uploads and copies are renamed into place.
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
        raise BackendUnavailable(f"{name!r} changed all the time while it was to be saved.")

    def _list(self, owner: str | None, name: str, sid: str) -> None:
        """Note in the store that this session has files of its owner."""
        key = (owner, sid if owner is not None else f"{sid} {name}")
        with self._lock:
            if key in self._listed:
                return
        Session(self.store, self._tabs(owner, name)).put(sid, b"")
        with self._lock:
            self._listed[key] = None
            while len(self._listed) > REMEMBERED:
                self._listed.popitem(last=False)

    def _tabs(self, owner: str | None, name: str) -> SessionKey:
        if owner is None:
            return private_key(f"gradio tabs {name}")
        return private_key("gradio tabs", owner)

    def touch_tabs(self, owner: str) -> None:
        """Keep the list of the owner's sessions while one of them is in use."""
        self.store.backend.touch(self._tabs(owner, "").sid)

    # Stored files

    def give(self, file: StoredFile, owner: str | None) -> Found:
        """A stored file as one of the cache, for this owner. Its bytes are not fetched."""
        sid, reference = file.session.sid, file.reference
        name = self.paths.to(sid, reference, self._mark(sid, owner))
        self.seen.saw(owner, name, sid, reference)
        return Found(name, sid, reference)

    def _pointed(self, owner: str | None, name: str) -> Found | None:
        """The stored file that a path made by ``give`` names, if it was given to this owner."""
        pointer = self.paths.pointer(name)
        if pointer is None:
            return None
        found = self.known(owner, name)
        if found is not None:
            return found
        reference = self._named(pointer)
        if reference is not None:
            proof = self.paths.proof(pointer.sid, reference, self._mark(pointer.sid, owner))
            if proof == pointer.proof:
                self.seen.saw(owner, name, pointer.sid, reference)
                return Found(name, pointer.sid, reference)
        self._gone(pointer.sid, name)
        return None

    def _named(self, pointer: Pointer) -> Reference | None:
        name = decode(pointer.stored)
        try:
            if name is not None:
                reference = self.store.backend.get(pointer.sid, name)
            else:  # too long to be told by its stored form
                files = self.store.backend.files(pointer.sid)
                reference = next(it for it in files if encode(it.name) == pointer.stored)
        except (FileNotStored, StopIteration):
            return None
        alive = reference.expires is None or reference.expires > self.store.now()
        return reference if alive else None

    def _mark(self, sid: str, owner: str | None) -> str:
        if sid == shared_key().sid:
            return _EVERYONE
        return "anonymous" if owner is None else f"owner {owner}"

    # Pinned

    def pin(self, names: Iterable[str]) -> None:
        """Keep files that the app itself brings along, for as long as it is attached anywhere."""
        for name in names:
            if name in self._pinned or self.paths.kept(name) is None:
                continue
            try:
                file, stamp = self._put(self._pins, name, self.pinned_for, whole=True)
            except FileNotStored:
                continue  # its file is not there any more, so nobody can be shown it
            self.local.note(name, file, self._pins.sid, stamp)
            # Its copy stays in any case: Gradio makes eager examples from it when the app starts,
            # in events of its own that nobody sent.
            self._pinned[name] = file

    @property
    def pinned_for(self) -> timedelta:
        """How long a pinned file is kept without being renewed."""
        bounds = [timedelta(hours=24), self.store.retention.max_age, self.store.retention.idle]
        return min(bound for bound in bounds if bound is not None)

    def renew_pins(self) -> None:
        """Keep them for another while: as fresh saves, so that no age counts."""
        for name, reference in list(self._pinned.items()):
            found = Found(name, self._pins.sid, reference)
            try:
                self.fetch(found)
                file, stamp = self._put(self._pins, name, self.pinned_for, whole=True)
                self.local.note(name, file, self._pins.sid, stamp)
                self._pinned[name] = file
            except FileNotStored:
                log.warning("A file that the app brings along is gone from the store.")

    # Forgetting

    def forget_session(self, sid: str) -> None:
        """The session is gone from the store."""
        self.seen.session_gone(sid)
        self.local.release(sid)

    def forget_file(self, sid: str, name: str) -> None:
        """A file is gone from the store; ``name`` is its name there."""
        if name.startswith(HIDDEN):
            self._gone(sid, name.removeprefix(HIDDEN))
            return
        stored = encode(name)
        for each in self.local.held_by(sid):
            pointer = self.paths.pointer(each)
            if pointer is not None and pointer.stored == stored:
                self._gone(sid, each)

    def sweep(self) -> None:
        """Let go of copies of sessions that other processes dropped.

        Single files that they deleted are found when somebody asks for them.
        """
        holders = self.local.holders()
        there = {record.sid for record in self.store.backend.sessions()} if holders else set()
        for sid in holders:
            if sid not in there:
                self.forget_session(sid)
        self.local.renew()
        self.local.make_room()
