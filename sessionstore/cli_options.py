"""The arguments and options that commands have in common."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from sessionstore.values import check_duration, duration


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
        help="The store; without it the one of the settings (SESSIONSTORE_URL and so on).",
    ),
]  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]
Owner = Annotated[
    str | None,
    typer.Option(metavar="OWNER", help="The owner, where several have a session of this id."),
]
Which = Annotated[
    str,
    typer.Argument(metavar="SESSION", help="An id, a stored name, or @shared for the app's own."),
]
WhichOrAll = Annotated[
    str | None,
    typer.Argument(metavar="[SESSION]", help="An id, a stored name, or @shared; without it all."),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The file's name in the session.")]
Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]...", help="Names in the session; without them all."),
]
Top = Annotated[int | None, typer.Option(min=1, metavar="N", help="Show only so many of them.")]
To = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="The folder they go below; without it one of the session's stored name.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite local files that are there.")]
Paths = Annotated[
    list[Path],
    typer.Argument(metavar="PATH...", help="Files, folders with all below them, or - for stdin."),
]
As = Annotated[
    str | None,
    typer.Option(
        "--name", metavar="NAME", help="The name to save it under, for one file or stdin."
    ),
]
TimeToLive = Annotated[
    timedelta | None,
    typer.Option(metavar="DURATION", parser=_time_to_live, help="When they expire, such as 12h."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]
Repair = Annotated[bool, typer.Option("--repair", help="Do about each finding what it says.")]
From = Annotated[str, typer.Argument(metavar="FROM", help="The URL of the store to copy.")]
Into = Annotated[
    str, typer.Argument(metavar="TO", help="The URL of the other, made if there is none.")
]
Url = Annotated[
    str | None,
    typer.Argument(metavar="[URL]", help="The store; without it the one of the settings."),
]
