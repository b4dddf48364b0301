"""The command line: its commands, and what their exit status says."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from sessionstore import cli_keep, cli_look, cli_move, cli_status
from sessionstore.cli_output import note
from sessionstore.cli_store import Ambiguous, NotThere
from sessionstore.errors import FileNotStored, InvalidName, SessionStoreError, SettingsError

HELP = """Look into a session store, move files in and out, and look after it.

Names are escaped on a terminal. Sizes and times are for people; --json has them exactly.
Exit status: 0 done, 1 failed, 2 wrong usage or setting, 3 no such session or file,
4 done but something is wrong, 130 interrupted.
"""


class Commands(TyperGroup):
    """The commands, with our errors as a line on stderr and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SessionStoreError as error:
            note(f"sessionstore: {error}")
            raise typer.Exit(status_of(error)) from error
        except BrokenPipeError:
            raise  # what reads our answer has enough of it: typer ends us without a word
        except OSError as error:  # of this machine, not of the store
            note(f"sessionstore: {error}")
            raise typer.Exit(cli_status.FAILED) from error
        except KeyboardInterrupt:
            note("sessionstore: interrupted; what was done until then is kept.")
            raise typer.Exit(cli_status.INTERRUPTED) from None


def status_of(error: SessionStoreError) -> int:
    """The exit status for an error."""
    match error:
        case NotThere() | FileNotStored():
            return cli_status.MISSING
        case SettingsError() | InvalidName() | Ambiguous():
            return cli_status.USAGE
    return cli_status.FAILED


app = typer.Typer(
    name="sessionstore", cls=Commands, help=HELP, no_args_is_help=True, rich_markup_mode=None,
    pretty_exceptions_enable=False,
)  # fmt: skip

for _command in (
    cli_look.ls, cli_look.du, cli_look.cat, cli_move.get, cli_move.put, cli_look.sessions,
    cli_keep.plan, cli_keep.sweep, cli_keep.verify, cli_move.copy, cli_keep.doctor,
    cli_look.config,
):  # fmt: skip
    app.command()(_command)
