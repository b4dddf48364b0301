"""Eviction: freeing space for a save under ``max_store``."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from sessionstore.limits import limited_bytes
from sessionstore.model import Reference, SessionKey, SessionRecord
from sessionstore.names import shared_key

if TYPE_CHECKING:
    from sessionstore.base import BaseStore

_AT_ONCE = 1000


def evict(store: BaseStore, size: int, saving: str) -> None:
    """Delete files of sessions that are not live, oldest first, until ``size`` bytes are free.

    Sessions are evicted in the order of their last activity, their files in the order of their
    saves. The app's own session and ``saving``, the session of the save, are spared. Stops if no
    file is left to delete.
    """
    spared = {shared_key().sid, saving}
    target = limited_bytes(store.backend) - size
    records = [record for record in store.backend.sessions() if record.sid not in spared]
    for record in sorted(records, key=lambda session: session.active):
        if _is_evictable(store, record) and _evict_files(store, record, size, target):
            return


def _is_evictable(store: BaseStore, record: SessionRecord) -> bool:
    """Return whether the session is not live, read again: the listing may be old by now."""
    now = store.backend.session(record.sid)
    return now is not None and not store.retention.is_live(now, store.now())


def _evict_files(store: BaseStore, record: SessionRecord, size: int, target: int) -> bool:
    """Delete a session's files until the store has ``target`` bytes; return whether it has."""
    # A deletion is emitted and audited even if the session has no readable id and owner.
    key = store.backend.identify(record.sid) or SessionKey.nameless(record.sid)
    freed = 0
    files = iter(sorted(store.backend.files(record.sid), key=lambda file: file.created))
    while part := list(_next(files, size - freed)):
        with store.ledger.removing(record.sid, [each.name for each in part]) as change:
            change.gone = store.backend.discard(record.sid, part)
        freed += sum(deleted.size for deleted in change.gone)
        store.on_removed(key, change.gone, "expired", "room was needed under max_store")
        # Sum the store only when it can be small enough: deleted files may share content.
        if freed >= size and limited_bytes(store.backend) <= target:
            return True
    return limited_bytes(store.backend) <= target


def _next(files: Iterator[Reference], size: int) -> Iterator[Reference]:
    """Yield the next files until they have ``size`` bytes: at least one, and at most ``_AT_ONCE``.

    One call discards them: a call may look at every file of the session.
    """
    for file in islice(files, _AT_ONCE):
        yield file
        size -= file.size
        if size <= 0:
            return
