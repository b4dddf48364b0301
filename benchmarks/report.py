"""Results as JSON and as Markdown tables with bars."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter
from typing import Any

from benchmarks.harness import OURS, Cost, Figure, Result, Row

_WIDTH = 10
"""Characters of a bar that stands for what the peer takes."""

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_MANY = 10_000
"""Microseconds from which on a time is given in milliseconds."""

_VERDICT = {True: "reached", False: "**not reached**", None: ""}


def machine() -> str:
    """The machine in general words."""
    return f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"


def markdown(results: Iterable[Result | Figure]) -> str:
    """One table for each group of comparisons, and one for its figures."""
    text: list[str] = []
    for group, some in groupby(results, _group):
        found = list(some)
        text += [f"### {group}", ""]
        rows = [it for it in found if isinstance(it, Result)]
        figures = [it for it in found if isinstance(it, Figure)]
        text += [*_comparisons(rows), ""] if rows else []
        text += [*_figures(figures), ""] if figures else []
    return "\n".join(text)


def _group(result: Result | Figure) -> str:
    return result.group if isinstance(result, Figure) else result.row.group


def _comparisons(results: list[Result]) -> list[str]:
    lines = [
        "| what | beside | of its time (of rounds) | | to reach | CPU: ours, theirs | wall |",
        "|---|---|---:|:---|---|---:|---:|",
    ]
    for result in results:
        lines += _lines(result)
    return lines


def _lines(result: Result) -> Iterable[str]:
    row, (ours, *peers) = result.row, result.sides.items()
    for number, (name, peer) in enumerate(peers):
        first = number == 0
        ratio = result.ratio if first else _plain(row, ours[1], peer)
        spread = f" ({min(result.ratios):.2f} to {max(result.ratios):.2f})" if first else ""
        goal = f"{_goal(row)} {_VERDICT[result.reached]}".strip() if first else ""
        share = ratio if row.by == "cpu" else 1 / ratio
        what = row.what + (f"; {row.note}" if row.note and first else "")
        yield (
            f"| {what if first else ''} | {name} | {ratio:.2f}{'x' * (row.by == 'speed')}{spread} "
            f"| {_bar(share)} | {goal} | {_each(row, ours[1].cpu)}, {_each(row, peer.cpu)} "
            f"| {_each(row, ours[1].wall)}, {_each(row, peer.wall)} |"
        )


def _plain(row: Row, ours: Cost, peer: Cost) -> float:
    return peer.wall / ours.wall if row.by == "speed" else ours.cpu / max(peer.cpu, 1e-9)


def _goal(row: Row) -> str:
    if row.reach is None:
        return ""
    return f">= {row.reach}x" if row.by == "speed" else f"<= {row.reach}"


def _each(row: Row, seconds: float) -> str:
    """The time of one operation, or of a gibibyte."""
    if row.unit == "byte":
        return f"{seconds / row.count * 2**30:.2f} s/GiB"
    micros = seconds / row.count * 1e6
    return f"{micros:.0f} us" if micros < _MANY else f"{micros / 1000:.0f} ms"


def _bar(share: float) -> str:
    """A bar as long as the share of the peer's time, the peer's own being ``_WIDTH``."""
    eighths = min(round(share * _WIDTH * 8), 3 * _WIDTH * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _figures(figures: list[Figure]) -> list[str]:
    lines = ["| what | measured | to reach | beside |", "|---|---:|---|---|"]
    for it in figures:
        sign = ">=" if it.at_least else "<="
        goal = "" if it.reach is None else f"{sign} {it.reach:g} {_VERDICT[it.reached]}"
        beside = ", ".join(f"{name} {value:.3g}" for name, value in it.others.items())
        what = it.what + (f"; {it.note}" if it.note else "")
        lines.append(f"| {what} | {it.value:.3g} {it.unit} | {goal} | {beside} |")
    return lines


def as_json(results: Iterable[Result | Figure], about: dict[str, Any]) -> str:
    """Everything, for machines."""
    return json.dumps({**about, "results": [_row(it) for it in results]}, indent=1)


def _row(result: Result | Figure) -> dict[str, Any]:
    if isinstance(result, Figure):
        names = ("group", "what", "value", "unit", "reach", "reached", "note", "others")
        return dict(zip(names, attrgetter(*names)(result), strict=True))
    row = result.row
    return {
        "group": row.group, "what": row.what, "note": row.note, "count": row.count, "by": row.by,
        "unit": row.unit, "ratio": result.ratio, "ratios": result.ratios, "reach": row.reach,
        "reached": result.reached, "ours": OURS,
        "sides": {name: cost._asdict() for name, cost in result.sides.items()},
    }  # fmt: skip
