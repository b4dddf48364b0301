"""Ask the file system whether a power cut left zeros where the bytes of a file were to come.

ext4 may put the size of a file on the disk before its bytes: the file then has its length, and an
extent that was never written reads as zeros. The file system knows (``FIEMAP``, Linux), so that
nothing has to be read. Only files from before this start of the machine can be so.
"""

from __future__ import annotations

import os
import struct
import time

from sessionstore.backends._directory import Directory

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # the name says which of the two systems this is

_FIEMAP = 0xC020660B
"""FS_IOC_FIEMAP, linux/fiemap.h."""
_SYNC, _LAST, _UNWRITTEN = 0x1, 0x1, 0x800
_HEAD, _EXTENT = struct.Struct("=QQIIII"), struct.Struct("=QQQQQIIII")
_AT_ONCE = 16
_MARGIN = 300
"""Seconds that the machine's clock may have been wrong by when it started."""


def _booted() -> int:
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0
    up = time.clock_gettime(time.CLOCK_BOOTTIME)
    return int((time.time() - up + _MARGIN) * 1_000_000_000)


BOOTED = _booted()
"""Nanoseconds since the epoch: what was written later has met no power cut. 0: not known."""


def is_unwritten(directory: Directory, name: str, there: os.stat_result) -> bool:
    """Whether a part of the file, of which ``there`` is known, was never written to the disk."""
    if there.st_mtime_ns > BOOTED or fcntl is None or not there.st_size:
        return False
    try:
        with directory.reading(name) as fd:
            return _has_unwritten(fd, there.st_size)
    except OSError:  # gone, or a file system that does not say
        return False


def _has_unwritten(fd: int, size: int) -> bool:
    start = 0
    while start < size:
        # What is on its way is written first: a restored backup may have old times and new bytes.
        answer = bytearray(_HEAD.pack(start, size - start, _SYNC, 0, _AT_ONCE, 0))
        answer += bytes(_AT_ONCE * _EXTENT.size)
        fcntl.ioctl(fd, _FIEMAP, answer)
        count = _HEAD.unpack_from(answer)[3]
        for number in range(count):
            at, _, length, _, _, flags, *_ = _EXTENT.unpack_from(
                answer, _HEAD.size + number * _EXTENT.size
            )
            if flags & _UNWRITTEN and at < size:
                return True
            if flags & _LAST:
                return False
            start = at + length
        if not count:
            return False
    return False
