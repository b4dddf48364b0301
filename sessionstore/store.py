"""The store: sessions, their retention and the sweep. All policy is combined here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final, Self

from sessionstore import transfer, verification
from sessionstore._threads import in_thread, run_in_thread
from sessionstore.audit import Audit
from sessionstore.backend import KnowsIfAlone, Omits
from sessionstore.background import Sweeping
from sessionstore.base import BaseStore
from sessionstore.clock import Clock, SystemClock
from sessionstore.eviction import evict
from sessionstore.limits import Limits
from sessionstore.model import SessionRecord
from sessionstore.names import is_private, session_key, shared_key
from sessionstore.owners import list_key
from sessionstore.plan import Planner, PlanRow, row_for
from sessionstore.retention import Retention
from sessionstore.schedule import Schedule
from sessionstore.session import Session, Usage
from sessionstore.settings import resolve
from sessionstore.sweep import Sweep
from sessionstore.transfer import Copied, Report
from sessionstore.verification import Finding

_SHARED = shared_key()


class SessionStore(BaseStore):
    """Files in sessions, over any backend. Safe to use from any thread.

    ``SessionStore.open()`` is the usual way to get one; the constructor takes a backend that is
    already open. Close the store, or use it in a ``with``: that ends its threads and removes its
    working copies. The files stay.
    """

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
        sendfile: str | None = None,
        restart: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_size: int | None = None,
        audit: str | os.PathLike[str] | None = None,
        audit_fsync: bool | None = None,
        settings: bool = True,
        **options: object,
    ) -> Self:
        """Open the store at ``url``, and create it if it does not exist.

        ``url`` is ``file:///path``, ``memory://``, or a URL of any scheme with a registered
        backend; a path is a local directory. Arguments that are left out come from the environment
        (``SESSIONSTORE_*``), then ``sessionstore.toml``, then ``[tool.sessionstore]`` in
        ``pyproject.toml``; with ``settings=False``, for tests, only the arguments and the URL
        count. ``options`` are the backend's own settings. ``restart="drop"`` drops the sessions
        that dead processes left. ``cache_dir`` and ``cache_size`` (bytes) configure the copies
        that ``local_path()`` makes. With ``redirect`` the backend signs URLs itself. ``sendfile``
        is the way in which a proxy sends the local copies of a Gradio app. ``audit`` is a local
        file that records every deletion.

        Raises SettingsError, which names the setting, its value and a valid value.
        """
        given = {
            "retention": retention, "limits": limits, "secret": secret, "base_url": base_url,
            "redirect": redirect, "sendfile": sendfile, "restart": restart, "cache_dir": cache_dir,
            "cache_size": cache_size, "audit": audit, "audit_fsync": audit_fsync, **options,
        }  # fmt: skip
        chosen = resolve(url, given, os.environ, Path.cwd(), outside=settings)
        clock = clock or SystemClock()
        backend = chosen.backend.connect(chosen.location, chosen.backend_options, clock)
        try:
            log = None if chosen.audit is None else Audit(chosen.audit, fsync=chosen.audit_fsync)
            store = cls(
                backend, retention=chosen.retention, limits=chosen.limits, clock=clock,
                secret=chosen.secret, base_url=chosen.base_url, redirect=chosen.redirect,
                sendfile=chosen.sendfile, cache_dir=chosen.cache_dir,
                cache_size=chosen.cache_size, audit=log,
            )  # fmt: skip
            store.location = chosen.location.url
            store.drops_at_restart = chosen.restart == "drop"
            if store.drops_at_restart:
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
        self.ledger.room.close()
        self.running.close()
        self.local_copies.close()
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _evict(self) -> Iterator[int]:
        return evict(self)

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

    # Sweeping

    def plan(self) -> list[PlanRow]:
        """Return the plan of a sweep made now: one row, with its reason, per session or file.

        An object among the sessions that is not a session, or that no listing can show, has a row
        with the action "hold".
        """
        rows = list(self._planner(held=True).rows(self.backend.sessions()))
        if isinstance(self.backend, Omits):
            rows += map(row_for, self.backend.omitted(files=False))
        return rows

    def sweep(self, dry_run: bool = False) -> list[PlanRow]:  # noqa: FBT001, FBT002 - a public name
        """Delete expired sessions and files, collect unreferenced content, and return the plan.

        The rows are those of ``plan()`` that delete a session or a file. A row that could not be
        carried out because its session became active is returned as a ``hold``. ``dry_run`` deletes
        nothing and returns the complete plan. Any number of processes may sweep at the same time.
        """
        if dry_run:
            return self.plan()
        return Sweep(self).run(self._planner())

    def sweeping(self, every: timedelta | None = None) -> Sweeping:
        """Return a context manager: a thread that sweeps now and then once per ``every``.

        The default is a minute. Where listings are billed it follows from what a sweep takes, up to
        an hour, and content is collected once an hour. Of the processes that share a store one
        sweeps. An error does not end the thread: it is logged and emitted as ``sweep_failed``.
        Closing the store ends it.
        """
        schedule = Schedule(self, self._planner, every)
        sweeping = Sweeping(self.clock, schedule.turn, schedule.every)
        self._sweepings.add(sweeping)
        return sweeping

    def _planner(
        self, abandoned: Callable[[SessionRecord], str | None] = lambda _: None, *,
        held: bool = False,
    ) -> Planner:  # fmt: skip
        """Return a planner of what a sweep acts on; with ``held`` also of what is only held."""
        return Planner(
            self.retention, self.now(), _SHARED.sid, self.backend.identify, self.backend.files,
            abandoned, held,
        )  # fmt: skip

    def _drop_abandoned(self) -> None:
        """Drop the sessions that dead processes left.

        While another process is alive, only sessions that are not live are dropped.
        """
        alone = isinstance(self.backend, KnowsIfAlone) and self.backend.alone()
        now = self.now()

        def abandoned(record: SessionRecord) -> str | None:
            spared = not alone and self.retention.is_live(record, now)
            return None if spared else "left by a process that is gone (restart=drop)"

        Sweep(self).run(self._planner(abandoned))

    # Contents

    def usage(self, owner: str | None = None) -> Usage:
        """Return the number of files, their bytes, the stored bytes, and the number of sessions.

        Reads the listing of every session. With ``owner`` only the owner's sessions count, and
        equal bytes in them once. With ``max_owner``, ``max_owner_files`` or ``my_files`` it reads
        the owner's list and these sessions alone. Raises InvalidName for an invalid owner.
        """
        if owner is not None:
            return self._usage_of(owner)
        files = size = sessions = 0
        for record in self.backend.sessions():
            references = [reference.size for reference in self.backend.files(record.sid)]
            files, size = files + len(references), size + sum(references)
            sessions += 1
        return Usage(files, size, self.backend.stored().bytes, sessions)

    def _usage_of(self, owner: str) -> Usage:
        list_sid = list_key(owner).sid
        if self.owners.complete:
            sids = self.owners.sids(owner)
        else:
            keys = (self.backend.identify(record.sid) for record in self.backend.sessions())
            sids = [key.sid for key in keys if key is not None and key.owner == owner]
        files = [list(self.backend.files(sid)) for sid in sids if sid != list_sid]
        total = [reference for each in files for reference in each]
        unique = {reference.digest: reference.size for reference in total}
        size = sum(reference.size for reference in total)
        return Usage(len(total), size, sum(unique.values()), sum(map(bool, files)))

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
        owner is copied under its stored name, and is a finding too.

        Raises BackendUnavailable and LimitExceeded at once. Raises ``transfer.Damaged``, a
        Corrupted that holds the result, for damaged files, after all other files were copied.
        """
        return transfer.copy(self, other, progress=progress, workers=workers)

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
        sendfile: str | None = None,
        restart: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_size: int | None = None,
        audit: str | os.PathLike[str] | None = None,
        audit_fsync: bool | None = None,
        settings: bool = True,
        **options: object,
    ) -> Self:
        """``open`` in a worker thread."""
        return await run_in_thread(
            cls.open, url, retention=retention, limits=limits, clock=clock, secret=secret,
            base_url=base_url, redirect=redirect, sendfile=sendfile, restart=restart,
            cache_dir=cache_dir, cache_size=cache_size, audit=audit, audit_fsync=audit_fsync,
            settings=settings, **options,
        )  # fmt: skip

    async def sessions_async(self) -> list[Session]:
        """``sessions`` in a worker thread, as a list."""
        return await run_in_thread(lambda: list(self.sessions()))

    plan_async: Final = in_thread(plan)
    sweep_async: Final = in_thread(sweep)
    usage_async: Final = in_thread(usage)
    verify_async: Final = in_thread(verify)
    copy_to_async: Final = in_thread(copy_to)
    close_async: Final = in_thread(close)
