"""Calls on a backend from an event loop, which waits for them on a quick disk."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from sessionstore import _threads
from sessionstore._threads import IN_VAIN, run_on

DISK = SimpleNamespace()
BUCKET = SimpleNamespace(at_once=8)
LONG = 60.0


@pytest.fixture(autouse=True)
def no_pause() -> Iterator[None]:
    _threads._late, _threads._again, _threads._waited = 0, 0.0, 0.0
    yield
    _threads._late, _threads._again, _threads._waited = 0, 0.0, 0.0


def order(backend: object, call: Callable[[list[str]], object], times: int = 1) -> list[str]:
    """Return what happened: a call on the backend, its end, and a turn of another task."""
    happened: list[str] = []

    async def other() -> None:
        happened.append("another task")

    async def main() -> None:
        for _ in range(times):
            happened.clear()
            turn = asyncio.create_task(other())
            await run_on(backend, call, happened)
            happened.append("ended")
            await turn

    asyncio.run(main())
    return happened


def test_a_quick_call_on_a_disk_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "PATIENCE", LONG)
    assert order(DISK, lambda happened: happened.append("called")) == [
        "called", "ended", "another task",
    ]  # fmt: skip


def test_the_loop_goes_on_during_a_call_on_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "PATIENCE", LONG)
    assert order(BUCKET, _until_another_task) == ["another task", "called", "ended"]


def test_the_loop_goes_on_during_a_slow_call() -> None:
    assert order(DISK, _until_another_task) == ["another task", "called", "ended"]


def test_on_a_slow_disk_no_call_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    order(DISK, _until_another_task, times=IN_VAIN)
    monkeypatch.setattr(_threads, "PATIENCE", LONG)
    monkeypatch.setattr(_threads, "_again", _threads._again + LONG)
    assert order(DISK, _until_another_task) == ["another task", "called", "ended"]


def test_one_quick_call_among_slow_ones_keeps_the_loop_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order(DISK, _until_another_task, times=IN_VAIN - 1)
    with monkeypatch.context() as patch:
        patch.setattr(_threads, "PATIENCE", LONG)
        order(DISK, lambda _: None)
    order(DISK, _until_another_task, times=IN_VAIN - 1)
    assert _threads._again == 0.0


def test_one_task_with_many_quick_calls_lets_others_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "PATIENCE", LONG)
    happened: list[str] = []

    async def other() -> None:
        happened.append("another task")

    async def main() -> None:
        turn = asyncio.create_task(other())
        for number in range(4):
            monkeypatch.setattr(_threads, "_waited", LONG if number == 2 else 0.0)
            await run_on(DISK, happened.append, f"call {number}")
        await turn

    asyncio.run(main())
    assert happened == ["call 0", "call 1", "call 2", "another task", "call 3"]


@pytest.mark.parametrize("backend", [DISK, BUCKET])
@pytest.mark.parametrize("error", [ValueError, TimeoutError])
def test_an_error_of_the_call_is_raised(error: type[Exception], backend: object) -> None:
    def fail() -> None:
        raise error("of the call")

    with pytest.raises(error, match="of the call"):
        asyncio.run(run_on(backend, fail))


def test_the_call_is_in_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "PATIENCE", LONG)
    assert asyncio.run(run_on(DISK, threading.get_ident)) != threading.get_ident()


def _until_another_task(happened: list[str]) -> None:
    """Wait until another task of the loop had its turn."""
    waiting = threading.Event()
    for _ in range(int(LONG / 0.01)):
        if "another task" in happened:
            break
        waiting.wait(0.01)
    happened.append("called")
