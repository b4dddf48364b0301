"""Sessions of a backend: listing, identity, activity, ends, and the bounds of their files."""

from __future__ import annotations

from datetime import timedelta

from sessionstore import names
from sessionstore.testing.contract.base import Rig
from sessionstore.testing.subject import ALICE, BOB, NOBODY, Subject


class SessionsHaveActivity(Rig):
    """Tests of listing, identity, activity, ends, and the bounds that a sweep uses."""

    def test_a_new_place_has_no_sessions(self, subject: Subject) -> None:
        assert subject.sids() == []

    def test_a_save_makes_the_session(self, subject: Subject) -> None:
        subject.put("a", b"1", ALICE)
        subject.put("b", b"2", BOB)
        assert subject.sids() == sorted([ALICE.sid, BOB.sid])

    def test_missing_session_has_no_record(self, subject: Subject) -> None:
        subject.put("a", b"1")
        assert subject.backend.session(NOBODY) is None
        assert subject.backend.identify(NOBODY) is None

    def test_id_and_owner_read_back(self, subject: Subject) -> None:
        keys = [
            ALICE,
            BOB,
            names.session_key("../\x00\U0001f600 ", owner="\u202e\n"),
            names.session_key("x" * 1000, owner="y" * 1000),
            names.shared_key(),
        ]
        for key in keys:
            subject.put("a", b"1", key)
        assert [subject.backend.identify(key.sid) for key in keys] == keys

    def test_listing_tells_what_each_session_s_record_tells(self, subject: Subject) -> None:
        subject.put("a", b"1", ALICE, ttl=60)
        subject.put("b", b"2", BOB)
        subject.backend.end(BOB.sid)
        listed = {record.sid: record for record in subject.backend.sessions()}
        assert listed == {ALICE.sid: subject.record(ALICE), BOB.sid: subject.record(BOB)}

    def test_a_session_without_files_is_still_there(self, subject: Subject) -> None:
        subject.put("a", b"1")
        subject.backend.delete(ALICE.sid, ["a"])
        assert subject.sids() == [ALICE.sid]
        assert subject.backend.identify(ALICE.sid) == ALICE

    def test_a_save_is_activity(self, subject: Subject) -> None:
        subject.put("a", b"1")
        for content in (b"2", b"2"):  # new bytes, and bytes that are stored already
            subject.advance(100)
            subject.put("a", content)
            self.assert_same_time(subject.record().active, subject.backend.now())

    def test_a_touch_is_activity(self, subject: Subject) -> None:
        subject.put("a", b"1")
        subject.advance(100)
        subject.backend.touch(ALICE.sid)
        self.assert_same_time(subject.record().active, subject.backend.now())

    def test_reading_and_deleting_are_no_activity(self, subject: Subject) -> None:
        subject.put("a", b"1")
        saved = subject.backend.now()
        subject.advance(100)
        subject.read("a")
        subject.backend.delete(ALICE.sid, ["a"])
        self.assert_same_time(subject.record().active, saved)

    def test_a_new_session_has_not_ended(self, subject: Subject) -> None:
        subject.put("a", b"1")
        assert subject.record().ended is None

    def test_an_end_is_noted_and_is_activity(self, subject: Subject) -> None:
        subject.put("a", b"1")
        subject.advance(100)
        subject.backend.end(ALICE.sid)
        self.assert_same_time(subject.record().ended, subject.backend.now())
        self.assert_same_time(subject.record().active, subject.backend.now())

    def test_the_latest_end_counts(self, subject: Subject) -> None:
        subject.put("a", b"1")
        subject.backend.end(ALICE.sid)
        subject.advance(100)
        subject.backend.end(ALICE.sid)
        self.assert_same_time(subject.record().ended, subject.backend.now())

    def test_saves_and_touches_do_not_take_an_end_back(self, subject: Subject) -> None:
        subject.put("a", b"1")
        subject.backend.end(ALICE.sid)
        ended = subject.backend.now()
        subject.advance(100)
        subject.put("b", b"2")
        self.assert_same_time(subject.record().ended, ended)
        self.assert_same_time(subject.record().active, subject.backend.now())
        subject.advance(100)
        subject.backend.touch(ALICE.sid)
        self.assert_same_time(subject.record().ended, ended)
        self.assert_same_time(subject.record().active, subject.backend.now())

    def test_resume_takes_an_end_back_and_is_activity(self, subject: Subject) -> None:
        subject.put("a", b"1")
        subject.backend.end(ALICE.sid)
        subject.advance(100)
        subject.backend.resume(ALICE.sid)
        assert subject.record().ended is None
        self.assert_same_time(subject.record().active, subject.backend.now())

    def test_resume_of_a_session_that_has_not_ended_is_activity(self, subject: Subject) -> None:
        subject.put("a", b"1")
        subject.advance(100)
        subject.backend.resume(ALICE.sid)
        assert subject.record().ended is None
        self.assert_same_time(subject.record().active, subject.backend.now())

    def test_marks_leave_the_files_alone(self, subject: Subject) -> None:
        subject.put("a", b"1")
        for mark in (subject.backend.touch, subject.backend.end, subject.backend.resume):
            mark(ALICE.sid)
            assert subject.contents() == {"a": b"1"}

    def test_marks_do_not_make_a_session(self, subject: Subject) -> None:
        for mark in (subject.backend.touch, subject.backend.end, subject.backend.resume):
            mark(NOBODY)
            assert subject.sids() == []

    def test_marks_are_there_when_the_place_is_opened_again(self, subject: Subject) -> None:
        subject.put("a", b"1", ttl=60)
        subject.advance(100)
        subject.backend.end(ALICE.sid)
        before = subject.record()
        subject.reopen()
        assert subject.record() == before
        assert subject.backend.identify(ALICE.sid) == ALICE

    def test_another_backend_sees_the_marks(self, subject: Subject) -> None:
        other = subject.another()
        subject.put("a", b"1")
        other.backend.end(ALICE.sid)
        subject.clock.advance(self.rechecks_after)
        assert subject.record().ended is not None
        other.backend.resume(ALICE.sid)
        subject.clock.advance(self.rechecks_after)
        assert subject.record().ended is None

    def test_no_file_was_created_before_oldest(self, subject: Subject) -> None:
        subject.put("a", b"1")
        first = subject.backend.now()
        subject.advance(100)
        subject.put("b", b"2")
        assert subject.record().oldest <= first + self.resolution
        subject.backend.delete(ALICE.sid, ["b"])
        assert subject.record().oldest <= first + self.resolution

    def test_no_file_expires_before_expiring(self, subject: Subject) -> None:
        soonest = subject.backend.now() + timedelta(seconds=60)
        for name, ttl in (("a", 600), ("b", 60), ("c", 6000), ("d", None)):
            subject.put(name, name.encode(), ttl=ttl)
        expiring = subject.record().expiring
        assert expiring is not None
        assert expiring <= soonest + self.resolution

    def test_files_without_time_to_live_are_not_expiring(self, subject: Subject) -> None:
        subject.put("a", b"1")
        assert subject.record().expiring is None
