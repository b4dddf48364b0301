"""What can go wrong with a backend, and plans that decide with which call it does."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from sessionstore.errors import BackendUnavailable, LimitExceeded

E = TypeVar("E", bound=BaseException)


def unavailable() -> BackendUnavailable:
    """The error of a connection that was reset."""
    cause = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    return _caused(BackendUnavailable("The backend did not answer."), cause)


def disk_full() -> LimitExceeded:
    """The error of a full disk."""
    cause = OSError(errno.ENOSPC, "No space left on device")
    return _caused(LimitExceeded(errno.ENOSPC, "Could not save: the disk is full."), cause)


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong: ``error`` makes the exception, ``at`` says when it is raised.

    * ``"before"``: nothing was done.
    * ``"after"``: it was done, and only the answer is lost. A listing or stream fails at its end,
      a spool when its content is put.
    * A number, for ``files``, ``sessions``, ``open`` and ``spool`` alone: past so many entries,
      bytes read or bytes written.
    """

    error: Callable[[], BaseException]
    at: Literal["before", "after"] | int = "before"


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a backend: its verb, how many of this verb there were with it, its arguments."""

    verb: str
    number: int
    arguments: Mapping[str, Any]


Plan = Callable[[Call], Fault | None]
"""Decides on each call. May be called from several threads at once."""


def no_faults(_: Call) -> None:
    """The plan by which nothing goes wrong."""


def on(verb: str, fault: Fault, *, number: int | None = None) -> Plan:
    """A plan for every call of ``verb``, or only for the one of that number, counted from 1."""
    return lambda call: fault if call.verb == verb and number in {None, call.number} else None


def sometimes(rate: float, fault: Fault, *, seed: int, verbs: Iterable[str] | None = None) -> Plan:
    """A plan for that share of all calls, or of the calls of some verbs, drawn from ``seed``."""
    drawn = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    wanted = None if verbs is None else frozenset(verbs)

    def plan(call: Call) -> Fault | None:
        if wanted is not None and call.verb not in wanted:
            return None
        return fault if drawn.random() < rate else None

    return plan


def either(*plans: Plan) -> Plan:
    """The first fault that any of these plans has for a call."""
    return lambda call: next(filter(None, (plan(call) for plan in plans)), None)


def _caused(error: E, cause: BaseException) -> E:
    error.__cause__ = cause
    return error
