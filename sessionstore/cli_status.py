"""What the exit status of a command says."""

from __future__ import annotations

from typing import Final

DONE: Final = 0
"""It was done."""

FAILED: Final = 1
"""It could not be done: the store did not answer, a limit was reached, bytes are damaged."""

USAGE: Final = 2
"""It was not tried: the command line or a setting is wrong, or it is not clear what is meant."""

MISSING: Final = 3
"""There is no such session or file."""

FOUND: Final = 4
"""It was done, and something is wrong: damaged files, a bucket unfit, a sweep that held back."""

INTERRUPTED: Final = 130
"""Ctrl-C, as shells have it."""
