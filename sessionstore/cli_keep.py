"""The commands that look after a store: plan, sweep, verify, doctor."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence

import typer

from sessionstore import cli_output as output
from sessionstore import cli_text as text
from sessionstore.cli_options import DryRun, Json, Repair, Store, Url, Yes
from sessionstore.cli_status import FOUND, USAGE
from sessionstore.cli_store import counted, counted_reads, opened, reads, settings_of
from sessionstore.doctor import doctor as examine
from sessionstore.events import Event
from sessionstore.retention import PlanRow
from sessionstore.settings import OF_RETENTION
from sessionstore.store import SessionStore
from sessionstore.values import show_size


def plan(*, store: Store = None, json: Json = False) -> None:
    """Show what a sweep would do now, and why.

    A row, with its reason, for each session or file that would go, or is held although its time is
    up.
    """
    with opened(store) as place:
        rows = _planned(place)
    _show(rows, json=json)


def _planned(place: SessionStore) -> list[PlanRow]:
    with output.progress("Looking at sessions") as advance:
        counted(place, advance)
        return place.plan()


def _show(rows: Sequence[PlanRow], *, json: bool) -> None:
    if json:
        names = ("action", "session_id", "owner", "name", "size", "reason")
        output.as_json_list(output.fields(row, *names) for row in rows)
        return
    output.table(
        ["ACTION", "SESSION", "OWNER", "FILE", "SIZE", "REASON"],
        [
            (row.action, text.short(row.session_id), text.short(row.owner), text.short(row.name),
             show_size(row.size), text.plain(row.reason))
            for row in rows
        ],
        "llllrl",
    )  # fmt: skip
    output.note(_summary(rows))


def _summary(rows: Iterable[PlanRow]) -> str:
    counts = Counter(row.action for row in rows)
    size = show_size(sum(row.size for row in rows if row.action != "hold"))
    return (
        f"{text.count(counts['drop'], 'session')} and {text.count(counts['delete'], 'file')} to "
        f"go, {size}; {counts['hold']:,} held."
    )


def sweep(
    *, store: Store = None, dry_run: DryRun = False, yes: Yes = False, json: Json = False
) -> None:
    """Delete what is over its time.

    And collect what nothing refers to.

    The ages are those of the settings in force here. An app that passes its own in Python has
    others: without --yes what would go is counted first, and a terminal is asked.
    """
    with opened(store) as place:
        if dry_run:
            _show(_planned(place), json=json)
            return
        if not yes:
            _ask(place, store)
        held: list[Event] = []
        place.on("sweep_held", held.append)
        with output.progress("Sweeping") as advance:
            counted(place, advance)
            rows = place.sweep()
    _show(rows, json=json)
    for event in held:
        output.note(f"Held: {event.reason}")
    if held:
        raise typer.Exit(FOUND)


def _ask(place: SessionStore, store: str | None) -> None:
    """Show what would go, and ask. Nobody to ask is a no."""
    rows = _planned(place)
    output.note(f"The ages in force: {_ages(store)}.")
    output.note(_summary(rows))
    if not sys.stdin.isatty():
        output.note("Nothing was deleted: say --yes where nobody can be asked.")
        raise typer.Exit(USAGE)
    if not typer.confirm("Sweep?", err=True):
        output.note("Nothing was deleted.")
        raise typer.Exit


def _ages(store: str | None) -> str:
    shown = [each for each in settings_of(store).shown() if each.name in OF_RETENTION]
    return ", ".join(f"{each.name}={each.value} ({each.source})" for each in shown)


def doctor(url: Url = None, *, store: Store = None, json: Json = False) -> None:
    """Look whether a store is safe at a place.

    Before one is kept there, or beside one: what is found, and what to do about it. No store is
    made, and what the doctor wrote is removed.
    """
    with output.progress("Looking at the place", counts=False):
        report = examine(url or store)
    if json:
        checks = [output.fields(each) for each in report.checks]
        output.as_json({"url": report.url, "safe": report.safe, "checks": checks})
    else:
        rows = [(each.verdict, text.plain(each.what), text.plain(each.words))
                for each in report.checks]  # fmt: skip
        output.wrapped(["VERDICT", "CHECK", "FOUND"], rows)
        output.note(str(report).partition("\n")[0])
    if not report.safe:
        raise typer.Exit(FOUND)


def verify(*, store: Store = None, repair: Repair = False, json: Json = False) -> None:
    """Read all content, and find what is not right.

    What is damaged, missing, unknown or left over; with --repair what can be mended is, as each
    finding says.
    """
    with opened(store) as place:
        total = reads(place)
        with output.progress("Reading all content", total, counts=total is not None) as advance:
            counted_reads(place, advance)
            found = place.verify(repair=repair)
    if json:
        output.as_json_list(output.fields(each) for each in found)
    else:
        output.findings(found)
        output.note(f"{text.count(len(found), 'finding')}.")
    if found:
        raise typer.Exit(FOUND)
