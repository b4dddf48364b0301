"""What the parts of the contract stand on: fixtures, what an author may set, and a guard."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, ClassVar, TypeVar

import pytest

from sessionstore.backend import Reference
from sessionstore.testing.clock import FakeClock
from sessionstore.testing.subject import OpenBackend, Subject

F = TypeVar("F", bound=Callable[..., object])

_REASON = "sessionstore_contract_override"


def overrides_contract(reason: str) -> Callable[[F], F]:
    """Mark a test that replaces one of the contract's on purpose, and say why.

    ::

        @overrides_contract("This service lists at most 1,000 files.")
        def test_lists_very_many_files(self, subject): ...

    Raises ValueError without a reason.
    """
    if not reason.strip():
        raise ValueError("Say why the contract's test does not hold for this backend.")

    def mark(test: F) -> F:
        setattr(test, _REASON, reason)
        return test

    return mark


class Rig:
    """The base of every part of the contract.

    The author's class has a fixture ``open_backend``: a function that takes a clock and opens the
    place under test, the same place at each call of one test and another one for each test. It
    may override the fixture ``clock`` with a FakeClock that also moves its server's time, and may
    set:
    """

    keeps_content_in_memory: ClassVar[bool] = False
    """Stored content takes this process's memory, once."""

    reclaims_after: ClassVar[timedelta] = timedelta(0)
    """How long content without references may stay before ``collect`` removes it."""

    rechecks_after: ClassVar[timedelta] = timedelta(0)
    """How long one backend may not see what another one on the same place changed."""

    resolution: ClassVar[timedelta] = timedelta(milliseconds=1)
    """How exact its times are, at most a second."""

    many: ClassVar[int] = 1100
    """A number of files that takes more than one page of a listing."""

    rounds: ClassVar[int] = 60
    """How often a race is run."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def subject(self, open_backend: OpenBackend, clock: FakeClock) -> Iterator[Subject]:
        subject = Subject(open_backend, clock, self.reclaims_after)
        yield subject
        subject.close()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a test that hides one of the same name without saying so."""
        super().__init_subclass__(**kwargs)
        for name in filter(_is_test, dir(cls)):
            first, *hidden = (vars(each)[name] for each in cls.__mro__ if name in vars(each))
            if hidden and not hasattr(first, _REASON):
                raise TypeError(
                    f"{cls.__name__}.{name} hides a test of the contract: give it another name, or "
                    "mark it with @overrides_contract(reason)."
                )

    def assert_same_time(self, seen: datetime | None, expected: datetime) -> None:
        """``seen`` is ``expected``, as exactly as this backend tells time, and in UTC."""
        assert seen is not None
        assert seen.utcoffset() == timedelta(0)
        assert abs(seen - expected) <= self.resolution

    def assert_same_files(self, seen: Iterable[Reference], expected: Iterable[Reference]) -> None:
        """The two hold the same versions of the same files, in any order."""
        some, others = sorted(seen, key=_name), sorted(expected, key=_name)
        assert [reference.name for reference in some] == [reference.name for reference in others]
        for one, other in zip(some, others, strict=True):
            self.assert_same_file(one, other)

    def assert_same_file(self, seen: Reference, expected: Reference) -> None:
        """``seen`` is the same version of the same file as ``expected``."""
        assert (seen.name, seen.size, seen.digest) == (
            expected.name,
            expected.size,
            expected.digest,
        )
        assert seen.token == expected.token
        self.assert_same_time(seen.created, expected.created)
        if expected.expires is None:
            assert seen.expires is None
        else:
            self.assert_same_time(seen.expires, expected.expires)


def _name(reference: Reference) -> str:
    return reference.name


def _is_test(name: str) -> bool:
    return name.startswith("test")
