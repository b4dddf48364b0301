"""Garbage collection of unreferenced content and leftovers of crashes; safe to run concurrently.

The order of the listings is the proof. Content is listed first, and only content that is older than
``grace`` by the store's clock at that moment is a candidate. Intents are listed next, and
references last. An acknowledged save that refers to an old generation wrote its intent or its
reference before, so one of the two listings has it. After a failed listing nothing is deleted.
"""

from __future__ import annotations

import json
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from itertools import chain, groupby, islice
from operator import attrgetter
from typing import Final, NamedTuple

from sessionstore.model import Collected, Stored
from sessionstore.parsers import show_duration

from . import keys
from .bucket import Bucket
from .client import Entry
from .keys import Mark, Version
from .layout import ABANDONED, Part
from .reader import parsed
from .sessions import Tally

AT_ONCE = 2_000_000
"""Generations in one pass: 57 bytes each, 114 MB. A larger store takes several passes."""

_CHECKS = 1000
"""The most files that one sweep checks one by one; there is hardly ever one to check."""

_FEW = 1000
"""Up to this many blobs may be deleted without the check."""

_SHARE = 10
"""There must be at least one ``_SHARE``-th of the references that the last sweep counted."""


class Pass(NamedTuple):
    """The content of one pass: ``generations`` of digests after ``low`` up to ``high``.

    ``low`` and ``high`` are two hex digits. ``last`` is the ``start_after`` of the next pass; None:
    this is the last pass.
    """

    generations: Generations
    low: str
    high: str
    last: str | None

    def holds(self, digest: str) -> bool:
        return self.low < digest[:2] <= self.high


@dataclass(slots=True)
class Found:
    """The results of one pass's listings, apart from the content.

    ``dangling`` are old references to content that was not listed, ``crowded`` the files with more
    than one version.
    """

    references: int = 0
    doomed: list[str] = field(default_factory=list)
    dangling: list[Version] = field(default_factory=list)
    crowded: dict[tuple[str, str], None] = field(default_factory=dict)


class Collector(Part):
    """The garbage collector of one backend."""

    at_once = AT_ONCE

    def collect(self, *, force: bool = False) -> Collected:
        self._bucket.sync()
        guard = SafetyCheck(self._bucket, self._terms.grace)
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
        self._bucket.waits.drain()  # replaced versions would count until they are deleted
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

    def _look(self, last: str, dangling: list[Version]) -> tuple[Pass, Found]:
        """List content, then intents, then references: one pass, in the order of the proof."""
        part, found = self._content(last), Found(dangling=dangling)
        self._intents(part, found)
        self._references(part, found)
        return part, found

    # Listing

    def _content(self, last: str) -> Pass:
        return content(self._bucket, last, self.at_once, self._is_old)

    def _is_old(self, entry: Entry, date: datetime) -> bool:
        return entry.modified + self._terms.grace < date

    def _intents(self, part: Pass, found: Found) -> None:
        for entries, date in self._bucket.pages(keys.INTENTS):
            for entry in entries:
                protected = keys.parse_intent(entry.key)
                if protected is not None:
                    part.generations.refer(*protected)
                    if entry.modified + ABANDONED < date:
                        found.doomed.append(entry.key)

    def _references(self, part: Pass, found: Found) -> None:
        """List all sessions: mark referenced generations, and collect needless notes.

        The age of a note at the start of the listing decides: a note that was young then stays.
        """
        before: datetime | None = None
        session = _Session("")
        for entries, date in self._bucket.pages(keys.SESSIONS):
            before = before or date - self._terms.grace - self._terms.margin
            for entry in entries:
                sid = keys.sid(entry)
                if sid != session.sid:
                    found.doomed += session.needless(before)
                    session = _Session(sid)
                one = session.add(entry)
                if isinstance(one, Version):
                    found.references += 1
                    is_listed = part.generations.refer(one.digest, one.generation)
                    if not is_listed and part.holds(one.digest) and self._is_old(entry, date):
                        found.dangling.append(one)
                    if one.file == session.file:
                        found.crowded[sid, one.file] = None
                    session.file = one.file
                elif one is not None:
                    session.marks.append(one)
        if before is not None:
            found.doomed += session.needless(before)

    # Tidying up

    def _tidy(self, found: Found) -> int:
        doomed = list(found.doomed)
        # This check of the content begins after the listing that showed the reference.
        dangling = found.dangling[:_CHECKS]
        doomed += [one.key for one in dangling if self._bucket.find(one.blob) is None]
        for sid, file in islice(found.crowded, _CHECKS):
            doomed += self._replaced(sid, file)
        return self._bucket.delete(doomed)

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
        abandoned = [upload for upload in uploads if upload.started + ABANDONED < now]
        for upload in abandoned:
            self._bucket.client.abort(upload.key, upload.id)
        return len(abandoned)


def content(
    bucket: Bucket, last: str, at_once: int, is_old: Callable[[Entry, datetime], bool | None]
) -> Pass:
    """List the generations after the key ``last``; leave out those for which ``is_old`` is None.

    At ``at_once`` generations the pass ends, at the next change of a digest's first byte.
    """
    index = Generations()
    low = high = last[2:4]  # of "b/<2 hex>/...": the first byte of the last pass's last digest
    for entries, date in bucket.pages(keys.BLOBS, start_after=last):
        for entry in entries:
            parsed = keys.parse_blob(entry.key)
            if parsed is None:
                continue
            digest, generation = parsed
            if index.count >= at_once and digest[:2] != high:
                index.seal()
                return Pass(index, low, high, last)
            high, last = digest[:2], entry.key
            old = is_old(entry, date)
            if old is not None:
                index.add(digest, generation, entry.size, old=old)
    index.seal()
    return Pass(index, low, "ff", None)


class _Session(Tally):
    """The state of one session while a sweep goes through its entries."""

    def __init__(self, sid: str) -> None:
        super().__init__(sid)
        self.marks: list[Mark] = []
        self.file = ""  # of the last version

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


# The index of a pass: 57 bytes for each generation, where a set of strings would need 250. It has
# runs of 32,768 generations, in the order of the listing. A run is a sorted array of 64-bit numbers
# (for binary search), the rest of each key as raw bytes in the same order, and one byte of flags
# for each. A full run never grows again, and only one run grows at a time: buffers that grow side
# by side fragment the memory, with holes as large as themselves.

RUN = 1 << 15
"""Generations in a run: 1.9 MB, and as much again while it is sorted."""

_ROW: Final = 48
"""Bytes of a row: 28 of the digest, 12 of the generation, 8 of the size. The other 8 bytes of
digest and generation are in the sorted array."""

_OLD, _REFERRED = 1, 2


class Blob(NamedTuple):
    """One copy of a content; ``size`` in bytes."""

    digest: str
    generation: str
    size: int


class _Run:
    """A run of generations, sorted by ``seal``. Most listings arrive already sorted."""

    __slots__ = ("flags", "heads", "high", "low", "rows")

    def __init__(self) -> None:
        self.heads = array("Q")
        self.rows = bytearray()
        self.flags = bytearray()
        self.low = self.high = 0

    def seal(self) -> None:
        heads = self.heads
        if any(after < head for head, after in zip(heads, islice(heads, 1, None), strict=False)):
            order = sorted(range(len(heads)), key=heads.__getitem__)
            rows = bytearray()
            for at in order:  # not join(): it would first make a list of all rows
                rows += self.rows[at * _ROW : (at + 1) * _ROW]
            self.heads, self.rows = array("Q", (heads[at] for at in order)), rows
            self.flags = bytearray(self.flags[at] for at in order)
        if heads:
            self.low, self.high = self.heads[0], self.heads[-1]

    def refer(self, head: int, rest: bytes) -> bool:
        at = bisect_left(self.heads, head)
        while at < len(self.heads) and self.heads[at] == head:
            if self.rows[at * _ROW : at * _ROW + len(rest)] == rest:
                self.flags[at] |= _REFERRED
                return True
            at += 1
        return False

    def unreferred(self) -> Iterator[Blob]:
        at = self.flags.find(_OLD)
        while at >= 0:
            head, row = f"{self.heads[at]:016x}", self.rows[at * _ROW : (at + 1) * _ROW]
            rest, size = row[:40].hex(), int.from_bytes(row[40:], "big")
            yield Blob(head[:8] + rest[:56], head[8:] + rest[56:], size)
            at = self.flags.find(_OLD, at + 1)

    def referred(self) -> Iterator[int]:
        for at, flag in enumerate(self.flags):
            if flag & _REFERRED:
                yield int.from_bytes(self.rows[at * _ROW + 40 : (at + 1) * _ROW], "big")


class Generations:
    """All generations of one pass: first ``add`` them, then ``seal``, then ``refer``."""

    def __init__(self) -> None:
        self._runs = [_Run()]  # the last one grows until it is sealed
        self.count: int = 0

    def add(self, digest: str, generation: str, size: int, *, old: bool) -> None:
        """Add one copy of a content; ``old``: it may be deleted if it is unreferenced."""
        head, rest = _split(digest, generation)
        run = self._runs[-1]
        run.heads.append(head)
        run.rows += rest + size.to_bytes(8, "big")
        run.flags.append(_OLD if old else 0)
        self.count += 1
        if len(run.flags) == RUN:
            self.seal()
            self._runs.append(_Run())

    def seal(self) -> None:
        self._runs[-1].seal()

    def refer(self, digest: str, generation: str) -> bool:
        """Mark a generation as referenced; return whether the index has it."""
        head, rest = _split(digest, generation)
        return any(run.refer(head, rest) for run in self._runs if run.low <= head <= run.high)

    def idle(self) -> int:
        """Return the number of old, unreferenced generations."""
        return sum(run.flags.count(_OLD) for run in self._runs)

    def referred(self) -> Stored:
        """Return the number and total size of referenced generations, old or not."""
        blobs = total = 0
        for size in chain.from_iterable(run.referred() for run in self._runs):
            blobs, total = blobs + 1, total + size
        return Stored(blobs, total)

    def unreferred(self) -> Iterator[Blob]:
        return chain.from_iterable(run.unreferred() for run in self._runs)


def _split(digest: str, generation: str) -> tuple[int, bytes]:
    """Return the number to search for, which sorts like the keys, and the rest as bytes."""
    return int(digest[:8] + generation[:8], 16), bytes.fromhex(digest[8:] + generation[8:])
