"""A wrapped object has the abilities of the one within, however Python looks for them."""

from __future__ import annotations

import inspect
from typing import ClassVar

import pytest

from sessionstore.errors import SettingsError
from sessionstore.wrapping import Call, wrap_methods


class Counted:
    at_once: ClassVar[int] = 4

    def __init__(self) -> None:
        self.opening = True

    @property
    def left(self) -> bool:
        return self.opening

    @property
    def other(self) -> bool:
        raise SettingsError("It needs a package that is not installed.")

    def put(self, number: int) -> int:
        return number


def twice(call: Call) -> Call:
    return lambda *arguments: 2 * call(*arguments)


def test_named_calls_pass_through_their_wrapper_and_others_do_not() -> None:
    assert wrap_methods(Counted(), {"put": twice}).put(3) == 6
    assert wrap_methods(Counted(), {}).put(3) == 3


def test_methods_and_constants_are_seen_without_asking_the_wrapper() -> None:
    """From Python 3.12 on ``isinstance`` of a protocol looks with ``getattr_static``."""
    wrapped = wrap_methods(Counted(), {})
    assert inspect.getattr_static(wrapped, "at_once") == 4
    assert callable(inspect.getattr_static(wrapped, "put"))


def test_what_changes_is_not_copied() -> None:
    target = Counted()
    wrapped = wrap_methods(target, {})
    target.opening = False
    assert (wrapped.opening, wrapped.left) == (False, False)


def test_what_cannot_be_had_is_no_reason_not_to_be_wrapped() -> None:
    """As the other engine of obstore's client, where boto3 is not installed."""
    wrapped = wrap_methods(Counted(), {"put": twice})
    assert wrapped.put(3) == 6
    with pytest.raises(SettingsError):
        assert wrapped.other
