"""Faults of a backend, and plans that choose the calls they are injected into."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from sessionstore.errors import BackendUnavailable, LimitExceeded

E = TypeVar("E", bound=BaseException)


def unavailable() -> BackendUnavailable:
    """Return the error of a connection that was reset."""
    cause = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    return _caused(BackendUnavailable("The backend did not answer."), cause)


def disk_full() -> LimitExceeded:
    """Return the error of a full disk."""
    cause = OSError(errno.ENOSPC, "No space left on device")
    return _caused(LimitExceeded(errno.ENOSPC, "Could not save: the disk is full."), cause)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: ``error`` returns the exception, ``at`` is the moment to raise it.

    * ``"before"``: the call has no effect.
    * ``"after"``: the call takes effect, and only the response is lost. A listing or stream fails
      at its end, a spool when its content is put.
    * A number, only for ``files``, ``sessions``, ``open`` and ``spool``: after that many entries,
      bytes read or bytes written.
    """

    error: Callable[[], BaseException]
    at: Literal["before", "after"] | int = "before"


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a backend: its verb, its number among the calls of this verb, its arguments.

    ``number`` counts from 1.
    """

    verb: str
    number: int
    arguments: Mapping[str, Any]


Plan = Callable[[Call], Fault | None]
"""Returns the fault of a call, or None. May be called from several threads at once."""


def no_faults(_: Call) -> None:
    """Return None: the plan without faults."""


def on(verb: str, fault: Fault, *, number: int | None = None) -> Plan:
    """Return a plan for every call of ``verb``, or only for call ``number``, counted from 1."""
    return lambda call: fault if call.verb == verb and number in {None, call.number} else None


def sometimes(rate: float, fault: Fault, *, seed: int, verbs: Iterable[str] | None = None) -> Plan:
    """Return a plan for a random share of all calls, or of the calls of ``verbs``.

    ``rate`` is a probability from 0 to 1. The same ``seed`` gives the same choices.
    """
    generator = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    wanted = None if verbs is None else frozenset(verbs)

    def plan(call: Call) -> Fault | None:
        if wanted is not None and call.verb not in wanted:
            return None
        return fault if generator.random() < rate else None

    return plan


def either(*plans: Plan) -> Plan:
    """Return a plan that takes the first fault that one of ``plans`` has for a call."""
    return lambda call: next(filter(None, (plan(call) for plan in plans)), None)


def _caused(error: E, cause: BaseException) -> E:
    error.__cause__ = cause
    return error
