"""The store's time, from the Date of its answers and from what has elapsed since."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sessionstore.backends.objects import ObjectBackend
from sessionstore.backends.objects.bucket import StoreClock, boot_time
from sessionstore.testing import FakeClock
from tests.support.object_client import DatelessObjectClient, FakeBucket

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


class Machine:
    """A machine whose clock says how long it has been running, and a store with a clock."""

    def __init__(self) -> None:
        self.up = 1000.0
        self.store = NOON + seconds(0.9)
        self.clock = StoreClock(lambda: self.up)

    def wait(self, count: float) -> None:
        self.up += count
        self.store += seconds(count)

    def ask(self, there: float = 0.0, back: float = 0.0) -> None:
        """One request, which takes so long on its way there and back."""
        asked = self.up
        self.wait(there)
        date = self.store.replace(microsecond=0)
        self.wait(back)
        self.clock.add(date, asked)

    @property
    def between(self) -> bool:
        return self.clock.now() <= self.store <= self.clock.latest()


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.mark.parametrize(("there", "back"), [(0, 0), (0, 5), (5, 0), (7, 20)])
def test_the_store_s_time_is_between_the_bounds(
    machine: Machine, there: float, back: float
) -> None:
    machine.ask(there, back)
    assert machine.between
    machine.wait(1000.5)
    assert machine.between


def test_a_slow_answer_does_not_loosen_what_a_quick_one_said(machine: Machine) -> None:
    machine.ask()
    width = machine.clock.latest() - machine.clock.now()
    machine.wait(60)
    machine.ask(20, 20)
    assert machine.between
    assert machine.clock.latest() - machine.clock.now() <= width


def test_answers_in_many_seconds_tell_the_time_exactly(machine: Machine) -> None:
    for _ in range(11):
        machine.ask()
        machine.wait(1.1)
    assert machine.between
    assert machine.store - machine.clock.now() <= seconds(0.11)


def test_a_machine_whose_clock_is_fast_is_put_right(machine: Machine) -> None:
    machine.ask()
    machine.wait(24 * 3600)
    machine.up += 60  # it believes that a minute more has passed
    machine.ask()
    assert machine.between


def test_old_bounds_go_after_some_minutes(machine: Machine) -> None:
    for _ in range(20):
        machine.ask()
        machine.wait(60)
        machine.up += 0.03  # 500 ppm
    assert machine.clock.now() - machine.store <= seconds(0.4)


def test_without_an_answer_nothing_is_known(machine: Machine) -> None:
    assert machine.clock.age() == float("inf")


def test_boot_time_goes_on() -> None:
    assert boot_time() <= boot_time()


def test_a_client_without_dates_asks_with_an_object(clock: FakeClock) -> None:
    bucket = FakeBucket(clock.now)
    client = DatelessObjectClient(bucket)
    backend = ObjectBackend(client, elapsed=bucket.seconds)
    client.requests.clear()
    clock.advance(299)
    assert abs(backend.now() - clock.now()) <= seconds(1)
    assert client.requests == {}
    clock.advance(2)
    assert abs(backend.now() - clock.now()) <= seconds(1)
    assert client.requests == {"PUT": 1, "LIST": 1}
    assert "probe" in bucket.all_keys()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
