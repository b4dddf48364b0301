"""The command ``sessionstore``. It needs the packages of the extra ``cli``."""

from __future__ import annotations

import sys

__all__ = ["main"]

_EXTRA = {"rich", "typer"}


def main() -> None:
    """Run the command line, or explain how to install a missing package."""
    try:
        from sessionstore.cli.app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write(
            f"sessionstore: the command line needs {error.name}, which is not installed: "
            "pip install 'sessionstore[cli]'.\n"
        )
        sys.exit(2)
    app()
