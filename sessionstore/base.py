"""The base of a store, which sessions, files, sweeps and copies use.

``SessionStore`` is this class and the verbs of an app. Modules that ``SessionStore`` imports name
``BaseStore``, so that no import runs in a circle.
"""

from __future__ import annotations

import logging
import secrets
import weakref
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sessionstore import signing
from sessionstore.audit import EVENTS, Audit
from sessionstore.backend import Backend, KeepsSecret, SignsUrls
from sessionstore.background import Sweeping, Timers
from sessionstore.clock import Clock, SystemClock
from sessionstore.errors import FileNotStored, SessionStoreError, SettingsError
from sessionstore.events import Callback, Event, Events
from sessionstore.limits import Limits, QuotaLedger
from sessionstore.local_copies import LocalCopies
from sessionstore.media import INLINE, UNKNOWN, disposition, media_type
from sessionstore.model import Collected, Reference, SessionKey
from sessionstore.names import UPLOADS, is_private, shared_key
from sessionstore.owners import OwnerLists
from sessionstore.retention import Retention
from sessionstore.settings.resolver import SECRET_LENGTH
from sessionstore.upload_running import RunningContents

log: Final = logging.getLogger("sessionstore")

_SHARED = shared_key()
_HOUR = timedelta(hours=1)
_KEPT_SECRET = 32  # bytes, at least, of a secret that a backend made: a shorter one can be guessed


_open: weakref.WeakValueDictionary[str, BaseStore] = weakref.WeakValueDictionary()
"""The stores of this process, each by a random mark that forked processes inherit."""


class BaseStore:
    """A backend with its policy: ages, limits, events, local copies and URLs."""

    location: str | None = None
    """The URL that ``open`` used, without query, user and password; None without ``open``."""

    drops_at_restart: bool = False
    """True if ``open`` was called with ``restart=drop``, as by other processes at other times."""

    def __init__(
        self,
        backend: Backend,
        *,
        retention: Retention | None = None,
        limits: Limits | None = None,
        clock: Clock | None = None,
        secret: str | None = None,
        base_url: str | None = None,
        redirect: bool = False,
        sendfile: str | None = None,
        cache_dir: Path | None = None,
        cache_size: int | None = None,
        audit: Audit | None = None,
    ) -> None:
        _open[secrets.token_hex(16)] = self
        self.backend: Backend = backend
        self.retention: Retention = retention or Retention()
        self.limits: Limits = limits or Limits()
        self.local_copies: LocalCopies = LocalCopies(cache_dir, cache_size)
        self.clock: Clock = clock or SystemClock()
        self.events: Final = Events()
        # As many drops at a time as the backend is worth: a bucket is waited for.
        at_once: int = getattr(backend, "at_once", 1)
        self._timers = Timers(self.clock, self.now, self._on_time, at_once)
        self._sweepings: weakref.WeakSet[Sweeping] = weakref.WeakSet()
        if secret is not None and len(secret) < SECRET_LENGTH:
            raise SettingsError(
                f"invalid secret=...: write at least {SECRET_LENGTH} characters, random ones."
            )
        self._secret = secret
        self._base_url = base_url
        self._redirect: SignsUrls | None = None
        if redirect:
            if not isinstance(backend, SignsUrls):
                raise SettingsError(
                    "invalid redirect=true: this backend signs no URLs of its own; leave it out, "
                    "and set base_url to where the app serves stored files."
                )
            self._redirect = backend
        self.sendfile: Final = sendfile
        """How a proxy sends local copies: an internal location, or "X-Sendfile". None: not."""
        self.audit = audit
        self.before_drop: Final[list[Callable[[SessionKey], Callable[[], None] | None]]] = []
        """Called before a session is dropped, while its files are there, by an adapter. What they
        return is called after it, unless it was spared. They raise nothing."""
        self.swept: Collected | None = None
        """The result of the last garbage collection of this process."""
        self.listed = 0
        """The requests that the listings of this process's last sweep took, if they are billed."""
        self.swept_every: timedelta | None = None
        """The present interval of this process's sweeper, None while it does not sweep."""
        self.owners: Final = OwnerLists(lambda: self.backend, lambda: self.retention)
        """The lists of the owners' sessions."""
        self.ledger: Final = QuotaLedger(self.limits, backend, self._evict, self.owners)
        """The quotas of this store."""
        self.owners.complete = self.ledger.by_owner
        self.writers: Final[dict[str, object]] = {}
        """The newest writer of each upload in pieces that this process receives bytes of."""
        self.running: Final = RunningContents(lambda: self.backend)
        """The contents of uploads in pieces that this process receives alone."""

    def _evict(self) -> Iterator[int]:
        """Delete files to make room for ``max_store``, as ``StoreQuota`` describes it."""
        raise NotImplementedError

    def end(self, key: SessionKey) -> None:
        """``Session.end``."""
        if key.sid == _SHARED.sid:
            return
        record = self.backend.end(key.sid)
        due = None if record is None else self.retention.due(record)
        if record is None or due is None:
            return
        self.ledger.room.may_have_room()
        self.emit("ended", key, reason="the visitor left")
        if self.retention.is_due(record, self.now()):
            due = self._linger_over(key)
        if due is not None:
            self._timers.at(key, due)

    def resume(self, key: SessionKey) -> bool:
        """``Session.resume``."""
        # The record is read only for the event: on a bucket that is one more round trip.
        record = self.backend.session(key.sid) if self.events.wanted("resumed") else None
        exists = self.backend.resume(key.sid)
        self._timers.cancel(key)
        if record is not None and record.ended is not None:
            self.emit("resumed", key, reason="the visitor came back")
        return exists

    def drop(
        self,
        key: SessionKey,
        reason: str,
        *,
        unless_active_after: datetime | None = None,
        only_ended: bool = False,
    ) -> bool:
        """Delete a session with all its files, and emit "dropped". ``reason`` is for people.

        Return False if there was no such session, or if it was spared. ``unless_active_after`` and
        ``only_ended`` are passed to ``Backend.drop``.
        """
        if self.audit is not None:
            self.audit.dropping(key, reason, self.now())
        after = [prepare(key) for prepare in self.before_drop]
        with self.ledger.removing(key.sid) as change:
            dropped = self.backend.drop(
                key.sid, unless_active_after=unless_active_after, only_ended=only_ended
            )
            change.dropped = dropped is not None
        if dropped is None:
            if self.audit is not None:
                self.audit.spared(key, self.now())
            return False
        self._timers.cancel(key)
        self.local_copies.forget_session(key.sid)
        listed = self.owners.complete or self.owners.seen
        if listed and not self.owners.tidied and not is_private(key):
            self._forget_owned(key)
        self.emit("dropped", key, size=dropped.bytes, reason=reason, files=dropped.files)
        for call in filter(None, after):
            call()
        return True

    def _forget_owned(self, key: SessionKey) -> None:
        """Delete the entry of a dropped session in its owner's list. It expires if this fails."""
        try:
            if key.owner is not None:
                self.owners.forget(key.owner, key.sid)
        except SessionStoreError as error:
            log.warning("A dropped session stays in the list of its owner: %s", error)

    def on_removed(
        self, key: SessionKey, gone: Iterable[Reference], kind: str, reason: str
    ) -> None:
        """Forget the working copies of deleted files, and emit an event of ``kind`` for each."""
        for reference in gone:
            self.local_copies.forget_file(key.sid, reference.name)
            self.emit(kind, key, reference.name, reference.size, reason)

    def _on_time(self, key: SessionKey) -> datetime | None:
        try:
            return self._linger_over(key)
        except Exception as error:
            self.emit("sweep_failed", reason=str(error))
            raise

    def _linger_over(self, key: SessionKey) -> datetime | None:
        """Drop an ended session if it is due; if it is not, return the time when it is due.

        The drop itself finds out: most are due, and each look costs a bucket a request.
        """
        spared = self.retention.spared_after(self.now())
        reason = "it ended, and its linger is over"
        if self.drop(key, reason, unless_active_after=spared, only_ended=True):
            return None
        record = self.backend.session(key.sid)
        due = None if record is None else self.retention.due(record)
        return None if due is None else max(due, self.now() + timedelta(seconds=1))

    def on(self, kind: str, callback: Callback) -> Callable[[], None]:
        """Call ``callback(event)`` at every event of ``kind``; return a function that ends it.

        An exception from a callback is logged and stops nothing. Raises ValueError for an unknown
        kind.
        """
        return self.events.on(kind, callback)

    def emit(
        self, kind: str, key: SessionKey | None = None, name: str | None = None, size: int = 0,
        reason: str = "", *, files: int | None = None, limit: str | None = None,
    ) -> None:  # fmt: skip
        """Emit an event to its subscribers, and write a deletion to the audit log.

        Events of an adapter's own sessions go to the log only: visitors' files may be in them. So
        do those of the pieces of uploads, which are no files yet.
        ``files`` is the number of files; its default is 1 with a ``name`` and 0 without.
        """
        audited = self.audit is not None and kind in EVENTS
        wanted = self.events.wanted(kind) and not (key is not None and is_private(key))
        wanted = wanted and not (name is not None and name.startswith(UPLOADS))
        if not (audited or wanted):
            return
        id_, owner = (None, None) if key is None else (key.id, key.owner)
        about = int(name is not None) if files is None else files
        event = Event(kind, id_, owner, name, size, reason, self.now(), about, limit)
        if self.audit is not None and audited:
            self.audit.happened(event)
        if wanted:
            self.events.emit(event)

    def wrap(self, wrapper: Callable[[Backend], Backend]) -> None:
        """Replace the backend by ``wrapper(backend)`` (see ``sessionstore.wrapping``).

        Call it before the store is used: calls in progress are not wrapped.
        """
        self.backend = wrapper(self.backend)
        self.ledger.use(self.backend)

    def now(self) -> datetime:
        """Return the backend's time, which all ages are measured by."""
        return self.backend.now()

    @property
    def live_interval(self) -> timedelta:
        """Return ``Retention.live_interval``."""
        return self.retention.live_interval

    @property
    def touch_interval(self) -> timedelta:
        """Return the time between two touches of a session whose page is only open.

        It is ``live_interval`` if files of live sessions are spared, by ``max_age``, ``max_store``
        or ``restart=drop``. Otherwise the touches only keep the session from being idle.
        """
        policy = self.retention
        spares = policy.max_age is not None and not policy.sweep_live
        if spares or self.limits.max_store is not None or self.drops_at_restart:
            return policy.live_interval
        return _HOUR if policy.idle is None else min(policy.idle / 3, _HOUR)

    def use_local_copies(self, copies: LocalCopies) -> Callable[[], None]:
        """Make the files of ``local_path()`` in ``copies`` from now on.

        Removes the copies made before. ``copies`` is notified of files and sessions that the store
        deletes. Return a function that restores the previous copies and closes ``copies``.
        """
        before: Final = self.local_copies

        def restore() -> None:
            self.local_copies = before
            copies.close()

        self.local_copies = copies
        before.close()
        return restore

    @property
    def redirects(self) -> bool:
        """Return whether the setting ``redirect`` is on."""
        return self._redirect is not None

    def presigned(
        self, sid: str, reference: Reference, expires: timedelta, *, attachment: bool = False
    ) -> str:
        """Return a URL by which the backend serves the file, without a check that it exists.

        A type that a browser may show is shown, unless it is to be an ``attachment``; another has
        no type. Raises SettingsError without the setting ``redirect``.
        """
        if self._redirect is None:
            raise SettingsError("redirect is not set: set it to true.")
        kind = media_type(reference.name)
        kind = kind if kind in INLINE and not attachment else UNKNOWN
        return self._redirect.url(
            sid, reference, media_type=kind, disposition=disposition(reference.name, kind),
            expires=expires,
        )  # fmt: skip

    def url(self, sid: str, reference: Reference, expires: timedelta) -> str:
        """Return the URL of ``StoredFile.url``, without a check that the file exists."""
        if self.redirects:
            return self.presigned(sid, reference, expires)
        if self._base_url is None:
            raise SettingsError(
                "base_url is not set: say where the app serves stored files, such as "
                "base_url='https://example.org/files'."
            )
        path = signing.sign(self.secret(), sid, reference.name, self.now() + expires)
        return f"{self._base_url.rstrip('/')}/{path}"

    def secret(self) -> bytes:
        """Return the key that signs URLs: the setting, or the one that the backend keeps.

        Raises SettingsError if there is neither, or if the backend's is too short.
        """
        if self._secret is not None:
            return self._secret.encode()
        if isinstance(self.backend, KeepsSecret):
            kept = self.backend.secret()
            if len(kept) < _KEPT_SECRET:
                raise SettingsError(
                    f"The secret that the backend keeps has {len(kept)} bytes, but must have at "
                    f"least {_KEPT_SECRET}: remove it, so that another is made, or set secret to a "
                    "long random text."
                )
            return kept
        raise SettingsError(
            "secret is not set, and this backend cannot keep one: set it to a long random text, "
            "the same for every replica."
        )


class SessionHandle:
    """A session of a store, by its key. ``Session`` adds the verbs."""

    __slots__ = ("key", "store")

    def __init__(self, store: BaseStore, key: SessionKey) -> None:
        self.store: Final = store
        self.key: Final = key

    @property
    def id(self) -> str:
        """Return the id that ``store.session()`` was called with."""
        return self.key.id

    @property
    def owner(self) -> str | None:
        """Return the owner that ``store.session()`` was called with."""
        return self.key.owner

    @property
    def sid(self) -> str:
        """Return the stored name: the folder or key prefix of the session's files."""
        return self.key.sid

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the handle: a process that has its store open can unpickle it."""
        mark = next(mark for mark, store in _open.items() if store is self.store)
        return _unpickled, (type(self), mark, self.store.location, self.key)

    def __repr__(self) -> str:
        return f"<Session {self.sid}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SessionHandle):
            return NotImplemented
        return (self.store, self.key) == (other.store, other.key)

    def __hash__(self) -> int:
        return hash(self.key)

    def _alive(self, name: str) -> Reference:
        reference = self.store.backend.get(self.sid, name)
        if reference.expires is not None and reference.expires <= self.store.now():
            raise FileNotStored(name)
        return reference

    def check(self, reference: Reference) -> None:
        """Raise FileNotStored unless this version is still the current one and has not expired."""
        if self._alive(reference.name).token != reference.token:
            raise FileNotStored(reference.name)


def _unpickled(
    kind: type[SessionHandle], mark: str, location: str | None, key: SessionKey
) -> SessionHandle:
    """Return a pickled handle, in its store or in one of this process at the same ``location``.

    Raises SettingsError when this process has neither.
    """
    stores = [store for store in _open.values() if location and store.location == location]
    store = _open.get(mark) or (stores[0] if stores else None)
    if store is None:
        raise SettingsError(
            f"The store of the pickled file, {location or 'without a URL'}, is not open in this "
            "process: call SessionStore.open() with its URL first."
        )
    return kind(store, key)
