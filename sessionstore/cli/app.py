"""The command line: the list of its commands, and the exit status of each error."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from sessionstore.cli import inspect, maintain, transfer
from sessionstore.cli.output import Status, note, write
from sessionstore.cli.stores import Ambiguous, NotThere
from sessionstore.errors import FileNotStored, InvalidName, SessionStoreError, SettingsError

HELP = """Inspect and maintain a session store.

Output is human-readable; use --json for scripts. Control characters in names are escaped.
Exit status: 0 done, 1 failed, 2 wrong usage or setting, 3 no such session or file,
4 done with problems found, 130 interrupted.

Example: sessionstore ls --store file:///srv/files
"""


class Commands(TyperGroup):
    """The group of commands: it turns an error into a line on stderr and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SessionStoreError as error:
            note(f"sessionstore: {error}")
            raise typer.Exit(status_of(error)) from error
        except BrokenPipeError:
            raise  # the reader of our output closed its pipe: typer ends the process silently
        except OSError as error:  # a local file failed, not the store
            note(f"sessionstore: {error}")
            raise typer.Exit(Status.FAILED) from error
        except KeyboardInterrupt:
            note("sessionstore: interrupted; changes made until then are kept.")
            raise typer.Exit(Status.INTERRUPTED) from None


def status_of(error: SessionStoreError) -> Status:
    """Return the exit status for an error."""
    match error:
        case NotThere() | FileNotStored():
            return Status.MISSING
        case SettingsError() | InvalidName() | Ambiguous():
            return Status.USAGE
    return Status.FAILED


app: Final = typer.Typer(
    name="sessionstore", cls=Commands, help=HELP, no_args_is_help=True, rich_markup_mode=None,
    pretty_exceptions_enable=False,
)  # fmt: skip


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - called by typer
    if wanted:
        write(f"sessionstore {version('sessionstore')}\n")
        raise typer.Exit


_VERSION = typer.Option(
    "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
)


@app.callback()
def _common(*, version: Annotated[bool, _VERSION] = False) -> None:
    """Take the options that come before a command."""


for _command in (
    inspect.ls, inspect.du, inspect.cat, transfer.get, transfer.put, inspect.sessions,
    maintain.plan, maintain.sweep, maintain.verify, transfer.copy, maintain.doctor,
    inspect.config,
):  # fmt: skip
    app.command()(_command)
