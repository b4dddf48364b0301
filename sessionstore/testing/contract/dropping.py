"""Dropping a session: all of it, nothing else, and never a session in use."""

from __future__ import annotations

from functools import partial
from typing import Final

from sessionstore.errors import FileNotStored
from sessionstore.model import Dropped, Stored
from sessionstore.testing.contract.base import Rig
from sessionstore.testing.subject import ALICE, BOB, NOBODY, SPOOLED, Subject, race, some_bytes

DATA: Final = some_bytes("dropped", 6000)


class DropsSessions(Rig):
    """Tests of drops: on request, with a condition, and concurrent with saves."""

    def test_dropped_session_is_gone(self, subject: Subject) -> None:
        reference = subject.put("a", DATA).reference
        subject.backend.drop(ALICE.sid)
        assert subject.sids() == []
        assert subject.backend.session(ALICE.sid) is None
        assert subject.backend.identify(ALICE.sid) is None
        assert subject.names() == []
        assert not subject.has("a")
        assert subject.version_or_none(reference) is None

    def test_drop_tells_what_it_removed(self, subject: Subject) -> None:
        for name in ("a", "b"):  # each file's size counts, although the bytes are kept once
            subject.put(name, DATA)
        assert subject.backend.drop(ALICE.sid) == Dropped(2, 2 * len(DATA))

    def test_session_without_files_can_be_dropped(self, subject: Subject) -> None:
        subject.put("a", DATA)
        subject.backend.delete(ALICE.sid, ["a"])
        assert subject.backend.drop(ALICE.sid) == Dropped(0, 0)
        assert subject.sids() == []

    def test_there_is_nothing_to_drop_twice(self, subject: Subject) -> None:
        subject.put("a", DATA)
        subject.backend.drop(ALICE.sid)
        assert subject.backend.drop(ALICE.sid) is None
        assert subject.backend.drop(NOBODY) is None

    def test_dropped_content_goes(self, subject: Subject) -> None:
        subject.put("a", DATA, ALICE)
        subject.put("b", b"alice's", ALICE)
        subject.put("c", DATA, BOB)
        subject.backend.drop(ALICE.sid)
        subject.settle()
        assert subject.backend.stored() == Stored(1, len(DATA))
        assert subject.contents(BOB) == {"c": DATA}

    def test_many_files_are_dropped_at_once(self, subject: Subject) -> None:
        for number in range(self.many):
            subject.put(f"{number}", b"12", fresh=True)
        assert subject.backend.drop(ALICE.sid) == Dropped(self.many, 2 * self.many)
        assert subject.names() == []

    def test_session_made_anew_is_a_new_one(self, subject: Subject) -> None:
        subject.put("a", DATA, ttl=60)
        subject.backend.end(ALICE.sid)
        subject.backend.drop(ALICE.sid)
        subject.advance(10)
        subject.put("b", b"new")
        assert subject.contents() == {"b": b"new"}
        assert subject.record().ended is None
        assert subject.record().expiring is None
        assert subject.backend.identify(ALICE.sid) == ALICE

    def test_another_backend_does_not_serve_a_dropped_session(self, subject: Subject) -> None:
        other = subject.another()
        reference = subject.put("a", DATA).reference
        other.read("a")
        subject.backend.drop(ALICE.sid)
        subject.clock.advance(self.rechecks_after)
        assert other.sids() == []
        assert other.version_or_none(reference) is None

    def test_stream_opened_before_a_drop_ends_with_the_bytes(self, subject: Subject) -> None:
        large = some_bytes("large", SPOOLED)
        reference = subject.put("a", large).reference
        with subject.backend.open(ALICE.sid, reference) as stream:
            begin = stream.read(10)
            subject.backend.drop(ALICE.sid)
            subject.settle()
            try:
                rest = stream.read()
            except FileNotStored:
                return
        assert begin + rest == large

    def test_session_active_since_is_spared(self, subject: Subject) -> None:
        seen = subject.backend.now()
        subject.put("a", DATA)
        for act in (subject.backend.touch, subject.backend.end, subject.backend.resume):
            seen = subject.backend.now()
            subject.advance(100)
            act(ALICE.sid)
            assert subject.backend.drop(ALICE.sid, unless_active_after=seen) is None
        assert subject.contents() == {"a": DATA}

    def test_session_saved_to_since_is_spared(self, subject: Subject) -> None:
        subject.put("a", DATA)
        for _ in range(2):
            seen = subject.backend.now()
            subject.advance(100)
            subject.put("b", DATA)
            assert subject.backend.drop(ALICE.sid, unless_active_after=seen) is None
        assert subject.contents() == {"a": DATA, "b": DATA}

    def test_session_active_until_then_is_dropped(self, subject: Subject) -> None:
        subject.put("a", DATA)
        record = subject.record()
        subject.advance(100)
        dropped = subject.backend.drop(ALICE.sid, unless_active_after=record.active)
        assert dropped == Dropped(1, len(DATA))
        assert subject.sids() == []

    def test_ended_session_is_dropped(self, subject: Subject) -> None:
        subject.put("a", DATA)
        subject.backend.end(ALICE.sid)
        seen = subject.record().active
        dropped = subject.backend.drop(ALICE.sid, unless_active_after=seen, only_ended=True)
        assert dropped == Dropped(1, len(DATA))
        assert subject.sids() == []

    def test_session_resumed_in_the_same_moment_is_spared(self, subject: Subject) -> None:
        other = subject.another()
        subject.put("a", DATA)
        subject.backend.end(ALICE.sid)
        seen = subject.record().active
        other.backend.resume(ALICE.sid)
        other.put("b", DATA)
        drop = partial(subject.backend.drop, unless_active_after=seen, only_ended=True)
        assert drop(ALICE.sid) is None
        assert subject.contents() == {"a": DATA, "b": DATA}

    def test_save_beside_a_sweep_s_drop_is_kept(self, subject: Subject) -> None:
        sweeper = subject.another()
        for number in range(self.rounds):
            subject.put("old", DATA)
            idle = subject.record().active
            subject.advance(100)
            data = some_bytes(number, 3000)
            save = partial(subject.put, "new", data)
            drop = partial(sweeper.backend.drop, ALICE.sid, unless_active_after=idle)
            _, dropped = race(save, drop)
            left = {"new": data} if dropped else {"new": data, "old": DATA}
            assert subject.contents() == left
            assert subject.backend.identify(ALICE.sid) == ALICE
            subject.backend.drop(ALICE.sid)

    def test_save_beside_a_drop_is_whole_or_gone(self, subject: Subject) -> None:
        other = subject.another()
        for _ in range(self.rounds):
            subject.put("old", b"old")
            race(lambda: subject.put("new", DATA), lambda: other.backend.drop(ALICE.sid))
            assert subject.contents() in ({"new": DATA}, {})
            subject.backend.drop(ALICE.sid)
        subject.settle()
        assert subject.sids() == []
        assert subject.backend.stored() == Stored(0, 0)
