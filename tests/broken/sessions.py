"""Backends that confuse sessions or record their marks wrongly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any, BinaryIO

from sessionstore.backend import Reference, Saved, SessionKey, SessionRecord
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.clock import Clock
from sessionstore.content import Content
from tests.broken.table import caught_by


@caught_by("equal_names_are_two_files")
class SharesOneDirectory(MemoryBackend):
    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        return super().put(SessionKey("all", "all", None), name, content, **more)

    def get(self, sid: str, name: str) -> Reference:
        return super().get("all", name)

    def open(self, sid: str, reference: Reference, *bounds: Any) -> BinaryIO:
        return super().open("all", reference, *bounds)

    def files(self, sid: str) -> Iterator[Reference]:
        return super().files("all")


@caught_by("equal_names_are_two_files")
class IgnoresTheOwner(MemoryBackend):
    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        same = (
            session.key for session in self._place.sessions.values() if session.key.id == key.id
        )
        return super().put(next(same, key), name, content, **more)


@caught_by("marks_stay_in_their_session")
class MarksEverySession(MemoryBackend):
    def touch(self, sid: str) -> None:
        for record in self.sessions():
            super().touch(record.sid)


@caught_by("a_save_makes_the_session")
class HasAGhost(MemoryBackend):
    def sessions(self) -> Iterator[SessionRecord]:
        yield from super().sessions()
        yield SessionRecord("ghost", self.now(), None, self.now(), None)


@caught_by("a_save_makes_the_session")
class ListsOneSession(MemoryBackend):
    def sessions(self) -> Iterator[SessionRecord]:
        return iter(list(super().sessions())[:1])


@caught_by("missing_session_has_no_record")
class InventsSessions(MemoryBackend):
    def session(self, sid: str) -> SessionRecord | None:
        return super().session(sid) or SessionRecord(sid, self.now(), None, self.now(), None)


@caught_by("id_and_owner_read_back")
class ReadsTheIdFromTheStoredName(MemoryBackend):
    def identify(self, sid: str) -> SessionKey | None:
        known = super().identify(sid)
        return known and SessionKey(sid, sid.rpartition("-")[0], known.owner)


@caught_by("listing_tells_what_each_session_s_record_tells")
class ListsWithoutEnds(MemoryBackend):
    def sessions(self) -> Iterator[SessionRecord]:
        return (replace(record, ended=None) for record in super().sessions())


@caught_by("a_session_without_files_is_still_there")
class DropsEmptySessions(MemoryBackend):
    def delete(self, sid: str, names: Iterable[str]) -> list[Reference]:
        gone = super().delete(sid, names)
        if gone and not self._place.files(sid):
            self.drop(sid)
        return gone


@caught_by("a_save_is_activity")
class TakesDuplicatesForNoActivity(MemoryBackend):
    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        before = self.session(key.sid)
        saved = super().put(key, name, content, **more)
        if saved.deduplicated and before is not None:
            self._place.sessions[key.sid].active = before.active
        return saved


@caught_by("a_touch_and_a_resume_are_activity")
class TouchesNothing(MemoryBackend):
    def touch(self, sid: str) -> None:
        pass


@caught_by("reading_and_deleting_are_no_activity")
class TakesReadingForActivity(MemoryBackend):
    def get(self, sid: str, name: str) -> Reference:
        self.touch(sid)
        return super().get(sid, name)


@caught_by("a_new_session_has_no_end_and_no_expiry")
class EndsSessionsAtBirth(MemoryBackend):
    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Saved:
        saved = super().put(key, name, content, **more)
        self.end(key.sid)
        return saved


@caught_by("the_latest_end_is_noted_and_is_activity")
class ForgetsTheEnd(MemoryBackend):
    def end(self, sid: str) -> None:
        self.touch(sid)


@caught_by("the_latest_end_is_noted_and_is_activity")
class EndsOnce(MemoryBackend):
    def end(self, sid: str) -> None:
        record = self.session(sid)
        if record is not None and record.ended is None:
            super().end(sid)


@caught_by("saves_and_touches_do_not_take_an_end_back")
class ResumesOnTouch(MemoryBackend):
    def touch(self, sid: str) -> None:
        self.resume(sid)


@caught_by("resume_takes_an_end_back_and_is_activity", "a_touch_and_a_resume_are_activity")
class ResumesWithoutActivity(MemoryBackend):
    def resume(self, sid: str) -> bool:
        if sid in self._place.sessions:
            self._place.sessions[sid].ended = None
        return sid in self._place.sessions


@caught_by("end_and_resume_tell_if_the_session_exists")
class EndsWithoutARecord(MemoryBackend):
    def end(self, sid: str) -> None:
        super().end(sid)


@caught_by("end_and_resume_tell_if_the_session_exists")
class ResumesAnySession(MemoryBackend):
    def resume(self, sid: str) -> bool:
        super().resume(sid)
        return True


@caught_by("marks_make_no_session_and_leave_the_files_alone")
class DeletesFilesAtTheEnd(MemoryBackend):
    def end(self, sid: str) -> None:
        super().end(sid)
        self.delete(sid, [file.name for file in self.files(sid)])


@caught_by("marks_make_no_session_and_leave_the_files_alone")
class MakesSessionsByTouch(MemoryBackend):
    def touch(self, sid: str) -> None:
        if self.session(sid) is None:
            self.put(SessionKey(sid, sid, None), "a", Content("digest", 0, memoryview(b"")))
            self.delete(sid, ["a"])
        super().touch(sid)


@caught_by("marks_are_there_when_the_place_is_opened_again", "another_backend_sees_the_marks")
class KeepsEndsInMind(MemoryBackend):
    def __init__(self, place: Place, clock: Clock) -> None:
        super().__init__(place, clock)
        self._ended: dict[str, datetime] = {}

    def end(self, sid: str) -> None:
        self.touch(sid)
        self._ended[sid] = self.now()

    def session(self, sid: str) -> SessionRecord | None:
        record = super().session(sid)
        return record and replace(record, ended=self._ended.get(sid))


class Misjudging(MemoryBackend):
    """Returns bounds that do not hold."""

    def misjudged(self, record: SessionRecord) -> SessionRecord:
        raise AssertionError("Overridden by every subclass.")

    def session(self, sid: str) -> SessionRecord | None:
        record = super().session(sid)
        return record and self.misjudged(record)


@caught_by("oldest_and_expiring_are_bounds_of_every_file")
class TakesTheNewestForTheOldest(Misjudging):
    def misjudged(self, record: SessionRecord) -> SessionRecord:
        return replace(record, oldest=record.active)


@caught_by("oldest_and_expiring_are_bounds_of_every_file")
class TellsTheLastExpiry(Misjudging):
    def misjudged(self, record: SessionRecord) -> SessionRecord:
        every = [file.expires for file in self.files(record.sid) if file.expires]
        return replace(record, expiring=max(every, default=None))


@caught_by("a_new_session_has_no_end_and_no_expiry")
class IsAlwaysExpiring(Misjudging):
    def misjudged(self, record: SessionRecord) -> SessionRecord:
        return replace(record, expiring=record.expiring or record.active)
