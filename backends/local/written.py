"""Detect files with zeros instead of bytes that a power cut kept from the disk.

ext4 may put the size of a file on the disk before its bytes. After a power cut the file then has
its length, and the extent that was never written reads as zeros. The file system reports such
extents (``FIEMAP``, Linux), so the bytes need not be read. Only files older than the last start of
the machine can be affected.
"""

from __future__ import annotations

import os
import struct
import time

from .directory import Directory

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # None marks Windows, where the module is missing

_FIEMAP = 0xC020660B
"""FS_IOC_FIEMAP, linux/fiemap.h."""
_SYNC, _LAST, _UNWRITTEN = 0x1, 0x1, 0x800
_HEAD, _EXTENT = struct.Struct("=QQIIII"), struct.Struct("=QQQQQIIII")
_AT_ONCE = 16
_MARGIN = 300
"""Seconds of error allowed for the machine's clock at its start."""


def _booted() -> int:
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0
    up = time.clock_gettime(time.CLOCK_BOOTTIME)
    return int((time.time() - up + _MARGIN) * 1_000_000_000)


BOOTED = _booted()
"""Start of the machine, in nanoseconds since the epoch; 0 if unknown.

A file written later has met no power cut.
"""


def is_unwritten(directory: Directory, name: str, status: os.stat_result) -> bool:
    """Return whether a part of the file ``name`` was never written to the disk.

    ``status`` is the file's. False also when the file system does not report that.
    """
    if status.st_mtime_ns > BOOTED or fcntl is None or not status.st_size:
        return False
    try:
        with directory.reading(name) as fd:
            return _has_unwritten(fd, status.st_size)
    except OSError:  # the file was deleted, or the file system does not report extents
        return False


def _has_unwritten(fd: int, size: int) -> bool:
    start = 0
    while start < size:
        # _SYNC writes pending bytes first: a restored backup may have old times and new bytes.
        request = bytearray(_HEAD.pack(start, size - start, _SYNC, 0, _AT_ONCE, 0))
        request += bytes(_AT_ONCE * _EXTENT.size)
        fcntl.ioctl(fd, _FIEMAP, request)
        count = _HEAD.unpack_from(request)[3]
        for number in range(count):
            at, _, length, _, _, flags, *_ = _EXTENT.unpack_from(
                request, _HEAD.size + number * _EXTENT.size
            )
            if flags & _UNWRITTEN and at < size:
                return True
            if flags & _LAST:
                return False
            start = at + length
        if not count:
            return False
    return False
