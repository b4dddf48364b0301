"""Helpers of the tests that look into a local store."""

from __future__ import annotations

import contextlib
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


def opened(root: Path) -> set[str]:
    """The files and folders below a directory that this process has open, with their numbers.

    Those without a name too. What other tests left is elsewhere, and may be closed at any time.
    """
    found = set[str]()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself
            target = os.readlink(f"/proc/self/fd/{number}")
            found |= {f"{number} {target}"} if Path(target).is_relative_to(root) else set()
    return found


def spoil(path: Path, by: bytes) -> None:
    """Change a stored file's bytes and nothing else, as a bad disk would."""
    times = path.stat()
    path.chmod(0o600)
    path.write_bytes(by)
    path.chmod(0o444)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
