"""The commands that maintain a store: plan, sweep, verify, doctor."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence

import typer

from sessionstore.cli import options as opt
from sessionstore.cli import output
from sessionstore.cli.output import count, plain, short
from sessionstore.cli.stores import counted, counted_reads, opened, reads, settings_of
from sessionstore.doctor import doctor as examine
from sessionstore.events import Event
from sessionstore.parsers import show_size
from sessionstore.plan import PlanRow
from sessionstore.settings.resolver import OF_RETENTION
from sessionstore.store import SessionStore


def plan(*, store_url: opt.Store = None, json: opt.Json = False) -> None:
    """Show what the next sweep would delete, and why (a dry run).

    Each row is a session or file to delete, or an expired one that is held back, with the reason.

    Example: sessionstore plan --store file:///srv/files
    """
    with opened(store_url) as store:
        rows = _planned(store)
    _show(rows, json=json)


def _planned(store: SessionStore) -> list[PlanRow]:
    with output.progress("Reading sessions") as advance:
        counted(store, advance)
        return store.plan()


def _show(rows: Sequence[PlanRow], *, json: bool) -> None:
    if json:
        names = ("action", "session_id", "owner", "name", "size", "reason")
        output.as_json_list(output.fields(row, *names) for row in rows)
        return
    output.table(
        ["ACTION", "SESSION", "OWNER", "FILE", "SIZE", "REASON"],
        [
            (row.action, short(row.session_id), short(row.owner), short(row.name),
             show_size(row.size), plain(row.reason))
            for row in rows
        ],
        "llllrl",
    )  # fmt: skip
    output.note(_summary(rows))


def _summary(rows: Iterable[PlanRow]) -> str:
    counts = Counter(row.action for row in rows)
    size = show_size(sum(row.size for row in rows if row.action != "hold"))
    return (
        f"{count(counts['drop'], 'session')} and {count(counts['delete'], 'file')} to "
        f"delete, {size}; {counts['hold']:,} held."
    )


def sweep(
    *,
    store_url: opt.Store = None,
    dry_run: opt.DryRun = False,
    yes: opt.Yes = False,
    json: opt.Json = False,
) -> None:
    """Delete expired sessions and files, then garbage-collect unreferenced content.

    Uses this shell's settings. If the app sets `retention=` in Python, they differ: review the
    plan before confirming. Without --yes the totals are shown first, and the command asks on a
    terminal; without a terminal it deletes nothing.

    Example: sessionstore sweep --dry-run
    """
    with opened(store_url) as store:
        if dry_run:
            _show(_planned(store), json=json)
            return
        if not yes:
            _ask(store, store_url)
        held: list[Event] = []
        store.on("sweep_held", held.append)
        with output.progress("Sweeping") as advance:
            counted(store, advance)
            rows = store.sweep()
    _show(rows, json=json)
    for event in held:
        output.note(f"Held: {event.reason}")
    if held:
        raise typer.Exit(output.Status.FOUND)


def _ask(store: SessionStore, store_url: str | None) -> None:
    """Show the totals of the plan and ask for a confirmation. No terminal counts as a no."""
    rows = _planned(store)
    ages = ", ".join(
        f"{setting.name}={setting.value} ({setting.source})"
        for setting in settings_of(store_url).shown()
        if setting.name in OF_RETENTION
    )
    output.note(f"Effective retention: {ages}.")
    output.note(_summary(rows))
    if not sys.stdin.isatty():
        output.note("Nothing was deleted: pass --yes to sweep without a terminal.")
        raise typer.Exit(output.Status.USAGE)
    if not typer.confirm("Sweep?", err=True):
        output.note("Nothing was deleted.")
        raise typer.Exit


def doctor(url: opt.Url = None, *, store_url: opt.Store = None, json: opt.Json = False) -> None:
    """Check whether a directory or bucket is safe to use as a store.

    Each check has a verdict and a remedy. Run it before you create a store, or beside a running
    one: no store is created, and the files that the checks write are removed.

    Example: sessionstore doctor file:///srv/files
    """
    with output.progress("Checking the store's location", counts=False):
        report = examine(url or store_url)
    if json:
        checks = [output.fields(check) for check in report.checks]
        output.as_json({"url": report.url, "safe": report.safe, "checks": checks})
    else:
        rows = [(check.verdict, plain(check.what), plain(check.words))
                for check in report.checks]  # fmt: skip
        output.wrapped(["VERDICT", "CHECK", "FOUND"], rows)
        output.note(str(report).partition("\n")[0])
    if not report.safe:
        raise typer.Exit(output.Status.FOUND)


def verify(
    *, store_url: opt.Store = None, repair: opt.Repair = False, json: opt.Json = False
) -> None:
    """Verify the checksum of every stored file.

    Finds damaged, missing, unknown and orphaned content. The exit status is 4 if there is a
    finding.

    Example: sessionstore verify --repair
    """
    with opened(store_url) as store:
        total = reads(store)
        with output.progress("Reading all content", total, counts=total is not None) as advance:
            counted_reads(store, advance)
            findings = store.verify(repair=repair)
    if json:
        output.as_json_list(output.fields(finding) for finding in findings)
    else:
        output.findings(findings, "" if repair else "With --repair: ")
        output.note(f"{count(len(findings), 'finding')}.")
    if findings:
        raise typer.Exit(output.Status.FOUND)
