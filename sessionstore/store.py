"""The store: sessions, their retention and the sweep. All policy is combined here."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from sessionstore import settings, signing, transfer, verification
from sessionstore._threads import in_thread
from sessionstore.audit import Audit
from sessionstore.backend import (
    Backend,
    KeepsSecret,
    KnowsIfAlone,
    Omits,
    Reference,
    SessionKey,
    SignsUrls,
)
from sessionstore.background import Sweeping, Timers
from sessionstore.clock import Clock, SystemClock
from sessionstore.disposition import disposition
from sessionstore.errors import SettingsError
from sessionstore.events import Callback, Event, Events
from sessionstore.eviction import make_room
from sessionstore.limits import Ledger, Limits
from sessionstore.local_copies import WorkingCopies
from sessionstore.media import media_type
from sessionstore.names import is_private, session_key, shared_key
from sessionstore.retention import Planner, PlanRow, Retention, row_for
from sessionstore.session import Session, Usage
from sessionstore.settings.resolver import SECRET_LENGTH
from sessionstore.sweep import Sweep
from sessionstore.transfer import Copied, Report
from sessionstore.verification import Finding

_SHARED = shared_key()
_MINUTE = timedelta(seconds=60)
_KEPT_SECRET = 32
"""The minimum length, in bytes, of a secret that a backend made: a shorter one can be guessed."""


class SessionStore:
    """Files in sessions, over any backend. Safe to use from any thread.

    ``SessionStore.open()`` is the usual way to get one; this constructor takes a backend that is
    already open. Close the store, or use it in a ``with``: that ends its threads and removes its
    working copies. The files stay.
    """

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
        cache_dir: Path | None = None,
        cache_size: int | None = None,
        audit: Audit | None = None,
    ) -> None:
        self.backend = backend
        self.retention = retention or Retention()
        self.working = WorkingCopies(cache_dir, cache_size)
        self.ledger = Ledger(limits or Limits(), backend, self._make_room)
        self.clock = clock or SystemClock()
        self._events = Events()
        self._timers = Timers(self.clock, self.now, self._on_time)
        self._sweepings: weakref.WeakSet[Sweeping] = weakref.WeakSet()
        if secret is not None and len(secret) < SECRET_LENGTH:
            raise SettingsError(
                f"invalid secret=...: write at least {SECRET_LENGTH} characters, random ones."
            )
        self._secret = secret
        self._base_url = base_url
        self._redirect = _signing(backend) if redirect else None
        self.audit = audit

    @classmethod
    def open(
        cls,
        url: str | os.PathLike[str] | None = None,
        *,
        retention: Retention | None = None,
        limits: Limits | None = None,
        clock: Clock | None = None,
        secret: str | None = None,
        base_url: str | None = None,
        redirect: bool | None = None,
        restart: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_size: int | None = None,
        audit: str | os.PathLike[str] | None = None,
        audit_fsync: bool | None = None,
        **options: object,
    ) -> Self:
        """Open the store at ``url``, and create it if it does not exist.

        ``url`` is ``file:///path``, ``memory://``, or a URL of any scheme with a registered
        backend; a path is a local directory. Arguments that are left out come from the environment
        (``SESSIONSTORE_*``), then ``sessionstore.toml``, then ``[tool.sessionstore]`` in
        ``pyproject.toml``. ``options`` are the backend's own settings. ``restart="drop"`` drops the
        sessions that dead processes left. ``cache_dir`` and ``cache_size`` (bytes) configure the
        copies that ``local_path()`` makes. With ``redirect`` the backend signs URLs itself.
        ``audit`` is a local file that records every deletion.

        Raises SettingsError, which names the setting, its value and a valid value.
        """
        keywords = {
            "retention": retention, "limits": limits, "secret": secret, "base_url": base_url,
            "redirect": redirect, "restart": restart, "cache_dir": cache_dir,
            "cache_size": cache_size, "audit": audit, "audit_fsync": audit_fsync, **options,
        }  # fmt: skip
        given = {name: value for name, value in keywords.items() if value is not None}
        chosen = settings.resolve(url, given, os.environ, Path.cwd())
        clock = clock or SystemClock()
        backend = chosen.backend.connect(chosen.location, chosen.backend_options, clock)
        try:
            log = None if chosen.audit is None else Audit(chosen.audit, fsync=chosen.audit_fsync)
            store = cls(
                backend, retention=chosen.retention, limits=chosen.limits, clock=clock,
                secret=chosen.secret, base_url=chosen.base_url, redirect=chosen.redirect,
                cache_dir=chosen.cache_dir, cache_size=chosen.cache_size, audit=log,
            )  # fmt: skip
            if chosen.restart == "drop":
                store._drop_abandoned()
        except BaseException:
            backend.close()
            raise
        return store

    def close(self) -> None:
        """End the threads and remove the working copies. Files stay. A second call does nothing."""
        for sweeping in list(self._sweepings):
            sweeping.stop()
        self._timers.close()
        self.working.close()
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Sessions

    def session(self, id: str, owner: str | None = None) -> Session:  # noqa: A002 - the field's name
        """Return a handle on the session of ``id`` and ``owner``. Creates nothing, does no I/O.

        Any string can be an id. The same id under another owner is another session, so a client
        that chooses an id gets no access to the files of other owners. Raises InvalidName.
        """
        return Session(self, session_key(id, owner))

    @property
    def shared(self) -> Session:
        """Return the app's own session, which holds files for everyone.

        It is never idle and never ends (its ``end()`` does nothing). ``max_age`` and times to live
        apply to its files.
        """
        return Session(self, _SHARED)

    def sessions(self) -> Iterator[Session]:
        """Iterate over every visitor's session, with or without an owner: the administrator's view.

        Omits the app's own session, an adapter's sessions, and sessions without a readable id and
        owner. ``verify()`` lists the last kind.
        """
        for record in self.backend.sessions():
            key = self.backend.identify(record.sid)
            if key is not None and record.sid != _SHARED.sid and not is_private(key):
                yield Session(self, key)

    def end(self, key: SessionKey) -> None:
        """``Session.end``."""
        if key.sid == _SHARED.sid:
            return
        self.backend.end(key.sid)
        record = self.backend.session(key.sid)
        due = None if record is None else self.retention.due(record)
        if due is None:
            return
        self.tell("ended", key, reason="the visitor left")
        if record is not None and self.retention.is_due(record, self.now()):
            retry = self._linger_over(key.sid)
            if retry is None:
                return
            due = retry
        self._timers.at(key.sid, due)

    def resume(self, key: SessionKey) -> None:
        """``Session.resume``."""
        record = self.backend.session(key.sid)
        self.backend.resume(key.sid)
        self._timers.cancel(key.sid)
        if record is not None and record.ended is not None:
            self.tell("resumed", key, reason="the visitor came back")

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
        with self.ledger.removing(key.sid) as change:
            dropped = self.backend.drop(
                key.sid, unless_active_after=unless_active_after, only_ended=only_ended
            )
            change.dropped = dropped is not None
        if dropped is None:
            if self.audit is not None:
                self.audit.spared(key, self.now())
            return False
        self._timers.cancel(key.sid)
        self.working.forget_session(key.sid)
        self.tell("dropped", key, size=dropped.bytes, reason=reason, files=dropped.files)
        return True

    def removed(self, key: SessionKey, gone: Iterable[Reference], kind: str, reason: str) -> None:
        """Forget the working copies of deleted files, and emit an event of ``kind`` for each."""
        for reference in gone:
            self.working.forget_file(key.sid, reference.name)
            self.tell(kind, key, reference.name, reference.size, reason)

    def _on_time(self, sid: str) -> datetime | None:
        try:
            return self._linger_over(sid)
        except Exception as error:
            self.tell("sweep_failed", reason=str(error))
            raise

    def _linger_over(self, sid: str) -> datetime | None:
        """Drop an ended session if it is due; if it is not, return the time when it is due."""
        record = self.backend.session(sid)
        due = None if record is None else self.retention.due(record)
        key = self.backend.identify(sid)
        if record is None or due is None or key is None:
            return None
        if not self.retention.is_due(record, self.now()):
            return due
        if self.drop(
            key, "it ended, and its linger is over", unless_active_after=record.active,
            only_ended=True,
        ):  # fmt: skip
            return None
        # The session became active just now: check again when the linger of that activity is over.
        return self.now() + max(self.retention.linger, timedelta(seconds=1))

    # Sweeping

    def plan(self) -> list[PlanRow]:
        """Return the plan of a sweep made now: one row, with its reason, per session or file.

        An object among the sessions that is not a session, or that no listing can show, has a row
        with the action "hold".
        """
        rows = self._due()
        if isinstance(self.backend, Omits):
            rows += map(row_for, self.backend.omitted(files=False))
        return rows

    def _due(self) -> list[PlanRow]:
        """Return the rows that a sweep acts on. Reads sessions only, which is one listing."""
        return list(self._planner().rows(self.backend.sessions()))

    def sweep(self, dry_run: bool = False) -> list[PlanRow]:  # noqa: FBT001, FBT002 - a public name
        """Delete expired sessions and files, collect unreferenced content, and return the plan.

        The rows are those of ``plan()`` for sessions and files. A row that could not be carried out
        because its session became active is returned as a ``hold``. ``dry_run`` deletes nothing and
        returns the complete plan. Any number of processes may sweep at the same time.
        """
        if dry_run:
            return self.plan()
        try:
            plan = self._due()
        except Exception as error:
            self.tell("sweep_failed", reason=str(error))
            raise
        return Sweep(self).run(plan)

    def sweeping(self, every: timedelta = _MINUTE) -> Sweeping:
        """Return a context manager: a thread that sweeps now and then once per ``every``.

        An error does not end the thread: it is logged and emitted as ``sweep_failed``. Closing the
        store ends it.
        """
        sweeping = Sweeping(self.clock, self.sweep, every)
        self._sweepings.add(sweeping)
        return sweeping

    def _planner(self, abandoned: Callable[..., str | None] = lambda _: None) -> Planner:
        return Planner(
            self.retention, self.now(), _SHARED.sid, self.backend.identify, self.backend.files,
            abandoned,
        )  # fmt: skip

    def _drop_abandoned(self) -> None:
        """Drop the sessions that dead processes left.

        While another process is alive, only sessions that are not live are dropped.
        """
        alone = isinstance(self.backend, KnowsIfAlone) and self.backend.alone()
        now = self.now()
        planner = self._planner(
            lambda record: (
                "left by a process that is gone (restart=drop)"
                if alone or not self.retention.is_live(record, now)
                else None
            )
        )
        Sweep(self).run(list(planner.rows(self.backend.sessions())))

    def _make_room(self, size: int, saving: str) -> None:
        make_room(self, size, saving)

    # Contents

    def usage(self) -> Usage:
        """Return the number of files, their bytes, the stored bytes, and the number of sessions.

        Reads the listing of every session.
        """
        files = size = sessions = 0
        for record in self.backend.sessions():
            references = [reference.size for reference in self.backend.files(record.sid)]
            files, size = files + len(references), size + sum(references)
            sessions += 1
        return Usage(files, size, self.backend.stored().bytes, sessions)

    def verify(self, repair: bool = False) -> list[Finding]:  # noqa: FBT001, FBT002 - a public name
        """Read all content, compare it with its digest, and return a finding for each problem.

        Problems are damaged or missing content, objects that are not part of the store, and
        unfinished work. Each finding describes the repair. With ``repair`` it is done: a file gets
        another copy of its content if there is one. Otherwise the file is deleted, so that saving
        it again heals it. Raises BackendUnavailable.
        """
        return verification.verify(self, repair=repair)

    def copy_to(
        self,
        other: SessionStore,
        *,
        progress: Report | None = None,
        workers: int = transfer.WORKERS,
    ) -> Copied:
        """Copy every session and file to another store, of any backend.

        Files that the other store already has are skipped, so an interrupted copy continues where
        it stopped. Each file is compared with its digest when it is read from this store, and again
        when it is read back from the other one. Files keep their creation time and their time to
        live. Sessions count as active at the time of the copy, and ended sessions are ended in the
        other store too. A session without files is not copied. ``progress`` is called with a
        ``transfer.Progress`` after each file, by one of ``workers`` threads at a time.

        Anything else that this store has and the other one lacks afterwards is listed in
        ``findings`` of the result, or counted in its ``gone``. A session without a readable id and
        owner is copied under its stored name, where its visitor finds it. It is a finding too.

        Raises BackendUnavailable and LimitExceeded at once. Raises ``transfer.Damaged``, a
        Corrupted that holds the result, for damaged files, after all other files were copied.
        """
        return transfer.copy(self, other, progress=progress, workers=workers)

    # Events, wrappers, working copies and URLs

    def on(self, kind: str, callback: Callback) -> Callable[[], None]:
        """Call ``callback(event)`` at every event of ``kind``; return a function that ends it.

        An exception from a callback is logged and stops nothing. Raises ValueError for an unknown
        kind.
        """
        return self._events.on(kind, callback)

    def tell(
        self, kind: str, key: SessionKey | None = None, name: str | None = None, size: int = 0,
        reason: str = "", *, files: int | None = None,
    ) -> None:  # fmt: skip
        """Emit an event to its subscribers, and write a deletion to the audit log.

        Events of an adapter's own sessions go to the log only: visitors' files may be in them.
        ``files`` is the number of files; its default is 1 with a ``name`` and 0 without.
        """
        audited = self.audit is not None and self.audit.is_about(kind)
        wanted = self._events.wanted(kind) and not (key is not None and is_private(key))
        if not (audited or wanted):
            return
        id_, owner = (None, None) if key is None else (key.id, key.owner)
        about = int(name is not None) if files is None else files
        event = Event(kind, id_, owner, name, size, reason, self.now(), about)
        if self.audit is not None and audited:
            self.audit.happened(event)
        if wanted:
            self._events.emit(event)

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
        """Return the time between two touches of a session by a live connection."""
        return self.retention.live_interval

    def use_working_copies(self, copies: WorkingCopies) -> Callable[[], None]:
        """Make the files of ``local_path()`` in ``copies`` from now on.

        Removes the copies made before. ``copies`` is notified of files and sessions that the store
        deletes. Return a function that restores the previous copies and closes ``copies``.
        """
        before, self.working = self.working, copies
        before.close()

        def restore() -> None:
            self.working = before
            copies.close()

        return restore

    def url(self, sid: str, reference: Reference, expires: timedelta) -> str:
        """Return the URL of ``StoredFile.url``, without a check that the file exists."""
        if self._redirect is not None:
            kind = media_type(reference.name)
            return self._redirect.url(
                sid, reference, media_type=kind, disposition=disposition(reference.name, kind),
                expires=expires,
            )  # fmt: skip
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

    # Async versions

    @classmethod
    async def open_async(
        cls,
        url: str | os.PathLike[str] | None = None,
        *,
        retention: Retention | None = None,
        limits: Limits | None = None,
        clock: Clock | None = None,
        secret: str | None = None,
        base_url: str | None = None,
        redirect: bool | None = None,
        restart: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_size: int | None = None,
        audit: str | os.PathLike[str] | None = None,
        audit_fsync: bool | None = None,
        **options: object,
    ) -> Self:
        """``open`` in a worker thread."""
        return await in_thread(
            cls.open, url, retention=retention, limits=limits, clock=clock, secret=secret,
            base_url=base_url, redirect=redirect, restart=restart, cache_dir=cache_dir,
            cache_size=cache_size, audit=audit, audit_fsync=audit_fsync, **options,
        )  # fmt: skip

    async def sessions_async(self) -> list[Session]:
        """``sessions`` in a worker thread, as a list."""
        return await in_thread(lambda: list(self.sessions()))

    async def plan_async(self) -> list[PlanRow]:
        """``plan`` in a worker thread."""
        return await in_thread(self.plan)

    async def sweep_async(self, dry_run: bool = False) -> list[PlanRow]:  # noqa: FBT001, FBT002 - as sweep
        """``sweep`` in a worker thread."""
        return await in_thread(self.sweep, dry_run)

    async def usage_async(self) -> Usage:
        """``usage`` in a worker thread."""
        return await in_thread(self.usage)

    async def verify_async(self, repair: bool = False) -> list[Finding]:  # noqa: FBT001, FBT002 - as verify
        """``verify`` in a worker thread."""
        return await in_thread(self.verify, repair)

    async def copy_to_async(
        self,
        other: SessionStore,
        *,
        progress: Report | None = None,
        workers: int = transfer.WORKERS,
    ) -> Copied:
        """``copy_to`` in a worker thread."""
        return await in_thread(self.copy_to, other, progress=progress, workers=workers)

    async def close_async(self) -> None:
        """``close`` in a worker thread."""
        await in_thread(self.close)


def _signing(backend: Backend) -> SignsUrls:
    if isinstance(backend, SignsUrls):
        return backend
    raise SettingsError(
        "invalid redirect=true: this backend signs no URLs of its own; leave it out, and set "
        "base_url to where the app serves stored files."
    )
