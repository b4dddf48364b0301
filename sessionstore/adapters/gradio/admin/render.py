"""Render the parts of the dashboard as HTML, from ``templates/``.

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

from sessionstore.adapters.gradio.admin.snapshot import ORDERS, Sample, Snapshot, Watch
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

    From Gradio 6 on, the value is a template again, and braces and ``$`` have a meaning in it.
    """
    return _environment.get_template(f"{name}.html").render(values).translate(_CODES)


def failure(error: Exception) -> str:
    """Render ``error``, raised by the store."""
    return piece("failure", error=error, kind=type(error).__name__)


def head(snapshot: Snapshot, store: SessionStore) -> str:
    """Render the URL of ``store``, or the kind of its backend, and the time of ``snapshot``."""
    kind = type(store.backend).__name__.removesuffix("Backend")
    url = store.location or f"{kind} store"
    return piece("head", url=url, digest=store.backend.digest, at=snapshot.at)


def overview(snapshot: Snapshot, seen: Watch, store: SessionStore, *, exposed: bool) -> str:
    """Render the numbers of ``snapshot`` and of this process (``seen``), the chart and the health.

    ``exposed`` adds the warning that everyone can see the page.
    """
    samples, limits = list(seen.samples), store.ledger.limits
    top = max((each.bytes for each in samples), default=0) or 1
    full = limits.max_store
    return piece(
        "overview", snapshot=snapshot, seen=seen, exposed=exposed, samples=samples, top=top,
        line=_line(samples, top), saved=max(snapshot.bytes - snapshot.stored.bytes, 0),
        low=snapshot.free is not None and snapshot.free < (limits.min_free or 0),
        full=full, nearly_full=full is not None and snapshot.stored.bytes > full * 9 // 10,
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
    # The line stays away from the edges: they would cut off half of its width.
    return " ".join(f"{600 * x:.1f},{118 - 108 * size / top:.1f}" for x, size in points)


def sessions(snapshot: Snapshot, limit: int) -> str:
    """Render the table of the sessions of ``snapshot``, at most ``limit`` of them."""
    largest = max((row.bytes for row in snapshot.rows), default=0)
    return piece("sessions", snapshot=snapshot, limit=limit, orders=ORDERS, largest=largest)


def plan(rows: Sequence[PlanRow], limit: int, *, swept: bool = False) -> str:
    """Render at most ``limit`` of ``rows``: the plan of a sweep, or its result if ``swept``."""
    deleted = [row for row in rows if row.action != "hold"]
    held = [row for row in rows if row.action == "hold"]
    return piece(
        "plan", rows=[*deleted, *held][:limit], total=len(rows), swept=swept,
        deleted=_number_of(deleted), held=_number_of(held) if held else None,
        size=sum(row.size for row in deleted) if deleted else None,
    )  # fmt: skip


def _number_of(rows: Sequence[PlanRow]) -> str:
    sessions = sum(row.name is None for row in rows)
    counts = [(sessions, "session"), (len(rows) - sessions, "file")]
    return " and ".join(_count(*each) for each in counts if each[0]) or "nothing"
