"""The command ``sessionstore``. Its libraries come with the extra ``cli``."""

from __future__ import annotations

from sessionstore.cli.entry import main

__all__ = ["main"]
