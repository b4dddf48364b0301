"""Backends that save, replace or describe files wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from sessionstore.backend import Reference, Saved, SessionKey
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.clock import EPOCH, Clock
from sessionstore.content import CHUNK, Content
from sessionstore.errors import FileNotStored
from tests.broken.table import caught_by, pause


class Rewriting(MemoryBackend):
    """Stores the result of ``rewritten`` for each new reference."""

    def rewritten(self, reference: Reference, replaced: Reference | None) -> Reference:
        raise AssertionError("Overridden by every subclass.")

    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        with self._place.lock:
            saved = super().put(key, name, content, **more)
            reference = self.rewritten(saved.reference, saved.replaced)
            self._place.sessions[key.sid].files[name] = reference
        return saved._replace(reference=reference)


@caught_by("the_same_save_again_is_kept_after_another_backend_removed_it")
class AnswersTheSameSaveFromMemory(MemoryBackend):
    """Acknowledges a repeated save without a check that the file still exists."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._saved: dict[tuple[str, str, str], Saved] = {}

    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        this = (key.sid, name, content.digest)
        if this not in self._saved:
            self._saved[this] = super().put(key, name, content, **more)
        return self._saved[this]


@caught_by("reference_describes_the_file")
class CountsOneByteMore(Rewriting):
    def rewritten(self, reference: Reference, replaced: Reference | None) -> Reference:
        return reference._replace(size=reference.size + 1)


@caught_by("reference_describes_the_file")
class SavedInThe70s(Rewriting):
    def rewritten(self, reference: Reference, replaced: Reference | None) -> Reference:
        return reference._replace(created=EPOCH)


@caught_by("time_to_live_is_kept_and_removes_nothing")
class LosesTimeToLive(Rewriting):
    def rewritten(self, reference: Reference, replaced: Reference | None) -> Reference:
        return reference._replace(expires=None)


@caught_by("time_to_live_is_the_newest_save_s")
class KeepsTheOldTimeToLive(Rewriting):
    def rewritten(self, reference: Reference, replaced: Reference | None) -> Reference:
        return reference if replaced is None else reference._replace(expires=replaced.expires)


@caught_by("equal_bytes_are_a_new_save_too")
class TakesEqualBytesForTheSameSave(Rewriting):
    def rewritten(self, reference: Reference, replaced: Reference | None) -> Reference:
        same = replaced is not None and replaced.digest == reference.digest
        return replaced if same and replaced is not None else reference


@caught_by("what_was_saved_reads_back", "large_replaces_small_and_the_other_way", "range_in_steps")
class KeepsTheFirstMegabyte(MemoryBackend):
    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        saved = super().put(key, name, content, **more)
        blob = self._place.blobs[content.digest]
        blob.data = blob.data[:CHUNK]
        return saved


@caught_by("content_does_not_follow_its_source")
class KeepsTheCallersBuffer(MemoryBackend):
    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        saved = super().put(key, name, content, **more)
        if content.data is not None:
            self._place.blobs[content.digest].data = content.data  # type: ignore[assignment]  # the fault
        return saved


@caught_by("lists_very_many_files")
class LosesFreshFiles(MemoryBackend):
    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        saved = super().put(key, name, content, **more)
        if more.get("fresh"):
            self.delete(key.sid, [name])
        return saved


@caught_by("odd_names_read_back_and_never_meet")
class FoldsCase(MemoryBackend):
    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        return super().put(key, name.lower(), content, **more)

    def get(self, sid: str, name: str) -> Reference:
        return super().get(sid, name.lower())


@caught_by("get_and_listing_answer_as_put_did")
class ForgetsOnClose(MemoryBackend):
    def close(self) -> None:
        self._place.sessions.clear()


@caught_by("another_backend_on_the_place_sees_the_files")
class HasAPlaceOfItsOwn(MemoryBackend):
    def __init__(self, place: Place, clock: Clock) -> None:
        super().__init__(Place(), clock)


@caught_by("another_backend_on_the_place_sees_the_files")
class ChangesItsDigest(MemoryBackend):
    def __init__(self, place: Place, clock: Clock) -> None:
        super().__init__(place, clock)
        place.digest = "blake3"


@caught_by("the_newest_save_is_the_file")
class LosesTheSecondSave(MemoryBackend):
    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        with self._place.lock:
            reference = self._place.files(key.sid).get(name)
        if reference is not None:
            return Saved(reference, deduplicated=False, replaced=reference)
        return super().put(key, name, content, **more)


@caught_by("the_newest_save_is_the_file")
class SavesEachContentOfANameOnce(MemoryBackend):
    def __init__(self, place: Place, clock: Clock) -> None:
        super().__init__(place, clock)
        self._seen: dict[tuple[str, str, str], Saved] = {}

    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        version = (key.sid, name, content.digest)
        if version not in self._seen:
            self._seen[version] = super().put(key, name, content, **more)
        return self._seen[version]


@caught_by("put_tells_what_it_replaced")
class AlwaysReplacedSomething(MemoryBackend):
    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        saved = super().put(key, name, content, **more)
        return saved._replace(replaced=saved.replaced or saved.reference)


@caught_by("put_tells_what_it_replaced")
class NeverReplacedAnything(MemoryBackend):
    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        return super().put(key, name, content, **more)._replace(replaced=None)


@caught_by("a_deleted_file_can_be_saved_again")
class RemembersDeletedFiles(MemoryBackend):
    def __init__(self, place: Place, clock: Clock) -> None:
        super().__init__(place, clock)
        self._last: dict[tuple[str, str], Reference] = {}

    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        before = self._last.get((key.sid, name))
        saved = super().put(key, name, content, **more)
        self._last[key.sid, name] = saved.reference
        return saved._replace(replaced=before)


@caught_by("other_files_stay")
class ReplacesAllNamesThatBeginSo(MemoryBackend):
    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        others = [file.name for file in self.files(key.sid) if file.name.startswith(name)]
        self.delete(key.sid, others)
        return super().put(key, name, content, **more)


@caught_by("readers_see_old_or_new_while_a_file_is_replaced")
class ReplacesInTwoSteps(MemoryBackend):
    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        self.delete(key.sid, [name])
        pause()
        return super().put(key, name, content, **more)


@caught_by("of_writers_at_once_one_wins_whole")
class MixesWriters(MemoryBackend):
    """Stores bytes by name, and their description in a second step."""

    _bytes: dict[str, Any] = {}  # noqa: RUF012 - shared by all backends of the one test

    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        self._bytes[name] = b"".join(content.chunks())
        pause()
        return super().put(key, name, content, **more)

    def open(self, sid: str, reference: Reference, *bounds: Any) -> Any:
        self._place.blobs[reference.digest].data = self._bytes[reference.name]
        return super().open(sid, reference, *bounds)


@caught_by("get_and_listing_answer_as_put_did")
class GivesANewTokenEachTime(MemoryBackend):
    def get(self, sid: str, name: str) -> Reference:
        return super().get(sid, name)._replace(token=str(next(self._place.versions)))


@caught_by("get_and_listing_answer_as_put_did")
class ListsWithoutTimes(MemoryBackend):
    def files(self, sid: str) -> Iterator[Reference]:
        return (file._replace(created=self.now(), expires=None) for file in super().files(sid))


@caught_by("time_to_live_is_kept_and_removes_nothing")
class ExpiresByItself(MemoryBackend):
    def files(self, sid: str) -> Iterator[Reference]:
        late = self.now() - timedelta(seconds=1)
        return (file for file in super().files(sid) if file.expires is None or file.expires > late)


@caught_by("missing_file_is_not_stored")
class GivesAnyFile(MemoryBackend):
    def get(self, sid: str, name: str) -> Reference:
        try:
            return super().get(sid, name)
        except FileNotStored:
            for reference in self.files(sid):
                return reference
            raise


@caught_by("names_that_begin_alike_confuse_no_listing")
class PassesByWhatBeginsAlike(MemoryBackend):
    def files(self, sid: str) -> Iterator[Reference]:
        files = {file.name: file for file in super().files(sid)}
        return (file for name, file in files.items() if not any(f"{on}-" in name for on in files))


@caught_by("lists_very_many_files")
class ListsOnePage(MemoryBackend):
    def files(self, sid: str) -> Iterator[Reference]:
        return iter(list(super().files(sid))[:1000])
