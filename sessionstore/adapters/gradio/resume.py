"""Coming back: the newest session of an owner's app, taken over into the session of a new page.

Gradio begins a session for each load of a page, so a refresh loses what the page had. ``resumed``
gives the new session what the owner's newest one of the app has: its files, by reference, and its
values of ``gr.State``. Stored files and paths of them in the values become those of the new
session. The older session stays as it is, for a tab that is still open; once its page is closed, it
is dropped.

Which app a session is of is in the session itself, in the names of its values, or of a mark: a file
without bytes. A second mark says when it was taken over: a ``delete_callback`` is not called for
the values that it had then, because they live on.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from sessionstore._threads import Deferred
from sessionstore.adapters.gradio.paths import OURS, remember
from sessionstore.adapters.gradio.presence import Visitor
from sessionstore.adapters.gradio.recent_saves import KeptSession, Needed, TakingSession
from sessionstore.adapters.gradio.state import TAKEN, Page, States, page, place_of
from sessionstore.clock import EPOCH
from sessionstore.errors import FileNotStored, LimitExceeded, SessionStoreError
from sessionstore.limits import moving
from sessionstore.names import HIDDEN, UPLOADS, decode, session_key
from sessionstore.session import Session

if TYPE_CHECKING:
    from gradio import State

    from sessionstore.adapters.gradio.cache_files import CacheFiles
    from sessionstore.events import Event as StoreEvent
    from sessionstore.model import Reference, SessionKey

_PAGE: Final = f"{HIDDEN}{OURS}/page/"
"""The beginning of the mark that a session is one of an app."""

_OURS: Final = f"{HIDDEN}{OURS}/"
_MARKS: Final = (_PAGE, TAKEN)

_LOOKED: Final = 8
"""The most sessions of an owner that are looked at."""

_AGAIN: Final = timedelta(minutes=5)
"""The time after which a session that is used is marked again."""

_REMEMBERED: Final = 100
"""The pages whose result is remembered: several events of one may ask for it when it loads."""

_LOCKS: Final = 64

_TRIES: Final = 20
"""How often it is tried to drop a session that was taken over, once in each beat."""

log: Final = logging.getLogger("sessionstore")


@dataclass(frozen=True, slots=True)
class Resumed:
    """What the session of a new page took over from the owner's newest session of the app."""

    session: Session
    """The session of this page, which has the files now."""
    last_save: datetime
    """The time of the newest save in the older session, aware UTC."""
    _values: dict[int, Any] = field(repr=False)

    def value(self, state: State, default: Any = None) -> Any:
        """Return the value of a ``gr.State`` of the app, ``default`` if it has none.

        The next event that uses the state gets the same value.
        """
        return self._values.get(id(state), default)


class Resuming:
    """Takes sessions over into those of new pages, for one process."""

    def __init__(self, files: CacheFiles, states: States, within: timedelta) -> None:
        """Allow it until so long after the last save."""
        self.within: Final = within
        self._files = files
        self._states = states
        self._store = files.store
        self._marked: OrderedDict[tuple[str, str], datetime] = OrderedDict()
        self._results: OrderedDict[Visitor, Resumed] = OrderedDict()
        self._left: dict[SessionKey, int] = {}
        """The sessions that were taken over and not dropped yet, each with the tries left."""
        self._lock = threading.Lock()
        self._taking = [threading.Lock() for _ in range(_LOCKS)]
        self._deferred = Deferred()

    # The app of a session

    def saved(self, about: StoreEvent) -> None:
        """Mark the session of a save as one of the event's app, in the background.

        Once in a while: it may have been dropped since then.
        """
        shown, id_, owner = page.get(), about.session_id, about.owner
        if shown is None or id_ is None or owner is None:
            return
        app, key, now = self._states.app_of(shown.demo), session_key(id_, owner), self._store.now()
        with self._lock:
            marked = self._marked.get((key.sid, app))
            if (marked and now - marked < _AGAIN) or (about.name or "").startswith(_MARKS):
                return
            remember(self._marked, (key.sid, app), now)
        self._deferred.call(partial(self._mark, key, owner, f"{_PAGE}{app}"))

    def _mark(self, key: SessionKey, owner: str, name: str) -> None:
        try:
            self._files.lists.record(owner, key.sid)
            KeptSession(self._store, key).put(name.removeprefix(HIDDEN), b"")
        except SessionStoreError as error:
            log.warning("A session cannot be resumed, because it was not marked: %s", error)

    def drain(self) -> None:
        self._deferred.drain()

    # Taking over

    def resumed(self, visitor: Visitor, shown: Page) -> Resumed | None:
        """Take the owner's newest session of the page's app over into that of the visitor."""
        if visitor.owner is None:
            return None
        with self._taking[hash(visitor) % _LOCKS]:  # two events of one page
            known = self._results.get(visitor)
            if known is not None:
                return known
            result = self._resumed(visitor.owner, session_key(*visitor), shown)
            with self._lock:
                if result is not None:
                    self._results[visitor] = result
                if len(self._results) > _REMEMBERED:
                    self._results.popitem(last=False)
            return result

    def _resumed(self, owner: str, mine: SessionKey, shown: Page) -> Resumed | None:
        app, files = self._states.app_of(shown.demo), self._files
        sids = files.lists.newest(owner)[: _LOOKED + 1]
        looks = [partial(self._files_of, sid) for sid in sids if sid != mine.sid]
        own, *others = files.together([partial(self._files_of, mine.sid), *looks])
        if any(not file.name.startswith(_MARKS) for file in own[1]):
            return None  # the page has something already
        found = [(_newest(listed), sid, listed) for sid, listed in others if _is_of(app, listed)]
        found = [each for each in found if self._store.now() - each[0] <= self.within]
        for last_save, sid, listed in sorted(found, reverse=True, key=lambda each: each[0]):
            key = self._store.backend.identify(sid)
            if key is not None and key.owner == owner:
                try:
                    return self._take(key, mine, listed, shown, last_save)
                except LimitExceeded as error:
                    log.warning("A session was not resumed, because of a limit: %s", error)
                    return None
        return None

    def _files_of(self, sid: str) -> tuple[str, list[Reference]]:
        now = self._store.now()
        files = self._store.backend.files(sid)
        return sid, [file for file in files if file.expires is None or file.expires > now]

    def _take(
        self,
        older: SessionKey,
        mine: SessionKey,
        listed: list[Reference],
        shown: Page,
        last_save: datetime,
    ) -> Resumed:
        target = TakingSession(self._store, mine)
        files = [file for file in listed if not file.name.startswith((_OURS, UPLOADS))]
        takes = [partial(self._take_file, older.sid, target, file) for file in files]
        try:
            taken = dict(each for each in self._files.together(takes) if each is not None)
            moved = partial(self._moved, older, mine, {file.name: file for file in files}, taken)
            values = self._states.take_over(
                older, mine, listed, files=taken, moved=moved, page=shown
            )
        except SessionStoreError:
            with contextlib.suppress(SessionStoreError):
                names = [file.name for file in listed if not file.name.startswith(_MARKS)]
                self._store.backend.delete(mine.sid, names)
            raise
        KeptSession(self._store, older).put(TAKEN.removeprefix(HIDDEN), b"")
        if not self._drop(older):
            self._left[older] = _TRIES
        return Resumed(Session(self._store, mine), last_save, values)

    def _take_file(
        self, sid: str, target: TakingSession, file: Reference
    ) -> tuple[str, Reference] | None:
        """Save a file of another session in the ``target``; read its bytes only if they are old.

        A bucket refers to content again only while it is young (the birth rule).
        """
        ttl = None if file.expires is None else file.expires - self._store.now()
        with contextlib.suppress(FileNotStored), moving(file.size):
            try:
                return file.name, target.refer(file.name, file, ttl)
            except Needed:
                with self._store.backend.open(sid, file) as stream:
                    return file.name, target.put(file.name, stream, ttl).reference
        return None  # it was deleted meanwhile

    def _moved(
        self,
        older: SessionKey,
        mine: SessionKey,
        files: dict[str, Reference],
        taken: dict[str, Reference],
        text: str,
    ) -> str:
        """Return a text with the paths of stored files of the older session in the new one."""
        paths, marks = self._files.paths, self._files.marks(mine.sid, mine.owner)

        def moved(path: re.Match[str]) -> str:
            name = decode(unquote(path[1]))
            old, new = files.get(name or ""), taken.get(name or "")
            if old is None or new is None:
                return path[0]
            # Only what was given to this visitor: a text may be the visitor's own.
            for mark in marks:
                if hmac.compare_digest(path[2], paths.proof(older.sid, old, mark)):
                    return f"/{OURS}/{mine.sid}/{path[1]}/{paths.proof(mine.sid, new, mark)}/"
            return path[0]

        return re.sub(rf"/{OURS}/{older.sid}/([^/\s]+)/([0-9a-f]{{32}})/", moved, text)

    # The older session

    def drop_left(self) -> None:
        """Drop the sessions that were taken over, if their pages are closed by now."""
        for key, tries in list(self._left.items()):
            if self._drop(key) or tries <= 1:
                self._left.pop(key, None)
            else:
                self._left[key] = tries - 1

    def _drop(self, key: SessionKey) -> bool:
        """Drop a session that was taken over; return False to try again: its page is open.

        If its page went on, it stays.
        """
        try:
            _, listed = self._files_of(key.sid)
            taken = max((file.created for file in listed if file.name == TAKEN), default=None)
            went_on = taken is None or _newest(listed, taken) > taken
            reason = "its visitor came back in another session"
            return went_on or self._store.drop(key, reason, only_ended=True)
        except SessionStoreError as error:
            log.warning("A session that was taken over was not dropped yet: %s", error)
            return False


def _newest(files: Iterable[Reference], otherwise: datetime = EPOCH) -> datetime:
    """Return the time of the newest save, marks apart, or ``otherwise`` without one."""
    times = (file.created for file in files if not file.name.startswith(_MARKS))
    return max(times, default=otherwise)


def _is_of(app: str, files: list[Reference]) -> bool:
    """Return whether a session has something of this app."""
    places = (place_of("", file.name) for file in files)
    of_app = any(place is not None and place.app == app for place in places)
    marked = any(file.name == f"{_PAGE}{app}" for file in files)
    return of_app or (marked and any(not file.name.startswith(_MARKS) for file in files))
