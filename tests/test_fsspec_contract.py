"""The contract for any file system of fsspec: its memory, a local disk, and s3fs on moto."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import settings

from sessionstore.backend import Reference
from sessionstore.backends import objects_keys as keys
from sessionstore.backends._fsspec_kinds import Where
from sessionstore.backends.fsspec import FsspecBackend, FsspecClient
from sessionstore.backends.objects_client import Payload
from sessionstore.names import session_key
from sessionstore.testing import (
    BackendContract,
    DetectsDamage,
    FakeClock,
    Inspected,
    LateReclaim,
    OpenBackend,
    Restored,
    Subject,
    machine_for,
    overrides_contract,
)
from sessionstore.testing.optional import Damage
from sessionstore.testing.subject import ALICE, race, some_bytes
from tests.s3.place import Times, timed
from tests.test_objects_backend import TwoSecondClock

RECLAIMS_AFTER = timedelta(hours=1, seconds=2)
RECHECKS_AFTER = timedelta(seconds=2)
RESOLUTION = timedelta(seconds=1)

_numbers = itertools.count(1)


def client_of(where: Where) -> FsspecClient:
    client = FsspecClient(where)
    client.opening = False
    return client


def opener(where: Where) -> OpenBackend:
    """Opens the store there, in a fake clock's time."""
    times: list[Times] = []

    def open_backend(clock: FakeClock) -> FsspecBackend:
        if not times:
            times.append(Times(clock))
        client = timed(client_of(where), times[0])
        return FsspecBackend(client, elapsed=times[0].seconds)  # type: ignore[arg-type]  # its shows_date is another client's

    return open_backend


def in_memory() -> Where:
    place = f"test-{next(_numbers)}"
    return Where(f"fsspec+memory://{place}", "memory", f"memory://{place}")


LARGE = 200_000
"""Bytes of a file that would be seen if it stayed in memory."""


class FsspecContract(BackendContract, DetectsDamage, Inspected, LateReclaim, Restored):
    reclaims_after = RECLAIMS_AFTER
    rechecks_after = RECHECKS_AFTER
    resolution = RESOLUTION
    many = 60  # a page has 50
    rounds = 5

    @pytest.fixture
    def where(self) -> Where:
        raise NotImplementedError

    @pytest.fixture
    def open_backend(self, where: Where) -> OpenBackend:
        return opener(where)

    @pytest.fixture
    def damage(self, where: Where) -> Damage:
        def damage(reference: Reference, data: bytes) -> None:
            blob = keys.blob(reference.digest, keys.generation(reference.token))
            client_of(where).put(blob, Payload.of(data))

        return damage

    @overrides_contract("Writers at once may each upload: no request can make one wait.")
    def test_writers_at_once_leave_no_copies(self, subject: Subject) -> None:
        writers = [subject, subject.another(), subject.another()]
        data = some_bytes("at once", 5000)
        race(*(lambda it=it: it.put(f"{id(it)}", data) for it in writers))
        stored = subject.backend.stored()
        assert stored.bytes == stored.blobs * len(data)
        assert stored.blobs <= len(writers)

    @overrides_contract("The clock of these tests remembers each key, so that files must be large.")
    def test_files_that_are_gone_take_no_memory(self, subject: Subject) -> None:
        def come_and_go(number: int) -> None:
            subject.put(f"{number}", some_bytes(number, LARGE))
            subject.read(f"{number}")
            subject.backend.delete(ALICE.sid, [f"{number}"])

        assert self._growth(come_and_go) <= self.many * LARGE / 10

    @overrides_contract("The clock of these tests remembers each key, so that files must be large.")
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


class TestMemory(FsspecContract):
    @pytest.fixture
    def where(self) -> Where:
        return in_memory()

    @pytest.fixture(autouse=True)
    def _has_memory_of_its_own(self, request: pytest.FixtureRequest) -> None:
        if request.function.__name__.endswith(("takes_little_memory", "take_no_memory")):
            pytest.skip("the files are in this process; TestLocalDisk looks at memory")


class TestLocalDisk(FsspecContract):
    @pytest.fixture
    def where(self, tmp_path: Path) -> Where:
        return Where(f"fsspec+file://{tmp_path}", "file", f"file://{tmp_path}")


@contextmanager
def new_place() -> Iterator[OpenBackend]:
    yield opener(in_memory())


TestMachine = machine_for(
    new_place,
    clock=TwoSecondClock,
    reclaims_after=RECLAIMS_AFTER,
    rechecks_after=RECHECKS_AFTER,
    resolution=RESOLUTION,
    settings=settings(max_examples=8, stateful_step_count=20),
)
