"""Parts of pages: HTML from Jinja templates, as the value of a ``gr.HTML``.

Jinja escapes every value. ``gr.HTML`` of Gradio 6 is a template itself, so the characters that have
a meaning in it are escaped too.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from datetime import UTC, timedelta
from importlib.resources import files
from typing import Any, Final

import gradio as gr
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from sessionstore.adapters.gradio import admin
from sessionstore.parsers import show_duration, show_size

PRIVATE: Final[dict[str, Any]] = (
    {"api_visibility": "private"}
    if "api_visibility" in inspect.signature(gr.on).parameters
    else {"api_name": False}
)
"""The option of an event that is not part of the API: another one until Gradio 5."""

STYLE: Final = files(admin.__name__).joinpath("style.css").read_text("utf-8")
"""The style of all pages."""

_SECOND: Final = timedelta(seconds=1)
_CODES: Final = str.maketrans({each: f"&#{ord(each)};" for each in "{}$`"})


def span(duration: timedelta) -> str:
    """Return a duration for people, in its largest two units; empty if shorter than a second."""
    minutes, seconds = divmod(max(duration // _SECOND, 0), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = ((days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s"))
    first = next((place for place, (count, _) in enumerate(units) if count), None)
    if first is None:
        return ""
    shown = units[first : first + (2 if hours or days else 1)]
    return " ".join(f"{count}{unit}" for count, unit in shown if count)


def counted(number: int, noun: str) -> str:
    """Return "1 file", "2 files"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _ago(duration: timedelta) -> str:
    return f"{shown} ago" if (shown := span(duration)) else "now"


def _short(owner: str) -> str:
    """Return an owner for people: of the digest of a cookie eight digits are enough."""
    return re.sub(r"^(visitor-(?:program-)?[0-9a-f]{8})[0-9a-f]{24}$", r"\1…", owner)


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else 0


def renderer(package: str) -> Callable[..., str]:
    """Return a function that renders a template of this package by its name, with its values."""
    loaders = [PackageLoader(package), PackageLoader(admin.__name__)]  # the macros are shared
    environment = Environment(
        loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "ago": _ago, "count": counted, "number": "{:,}".format, "short": _short,
        "size": show_size, "span": span, "percent": _percent,
        "whole": lambda time: show_duration(timedelta(seconds=time // _SECOND)),
        "utc": lambda at, form: f"{at.astimezone(UTC):{form}} UTC",
    }  # fmt: skip

    def piece(name: str, **values: object) -> str:
        return environment.get_template(f"{name}.html").render(values).translate(_CODES)

    return piece
