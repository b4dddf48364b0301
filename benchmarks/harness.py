"""Measure fairly: all sides in turn in one process, CPU time, the median of several rounds.

CPU time (user and system, from ``getrusage``) and not the clock on the wall, because a shared
machine's other work moves the latter by more than the differences looked for. Where the wall's is
the point (requests to a server, many at once) a row says so.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

Run = Callable[[], object]
Batch = Callable[[], Run]
"""Prepares a batch, unmeasured, and returns what is measured."""

OURS = "sessionstore"


class Cost(NamedTuple):
    """Seconds of CPU and of wall time."""

    cpu: float
    wall: float


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison of ``count`` operations (or bytes) in a batch, and the ratio to reach.

    ``sides`` are who does it: ours under ``OURS``, then the peer that the ratio is taken to, then
    any others that are only shown. ``by`` says what the ratio is of: CPU time (at most ``reach``)
    or speed by the wall clock (at least). A ``reach`` of None has no goal.
    """

    group: str
    what: str
    sides: Mapping[str, Batch]
    reach: float | None
    count: int = 1
    by: Literal["cpu", "speed"] = "cpu"
    unit: Literal["operation", "byte"] = "operation"
    note: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """A row, measured. ``sides`` holds medians of one batch; ``ratios`` one ratio a round."""

    row: Row
    sides: Mapping[str, Cost]
    ratios: list[float]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def reached(self) -> bool | None:
        if self.row.reach is None:
            return None
        if self.row.by == "speed":
            return self.ratio >= self.row.reach
        return self.ratio <= self.row.reach


@dataclass(slots=True)
class Figure:
    """Something measured that is no comparison: a memory size, a longest stall, an exponent."""

    group: str
    what: str
    value: float
    unit: str
    reach: float | None = None
    note: str = ""
    others: dict[str, float] = field(default_factory=dict)
    at_least: bool = False

    @property
    def reached(self) -> bool | None:
        if self.reach is None:
            return None
        return self.value >= self.reach if self.at_least else self.value <= self.reach


def cpu_seconds() -> float:
    """What this process has used so far, in all its threads and ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(it.ru_utime + it.ru_stime for it in used)


def most_memory(pid: int | str = "self") -> int:
    """Bytes of memory that a process has had at most. ``ru_maxrss`` has its parent's in it."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def measure(rows: list[Row], rounds: int) -> list[Result]:
    """Every row in turn: all sides once in each round, after one round that is thrown away."""
    return [_measure(row, rounds) for row in rows]


def _measure(row: Row, rounds: int) -> Result:
    names = list(row.sides)
    seen: list[dict[str, Cost]] = []
    for number in range(rounds + 1):
        # Who goes first changes, so that no side always finds the caches warm.
        order = names if number % 2 else names[::-1]
        seen.append({name: _cost(row.sides[name]) for name in order})
    result = Result(row, _medians(names, seen[1:]), [_ratio(row, costs) for costs in seen[1:]])
    sys.stderr.write(f"{row.group}: {row.what}: {result.ratio:.2f}\n")
    return result


def _cost(batch: Batch) -> Cost:
    run = batch()
    cpu, wall = cpu_seconds(), time.perf_counter()
    run()
    return Cost(cpu_seconds() - cpu, time.perf_counter() - wall)


def median_cost(batch: Batch, rounds: int) -> Cost:
    """The median of several rounds, after one that is thrown away."""
    seen = [_cost(batch) for _ in range(rounds + 1)][1:]
    return Cost(*(statistics.median(each) for each in zip(*seen, strict=True)))


def _medians(names: list[str], seen: list[dict[str, Cost]]) -> dict[str, Cost]:
    def middle(name: str, which: int) -> float:
        return statistics.median(costs[name][which] for costs in seen)

    return {name: Cost(middle(name, 0), middle(name, 1)) for name in names}


def _ratio(row: Row, costs: dict[str, Cost]) -> float:
    ours, peer = (costs[name] for name in list(row.sides)[:2])
    return peer.wall / ours.wall if row.by == "speed" else ours.cpu / peer.cpu
