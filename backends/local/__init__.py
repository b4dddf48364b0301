"""Local disk: a blob for each content, a hard link for each file."""

from __future__ import annotations

from .backend import LocalBackend

__all__ = ["LocalBackend"]
