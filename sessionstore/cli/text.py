"""Text output of the command line: escaped names, columns, JSON.

A file's name, an id and an owner are hostile. On a terminal a control character could move the
cursor, change the title or type a reply for the user. A bidi control character, such as the
right-to-left override, could make a name look like another one. Each character that is not
printable is therefore written as an escape, and a backslash as two: two names never look alike.
Colours are never taken from text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from sessionstore.parsers import show_duration

_SECOND = timedelta(seconds=1)
_LONGEST = 48
"""The most characters of an id or owner in a table; JSON has all of them."""


def plain(text: str) -> str:
    """Return text on one line, with each unprintable character written as an escape."""
    return text if text.isprintable() else "".join(map(_character, text))


def name(text: str) -> str:
    """Return a name as ``plain`` does, each backslash doubled: two names never look alike."""
    return plain(text.replace("\\", "\\\\"))


def short(text: str | None) -> str:
    """Return a name for a table, cut in the middle if it is long; "-" for None."""
    if text is None:
        return "-"
    written = name(text)
    if len(written) <= _LONGEST:
        return written
    half = (_LONGEST - 1) // 2
    return f"{written[:half]}…{written[-half:]}"


def _character(char: str) -> str:
    """Return a character as Python's ``repr`` writes it."""
    return char if char.isprintable() else repr(char)[1:-1]


def when(moment: datetime | None) -> str:
    """Return a time for people to read, to the second, in UTC; "-" for None."""
    return "-" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def span(duration: timedelta) -> str:
    """Return a duration for people to read, to the second."""
    return show_duration(duration // _SECOND * _SECOND)


def count(number: int, noun: str) -> str:
    """Return a number with its noun, as in "1 file" and "1,000 files"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def columns(head: Sequence[str], rows: Sequence[Sequence[str]], right: str) -> Iterator[str]:
    """Return the lines of a table; ``right`` has an "r" for each right-aligned column, as "lrl".

    Nothing is cut or wrapped: the terminal wraps long lines and shows everything.
    """
    from rich.cells import cell_len

    lines = [tuple(head), *rows]
    widths = [max(cell_len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = []
        for column, cell in enumerate(line):
            padding = " " * (widths[column] - cell_len(cell))
            cells.append(padding + cell if right[column] == "r" else cell + padding)
        yield "  ".join(cells).rstrip()


def documents(values: Iterable[object]) -> Iterator[str]:
    """Return the pieces of a JSON list, one value a line, without keeping the values."""
    opening = "["
    for value in values:
        yield f"{opening}\n  {document(value)}"
        opening = ","
    yield "[]\n" if opening == "[" else "\n]\n"


def document(value: object) -> str:
    """Return a value as JSON in ASCII, so that names cannot control the terminal here either."""
    return json.dumps(value, default=_as_json)


def _as_json(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)
