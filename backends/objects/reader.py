"""Read files: find the current version, then read and verify its bytes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import BinaryIO

from sessionstore import names
from sessionstore.content import limited
from sessionstore.errors import FileNotStored
from sessionstore.model import Reference

from . import keys
from .bucket import Bucket
from .cache import RECENT, CachedVersion, LookupCache
from .client import Entry, NotFound
from .keys import Version
from .layout import StoreParams
from .stream import whole


class Reader:
    """Finds and opens the files of one backend."""

    def __init__(self, bucket: Bucket, cache: LookupCache, terms: StoreParams) -> None:
        self._bucket = bucket
        self._cache = cache
        self._terms = terms

    # The current version

    def versions(self, sid: str, file: str) -> list[Version]:
        """Return all listed versions of a file; one LIST."""
        return parsed(self._bucket.entries(keys.versions(sid, file)))

    def current(self, sid: str, file: str) -> Version | None:
        """Return the current version of a file, chosen by ``newest``. Usually one LIST."""
        for _ in range(2):  # all may be replaced between the listing and the check of their blobs
            versions = self.versions(sid, file)
            version = self.newest(versions)
            if version is not None or not versions:
                return version
        return None

    def newest(self, versions: list[Version]) -> Version | None:
        """Return the current one of ``versions``, all of one file, or None.

        Of several it is the newest that can neither be taken back nor lose its content; otherwise
        the newest one with content.
        """
        alive = [one for one in versions if self._cache.dead.get(one.generation) is None]
        if len(versions) == 1:
            return alive[0] if alive else None
        unsure: Version | None = None
        for version in sorted(alive, key=attrgetter("token"), reverse=True):
            blob = self._bucket.find(version.blob)
            if blob is None:
                self._cache.dead.put(version.generation, value=True)
            elif version.by_intent or self._terms.is_firm(version, blob):
                return version
            else:
                unsure = unsure or version
        return unsure

    # References

    def get(self, sid: str, name: str) -> Reference:
        """Return the current version of the file ``name``. Raises FileNotStored."""
        file = names.encode(name)
        ticket, at = self._cache.epoch(sid), self._bucket.clock.elapsed()
        version = self.current(sid, file)
        if version is None:
            raise FileNotStored(name)
        reference = to_reference(version, name)
        self._cache.add(sid, file, CachedVersion(reference, at), ticket)
        return reference

    def files(self, sid: str) -> Iterator[Reference]:
        """Yield the session's files in the order of their keys."""
        entries = self._bucket.entries(keys.files(sid))
        parsed_entries = map(keys.parse_version, entries)
        versions = (version for version in parsed_entries if version is not None)
        for _, versions_of_file in groupby(versions, attrgetter("file")):
            version = self.newest(list(versions_of_file))
            name = None if version is None else self.name(version)
            if version is not None and name is not None:
                yield to_reference(version, name)

    def name(self, version: Version) -> str | None:
        """Return the original name of a version's file, or None if its object has just gone.

        A name that is too long for a key is in the object's body.
        """
        name = names.decode(version.file)
        if name is not None:
            return name
        body = self._bucket.load(version.key, lambda data: keys.parse_body(version.sid, data))
        return None if body is None else body[1]

    # Bytes

    def open(self, sid: str, reference: Reference, start: int, length: int | None) -> BinaryIO:
        """Return a stream of a version's bytes.

        Raises FileNotStored when the version is no longer the current one.
        """
        self._check(sid, reference)
        left = max(reference.size - start, 0)
        size = left if length is None else min(length, left)
        if size == 0:
            return io.BytesIO()
        try:
            if size == reference.size:
                return whole(self._bucket, self._cache, reference, self._terms.digest)
            blob = keys.blob(reference.digest, keys.generation(reference.token))
            return limited(self._bucket.get(blob, start, size).stream, size, reference)
        except NotFound as error:
            self._cache.dead.put(keys.generation(reference.token), value=True)
            raise FileNotStored(reference.name) from error

    def _check(self, sid: str, reference: Reference) -> None:
        """Raise FileNotStored unless the version was current within the last ``RECENT`` seconds.

        If the cache has another version, that may be the older one, since the caller may have got
        this one from a later listing. So the file is looked up again.
        """
        sight = self._cache.sight(sid, names.encode(reference.name))
        fresh = sight is not None and self._bucket.clock.elapsed() - sight.at < RECENT
        if sight is not None and fresh and _is(sight.reference, reference):
            return
        if not _is(self.get(sid, reference.name), reference):
            raise FileNotStored(reference.name)


def _is(one: Reference, other: Reference) -> bool:
    """Return whether two references are the same version."""
    return (one.token, one.digest) == (other.token, other.digest)


def parsed(entries: Iterable[Entry]) -> list[Version]:
    """Return the versions among ``entries``."""
    return [version for version in map(keys.parse_version, entries) if version is not None]


def to_reference(version: Version, name: str) -> Reference:
    """Return the public ``Reference`` of a version."""
    expires: datetime | None = keys.time(version.expires)
    return Reference(
        name, version.size, version.digest, keys.created(version.token), expires, version.token
    )
