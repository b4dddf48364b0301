"""Sessions: what a listing tells of them, the notes about them, and how they and their files go.

A session is there when it has a file, or had one: whoever deletes a file leaves the note
``saved``, which says when the file was saved and whose the session is. Dropping it deletes both.
The notes ``seen`` and ``ended`` alone are no session: ``seen`` is written without a look whether
there is one, and the sweep removes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from operator import attrgetter

from sessionstore import names
from sessionstore.backend import Dropped, Reference, SessionKey, SessionRecord
from sessionstore.backends import objects_keys as keys
from sessionstore.backends.objects_bucket import Bucket
from sessionstore.backends.objects_client import Entry
from sessionstore.backends.objects_keys import EPOCH, Mark, Version
from sessionstore.backends.objects_read import Reader, parsed, to_reference
from sessionstore.backends.objects_recall import Recall
from sessionstore.backends.objects_terms import Nonce, Terms

_LOOK_AT_ALL = 8
"""Names from which one LIST of the session is cheaper than one for each."""


@dataclass(slots=True)
class Tally:
    """What the entries of one session add up to. Takes as much memory for many as for few."""

    sid: str
    there: bool = False
    active: datetime = EPOCH
    ended: datetime | None = None
    oldest: str | None = None
    expiring: int = 0

    def add(self, entry: Entry) -> Version | Mark | None:
        """Take one entry into account; returns what it is."""
        found = keys.parse_version(entry)
        if found is not None:
            self._add_version(found)
            return found
        mark = keys.parse_mark(entry)
        if mark is not None:
            self._add_mark(mark)
        return mark

    def _add_version(self, version: Version) -> None:
        self.there = True
        self.active = max(self.active, version.modified)
        if self.oldest is None or version.token < self.oldest:
            self.oldest = version.token
        if version.expires and (not self.expiring or version.expires < self.expiring):
            self.expiring = version.expires

    def _add_mark(self, mark: Mark) -> None:
        self.active = max(self.active, mark.time)
        if mark.kind == "ended":
            self.ended = max(self.ended or EPOCH, mark.time)
        elif mark.kind == "saved":
            self.there = True

    def record(self) -> SessionRecord | None:
        """The session, None when there is none."""
        if not self.there:
            return None
        oldest = self.active if self.oldest is None else keys.created(self.oldest)
        expiring = keys.time(self.expiring)
        return SessionRecord(self.sid, self.active, self.ended, oldest, expiring)


@dataclass(slots=True)
class _Doomed:
    """What is to go of a session, collected entry by entry."""

    newest: dict[str, Version] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, version: Version) -> None:
        there = self.newest.get(version.file)
        if there is None or there.token < version.token:
            self.newest[version.file] = version
        else:
            there = version
        if there is not None:
            self.replaced.append(there.key)

    def delete_from(self, bucket: Bucket) -> None:
        """Delete them: what was replaced first, or it would be the file for a moment.

        It takes a request of its own, since a batch has no order.
        """
        bucket.delete(self.replaced)
        bucket.delete([*(it.key for it in self.newest.values()), *self.notes])


class Sessions:
    """The sessions of one backend, and how they and their files go."""

    def __init__(
        self, bucket: Bucket, recall: Recall, reader: Reader, terms: Terms, nonce: Nonce
    ) -> None:
        self._bucket = bucket
        self._recall = recall
        self._reader = reader
        self._terms = terms
        self._nonce = nonce

    # What there is

    def records(self) -> Iterator[SessionRecord]:
        """All sessions; one LIST."""
        for sid, entries in grouped(self._bucket.entries(keys.SESSIONS)):
            record = _tallied(sid, entries).record()
            if record is not None:
                yield record

    def record(self, sid: str) -> SessionRecord | None:
        return _tallied(sid, self._bucket.entries(keys.session(sid))).record()

    def identify(self, sid: str) -> SessionKey | None:
        """``Backend.identify``: the body of whatever shows that it is there tells."""
        for _ in range(3):  # what shows that it is there may be replaced before it is read
            witness = self._witness(sid)
            known = None if witness is None else self._whose(sid, witness.key)
            if witness is None or known is not None:
                return known
        return None

    def _whose(self, sid: str, key: str) -> SessionKey | None:
        """Who the session is, remembered or as the body of an object of it tells."""
        known = self._recall.keys.get(sid)
        if known is None:
            told = self._bucket.told(key, lambda body: keys.parse_body(sid, body))
            known = None if told is None else told[0]
            if known is not None:
                self._recall.keys.put(sid, known)
        return known

    def _witness(self, sid: str) -> Entry | None:
        """An object that shows that the session is there, None when there is none; one LIST."""
        found = self._bucket.first(keys.session(sid), start_after=keys.after_ends(sid))
        seen = found is not None and found.key.startswith(keys.seen(sid))
        return None if seen else found

    # The visitor

    def touch(self, sid: str) -> None:
        """``Backend.touch``; one PUT.

        ``seen`` has a key for each period of ``grace``: a sweep may remove those of periods that
        are over, since nobody writes them any more.
        """
        period = (self._bucket.now() - EPOCH) // self._terms.grace
        self._bucket.put(keys.seen(sid, period), b"")

    def end(self, sid: str) -> None:
        if self._witness(sid) is None:
            return
        key = keys.ended(sid, self._nonce(8))
        self._bucket.put(key, b"")
        if self._witness(sid) is None:  # dropped meanwhile; one made anew has not ended
            self._bucket.delete([key])

    def resume(self, sid: str) -> None:
        """Activity first: a sweep that comes in between finds an ended session that is in use."""
        self.touch(sid)
        ends = [entry.key for entry in self._bucket.entries(keys.ended(sid))]
        self._bucket.delete(ends)

    # Going

    def drop(
        self, sid: str, *, unless_active_after: datetime | None, only_ended: bool
    ) -> Dropped | None:
        """``Backend.drop``. One complete LIST decides, and names what is deleted: files first."""
        tally, doomed = Tally(sid), _Doomed()
        for entry in self._bucket.entries(keys.session(sid)):
            found = tally.add(entry)
            if isinstance(found, Version):
                doomed.add(found)
            elif found is not None and found.kind != "seen":
                # Not ``seen``: whoever makes the session anew may write it again under this key.
                doomed.notes.append(entry.key)
        if tally.there and unless_active_after and tally.active > unless_active_after:
            return None
        if only_ended and tally.ended is None:
            return None
        try:
            doomed.delete_from(self._bucket)
        finally:
            self._forget(sid, doomed.newest)
            self._recall.saved.pop(sid)
        files = doomed.newest.values()
        return Dropped(len(files), sum(it.size for it in files)) if tally.there else None

    def delete(self, sid: str, wanted: Iterable[str]) -> list[Reference]:
        """``Backend.delete``."""
        by_file = {names.encode(name): name for name in wanted}
        gone: list[Reference] = []
        doomed: list[Version] = []
        for file, versions in self._versions(sid, by_file):
            current = self._reader.newest(versions)
            if current is not None:
                gone.append(to_reference(current, by_file[file]))
            doomed += versions
        self.remove(sid, doomed)
        return gone

    def discard(self, sid: str, references: Iterable[Reference]) -> list[Reference]:
        """``Backend.discard``.

        All that is there beside the file goes with it, or it would be the file next: what it
        replaced, and what a save left that came too late to replace it.
        """
        by_token = {it.token: it for it in references}
        files = {names.encode(it.name) for it in by_token.values()}
        gone: list[Reference] = []
        doomed: list[Version] = []
        for _, versions in self._versions(sid, files):
            current = self._reader.newest(versions)
            if current is not None and current.token in by_token:
                gone.append(to_reference(current, by_token[current.token].name))
                doomed += versions
        self.remove(sid, doomed)
        return gone

    def _versions(self, sid: str, files: Iterable[str]) -> Iterator[tuple[str, list[Version]]]:
        """Each of these files that is there, with its versions."""
        wanted = set(files)
        if len(wanted) < _LOOK_AT_ALL:
            found = ((file, self._reader.versions(sid, file)) for file in sorted(wanted))
            yield from ((file, versions) for file, versions in found if versions)
        else:
            every = parsed(self._bucket.entries(keys.files(sid)))
            for file, some in groupby(every, attrgetter("file")):
                if file in wanted:
                    yield file, list(some)

    def remove(self, sid: str, versions: list[Version]) -> None:
        """Delete these versions, and note that the session had them."""
        if not versions:
            return
        doomed = _Doomed()
        for version in versions:
            doomed.add(version)
        doomed.notes += self._note(sid, versions)
        try:
            doomed.delete_from(self._bucket)
        finally:
            self._forget(sid, doomed.newest)

    def _note(self, sid: str, doomed: list[Version]) -> list[str]:
        """Note when the newest of these was saved; returns the key of the note this replaces."""
        before = self._recall.saved.get(sid, 0)
        now = keys.microseconds(max(it.modified for it in doomed))
        newest_first = sorted(doomed, key=attrgetter("token"), reverse=True)
        told = (self._whose(sid, version.key) for version in newest_first)
        whose = next((it for it in told if it is not None), None)
        if before > now or whose is None:  # None: others delete all of them, and leave the note
            return []
        self._bucket.put(keys.saved(sid, now), keys.body(whose, ""))
        self._recall.saved.put(sid, now)
        return [keys.saved(sid, before)] if 0 < before < now else []

    def _forget(self, sid: str, files: Iterable[str]) -> None:
        self._recall.changed(sid)
        for file in files:
            self._recall.forget(sid, file)


def grouped(entries: Iterable[Entry]) -> Iterator[tuple[str, Iterator[Entry]]]:
    """The entries below ``s/``, session by session."""
    return groupby(entries, lambda entry: keys.sid_of(entry.key))


def _tallied(sid: str, entries: Iterable[Entry]) -> Tally:
    tally = Tally(sid)
    for entry in entries:
        tally.add(entry)
    return tally
