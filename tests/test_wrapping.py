"""A wrapped object has the abilities of the one within, however Python looks for them."""

from __future__ import annotations

import inspect
from typing import ClassVar

from sessionstore.wrapping import Call, around


class Counted:
    at_once: ClassVar[int] = 4

    def __init__(self) -> None:
        self.opening = True

    @property
    def left(self) -> bool:
        return self.opening

    def put(self, number: int) -> int:
        return number


def twice(call: Call) -> Call:
    return lambda *arguments: 2 * call(*arguments)


def test_named_calls_pass_through_their_wrapper_and_others_do_not() -> None:
    assert around(Counted(), {"put": twice}).put(3) == 6
    assert around(Counted(), {}).put(3) == 3


def test_methods_and_constants_are_seen_without_asking_the_wrapper() -> None:
    """From Python 3.12 on ``isinstance`` of a protocol looks with ``getattr_static``."""
    wrapped = around(Counted(), {})
    assert inspect.getattr_static(wrapped, "at_once") == 4
    assert callable(inspect.getattr_static(wrapped, "put"))


def test_what_changes_is_not_copied() -> None:
    target = Counted()
    wrapped = around(target, {})
    target.opening = False
    assert (wrapped.opening, wrapped.left) == (False, False)
