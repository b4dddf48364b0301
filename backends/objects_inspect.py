"""Looking for what is wrong in an object store, and mending it.

Every generation is read once, in passes of bounded memory as a sweep makes them; then the listing
of references tells which files have one that is damaged, or one that is not there. Bytes count as
damaged only when two reads give the very same wrong ones, as many as the store lists: what comes
otherwise, a page of some proxy's for one, is not what is stored.

A damaged generation is not deleted but *condemned*: overwritten by a note of another size, which no
save that looks for its content adopts, and which a sweep takes by the ordinary rules. To delete it
while it is young would take it from a process that remembers it and is about to refer to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property, partial
from itertools import groupby
from operator import attrgetter

from sessionstore import names
from sessionstore.backend import Flaw
from sessionstore.backends import objects_keys as keys
from sessionstore.backends.objects_bucket import Bucket
from sessionstore.backends.objects_client import Entry, NotFound, Upload
from sessionstore.backends.objects_index import Generations
from sessionstore.backends.objects_keys import Version
from sessionstore.backends.objects_read import Reader, to_reference
from sessionstore.backends.objects_recall import Recall
from sessionstore.backends.objects_sessions import Sessions
from sessionstore.backends.objects_sweep import AT_ONCE
from sessionstore.backends.objects_terms import ABANDONED, UPLOAD_LIMIT, Terms
from sessionstore.backends.objects_write import Writer
from sessionstore.content import CHUNK, hasher
from sessionstore.errors import BackendUnavailable
from sessionstore.values import show_duration

SECOND = timedelta(seconds=1)

CONDEMNED = b"These bytes were damaged, and are not to be used.\n"
_LONGER = CONDEMNED + b"\n"
"""For content that is as long as the other note: saves know sound copies by their size."""

_OWN = {keys.LAYOUT, keys.SWEEP, keys.PROBE}
_LEFT_ALONE = "It is left alone: a later version's, or somebody else's. Delete it by hand."
_NOTED = "it was damaged, and taken out of use"
_READS = 4
"""How often bytes are asked for that differ from those saved, and from time to time."""


@dataclass(slots=True)
class _Bad:
    """A damaged generation; ``files`` that have it are still to be mended."""

    digest: str
    problem: str
    size: int
    """Of the content, in bytes; of what is there, while no file tells."""
    condemned: bool = False
    files: int = 0
    used: bool = False

    def blob(self, generation: str) -> str:
        return keys.blob(self.digest, generation)


@dataclass(slots=True)
class _Pass:
    """The generations of digests after ``low`` up to ``high``, all but the damaged ones."""

    low: str
    sound: Generations = field(default_factory=Generations)
    bad: dict[str, _Bad] = field(default_factory=dict)
    high: str = "ff"
    last: str | None = None

    def holds(self, digest: str) -> bool:
        return self.low < digest[:2] <= self.high


@dataclass
class Inspector:
    """One inspection."""

    bucket: Bucket
    recall: Recall
    reader: Reader
    writer: Writer
    sessions: Sessions
    terms: Terms
    at_once: int = AT_ONCE

    def flaws(self) -> Iterator[Flaw]:
        """``Backend.inspect``."""
        last: str | None = ""
        while last is not None:
            part = self._content(last)
            yield from self._files(part)
            yield from self._unused(part)
            last = part.last
            del part  # before the next is made
        yield from self._strangers()
        yield from self._interrupted()

    def omitted(self, *, files: bool) -> Iterator[Flaw]:
        """``Omits.omitted``; one LIST of the sessions, or two of which one is of everything."""
        if not files:
            yield from self._strangers(keys.SESSIONS)
            return
        every = (keys.parse_version(entry) for entry in self._entries(keys.SESSIONS))
        versions = (version for version in every if version is not None)
        for _, some in groupby(versions, attrgetter("sid", "file")):
            yield from self._unlisted(list(some))
        yield from self._strangers()

    def _unlisted(self, versions: list[Version]) -> Iterator[Flaw]:
        """Why no listing shows a file of these versions, if none does."""
        newest = max(versions, key=attrgetter("token"))
        name = self.reader.name(newest)
        if name is None:
            yield from self._nameless(newest)
        elif all(self.recall.dead.get(it.generation) is not None for it in versions):
            there = self.reader.versions(newest.sid, newest.file)
            if there and all(self.bucket.find(it.blob) is None for it in there):
                yield Flaw(
                    "missing",
                    newest.key,
                    f"The content of {name!r}, {newest.blob}, is not there.",
                    "It is left alone; verify() says what can be done.",
                    sid=newest.sid,
                    reference=to_reference(newest, name),
                )

    # Content

    def _content(self, last: str) -> _Pass:
        """Read the generations behind a key, up to a digest's first byte if they are very many."""
        part = _Pass(last[2:4])
        high = part.low
        for entry in self._entries(keys.BLOBS, last):
            parsed = keys.parse_blob(entry.key)
            if parsed is None:
                continue
            digest, generation = parsed
            if part.sound.count >= self.at_once and digest[:2] != high:
                part.high, part.last = high, last
                break
            high, last = digest[:2], entry.key
            problem = self._problem(entry, digest)
            if problem is None:
                part.sound.add(digest, generation, entry.size, old=False)
            else:
                part.bad[generation] = _Bad(digest, problem, entry.size, problem == _NOTED)
                self.recall.bad.put(generation, value=True)
                self.recall.born.pop(digest)
        part.sound.seal()
        return part

    def _entries(self, prefix: str, after: str = "") -> Iterator[Entry]:
        for page in self.bucket.pages(prefix, start_after=after):
            yield from page.entries

    def _problem(self, entry: Entry, digest: str) -> str | None:
        """What is wrong with an object's bytes. One that is gone meanwhile is no damage."""
        told: set[str] = set()
        for _ in range(_READS):
            try:
                size, found = self._digest_of(entry.key)
            except NotFound:
                return None
            if found == digest:
                return None
            if found in self._notes:
                return _NOTED
            if size == entry.size and found in told:
                return f"its {size} bytes have the digest {found} instead"
            told.update([found] if size == entry.size else [])
        raise BackendUnavailable(
            f"The object {entry.key} does not come as the store lists it, or comes with other "
            f"bytes each time ({entry.size} bytes are listed): look for what damages it on its way."
        )

    @cached_property
    def _notes(self) -> set[str]:
        return {self._digest(CONDEMNED), self._digest(_LONGER)}

    def _digest(self, data: bytes) -> str:
        told = hasher(self.terms.digest)
        told.update(data)
        return told.hexdigest()

    def _digest_of(self, key: str) -> tuple[int, str]:
        told, size = hasher(self.terms.digest), 0
        with closing(self.bucket.get(key).stream) as stream:
            while chunk := stream.read(CHUNK):
                told.update(chunk)
                size += len(chunk)
        return size, told.hexdigest()

    def _unused(self, part: _Pass) -> Iterator[Flaw]:
        """Damaged generations that no file was found to have."""
        for generation, bad in part.bad.items():
            if not bad.used and not bad.condemned:
                yield Flaw(
                    "damaged",
                    bad.blob(generation),
                    f"Stored bytes that no file has are damaged: {bad.problem}.",
                    "They are taken out of use, and a sweep deletes them.",
                    partial(self._condemn, bad.blob(generation), bad),
                )

    # Files

    def _files(self, part: _Pass) -> Iterator[Flaw]:
        """What is wrong with files. All flaws of one pass are found before the first is mended."""
        flawed: list[tuple[Version, _Bad | None]] = []
        for entry in self._entries(keys.SESSIONS):
            version = keys.parse_version(entry)
            if version is None or not part.holds(version.digest):
                continue
            bad = part.bad.get(version.generation)
            if bad is not None:
                bad.files, bad.used, bad.size = bad.files + 1, True, version.size
            if bad is not None or not part.sound.refer(version.digest, version.generation):
                flawed.append((version, bad))
            elif names.decode(version.file) is None and self.reader.name(version) is None:
                yield from self._nameless(version)
        for version, bad in flawed:
            yield from self._flawed(version, bad)

    def _flawed(self, version: Version, bad: _Bad | None) -> Iterator[Flaw]:
        """The flaw of a version whose content is damaged, or was not there."""
        if bad is None and self.bucket.find(version.blob) is not None:
            return  # saved since the content was looked at
        if self.bucket.find(version.key) is None:
            self._mended(version, bad)
            return  # deleted or replaced meanwhile
        current = self.reader.current(version.sid, version.file)
        if current is not None and current.key != version.key:
            yield self._replaced(version, bad)
            return
        name = self.reader.name(version) or version.file
        donor = self._donor(version)
        what = "is not there" if bad is None else f"is damaged: {bad.problem}"
        yield Flaw(
            "missing" if bad is None else "damaged",
            version.key,
            f"The content of {name!r}, {version.blob}, {what}.",
            f"The file gets a copy of {donor}, which is sound."
            if donor
            else "There is no other copy: the file is deleted, so that saving it again heals it.",
            partial(self._renew, version, name, bad, donor)
            if donor
            else partial(self._forget, version, bad),
            version.sid,
            to_reference(version, name),
            lost=donor is None,
        )

    def _replaced(self, version: Version, bad: _Bad | None) -> Flaw:
        return Flaw(
            "leftover",
            version.key,
            "A file was replaced, and its old version, whose content is gone or damaged, stayed.",
            "The old version is deleted.",
            partial(self._drop_version, version, bad),
            version.sid,
        )

    def _nameless(self, version: Version) -> Iterator[Flaw]:
        if self.bucket.find(version.key) is not None:
            yield Flaw(
                "damaged",
                version.key,
                "The name of a file, which is too long for its key, cannot be read.",
                "It is left alone: who knows the name can read the file, and saving heals it.",
                sid=version.sid,
            )

    def _donor(self, version: Version) -> str | None:
        """The key of another, sound copy of the same content."""
        for entry in self._entries(keys.generations(version.digest)):
            parsed = keys.parse_blob(entry.key)
            if parsed is None or parsed[1] == version.generation or entry.size != version.size:
                continue
            if self._problem(entry, version.digest) is None:
                return entry.key
        return None

    # Mending

    def _renew(self, version: Version, name: str, bad: _Bad | None, donor: str) -> bool:
        key = self.sessions.identify(version.sid)
        done = key is not None and self.writer.renew(version, key, name, donor)
        self._mended(version, bad, condemn=True)
        return done

    def _forget(self, version: Version, bad: _Bad | None) -> bool:
        versions = self.reader.versions(version.sid, version.file)
        newest = max(versions, key=attrgetter("token"), default=None)
        done = newest is not None and newest.key == version.key
        if done:
            self.sessions.remove(version.sid, versions)
        self._mended(version, bad, condemn=True)
        return done

    def _drop_version(self, version: Version, bad: _Bad | None) -> bool:
        self._delete([version.key])
        self._mended(version, bad, condemn=True)
        return True

    def _mended(self, version: Version, bad: _Bad | None, *, condemn: bool = False) -> None:
        """One file less has the damaged generation, which is condemned after the last."""
        if bad is not None:
            bad.files -= 1
            if condemn and not bad.files:
                self._condemn(version.blob, bad)

    def _condemn(self, key: str, bad: _Bad) -> bool:
        if not bad.condemned and self.bucket.find(key) is not None:
            self.bucket.put(key, _LONGER if bad.size == len(CONDEMNED) else CONDEMNED)
        return True

    def _delete(self, doomed: Iterable[str]) -> bool:
        self.bucket.delete(doomed)
        return True

    # Besides content and files

    def _strangers(self, prefix: str = "") -> Iterator[Flaw]:
        for entry in self._entries(prefix):
            if not _is_ours(entry):
                problem = f"Nothing of a store is called {entry.key!r}."
                yield Flaw("unknown", entry.key, problem, _LEFT_ALONE)

    def _interrupted(self) -> Iterator[Flaw]:
        """Uploads that no save can be acknowledged by any more, and the intents of such."""
        now = self.bucket.now()
        for entry in self._entries(keys.INTENTS):
            age = now - entry.modified
            if keys.parse_intent(entry.key) is not None and age > UPLOAD_LIMIT:
                yield _interrupted(entry.key, age, partial(self._delete, [entry.key]))
        known: set[str] = set()
        for upload in self.bucket.uploads():
            known.add(upload.id)
            age = now - upload.started
            if age > UPLOAD_LIMIT:
                yield _interrupted(upload.key, age, partial(self._abort, upload))
        for upload in self.bucket.client.uploads(""):
            if upload.id not in known and not upload.key.startswith(keys.BLOBS):
                problem = f"Nobody of a store uploads {upload.key!r}, which is not finished."
                yield Flaw("unknown", upload.key, problem, _LEFT_ALONE)

    def _abort(self, upload: Upload) -> bool:
        self.bucket.client.abort(upload.key, upload.id)
        return True


def _interrupted(place: str, age: timedelta, mend: Callable[[], bool]) -> Flaw:
    ago = show_duration(age // SECOND * SECOND)
    problem = f"An upload that began {ago} ago was never finished."
    if age <= ABANDONED:
        old = show_duration(ABANDONED)
        return Flaw("leftover", place, problem, f"It is left alone until it is {old} old.")
    return Flaw("leftover", place, problem, "It is removed, as the next sweep would do.", mend)


def _is_ours(entry: Entry) -> bool:
    return (
        entry.key in _OWN
        or keys.parse_blob(entry.key) is not None
        or keys.parse_version(entry) is not None
        or keys.parse_mark(entry) is not None
        or keys.parse_intent(entry.key) is not None
    )
