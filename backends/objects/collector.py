"""Garbage collection of unreferenced content and leftovers of crashes; safe to run concurrently.

The order of the listings is the proof. Content is listed first, and only content that is older than
``grace`` by the store's clock at that moment is a candidate. Intents are listed next, and
references last. An acknowledged save that refers to an old generation wrote its intent or its
reference before, so one of the two listings has it. After a failed listing nothing is deleted. The
deletes may come much later: no save can refer to an old generation any more.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from itertools import groupby, islice
from operator import attrgetter
from typing import Final

from sessionstore.model import Collected, SessionRecord, Stored
from sessionstore.parsers import show_duration

from . import keys
from .bucket import Bucket
from .client import Entry
from .keys import Mark, Version
from .layout import ABANDONED, Part
from .reader import parsed
from .sessions import Tally
from .spill import Spill, row_id

_CHECKS = 1000
"""The most files that one sweep checks one by one; there is hardly ever one to check."""

_FEW = 1000
"""Up to this many blobs may be deleted without the check."""

_SHARE = 10
"""There must be at least one ``_SHARE``-th of the references that the last sweep counted."""


@dataclass(slots=True)
class Found:
    """The results of the listings, apart from the rows.

    ``doomed`` are needless notes, intents and signed uploads, ``crowded`` files with more than one
    version.
    """

    references: int = 0
    requests: int = 0
    tokens: dict[str, set[str]] = field(default_factory=dict)
    doomed: list[str] = field(default_factory=list)
    crowded: dict[tuple[str, str], None] = field(default_factory=dict)


class Collector(Part):
    """The garbage collector of one backend."""

    sliced_from = 200_000
    """A store with so many references is listed in slices, several at the same time."""

    blob_slices = "0123456789abcdef"
    session_slices = string.ascii_lowercase + string.digits
    """The first characters of all digests, and of all stored names of sessions."""

    def survey(self, *, content: bool = True, watched: Iterable[str] = ()) -> Survey:
        """Implement ``Surveys.survey``."""
        found = Found(tokens={sid: set() for sid in watched})
        return Survey(self, self._bucket, self._terms.grace, found, content=content)

    def collect(self, *, force: bool = False) -> Collected:
        survey = self.survey()
        for _ in survey.sessions():
            pass
        return survey.collect(force=force)

    def referred(self) -> Stored:
        self._bucket.waits.drain()  # replaced versions would count until they are deleted
        with closing(Spill()) as spill:
            for one in parsed(self._bucket.entries(keys.SESSIONS)):
                spill.add(one.digest, one.generation, one.size, old=False)
            return spill.distinct()

    # Listing

    def listed(self, spill: Spill, found: Found, *, sliced: bool) -> Iterator[SessionRecord]:
        """List content, then intents, then references, in the order of the proof."""
        self.content(spill, found, sliced=sliced)
        self.intents(spill, found)
        yield from self.references(spill, found, sliced=sliced)

    def content(self, spill: Spill, found: Found, *, sliced: bool) -> None:
        for _, entries, date in self._pages(keys.BLOBS, self.blob_slices if sliced else "", found):
            for entry in entries:
                blob, until = keys.parse_blob(entry.key), keys.staged_until(entry.key)
                if blob is not None:
                    spill.add(*blob, entry.size, old=self._is_old(entry, date))
                elif until is not None and until < date:
                    found.doomed.append(entry.key)

    def _is_old(self, entry: Entry, date: datetime) -> bool:
        return entry.modified + self._terms.grace < date

    def intents(self, spill: Spill, found: Found) -> None:
        for _, entries, date in self._pages(keys.INTENTS, "", found):
            for entry in entries:
                protected = keys.parse_intent(entry.key)
                if protected is not None:
                    spill.refer(*protected, old=False)
                    if entry.modified + ABANDONED < date:
                        found.doomed.append(entry.key)

    def references(
        self, spill: Spill | None, found: Found, *, sliced: bool
    ) -> Iterator[SessionRecord]:
        """List all sessions: yield their records, add references, and collect needless notes.

        The age of a note at the start of the listing decides: a note that was young then stays.
        """
        before: datetime | None = None
        sessions: dict[str, _Session] = {}  # by slice, the one whose entries are being listed
        slices = self.session_slices if sliced else ""
        for prefix, entries, date in self._pages(keys.SESSIONS, slices, found):
            before = before or date - self._terms.grace - self._terms.margin
            session = sessions.setdefault(prefix, _Session(""))
            for entry in entries:
                sid = keys.sid(entry)
                if sid != session.sid:
                    yield from session.close(found, before)
                    session = sessions[prefix] = _Session(sid, found.tokens.get(sid))
                one = session.add(entry)
                if isinstance(one, Version):
                    found.references += 1
                    if session.tokens is not None:
                        session.tokens.add(one.token)
                    if spill is not None:
                        spill.refer(one.digest, one.generation, old=self._is_old(entry, date))
                    if one.file == session.file and len(found.crowded) < _CHECKS:
                        found.crowded[sid, one.file] = None
                    session.file = one.file
                elif one is not None:
                    session.marks.append(one)
        for session in sessions.values():
            yield from session.close(found, before or keys.EPOCH)

    def _pages(
        self, prefix: str, slices: str, found: Found
    ) -> Iterator[tuple[str, Sequence[Entry], datetime]]:
        """Yield the pages of a listing, or of its ``slices``, and count them."""
        prefixes = [prefix + first for first in slices] or [prefix]
        for page in self._bucket.pages_of(prefixes):
            found.requests += 1
            yield page

    # Tidying up

    def tidy(self, found: Found, missing: set[bytes]) -> int:
        doomed = list(found.doomed)
        if missing:
            # The check of the content begins after the listing that showed the reference.
            doomed += (
                one.key
                for one in parsed(self._bucket.entries(keys.SESSIONS))
                if row_id(one.digest, one.generation) in missing
                and self._bucket.find(one.blob) is None
            )
        for sid, file in found.crowded:
            doomed += self._replaced(sid, file)
        return self._bucket.delete(doomed) + self._abort_uploads()

    def _replaced(self, sid: str, file: str) -> Iterator[str]:
        """Yield the keys of a file's versions that are older than a firm one.

        A firm version cannot be taken back or lose its content. Older versions stay when a save
        dies after it was acknowledged, or when two saves run at once.
        """
        versions = parsed(self._bucket.entries(keys.files(sid, file)))
        has_firm = False
        for version in sorted(versions, key=attrgetter("token"), reverse=True):
            if has_firm:
                yield version.key
            else:
                has_firm = self._terms.is_firm(version, self._bucket.find(version.blob))

    def _abort_uploads(self) -> int:
        now = self._bucket.now()
        uploads = self._bucket.client.uploads(keys.BLOBS)
        abandoned = [
            upload
            for upload in uploads
            if (keys.staged_until(upload.key) or upload.started + ABANDONED) < now
        ]
        for upload in abandoned:
            self._bucket.client.abort(upload.key, upload.id)
        return len(abandoned)


class Survey:
    """One pass over the listings of a store: ``sessions``, and then ``collect``.

    Without ``content`` it lists the sessions only, and there is nothing to collect.
    """

    def __init__(
        self,
        collector: Collector,
        bucket: Bucket,
        grace: timedelta,
        found: Found,
        *,
        content: bool,
    ) -> None:
        self._collector = collector
        self._bucket = bucket
        self._spill = Spill() if content else None
        self._found = found
        self.tokens: Final = found.tokens
        self._complete = False
        bucket.sync()
        self._guard = SafetyCheck(bucket, grace)

    def sessions(self) -> Iterator[SessionRecord]:
        """Yield the record of each session, from the listings by which ``collect`` then decides."""
        many = self._guard.references >= self._collector.sliced_from
        sliced = many and self._bucket.waits.parallel
        try:
            if self._spill is None:
                yield from self._collector.references(None, self._found, sliced=sliced)
            else:
                yield from self._collector.listed(self._spill, self._found, sliced=sliced)
            self._complete = True
        finally:
            if not self._complete and self._spill is not None:
                self._spill.close()

    def collect(self, *, force: bool = False) -> Collected:
        """Delete what the listings of ``sessions`` show to be needless. Lists no content again."""
        if not self._complete:
            raise RuntimeError("sessions() must be read to its end first.")
        if self._spill is None:
            return Collected(0, 0, 0, requests=self._found.requests)
        try:
            return self._collect(self._spill, force=force)
        finally:
            self._spill.close()
            self._complete = False

    def _collect(self, spill: Spill, *, force: bool) -> Collected:
        idle: list[int] = []
        stored = referred = doomed = Stored(0, 0)
        missing: set[bytes] = set()
        found = self._found
        for part in spill.parts():
            stored, referred = _sum(stored, part.stored), _sum(referred, part.referred)
            doomed = _sum(doomed, part.idle)
            if part.idle.blobs:
                idle.append(part.number)
            missing.update(islice(part.missing(), max(_CHECKS - len(missing), 0)))
        held = None if force else self._guard.problem(found.references, doomed.blobs)
        if held is not None:
            return Collected(0, 0, 0, held, stored, referred, found.requests)
        self._bucket.delete(
            keys.blob(blob.digest, blob.generation)
            for number in idle
            for blob in spill.part(number).unreferred()
        )
        leftovers = self._collector.tidy(found, missing)
        self._guard.note(found.references)
        left = Stored(stored.blobs - doomed.blobs, stored.bytes - doomed.bytes)
        return Collected(
            doomed.blobs, doomed.bytes, leftovers, None, left, referred, found.requests
        )


def _sum(one: Stored, other: Stored) -> Stored:
    return Stored(one.blobs + other.blobs, one.bytes + other.bytes)


class _Session(Tally):
    """The state of one session while a sweep goes through its entries."""

    def __init__(self, sid: str, tokens: set[str] | None = None) -> None:
        super().__init__(sid)
        self.tokens = tokens
        """Collects the tokens of the files of a watched session."""
        self.marks: list[Mark] = []
        self.file = ""  # of the last version

    def close(self, found: Found, before: datetime) -> list[SessionRecord]:
        """Return the session's record if it exists, and add its needless notes to ``found``."""
        found.doomed += self.needless(before)
        record = self.record()
        return [] if record is None else [record]

    def needless(self, before: datetime) -> Iterator[str]:
        """Yield the keys of needless notes from before that time.

        A note is needless if a newer one of its kind replaces it, or if the session does not exist.
        """
        self.marks.sort(key=attrgetter("kind", "time"))
        for _, marks_of_kind in groupby(self.marks, attrgetter("kind")):
            *idle, newest = marks_of_kind
            if not self.exists:
                idle.append(newest)
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

    It compares the number of references with that of the last sweep. It is advisory: a lost or
    stale record delays a sweep or lets it pass; safety does not depend on it.
    """

    def __init__(self, bucket: Bucket, grace: timedelta) -> None:
        self._bucket = bucket
        self._grace = grace
        self._last = bucket.load(keys.SWEEP, lambda data: Count(**json.loads(data)))

    @property
    def references(self) -> int:
        """The number of references of the last complete sweep, 0 if unknown."""
        return 0 if self._last is None else self._last.references

    def problem(self, references: int, idle: int) -> str | None:
        """Return the reason why nothing should be deleted now, or None.

        ``references`` were listed, and ``idle`` blobs would be deleted.
        """
        last = self._last or Count()
        few = references * _SHARE < last.references if self._last else references == 0
        if idle <= _FEW or not few:
            return None
        now = keys.microseconds(self._bucket.now())
        if last.low is None:
            self._write(Count(last.references, references, now))
        elif now - last.since >= self._grace.total_seconds() * 1e6:
            return None  # it has been low for ``grace``: believe it
        return (
            f"{idle} stored blobs would be deleted, because only {references} references are "
            f"listed ({last.references} before): check the store's URL and the permission to list. "
            f"If the number is still low {show_duration(self._grace)} after it was first seen, a "
            "sweep deletes them; force deletes them now."
        )

    def note(self, references: int) -> None:
        if self._last != Count(references):
            self._write(Count(references))

    def _write(self, count: Count) -> None:
        self._bucket.put(keys.SWEEP, json.dumps(asdict(count)).encode())
