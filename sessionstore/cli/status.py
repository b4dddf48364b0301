"""The exit statuses of a command."""

from __future__ import annotations

from typing import Final

DONE: Final = 0
"""The command succeeded."""

FAILED: Final = 1
"""The command failed: the store did not respond, a limit was reached, or bytes are damaged."""

USAGE: Final = 2
"""The command did not start: the command line or a setting is wrong, or a name is ambiguous."""

MISSING: Final = 3
"""The session or file does not exist."""

FOUND: Final = 4
"""The command ran and found a problem: damaged files, an unsafe bucket, or a sweep held back."""

INTERRUPTED: Final = 130
"""The user pressed Ctrl-C; shells use the same number."""
