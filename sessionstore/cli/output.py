"""The output of commands: tables or JSON on stdout, errors on stderr, the exit status."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.style import Style
from rich.table import Table
from rich.text import Text

from sessionstore.cli import text as cli_text
from sessionstore.verification import Finding

HEAD = Style(bold=True)

Advance = Callable[[int], None]
"""Move a progress bar on by a number of steps or bytes."""


class Status(IntEnum):
    """The exit statuses of a command."""

    DONE = 0
    """The command succeeded."""

    FAILED = 1
    """The command failed: the store did not respond, a limit was reached, or bytes are damaged."""

    USAGE = 2
    """The command did not start: the command line or a setting is wrong, or a name is ambiguous."""

    MISSING = 3
    """The session or file does not exist."""

    FOUND = 4
    """The command found a problem: damaged files, an unsafe bucket, or a sweep held back."""

    INTERRUPTED = 130
    """The user pressed Ctrl-C; shells use the same number."""


def write(text: str) -> None:
    """Write text to stdout unchanged."""
    sys.stdout.write(text)


def note(text: str) -> None:
    """Write a line to stderr for a person who watches; a script need not read it."""
    sys.stderr.write(f"{cli_text.plain(text)}\n")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> None:
    """Write aligned columns to a terminal, or tab-separated lines without a heading, for ``cut``.

    The caller has escaped the cells. ``right`` has one letter for each column: "r" aligns it to the
    right and "l" to the left, as in "lrl".
    """
    if not sys.stdout.isatty():
        for row in rows:
            write("\t".join(row) + "\n")
        return
    lines = cli_text.columns(head, rows, right or "l" * len(head))
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


def findings(listed: Sequence[Finding]) -> None:
    """Write a table of findings; write nothing if the list is empty."""
    rows = [
        (finding.kind, cli_text.short(finding.session_id),
         cli_text.name(finding.name or finding.place), "yes" if finding.repaired else "no",
         cli_text.plain(f"{finding.problem} {finding.remedy}"))
        for finding in listed
    ]  # fmt: skip
    if rows:
        wrapped(["KIND", "SESSION", "WHERE", "REPAIRED", "PROBLEM"], rows)


def as_json(value: object) -> None:
    """Write one JSON document."""
    write(cli_text.document(value) + "\n")


def as_json_list(values: Iterable[object]) -> None:
    """Write a JSON list, each value as soon as the iterator gives it."""
    for piece in cli_text.documents(values):
        write(piece)


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
    columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn("{task.description}")]
    if total is not None:
        columns.append(BarColumn())
    if in_bytes:
        columns += [DownloadColumn(), TransferSpeedColumn()]
    elif counts:
        columns.append(MofNCompleteColumn())
    columns.append(TimeElapsedColumn() if total is None else TimeRemainingColumn())
    bar = Progress(
        *columns, console=console, transient=True,
        redirect_stdout=False,  # rich would send output that is meant for a pipe to the terminal
        redirect_stderr=False,
    )  # fmt: skip
    with bar:
        task = bar.add_task(doing, total=total)
        yield lambda more: bar.advance(task, more)
