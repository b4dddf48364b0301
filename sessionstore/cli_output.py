"""Where a command's answer goes: a table or JSON to stdout, progress and errors to stderr."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

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

from sessionstore import cli_text
from sessionstore.verification import Finding

HEAD = Style(bold=True)

Advance = Callable[[int], None]
"""Say that so much more is done."""


def write(text: str) -> None:
    """To stdout, as it is."""
    sys.stdout.write(text)


def note(text: str) -> None:
    """A line to stderr for whoever watches; scripts need not read it."""
    sys.stderr.write(f"{cli_text.plain(text)}\n")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> None:
    """Aligned columns on a terminal; elsewhere lines with tabs and no heading, for ``cut``.

    The cells are escaped already. ``right`` says which columns are flush right, as "lrl".
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
    """A short table of long texts, each wrapped in its column."""
    if not sys.stdout.isatty():
        table(head, rows)
        return
    made = Table(box=None, pad_edge=False, header_style=HEAD, padding=(0, 2, 0, 0))
    for each in head:
        made.add_column(each, overflow="fold")
    for row in rows:
        made.add_row(*map(Text, row))  # Text: nothing in a cell is markup
    Console(highlight=False).print(made)


def findings(found: Sequence[Finding]) -> None:
    """A table of findings, nothing when there are none."""
    rows = [
        (each.kind, cli_text.short(each.session_id), cli_text.name(each.name or each.place),
         "yes" if each.repaired else "no", cli_text.plain(f"{each.problem} {each.remedy}"))
        for each in found
    ]  # fmt: skip
    if rows:
        wrapped(["KIND", "SESSION", "WHERE", "REPAIRED", "PROBLEM"], rows)


def as_json(value: object) -> None:
    """One JSON document."""
    write(cli_text.document(value) + "\n")


def as_json_list(values: Iterable[object]) -> None:
    """A JSON list, written as its values come."""
    for piece in cli_text.documents(values):
        write(piece)


def fields(value: object, *names: str) -> Mapping[str, object]:
    """The fields of a dataclass or named tuple, for JSON; all of them without names."""
    if not names and dataclasses.is_dataclass(value):
        names = tuple(each.name for each in dataclasses.fields(value))
    return {each: getattr(value, each) for each in names}


@contextlib.contextmanager
def progress(
    doing: str, total: int | None = None, *, in_bytes: bool = False, counts: bool = True
) -> Iterator[Advance]:
    """A bar while the block runs, where stderr is a terminal; it leaves no trace.

    ``total`` is a number of things or bytes, None when nobody knows. Without ``counts`` there is
    nothing to count but the time.
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
        redirect_stdout=False,  # or what is written to a pipe goes through it, to the terminal
        redirect_stderr=False,
    )  # fmt: skip
    with bar:
        task = bar.add_task(doing, total=total)
        yield lambda more: bar.advance(task, more)
