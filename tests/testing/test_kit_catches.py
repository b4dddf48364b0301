"""The proof that the contract can fail: every test of it catches a backend that is broken."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from sessionstore.backend import Reference
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.testing import (
    Alone,
    BackendContract,
    DetectsDamage,
    FakeClock,
    Forgotten,
    FreeSpace,
    Inspected,
    LateReclaim,
    Lease,
    Omitted,
    Recent,
    Restored,
    Secret,
    SignedParts,
    SignedUrls,
    Subject,
    Surveyed,
)
from tests.broken import BROKEN
from tests.support.signed import send

RUNS = 50
"""A test whose threads race may miss a fault in one run, by luck, and on a busy machine in several;
hardly ever in so many. The first run that finds it is the last."""

CASES = [(broken.backend, test) for broken in BROKEN for test in broken.caught_by]


class WholeContract(
    BackendContract,
    Alone,
    DetectsDamage,
    Forgotten,
    FreeSpace,
    Inspected,
    LateReclaim,
    Lease,
    Omitted,
    Recent,
    Restored,
    Secret,
    SignedParts,
    SignedUrls,
    Surveyed,
):
    keeps_content_in_memory = True

    def send(self, url: str, data: bytes) -> None:
        send(url, data)


ALL_TESTS = {name for name in dir(WholeContract) if name.startswith("test_")}


def arguments_of(test: str) -> Iterator[dict[str, Any]]:
    """What ``parametrize`` gives a test of the contract, case by case."""
    marks = getattr(getattr(WholeContract, test), "pytestmark", [])
    tables = [list(_rows(*mark.args)) for mark in marks]
    for rows in itertools.product(*tables):
        yield {name: value for row in rows for name, value in row.items()}


def _rows(names: str | tuple[str, ...], values: Any) -> Iterator[dict[str, Any]]:
    for value in values:
        yield {names: value} if isinstance(names, str) else dict(zip(names, value, strict=True))


def run(backend: type[MemoryBackend], test: str, arguments: dict[str, Any]) -> None:
    """One test of the contract, as pytest would run it."""
    place = Place()

    def damage(reference: Reference, data: bytes) -> None:
        place.blobs[reference.digest].data = data

    if "damage" in getattr(WholeContract, test).__code__.co_varnames:
        arguments = {**arguments, "damage": damage}
    subject = Subject(lambda clock: backend(place, clock), FakeClock())
    getattr(WholeContract(), test)(subject, **arguments)


@pytest.mark.parametrize(("backend", "test"), CASES, ids=lambda it: getattr(it, "__name__", it))
def test_the_contract_catches(backend: type[MemoryBackend], test: str) -> None:
    for arguments in [*arguments_of(test)] * RUNS:
        try:
            run(backend, test, arguments)
        except (Exception, pytest.fail.Exception):  # noqa: BLE001 - broken, it may fail in any way
            return
    pytest.fail(f"{test} did not notice: {backend.__doc__ or backend.__name__}")


def test_every_test_of_the_contract_has_caught_something() -> None:
    caught = {test for _, test in CASES}
    assert caught == ALL_TESTS - {"test_every_ability_it_has_is_tested"}
