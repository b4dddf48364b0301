"""Helpers of the tests that look into a local store."""

from __future__ import annotations

from pathlib import Path

from sessionstore import SessionStore
from sessionstore.backends.local import LocalBackend


def backend_of(store: SessionStore) -> LocalBackend:
    """The backend of a store opened on a directory."""
    assert isinstance(store.backend, LocalBackend)
    return store.backend


def blobs(root: Path) -> list[Path]:
    """Every blob's path."""
    return sorted(path for path in (root / "blobs").rglob("*") if path.is_file())


def everything(root: Path) -> set[str]:
    """Every file of a store but its own few, relative to the root, workspaces left out."""
    own = {"layout", "secret"}
    paths = {str(it.relative_to(root)) for it in root.rglob("*") if it.is_file()}
    return {path for path in paths if path not in own and not path.startswith("tmp/")}
