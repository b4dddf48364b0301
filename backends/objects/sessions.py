"""Sessions: their records from listings, their notes, and the deletion of files and sessions.

A session exists when it has a file, or had one: deleting a file leaves the note ``saved``, with the
file's save time and the session's id and owner. Dropping the session deletes files and notes. An
adapter's own (private) session has no such note: it ends with its last file. The notes ``seen`` and
``ended`` alone do not make a session: ``seen`` is written without checking that the session exists,
and a sweep deletes it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import groupby
from operator import attrgetter

from sessionstore import names
from sessionstore.model import Dropped, Reference, SessionKey, SessionRecord

from . import keys
from .cache import CachedVersion
from .client import Entry
from .keys import EPOCH, Mark, Version
from .layout import Part, Shared
from .reader import Reader, parsed, to_reference

_FIRST = 16
"""Entries of a session in a listing that looks at the first ones only."""

_LIST_SESSION_FROM = 8
"""From this number of names on, one LIST of the session is cheaper than one LIST for each name."""


@dataclass(slots=True)
class Tally:
    """The summary of one session's entries. Its memory does not grow with their number."""

    sid: str
    exists: bool = False
    active: datetime = EPOCH
    ended: datetime | None = None
    oldest: str | None = None
    expiring: int = 0

    def add(self, entry: Entry) -> Version | Mark | None:
        """Add one entry; return it parsed, or None if it is neither a version nor a note."""
        version = keys.parse_version(entry)
        if version is not None:
            self.exists = True
            self.active = max(self.active, version.modified)
            self.oldest = min(self.oldest or version.token, version.token)
            if version.expires:
                self.expiring = min(self.expiring or version.expires, version.expires)
            return version
        mark = keys.parse_mark(entry)
        if mark is not None:
            self.active = max(self.active, mark.time)
            self.exists |= mark.kind == "saved"
            if mark.kind == "ended":
                self.ended = max(self.ended or EPOCH, mark.time)
        return mark

    def record(self) -> SessionRecord | None:
        if not self.exists:
            return None
        oldest = self.active if self.oldest is None else keys.created(self.oldest)
        expiring = keys.time(self.expiring)
        empty = self.oldest is None
        return SessionRecord(self.sid, self.active, self.ended, oldest, expiring, empty)


class Sessions(Part):
    """The sessions of one backend: records, activity, ends, and the deletion of their files."""

    def __init__(self, shared: Shared, reader: Reader) -> None:
        super().__init__(shared)
        self._reader = reader

    # Listing

    def records(self) -> Iterator[SessionRecord]:
        """Implement ``Backend.sessions``; one LIST."""
        by_sid = groupby(self._bucket.entries(keys.SESSIONS), keys.sid)
        return filter(None, (_tallied(sid, entries).record() for sid, entries in by_sid))

    def record(self, sid: str) -> SessionRecord | None:
        return _tallied(sid, self._bucket.entries(keys.session(sid))).record()

    def identify(self, sid: str) -> SessionKey | None:
        """Implement ``Backend.identify``: read the body of one of the session's objects."""
        for _ in range(3):  # the object may be replaced or deleted before it is read
            evidence = self._evidence(sid)
            if evidence is None:
                return None
            if (key := self._session_key(sid, evidence.key)) is not None:
                return key
        return None

    def _session_key(self, sid: str, object_key: str) -> SessionKey | None:
        """Return the session's id and owner, from the cache or from the body of an object."""
        key = self._cache.keys.get(sid)
        if key is None:
            body = self._bucket.load(object_key, lambda data: keys.parse_body(sid, data))
            if body is not None:
                key = body[0]
                self._cache.keys.put(sid, key)
        return key

    def _evidence(self, sid: str) -> Entry | None:
        """Return an object that proves that the session exists, or None; one LIST."""
        # After "ended.<hex>" come the files, then ``saved``, then ``seen``, which proves nothing.
        after = keys.ended(sid, "g")
        entries, _ = next(self._bucket.pages(keys.session(sid), start_after=after, page_size=1))
        return next((one for one in entries[:1] if not one.key.startswith(keys.seen(sid))), None)

    # The visitor

    def touch(self, sid: str) -> None:
        """Implement ``Backend.touch``; one PUT.

        ``seen`` has one key for each period of ``grace``. A sweep may delete the keys of past
        periods, since they are never written again.
        """
        period = (self._bucket.now() - EPOCH) // self._terms.grace
        self._bucket.put(keys.seen(sid, period), b"")

    def end(self, sid: str) -> SessionRecord | None:
        """Implement ``Backend.end``, if the session exists, and return its record.

        An end that was written for a session that never existed, by a process that then died, would
        end a later session of this id. So the session must have existed, as far as this process
        knows or the store shows.
        """
        if self._cache.keys.get(sid) is None and self._evidence(sid) is None:
            return None
        key = keys.ended(sid, self._nonce(8))
        self._bucket.put(key, b"")
        record = self.record(sid)
        if record is None:  # it was dropped: a new session of this id, made later, has not ended
            self._bucket.delete([key])
        return record

    def resume(self, sid: str) -> bool:
        """Implement ``Backend.resume``: record activity, then delete the ends.

        Most sessions do not exist yet when the page opens: one LIST shows that. It lists the ends
        first, then what proves that the session exists.
        """
        ends: list[str] = []
        exists = False
        for entry in self._bucket.entries(keys.session(sid), page_size=_FIRST):
            mark = keys.parse_mark(entry)
            if mark is None or mark.kind != "ended":
                exists = mark is None or mark.kind == "saved"
                break
            ends.append(entry.key)
        if exists or ends:
            # A sweep before the delete then sees an ended session that is active.
            self.touch(sid)
        self._bucket.delete(ends)
        return exists

    # Deleting

    def drop(
        self, sid: str, *, unless_active_after: datetime | None = None, only_ended: bool = False
    ) -> Dropped | None:
        """Implement ``Backend.drop``.

        One complete LIST decides, and gives the keys that are deleted; files come first.
        """
        tally = Tally(sid)
        versions: list[Version] = []
        notes: list[str] = []
        for entry in self._bucket.entries(keys.session(sid)):
            one = tally.add(entry)
            if isinstance(one, Version):
                versions.append(one)
            elif one is not None and one.kind != "seen":
                # Not ``seen``: if the session is created again, the same key may be written again.
                notes.append(entry.key)
        if tally.exists and unless_active_after and tally.active > unless_active_after:
            return None
        if only_ended and tally.ended is None:
            return None
        try:
            files = self._erase(sid, versions, notes).values()
        finally:
            self._cache.saved.pop(sid)
            self._cache.keys.pop(sid)
        return Dropped(len(files), sum(file.size for file in files)) if tally.exists else None

    def delete(self, sid: str, wanted: Iterable[str]) -> list[Reference]:
        by_file = {names.encode(name): name for name in wanted}
        gone: list[Reference] = []
        doomed: list[Version] = []
        known = [sight for file in by_file if (sight := self._cache.sight(sid, file))]
        note = partial(self._note_early, sid, known)
        early, listed = self._bucket.waits.together([note, partial(self._versions, sid, by_file)])
        for file, versions in listed:
            current = self._reader.newest(versions)
            if current is not None:
                gone.append(to_reference(current, by_file[file]))
            doomed += versions
        if early and not doomed:  # the files were gone, and maybe the session
            self._bucket.delete([keys.saved(sid, early)])
        covered = {sight.reference.token for sight in known} if early else set()
        self.remove(sid, doomed, covered, self._noted(sid, early) if early and doomed else ())
        return gone

    def discard(self, sid: str, references: Iterable[Reference]) -> list[Reference]:
        """Implement ``Backend.discard``.

        All other versions of the file are deleted with it, or one of them would become the file:
        the versions it replaced, and those of a save that was too late to replace it.
        """
        by_token = {reference.token: reference for reference in references}
        files = {names.encode(reference.name) for reference in by_token.values()}
        gone: list[Reference] = []
        doomed: list[Version] = []
        for _, versions in self._versions(sid, files):
            current = self._reader.newest(versions)
            if current is not None and current.token in by_token:
                gone.append(to_reference(current, by_token[current.token].name))
                doomed += versions
        self.remove(sid, doomed)
        return gone

    def forget(self, sid: str, references: Iterable[Reference]) -> None:
        """Implement ``Forgets.forget``; one DELETE."""
        by_file = {names.encode(reference.name): reference for reference in references}
        try:
            self._bucket.delete(keys.of(sid, file, one) for file, one in by_file.items())
        finally:
            self._cache.changed(sid, *by_file)

    def _versions(self, sid: str, files: Iterable[str]) -> list[tuple[str, list[Version]]]:
        wanted = set(files)
        if len(wanted) < _LIST_SESSION_FROM:
            listings = [partial(self._reader.versions, sid, file) for file in sorted(wanted)]
            found = zip(sorted(wanted), self._bucket.waits.together(listings), strict=True)
            return [(file, versions) for file, versions in found if versions]
        all_versions = parsed(self._bucket.entries(keys.files(sid)))
        by_file = groupby(all_versions, attrgetter("file"))
        return [(file, list(versions)) for file, versions in by_file if file in wanted]

    def remove(
        self,
        sid: str,
        versions: list[Version],
        covered: Collection[str] = (),
        notes: Iterable[str] = (),
    ) -> None:
        """Delete these versions and notes, after writing the note that the session had them.

        Not if a note for the newest version of each file, by its token, is already ``covered``.
        """
        if not versions:
            return
        doomed = [*notes]
        if not all(newest.token in covered for newest in _newest(versions).values()):
            doomed += self._note(sid, versions)
        self._erase(sid, versions, doomed)

    def _erase(self, sid: str, versions: list[Version], notes: list[str]) -> dict[str, Version]:
        """Delete these versions and notes; return the newest version of each file."""
        newest = _newest(versions)
        try:
            if len(versions) > len(newest):
                # Replaced ones first: otherwise one of them would be the current file for a moment.
                # They need a request of their own: the keys of one batch are deleted in no order.
                self._bucket.delete(one.key for one in versions if newest[one.file] is not one)
            self._bucket.delete([*(one.key for one in newest.values()), *notes])
        finally:
            self._cache.changed(sid, *newest)
        return newest

    def _note_early(self, sid: str, known: Collection[CachedVersion]) -> int:
        """Write the note for files that this process knows, while they are listed.

        Returns the time in the note, 0 for none. Its key is not used twice, so that a delete that
        finds no file may delete it.
        """
        key = self._cache.keys.get(sid)
        if not known or key is None or names.is_private(key) or not self._bucket.waits.parallel:
            return 0
        time = keys.microseconds(max(sight.modified for sight in known))
        time += int(self._nonce(3), 16) % 1_000_000
        self._bucket.put(keys.saved(sid, time), keys.body(key, ""))
        return time

    def _noted(self, sid: str, time: int) -> list[str]:
        """Remember the time of a note; return the keys of the notes that it replaces."""
        before = self._cache.saved.get(sid) or 0
        self._cache.saved.put(sid, max(before, time))
        return [keys.saved(sid, before)] if 0 < before < time else []

    def _note(self, sid: str, doomed: list[Version]) -> list[str]:
        """Note the latest save time of these versions; return the keys of replaced notes."""
        now = keys.microseconds(max(version.modified for version in doomed))
        newest_first = sorted(doomed, key=attrgetter("token"), reverse=True)
        session_keys = (self._session_key(sid, version.key) for version in newest_first)
        key = next(filter(None, session_keys), None)
        # None: another process has deleted all these versions, and written the note.
        if key is None or names.is_private(key):
            return []
        self._bucket.put(keys.saved(sid, now), keys.body(key, ""))
        return self._noted(sid, now)


def _newest(versions: Iterable[Version]) -> dict[str, Version]:
    """Return the newest version of each file."""
    return {version.file: version for version in sorted(versions, key=attrgetter("token"))}


def _tallied(sid: str, entries: Iterable[Entry]) -> Tally:
    tally = Tally(sid)
    for entry in entries:
        tally.add(entry)
    return tally
