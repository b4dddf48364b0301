"""Backends with broken optional abilities."""

from __future__ import annotations

import hashlib
import io
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, BinaryIO, ClassVar

from sessionstore import names
from sessionstore.backend import (
    Dropped,
    Problem,
    Reference,
    Saved,
    SessionKey,
    SessionRecord,
    Stored,
    Survey,
)
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.clock import Clock
from sessionstore.content import Content
from sessionstore.errors import FileNotStored
from sessionstore.testing.subject import ALICE
from tests.broken.table import caught_by
from tests.support.signed import STAGED, SignedMemory


@caught_by("there_is_room_for_a_file")
class NeverHasRoom(MemoryBackend):
    def free(self) -> int:
        return 0


@caught_by("secret_has_32_bytes")
class HasNoRealSecret(MemoryBackend):
    def secret(self) -> bytes:
        return bytes(32)


@caught_by("secret_is_the_place_s")
class MakesASecretEachTime(MemoryBackend):
    def secret(self) -> bytes:
        return secrets.token_bytes(32)


@caught_by("secret_is_no_file")
class KeepsItsSecretAsAFile(MemoryBackend):
    def secret(self) -> bytes:
        secret = super().secret()
        self.put(names.shared_key(), "secret", Content("digest", 32, memoryview(secret)))
        return secret


@caught_by("what_files_refer_to_counts_once")
class CountsEachReference(MemoryBackend):
    def referred(self) -> Stored:
        sizes = [file.size for record in self.sessions() for file in self.files(record.sid)]
        return Stored(len(sizes), sum(sizes))


@caught_by("what_was_deleted_does_not_count")
class CountsWhatWasDeleted(MemoryBackend):
    _most = Stored(0, 0)

    def put(self, *args: Any, **keywords: Any) -> Saved:
        saved = super().put(*args, **keywords)
        self._most = max(self._most, self.stored(), key=lambda stored: stored.bytes)
        return saved

    def referred(self) -> Stored:
        return self._most


@caught_by("the_note_of_any_process_is_read")
class ForgetsItsNote(MemoryBackend):
    def lease(self) -> bytes | None:
        return None

    def write_lease(self, note: bytes) -> None:
        pass


@caught_by("forgetting_removes_exactly_these_versions")
class ForgetsTheFile(MemoryBackend):
    def forget(self, sid: str, references: Iterable[Reference]) -> None:
        self.delete(sid, [reference.name for reference in references])


@caught_by(
    "forgetting_removes_exactly_these_versions", "a_session_need_not_outlive_what_is_forgotten"
)
class ForgetsNothing(MemoryBackend):
    def forget(self, sid: str, references: Iterable[Reference]) -> None:
        pass


@caught_by("the_saves_of_any_process_are_listed", "a_mark_hides_nothing_for_long")
class ListsNothingLate(MemoryBackend):
    def since(self, sid: str, mark: object) -> tuple[object, list[Reference] | None]:
        return mark, []


@caught_by("the_saves_of_any_process_are_listed")
class ListsItsOwnSavesOnly(MemoryBackend):
    _saved: tuple[Reference, ...] = ()

    def put(self, *args: Any, **keywords: Any) -> Saved:
        saved = super().put(*args, **keywords)
        self._saved += (saved.reference,)
        return saved

    def since(self, sid: str, mark: object) -> tuple[object, list[Reference] | None]:
        return len(self._saved), [*self._saved[mark if isinstance(mark, int) else 0 :]]


@caught_by("the_saves_of_any_process_are_listed", "a_mark_hides_nothing_for_long")
class TakesAMarkOfADroppedSession(ListsItsOwnSavesOnly):
    def drop(self, *args: Any, **keywords: Any) -> Dropped | None:
        self._saved = ()
        return super().drop(*args, **keywords)


class Surveys(MemoryBackend):
    tokens: Mapping[str, Collection[str]] = {}

    def survey(self, *, watched: Iterable[str] = (), **_: object) -> Survey:
        self.tokens = {sid: [file.token for file in self.files(sid)] for sid in watched}
        return self


@caught_by("a_pass_shows_the_files_of_watched_sessions")
class SurveysNoFiles(Surveys):
    def survey(self, **_: object) -> Survey:
        return super().survey()


@caught_by("a_pass_shows_the_files_of_watched_sessions")
class SurveysTheFirstFile(Surveys):
    def survey(self, *, watched: Iterable[str] = (), **_: object) -> Survey:
        super().survey(watched=watched)
        self.tokens = {sid: list(tokens)[:1] for sid, tokens in self.tokens.items()}
        return self


@caught_by("a_pass_gives_the_sessions_and_keeps_their_files")
class SurveysAllButOne(Surveys):
    def sessions(self) -> Iterator[SessionRecord]:
        yield from list(super().sessions())[1:]


@caught_by("a_pass_collects")
class SurveysWhatWasDropped(Surveys):
    def drop(self, sid: str, **_: object) -> Dropped | None:
        return None


class SignsUrls(MemoryBackend):
    def url(self, sid: str, reference: Reference, **_: object) -> str:
        return f"https://example.org/{sid}/{reference.token}"


@caught_by("each_file_has_an_absolute_url_of_its_own")
class SignsPaths(SignsUrls):
    def url(self, sid: str, reference: Reference, **_: object) -> str:
        return f"/{sid}/{reference.token}"


@caught_by("each_file_has_an_absolute_url_of_its_own")
class SignsSessions(SignsUrls):
    def url(self, sid: str, reference: Reference, **_: object) -> str:
        return f"https://example.org/{sid}/{reference.size}"


@caught_by("a_url_is_not_for_ever")
class SignsForEver(SignsUrls):
    pass


@caught_by("parts_are_joined_in_their_order")
class JoinsInTheOrderOfArrival(SignedMemory):
    def join_parts(self, upload: str, sizes: Sequence[int]) -> BinaryIO:
        parts = STAGED[upload].parts
        STAGED[upload].parts = dict(enumerate(parts.values(), start=1))
        return super().join_parts(upload, sorted(sizes))


@caught_by("parts_are_no_file")
class SavesParts(SignedMemory):
    def join_parts(self, upload: str, sizes: Sequence[int]) -> BinaryIO:
        stream = super().join_parts(upload, sizes)
        data = stream.read()
        self.put(
            ALICE,
            "upload",
            Content(hashlib.sha256(data).hexdigest(), len(data), data=memoryview(data)),
        )
        return io.BytesIO(data)


@caught_by("other_sizes_are_not_joined")
class JoinsWhatIsThere(SignedMemory):
    def join_parts(self, upload: str, sizes: Sequence[int]) -> BinaryIO:
        del sizes
        return super().join_parts(upload, list(self.part_sizes(upload).values()))


@caught_by("discarded_parts_are_gone", "what_expired_is_collected")
class KeepsParts(SignedMemory):
    def discard_parts(self, upload: str) -> None:
        """Do nothing."""


@caught_by("what_expired_is_collected")
class CollectsPartsAtOnce(SignedMemory):
    def begin_parts(self, sid: str, expires: datetime) -> str:
        return super().begin_parts(sid, expires - timedelta(days=1))


@caught_by("a_closed_one_does_not_count")
class IsNeverAlone(MemoryBackend):
    def alone(self) -> bool:
        return False


@caught_by("a_closed_one_does_not_count")
class CountsClosedBackends(MemoryBackend):
    _opened: ClassVar[dict[int, int]] = {}

    def __init__(self, place: Place, clock: Clock) -> None:
        super().__init__(place, clock)
        self._opened[id(place)] = self._opened.get(id(place), 0) + 1

    def alone(self) -> bool:
        return self._opened[id(self._place)] == 1


@caught_by("damage_is_found", "wrong_bytes_are_not_handed_out_whole")
class TrustsItsMedium(MemoryBackend):
    """Never checks bytes. The memory backend does the same: its bytes cannot change elsewhere."""


@caught_by("a_file_keeps_the_time_it_was_saved_at")
class RestoresWithTheTimeOfToday(MemoryBackend):
    def restore(self, *args: Any, created: datetime, **keywords: Any) -> Saved:
        return self.put(*args, **keywords)


@caught_by("its_session_is_active_now_and_knows_its_age")
class BoundsAgesByActivity(MemoryBackend):
    def session(self, sid: str) -> SessionRecord | None:
        record = super().session(sid)
        return record and replace(record, oldest=record.active)


@caught_by("its_session_is_active_now_and_knows_its_age")
class RestoresActivityToo(MemoryBackend):
    def restore(self, key: SessionKey, *args: Any, created: datetime, **keywords: Any) -> Saved:
        saved = super().restore(key, *args, created=created, **keywords)
        self._place.sessions[key.sid].active = created
        return saved


@caught_by("it_replaces_and_is_replaced_as_any_file")
class RestoresOnlyWhatIsNotThere(MemoryBackend):
    def restore(self, key: SessionKey, name: str, content: Content, **keywords: Any) -> Saved:
        try:
            return Saved(self.get(key.sid, name), deduplicated=True, replaced=None)
        except FileNotStored:
            return super().restore(key, name, content, **keywords)


@caught_by("a_store_in_use_omits_nothing")
class OmitsAnEndedSession(MemoryBackend):
    def omitted(self, *, files: bool = True) -> Iterator[Problem]:
        for record in self.sessions():
            if record.ended:
                yield Problem("damaged", record.sid, "ended", "nothing", sid=record.sid)


class Inspects(MemoryBackend):
    """Inspects correctly."""

    def inspect(self) -> Iterator[Problem]:
        for record in list(self.sessions()):
            for file in list(self.files(record.sid)):
                data = self._place.blobs[file.digest].data
                if hashlib.sha256(data).hexdigest() != file.digest:
                    yield self._problem_of(record.sid, file)

    def _problem_of(self, sid: str, file: Reference) -> Problem:
        return Problem(
            "damaged", file.name, "wrong", "deleted", lambda: self._repair(sid, file), sid, file
        )

    def _repair(self, sid: str, file: Reference) -> bool:
        return bool(self.discard(sid, [file]))


@caught_by("a_store_in_use_has_no_problems")
class TakesGarbageForAFlaw(Inspects):
    def inspect(self) -> Iterator[Problem]:
        yield from super().inspect()
        if any(record.ended for record in self.sessions()):
            yield Problem("leftover", "", "ended", "nothing")


@caught_by("a_damaged_file_is_named_and_mending_it_lets_it_be_saved_again")
class LooksAtLengthsAlone(Inspects):
    def inspect(self) -> Iterator[Problem]:
        for problem in super().inspect():
            file = problem.reference
            if file and len(self._place.blobs[file.digest].data) != file.size:
                yield problem


@caught_by("mending_leaves_alone_what_was_replaced_meanwhile")
class MendsWhateverHasTheName(Inspects):
    def _repair(self, sid: str, file: Reference) -> bool:
        return bool(self.delete(sid, [file.name]))
