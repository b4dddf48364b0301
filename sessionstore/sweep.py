"""Execution of a sweep's plan. A row that fails does not stop the others."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from sessionstore.model import Collected, SessionKey, SessionRecord
from sessionstore.retention import PlanRow

if TYPE_CHECKING:
    from sessionstore.base import BaseStore

log = logging.getLogger("sessionstore")

_SPARED = "it was in use, or gone already, when the sweep came to it"


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
        done = [self._row(row) for row in plan]
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

    def _row(self, row: PlanRow) -> PlanRow:
        if row.action == "hold" or row.record is None:
            return row
        # The sid of the judged session, even if its id and owner do not fit it.
        key = SessionKey(row.record.sid, row.session_id, row.owner)
        try:
            if row.name is None:
                done = self._drop(row.record, key, row.reason)
            else:
                done = self._delete(row, key)
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

    def _delete(self, row: PlanRow, key: SessionKey) -> bool:
        assert row.reference is not None, "a row for a file has its reference"  # noqa: S101 - for mypy
        with self._store.ledger.removing(key.sid, [row.reference.name]) as change:
            change.gone = self._store.backend.discard(key.sid, [row.reference])
        self._store.on_removed(key, change.gone, "expired", row.reason)
        return bool(change.gone)

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
