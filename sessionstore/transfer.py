"""Copying a store to another, of any backend: session by session, file by file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessionstore.backend import Reference, SessionKey
from sessionstore.content import CHUNK, Ingest, ingest
from sessionstore.errors import FileNotStored

if TYPE_CHECKING:
    from sessionstore.store import SessionStore


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy did: files copied, their bytes, and files that were there already."""

    files: int
    bytes: int
    skipped: int


def copy(source: SessionStore, target: SessionStore) -> Copied:
    """``SessionStore.copy_to``. Times to live are kept, ages begin anew; ends are kept."""
    files = size = skipped = 0
    for record in source.backend.sessions():
        key = source.backend.identify(record.sid)
        if key is None:
            continue
        for reference in source.backend.files(key.sid):
            if _is_there(source, target, key.sid, reference):
                skipped += 1
            elif _copy(source, target, key, reference):
                files, size = files + 1, size + reference.size
        if record.ended is not None:
            target.backend.end(key.sid)
    return Copied(files, size, skipped)


def _is_there(source: SessionStore, target: SessionStore, sid: str, reference: Reference) -> bool:
    if source.backend.digest != target.backend.digest:
        return False
    with contextlib.suppress(FileNotStored):
        there = target.backend.get(sid, reference.name)
        return (there.digest, there.size) == (reference.digest, reference.size)
    return False


def _copy(
    source: SessionStore, target: SessionStore, key: SessionKey, reference: Reference
) -> bool:
    """Copy one file; False when it was deleted meanwhile. Its digest is checked on the way."""
    into = Ingest(target.backend.digest, target.backend.spool, lambda _: None)
    try:
        with ingest(_chunks(source, key.sid, reference), into) as content:
            target.backend.put(key, reference.name, content, expires=reference.expires)
    except FileNotStored:
        return False
    return True


def _chunks(source: SessionStore, sid: str, reference: Reference) -> Iterator[bytes]:
    with source.backend.open(sid, reference) as stream:
        while chunk := stream.read(CHUNK):
            yield chunk
