"""Execution of a sweep's plan."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby, islice
from typing import Final

from sessionstore.backend import Backend, Survey, Surveys
from sessionstore.base import BaseStore
from sessionstore.errors import FileNotStored
from sessionstore.local_copies import Listed
from sessionstore.model import Collected, SessionKey, SessionRecord
from sessionstore.owners import may_be_list
from sessionstore.plan import Planner, PlanRow
from sessionstore.room import Oldest

log: Final = logging.getLogger("sessionstore")

_SPARED = "it was in use, or gone already, when the sweep came to it"

AT_ONCE: Final = 1000
"""Files of a session that are deleted by one call, which may look at every file of it."""


class Sweep:
    """One sweep of a store. A row that fails does not stop the others."""

    def __init__(self, store: BaseStore) -> None:
        self._store = store
        self._failures: list[Exception] = []
        self._listed: Listed | None = None

    def run(self, planner: Planner, *, content: bool = True) -> list[PlanRow]:
        """Make and carry out a plan, then collect garbage; return the rows with their real outcome.

        Without ``content`` a backend that ``Surveys`` collects nothing. Raises the first error
        after all other rows were tried.
        """
        backend, copies = self._store.backend, self._store.local_copies
        room = self._store.ledger.room
        added, oldest = room.added, Oldest()
        absent = set(copies.holders())
        survey: Survey | Backend = backend
        if isinstance(backend, Surveys):
            now = copies.moment()
            survey = backend.survey(content=content, watched=absent)
            self._listed = Listed(survey.tokens, now)

        def records() -> Iterator[SessionRecord]:
            for record in survey.sessions():
                absent.discard(record.sid)
                self._store.owners.seen |= may_be_list(record.sid)
                if room.limit is not None and not planner.retention.is_live(record, planner.now):
                    oldest.see(record)
                yield record

        try:
            plan = list(planner.rows(records()))
        except Exception as error:
            self._store.emit("sweep_failed", reason=str(error))
            raise
        room.oldest = oldest
        self._store.emit("sweep_started", reason=f"{len(plan)} rows")
        done: list[PlanRow] = []
        for sid, rows in groupby(plan, _files_of):
            most = 1 if sid is None else AT_ONCE
            while part := list(islice(rows, most)):
                done += self._part(part)
        collected = self._collect(survey, absent, added, content=content)
        if self._failures:
            self._store.emit("sweep_failed", reason=str(self._failures[0]))
            raise self._failures[0]
        if collected.held is not None:
            self._store.emit("sweep_held", reason=collected.held)
        deleted = [row for row in done if row.action != "hold"]
        self._store.emit(
            "sweep_finished",
            size=sum(row.size for row in deleted),
            reason=f"{len(deleted)} deleted, {collected.blobs} blobs and {collected.leftovers} "
            "leftovers collected",
        )
        return done

    def _part(self, rows: list[PlanRow], *, again: bool = False) -> list[PlanRow]:
        """Carry out one row, or rows for files of one session: one by one ``again`` if that fails.

        Return the rows with their real outcome.
        """
        record = rows[0].record
        if record is None or rows[0].action == "hold":
            return rows
        try:
            done = self._delete(record, rows, again=again)
        except Exception as error:  # noqa: BLE001 - raised again when every row had its turn
            if len(rows) > 1:
                log.debug("A sweep discards %d files one by one: %s", len(rows), error)
                return [tried for row in rows for tried in self._part([row], again=True)]
            self._failures.append(error)
            # Not the front of the stored name: it may contain an id that grants access.
            log.warning("A sweep could not delete in session ...%s: %s", record.sid[-32:], error)
            return [replace(rows[0], action="hold", reason=f"it could not be deleted: {error}")]
        return [
            row if is_gone else replace(row, action="hold", reason=_SPARED)
            for row, is_gone in zip(rows, done, strict=True)
        ]

    def _delete(self, record: SessionRecord, rows: list[PlanRow], *, again: bool) -> list[bool]:
        """Drop a session, or discard files of one; return for each row whether it is gone.

        ``again``: a call for them failed, and may have discarded some of them.
        """
        # With the sid of the judged session, even if id and owner do not fit it.
        key = SessionKey(record.sid, rows[0].session_id, rows[0].owner)
        if rows[0].name is None:
            ended = record.ended is not None
            reason, active = rows[0].reason, record.active
            return [self._store.drop(key, reason, unless_active_after=active, only_ended=ended)]
        references = [row.reference for row in rows if row.reference is not None]
        with self._store.ledger.removing(key.sid, [each.name for each in references]) as change:
            change.gone = self._store.backend.discard(key.sid, references)
            if again and not change.gone and not self._has(key.sid, references[0].name):
                change.gone = references
        # By name too: on a disk, two files of one content have one token.
        gone = {(reference.name, reference.token) for reference in change.gone}
        done = [(reference.name, reference.token) in gone for reference in references]
        for row, reference, is_gone in zip(rows, references, done, strict=True):
            if is_gone:
                self._store.on_removed(key, [reference], "expired", row.reason)
        return done

    def _has(self, sid: str, name: str) -> bool:
        try:
            self._store.backend.get(sid, name)
        except FileNotStored:
            return False
        return True

    def _collect(
        self, survey: Survey | Backend, absent: set[str], added: int, *, content: bool
    ) -> Collected:
        """Collect garbage, forget the copies of ``absent`` sessions, and count the store again."""
        collected = Collected(0, 0, 0)
        try:
            collected = survey.collect()
            self._store.listed = collected.requests
            self._store.local_copies.sweep(self._store.backend.files, absent, self._listed)
            if content:
                self._store.swept = collected
                referred = collected.referred
                self._store.ledger.room.recount(None if referred is None else referred.bytes, added)
        except Exception as error:  # noqa: BLE001 - raised again by run()
            self._failures.append(error)
            log.warning("A sweep could not collect garbage: %s", error)
        return collected


def _files_of(row: PlanRow) -> str | None:
    """Return the session of a row for a file to delete, None for other rows."""
    if row.record is None or row.reference is None or row.action == "hold":
        return None
    return row.record.sid
