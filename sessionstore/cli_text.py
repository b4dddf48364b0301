"""How the command line writes things: names that cannot speak to the terminal, columns, JSON.

A file's name, an id and an owner are hostile. On a terminal a control character could move the
cursor, change the title or answer for the user, and a right-to-left override could show another
name than there is. Whatever is not a printable character is written as an escape instead, and a
backslash as two, so that each name is shown in one way alone. Colours are never taken from text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from sessionstore.values import show_duration

_SECOND = timedelta(seconds=1)
_LONGEST = 48
"""Characters of an id or owner in a table; JSON has them whole."""


def plain(text: str) -> str:
    """Text on one line, with every character that is not printable written as an escape."""
    return text if text.isprintable() else "".join(map(_character, text))


def name(text: str) -> str:
    """A name as ``plain`` writes it, each backslash doubled: no two names look alike for that."""
    return plain(text.replace("\\", "\\\\"))


def short(text: str | None) -> str:
    """A name for a table, cut in the middle when it is long; "-" for None."""
    if text is None:
        return "-"
    written = name(text)
    if len(written) <= _LONGEST:
        return written
    half = (_LONGEST - 1) // 2
    return f"{written[:half]}…{written[-half:]}"


def _character(char: str) -> str:
    """A character as Python's own ``repr`` writes it."""
    return char if char.isprintable() else repr(char)[1:-1]


def when(moment: datetime | None) -> str:
    """A moment for people, to the second, in UTC; "-" for None."""
    return "-" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def span(duration: timedelta) -> str:
    """A duration for people, to the second."""
    return show_duration(duration // _SECOND * _SECOND)


def count(number: int, noun: str) -> str:
    """A number with its noun, as in "1 file" and "1,000 files"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def columns(head: Sequence[str], rows: Sequence[Sequence[str]], right: str) -> Iterator[str]:
    """Lines of a table; ``right`` has an "r" for each column that is flush right, as "lrl".

    Nothing is cut or wrapped: a terminal does that itself, and shows all.
    """
    from rich.cells import cell_len

    every = [tuple(head), *rows]
    widths = [max(cell_len(row[at]) for row in every) for at in range(len(head))]
    for row in every:
        cells = []
        for at, cell in enumerate(row):
            room = " " * (widths[at] - cell_len(cell))
            cells.append(room + cell if right[at] == "r" else cell + room)
        yield "  ".join(cells).rstrip()


def documents(values: Iterable[object]) -> Iterator[str]:
    """The pieces of a JSON list, one value a line, none of them kept."""
    before = "["
    for value in values:
        yield f"{before}\n  {document(value)}"
        before = ","
    yield "[]\n" if before == "[" else "\n]\n"


def document(value: object) -> str:
    """A value as JSON, all of it ASCII: names cannot speak to the terminal here either."""
    return json.dumps(value, default=_as_json)


def _as_json(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return str(value)
