"""I4, isolation: a call reaches only the session that it names."""

from __future__ import annotations

import pytest

from sessionstore import names
from sessionstore.errors import FileNotStored
from sessionstore.testing.contract.base import Rig
from sessionstore.testing.subject import ALICE, BOB, Subject, some_bytes


class KeepsApart(Rig):
    """Tests with two sessions: equal names, equal bytes, and references of the other session."""

    def test_equal_names_are_two_files(self, subject: Subject) -> None:
        subject.put("a", b"alice's", ALICE)
        subject.put("a", b"bob's", BOB)
        assert subject.contents(ALICE) == {"a": b"alice's"}
        assert subject.contents(BOB) == {"a": b"bob's"}

    def test_another_owner_s_session_is_another_one(self, subject: Subject) -> None:
        mine = names.session_key("shared id", owner="me")
        yours = names.session_key("shared id", owner="you")
        subject.put("a", b"mine", mine)
        subject.put("b", b"yours", yours)
        assert subject.names(mine) == ["a"]
        assert subject.names(yours) == ["b"]

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

    def test_foreign_reference_opens_nothing(self, subject: Subject) -> None:
        reference = subject.put("a", b"alice's", ALICE).reference
        subject.put("b", b"bob's", BOB)
        assert subject.version_or_none(reference, BOB) is None

    def test_foreign_reference_does_not_open_a_file_of_that_name(self, subject: Subject) -> None:
        reference = subject.put("a", b"alice's", ALICE).reference
        subject.put("a", b"bob's", BOB)
        assert subject.version_or_none(reference, BOB) is None

    def test_foreign_reference_discards_nothing(self, subject: Subject) -> None:
        reference = subject.put("a", b"alice's", ALICE).reference
        subject.put("a", b"bob's", BOB)
        assert subject.backend.discard(BOB.sid, [reference]) == []
        assert subject.contents(ALICE) == {"a": b"alice's"}
        assert subject.contents(BOB) == {"a": b"bob's"}

    def test_delete_stays_in_its_session(self, subject: Subject) -> None:
        data = some_bytes("both", 3000)
        subject.put("a", data, ALICE)
        subject.put("a", data, BOB)
        subject.backend.delete(ALICE.sid, ["a"])
        subject.settle()
        assert subject.contents(BOB) == {"a": data}

    def test_replacing_stays_in_its_session(self, subject: Subject) -> None:
        data = some_bytes("both", 3000)
        subject.put("a", data, ALICE)
        subject.put("a", data, BOB)
        subject.put("a", b"alice's", ALICE)
        subject.settle()
        assert subject.contents(BOB) == {"a": data}

    def test_drop_stays_in_its_session(self, subject: Subject) -> None:
        data = some_bytes("both", 3000)
        subject.put("a", data, ALICE)
        subject.put("a", data, BOB)
        subject.backend.drop(ALICE.sid)
        subject.settle()
        assert subject.sids() == [BOB.sid]
        assert subject.contents(BOB) == {"a": data}

    def test_marks_stay_in_their_session(self, subject: Subject) -> None:
        subject.put("a", b"alice's", ALICE)
        subject.put("b", b"bob's", BOB)
        before = subject.record(BOB)
        subject.advance(60)
        subject.backend.touch(ALICE.sid)
        subject.backend.end(ALICE.sid)
        assert subject.record(BOB) == before
