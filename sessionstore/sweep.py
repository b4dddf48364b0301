"""Execution of a sweep's plan. A row that fails does not stop the others."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import groupby, islice
from typing import TYPE_CHECKING, Final

from sessionstore.errors import FileNotStored
from sessionstore.model import Collected, SessionKey, SessionRecord
from sessionstore.retention import PlanRow

if TYPE_CHECKING:
    from sessionstore.base import BaseStore

log: Final = logging.getLogger("sessionstore")

_SPARED = "it was in use, or gone already, when the sweep came to it"

_AT_ONCE = 1000
"""Files of a session that one call discards. A call may look at every file of the session."""


class Sweep:
    """One sweep of a store."""

    def __init__(self, store: BaseStore) -> None:
        self._store = store
        self._failures: list[Exception] = []

    def run(self, plan: list[PlanRow]) -> list[PlanRow]:
        """Carry out the plan, then collect garbage; return the rows with their real outcome.

        Raises the first error after all other rows were tried.
        """
        self._store.emit("sweep_started", reason=f"{len(plan)} rows")
        done: list[PlanRow] = []
        for sid, rows in groupby(plan, _files_of):
            most = 1 if sid is None else _AT_ONCE
            while part := list(islice(rows, most)):
                done += self._part(part)
        collected = self._collect()
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

    def _part(self, rows: list[PlanRow]) -> list[PlanRow]:
        """Carry out one row, or rows for files of one session."""
        if len(rows) == 1:
            return [self._row(rows[0])]
        try:
            gone = self._discard(rows)
        except Exception as error:  # noqa: BLE001 - the row that fails raises it again
            log.debug("A sweep discards %d files one by one: %s", len(rows), error)
            return [self._row(row, again=True) for row in rows]
        return [
            row if done else replace(row, action="hold", reason=_SPARED)
            for row, done in zip(rows, gone, strict=True)
        ]

    def _row(self, row: PlanRow, *, again: bool = False) -> PlanRow:
        if row.action == "hold" or row.record is None:
            return row
        try:
            if row.name is None:
                done = self._drop(row.record, _key_of(row), row.reason)
            else:
                (done,) = self._discard([row], again=again)
        except Exception as error:  # noqa: BLE001 - raised again when every row had its turn
            self._failures.append(error)
            # Not the front of the stored name: it may contain an id that grants access.
            log.warning(
                "A sweep could not delete in session ...%s: %s", row.record.sid[-32:], error
            )
            return replace(row, action="hold", reason=f"it could not be deleted: {error}")
        return row if done else replace(row, action="hold", reason=_SPARED)

    def _drop(self, record: SessionRecord, key: SessionKey, reason: str) -> bool:
        return self._store.drop(
            key, reason, unless_active_after=record.active, only_ended=record.ended is not None
        )

    def _discard(self, rows: list[PlanRow], *, again: bool = False) -> list[bool]:
        """Discard files of one session; return for each row whether its file is gone.

        ``again``: a call for them failed, and may have discarded some of them.
        """
        key, backend = _key_of(rows[0]), self._store.backend
        references = [row.reference for row in rows if row.reference is not None]
        with self._store.ledger.removing(key.sid, [each.name for each in references]) as change:
            change.gone = backend.discard(key.sid, references)
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

    def _collect(self) -> Collected:
        collected = Collected(0, 0, 0)
        try:
            collected = self._store.backend.collect()
            self._store.local_copies.sweep(self._store.backend.files)
            self._store.ledger.recount()
        except Exception as error:  # noqa: BLE001 - raised again by run()
            self._failures.append(error)
            log.warning("A sweep could not collect garbage: %s", error)
        return collected


def _key_of(row: PlanRow) -> SessionKey:
    """Return the key with the sid of the judged session, even if id and owner do not fit it."""
    assert row.record is not None, "only objects that are no session have none"  # noqa: S101 - for mypy
    return SessionKey(row.record.sid, row.session_id, row.owner)


def _files_of(row: PlanRow) -> str | None:
    """Return the session of a row for a file to delete, None for other rows."""
    is_file = row.record is not None and row.reference is not None and row.action != "hold"
    return row.record.sid if is_file and row.record is not None else None
