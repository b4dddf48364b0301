"""The contract for the memory backend: the model of a backend's test file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.testing import (
    BackendContract,
    FreeSpace,
    OpenBackend,
    Restored,
    Secret,
    machine_for,
)


@contextmanager
def new_place() -> Iterator[OpenBackend]:
    place = Place()
    yield lambda clock: MemoryBackend(place, clock)


class TestMemoryBackend(BackendContract, FreeSpace, Restored, Secret):
    keeps_content_in_memory = True

    @pytest.fixture
    def open_backend(self) -> Iterator[OpenBackend]:
        with new_place() as open_backend:
            yield open_backend


TestMemoryMachine = machine_for(new_place)
