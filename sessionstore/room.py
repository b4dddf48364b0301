"""Making room for a save under ``max_store``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessionstore.backend import SessionKey, SessionRecord
from sessionstore.limits import limited_bytes
from sessionstore.names import shared_key

if TYPE_CHECKING:
    from sessionstore.store import SessionStore


def make_room(store: SessionStore, size: int, saving: str) -> None:
    """Delete files of sessions that are not live, oldest first, until ``size`` bytes are free.

    Sessions go in the order of their last activity, and their files in the order of their saves.
    The app's own session is never asked, nor is ``saving``, which the save is for. Stops when there
    is nothing left that may go.
    """
    spared = {shared_key().sid, saving}
    target = limited_bytes(store.backend) - size
    records = [record for record in store.backend.sessions() if record.sid not in spared]
    for record in sorted(records, key=lambda each: each.active):
        if _may_go(store, record) and _clear(store, record, size, target):
            return


def _may_go(store: SessionStore, record: SessionRecord) -> bool:
    """Whether the session is not live, looked at again after what may have been a long time."""
    now = store.backend.session(record.sid)
    return now is not None and not store.retention.is_live(now, store.now())


def _clear(store: SessionStore, record: SessionRecord, size: int, target: int) -> bool:
    """Delete a session's files until the store is down to ``target`` bytes; whether it is."""
    # A deletion is told and audited also when the session does not say whose it is.
    key = store.backend.identify(record.sid) or SessionKey.nameless(record.sid)
    freed = 0
    for reference in sorted(store.backend.files(record.sid), key=lambda each: each.created):
        with store.ledger.removing(record.sid, [reference.name]) as change:
            change.gone = store.backend.discard(record.sid, [reference])
        freed += sum(each.size for each in change.gone)
        store.removed(key, change.gone, "expired", "room was needed under max_store")
        # The sum is only looked at when it can be low enough: content may be shared.
        if freed >= size and limited_bytes(store.backend) <= target:
            return True
    return limited_bytes(store.backend) <= target
