"""Collecting: content that nothing refers to, and what crashes left. Any number may run at once.

The order is the proof: content is listed first, and only what was older than ``grace`` by the
store's clock then is looked for; intents are listed after that, and references last. Whoever refers
to an old generation wrote an intent or a reference before, which is in one of the two listings,
unless it was never acknowledged. Nothing is deleted after a listing that failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from sessionstore.backend import Collected, Stored
from sessionstore.backends import objects_keys as keys
from sessionstore.backends.objects_bucket import Bucket
from sessionstore.backends.objects_client import Entry
from sessionstore.backends.objects_guard import Guard
from sessionstore.backends.objects_index import Generations
from sessionstore.backends.objects_keys import Mark, Version
from sessionstore.backends.objects_read import parsed
from sessionstore.backends.objects_terms import ABANDONED, Terms

AT_ONCE = 2_000_000
"""Generations looked at in one pass: 57 bytes each, 114 MB. More are done digest by digest."""

_CHECKS = 1000
"""Files that are looked at one by one in one sweep; there are hardly ever any."""


class Part(NamedTuple):
    """The content of one pass: ``generations`` of digests after ``low`` up to ``high``."""

    generations: Generations
    low: str
    high: str
    last: str | None
    """The key that the next pass goes on behind; None when this was the last pass."""

    def holds(self, digest: str) -> bool:
        return self.low < digest[:2] <= self.high


@dataclass(slots=True)
class Found:
    """What the listings of one pass showed besides content."""

    references: int = 0
    doomed: list[str] = field(default_factory=list)
    dangling: list[Version] = field(default_factory=list)
    """Old references whose content was not listed."""

    crowded: list[tuple[str, str]] = field(default_factory=list)
    """Files of more than one version."""


class Sweeper:
    """Collects, for one backend."""

    def __init__(self, bucket: Bucket, terms: Terms) -> None:
        self._bucket = bucket
        self._terms = terms
        self.at_once = AT_ONCE

    def collect(self, *, force: bool) -> Collected:
        """``Backend.collect``."""
        self._bucket.sync()
        guard = Guard(self._bucket, self._terms)
        blobs = size = 0
        last: str | None = ""
        found = Found()
        while last is not None:
            part, found = self._look(last, found.dangling)
            held = None if force else guard.objection(found.references, part.generations.idle())
            if held is not None:
                return Collected(blobs, size, 0, held)
            for blob in part.generations.unreferred():
                blobs, size = blobs + 1, size + blob.size
            self._bucket.delete(
                keys.blob(it.digest, it.generation) for it in part.generations.unreferred()
            )
            last = part.last
            del part  # before the next is made: there is memory for one
        leftovers = self._tidy(found) + self._abort_uploads()
        guard.note(found.references)
        return Collected(blobs, size, leftovers)

    def referred(self) -> Stored:
        """``ReclaimsLate.referred``: what a sweep at this moment would keep for its references."""
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
        """One pass over the store, in the order that is the proof."""
        part = self._content(last)
        found = Found(dangling=dangling)
        self._intents(part, found)
        self._references(part, found)
        return part, found

    # Listing

    def _content(self, last: str) -> Part:
        """The generations behind a key, up to a digest's first byte when there are very many."""
        index = Generations()
        low = high = last[2:4]
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
        """All sessions. What is young when the listing begins stays young enough for all of it."""
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
        there = part.generations.refer(version.digest, version.generation)
        old = version.modified + self._terms.grace < date
        if old and not there and part.holds(version.digest):
            found.dangling.append(version)

    # Tidying up

    def _tidy(self, found: Found) -> int:
        """Delete references without content, replaced versions and needless notes."""
        doomed = list(found.doomed)
        doomed += [it.key for it in found.dangling[:_CHECKS] if self._is_dangling(it)]
        for sid, file in found.crowded[:_CHECKS]:
            doomed += self._replaced(sid, file)
        return self._bucket.delete(doomed)

    def _is_dangling(self, version: Version) -> bool:
        """Asked anew: this listing begins after the one that showed the reference."""
        return self._bucket.find(version.blob) is None

    def _replaced(self, sid: str, file: str) -> Iterator[str]:
        """The versions below one that nobody can take back and whose content nobody can lose.

        They are left by a save that died after it was acknowledged, or by two at once.
        """
        versions = parsed(self._bucket.entries(keys.versions(sid, file)))
        settled = False
        for version in sorted(versions, key=attrgetter("token"), reverse=True):
            if settled:
                yield version.key
            else:
                settled = self._terms.is_firm(version, self._bucket.find(version.blob))

    def _abort_uploads(self) -> int:
        now = self._bucket.now()
        abandoned = [it for it in self._bucket.uploads() if it.started + ABANDONED < now]
        for upload in abandoned:
            self._bucket.client.abort(upload.key, upload.id)
        return len(abandoned)


class _Session:
    """One session as a sweep's listing goes through it."""

    def __init__(self, sid: str) -> None:
        self.sid = sid
        self._there = False
        self._file = ""
        self._crowded = False
        self._marks: list[Mark] = []

    def add(self, entry: Entry) -> Version | None:
        version = keys.parse_version(entry)
        mark = None if version is not None else keys.parse_mark(entry)
        if mark is not None:
            self._marks.append(mark)
        self._there |= version is not None or (mark is not None and mark.kind == "saved")
        return version

    def is_crowded_by(self, version: Version) -> bool:
        """Whether this is the second version of its file."""
        second = version.file == self._file and not self._crowded
        self._crowded = version.file == self._file
        self._file = version.file
        return second

    def needless(self, before: datetime) -> Iterator[str]:
        """Notes from before that time which say nothing: replaced, or of no session."""
        self._marks.sort(key=attrgetter("kind", "time"))
        for _, some in groupby(self._marks, attrgetter("kind")):
            *replaced, newest = some
            idle: Iterable[Mark] = replaced if self._there else [*replaced, newest]
            yield from (it.entry.key for it in idle if it.entry.modified < before)
