"""Helpers of the tests that look into a local store."""

from __future__ import annotations

import os
from pathlib import Path

from sessionstore.backends.local import LocalBackend
from sessionstore.base import BaseStore


def backend_of(store: BaseStore) -> LocalBackend:
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


def spoil(path: Path, by: bytes) -> None:
    """Change a stored file's bytes and nothing else, as a bad disk would."""
    times = path.stat()
    path.chmod(0o600)
    path.write_bytes(by)
    path.chmod(0o444)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
