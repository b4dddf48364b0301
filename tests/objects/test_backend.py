"""The object protocol keeps the contract of a backend, over an object store in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from sessionstore.backend import Reference
from sessionstore.backends.objects import ObjectBackend
from sessionstore.testing import (
    BackendContract,
    DetectsDamage,
    FakeClock,
    Forgotten,
    Inspected,
    LateReclaim,
    Lease,
    Omitted,
    OpenBackend,
    Restored,
    Subject,
    Surveyed,
    overrides_contract,
)
from sessionstore.testing.machine import machine_for
from sessionstore.testing.subject import race, some_bytes
from tests.support.object_client import DatelessObjectClient, FakeBucket, FakeObjectClient
from tests.support.object_contract import KeepsOnceInTheEnd

GRACE = timedelta(hours=1)


def opener(bucket: FakeBucket) -> OpenBackend:
    return lambda _: ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds)


@pytest.fixture
def bucket(clock: FakeClock) -> FakeBucket:
    return FakeBucket(clock.now)


@pytest.fixture
def open_backend(bucket: FakeBucket) -> OpenBackend:
    return opener(bucket)


@pytest.fixture
def damage(bucket: FakeBucket) -> Callable[[Reference, bytes], None]:
    def put_other_bytes(reference: Reference, data: bytes) -> None:
        (key,) = [it for it in bucket.all_keys() if it.startswith("b/") and reference.digest in it]
        bucket.put(key, data)

    return put_other_bytes


class TestObjectBackend(
    BackendContract,
    DetectsDamage,
    Forgotten,
    Inspected,
    LateReclaim,
    Lease,
    Omitted,
    Restored,
    Surveyed,
):
    keeps_content_in_memory = True
    reclaims_after = GRACE + timedelta(seconds=2)
    rechecks_after = timedelta(seconds=2)
    resolution = timedelta(seconds=1)

    @pytest.fixture(autouse=True)
    def sweep_before_measuring(self, subject: Subject) -> None:
        self._sweep = subject.settle

    def _growth(self, act: Callable[[int], None]) -> int:
        """The bucket is in this process too, so what its sweeps would take must not count."""

        def act_and_sweep(number: int) -> None:
            act(number)
            if number in (self.many - 1, 2 * self.many - 1):
                self._sweep()

        return super()._growth(act_and_sweep)

    @overrides_contract("Writers at once may each upload: no request can make one wait.")
    def test_writers_at_once_leave_no_copies(self, subject: Subject) -> None:
        writers = [subject, subject.another(), subject.another()]
        for number in range(self.rounds):
            data = some_bytes(number, 5000)
            race(*(lambda it=it, data=data: it.put(f"{id(it)}", data) for it in writers))
            subject.settle()
            stored = subject.backend.stored()
            assert stored.bytes == stored.blobs * len(data)
            assert stored.blobs <= len(writers)
        assert len(subject.names()) == len(writers)


class TestDatelessClient(TestObjectBackend):
    """The same over a client that cannot see the store's time in its answers."""

    @pytest.fixture
    def open_backend(self, bucket: FakeBucket) -> OpenBackend:
        return lambda _: ObjectBackend(DatelessObjectClient(bucket), elapsed=bucket.seconds)


class NetworkClient(FakeObjectClient):
    """One whose requests are sent side by side, as if they took time."""

    at_once = 2


class TestSideBySide(KeepsOnceInTheEnd, TestObjectBackend):
    """The same with requests side by side, and deletes that are not waited for."""

    many = 2000

    @pytest.fixture
    def open_backend(self, bucket: FakeBucket) -> OpenBackend:
        return lambda _: ObjectBackend(NetworkClient(bucket), elapsed=bucket.seconds)


class TwoSecondClock(FakeClock):
    """Moves two seconds at a time: within less, equal bytes saved again are the same save, and
    times are cut to the second."""

    def advance(self, by: timedelta | float) -> None:
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        super().advance(2 * math.ceil(seconds / 2))


@contextmanager
def new_place() -> Iterator[OpenBackend]:
    buckets: list[FakeBucket] = []

    def open_backend(clock: FakeClock) -> ObjectBackend:
        if not buckets:
            buckets.append(FakeBucket(clock.now))
        return ObjectBackend(FakeObjectClient(buckets[0]), elapsed=buckets[0].seconds)

    yield open_backend


TestObjectMachine = machine_for(
    new_place,
    clock=TwoSecondClock,
    reclaims_after=GRACE + timedelta(seconds=2),
    rechecks_after=timedelta(seconds=2),
    resolution=timedelta(seconds=1),
)
