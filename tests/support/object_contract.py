"""The contract for an object store behind a real client, whose requests take their time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from sessionstore.backend import Stored
from sessionstore.names import session_key
from sessionstore.testing import (
    BackendContract,
    DetectsDamage,
    Forgotten,
    Inspected,
    LateReclaim,
    Lease,
    Omitted,
    Restored,
    Subject,
    Surveyed,
    overrides_contract,
)
from sessionstore.testing.contract.content import DATA
from sessionstore.testing.subject import ALICE, BOB, race, some_bytes

RECLAIMS_AFTER = timedelta(hours=1, seconds=2)
RECHECKS_AFTER = timedelta(seconds=2)
RESOLUTION = timedelta(seconds=1)

LARGE = 200_000
"""Bytes of a file that would be seen if it stayed in memory."""


class KeepsOnceInTheEnd(BackendContract, Forgotten, LateReclaim, Lease, Surveyed):
    """A backend that uploads a content beside the listing that may show that it is stored."""

    @overrides_contract("An upload beside the listing may be in vain; the next sweep deletes it.")
    def test_equal_bytes_are_kept_once(self, subject: Subject) -> None:
        for name in ("a", "a", "b"):
            subject.put(name, DATA, ALICE)
            assert subject.read(name) == DATA
            subject.advance(1)
        assert subject.backend.stored() == Stored(1, len(DATA))
        subject.another().put("b", DATA, BOB)
        assert subject.able.referred() == Stored(1, len(DATA))
        subject.settle()
        assert subject.backend.stored() == Stored(1, len(DATA))


class ObjectContract(KeepsOnceInTheEnd, DetectsDamage, Inspected, Omitted, Restored):
    reclaims_after = RECLAIMS_AFTER
    rechecks_after = RECHECKS_AFTER
    resolution = RESOLUTION
    many = 60  # a page has 50
    rounds = 5

    @overrides_contract("Writers at once may each upload: no request can make one wait.")
    def test_writers_at_once_leave_no_copies(self, subject: Subject) -> None:
        writers = [subject, subject.another(), subject.another()]
        data = some_bytes("at once", 5000)
        race(*(lambda it=it: it.put(f"{id(it)}", data) for it in writers))
        stored = subject.backend.stored()
        assert stored.bytes == stored.blobs * len(data)
        assert stored.blobs <= len(writers)

    @overrides_contract("A tenth of the requests, of files that stand out from what clients keep.")
    def test_files_that_are_gone_take_no_memory(self, subject: Subject) -> None:
        def come_and_go(number: int) -> None:
            subject.put(f"{number}", some_bytes(number, LARGE))
            subject.read(f"{number}")
            subject.backend.delete(ALICE.sid, [f"{number}"])

        assert self._growth(come_and_go) <= self.many * LARGE / 10

    @overrides_contract("A tenth of the requests, of files that stand out from what clients keep.")
    def test_sessions_that_are_gone_take_no_memory(self, subject: Subject) -> None:
        def come_and_go(number: int) -> None:
            key = session_key(f"visitor {number}")
            subject.put("a", some_bytes(number, LARGE), key)
            subject.backend.end(key.sid)
            subject.backend.drop(key.sid)

        assert self._growth(come_and_go) <= self.many * LARGE / 10

    def _growth(self, act: Callable[[int], None]) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(self), "many", 6)
            return super()._growth(act)
