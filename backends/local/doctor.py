"""Check whether a directory suits a local store, by tests in a temporary directory there."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sessionstore._os.errors import translated
from sessionstore.doctor import Check, Verdict
from sessionstore.parsers import show_size

from .layout import NO_LINKS

NETWORK = ("nfs", "cifs", "smb", "9p", "ceph", "glusterfs", "lustre", "afs", "fuse.sshfs")
"""Types of file systems that several machines share."""

FEW = 1 << 30
"""Bytes of free space below which a disk counts as nearly full for visitors' files."""

LONGEST = 255
"""Maximum length in bytes of a file name of the store."""

CLOCKS = 2.0
"""Seconds that the disk's clock may differ. Clocks of two machines usually differ by more."""

SAMPLES = 200
"""Small files made for the speed check."""

Found = tuple[Verdict, str, str]
"""The verdict, words and short words of a check."""


def examine(root: Path) -> Iterator[Check]:
    """Yield the checks of the directory ``root``, which may not exist yet.

    The temporary files of the checks are removed.
    """
    above = next(path for path in (root, *root.parents) if path.is_dir())
    yield Check("owner and mode", *_owner(root if root.exists() else above, made=root.exists()))
    with translated("write", str(above)):
        scratch = Path(tempfile.mkdtemp(prefix=".doctor-", dir=above))
    try:
        yield from _in(scratch)
        yield Check("room", *_room(above))
        yield Check("file system", *_kind(above))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if scratch.exists():
        yield Check("cleaning up", "bad", f"{scratch} could not be removed; remove it by hand")
    else:
        yield Check("cleaning up", "good", "the temporary files of these checks are removed")


def _owner(place: Path, *, made: bool) -> Found:
    if not hasattr(os, "geteuid"):
        return "unknown", "this system has no file owners that can be compared", ""
    status, user = place.stat(), os.geteuid()
    if not os.access(place, os.W_OK | os.X_OK):
        words = f"user {user} cannot write to {place}: give the directory to this user"
        return "bad", words, "not writable"
    if not made:
        return "good", f"it can be created in {place}, with mode 0700", ""
    if user not in {0, status.st_uid}:
        words = f"it belongs to user {status.st_uid}, who could replace files in it"
        return "bad", f"{words}: change its owner", "another's"
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        words = f"its mode is {mode:04o}, so other users may read it: chmod 700 {place}"
        return "note", words, f"{mode:04o}"
    return "good", f"it belongs to this user, with mode {mode:04o}", ""


def _in(scratch: Path) -> Iterator[Check]:
    for subject, check in (
        ("hard links", _links),
        ("unnamed files", _unnamed),
        ("renaming", _renames),
        ("names", _names),
        ("clock", _clock),
        ("speed", _speed),
    ):
        try:
            yield Check(subject, *check(scratch))
        except OSError as error:
            yield Check(subject, "bad", f"the system reports: {error.strerror or error}", "error")


def _links(scratch: Path) -> Found:
    one, two = scratch / "one", scratch / "two"
    one.write_bytes(b"x")
    try:
        os.link(one, two)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return "note", "not supported: every file is a separate copy, without deduplication", "none"
    if one.stat().st_nlink != 2 or one.stat().st_ino != two.stat().st_ino:  # noqa: PLR2004 - two names
        words = "links are made but not counted, and the store deletes by that count"
        return "bad", f"{words}: use another disk", "not counted"
    return "good", "they are made and counted: identical content is stored once", ""


def _unnamed(scratch: Path) -> Found:
    if not hasattr(os, "O_TMPFILE"):
        return "good", "not supported by this system; unfinished files have names", "none"
    try:
        os.close(os.open(scratch, os.O_TMPFILE | os.O_WRONLY, 0o600))
    except OSError:
        words = "not supported by the disk; a sweep removes the unfinished files of dead processes"
        return "good", words, "none"
    return "good", "an unfinished file disappears with its process (O_TMPFILE)", ""


def _renames(scratch: Path) -> Found:
    old, new = scratch / "old", scratch / "new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    with open(old, "rb") as reader:
        os.replace(new, old)
        if reader.read() != b"old" or old.read_bytes() != b"new" or new.exists():
            return "bad", "replacing a file changes it for those who read it", "mixed"
    return "good", "a file is replaced atomically, and its readers keep the old one", ""


def _names(scratch: Path) -> Found:
    (scratch / ("n" * LONGEST)).write_bytes(b"")
    (scratch / "case").write_bytes(b"")
    if (scratch / "CASE").exists():
        words = "upper and lower case are not distinguished"
        return "good", f"{words}; the store encodes names to avoid clashes", "one case"
    return "good", f"{LONGEST} characters, and upper and lower case are distinguished", "two cases"


def _clock(scratch: Path) -> Found:
    before = time.time()
    (scratch / "clock").write_bytes(b"")
    difference = (scratch / "clock").stat().st_mtime - before
    if abs(difference) > CLOCKS:
        words = (
            f"the times of files differ by {abs(difference):.0f} s from this machine's clock: the "
            "disk belongs to another machine; synchronise both clocks (NTP)"
        )
        return "note", words, "another's"
    return "good", "files get their times from this machine's clock", ""


def _speed(scratch: Path) -> Found:
    began = time.perf_counter()
    for number in range(SAMPLES):
        (scratch / f"{number}").write_bytes(b"x" * 1000)
    seconds = (time.perf_counter() - began) / SAMPLES
    words = f"{1e6 * seconds:.0f} us to make a small file"
    if seconds > 0.005:  # noqa: PLR2004 - five milliseconds: network round trips, or a full disk
        return "note", f"{words}: is it a network file system?", "slow"
    return "good", words, ""


def _room(place: Path) -> Found:
    free = shutil.disk_usage(place).free
    words = f"{show_size(free)} free"
    if hasattr(os, "statvfs"):
        disk = os.statvfs(place)
        if disk.f_files and disk.f_favail < SAMPLES:
            return "bad", f"{words}, but no inodes: no file can be made", "no inodes"
    if free < FEW:
        return "note", f"{words}: set max_store or min_free", "little"
    return "good", words, ""


def _kind(place: Path) -> Found:
    kind = _type(place)
    if kind is None:
        return "unknown", "this system does not report the type", "not told"
    if kind.startswith(NETWORK):
        words = (
            f"{kind}, shared by several machines: safe if its links and renames are; reading a "
            "file while another machine deletes it may fail, and one machine at a time is faster"
        )
        return "note", words, kind
    if kind in {"tmpfs", "ramfs"}:
        return "note", f"{kind}: in memory, so files are lost when the machine stops", kind
    return "good", f"{kind}, on this machine", kind


def _type(place: Path) -> str | None:
    """Return the type of the file system of ``place``; None when the system is not Linux."""
    if sys.platform != "linux":
        return None
    deepest: tuple[str, str | None] = ("", None)
    with suppress(OSError):
        for line in Path("/proc/self/mounts").read_text(errors="replace").splitlines():
            _, mounted, kind, *_ = line.split()
            if place.resolve().is_relative_to(mounted) and len(mounted) >= len(deepest[0]):
                deepest = (mounted, kind)
    return deepest[1]
