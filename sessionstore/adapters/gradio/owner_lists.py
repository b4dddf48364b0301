"""The end of an owner's lists, with the owner's last session."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sessionstore.backend import Forgets
from sessionstore.owners import list_key
from sessionstore.session import Session

if TYPE_CHECKING:
    from sessionstore.model import SessionKey
    from sessionstore.store import SessionStore

_SETTLED: Final = timedelta(seconds=2)
"""Lists used more recently are not deleted: some stores count in whole seconds."""


def tidy(store: SessionStore, owner: str, sid: str, unclaimed: SessionKey) -> None:
    """Forget a dropped session of the owner, and delete the owner's lists that are empty."""
    store.owners.forgotten(owner, sid)
    if isinstance(store.backend, Forgets):  # there a list goes with its last entry
        Session(store, list_key(owner)).delete(sid)
        return
    for key in (list_key(owner), unclaimed):
        record = store.backend.session(key.sid)
        if record is None:
            continue
        others = _others(store, key, sid)
        if others:
            Session(store, key).delete(sid)
            # Once more: another process may have deleted the other entry at the same time.
            others = _others(store, key, sid)
        if not others and store.now() - record.active > _SETTLED:
            store.drop(key, "its owner left", unless_active_after=record.active)


def _others(store: SessionStore, key: SessionKey, sid: str) -> bool:
    return any(file.name != sid for file in store.backend.files(key.sid))
