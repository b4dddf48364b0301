"""Find damage in an object store, and repair it.

Every generation is read once. Then the references, matched with the generations as in a sweep, show
the files with a damaged or missing one. Bytes count as damaged only when two reads return the same
wrong bytes, as many as the store lists. Other wrong responses, such as a proxy's error page, are
not the stored bytes.

A damaged generation is not deleted but *condemned*: it is overwritten by a note of another size. No
save that lists its content adopts it, and a sweep deletes it by the ordinary rules. Deleting it
while it is young would harm a process that has it in a cache and is about to refer to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from io import BytesIO
from itertools import groupby
from operator import attrgetter
from typing import BinaryIO

from sessionstore import names
from sessionstore.content import CHUNK, hasher
from sessionstore.errors import BackendUnavailable
from sessionstore.model import Problem
from sessionstore.parsers import show_duration

from . import keys
from .client import Entry, NotFound, Upload
from .keys import Version
from .layout import ABANDONED, UPLOAD_LIMIT, Part, Shared
from .reader import Reader, parsed, to_reference
from .sessions import Sessions
from .spill import Spill, row_id
from .writer import Writer

SECOND = timedelta(seconds=1)

CONDEMNED = b"These bytes were damaged, and are not to be used.\n"
_LONGER = CONDEMNED + b"\n"
"""The note for a content that is as long as ``CONDEMNED``: saves reject copies by their size."""

_OWN = {keys.LAYOUT, keys.SWEEP, keys.SWEEPER, keys.PROBE}
_LEFT_ALONE = (
    "It is left alone: a later version of this library or another program may have written it. "
    "Delete it by hand."
)
_NOTED = "it was damaged, and a repair marked it as unusable"
_READS = 4
"""Reads of an object that returns other wrong bytes each time, before giving up."""


@dataclass(slots=True)
class _Bad:
    """A damaged generation; ``files`` is the number of files with it that are not yet repaired."""

    key: str
    problem: str
    size: int
    """The content's size in bytes; the stored object's size while no file of it is known."""
    condemned: bool
    files: int = 0


class Inspector(Part):
    """One inspection."""

    def __init__(self, shared: Shared, reader: Reader, writer: Writer, sessions: Sessions) -> None:
        super().__init__(shared)
        self._reader = reader
        self._writer = writer
        self._sessions = sessions

    def problems(self) -> Iterator[Problem]:
        """Implement ``Inspects.inspect``: one GET for each copy of content, and four listings."""
        bad: dict[str, _Bad] = {}  # by generation
        with closing(Spill()) as spill:
            for entry in self._bucket.entries(keys.BLOBS):
                blob = keys.parse_blob(entry.key)
                if blob is not None and self._is_sound(bad, entry, *blob):
                    spill.add(*blob, entry.size, old=False)
            for one in parsed(self._bucket.entries(keys.SESSIONS)):
                spill.refer(one.digest, one.generation, old=True)
            missing = set().union(*(part.missing() for part in spill.parts()))
        yield from self._files(missing, bad)
        yield from self._unknown()
        yield from self._interrupted()

    def omitted(self, *, files: bool = True) -> Iterator[Problem]:
        """Implement ``Omits.omitted``.

        It takes one LIST of the sessions; with ``files`` a LIST of everything as well.
        """
        if not files:
            yield from self._unknown(keys.SESSIONS)
            return
        versions = parsed(self._bucket.entries(keys.SESSIONS))
        for _, versions_of_file in groupby(versions, attrgetter("sid", "file")):
            yield from self._unlisted(list(versions_of_file))
        yield from self._unknown()

    def _unlisted(self, versions: list[Version]) -> Iterator[Problem]:
        """Yield the problem that keeps the file of these versions out of listings, if any."""
        newest = max(versions, key=attrgetter("token"))
        name = self._reader.name(newest)
        if name is None:
            yield from self._nameless(newest)
        elif all(self._cache.dead.get(version.generation) is not None for version in versions):
            current = self._reader.versions(newest.sid, newest.file)
            if current and all(self._bucket.find(version.blob) is None for version in current):
                problem = f"The content of {name!r}, {newest.blob}, is not there."
                remedy = "It is left alone; verify() shows the possible repair."
                reference = to_reference(newest, name)
                yield Problem(
                    "missing", newest.key, problem, remedy, sid=newest.sid, reference=reference
                )

    # Content

    def _is_sound(self, bad: dict[str, _Bad], entry: Entry, digest: str, generation: str) -> bool:
        """Read a generation; add it to ``bad`` if it is damaged."""
        problem = self._problem(entry, digest)
        if problem is None:
            return True
        bad[generation] = _Bad(entry.key, problem, entry.size, problem == _NOTED)
        self._cache.bad.put(generation, value=True)
        self._cache.born.pop(digest)
        return False

    def _problem(self, entry: Entry, digest: str) -> str | None:
        """Return the problem of an object's bytes; None if they are right, or were just deleted."""
        wrong: set[str] = set()
        for _ in range(_READS):
            try:
                size, actual = self._digest_of(self._bucket.get(entry.key).stream)
            except NotFound:
                return None
            if actual == digest:
                return None
            if actual in self._notes:
                return _NOTED
            if size == entry.size and actual in wrong:
                return f"its {size} bytes have the digest {actual} instead"
            if size == entry.size:
                wrong.add(actual)
        raise BackendUnavailable(
            f"The object {entry.key} does not come as the store lists it ({entry.size} bytes), or "
            "comes with other bytes each time: check the network and proxies in front of the store."
        )

    @cached_property
    def _notes(self) -> set[str]:
        return {self._digest_of(BytesIO(note))[1] for note in (CONDEMNED, _LONGER)}

    def _digest_of(self, stream: BinaryIO) -> tuple[int, str]:
        stream_hash, size = hasher(self._terms.digest), 0
        with closing(stream):
            while chunk := stream.read(CHUNK):
                stream_hash.update(chunk)
                size += len(chunk)
        return size, stream_hash.hexdigest()

    # Files

    def _files(self, missing: set[bytes], bad: dict[str, _Bad]) -> Iterator[Problem]:
        """Yield the problems of files. All of them are found before the first is repaired.

        ``missing`` are the generations that references refer to and that are not there, or ``bad``.
        """
        bad_versions: list[tuple[Version, _Bad | None]] = []
        for version in parsed(self._bucket.entries(keys.SESSIONS)):
            own = bad.get(version.generation)
            if own is not None:
                own.files, own.size = own.files + 1, version.size
            if own is not None or row_id(version.digest, version.generation) in missing:
                bad_versions.append((version, own))
            elif names.decode(version.file) is None and self._reader.name(version) is None:
                yield from self._nameless(version)
        unused = [one for one in bad.values() if not one.files]
        for version, own in bad_versions:
            yield from self._version_problem(version, own)
        for one in unused:
            if not one.condemned:
                problem = f"Stored bytes that no file refers to are damaged: {one.problem}."
                remedy = "They are marked as unusable, and a sweep deletes them."
                repair = partial(self._condemn, one)
                yield Problem("damaged", one.key, problem, remedy, repair)

    def _version_problem(self, version: Version, bad: _Bad | None) -> Iterator[Problem]:
        """Yield the problem of a version with damaged or missing content, if it is still one."""
        if bad is None and self._bucket.find(version.blob) is not None:
            return  # the content was written after it was listed
        if self._bucket.find(version.key) is None:  # the version was deleted or replaced
            if bad is not None:
                bad.files -= 1
            return
        current = self._reader.current(version.sid, version.file)
        if current is not None and current.key != version.key:
            problem = (
                "A file was replaced, and its old version, with missing or damaged content, stayed."
            )
            repair = partial(self._repair, bad, partial(self._delete, version.key))
            remedy = "The old version is deleted."
            yield Problem("leftover", version.key, problem, remedy, repair, version.sid)
            return
        name = self._reader.name(version) or version.file
        donor = self._donor(version)
        if donor is None:
            remedy = "There is no other copy: the file is deleted, and can be saved again."
            repair = partial(self._delete_file, version)
        else:
            remedy = f"The file gets a copy of {donor}, which is sound."
            repair = partial(self._renew, version, name, donor)
        state = "is not there" if bad is None else f"is damaged: {bad.problem}"
        problem = f"The content of {name!r}, {version.blob}, {state}."
        yield Problem(
            "missing" if bad is None else "damaged", version.key, problem, remedy,
            partial(self._repair, bad, repair), version.sid, to_reference(version, name),
            lost=donor is None,
        )  # fmt: skip

    def _nameless(self, version: Version) -> Iterator[Problem]:
        if self._bucket.find(version.key) is None:
            return
        problem = "The name of a file, which is too long for its key, cannot be read."
        remedy = "It is left alone: the file can be read by its name; saving it again repairs it."
        yield Problem("damaged", version.key, problem, remedy, sid=version.sid)

    def _donor(self, version: Version) -> str | None:
        """Return the key of another, sound copy of the same content, or None."""
        for entry in self._bucket.entries(keys.blob(version.digest)):
            blob = keys.parse_blob(entry.key)
            other = blob is not None and blob[1] != version.generation
            if other and entry.size == version.size and not self._problem(entry, version.digest):
                return entry.key
        return None

    # Repairs

    def _repair(self, bad: _Bad | None, repair: Callable[[], bool]) -> bool:
        """Repair a version; after the last one with the damaged generation, condemn that."""
        done = repair()
        if bad is not None:
            bad.files -= 1
            if not bad.files:
                self._condemn(bad)
        return done

    def _renew(self, version: Version, name: str, donor: str) -> bool:
        key = self._sessions.identify(version.sid)
        return key is not None and self._writer.renew(version, key, name, donor)

    def _delete_file(self, version: Version) -> bool:
        versions = self._reader.versions(version.sid, version.file)
        newest = max(versions, key=attrgetter("token"), default=None)
        if newest is None or newest.key != version.key:
            return False
        self._sessions.remove(version.sid, versions)
        return True

    def _delete(self, key: str) -> bool:
        return bool(self._bucket.delete([key]))

    def _abort(self, upload: Upload) -> bool:
        self._bucket.client.abort(upload.key, upload.id)
        return True

    def _condemn(self, bad: _Bad) -> bool:
        # If a sweep has deleted it, do not create it again.
        if not bad.condemned and self._bucket.find(bad.key) is not None:
            self._bucket.put(bad.key, _LONGER if bad.size == len(CONDEMNED) else CONDEMNED)
        return True

    # Other objects, and uploads

    def _unknown(self, prefix: str = "") -> Iterator[Problem]:
        for entry in self._bucket.entries(prefix):
            if not _is_known(entry):
                problem = f"The object {entry.key!r} has no key of a store."
                yield Problem("unknown", entry.key, problem, _LEFT_ALONE)

    def _interrupted(self) -> Iterator[Problem]:
        """Yield old uploads and intents, which can no longer belong to an acknowledged save."""
        now = self._bucket.now()
        for entry in self._bucket.entries(keys.INTENTS):
            age = now - entry.modified
            if keys.parse_intent(entry.key) is not None and age > UPLOAD_LIMIT:
                yield _interrupted(entry.key, age, partial(self._delete, entry.key))
        known: set[str] = set()
        for upload in self._bucket.client.uploads(keys.BLOBS):
            known.add(upload.id)
            age = now - upload.started
            if age > UPLOAD_LIMIT and keys.staged_until(upload.key) is None:
                yield _interrupted(upload.key, age, partial(self._abort, upload))
        for upload in self._bucket.client.uploads(""):
            if upload.id not in known and not upload.key.startswith(keys.BLOBS):
                problem = f"The unfinished upload {upload.key!r} has no key of a store."
                yield Problem("unknown", upload.key, problem, _LEFT_ALONE)


def _interrupted(place: str, age: timedelta, mend: Callable[[], bool]) -> Problem:
    ago = show_duration(age // SECOND * SECOND)
    problem = f"An upload that began {ago} ago was never finished."
    if age <= ABANDONED:
        old = show_duration(ABANDONED)
        return Problem("leftover", place, problem, f"It is left alone until it is {old} old.")
    return Problem("leftover", place, problem, "It is removed, as the next sweep would do.", mend)


def _is_known(entry: Entry) -> bool:
    return (
        entry.key in _OWN
        or keys.parse_blob(entry.key) is not None
        or keys.parse_version(entry) is not None
        or keys.parse_mark(entry) is not None
        or keys.parse_intent(entry.key) is not None
        or keys.staged_until(entry.key) is not None
    )
