"""The table of broken backends, each with the tests of the contract that must catch it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sessionstore.backends.memory import MemoryBackend

B = TypeVar("B", bound=type[MemoryBackend])


@dataclass(frozen=True)
class Broken:
    backend: type[MemoryBackend]
    caught_by: tuple[str, ...]


BROKEN: list[Broken] = []


def caught_by(*tests: str) -> Callable[[B], B]:
    """Add a backend to the table, with the tests that must fail for it."""

    def enter(backend: B) -> B:
        BROKEN.append(Broken(backend, tuple(f"test_{test}" for test in tests)))
        return backend

    return enter


def pause() -> None:
    """Sleep, so that other threads of a race run in between."""
    threading.Event().wait(0.001)
