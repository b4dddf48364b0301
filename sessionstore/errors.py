"""Every error this library raises.

    SessionStoreError
    ├── InvalidName          (ValueError)         an id, owner or file name that cannot be kept
    ├── SettingsError        (ValueError)         a wrong setting, or a root that cannot be used
    ├── FileNotStored        (FileNotFoundError)  no such file: missing, foreign, expired, deleted
    ├── LimitExceeded        (OSError)            a limit of the store is reached, or the disk full
    ├── BackendUnavailable   (OSError)            the disk or the bucket refused or did not answer
    ├── Corrupted            (OSError)            the stored bytes differ from the saved bytes
    └── UploadConflict       (ValueError)         the upload in pieces is at another offset

A programming mistake (a ``str`` as content, a naive datetime) is the builtin ``TypeError`` or
``ValueError``. An exception that a caller's own content source raises passes through unchanged.
"""

from __future__ import annotations


class SessionStoreError(Exception):
    """The root of the tree: ``except SessionStoreError`` catches every error of the library."""


class InvalidName(SessionStoreError, ValueError):
    """The string cannot be a session id, an owner or a file name. Raised before any I/O."""


class SettingsError(SessionStoreError, ValueError):
    """A setting is wrong. The message names it, its value and a valid value."""


class FileNotStored(SessionStoreError, FileNotFoundError):
    """The session has no such file.

    Missing, foreign, expired and deleted files raise the same error, on purpose.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"No file {name!r} in this session; files() lists its files.")


class LimitExceeded(SessionStoreError, OSError):
    """The save would exceed a limit, or the device is full. Nothing of the save is kept."""

    limit: str | None
    """The name of the exceeded setting, such as "max_file"; None when the device is full."""

    def __init__(self, *args: object, limit: str | None = None) -> None:
        super().__init__(*args)
        self.limit = limit


class BackendUnavailable(SessionStoreError, OSError):
    """The disk or service refused or did not answer; the cause is chained.

    A ``put`` that raised this may still have taken effect, once and whole.
    """


class Corrupted(SessionStoreError, OSError):
    """The stored bytes do not match the digest they were saved under."""


class UploadConflict(SessionStoreError, ValueError):
    """The bytes do not continue the upload: it is at another offset, or has another writer.

    Read ``Session.upload(id).offset`` again, and continue from there.
    """
