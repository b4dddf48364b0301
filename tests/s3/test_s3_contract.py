"""The contract for S3, and the state machine, on moto's server and on SeaweedFS."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from hypothesis import settings

from sessionstore.backend import Reference
from sessionstore.backends import objects_keys as keys
from sessionstore.names import session_key
from sessionstore.testing import (
    BackendContract,
    DetectsDamage,
    Inspected,
    LateReclaim,
    OpenBackend,
    Restored,
    SignedUrls,
    Subject,
    machine_for,
    overrides_contract,
)
from sessionstore.testing.optional import Damage
from sessionstore.testing.subject import ALICE, race, some_bytes
from tests import seaweed
from tests.s3.place import Bucket
from tests.test_objects_backend import TwoSecondClock

RECLAIMS_AFTER = timedelta(hours=1, seconds=2)
RECHECKS_AFTER = timedelta(seconds=2)
RESOLUTION = timedelta(seconds=1)

LARGE = 200_000
"""Bytes of a file that would be seen if it stayed in memory."""


class S3Contract(BackendContract, DetectsDamage, Inspected, LateReclaim, Restored, SignedUrls):
    reclaims_after = RECLAIMS_AFTER
    rechecks_after = RECHECKS_AFTER
    resolution = RESOLUTION
    many = 60  # a page has 50
    rounds = 5

    @pytest.fixture
    def open_backend(self, bucket: Bucket, prefix: str) -> OpenBackend:
        return bucket.opener(prefix)

    @pytest.fixture
    def damage(self, bucket: Bucket, prefix: str) -> Damage:
        def damage(reference: Reference, data: bytes) -> None:
            blob = keys.blob(reference.digest, keys.generation(reference.token))
            bucket.boto.put_object(Bucket=seaweed.BUCKET, Key=f"{prefix}/{blob}", Body=data)

        return damage

    @overrides_contract("Writers at once may each upload: no request can make one wait.")
    def test_writers_at_once_leave_no_copies(self, subject: Subject) -> None:
        writers = [subject, subject.another(), subject.another()]
        data = some_bytes("at once", 5000)
        race(*(lambda it=it: it.put(f"{id(it)}", data) for it in writers))
        stored = subject.backend.stored()
        assert stored.bytes == stored.blobs * len(data)
        assert stored.blobs <= len(writers)

    @overrides_contract("A tenth of the requests; boto3's own memory is not so exact.")
    def test_files_that_are_gone_take_no_memory(self, subject: Subject) -> None:
        def come_and_go(number: int) -> None:
            subject.put(f"{number}", some_bytes(number, LARGE))
            subject.read(f"{number}")
            subject.backend.delete(ALICE.sid, [f"{number}"])

        assert self._growth(come_and_go) <= self.many * LARGE / 10

    @overrides_contract("A tenth of the requests; boto3's own memory is not so exact.")
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


class TestOnMoto(S3Contract):
    @pytest.fixture
    def bucket(self, moto_bucket: Bucket) -> Bucket:
        return moto_bucket

    @pytest.fixture(autouse=True)
    def _has_memory_of_its_own(self, request: pytest.FixtureRequest) -> None:
        if request.function.__name__.endswith(("takes_little_memory", "take_no_memory")):
            pytest.skip("moto's server is in this process; TestOnSeaweed looks at memory")


@pytest.mark.server
class TestOnSeaweed(S3Contract):
    @pytest.fixture
    def bucket(self, seaweed_bucket: Bucket) -> Bucket:
        return seaweed_bucket


_place: list[Bucket] = []
_numbers = itertools.count(1)


@pytest.fixture
def on_moto(moto_bucket: Bucket) -> Iterator[None]:
    _place[:] = [moto_bucket]
    yield
    _place.clear()


@pytest.fixture
def on_seaweed(seaweed_bucket: Bucket) -> Iterator[None]:
    _place[:] = [seaweed_bucket]
    yield
    _place.clear()


@contextmanager
def new_place() -> Iterator[OpenBackend]:
    (bucket,) = _place
    yield bucket.opener(f"machine-{next(_numbers)}")


def machine(examples: int) -> type:
    return machine_for(
        new_place,
        clock=TwoSecondClock,
        reclaims_after=RECLAIMS_AFTER,
        rechecks_after=RECHECKS_AFTER,
        resolution=RESOLUTION,
        settings=settings(max_examples=examples, stateful_step_count=20),
    )


TestMachineOnMoto = pytest.mark.usefixtures("on_moto")(machine(3))
TestMachineOnSeaweed = pytest.mark.server(pytest.mark.usefixtures("on_seaweed")(machine(8)))
