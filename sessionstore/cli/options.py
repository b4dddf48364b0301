"""The arguments and options that several commands share."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from sessionstore.parsers import check_duration, duration


def _time_to_live(value: str) -> timedelta:
    try:
        parsed = duration(value)
        check_duration("ttl", parsed)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return parsed


Store = Annotated[
    str | None,
    typer.Option(
        "--store", "-s", metavar="URL",
        help="Store URL (default: the url setting, such as SESSIONSTORE_URL).",
    ),
]  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="Output JSON.")]
Owner = Annotated[
    str | None,
    typer.Option(metavar="OWNER", help="Owner, if several owners have a session of this id."),
]
SessionArgument = Annotated[
    str,
    typer.Argument(
        metavar="SESSION", help="Session id, stored name, or @shared for the app's own session."
    ),
]
OptionalSessionArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[SESSION]", help="Session id, stored name, or @shared (default: all sessions)."
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="File name in the session.")]
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]...", help="File names (default: all)."),
]
Top = Annotated[int | None, typer.Option(min=1, metavar="N", help="Show only the N largest.")]
To = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Target directory (default: ./<stored name>).",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing local files.")]
Paths = Annotated[
    list[Path],
    typer.Argument(
        metavar="PATH...", help="Files, directories (with their subdirectories), or - for stdin."
    ),
]
As = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="File name in the session, for one file or stdin."),
]
TimeToLive = Annotated[
    timedelta | None,
    typer.Option(
        metavar="DURATION", parser=_time_to_live, help="Time to live of the files, such as 12h."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show the plan.")]
Repair = Annotated[
    bool,
    typer.Option("--repair", help="Repair what can be repaired (see the finding's remedy)."),
]
From = Annotated[str, typer.Argument(metavar="FROM", help="URL of the store to copy.")]
Into = Annotated[
    str,
    typer.Argument(metavar="TO", help="URL of the target store, created if it does not exist."),
]
Url = Annotated[
    str | None,
    typer.Argument(metavar="[URL]", help="Store URL (default: --store, then the url setting)."),
]
