"""The state machine finds backends that are broken."""

from __future__ import annotations

import unittest
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import Phase, settings

from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.testing import OpenBackend, machine_for
from tests.broken import content, forgetting, reading, saving, sessions

BROKEN: list[type[MemoryBackend]] = [
    content.CountsByNameAndNotByContent,
    content.NeverReclaims,
    content.TrustsItsMemoryOfContent,
    forgetting.DiscardsTheReplacement,
    forgetting.DropsWhoeverIsActive,
    forgetting.NeverForgetsAnEnd,
    forgetting.TellsVersionsByTheirBytes,
    reading.CachesForEver,
    saving.FoldsCase,
    saving.ForgetsOnClose,
    saving.LosesTheSecondSave,
    saving.LosesTimeToLive,
    sessions.ForgetsTheEnd,
    sessions.ResumesWithoutActivity,
    sessions.SharesOneDirectory,
    sessions.TellsTheLastExpiry,
]

# Without shrinking, which only makes the report nicer, and the same runs every time.
SEARCH = settings(
    max_examples=200, phases=[Phase.generate], derandomize=True, database=None, deadline=None
)


def result_of(backend: type[MemoryBackend], search: settings) -> unittest.TestResult:
    @contextmanager
    def new_place() -> Iterator[OpenBackend]:
        place = Place()
        yield lambda clock: backend(place, clock)

    result = unittest.TestResult()
    machine_for(new_place, settings=search)("runTest").run(result)
    return result


@pytest.mark.parametrize("backend", BROKEN, ids=lambda it: it.__name__)
def test_the_machine_catches(backend: type[MemoryBackend]) -> None:
    result = result_of(backend, SEARCH)
    assert len(result.failures + result.errors) == 1


def test_the_machine_lets_a_good_backend_pass() -> None:
    result = result_of(MemoryBackend, settings(SEARCH, max_examples=10))
    assert result.testsRun == 1
    assert result.wasSuccessful(), result.failures + result.errors
