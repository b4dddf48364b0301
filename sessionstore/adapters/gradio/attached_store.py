"""The service of one store while apps are served: presence, files and one sweeper."""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from sessionstore._threads import start_waiting
from sessionstore.adapters.gradio import compat
from sessionstore.adapters.gradio.cache import CacheDir
from sessionstore.adapters.gradio.cache_files import CacheFiles
from sessionstore.adapters.gradio.owner_lists import tidy
from sessionstore.adapters.gradio.paths import OURS, CachePaths
from sessionstore.adapters.gradio.presence import PresenceTracker
from sessionstore.adapters.gradio.resume import Resuming
from sessionstore.adapters.gradio.state import States
from sessionstore.adapters.gradio.values import CachedResults
from sessionstore.backend import Surveys
from sessionstore.background import Sweeping
from sessionstore.errors import (
    BackendUnavailable,
    Corrupted,
    FileNotStored,
    SessionStoreError,
    SettingsError,
)
from sessionstore.local_copies import Listed, LocalCopies
from sessionstore.names import private_key
from sessionstore.session import ASKED_FOR, Session
from sessionstore.storedfile import StoredFile

if TYPE_CHECKING:
    from gradio import Blocks
    from gradio.routes import App

    from sessionstore.events import Event
    from sessionstore.model import Reference, SessionKey
    from sessionstore.store import SessionStore

CACHE_SIZE: Final = 4 << 30
"""The default limit for local copies, in bytes."""

UPLOAD_PIECES: Final = 8 << 20
"""The default size in bytes above which pages send a file in pieces, and the size of a piece."""

LEAST_PIECE: Final = 64 << 10

CLAIM: Final = timedelta(minutes=3)
"""The time for which other processes respect a process's cache path after it was last renewed."""

CLAIM_BILLED: Final = timedelta(minutes=10)
"""The same where requests cost money: 16 replicas must not cost more than 1.1 times one."""

_COPIES_EVERY: Final = timedelta(minutes=1)
_CLEAN_EVERY: Final = timedelta(minutes=10)

log: Final = logging.getLogger("sessionstore")


class OwnedCopies(LocalCopies):
    """The copies that ``local_path()`` makes. Deletions in the store are passed on to ``files``."""

    def __init__(self, directory: Path, size: int | None, files: CacheFiles) -> None:
        super().__init__(directory, size)
        self._files = files
        self._whose: dict[str, StoredFile] = {}

    def path(
        self,
        sid: str,
        reference: Reference,
        stream: Callable[[], BinaryIO],
        check: Callable[[], None] = lambda: None,
    ) -> Path:
        saved = self._files.recent.opener(sid, reference)
        if saved is not None:
            # A local file that was saved from may be gone, or have other bytes by now.
            with contextlib.suppress(Corrupted, BackendUnavailable):
                return super().path(sid, reference, saved, check)
        return super().path(sid, reference, stream, check)

    def returned(self, path: Path, key: SessionKey, reference: Reference) -> None:
        file = StoredFile(Session(self._files.store, key), reference)
        self._whose.setdefault(str(path), file)

    def whose(self, path: str) -> StoredFile | None:
        """Return the stored file that a copy was made from, None for any other path."""
        return self._whose.get(path)

    def forget_file(self, sid: str, name: str) -> None:
        super().forget_file(sid, name)
        self._gone(lambda file: (file.session.sid, file.name) == (sid, name))
        self._files.forget_file(sid, name)

    def forget_session(self, sid: str) -> None:
        super().forget_session(sid)
        self._gone(lambda file: file.session.sid == sid)
        self._files.forget_session(sid)

    def holders(self) -> list[str]:
        return [*super().holders(), *self._files.local.holders()]

    def sweep(
        self,
        files: Callable[[str], Iterable[Reference]],
        absent: Iterable[str] = (),
        listed: Listed | None = None,
    ) -> None:
        super().sweep(files, absent, listed)
        self._gone(lambda file: file.session.sid not in self._sessions)
        self._files.sweep()

    def _gone(self, is_gone: Callable[[StoredFile], bool]) -> None:
        for path, file in list(self._whose.items()):
            if is_gone(file):
                self._whose.pop(path, None)

    def close(self) -> None:
        super().close()
        self._files.drain()
        self._files.local.clear()
        self._files.local.leases.go()


class Service:
    """The service of one store, for all demos of this process that are attached to it.

    It runs from the first app that serves to the last that stops. An app whose lifespan is not run
    (it is mounted in another) starts with its first request.
    """

    def __init__(
        self,
        store: SessionStore,
        cache: Path,
        *,
        sweep_every: timedelta | None,
        cache_size: int | None,
        keep_local: bool,
        share: bool = False,
        history: timedelta | None = None,
        state_size: int | None = None,
        upload_pieces: int | None = UPLOAD_PIECES,
        resume: timedelta | None = None,
    ) -> None:
        """Use Gradio's ``cache`` directory for local copies.

        Raises ValueError when ``sweep_every`` is not longer than zero, SettingsError when another
        process has the store with another cache directory, or the store has no secret.
        """
        self.store = store
        self.secret: Final = store.secret()
        self.share = share
        """True if the outputs of pages are links too."""
        self.upload_pieces: Final = upload_pieces
        """The size above which pages send a file in pieces; None for no such size."""
        self.presences: Final = PresenceTracker(store)
        paths = CachePaths(cache, self.secret)
        self.files: Final = CacheFiles(
            store, paths, CacheDir(paths.root, cache_size, keep=keep_local)
        )
        self.files.history = history
        self.states: Final = States(store, self.secret, self.presences, state_size)
        self.places: Final[set[str]] = set()
        """The events that used a path of a file that is gone, each logged once."""
        self.copies: Final = OwnedCopies(paths.root / OURS, store.local_copies.size, self.files)
        self.cached: Final = CachedResults(self.files, self.copies.whose)
        self._beating = Sweeping(store.clock, self._beat, store.live_interval, "heartbeat")
        self._sweeping = store.sweeping(every=sweep_every)
        self._lock = threading.Lock()
        self._apps: weakref.WeakSet[App] = weakref.WeakSet()
        self._done = {"renew pins": store.now(), "touch tabs": store.now()}
        self._claim = CLAIM_BILLED if isinstance(store.backend, Surveys) else CLAIM
        self._claim_path()
        self._retention = store.retention
        self.resuming: Final = None if resume is None else Resuming(self.files, self.states, resume)
        if self.resuming is not None:
            linger = max(store.retention.linger, self.resuming.within)
            store.retention = replace(store.retention, linger=linger)
            self._stop_marking = store.on("saved", self.resuming.saved)
        self._stop_listening = store.on("dropped", self._dropped)
        store.before_drop.append(self.states.dropping)
        self._move_copies_back = store.use_local_copies(self.copies)

    def keep_for(self, age: timedelta) -> None:
        """Set the store's ``max_age`` to ``age`` if it has none."""
        if self.store.retention.max_age is None:
            self.store.retention = replace(self.store.retention, max_age=age)

    def pin(self, demo: Blocks) -> None:
        """Save the files that came with the demo's components, and those that texts link to."""
        self.states.serve(demo)
        names = {self.files.paths.relative(path) for path in compat.own_files(demo)}
        self.files.pin(sorted(name for name in names if name is not None))

    def serving(self, app: App) -> None:
        if app in self._apps:
            return
        start_waiting()
        with self._lock:
            self._apps.add(app)
            self.files.local.leases.hold()
            self.presences.start()
            self._beating.start()
            self._sweeping.start()

    def stopped(self, app: App) -> None:
        """Note that the app has stopped. Waits for calls in progress; ends no session."""
        with self._lock:
            self._apps.discard(app)
            if not self._apps:
                self._stop()

    def close(self) -> None:
        """Stop for all apps, and put the store's working copies and retention back."""
        with self._lock:
            self._apps.clear()
            self._stop()
            self._stop_listening()
            if self.resuming is not None:
                self._stop_marking()
                self.resuming.drain()
            with contextlib.suppress(ValueError):  # it was closed before
                self.store.before_drop.remove(self.states.dropping)
            self.states.drain()
            self._move_copies_back()
            self.store.retention = self._retention

    def _stop(self) -> None:
        self._sweeping.stop()
        self._beating.stop()
        self.presences.stop()

    def _dropped(self, event: Event) -> None:
        """Delete the lists of an owner whose last session is gone."""
        if event.owner is None or event.session_id is None or event.reason == ASKED_FOR:
            return  # a visitor whose session the app dropped may still be here
        try:
            left = self.store.session(event.session_id, event.owner)
            tidy(self.store, event.owner, left.sid, self.files.unclaimed(event.owner).key)
        except SessionStoreError as error:
            log.warning("The lists of a visitor who left could not be deleted: %s", error)

    # Run history

    def pin_run(self, owner: str | None, run: Any, pin: Callable[[str], bool]) -> None:
        """Fetch the files of a run, and ``pin`` each."""
        for name in self._names(run):
            while self.files.obtain(owner, name) is not None and not pin(name):
                pass  # another file's fetch evicted it at once

    def keep_run(self, owner: str, run: Any) -> None:
        """Keep the files of a run for the owner's history."""
        try:
            self.files.keep_run(owner, self._names(run))
        except SessionStoreError as error:
            log.warning("The files of a run could not be kept for the run history: %s", error)

    def _names(self, run: Any) -> list[str]:
        return list(dict.fromkeys(name for _, name in self.files.paths.within(run)))

    # Heartbeat

    def _beat(self) -> None:
        self.presences.beat()
        if self.resuming is not None:
            self.resuming.drop_left()
        now = self.store.now()
        again = self._is_due("renew pins", now, self.files.pinned_for / 3)
        if again:
            self.files.renew_pins()
        self.cached.renew(again=again)
        idle = self.store.retention.idle
        if idle is not None and self._is_due("touch tabs", now, idle / 3):
            # The lists of sessions of present owners would become idle otherwise.
            for owner in {visitor.owner for visitor in self.presences.here()}:
                if owner is not None:
                    self.files.lists.touch(owner)
        # The sweep does this too, but on a bucket it comes rarely.
        if self._is_due("copies", now, _COPIES_EVERY):
            self.files.sweep()
        if self._is_due("clean", now, _CLEAN_EVERY):
            self.files.local.clean()
        if self._is_due("claim", now, self._claim / 2):
            self._claim_path()

    def _is_due(self, job: str, now: datetime, every: timedelta) -> bool:
        """Return whether the job was not done for longer than ``every``; if so, it is done now."""
        last = self._done.get(job)
        is_due = last is None or now - last > every
        if is_due:
            self._done[job] = now
        return is_due

    def _claim_path(self) -> None:
        """Record this process's cache directory; raise SettingsError if another process differs."""
        mine = str(self.files.paths.root)
        claims = Session(self.store, private_key("gradio cache directory"))
        left = timedelta(0)
        try:
            claim = claims.get("path")
            theirs = claim.read().decode(errors="surrogateescape")
            left = (claim.expires or self.store.now()) - self.store.now()
        except FileNotStored:
            theirs = mine
        if theirs != mine:
            raise SettingsError(
                f"Gradio's cache directory is {mine!r} here, and {theirs!r} in another process "
                "that uses this store. Files must have the same paths on all replicas: set "
                "GRADIO_TEMP_DIR to one directory for all. (A process that stopped counts for "
                f"{self._claim.seconds} more seconds.)"
            )
        if left <= self._claim / 2:  # else another process has renewed it
            claims.put("path", mine.encode(errors="surrogateescape"), ttl=self._claim)
        self._done["claim"] = self.store.now()
