"""Is this directory a place for a local store? Asked of the disk, in a directory of its own."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from sessionstore.backends._local_root import NO_LINKS
from sessionstore.doctor import Check
from sessionstore.oserrors import translated
from sessionstore.values import show_size

NETWORK = ("nfs", "cifs", "smb", "9p", "ceph", "glusterfs", "lustre", "afs", "fuse.sshfs")
"""Types of file systems that other machines share."""

FEW = 1 << 30
"""Bytes, below which a disk is nearly full for files of visitors."""

LONGEST = 255
"""Bytes of a file's name that the store may use."""

CLOCKS = 2.0
"""Seconds that the disk's clock may differ by; two of different machines differ by more."""

SAMPLES = 200


def examine(root: Path) -> Iterator[Check]:
    """The checks of a directory that may not be there yet. What they need is removed."""
    above = _there(root)
    yield _owner(root if root.exists() else above, made=root.exists())
    with translated("write", str(above)):
        scratch = Path(tempfile.mkdtemp(prefix=".doctor-", dir=above))
    try:
        yield from _in(scratch)
        yield _room(above)
        yield _kind(above)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    left = scratch.exists()
    words = f"{scratch} is left" if left else "nothing is left of this examination"
    yield Check("cleaning up", "bad" if left else "good", words)


def _there(root: Path) -> Path:
    """The directory, or the nearest one above it that there is."""
    return next(each for each in (root, *root.parents) if each.is_dir())


def _owner(place: Path, *, made: bool) -> Check:
    what = "owner and mode"
    if not hasattr(os, "geteuid"):
        return Check(what, "unknown", "this system has no owners of files that can be compared")
    found = place.stat()
    if not os.access(place, os.W_OK | os.X_OK):
        words = f"{place} cannot be written by user {os.geteuid()}: give it to this user"
        return Check(what, "bad", words, "not writable")
    if not made:
        return Check(what, "good", f"it is to be made in {place}, with mode 0700")
    if found.st_uid != os.geteuid() and os.geteuid() != 0:
        words = f"it belongs to user {found.st_uid}, who could swap what is in it: have it changed"
        return Check(what, "bad", words, "another's")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        words = f"its mode is {mode:04o}, so that others may look in: chmod 700 {place}"
        return Check(what, "note", words, f"{mode:04o}")
    return Check(what, "good", f"its own user's, with mode {mode:04o}")


def _in(scratch: Path) -> Iterator[Check]:
    for what, check in (
        ("hard links", _links),
        ("unnamed files", _unnamed),
        ("renaming", _renames),
        ("names", _names),
        ("clock", _clock),
        ("speed", _speed),
    ):
        yield _guarded(what, check, scratch)


def _guarded(what: str, check: Callable[[str, Path], Check], scratch: Path) -> Check:
    try:
        return check(what, scratch)
    except OSError as error:
        return Check(what, "bad", f"the system says: {error.strerror or error}", "error")


def _links(what: str, scratch: Path) -> Check:
    one, two = scratch / "one", scratch / "two"
    one.write_bytes(b"x")
    try:
        os.link(one, two)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        words = "there are none: every file is a copy of its own, without deduplication"
        return Check(what, "note", words, "none")
    if one.stat().st_nlink != 2 or one.stat().st_ino != two.stat().st_ino:  # noqa: PLR2004 - two names
        words = "links are made but not counted, and their count says what may go: use another disk"
        return Check(what, "bad", words, "not counted")
    return Check(what, "good", "they are made and counted: equal bytes are kept once")


def _unnamed(what: str, scratch: Path) -> Check:
    if not hasattr(os, "O_TMPFILE"):
        return Check(what, "good", "this system has none; unfinished files have names", "none")
    try:
        os.close(os.open(scratch, os.O_TMPFILE | os.O_WRONLY, 0o600))
    except OSError:
        words = "the disk has none; an unfinished file has a name until a sweep finds it"
        return Check(what, "good", words, "none")
    return Check(what, "good", "an unfinished file is gone with its process (O_TMPFILE)")


def _renames(what: str, scratch: Path) -> Check:
    old, new = scratch / "old", scratch / "new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    with open(old, "rb") as reader:
        os.replace(new, old)
        if reader.read() != b"old" or old.read_bytes() != b"new" or new.exists():
            return Check(what, "bad", "a file that is replaced changes under its readers", "mixed")
    return Check(what, "good", "a file is replaced at once, and its readers keep the old one")


def _names(what: str, scratch: Path) -> Check:
    (scratch / ("n" * LONGEST)).write_bytes(b"")
    (scratch / "case").write_bytes(b"")
    if (scratch / "CASE").exists():
        words = "upper and lower case are one here; the store writes names so that none meet"
        return Check(what, "good", words, "one case")
    return Check(
        what, "good", f"{LONGEST} characters, and upper and lower case are two", "two cases"
    )


def _clock(what: str, scratch: Path) -> Check:
    before = time.time()
    (scratch / "clock").write_bytes(b"")
    difference = (scratch / "clock").stat().st_mtime - before
    if abs(difference) > CLOCKS:
        words = (
            f"the disk dates files {abs(difference):.0f} s away from this machine's clock: it is "
            "another machine's, and their clocks have to agree (NTP)"
        )
        return Check(what, "note", words, "another's")
    return Check(what, "good", "files are dated by this machine's clock")


def _speed(what: str, scratch: Path) -> Check:
    began = time.perf_counter()
    for number in range(SAMPLES):
        (scratch / f"{number}").write_bytes(b"x" * 1000)
    each = (time.perf_counter() - began) / SAMPLES
    words = f"{1e6 * each:.0f} us to make a small file"
    if each > 0.005:  # noqa: PLR2004 - five milliseconds: a network's round trips, or a full disk
        return Check(what, "note", f"{words}: is it a network file system?", "slow")
    return Check(what, "good", words)


def _room(place: Path) -> Check:
    what, free = "room", shutil.disk_usage(place).free
    words = f"{show_size(free)} are free"
    if hasattr(os, "statvfs"):
        found = os.statvfs(place)
        if found.f_files and found.f_favail < SAMPLES:
            return Check(what, "bad", f"{words}, but no inodes: no file can be made", "no inodes")
    if free < FEW:
        return Check(what, "note", f"{words}: set max_store or min_free", "little")
    return Check(what, "good", words)


def _kind(place: Path) -> Check:
    what, kind = "file system", _type(place)
    if kind is None:
        return Check(what, "unknown", "this system does not tell what it is", "not told")
    if kind.startswith(NETWORK):
        words = (
            f"{kind}, shared by machines: safe as far as links and renames are, but a file that is "
            "open while another machine deletes it may fail, and one machine at a time is faster"
        )
        return Check(what, "note", words, kind)
    if kind in {"tmpfs", "ramfs"}:
        return Check(what, "note", f"{kind}: in memory, and gone when the machine stops", kind)
    return Check(what, "good", f"{kind}, of this machine", kind)


def _type(place: Path) -> str | None:
    """The file system's type, as Linux tells it."""
    if sys.platform != "linux":
        return None
    found: tuple[str, str | None] = ("", None)
    with suppress(OSError):
        for line in Path("/proc/self/mounts").read_text(errors="replace").splitlines():
            _, mounted, kind, *_ = line.split()
            if place.resolve().is_relative_to(mounted) and len(mounted) >= len(found[0]):
                found = (mounted, kind)
    return found[1]
