"""Advisory whole-file locks. The system releases them when their process dies."""

from __future__ import annotations

import errno
import os

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # the name says which of the two systems this is

try:
    import msvcrt
except ImportError:  # everything else
    msvcrt = None  # type: ignore[assignment]  # as above

_BUSY = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)


def lock(fd: int, *, wait: bool = True) -> bool:
    """Take the exclusive lock of an open file; return False if it is held and ``wait`` is false.

    Two descriptors of one file exclude each other, even in one process. Closing the descriptor, or
    the death of the process, releases it. flock(2) on POSIX, a lock of the first byte on Windows.
    """
    try:
        if fcntl is not None:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        else:
            _lock_first_byte(fd, wait=wait)
    except OSError as error:
        if not wait and error.errno in _BUSY:
            return False
        raise
    return True


def unlock(fd: int) -> None:
    """Release the lock, for every process that shares this open file (fork(2))."""
    if fcntl is not None:
        fcntl.flock(fd, fcntl.LOCK_UN)
    else:
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined, unused-ignore]  # Windows only


def _lock_first_byte(fd: int, *, wait: bool) -> None:
    while True:
        try:
            msvcrt.locking(fd, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]  # Windows only
        except OSError as error:
            # LK_LOCK gives up after ten tries, one second apart (Microsoft's _locking page).
            if not wait or error.errno not in _BUSY:
                raise
        else:
            return
