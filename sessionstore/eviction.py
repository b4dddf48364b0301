"""Eviction under ``max_store``: files of sessions that are not live, oldest first."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from sessionstore.base import BaseStore
from sessionstore.model import Reference, SessionKey
from sessionstore.names import shared_key
from sessionstore.room import Oldest
from sessionstore.sweep import AT_ONCE


def evict(store: BaseStore) -> Iterator[int]:
    """Delete files of sessions that are not live, oldest first, and yield the size of each part.

    Sessions are evicted in the order of their last activity, their files in the order of their
    saves. The app's own session, and those that ``room`` spares, are not. The sessions are those
    that the last sweep has seen, and then those of a listing.
    """
    room = store.ledger.room
    listed = deleted = False
    while True:
        oldest = room.oldest
        while (one := oldest.first()) is not None:
            for size in _of(store, *one):
                deleted = True
                yield size
            oldest.forget_first()  # only now: it may have further files
        if oldest is not room.oldest:  # a sweep has seen the sessions again
            continue
        if listed and not (oldest.is_cut and deleted):
            return
        room.oldest, listed, deleted = _oldest(store), True, False


def _oldest(store: BaseStore) -> Oldest:
    """Return the sessions to evict first.

    Most sessions of a full store are live, which the listing shows, as it shows empty ones.
    """
    found, now = Oldest(), store.now()
    for record in store.backend.sessions():
        if not store.retention.is_live(record, now):
            found.see(record)
    return found


def _of(store: BaseStore, sid: str, active: float) -> Iterator[int]:
    """Delete the files of one session while room is wanted, unless it was active after ``active``.

    Then it is not the oldest any more.
    """
    room = store.ledger.room
    if sid == shared_key().sid or sid in room.spared():
        return
    current = store.backend.session(sid)  # again: the listing may be old
    if current is None or current.active.timestamp() > active:
        return
    if store.retention.is_live(current, store.now()):
        return
    # A deletion is emitted and audited even if the session has no readable id and owner.
    key = store.backend.identify(sid) or SessionKey.nameless(sid)
    files = iter(sorted(store.backend.files(sid), key=lambda file: file.created))
    while part := list(_next(files, room.wanted())):
        with store.ledger.removing(sid, [each.name for each in part]) as change:
            change.gone = store.backend.discard(sid, part)
        store.on_removed(key, change.gone, "expired", "room was needed under max_store")
        if change.gone:
            yield sum(deleted.size for deleted in change.gone)


def _next(files: Iterator[Reference], size: int) -> Iterator[Reference]:
    """Yield the next files until they have ``size`` bytes: at least one, and at most ``AT_ONCE``.

    One call discards them: a call may look at every file of the session.
    """
    for file in islice(files, AT_ONCE):
        yield file
        size -= file.size
        if size <= 0:
            return
