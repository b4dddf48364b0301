"""Where to write: a file system in memory, and a journalled one on a disk of its own.

The machine's own disk is not always fit: an ext4 without a journal, as some virtual machines have,
takes ten times as long to create a file after many were deleted.
"""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_IMAGE = 12 << 30
"""Bytes of the image, most of them never written."""


@dataclass(slots=True)
class Disk:
    """A directory to write in, and what file system that is. ``opened`` is closed with it."""

    path: Path
    name: str
    in_memory: bool
    opened: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def fresh(self) -> Path:
        """A new name for a directory."""
        return self.path / f"d{next(_numbers)}"


_numbers = itertools.count()


@contextlib.contextmanager
def memory() -> Iterator[Disk]:
    """A directory in memory, where the system has one; else a temporary one."""
    shm = Path("/dev/shm")
    parent = shm if kind(shm) == "tmpfs" else Path(tempfile.gettempdir())
    with tempfile.TemporaryDirectory(dir=parent, prefix="bench-") as path:
        disk = Disk(Path(path), kind(Path(path)), kind(parent) == "tmpfs")
        with disk.opened:
            yield disk


@contextlib.contextmanager
def journalled() -> Iterator[Disk]:
    """A new ext4 in an image file on a loop device (which takes root); else a temporary directory.

    Closing it unmounts it.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        image, mount = Path(folder, "image"), Path(folder, "disk")
        mount.mkdir()
        if not _mounted(image, mount):
            disk = Disk(mount, f"{kind(mount)}, the machine's own", in_memory=False)
        else:
            disk = Disk(mount, "ext4 with a journal, on a loop device", in_memory=False)
            disk.opened.callback(_run, "umount", "--lazy", str(mount))
        with disk.opened:
            yield disk


def _mounted(image: Path, mount: Path) -> bool:
    with open(image, "wb") as file:
        file.truncate(_IMAGE)
    try:
        _run("mkfs.ext4", "-q", "-F", "-i", "8192", str(image))
        _run("mount", "-o", "loop", str(image), str(mount))
    except (OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"No ext4 of its own to measure on: {error}\n")
        return False
    return True


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def kind(path: Path) -> str:
    """The file system of a directory, as far as this system tells."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    above = [mount for mount in mounts if path.resolve().is_relative_to(mount[1])]
    return max(above, key=lambda mount: len(mount[1]))[2] if above else "unknown"
