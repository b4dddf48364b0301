"""Any file system of fsspec."""

from __future__ import annotations

from .backend import FsspecBackend

__all__ = ["FsspecBackend"]
