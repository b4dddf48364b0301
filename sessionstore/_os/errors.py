"""The translation of system errors: one table from errno to our error and its remedy."""

from __future__ import annotations

import errno

from sessionstore.errors import BackendUnavailable, LimitExceeded, SessionStoreError

_FULL = {
    errno.ENOSPC: "the disk is full; free some space, or {room}",
    errno.EDQUOT: "the disk quota of this user is used up; free some space or have it raised",
}
_REFUSED = {
    errno.EROFS: "the file system is mounted read-only; mount it read-write or set {setting} to a "
    "directory that can be written",
    errno.EACCES: "this process may not write there; give its user the directory or set {setting} "
    "to another one",
    errno.EPERM: "the system does not permit it; see that the files are neither immutable nor "
    "owned by another user",
    errno.EMFILE: "this process has too many files open; close some or raise its limit (ulimit -n)",
    errno.ENFILE: "the system has too many files open; raise fs.file-max or close some",
    errno.EIO: "the disk reported an input/output error; check its health before going on",
    errno.ENAMETOOLONG: "the path is too long for this file system; set {setting} to a shorter one",
    errno.ESTALE: "the network file system lost the file; check its mount",
}
FULL = frozenset(_FULL)  # no free space, of bytes or of files, for this user

_MORE_ROOM = "set max_store or min_free so that the store makes room in time"


class translated:  # noqa: N801 - it is used as a function: with translated(...):
    """Turn an OSError of the block into LimitExceeded or BackendUnavailable, cause chained.

    ``doing`` completes "Could not ..."; ``setting`` is the setting of the directory ``root``.
    Errors of our own tree pass through. This is a class because it surrounds every operation, and a
    class enters and leaves in a quarter of a generator's time.
    """

    __slots__ = ("_doing", "_root", "_setting")

    def __init__(self, doing: str, root: str, setting: str = "url") -> None:
        self._doing = doing
        self._root = root
        self._setting = setting

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, SessionStoreError):
            raise from_os_error(error, self._doing, self._root, self._setting) from error


def from_os_error(error: OSError, doing: str, root: str, setting: str = "url") -> SessionStoreError:
    """Return the error that ``translated`` raises for ``error``."""
    code = error.errno or 0
    known = _FULL.get(code) or _REFUSED.get(code)
    why = f"the system says: {error.strerror or error}"
    if known is not None:
        room = _MORE_ROOM if setting == "url" else f"set {setting} to a directory with more of it"
        why = known.format(setting=setting, room=room)
    kind = LimitExceeded if code in _FULL else BackendUnavailable
    ours = kind(f"Could not {doing} in {root}: {why}.")
    ours.errno = code
    return ours
