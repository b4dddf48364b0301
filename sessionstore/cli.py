"""The command ``sessionstore``. What it needs besides is the extra ``cli``."""

from __future__ import annotations

import sys

_EXTRA = {"rich", "typer"}


def main() -> None:
    """Run the command line, or say how to install what it lacks."""
    try:
        from sessionstore.cli_app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write(
            f"sessionstore: the command line needs {error.name}, which is not installed: "
            "pip install 'sessionstore[cli]'.\n"
        )
        sys.exit(2)
    app()


if __name__ == "__main__":
    main()
