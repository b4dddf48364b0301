"""The base of the contract's parts: fixtures, settings, and a guard against hidden tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, ClassVar, TypeVar

import pytest

from sessionstore.model import Reference
from sessionstore.testing.clock import FakeClock
from sessionstore.testing.subject import OpenBackend, Subject

F = TypeVar("F", bound=Callable[..., object])

_REASON = "sessionstore_contract_override"


def overrides_contract(reason: str) -> Callable[[F], F]:
    """Mark a test that replaces a test of the contract on purpose, with the ``reason``.

    ::

        @overrides_contract("This service lists at most 1,000 files.")
        def test_lists_very_many_files(self, subject): ...

    Raises ValueError for an empty reason.
    """
    if not reason.strip():
        raise ValueError(
            "The reason is empty: write why the contract's test does not hold for this backend."
        )

    def mark(test: F) -> F:
        setattr(test, _REASON, reason)
        return test

    return mark


class Compares:
    """Assertions that two times or files are equal, with times within ``resolution``."""

    resolution: ClassVar[timedelta] = timedelta(milliseconds=1)
    """The resolution of the backend's times, at most a second."""

    def assert_same_time(self, seen: datetime | None, expected: datetime | None) -> None:
        """Assert that both are None, or that ``seen`` is in UTC and equals ``expected``."""
        assert (seen is None) == (expected is None)
        if seen is not None and expected is not None:
            assert seen.utcoffset() == timedelta(0)
            assert abs(seen - expected) <= self.resolution

    def assert_same_files(
        self, seen: Iterable[Reference], expected: Iterable[Reference], *, tokens: bool = True
    ) -> None:
        """Assert that both hold the same files in any order, and with ``tokens`` the same versions.

        Each backend has its own tokens.
        """
        some, others = (sorted(files, key=lambda file: file.name) for files in (seen, expected))
        assert [file[:3] for file in some] == [file[:3] for file in others]  # name, size, digest
        for one, other in zip(some, others, strict=True):
            assert one.token == other.token or not tokens
            self.assert_same_time(one.created, other.created)
            self.assert_same_time(one.expires, other.expires)


class Rig(Compares):
    """The base of every part of the contract.

    The test class of a backend must have a fixture ``open_backend``: a function that takes a clock
    and opens the place under test. Each call within one test opens the same place; each test has a
    new place. The class may override the fixture ``clock`` with a FakeClock that also moves its
    server's time, and may set these attributes:
    """

    keeps_content_in_memory: ClassVar[bool] = False
    """True if the backend keeps stored content in this process's memory, once."""

    reclaims_after: ClassVar[timedelta] = timedelta(0)
    """The longest time that unreferenced content stays before ``collect`` removes it."""

    rechecks_after: ClassVar[timedelta] = timedelta(0)
    """The longest time until a backend sees a change by another one on the same place."""

    many: ClassVar[int] = 1100
    """A number of files that takes more than one page of a listing."""

    rounds: ClassVar[int] = 60
    """The number of repetitions of each race."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def subject(self, open_backend: OpenBackend, clock: FakeClock) -> Iterator[Subject]:
        subject = Subject(open_backend, clock, self.reclaims_after)
        yield subject
        subject.close()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Raise TypeError for a test that hides one of the same name without a reason."""
        super().__init_subclass__(**kwargs)
        for name in (name for name in dir(cls) if name.startswith("test")):
            first, *hidden = (vars(base)[name] for base in cls.__mro__ if name in vars(base))
            if hidden and not hasattr(first, _REASON):
                raise TypeError(
                    f"{cls.__name__}.{name} hides a test of the contract: give it another name, or "
                    "mark it with @overrides_contract(reason)."
                )
