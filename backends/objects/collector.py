"""Garbage collection of unreferenced content and leftovers of crashes; safe to run concurrently.

The order of the listings is the proof. Content is listed first, and only content that is older than
``grace`` by the store's clock at that moment is a candidate. Intents are listed next, and
references last. An acknowledged save that refers to an old generation wrote its intent or its
reference before, so one of the two listings has it. After a failed listing nothing is deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from sessionstore.model import Collected, Stored
from sessionstore.parsers import show_duration

from . import keys
from .bucket import Bucket
from .client import Entry
from .index import Generations
from .keys import Mark, Version
from .layout import ABANDONED, StoreParams
from .reader import parsed

AT_ONCE = 2_000_000
"""Generations in one pass: 57 bytes each, 114 MB. A larger store takes several passes."""

_CHECKS = 1000
"""The most files that one sweep checks one by one; there is hardly ever one to check."""

_FEW = 1000
"""Up to this many blobs may be deleted without the check."""

_SHARE = 10
"""There must be at least one ``_SHARE``-th of the references that the last sweep counted."""


class Part(NamedTuple):
    """The content of one pass: ``generations`` of digests after ``low`` up to ``high``.

    ``low`` and ``high`` are the first two hex digits of a digest.
    """

    generations: Generations
    low: str
    high: str
    last: str | None
    """The ``start_after`` of the next pass; None: this is the last pass."""

    def holds(self, digest: str) -> bool:
        return self.low < digest[:2] <= self.high


@dataclass(slots=True)
class Found:
    """The results of one pass's listings, apart from the content."""

    references: int = 0
    doomed: list[str] = field(default_factory=list)
    dangling: list[Version] = field(default_factory=list)
    """Old references to content that was not listed."""

    crowded: list[tuple[str, str]] = field(default_factory=list)
    """Files with more than one version."""


class Collector:
    """The garbage collector of one backend."""

    def __init__(self, bucket: Bucket, terms: StoreParams) -> None:
        self._bucket = bucket
        self._terms = terms
        self.at_once = AT_ONCE

    def collect(self, *, force: bool) -> Collected:
        """Implement ``Backend.collect``."""
        self._bucket.sync()
        guard = SafetyCheck(self._bucket, self._terms)
        blobs = size = 0
        last: str | None = ""
        found = Found()
        while last is not None:
            part, found = self._look(last, found.dangling)
            held = None if force else guard.problem(found.references, part.generations.idle())
            if held is not None:
                return Collected(blobs, size, 0, held)
            for blob in part.generations.unreferred():
                blobs, size = blobs + 1, size + blob.size
            self._bucket.delete(
                keys.blob(blob.digest, blob.generation) for blob in part.generations.unreferred()
            )
            last = part.last
            del part  # free it before the next pass: the memory limit is for one
        leftovers = self._tidy(found) + self._abort_uploads()
        guard.note(found.references)
        return Collected(blobs, size, leftovers)

    def referred(self) -> Stored:
        """Implement ``ReclaimsLate.referred``: the content that references keep at this moment."""
        self._bucket.sync()
        blobs = size = 0
        last: str | None = ""
        while last is not None:
            part = self._content(last)
            self._references(part, Found())
            more = part.generations.referred()
            blobs, size, last = blobs + more.blobs, size + more.bytes, part.last
            del part
        return Stored(blobs, size)

    def _look(self, last: str, dangling: list[Version]) -> tuple[Part, Found]:
        """List content, then intents, then references: one pass, in the order of the proof."""
        part = self._content(last)
        found = Found(dangling=dangling)
        self._intents(part, found)
        self._references(part, found)
        return part, found

    # Listing

    def _content(self, last: str) -> Part:
        """List the generations after the key ``last``.

        At ``at_once`` generations the pass ends, at the next change of a digest's first byte.
        """
        index = Generations()
        low = high = last[2:4]  # of "b/<2 hex>/...": the first byte of the last pass's last digest
        for page in self._bucket.pages(keys.BLOBS, start_after=last):
            for entry in page.entries:
                parsed = keys.parse_blob(entry.key)
                if parsed is None:
                    continue
                digest, generation = parsed
                if index.count >= self.at_once and digest[:2] != high:
                    index.seal()
                    return Part(index, low, high, last)
                high, last = digest[:2], entry.key
                index.add(digest, generation, entry.size, old=self._is_old(entry, page.date))
        index.seal()
        return Part(index, low, "ff", None)

    def _is_old(self, entry: Entry, date: datetime) -> bool:
        return entry.modified + self._terms.grace < date

    def _intents(self, part: Part, found: Found) -> None:
        for page in self._bucket.pages(keys.INTENTS):
            for entry in page.entries:
                protected = keys.parse_intent(entry.key)
                if protected is not None:
                    part.generations.refer(*protected)
                    if entry.modified + ABANDONED < page.date:
                        found.doomed.append(entry.key)

    def _references(self, part: Part, found: Found) -> None:
        """List all sessions: mark referenced generations, and collect needless notes.

        The age of a note at the start of the listing decides: a note that was young then stays.
        """
        began: datetime | None = None
        session = _Session("")
        for page in self._bucket.pages(keys.SESSIONS):
            began = began or page.date
            for entry in page.entries:
                sid = keys.sid_of(entry.key)
                if sid != session.sid:
                    found.doomed += session.needless(began - self._terms.grace - self._terms.margin)
                    session = _Session(sid)
                version = session.add(entry)
                if version is not None:
                    self._reference(version, part, found, page.date)
                    if session.is_crowded_by(version):
                        found.crowded.append((sid, version.file))
        if began is not None:
            found.doomed += session.needless(began - self._terms.grace - self._terms.margin)

    def _reference(self, version: Version, part: Part, found: Found, date: datetime) -> None:
        found.references += 1
        is_listed = part.generations.refer(version.digest, version.generation)
        old = version.modified + self._terms.grace < date
        if old and not is_listed and part.holds(version.digest):
            found.dangling.append(version)

    # Tidying up

    def _tidy(self, found: Found) -> int:
        """Delete references without content, replaced versions and needless notes."""
        doomed = list(found.doomed)
        # This check of the content begins after the listing that showed the reference.
        doomed += [
            version.key
            for version in found.dangling[:_CHECKS]
            if self._bucket.find(version.blob) is None
        ]
        for sid, file in found.crowded[:_CHECKS]:
            doomed += self._replaced(sid, file)
        return self._bucket.delete(doomed)

    def _replaced(self, sid: str, file: str) -> Iterator[str]:
        """Yield the keys of a file's versions that are older than a firm one.

        A firm version cannot be taken back or lose its content. Older versions stay when a save
        dies after it was acknowledged, or when two saves run at once.
        """
        versions = parsed(self._bucket.entries(keys.versions(sid, file)))
        has_firm = False
        for version in sorted(versions, key=attrgetter("token"), reverse=True):
            if has_firm:
                yield version.key
            else:
                has_firm = self._terms.is_firm(version, self._bucket.find(version.blob))

    def _abort_uploads(self) -> int:
        now = self._bucket.now()
        uploads = self._bucket.uploads()
        abandoned = [upload for upload in uploads if upload.started + ABANDONED < now]
        for upload in abandoned:
            self._bucket.client.abort(upload.key, upload.id)
        return len(abandoned)


class _Session:
    """The state of one session while a sweep goes through its entries."""

    def __init__(self, sid: str) -> None:
        self.sid = sid
        self._exists = False
        self._file = ""
        self._crowded = False
        self._marks: list[Mark] = []

    def add(self, entry: Entry) -> Version | None:
        version = keys.parse_version(entry)
        mark = None if version is not None else keys.parse_mark(entry)
        if mark is not None:
            self._marks.append(mark)
        self._exists |= version is not None or (mark is not None and mark.kind == "saved")
        return version

    def is_crowded_by(self, version: Version) -> bool:
        """Return whether ``version`` is the second listed version of its file."""
        second = version.file == self._file and not self._crowded
        self._crowded = version.file == self._file
        self._file = version.file
        return second

    def needless(self, before: datetime) -> Iterator[str]:
        """Yield the keys of needless notes from before that time.

        A note is needless if a newer one of its kind replaces it, or if the session does not exist.
        """
        self._marks.sort(key=attrgetter("kind", "time"))
        for _, marks_of_kind in groupby(self._marks, attrgetter("kind")):
            *replaced, newest = marks_of_kind
            idle: Iterable[Mark] = replaced if self._exists else [*replaced, newest]
            yield from (mark.entry.key for mark in idle if mark.entry.modified < before)


@dataclass(frozen=True, slots=True)
class Count:
    """The result of the last sweeps: the number of ``references`` of the last complete sweep.

    ``low`` is the suspiciously low number of a held sweep, ``since`` its time in microseconds.
    """

    references: int = 0
    low: int | None = None
    since: int = 0


class SafetyCheck:
    """A check before a sweep deletes: a wrong prefix or permission can hide references.

    It compares the number of references in this sweep with the number in the last sweep.

    The check is advisory. A lost or stale record delays a sweep or lets it pass; safety does not
    depend on it.
    """

    def __init__(self, bucket: Bucket, terms: StoreParams) -> None:
        self._bucket = bucket
        self._terms = terms
        self._last = bucket.load(keys.SWEEP, _count)

    def problem(self, references: int, idle: int) -> str | None:
        """Return the reason why nothing should be deleted now, or None.

        ``references`` were listed, and ``idle`` blobs would be deleted.
        """
        expected = 0 if self._last is None else self._last.references
        few = references == 0 if self._last is None else references * _SHARE < expected
        if idle <= _FEW or not few:
            return None
        now, last = keys.microseconds(self._bucket.now()), self._last or Count()
        grace = self._terms.grace
        if last.low is not None and now - last.since >= grace.total_seconds() * 1e6:
            return None  # it has been low for ``grace``: believe it
        if last.low is None:
            self._write(Count(last.references, references, now))
        return (
            f"{idle} stored blobs would be deleted, because only {references} references are "
            f"listed ({expected} before): check the store's URL and the permission to list. If "
            f"the number is still low {show_duration(grace)} after it was first seen, a sweep "
            "deletes them; force deletes them now."
        )

    def note(self, references: int) -> None:
        """Record the number of references of a sweep that completed."""
        if self._last != Count(references):
            self._write(Count(references))

    def _write(self, count: Count) -> None:
        self._bucket.put(keys.SWEEP, json.dumps(asdict(count)).encode())


def _count(data: bytes) -> Count | None:
    try:
        return Count(**json.loads(data))
    except (ValueError, TypeError):
        return None
