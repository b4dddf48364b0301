"""Measure fairly: both sides in turn in one process, CPU time, the median of several rounds.

CPU time (user and system, from ``getrusage``) and not the clock on the wall, because a shared
machine's other work moves the latter by more than the differences looked for.
"""

from __future__ import annotations

import resource
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

Batch = Callable[[], Callable[[], None]]
"""Prepares a batch, unmeasured, and returns what is measured."""


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison: ``count`` operations in a batch of each side, and the ratio to reach."""

    what: str
    count: int
    ours: Batch
    peer: Batch
    reach: float


class Result(NamedTuple):
    """Microseconds of CPU an operation takes, and the ratio with its least and greatest round."""

    row: Row
    ours: float
    peer: float
    ratio: float
    spread: tuple[float, float]


def cpu_seconds() -> float:
    """What this process has used so far, in all its threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(rows: list[Row], rounds: int) -> list[Result]:
    """Run every row once in each round, after one round that is thrown away."""
    seen: list[list[tuple[float, float]]] = [[] for _ in rows]
    for number in range(rounds + 1):
        for row, times in zip(rows, seen, strict=True):
            # Who goes first changes, so that neither side always finds the caches warm.
            first, second = (row.ours, row.peer) if number % 2 else (row.peer, row.ours)
            pair = (_cost(first, row.count), _cost(second, row.count))
            if number:
                times.append(pair if number % 2 else (pair[1], pair[0]))
    return [_result(row, times) for row, times in zip(rows, seen, strict=True)]


def _cost(batch: Batch, count: int) -> float:
    run = batch()
    before = cpu_seconds()
    run()
    return (cpu_seconds() - before) / count * 1e6


def _result(row: Row, times: list[tuple[float, float]]) -> Result:
    ratios = [ours / peer for ours, peer in times]
    return Result(
        row,
        statistics.median(ours for ours, _ in times),
        statistics.median(peer for _, peer in times),
        statistics.median(ratios),
        (min(ratios), max(ratios)),
    )


def table(results: list[Result], peer: str) -> str:
    """The results in Markdown."""
    lines = [
        f"| what | sessionstore | {peer} | ratio (least to most) | to reach |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {each.row.what} | {each.ours:.0f} us | {each.peer:.0f} us | "
        f"{each.ratio:.2f} ({each.spread[0]:.2f} to {each.spread[1]:.2f}) | {each.row.reach} |"
        for each in results
    ]
    return "\n".join(lines)
