"""What an event keeps from being removed, and for how long."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

from sessionstore.adapters.gradio.cache import CacheDir
from sessionstore.adapters.gradio.cache_files import FoundFile
from sessionstore.adapters.gradio.events import Event, Pins, Sender, running
from sessionstore.backend import Reference
from tests.support.gradio_rig import GRADIO_S_OWN

pytestmark = GRADIO_S_OWN

NAME = "note.txt"
NOBODY = Sender(None, None, 0)


def reference() -> Reference:
    return Reference(NAME, 4, "d" * 64, datetime(2026, 1, 1, tzinfo=UTC), None, "token")


def event_with(local: Any, files: Any = None) -> Event:
    service: Any = SimpleNamespace(files=files)
    return Event(service, [NOBODY], Pins(local))


class Generator:
    """What Gradio makes of a handler that yields."""


class Strict:
    """A lock that says so when a thread waits for itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        assert self._lock.acquire(blocking=False), "it would wait for ever"

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def with_a_copy(directory: Path) -> CacheDir:
    local = CacheDir(directory, None)
    local.path(NAME).write_bytes(b"note")
    stamp = local.stamp(NAME)
    assert stamp is not None
    local.note(NAME, reference(), "holder", stamp)
    return local


def test_a_generator_may_be_collected_while_its_copies_are_looked_at(tmp_path: Path) -> None:
    local = with_a_copy(tmp_path)
    local._lock = Strict()  # type: ignore[assignment]  # it does as much of one as is used

    async def main() -> None:
        event = event_with(local)
        event.pins.add(NAME)
        generator = [Generator()]
        generator.append(generator)  # type: ignore[arg-type]  # a cycle, so that gc collects it
        with running(event, None):
            event.generator = generator[0]
        del event
        with local._lock:
            del generator
            gc.collect()
        assert local._copies[NAME].pins == 1
        await asyncio.sleep(0)

    asyncio.run(main())
    assert local._copies[NAME].pins == 0


def test_a_generator_that_goes_on_for_long_is_watched_once(tmp_path: Path) -> None:
    local = with_a_copy(tmp_path)

    async def main() -> int:
        generator = Generator()
        for step in range(10):
            event = event_with(local)
            with running(event, generator if step else None):
                event.generator = generator
        return weakref.getweakrefcount(generator)

    assert asyncio.run(main()) == len(["its pins", "its end"])


def test_a_copy_that_made_room_before_it_was_in_use_is_fetched_again() -> None:
    local = Mock(**{"pin.side_effect": [False, False, True]})
    files = Mock(**{"ready.return_value": False})

    event_with(local, files)._use(FoundFile(NAME, "sid", reference()))

    assert files.fetch.call_count == 2
    assert local.pin.call_count == 3
