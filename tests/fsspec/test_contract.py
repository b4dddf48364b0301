"""The contract for any file system of fsspec: its memory, a local disk, and s3fs on moto."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

from sessionstore.backend import Reference
from sessionstore.backends.fsspec import FsspecBackend
from sessionstore.backends.fsspec.backend import FsspecClient
from sessionstore.backends.fsspec.protocols import Where
from sessionstore.backends.objects import keys
from sessionstore.backends.objects.client import Payload
from sessionstore.testing import FakeClock, OpenBackend, machine_for
from sessionstore.testing.contract.optional import Damage
from tests.objects.test_backend import TwoSecondClock
from tests.s3.place import Times, timed
from tests.support.object_contract import RECHECKS_AFTER, RECLAIMS_AFTER, RESOLUTION, ObjectContract

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


class FsspecContract(ObjectContract):
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
