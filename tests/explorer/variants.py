"""Broken variants of the protocol: the explorer must catch each one.

Each leaves out or reverses one step that docs/protocol-objects.md requires. The first nine are
known from research on such protocols, the next three from sending requests side by side, and the
last three from the sweep of large stores; the others were found while this protocol was built.
``NAMED`` has the main ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from operator import attrgetter

from sessionstore import names
from sessionstore.backend import Dropped, Reference, Saved, SessionKey, SessionRecord
from sessionstore.backends.objects import ObjectBackend, keys
from sessionstore.backends.objects.cache import RECENT, Generation
from sessionstore.backends.objects.client import Entry
from sessionstore.backends.objects.collector import Collector, Found
from sessionstore.backends.objects.keys import Version
from sessionstore.backends.objects.reader import Reader, to_reference
from sessionstore.backends.objects.sessions import Sessions
from sessionstore.backends.objects.spill import Spill
from sessionstore.backends.objects.writer import Save, Writer
from sessionstore.content import Content
from sessionstore.errors import BackendUnavailable
from sessionstore.schedule import Lease


class NoDeadline(Writer):
    """Acknowledges a save also if its content was too old when the reference was written."""

    def _is_in_time(self, version: Version, generation: Generation) -> bool:
        return True


class SkewedSweeper(Collector):
    """Sweeps by its own clock, ahead by half of the grace."""

    def _is_old(self, entry: Entry, date: datetime) -> bool:
        return super()._is_old(entry, date + self._terms.grace / 2)


class ReferencesFirst(Collector):
    """Lists references before content in a sweep."""

    def listed(self, spill: Spill, found: Found, *, sliced: bool) -> Iterator[SessionRecord]:
        self.intents(spill, found)
        yield from self.references(spill, found, sliced=sliced)
        self.content(spill, found, sliced=sliced)


class StaleSpill(Collector):
    """Uses the references that the first sweep of the process has spilled in later ones too."""

    _noted: _Noting | None = None

    def listed(self, spill: Spill, found: Found, *, sliced: bool) -> Iterator[SessionRecord]:
        self.content(spill, found, sliced=sliced)
        if self._noted is None:
            noted = _Noting()
            self.intents(noted, found)
            yield from self.references(noted, found, sliced=sliced)
            self._noted = noted
        for digest, generation in self._noted.noted:
            spill.refer(digest, generation, old=False)


class _Noting(Spill):
    """Remembers the references."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[tuple[str, str]] = []

    def refer(self, digest: str, generation: str, *, old: bool) -> None:
        self.noted.append((digest, generation))


class CutShort(Collector):
    """Plans and collects from a listing that ended with an error."""

    def _pages(
        self, prefix: str, slices: str, found: Found
    ) -> Iterator[tuple[str, Sequence[Entry], datetime]]:
        with suppress(BackendUnavailable):
            yield from super()._pages(prefix, slices, found)


class LeaseBelieved(Writer):
    """Acknowledges a save at any time while no process has the lease: none sweeps, it believes."""

    def _is_in_time(self, version: Version, generation: Generation) -> bool:
        lease = Lease.parse(self._bucket.read(keys.SWEEPER))
        if lease is None or lease.until < self._bucket.now():
            return True
        return super()._is_in_time(version, generation)


class CopiedReference(Writer):
    """Adds a reference to a content of another session, without a check of its age."""

    def _known(self, content: Content) -> Generation | None:
        for entry in self._bucket.entries(keys.SESSIONS):
            version = keys.parse_version(entry)
            if version is not None and version.digest == content.digest:
                return Generation(version.generation, self._bucket.clock.now(), uploaded=False)
        return super()._known(content)


class FixedKeys(Writer):
    """Uses the same key for every copy of a content."""

    def _upload(self, save: Save) -> Generation:
        nonce, self._nonce = self._nonce, _zeros
        try:
            return super()._upload(save)
        finally:
            self._nonce = nonce


class NoFallback(Reader):
    """Serves the newest version also if its bytes are missing."""

    def newest(self, versions: list[Version]) -> Version | None:
        return max(versions, key=attrgetter("token"), default=None)


class PutCancelsEnd(Writer):
    """Takes an end back with a save."""

    def _acknowledged(
        self, save: Save, version: Version, generation: Generation, at: float
    ) -> Saved:
        saved = super()._acknowledged(save, version, generation, at)
        ends = self._bucket.entries(keys.ended(save.key.sid))
        self._bucket.delete([entry.key for entry in ends])
        return saved


class FromMemory(Writer):
    """Acknowledges the same save again within two seconds without a request.

    The exception: this process itself removed or replaced the file in between.
    """

    def put(
        self,
        key: SessionKey,
        name: str,
        content: Content,
        *,
        expires: datetime | None = None,
        fresh: bool = False,
        created: datetime | None = None,
    ) -> Saved:
        sight = self._cache.sight(key.sid, names.encode(name))
        if sight is not None and self._bucket.clock.elapsed() - sight.at < RECENT:
            reference = sight.reference
            if (reference.digest, reference.expires) == (content.digest, expires):
                return Saved(reference, deduplicated=True, replaced=reference)
        return super().put(key, name, content, expires=expires, fresh=fresh, created=created)


class DropTakesIntents(Sessions):
    """Deletes the session's intents too in a drop."""

    def drop(
        self, sid: str, *, unless_active_after: datetime | None = None, only_ended: bool = False
    ) -> Dropped | None:
        dropped = super().drop(sid, unless_active_after=unless_active_after, only_ended=only_ended)
        intents = self._bucket.entries(f"{keys.INTENTS}{sid}/")
        self._bucket.delete([entry.key for entry in intents])
        return dropped


class ReferenceBeside(Writer):
    """Sends a reference beside its content."""

    def _upload(self, save: Save) -> Generation:
        save.own = self._nonce(16)
        return Generation(save.own, self._bucket.clock.now(), uploaded=True)

    def _put(self, save: Save, generation: Generation) -> None:
        blob = keys.blob(save.content.digest, generation.id)
        self._bucket.put(blob, self._payload(save.content))

    def _refer(self, save: Save, generation: Generation) -> Version:
        refer = partial(super()._refer, save, generation)
        if not generation.uploaded:
            return refer()
        put = partial(self._put, save, generation)
        version: Version = self._bucket.waits.together([refer, put])[0]
        return version


class EarlyAcknowledgement(ReferenceBeside):
    """Acknowledges a save when its reference is stored; its content may still be on its way."""

    def _refer(self, save: Save, generation: Generation) -> Version:
        def put() -> None:
            with suppress(BackendUnavailable):
                self._put(save, generation)

        if generation.uploaded:
            self._bucket.waits.later(put)
        return Writer._refer(self, save, generation)


class DeleteByName(Writer):
    """Deletes later the other versions that the name then has, not those that were replaced."""

    def _acknowledged(
        self, save: Save, version: Version, generation: Generation, at: float
    ) -> Saved:
        def delete() -> None:
            with suppress(BackendUnavailable):
                versions = self._reader.versions(save.key.sid, save.file)
                self._bucket.delete([one.key for one in versions if one.key != version.key])

        if save.older:
            self._bucket.waits.later(delete)
        return super()._acknowledged(save, version, generation, at)


class SharedReferences(Writer):
    """Writes one reference for concurrent saves of equal bytes; each of them may take it back."""

    def _refer(self, save: Save, generation: Generation) -> Version:
        nonce, self._nonce = self._nonce, _zeros
        try:
            return super()._refer(save, generation)
        finally:
            self._nonce = nonce


class IntentsLast(Collector):
    """Lists references before intents in a sweep."""

    def listed(self, spill: Spill, found: Found, *, sliced: bool) -> Iterator[SessionRecord]:
        self.content(spill, found, sliced=sliced)
        yield from self.references(spill, found, sliced=sliced)
        self.intents(spill, found)


class NoTakingBack(Writer):
    """Acknowledges a save with a late reference if its content still exists."""

    def _is_firm(self, version: Version) -> bool:
        return self._bucket.find(version.blob) is not None


class TakesBackFirm(Writer):
    """Takes a late reference back by the writer's clock, without reading the store's record."""

    def _is_firm(self, version: Version) -> bool:
        return False


class ServesUnsure(Reader):
    """Serves the newest version with bytes, also while its save may take it back."""

    def newest(self, versions: list[Version]) -> Version | None:
        for version in sorted(versions, key=attrgetter("token"), reverse=True):
            if len(versions) == 1 or self._bucket.find(version.blob) is not None:
                return version
        return None


class TidiesTooMuch(Collector):
    """Deletes versions in a sweep as replaced, also if the newer version may be taken back."""

    def _replaced(self, sid: str, file: str) -> Iterator[str]:
        entries = sorted(self._bucket.entries(keys.files(sid, file)))
        yield from (entry.key for entry in entries[:-1])


class DiscardLeavesOlder(Sessions):
    """Leaves the other versions of a name in a discard, so that one of them becomes the file."""

    def discard(self, sid: str, references: Iterable[Reference]) -> list[Reference]:
        discarded = []
        for reference in references:
            for entry in list(self._bucket.entries(keys.files(sid))):
                version = keys.parse_version(entry)
                if version is not None and version.token == reference.token:
                    self._note(sid, [version])
                    self._bucket.delete([entry.key])
                    discarded.append(to_reference(version, reference.name))
        self._cache.changed(sid)
        return discarded


class DeleteForgetsActivity(Sessions):
    """Deletes the record of a file's save time, and so of its session's activity, with the file."""

    def _note(self, sid: str, doomed: list[Version]) -> list[str]:
        return []


class OneSeen(Sessions):
    """Writes one fixed key for every touch; a slow sweep may delete it after a new touch."""

    def touch(self, sid: str) -> None:
        self._bucket.sync()
        self._bucket.put(keys.seen(sid, 0), b"")


class OneEnd(Sessions):
    """Writes one fixed key for every end; a late resume may delete it after a new end."""

    def end(self, sid: str) -> SessionRecord | None:
        nonce, self._nonce = self._nonce, _zeros
        try:
            return super().end(sid)
        finally:
            self._nonce = nonce


class DropsTheResumed(Sessions):
    """Drops an ended session also if it was resumed within the second of its activity."""

    def drop(
        self, sid: str, *, unless_active_after: datetime | None = None, only_ended: bool = False
    ) -> Dropped | None:
        return super().drop(sid, unless_active_after=unless_active_after)


class DropLeavesEnd(Sessions):
    """Leaves the ends in a drop, so that a new session of the same id has ended at its start."""

    def drop(
        self, sid: str, *, unless_active_after: datetime | None = None, only_ended: bool = False
    ) -> Dropped | None:
        ends = [entry.key for entry in self._bucket.entries(keys.ended(sid))]
        dropped = super().drop(sid, unless_active_after=unless_active_after, only_ended=only_ended)
        for key in ends if dropped is not None else ():
            self._bucket.put(key, b"")
        return dropped


class EndsWhatIsNotThere(Sessions):
    """Writes an end without a check that the session exists."""

    def end(self, sid: str) -> SessionRecord | None:
        self._bucket.put(keys.ended(sid, self._nonce(8)), b"")
        return self.record(sid)


def _zeros(size: int) -> str:
    return "0" * (2 * size)


def _backend(
    *,
    writer: type[Writer] = Writer,
    reader: type[Reader] = Reader,
    sessions: type[Sessions] = Sessions,
    sweeper: type[Collector] = Collector,
) -> type[ObjectBackend]:
    """Return a backend class with one part replaced."""
    parts = {
        "writer_type": writer,
        "reader_type": reader,
        "sessions_type": sessions,
        "sweeper_type": sweeper,
    }
    return type("BrokenBackend", (ObjectBackend,), parts)


NAMED: dict[str, type[ObjectBackend]] = {
    "no-deadline": _backend(writer=NoDeadline),
    "skewed-sweeper": _backend(sweeper=SkewedSweeper),
    "references-first": _backend(sweeper=ReferencesFirst),
    "copied-reference": _backend(writer=CopiedReference),
    "fixed-keys": _backend(writer=FixedKeys),
    "no-fallback": _backend(reader=NoFallback),
    "put-cancels-end": _backend(writer=PutCancelsEnd),
    "from-memory": _backend(writer=FromMemory),
    "drop-takes-intents": _backend(sessions=DropTakesIntents),
    "believed-reference": _backend(writer=ReferenceBeside, reader=NoFallback),
    "early-acknowledgement": _backend(writer=EarlyAcknowledgement),
    "delete-by-name": _backend(writer=DeleteByName),
    "shared-references": _backend(writer=SharedReferences),
    "drops-the-resumed": _backend(sessions=DropsTheResumed),
    "stale-spill": _backend(sweeper=StaleSpill),
    "cut-short": _backend(sweeper=CutShort),
    "lease-believed": _backend(writer=LeaseBelieved),
}
"""The main variants; the explorer must catch them after every change to the protocol."""

VARIANTS: dict[str, type[ObjectBackend]] = {
    **NAMED,
    "intents-last": _backend(sweeper=IntentsLast),
    "no-taking-back": _backend(writer=NoTakingBack),
    "takes-back-firm": _backend(writer=TakesBackFirm),
    "serves-unsure": _backend(reader=ServesUnsure),
    "tidies-too-much": _backend(sweeper=TidiesTooMuch),
    "discard-leaves-older": _backend(sessions=DiscardLeavesOlder),
    "delete-forgets-activity": _backend(sessions=DeleteForgetsActivity),
    "one-seen": _backend(sessions=OneSeen),
    "one-end": _backend(sessions=OneEnd),
    "drop-leaves-end": _backend(sessions=DropLeavesEnd),
    "ends-what-is-not-there": _backend(sessions=EndsWhatIsNotThere),
}
"""All variants, by the name for the option ``--variant``."""
