"""Finding damage, and repairing it where possible.

A backend that can inspect its own storage (``Inspects``) finds all problems by itself. With any
other backend every file is read and compared with its digest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

from sessionstore.backend import Backend, Inspects
from sessionstore.base import BaseStore
from sessionstore.content import CHUNK, verified
from sessionstore.errors import Corrupted, FileNotStored, SessionStoreError
from sessionstore.model import Problem, Reference, SessionKey
from sessionstore.names import is_private, session_key, shared_key

_LOOKS = 5

LEFT_ALONE = "It is left alone."
_DELETED = "The file is deleted, so that saving it again heals it."


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem found in a store.

    ``session_id``, ``owner`` and ``name`` are None where they do not apply. ``problem`` describes
    the problem, ``remedy`` the action of a repair, and ``repaired`` is True if it was done.
    ``kind`` is "damaged" (the bytes differ from the saved ones), "missing" (a file without
    content), "unknown" (an object that this library did not make) or "leftover" (of interrupted
    work). ``place`` is the path or key in the backend.
    """

    session_id: str | None
    owner: str | None
    name: str | None
    problem: str
    repaired: bool
    kind: str = "damaged"
    place: str = ""
    remedy: str = ""


def verify(store: BaseStore, *, repair: bool) -> list[Finding]:
    """Return the findings of ``SessionStore.verify``. A file deleted during it is no finding."""
    backend = store.backend
    findings = [finding_of(backend, problem) for problem in _unidentified(backend)]
    for problem in backend.inspect() if isinstance(backend, Inspects) else _by_reading(backend):
        finding = finding_of(backend, problem)
        findings.append(_repaired(store, problem, finding) if repair else finding)
    return findings


def finding_of(backend: Backend, problem: Problem) -> Finding:
    """Return the finding of a problem, with the id and owner of its session if they are known."""
    key = None if problem.sid is None else backend.identify(problem.sid)
    id_, owner = (None, None) if key is None else (key.id, key.owner)
    name = None if problem.reference is None else problem.reference.name
    return Finding(
        id_, owner, name, problem.problem, repaired=False, kind=problem.kind, place=problem.place,
        remedy=problem.remedy,
    )  # fmt: skip


def _repaired(store: BaseStore, problem: Problem, finding: Finding) -> Finding:
    """Mend a problem, and return the new finding. An error is added to its remedy, not raised."""
    try:
        return replace(finding, repaired=_repair(store, problem, finding))
    except SessionStoreError as error:
        return replace(finding, remedy=f"{problem.remedy} That failed: {error}")


def _repair(store: BaseStore, problem: Problem, finding: Finding) -> bool:
    if problem.sid is None or problem.reference is None or not problem.lost:
        return problem.repair()
    with store.ledger.removing(problem.sid, [problem.reference.name]) as change:
        change.gone = [problem.reference] if problem.repair() else []
    key = SessionKey(problem.sid, finding.session_id or problem.sid, finding.owner)
    store.on_removed(key, change.gone, "deleted", problem.problem)
    return bool(change.gone)


def _unidentified(backend: Backend) -> Iterator[Problem]:
    for record in backend.sessions():
        key = known_key(backend, record.sid)
        if key is not None and key.id == key.sid:
            remedy = (
                f"{LEFT_ALONE} Its visitor can still read its files, and it goes when it is idle."
            )
            yield nameless(record.sid, remedy)


def nameless(sid: str, remedy: str) -> Problem:
    """Return the problem of a session without a readable id and owner."""
    return Problem("damaged", sid, f"The id and owner of the session {sid} cannot be read.", remedy)


def known_key(backend: Backend, sid: str) -> SessionKey | None:
    """Return the key of a session, None if it is gone.

    It is ``SessionKey.nameless`` if the id and owner cannot be read, or if the session's stored
    name is not the one made of them. Retries while the session exists: it may have been dropped
    and created again in between.
    """
    for _ in range(_LOOKS):
        key = backend.identify(sid)
        if key is not None:
            return key if _fits(key) else SessionKey.nameless(sid)
        if backend.session(sid) is None:
            break
    return SessionKey.nameless(sid) if is_nameless(backend, sid) else None


def is_nameless(backend: Backend, sid: str) -> bool:
    """Return whether a session has no readable id and owner, and was not replaced during the check.

    It was not replaced if one file stayed in it all the time, or if it has no file and no activity.
    """
    record, file = backend.session(sid), next(iter(backend.files(sid)), None)
    if backend.identify(sid) is not None:
        return False
    if file is None:
        return record is not None and backend.session(sid) == record
    return is_still(backend, sid, file)


def _fits(key: SessionKey) -> bool:
    if key.sid == shared_key().sid:
        return True
    try:
        return session_key(key.id, key.owner).sid == key.sid or is_private(key)
    except (SessionStoreError, TypeError):
        return False


def _by_reading(backend: Backend) -> Iterator[Problem]:
    for record in backend.sessions():
        for reference in backend.files(record.sid):
            try:
                stream = verified(backend.open(record.sid, reference), reference, backend.digest)
                with closing(stream):
                    while stream.read(CHUNK):
                        pass
            except (FileNotStored, Corrupted) as error:
                problem = unreadable(backend, record.sid, reference, error, _DELETED)
                if problem is not None:
                    repair = partial(_discard, backend, record.sid, reference)
                    yield replace(problem, repair=repair, lost=True)


def _discard(backend: Backend, sid: str, reference: Reference) -> bool:
    return bool(backend.discard(sid, [reference]))


def unreadable(
    backend: Backend, sid: str, reference: Reference, error: FileNotStored | Corrupted, remedy: str
) -> Problem | None:
    """Return the problem of a file that raised ``error``, None if it was deleted or replaced."""
    problem = Problem(
        "damaged", f"{sid}/{reference.name}", str(error), remedy, sid=sid, reference=reference
    )
    if isinstance(error, Corrupted):
        return problem
    missing = f"The content of {reference.name!r} is not there."
    still = is_still(backend, sid, reference)
    return replace(problem, kind="missing", problem=missing) if still else None


def is_still(backend: Backend, sid: str, reference: Reference) -> bool:
    """Return whether the file exists and is still this version."""
    try:
        return backend.get(sid, reference.name).token == reference.token
    except FileNotStored:
        return False
