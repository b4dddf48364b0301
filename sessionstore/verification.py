"""Looking for damage: every file is read and compared with the digest it was saved under."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessionstore.backend import Reference, SessionKey
from sessionstore.content import CHUNK
from sessionstore.errors import Corrupted, FileNotStored

if TYPE_CHECKING:
    from sessionstore.store import SessionStore


@dataclass(frozen=True, slots=True)
class Finding:
    """One file that is not what it should be; ``repaired`` when it was deleted for that."""

    session_id: str
    owner: str | None
    name: str
    problem: str
    repaired: bool


def verify(store: SessionStore, *, repair: bool) -> list[Finding]:
    """``SessionStore.verify``. A file deleted meanwhile is no finding."""
    found: list[Finding] = []
    for record in store.backend.sessions():
        key = store.backend.identify(record.sid)
        for reference in store.backend.files(record.sid) if key is not None else ():
            problem = _problem(store, record.sid, reference)
            if problem is not None and key is not None:
                repaired = repair and _forget(store, key, reference, problem)
                found.append(Finding(key.id, key.owner, reference.name, problem, repaired))
    return found


def _problem(store: SessionStore, sid: str, reference: Reference) -> str | None:
    try:
        with store.backend.open(sid, reference) as stream:
            while stream.read(CHUNK):
                pass
    except FileNotStored:
        return None
    except Corrupted as error:
        return str(error)
    return None


def _forget(store: SessionStore, key: SessionKey, reference: Reference, problem: str) -> bool:
    gone = store.backend.discard(key.sid, [reference])
    store.removed(key, gone, "deleted", problem)
    return bool(gone)
