"""Render the dashboard's pieces as HTML from ``templates/``.

Colours and fonts in ``style.css`` are the variables of Gradio's theme, so light, dark and an app's
own theme apply here too. The layout follows the width of its place and not of the window: where it
is narrow, the rows of a table become cards.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from sessionstore.adapters.gradio.admin.snapshot import ORDERS, Look, Sample, Watch
from sessionstore.parsers import show_size
from sessionstore.retention import PlanRow
from sessionstore.store import SessionStore

STYLE: Final = files(__package__).joinpath("style.css").read_text("utf-8")
SCROLL_BACK: Final = files(__package__).joinpath("scroll_back.js").read_text("utf-8")
"""The script that gives each new table the scroll position of the table before it."""

_CODES: Final = str.maketrans({each: f"&#{ord(each)};" for each in "{}$`"})


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _ago(duration: timedelta) -> str:
    minutes, seconds = divmod(max(duration // timedelta(seconds=1), 0), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = ((days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s"))
    first = next((place for place, (count, _) in enumerate(units) if count), None)
    if first is None:
        return "now"
    shown = units[first : first + (2 if hours or days else 1)]
    return " ".join(f"{count}{unit}" for count, unit in shown if count) + " ago"


def _utc(at: datetime, form: str) -> str:
    return f"{at.astimezone(UTC):{form}} UTC"


_environment = Environment(
    loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip
_environment.filters |= {
    "ago": _ago, "count": _count, "number": "{:,}".format, "percent": _percent, "size": show_size,
    "utc": _utc,
}  # fmt: skip


def piece(name: str, **values: object) -> str:
    """Render the template ``name`` with ``values``, safe to give to a ``gr.HTML``.

    From Gradio 6 on its HTML is a template once more, where braces and ``$`` have a meaning.
    """
    return _environment.get_template(f"{name}.html").render(values).translate(_CODES)


def failure(error: Exception) -> str:
    """Render ``error``, with which the store answered."""
    return piece("failure", error=error, kind=type(error).__name__)


def head(look: Look, store: SessionStore) -> str:
    """Render the name of ``store`` and the time of ``look``."""
    kind = type(store.backend).__name__.removesuffix("Backend")
    return piece("head", kind=kind, digest=store.backend.digest, at=look.at)


def overview(look: Look, seen: Watch, store: SessionStore, *, exposed: bool) -> str:
    """Render the numbers, the chart and the health, with a warning when ``exposed``."""
    samples, limits = list(seen.samples), store.ledger.limits
    top = max((each.bytes for each in samples), default=0) or 1
    full = limits.max_store
    return piece(
        "overview", look=look, seen=seen, exposed=exposed, samples=samples, top=top,
        line=_line(samples, top), saved=max(look.bytes - look.stored.bytes, 0),
        low=look.free is not None and look.free < (limits.min_free or 0),
        full=full, nearly_full=full is not None and look.stored.bytes > full * 9 // 10,
    )  # fmt: skip


def _line(samples: Sequence[Sample], top: int) -> str:
    """Return the points of ``samples`` in the view box of the chart, 600 wide and 120 high."""
    if not samples:
        return ""
    first, last = samples[0], samples[-1]
    span = last.at - first.at
    points = [(0.0, last.bytes), (1.0, last.bytes)]
    if span > timedelta(0):
        points = [((each.at - first.at) / span, each.bytes) for each in samples]
    # Not up to the edges, where half of the line's width would be cut off.
    return " ".join(f"{600 * x:.1f},{118 - 108 * size / top:.1f}" for x, size in points)


def sessions(look: Look, most: int) -> str:
    """Render the table of sessions; ``most`` is the number of rows that the page may have."""
    largest = max((row.bytes for row in look.rows), default=0)
    return piece("sessions", look=look, most=most, orders=ORDERS, largest=largest)


def plan(rows: Sequence[PlanRow], most: int, *, swept: bool = False) -> str:
    """Render ``rows``, at most ``most`` of them: a sweep's plan, or its result when ``swept``."""
    deleted = [row for row in rows if row.action != "hold"]
    held = [row for row in rows if row.action == "hold"]
    return piece(
        "plan", rows=[*deleted, *held][:most], total=len(rows), swept=swept,
        deleted=_number_of(deleted), held=_number_of(held),
        size=sum(row.size for row in deleted) if deleted else None,
    )  # fmt: skip


def _number_of(rows: Sequence[PlanRow]) -> str:
    sessions = sum(row.name is None for row in rows)
    counts = [(sessions, "session"), (len(rows) - sessions, "file")]
    return " and ".join(_count(*each) for each in counts if each[0]) or "nothing"
