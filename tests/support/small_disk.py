"""Real small file systems, which are easy to fill: by root only."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.conftest import IN_CI

KINDS = ("tmpfs", "ext4")


class CannotMount(Exception):
    """This process may not mount here, or the system has no such file system."""


@contextmanager
def mounted(path: Path, kind: str = "tmpfs", *, mib: int = 8, files: int = 256) -> Iterator[Path]:
    """A file system of that size, and of so many files, at ``path``, which is made.

    Raises CannotMount.
    """
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m,nr_inodes={files}", "tmpfs", str(path)]
    if kind == "ext4":
        image = path.with_suffix(".ext4")
        with image.open("wb") as file:
            file.truncate(mib << 20)
        make = ["mke2fs", "-q", "-t", "ext4", "-m", "0", "-N", str(files), str(image)]
        _run(make)
        command = ["mount", "-o", "loop", str(image), str(path)]
    _run(command)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def _run(command: list[str]) -> None:
    paths = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    program = shutil.which(command[0], path=paths)
    try:
        subprocess.run([program or command[0], *command[1:]], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or b""
        raise CannotMount(f"{error} {said.decode().strip()}") from error


def cannot(error: CannotMount) -> None:
    """Skip the test; in CI root has to be able to."""
    if IN_CI and os.geteuid() == 0:
        pytest.fail(f"root cannot mount a small file system: {error}")
    pytest.skip(f"cannot mount a small file system here: {error}")


def fill_bytes(path: Path) -> None:
    """Leave no room for another byte; files can be made."""
    fd = os.open(path / "filler", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while os.write(fd, b"x" * size):
                    pass
    finally:
        os.close(fd)


def fill_files(path: Path) -> None:
    """Leave no room for another file; bytes can be written."""
    folder = path / "fillers"
    folder.mkdir()
    with suppress(OSError):
        for number in range(1 << 20):
            os.close(os.open(folder / f"{number}", os.O_WRONLY | os.O_CREAT, 0o600))


def empty(path: Path) -> None:
    """Remove what filled it."""
    (path / "filler").unlink(missing_ok=True)
    shutil.rmtree(path / "fillers", ignore_errors=True)
