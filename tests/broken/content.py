"""Backends that keep, count or reclaim content wrongly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sessionstore.backend import Collected, Reference, Saved, SessionKey, Stored
from sessionstore.backends.memory import MemoryBackend, MemorySpool, Place
from sessionstore.clock import Clock
from sessionstore.content import Content
from tests.broken.table import caught_by, pause


@caught_by("stored_counts_content")
class CountsItself(MemoryBackend):
    def stored(self) -> Stored:
        stored = super().stored()
        return Stored(stored.blobs + 1, stored.bytes + 2)


@caught_by("equal_bytes_are_kept_once")
class KeepsACopyForEachFile(MemoryBackend):
    def stored(self) -> Stored:
        every = [file for record in self.sessions() for file in self.files(record.sid)]
        return Stored(len(every), sum(file.size for file in every))


@caught_by("equal_bytes_on_any_way_in_are_kept_once")
class KeepsSpooledContentApart(MemoryBackend):
    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        if content.spool is not None:
            content = replace(content, digest=content.digest[::-1])
        return super().put(key, name, content, **more)


@caught_by("equal_bytes_are_kept_once")
class LosesBytesSavedAgain(MemoryBackend):
    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        saved = super().put(key, name, content, **more)
        if saved.replaced is not None and saved.replaced.digest == content.digest:
            self._place.release(saved.reference)
        return saved


@caught_by("put_tells_whether_the_bytes_were_there")
class NeverTellsOfDuplicates(MemoryBackend):
    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        return super().put(key, name, content, **more)._replace(deduplicated=False)


@caught_by("writers_at_once_leave_no_copies")
class LeavesCopiesOfARace(MemoryBackend):
    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        is_new = content.digest not in self._place.blobs
        pause()
        if is_new and content.digest in self._place.blobs:
            self._place.keep(replace(content, digest=f"copy of {content.digest}"))
        return super().put(key, name, content, **more)


class Uncounted(Place):
    """Deletes content with the first of its references."""

    def release(self, reference: Reference) -> None:
        self.blobs.pop(reference.digest, None)


@caught_by("a_removal_stays_in_its_session")
class CountsByNameAndNotByContent(MemoryBackend):
    def __init__(self, place: Place, clock: Clock) -> None:
        super().__init__(place, clock)
        place.__class__ = Uncounted


class Hoarding(Place):
    """Never deletes content."""

    def release(self, reference: Reference) -> None:
        self.blobs[reference.digest].references -= 1


@caught_by("content_goes_with_its_last_file", "discarded_and_replaced_content_goes")
class NeverReclaims(MemoryBackend):
    def __init__(self, place: Place, clock: Clock) -> None:
        super().__init__(place, clock)
        place.__class__ = Hoarding


@caught_by("collecting_looks_at_the_place_and_not_at_memory")
class RemembersItsGarbage(MemoryBackend):
    """Remembers unreferenced content only in the process that deleted the file."""

    def __init__(self, place: Place, clock: Clock) -> None:
        super().__init__(place, clock)
        place.__class__ = Hoarding
        self._garbage: set[str] = set()

    def delete(self, sid: str, names: Any) -> list[Reference]:
        gone = super().delete(sid, names)
        self._garbage |= {reference.digest for reference in gone}
        return gone

    def collect(self, *, force: bool = False) -> Collected:
        with self._place.lock:
            dead = [digest for digest in self._garbage if not self._place.blobs[digest].references]
            for digest in dead:
                del self._place.blobs[digest]
            self._garbage.clear()
        return Collected(len(dead), 0, 0)


@caught_by("a_deleted_file_can_be_saved_again")
class TrustsItsMemoryOfContent(MemoryBackend):
    def __init__(self, place: Place, clock: Clock) -> None:
        super().__init__(place, clock)
        self._seen: set[str] = set()

    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        saved = super().put(key, name, content, **more)
        if content.digest in self._seen and not saved.deduplicated:
            self._place.blobs[content.digest].data = b""
        self._seen.add(content.digest)
        return saved


@caught_by("collecting_nothing_removes_nothing")
class BoastsOfCollecting(MemoryBackend):
    def collect(self, *, force: bool = False) -> Collected:
        return Collected(1, 1, 0)


@caught_by("content_in_use_is_not_collected")
class CollectsWhatOneFileNeeds(MemoryBackend):
    def collect(self, *, force: bool = False) -> Collected:
        with self._place.lock:
            for digest, blob in list(self._place.blobs.items()):
                if blob.references == 1:
                    del self._place.blobs[digest]
        return Collected(0, 0, 0)


@caught_by("content_on_its_way_in_is_not_collected")
class CollectsWhatIsBeingWritten(MemoryBackend):
    def collect(self, *, force: bool = False) -> Collected:
        for spool in list(self._place._spools):
            spool.close()
        return Collected(0, 0, 0)


@caught_by(
    "first_and_last_file_of_a_content_at_once", "acknowledged_files_survive_everything_at_once"
)
class LooksBeforeItRefers(MemoryBackend):
    """Refers to content that existed a moment ago, without a lock or a second check."""

    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        known = content.digest in self._place.blobs
        pause()
        with self._place.lock:
            saved = super().put(key, name, content, **more)
            if known and not saved.deduplicated:
                self._place.blobs[content.digest].data = b""
        return saved


class LeakingSpool(MemorySpool):
    """Stores the bytes of an abandoned save as content."""

    def close(self) -> None:
        if self.unkept:
            digest = f"left {id(self)}"
            self._place.keep(Content(digest, self.unkept, spool=self))
        super().close()


@caught_by(
    "error_of_a_source_changes_nothing",
    "save_stopped_by_a_limit_leaves_nothing",
    "content_that_is_not_put_leaves_nothing",
)
class LeavesWhatWasNotSaved(MemoryBackend):
    def spool(self) -> MemorySpool:
        return LeakingSpool(self._place)


class ReusedSpool(MemorySpool):
    """Keeps its bytes when it is closed, so that the next save gets them."""

    def close(self) -> None:
        self.unkept = 0


@caught_by("error_of_a_source_changes_nothing")
class UsesOneSpoolForAll(MemoryBackend):
    def __init__(self, place: Place, clock: Clock) -> None:
        super().__init__(place, clock)
        self._spool = ReusedSpool(place)

    def spool(self) -> MemorySpool:
        return self._spool


class EmptiedSpool(MemorySpool):
    """Deletes its bytes when it is closed, also those of a finished save."""

    def keep(self) -> bytes:
        self.kept = super().keep()
        return self.kept

    def close(self) -> None:
        for blob in self._place.blobs.values():
            if blob.data is getattr(self, "kept", None):
                blob.data = b""
        super().close()


@caught_by("one_content_can_be_put_and_closed_twice")
class LosesContentOnClose(MemoryBackend):
    def spool(self) -> MemorySpool:
        return EmptiedSpool(self._place)


@caught_by("saving_a_large_file_takes_little_memory")
class ReadsWholeFilesOnSaving(MemoryBackend):
    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        whole = b"".join([*content.chunks(), b"."])[:-1]  # a copy
        return super().put(
            key, name, Content(content.digest, len(whole), memoryview(whole)), **more
        )


@caught_by("files_that_are_gone_take_no_memory", "sessions_that_are_gone_take_no_memory")
class RemembersEveryFile(MemoryBackend):
    def __init__(self, place: Place, clock: Clock) -> None:
        super().__init__(place, clock)
        self._seen: list[Saved] = []

    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        saved = super().put(key, name, content, **more)
        self._seen.append(saved)
        return saved
