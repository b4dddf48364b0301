"""The store: sessions, how long they live, and the sweep. All policy meets here."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from sessionstore import settings, signing, transfer, verification
from sessionstore._twin import in_thread
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
from sessionstore.limits import Ledger, Limits
from sessionstore.media import media_type
from sessionstore.names import is_private, session_key, shared_key
from sessionstore.retention import Planner, PlanRow, Retention, row_for
from sessionstore.room import make_room
from sessionstore.session import Session, Usage
from sessionstore.sweep import Sweep
from sessionstore.transfer import Copied, Report
from sessionstore.verification import Finding
from sessionstore.working import WorkingCopies

_SHARED = shared_key()
_MINUTE = timedelta(seconds=60)
_KEPT_SECRET = 32
"""The least number of bytes of a secret that a backend made: anybody can guess a shorter one."""


class SessionStore:
    """Files in sessions, over any backend. Safe to use from any thread.

    ``SessionStore.open()`` is the usual way to get one; this constructor takes a backend that is
    already open. Close it, or use it in a ``with``: files stay, threads and working copies go.
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
        if secret is not None and len(secret) < settings.SECRET_LENGTH:
            raise SettingsError(
                f"invalid secret=...: write at least {settings.SECRET_LENGTH} characters, "
                "random ones."
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
        """Open the store at ``url``, making it when there is none.

        ``url`` is ``file:///path``, ``memory://``, or of any scheme a backend is registered for; a
        path is a local directory. What is not given comes from the environment
        (``SESSIONSTORE_*``), then ``sessionstore.toml``, then ``[tool.sessionstore]`` in
        ``pyproject.toml``. ``options`` are the backend's. ``restart="drop"`` drops the sessions
        that dead processes left. ``cache_dir`` and ``cache_size`` (bytes) are for the copies that
        ``local_path()`` makes; with ``redirect`` the backend signs URLs itself; ``audit`` is a
        local file to which every deletion is written.

        Raises SettingsError, naming the setting, its value and what would be right.
        """
        keywords = {
            "retention": retention, "limits": limits, "secret": secret, "base_url": base_url,
            "redirect": redirect, "restart": restart, "cache_dir": cache_dir,
            "cache_size": cache_size, "audit": audit, "audit_fsync": audit_fsync, **options,
        }  # fmt: skip
        given = {name: value for name, value in keywords.items() if value is not None}
        found = settings.resolve(url, given, os.environ, Path.cwd())
        clock = clock or SystemClock()
        backend = found.backend.connect(found.location, found.backend_options, clock)
        try:
            store = cls(
                backend, retention=found.retention, limits=found.limits, clock=clock,
                secret=found.secret, base_url=found.base_url, redirect=found.redirect,
                cache_dir=found.cache_dir,
                cache_size=found.cache_size,
                audit=None if found.audit is None else Audit(found.audit, fsync=found.audit_fsync),
            )  # fmt: skip
            if found.restart == "drop":
                store._drop_abandoned()
        except BaseException:
            backend.close()
            raise
        return store

    def close(self) -> None:
        """End the threads and remove the working copies. Files stay. Twice is no error."""
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
        """A handle on a session; nothing is created. Any string is an id.

        The same id under another owner is another session, so an id that a client chose gives it
        nothing of anybody else's. Raises InvalidName.
        """
        return Session(self, session_key(id, owner))

    @property
    def shared(self) -> Session:
        """The app's own session: files for everyone.

        It is never idle and never ends (its ``end()`` does nothing); ``max_age`` and times to live
        hold for its files.
        """
        return Session(self, _SHARED)

    def sessions(self) -> Iterator[Session]:
        """Every visitor's session, owned ones too: the administrator's view.

        Left out are the app's own session, those of an adapter, and those that do not say whose
        they are, which ``verify()`` names.
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
            again = self._linger_over(key.sid)
            if again is None:
                return
            due = again
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
        """Delete a session whole, and say so; False when there was none or it was spared.

        ``unless_active_after`` and ``only_ended`` are those of ``Backend.drop``.
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
        """Note that files were deleted, and say so."""
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
        """Drop an ended session if it is due by now; otherwise when it will be."""
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
        # Active at this very moment: look again when that activity's own linger is over.
        return self.now() + max(self.retention.linger, timedelta(seconds=1))

    # Sweeping

    def plan(self) -> list[PlanRow]:
        """What a sweep would do now: a row, with its reason, for each session or file.

        Things among the sessions that are none, or that no listing can show, have a row of "hold".
        """
        rows = self._due()
        if isinstance(self.backend, Omits):
            rows += map(row_for, self.backend.omitted(files=False))
        return rows

    def _due(self) -> list[PlanRow]:
        """The rows that a sweep acts on: it looks at sessions alone, which is one listing."""
        return list(self._planner().rows(self.backend.sessions()))

    def sweep(self, dry_run: bool = False) -> list[PlanRow]:  # noqa: FBT001, FBT002 - a public name
        """Delete what is over its time, and collect what nothing refers to; returns the plan.

        The rows are those of ``plan()`` that are about sessions and files. A row that could not be
        carried out because its session became active comes back as a ``hold``. With ``dry_run``
        nothing is deleted, and the plan is whole. Any number of processes may sweep at once.
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
        """A background thread that sweeps now and every so often: a context manager.

        An error ends no sweeping: it is logged and told as ``sweep_failed``. Closing the store
        does.
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
        """Drop what dead processes left. While another lives, only sessions that are not live."""
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

    # What there is

    def usage(self) -> Usage:
        """Files, their bytes, the bytes their content takes, and sessions. Looks at all of them."""
        files = size = sessions = 0
        for record in self.backend.sessions():
            references = [reference.size for reference in self.backend.files(record.sid)]
            files, size = files + len(references), size + sum(references)
            sessions += 1
        return Usage(files, size, self.backend.stored().bytes, sessions)

    def verify(self, repair: bool = False) -> list[Finding]:  # noqa: FBT001, FBT002 - a public name
        """Read all content and compare it with its digest; returns everything that is not right.

        Damaged and missing content, what is none of the store's, and what was left unfinished; each
        finding says in words what a repair would do. With ``repair`` that is done: a file gets
        another copy of its content where there is one, and is deleted otherwise, so that saving it
        again heals it. Raises BackendUnavailable.
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

        What is there already is passed over, so a copy that was interrupted goes on where it was.
        Every file is compared with its digest as it is read here, and again as it is read back from
        there. Files keep the time they were saved at and their time to live, sessions count as
        active when they were copied, and ended ones end there. A session without files is not
        copied. ``progress`` is called with a ``transfer.Progress`` after each file, by one of
        ``workers`` threads at a time.

        Anything else that is in this store and not in the other one afterwards is in ``findings``
        of what is returned, or counted in its ``gone``. A session that does not say whose it is is
        copied under its stored name, where its visitor finds it, and is a finding too.

        Raises BackendUnavailable and LimitExceeded at once; ``transfer.Damaged``, which is a
        Corrupted and has the result, for damaged files after all others were copied.
        """
        return transfer.copy(self, other, progress=progress, workers=workers)

    # Around it

    def on(self, kind: str, callback: Callback) -> Callable[[], None]:
        """Call ``callback(event)`` at every event of that kind; returns a function that ends it.

        A callback that raises is logged, and stops nothing. Raises ValueError for another kind.
        """
        return self._events.on(kind, callback)

    def tell(
        self, kind: str, key: SessionKey | None = None, name: str | None = None, size: int = 0,
        reason: str = "", *, files: int | None = None,
    ) -> None:  # fmt: skip
        """Emit an event, if anybody listens, and have a deletion written to the audit log.

        Of an adapter's own sessions only the log hears: visitors' files may be in them.
        ``files``: without, one if there is a name.
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
        """Put something around the backend (``sessionstore.wrapping``), for all calls from now on.

        Do it before the store is used: what is under way stays as it is.
        """
        self.backend = wrapper(self.backend)
        self.ledger.use(self.backend)

    def now(self) -> datetime:
        """The backend's time, which all ages are measured by."""
        return self.backend.now()

    @property
    def live_interval(self) -> timedelta:
        """How often a live connection touches its session."""
        return self.retention.live_interval

    def keep_working_copies_in(self, directory: str | os.PathLike[str]) -> Callable[[], None]:
        """Make the files of ``local_path()`` in this directory from now on.

        It may be shared by processes. Copies made before are removed. Returns a function that
        takes it back, which removes the copies made until then.
        """
        return self.use_working_copies(WorkingCopies(Path(directory), self.working.size))

    def use_working_copies(self, there: WorkingCopies) -> Callable[[], None]:
        """The same with copies of one's own making, which hear of what is gone from the store."""
        before, self.working = self.working, there
        before.close()

        def back() -> None:
            self.working = before
            there.close()

        return back

    def url(self, sid: str, reference: Reference, expires: timedelta) -> str:
        """``StoredFile.url``, without a look whether the file is there."""
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
        """What URLs are signed with: the setting, else the one the backend keeps."""
        if self._secret is not None:
            return self._secret.encode()
        if isinstance(self.backend, KeepsSecret):
            kept = self.backend.secret()
            if len(kept) < _KEPT_SECRET:
                raise SettingsError(
                    f"The secret that the backend keeps has {len(kept)} bytes, and {_KEPT_SECRET} "
                    "are the least that nobody can guess: remove it, so that another is made, or "
                    "set secret to a long random text."
                )
            return kept
        raise SettingsError(
            "secret is not set, and this backend cannot keep one: set it to a long random text, "
            "the same for every replica."
        )

    # Twins

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
