"""Backends with one fault each: they prove that the contract's tests can fail."""

from __future__ import annotations

from tests.broken import abilities, content, forgetting, reading, saving, sessions
from tests.broken.table import BROKEN, Broken

__all__ = [
    "BROKEN",
    "Broken",
    "abilities",
    "content",
    "forgetting",
    "reading",
    "saving",
    "sessions",
]
