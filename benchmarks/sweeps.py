"""``python -m benchmarks.sweeps [--files 1000000] [--replicas 1 16]``: sweeps of a large bucket.

The protocol's real code on a bucket that makes its listings up as they are asked for, so that a
hundred million files need no hundred million objects. It counts requests, CPU time beyond the
making up, and memory. What a real store's answers take in time is not in it.

Every file is of its own content, ten to a session, older than ``grace`` and not due: the sweep
looks at everything and deletes nothing. With ``--replicas`` that many processes have their turns by
the default schedule, for ``--hours`` of a made-up clock, and the requests of all are counted.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from benchmarks.harness import cpu_seconds, most_memory
from sessionstore import SessionStore
from sessionstore.backends.objects import ObjectBackend
from sessionstore.backends.objects.client import BATCH, Entry
from sessionstore.schedule import Schedule
from sessionstore.testing import FakeClock
from tests.support.object_client import FakeBucket, FakeObjectClient

PER_SESSION = 10
SIZE = 100_000
LARGE = 2_000_000
"""Files of which one sweep takes more requests than an hour's budget."""

_STEP = 2**256
_SPREAD = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: even over all first bytes
_OLD = timedelta(hours=2)
_HOUR = timedelta(hours=1)


class MadeUp(FakeBucket):
    """A bucket with so many files, none of which is there."""

    def __init__(self, clock: FakeClock, files: int) -> None:
        super().__init__(clock.now)
        self._files = files
        self._step = _STEP // files
        self._modified = self.date() - _OLD
        self.spent = 0.0

    def page(self, prefix: str, after: str, size: int) -> list[Entry]:
        began = cpu_seconds()
        found = self._made_up(prefix, after, size)
        self.spent += cpu_seconds() - began
        return super().page(prefix, after, size) if found is None else found

    def _made_up(self, prefix: str, after: str, size: int) -> list[Entry] | None:
        key = {"b/": self._blob, "s/": self._reference}.get(prefix)
        if key is None:
            return None
        first = self._after(after) if after > prefix else 0
        numbers = range(first, min(first + size, self._files))
        return [Entry(key(number), SIZE, self._modified) for number in numbers]

    def _digest(self, number: int) -> str:
        return f"{number * self._step:064x}"

    def _generation(self, number: int) -> str:
        return f"{number * _SPREAD % 2**64:016x}{number:016x}"

    def _blob(self, number: int) -> str:
        digest = self._digest(number)
        return f"b/{digest[:2]}/{digest}/{self._generation(number)}"

    def _reference(self, number: int) -> str:
        session, file = divmod(number, PER_SESSION)
        return (
            f"s/{session:016x}/f/{file}/0005f00000000000.b{0:015x}.{SIZE}.0."
            f"{self._digest(number)}.{self._generation(number)}"
        )

    def _after(self, key: str) -> int:
        """The number of the file behind the one whose key this is; its generation ends with it."""
        return int(key[-16:], 16) + 1


def sweep(files: int) -> Iterator[str]:
    """Sweep a store of so many files; gives the cells of a row."""
    clock = FakeClock()
    bucket = MadeUp(clock, files)
    client = FakeObjectClient(bucket)
    backend = ObjectBackend(client, elapsed=bucket.seconds)
    with SessionStore(backend, clock=clock) as store:
        bucket.spent, client.requests = 0.0, Counter()
        before, began = most_memory(), cpu_seconds()
        rows = store.sweep()
        seconds = cpu_seconds() - began - bucket.spent
    assert rows == []
    lists = client.requests["LIST"]
    yield f"{files:,}"
    yield f"{lists:,}"
    yield f"{sum(client.requests.values()) - lists}"
    yield f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.0f} s"
    yield f"{seconds / (lists * BATCH) * 1e6:.1f} us"
    yield f"{(most_memory() - before) / 2**20:.0f} MiB"


def idle(files: int, replicas: int, hours: int) -> Iterator[str]:
    """Let replicas sweep a store of so many files for some hours; gives the cells of a row.

    The first hour, in which nobody knows yet what a sweep takes, is not counted. For a large store,
    which is swept once an hour from the beginning, it would be like the others.
    """
    clock = FakeClock()
    bucket = MadeUp(clock, files)
    stores = [
        SessionStore(ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds), clock=clock)
        for _ in range(replicas)
    ]
    schedules = [Schedule(store, store._planner, None) for store in stores]  # noqa: SLF001 - its thread waits for real
    clients: list[Any] = [store.backend.client for store in stores]  # type: ignore[attr-defined]  # an ObjectBackend
    began = clock.now()
    due = dict.fromkeys(range(replicas), began)
    counted = began if files >= LARGE else began + _HOUR
    while (first := min(due, key=due.__getitem__)) is not None and due[
        first
    ] < counted + hours * _HOUR:
        if clock.now() < counted <= due[first]:
            for client in clients:
                client.requests.clear()
        clock.advance(max(due[first] - clock.now(), timedelta(0)))
        due[first] = clock.now() + schedules[first].turn()
    requests = sum((client.requests for client in clients), Counter[str]())
    month = 30 * 24 / hours
    dollars = (requests["LIST"] + requests["PUT"]) * 0.005 / 1000 + requests["GET"] * 0.0004 / 1000
    yield f"{files:,}"
    yield f"{replicas}"
    yield f"{requests['LIST'] / hours:,.0f}"
    yield f"{requests['PUT'] / hours:.1f}"
    yield f"{requests['GET'] / hours:.1f}"
    yield f"{dollars * month:.2f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweeps")
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--replicas", nargs="+", type=int)
    parser.add_argument("--hours", type=int, default=4)
    given = parser.parse_args()
    if given.replicas is not None:
        print("| files | replicas | LIST an hour | PUT an hour | GET an hour | $ in 30 days |")
        print("|---:|---:|---:|---:|---:|---:|")
        for replicas in given.replicas:
            print("| " + " | ".join(idle(given.files, replicas, given.hours)) + " |", flush=True)
        return
    print("| files | LIST | other requests | CPU | CPU a key | memory |")
    print("|---:|---:|---:|---:|---:|---:|")
    print("| " + " | ".join(sweep(given.files)) + " |")


if __name__ == "__main__":
    main()
