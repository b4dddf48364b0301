"""Sessions: identity, activity and ends, and I4: a call reaches only the session it names."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from sessionstore import names
from sessionstore.errors import FileNotStored
from sessionstore.model import SessionKey
from sessionstore.testing.contract.base import Rig
from sessionstore.testing.subject import ALICE, BOB, NOBODY, Subject, some_bytes


class SessionsHaveActivity(Rig):
    """Tests of listing, identity, activity, ends, and the bounds that a sweep uses."""

    def test_a_save_makes_the_session(self, subject: Subject) -> None:
        assert subject.sids() == []
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

    @pytest.mark.parametrize("verb", ["touch", "resume"])
    def test_a_touch_and_a_resume_are_activity(self, subject: Subject, verb: str) -> None:
        subject.put("a", b"1")
        subject.advance(100)
        getattr(subject.backend, verb)(ALICE.sid)
        assert subject.record().ended is None
        self.assert_same_time(subject.record().active, subject.backend.now())

    def test_reading_and_deleting_are_no_activity(self, subject: Subject) -> None:
        subject.put("a", b"1")
        saved = subject.backend.now()
        subject.advance(100)
        subject.read("a")
        subject.backend.delete(ALICE.sid, ["a"])
        self.assert_same_time(subject.record().active, saved)

    def test_a_new_session_has_no_end_and_no_expiry(self, subject: Subject) -> None:
        subject.put("a", b"1")
        assert (subject.record().ended, subject.record().expiring) == (None, None)

    def test_the_latest_end_is_noted_and_is_activity(self, subject: Subject) -> None:
        subject.put("a", b"1")
        for _ in range(2):
            subject.advance(100)
            subject.backend.end(ALICE.sid)
            self.assert_same_time(subject.record().ended, subject.backend.now())
            self.assert_same_time(subject.record().active, subject.backend.now())

    def test_saves_and_touches_do_not_take_an_end_back(self, subject: Subject) -> None:
        subject.put("a", b"1")
        subject.backend.end(ALICE.sid)
        ended = subject.backend.now()
        for act in (lambda: subject.put("b", b"2"), lambda: subject.backend.touch(ALICE.sid)):
            subject.advance(100)
            act()
            self.assert_same_time(subject.record().ended, ended)
            self.assert_same_time(subject.record().active, subject.backend.now())

    def test_resume_takes_an_end_back_and_is_activity(self, subject: Subject) -> None:
        subject.put("a", b"1")
        subject.backend.end(ALICE.sid)
        subject.advance(100)
        subject.backend.resume(ALICE.sid)
        assert subject.record().ended is None
        self.assert_same_time(subject.record().active, subject.backend.now())

    def test_end_and_resume_tell_if_the_session_exists(self, subject: Subject) -> None:
        assert subject.backend.end(NOBODY) is None
        assert subject.backend.resume(NOBODY) is False
        subject.put("a", b"1")
        assert subject.backend.end(ALICE.sid) == subject.record()
        assert subject.backend.resume(ALICE.sid) is True

    def test_marks_make_no_session_and_leave_the_files_alone(self, subject: Subject) -> None:
        subject.put("a", b"1")
        for mark in (subject.backend.touch, subject.backend.end, subject.backend.resume):
            mark(NOBODY)
            mark(ALICE.sid)
            assert subject.sids() == [ALICE.sid]
            assert subject.contents() == {"a": b"1"}

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

    def test_oldest_and_expiring_are_bounds_of_every_file(self, subject: Subject) -> None:
        first = subject.backend.now()
        for name, ttl in (("a", 600), ("b", 60), ("c", 6000), ("d", None)):
            subject.put(name, name.encode(), ttl=ttl)
        subject.advance(10)
        subject.put("e", b"e")
        for gone in ((), ("a", "e")):
            subject.backend.delete(ALICE.sid, gone)
            record = subject.record()
            assert record.oldest <= first + self.resolution
            assert record.expiring is not None
            assert record.expiring <= first + timedelta(seconds=60) + self.resolution


class KeepsApart(Rig):
    """Tests with two sessions: equal names, equal bytes, and references of the other session."""

    @pytest.mark.parametrize(
        "keys", [(ALICE, BOB), [names.session_key("same", owner=owner) for owner in ("me", "you")]]
    )
    def test_equal_names_are_two_files(self, subject: Subject, keys: Sequence[SessionKey]) -> None:
        for key in keys:
            subject.put("a", key.sid.encode(), key)
        assert [subject.contents(key) for key in keys] == [{"a": key.sid.encode()} for key in keys]

    def test_names_that_look_like_the_other_s_place_do_not_lead_there(
        self, subject: Subject
    ) -> None:
        subject.put("secret", b"bob's", BOB)
        guesses = [f"{BOB.sid}/secret", f"{BOB.sid}/files/secret", f"x/{BOB.sid}/secret"]
        for name in guesses:
            assert not subject.has(name, ALICE)
            subject.put(name, b"alice's", ALICE)
        assert subject.contents(BOB) == {"secret": b"bob's"}
        assert subject.names(ALICE) == sorted(guesses)

    def test_foreign_file_is_not_stored(self, subject: Subject) -> None:
        subject.put("a", b"alice's", ALICE)
        subject.put("b", b"bob's", BOB)
        with pytest.raises(FileNotStored):
            subject.backend.get(BOB.sid, "a")

    @pytest.mark.parametrize("name", ["b", "a"])
    def test_foreign_reference_opens_nothing(self, subject: Subject, name: str) -> None:
        reference = subject.put("a", b"alice's", ALICE).reference
        subject.put(name, b"bob's", BOB)
        assert subject.version_or_none(reference, BOB) is None

    def test_foreign_reference_discards_nothing(self, subject: Subject) -> None:
        reference = subject.put("a", b"alice's", ALICE).reference
        subject.put("a", b"bob's", BOB)
        assert subject.backend.discard(BOB.sid, [reference]) == []
        assert subject.contents(ALICE) == {"a": b"alice's"}
        assert subject.contents(BOB) == {"a": b"bob's"}

    @pytest.mark.parametrize("verb", ["delete", "drop", "replace"])
    def test_a_removal_stays_in_its_session(self, subject: Subject, verb: str) -> None:
        data = some_bytes("both", 3000)
        subject.put("a", data, ALICE)
        subject.put("a", data, BOB)
        if verb == "replace":
            subject.put("a", b"alice's", ALICE)
        else:
            subject.remove(verb, "a")
        subject.settle()
        assert subject.sids() == sorted({BOB.sid} if verb == "drop" else {ALICE.sid, BOB.sid})
        assert subject.contents(BOB) == {"a": data}

    def test_marks_stay_in_their_session(self, subject: Subject) -> None:
        subject.put("a", b"alice's", ALICE)
        subject.put("b", b"bob's", BOB)
        before = subject.record(BOB)
        subject.advance(60)
        subject.backend.touch(ALICE.sid)
        subject.backend.end(ALICE.sid)
        assert subject.record(BOB) == before
