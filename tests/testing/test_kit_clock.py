"""The fake clock: time stands still, waits end when it moves, and nothing hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Self

import pytest

from sessionstore.testing import FakeClock
from tests.support.stores import PATIENCE


class Worker:
    """Works every ten seconds of the clock, and at once when it is told to."""

    def __init__(self, clock: FakeClock) -> None:
        self.done: list[datetime] = []
        self.condition = threading.Condition()
        self.wanted = self.stopped = False
        self._clock = clock
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.emit("stopped")
        self._thread.join()

    def emit(self, what: str) -> None:
        with self.condition:
            setattr(self, what, True)
            self.condition.notify_all()

    def _run(self) -> None:
        due = self._clock.now() + timedelta(seconds=10)
        with self.condition:
            while not self.stopped:
                if self.wanted or self._clock.now() >= due:
                    self.done.append(self._clock.now())
                    self.wanted, due = False, self._clock.now() + timedelta(seconds=10)
                self._clock.wait(self.condition, (due - self._clock.now()).total_seconds())


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(patience=PATIENCE)


def in_thread(act: Callable[[], Any]) -> list[BaseException]:
    """What ``act`` raised in a thread of its own."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - handed on to the test
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return raised


def test_time_stands_still(clock: FakeClock) -> None:
    assert clock.now() == clock.now()


@pytest.mark.parametrize("step", [90, 90.0, timedelta(seconds=90)])
def test_time_moves_by_seconds_or_a_timedelta(clock: FakeClock, step: float | timedelta) -> None:
    before = clock.now()
    clock.advance(step)
    assert clock.now() - before == timedelta(seconds=90)


def test_time_is_utc() -> None:
    start = datetime(2030, 5, 5, 2, tzinfo=timezone(timedelta(hours=2)))
    assert FakeClock(start).now() == datetime(2030, 5, 5, tzinfo=UTC)
    assert FakeClock(start).now().utcoffset() == timedelta(0)


def test_start_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        FakeClock(datetime(2030, 5, 5))  # noqa: DTZ001 - the mistake itself


def test_time_does_not_go_back(clock: FakeClock) -> None:
    with pytest.raises(ValueError, match="cannot go back by 0:00:01"):
        clock.advance(-1)


def test_a_wait_ends_when_its_time_has_come(clock: FakeClock) -> None:
    with Worker(clock) as worker:
        for _ in range(3):
            clock.settle()
            clock.advance(10)
        clock.settle()
        start = clock.now() - timedelta(seconds=30)
        assert worker.done == [start + timedelta(seconds=10 * turn) for turn in (1, 2, 3)]


def test_advancing_alone_ends_a_wait(clock: FakeClock) -> None:
    condition, waiting = threading.Condition(), threading.Event()

    def wait() -> None:
        with condition:
            waiting.set()
            clock.wait(condition, 10)

    def advance() -> None:
        waiting.wait()
        with condition:  # which is free once the other thread waits
            pass
        clock.advance(10)

    thread = threading.Thread(target=advance)
    thread.start()
    assert in_thread(wait) == []
    thread.join()


def test_a_wait_goes_on_until_its_time_has_come(clock: FakeClock) -> None:
    with Worker(clock) as worker:
        clock.settle()
        clock.advance(9)
        clock.settle()
        assert worker.done == []


def test_a_notified_wait_ends_early(clock: FakeClock) -> None:
    with Worker(clock) as worker:
        clock.settle()
        worker.emit("wanted")
        clock.settle()
        assert worker.done == [clock.now()]


def test_every_waiting_thread_is_woken(clock: FakeClock) -> None:
    with Worker(clock) as one, Worker(clock) as other:
        clock.settle(threads=2)
        clock.advance(10)
        clock.settle(threads=2)
        assert one.done == other.done == [clock.now()]


def test_settling_waits_for_a_thread_that_ends(clock: FakeClock) -> None:
    ended: list[bool] = []
    condition, go_on = threading.Condition(), threading.Event()
    due = clock.now() + timedelta(seconds=10)

    def work() -> None:
        with condition:
            while clock.now() < due:
                clock.wait(condition, 10)
        go_on.wait(PATIENCE)
        ended.append(True)

    threading.Thread(target=work).start()
    clock.settle()
    clock.advance(10)
    threading.Timer(0.02, go_on.set).start()  # while the next line waits
    clock.settle(threads=0)
    assert ended == [True]


def test_a_wait_for_a_time_that_came_before_it_began_ends_at_once(clock: FakeClock) -> None:
    due = clock.now() + timedelta(seconds=10)
    left = due - clock.now()
    assert in_thread(lambda: clock.advance(10)) == []
    condition = threading.Condition()
    with condition:
        clock.wait(condition, left.total_seconds())
    assert clock.now() == due


def test_a_wait_for_no_time_ends_at_once(clock: FakeClock) -> None:
    condition = threading.Condition()
    with condition:
        clock.wait(condition, 0)
        clock.wait(condition, -5)
    clock.settle(threads=0)


def test_a_wait_that_nobody_ends_fails() -> None:
    clock, condition = FakeClock(patience=0.01), threading.Condition()

    def wait() -> None:
        with condition:
            clock.wait(condition, 5)

    (error,) = in_thread(wait)
    assert isinstance(error, AssertionError)
    assert "call advance() in the test" in str(error)


def test_settling_without_the_threads_fails() -> None:
    with pytest.raises(AssertionError, match=r"0 threads wait .* expected 2"):
        FakeClock(patience=0.01).settle(threads=2)
