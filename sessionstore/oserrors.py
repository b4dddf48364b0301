"""What a failing system call becomes: one table, from errno to our error and what to do."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from sessionstore.errors import BackendUnavailable, LimitExceeded, SessionStoreError

_FULL = {
    errno.ENOSPC: "the disk is full; free some space, or set max_store or min_free so that the "
    "store makes room in time",
    errno.EDQUOT: "the disk quota of this user is used up; free some space or have it raised",
}
_REFUSED = {
    errno.EROFS: "the file system is mounted read-only; mount it read-write or set url to a "
    "directory that can be written",
    errno.EACCES: "this process may not write there; give its user the directory or set url to "
    "another one",
    errno.EPERM: "the system does not permit it; see that the files are neither immutable nor "
    "owned by another user",
    errno.EMFILE: "this process has too many files open; close some or raise its limit (ulimit -n)",
    errno.ENFILE: "the system has too many files open; raise fs.file-max or close some",
    errno.EIO: "the disk reported an input/output error; check its health before going on",
    errno.ENAMETOOLONG: "the path is too long for this file system; set url to a shorter one",
    errno.ESTALE: "the network file system lost the file; check its mount",
}


@contextlib.contextmanager
def translated(doing: str, root: str) -> Iterator[None]:
    """Turn an OSError of the block into LimitExceeded or BackendUnavailable, cause chained.

    ``doing`` completes "Could not ..."; errors of our own tree pass through.
    """
    try:
        yield
    except SessionStoreError:
        raise
    except OSError as error:
        code = error.errno or 0
        full = code in _FULL
        why = _FULL.get(code) or _REFUSED.get(code, f"the system says: {error.strerror or error}")
        ours = (LimitExceeded if full else BackendUnavailable)(
            f"Could not {doing} in {root}: {why}."
        )
        ours.errno = code
        raise ours from error
