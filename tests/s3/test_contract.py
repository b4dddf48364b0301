"""The contract for S3, and the state machine, on moto's server and on SeaweedFS."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import settings

from sessionstore.backend import Reference
from sessionstore.backends.objects import keys
from sessionstore.testing import OpenBackend, SignedParts, SignedUrls, machine_for
from sessionstore.testing.contract.optional import Damage
from tests.objects.test_backend import TwoSecondClock
from tests.s3.place import Bucket
from tests.support import seaweed
from tests.support.object_contract import RECHECKS_AFTER, RECLAIMS_AFTER, RESOLUTION, ObjectContract


class S3Contract(ObjectContract, SignedParts, SignedUrls):
    @pytest.fixture
    def open_backend(self, bucket: Bucket, prefix: str) -> OpenBackend:
        return bucket.opener(prefix)

    @pytest.fixture
    def damage(self, bucket: Bucket, prefix: str) -> Damage:
        def damage(reference: Reference, data: bytes) -> None:
            blob = keys.blob(reference.digest, keys.generation(reference.token))
            bucket.boto.put_object(Bucket=seaweed.BUCKET, Key=f"{prefix}/{blob}", Body=data)

        return damage


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
