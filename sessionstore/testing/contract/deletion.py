"""I5, gone means gone: deleted files and dropped sessions, and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Final

import pytest

from sessionstore.errors import FileNotStored
from sessionstore.model import Dropped, Stored
from sessionstore.testing.contract.base import Rig
from sessionstore.testing.subject import ALICE, BOB, NOBODY, SPOOLED, Subject, race, some_bytes

DATA: Final = some_bytes("gone", 7000)


class ForgetsFiles(Rig):
    """Tests of deleting by name, of discarding by version, and of reclaiming the content."""

    def test_deleted_file_is_gone(self, subject: Subject) -> None:
        reference = subject.put("a", DATA).reference
        subject.backend.delete(ALICE.sid, ["a"])
        assert subject.names() == []
        assert not subject.has("a")
        assert subject.version_or_none(reference) is None

    def test_delete_tells_what_was_there_and_leaves_other_names(self, subject: Subject) -> None:
        saved = [subject.put(name, name.encode()).reference for name in ("a", "a/b", "ab", "A")]
        gone = subject.backend.delete(ALICE.sid, (name for name in ("ab", "missing", "a")))
        self.assert_same_files(gone, [saved[0], saved[2]])
        assert subject.contents() == {"a/b": b"a/b", "A": b"A"}

    def test_removing_what_is_not_there_is_no_error(self, subject: Subject) -> None:
        old = subject.put("old", DATA).reference
        subject.put("a", DATA)
        assert subject.backend.delete(ALICE.sid, ["missing", "old"]) == [old]
        assert subject.backend.discard(ALICE.sid, [old]) == []
        assert subject.backend.discard(NOBODY, [old]) == []
        assert subject.backend.delete(NOBODY, ["a"]) == []
        assert subject.contents() == {"a": DATA}

    @pytest.mark.parametrize("data", [b"new", DATA])
    def test_a_deleted_file_can_be_saved_again(self, subject: Subject, data: bytes) -> None:
        subject.put("a", DATA, ttl=60)
        subject.backend.delete(ALICE.sid, ["a"])
        subject.settle()
        saved = subject.put("a", data)
        assert (saved.replaced, saved.reference.expires) == (None, None)
        assert subject.contents() == {"a": data}
        assert subject.backend.stored() == Stored(1, len(data))

    @pytest.mark.parametrize("verb", ["delete", "drop"])
    def test_another_backend_does_not_serve_what_is_gone(self, subject: Subject, verb: str) -> None:
        other = subject.another()
        reference = subject.put("a", DATA).reference
        other.read("a")
        subject.remove(verb, "a")
        subject.clock.advance(self.rechecks_after)
        assert not other.has("a")
        assert other.version_or_none(reference) is None
        assert other.sids() == ([] if verb == "drop" else [ALICE.sid])

    @pytest.mark.parametrize("verb", ["delete", "drop", "replace"])
    def test_stream_opened_before_ends_with_the_bytes(self, subject: Subject, verb: str) -> None:
        data = some_bytes("large", SPOOLED)
        with subject.backend.open(ALICE.sid, subject.put("a", data).reference) as stream:
            assert stream.read(10) == data[:10]
            if verb == "replace":
                subject.put("a", b"new")
            else:
                subject.remove(verb, "a")
            subject.settle()
            with contextlib.suppress(FileNotStored):
                assert stream.read() == data[10:]

    def test_current_version_is_discarded(self, subject: Subject) -> None:
        first = subject.put("a", DATA, ttl=60).reference
        subject.put("b", DATA)
        self.assert_same_files(subject.backend.discard(ALICE.sid, iter([first])), [first])
        assert subject.contents() == {"b": DATA}
        listed = list(subject.backend.files(ALICE.sid))
        self.assert_same_files(subject.backend.discard(ALICE.sid, listed), listed)
        assert subject.names() == []

    @pytest.mark.parametrize("data", [b"new", DATA])  # other bytes, and the same bytes again
    def test_replaced_version_is_not_discarded(self, subject: Subject, data: bytes) -> None:
        old = subject.put("a", DATA, ttl=60).reference
        subject.advance(61)
        subject.put("a", data, ttl=60)
        assert subject.backend.discard(ALICE.sid, [old]) == []
        assert subject.contents() == {"a": data}

    def test_current_version_is_discarded_beside_a_replaced_one(self, subject: Subject) -> None:
        old = subject.put("a", DATA).reference
        subject.advance(10)
        current = subject.put("a", b"new").reference
        self.assert_same_files(subject.backend.discard(ALICE.sid, [current, old]), [current])
        assert subject.names() == []

    @pytest.mark.parametrize("verb", ["delete", "drop"])
    def test_content_goes_with_its_last_file(self, subject: Subject, verb: str) -> None:
        subject.put("a", DATA, ALICE)
        subject.put("c", DATA, BOB)
        for key, left in ((ALICE, Stored(1, len(DATA))), (BOB, Stored(0, 0))):
            subject.remove(verb, "a" if key == ALICE else "c", key)
            subject.settle()
            assert subject.backend.stored() == left
            assert subject.contents(BOB) == ({"c": DATA} if key == ALICE else {})

    def test_discarded_and_replaced_content_goes(self, subject: Subject) -> None:
        subject.put("a", b"replaced")
        subject.backend.discard(ALICE.sid, [subject.put("b", DATA).reference])
        subject.put("a", b"new")
        subject.settle()
        assert subject.backend.stored() == Stored(1, 3)


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

    def test_session_without_files_can_be_dropped_once(self, subject: Subject) -> None:
        subject.put("a", DATA)
        subject.backend.delete(ALICE.sid, ["a"])
        assert subject.backend.drop(ALICE.sid) == Dropped(0, 0)
        assert subject.sids() == []
        assert subject.backend.drop(ALICE.sid) is None
        assert subject.backend.drop(NOBODY) is None

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

    def test_session_active_since_is_spared(self, subject: Subject) -> None:
        subject.put("a", DATA)
        marks = (subject.backend.touch, subject.backend.end, subject.backend.resume)
        acts: list[Callable[[], object]] = [partial(mark, ALICE.sid) for mark in marks]
        acts += [partial(subject.put, "b", DATA)] * 2
        for act in acts:
            seen = subject.backend.now()
            subject.advance(100)
            act()
            assert subject.backend.drop(ALICE.sid, unless_active_after=seen) is None
        assert subject.contents() == {"a": DATA, "b": DATA}

    @pytest.mark.parametrize("ended", [True, False])
    def test_session_active_until_then_is_dropped(self, subject: Subject, *, ended: bool) -> None:
        subject.put("a", DATA)
        if ended:
            subject.backend.end(ALICE.sid)
        seen = subject.record().active
        subject.advance(100)
        dropped = subject.backend.drop(ALICE.sid, unless_active_after=seen, only_ended=ended)
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
