"""The output of commands: tables or JSON on stdout, errors on stderr, the exit status.

A file's name, an id and an owner are hostile. On a terminal a control character could move the
cursor, change the title or type a reply for the user. A bidi control character, such as the
right-to-left override, could make a name look like another one. Each character that is not
printable is therefore written as an escape, and a backslash as two: two names never look alike.
Colours are never taken from text.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from enum import IntEnum

from rich import progress as bars
from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from sessionstore.parsers import show_duration
from sessionstore.verification import Finding

HEAD = Style(bold=True)

Advance = Callable[[int], None]  # moves a progress bar on by a number of steps or bytes


class Status(IntEnum):
    """The exit statuses of a command."""

    DONE = 0
    FAILED = 1  # the store did not respond, a limit was reached, or bytes are damaged
    USAGE = 2  # the command line or a setting is wrong, or a name is ambiguous
    MISSING = 3  # the session or file does not exist
    FOUND = 4  # damaged files, an unsafe bucket, or a sweep held back
    INTERRUPTED = 130  # by Ctrl-C; shells use the same number


def write(text: str) -> None:
    """Write text to stdout unchanged."""
    sys.stdout.write(text)


def note(line: str) -> None:
    """Write a line to stderr for a person who watches; a script need not read it."""
    sys.stderr.write(f"{plain(line)}\n")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> None:
    """Write aligned columns to a terminal, or tab-separated lines without a heading, for ``cut``.

    The caller has escaped the cells. ``right`` has one letter for each column: "r" aligns it to the
    right and "l" to the left, as in "lrl".
    """
    if not sys.stdout.isatty():
        for row in rows:
            write("\t".join(row) + "\n")
        return
    lines = columns(head, rows, right or "l" * len(head))
    Console(highlight=False).print(
        Text(next(lines), HEAD), overflow="ignore", no_wrap=True, crop=False
    )
    for line in lines:
        write(line + "\n")


def wrapped(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a short table of long texts, each wrapped in its column."""
    if not sys.stdout.isatty():
        table(head, rows)
        return
    grid = Table(box=None, pad_edge=False, header_style=HEAD, padding=(0, 2, 0, 0))
    for title in head:
        grid.add_column(title, overflow="fold")
    for row in rows:
        grid.add_row(*map(Text, row))  # Text: rich must not take a hostile name for markup
    Console(highlight=False).print(grid)


def findings(listed: Sequence[Finding], before_remedy: str = "") -> None:
    """Write a table of findings; write nothing if the list is empty."""
    rows = [
        (finding.kind, short(finding.session_id),
         name(finding.name or finding.place), "yes" if finding.repaired else "no",
         plain(f"{finding.problem} {before_remedy}{finding.remedy}"))
        for finding in listed
    ]  # fmt: skip
    if rows:
        wrapped(["KIND", "SESSION", "WHERE", "REPAIRED", "PROBLEM"], rows)


def as_json(value: object) -> None:
    """Write one JSON document."""
    write(document(value) + "\n")


def as_json_list(values: Iterable[object]) -> None:
    """Write a JSON list, each value as soon as the iterator gives it."""
    sys.stdout.writelines(documents(values))


def fields(value: object, *names: str) -> Mapping[str, object]:
    """Return fields of a dataclass or named tuple for JSON; without ``names``, all of them."""
    if not names and dataclasses.is_dataclass(value):
        names = tuple(field.name for field in dataclasses.fields(value))
    return {name: getattr(value, name) for name in names}


@contextlib.contextmanager
def progress(
    doing: str, total: int | None = None, *, in_bytes: bool = False, counts: bool = True
) -> Iterator[Advance]:
    """Show a progress bar while the block runs if stderr is a terminal; remove it afterwards.

    ``total`` is a number of steps, or of bytes with ``in_bytes``; None if it is unknown. Without
    ``counts`` the bar shows only the elapsed time.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    columns: list[bars.ProgressColumn] = [
        bars.SpinnerColumn(), bars.TextColumn("{task.description}")
    ]  # fmt: skip
    if total is not None:
        columns.append(bars.BarColumn())
    if in_bytes:
        columns += [bars.DownloadColumn(), bars.TransferSpeedColumn()]
    elif counts:
        columns.append(bars.MofNCompleteColumn())
    columns.append(bars.TimeElapsedColumn() if total is None else bars.TimeRemainingColumn())
    bar = bars.Progress(
        *columns, console=console, transient=True,
        redirect_stdout=False,  # rich would send output that is meant for a pipe to the terminal
        redirect_stderr=False,
    )  # fmt: skip
    with bar:
        task = bar.add_task(doing, total=total)
        yield lambda more: bar.advance(task, more)


# Text: escaped names, times and sizes, columns, JSON

_SECOND = timedelta(seconds=1)
_LONGEST = 48  # characters of an id or owner in a table; JSON has all of them


def plain(text: str) -> str:
    """Return text on one line, with each unprintable character written as an escape."""
    # As Python's ``repr`` writes it.
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


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
    lines = [head, *rows]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = []
        for cell, width, side in zip(line, widths, right, strict=True):
            padding = " " * (width - cell_len(cell))
            cells.append(padding + cell if side == "r" else cell + padding)
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
