"""Reading: which version is the file, and its bytes, checked and if need be fetched again."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import BinaryIO

from sessionstore import names
from sessionstore.backend import Reference
from sessionstore.backends import objects_keys as keys
from sessionstore.backends.objects_bucket import Bucket
from sessionstore.backends.objects_client import Entry, NotFound
from sessionstore.backends.objects_keys import Version
from sessionstore.backends.objects_recall import RECENT, Recall, Sight
from sessionstore.backends.objects_stream import whole
from sessionstore.backends.objects_terms import Terms
from sessionstore.content import limited
from sessionstore.errors import FileNotStored


class Reader:
    """Looks files up and opens them, for one backend."""

    def __init__(self, bucket: Bucket, recall: Recall, terms: Terms) -> None:
        self._bucket = bucket
        self._recall = recall
        self._terms = terms

    # Which version is the file

    def versions(self, sid: str, file: str) -> list[Version]:
        """All versions of a file that are there; one LIST."""
        return parsed(self._bucket.entries(keys.versions(sid, file)))

    def current(self, sid: str, file: str) -> Version | None:
        """The version that is the file, as ``newest`` has it. One LIST as a rule."""
        for _ in range(2):  # all may have been replaced between the look at keys and at bytes
            found = self.versions(sid, file)
            version = self.newest(found)
            if version is not None or not found:
                return version
        return None

    def newest(self, versions: list[Version]) -> Version | None:
        """The one of these versions that is the file.

        When there are several it is the newest that can neither be taken back nor lose its bytes,
        else the newest that has its bytes.
        """
        alive = [it for it in versions if self._recall.dead.get(it.generation) is None]
        if len(versions) == 1:
            return alive[0] if alive else None
        unsure: Version | None = None
        for version in sorted(alive, key=attrgetter("token"), reverse=True):
            blob = self._bucket.find(version.blob)
            if blob is None:
                self._recall.dead.put(version.generation, value=True)
            elif version.by_intent or self._terms.is_firm(version, blob):
                return version
            else:
                unsure = unsure or version
        return unsure

    # References

    def get(self, sid: str, name: str) -> Reference:
        """The file of that name. Raises FileNotStored."""
        file = names.encode(name)
        ticket, at = self._recall.ticket(sid), self._bucket.clock.elapsed()
        version = self.current(sid, file)
        if version is None:
            raise FileNotStored(name)
        reference = to_reference(version, name)
        self._recall.saw(sid, file, Sight(reference, at), ticket)
        return reference

    def files(self, sid: str) -> Iterator[Reference]:
        """The session's files, as their keys are ordered."""
        entries = self._bucket.entries(keys.files(sid))
        versions = (it for it in map(keys.parse_version, entries) if it is not None)
        for _, some in groupby(versions, attrgetter("file")):
            version = self.newest(list(some))
            name = None if version is None else self.name(version)
            if version is not None and name is not None:
                yield to_reference(version, name)

    def name(self, version: Version) -> str | None:
        """The true name of a file, None when the version that tells it has just gone."""
        name = names.decode(version.file)
        if name is not None:
            return name
        told = self._bucket.told(version.key, lambda body: keys.parse_body(version.sid, body))
        return None if told is None else told[1]

    # Bytes

    def open(self, sid: str, reference: Reference, start: int, length: int | None) -> BinaryIO:
        """A stream of a version's bytes. Raises FileNotStored when it is not the file any more."""
        self._check(sid, reference)
        left = max(reference.size - start, 0)
        size = left if length is None else min(length, left)
        if size == 0:
            return io.BytesIO()
        try:
            if size == reference.size:
                return whole(self._bucket, self._recall, reference, self._terms.digest)
            blob = keys.blob(reference.digest, keys.generation(reference.token))
            return limited(self._bucket.get(blob, start, size).stream, size, reference)
        except NotFound as error:
            self._recall.dead.put(keys.generation(reference.token), value=True)
            raise FileNotStored(reference.name) from error

    def _check(self, sid: str, reference: Reference) -> None:
        """Raise FileNotStored unless the version was the file within the last two seconds.

        Another one that was seen then may be the older: a listing since then told of this one.
        """
        sight = self._recall.sight(sid, names.encode(reference.name))
        fresh = sight is not None and self._bucket.clock.elapsed() - sight.at < RECENT
        if sight is not None and fresh and _is(sight.reference, reference):
            return
        if not _is(self.get(sid, reference.name), reference):
            raise FileNotStored(reference.name)


def _is(one: Reference, other: Reference) -> bool:
    """Whether two references are of one version."""
    return (one.token, one.digest) == (other.token, other.digest)


def parsed(entries: Iterable[Entry]) -> list[Version]:
    """The versions among some entries."""
    return [it for it in map(keys.parse_version, entries) if it is not None]


def to_reference(version: Version, name: str) -> Reference:
    """What the caller gets to know of a version."""
    expires: datetime | None = keys.time(version.expires)
    return Reference(
        name, version.size, version.digest, keys.created(version.token), expires, version.token
    )
