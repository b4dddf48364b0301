"""Every error this library raises.

    SessionStoreError
    ├── InvalidName          (ValueError)         an id, owner or file name that cannot be kept
    ├── SettingsError        (ValueError)         a wrong setting, or a root that cannot be used
    ├── FileNotStored        (FileNotFoundError)  no such file: missing, foreign, expired, deleted
    ├── LimitExceeded        (OSError)            a limit of the store, or the disk, is reached
    ├── BackendUnavailable   (OSError)            the disk or the bucket refused or did not answer
    └── Corrupted            (OSError)            stored bytes are not the bytes that were saved

A programming mistake (a ``str`` as content, a naive datetime) is the builtin ``TypeError`` or
``ValueError``. An exception that a caller's own content source raises passes through unchanged.
"""

from __future__ import annotations

from typing import Self


class SessionStoreError(Exception):
    """The root of the tree: ``except SessionStoreError`` catches all that the library raises."""


class InvalidName(SessionStoreError, ValueError):
    """The string cannot be a session id, an owner or a file name. Raised before any I/O."""


class SettingsError(SessionStoreError, ValueError):
    """A setting is wrong; the message names it, its value and what would be right."""


class FileNotStored(SessionStoreError, FileNotFoundError):
    """There is no such file in this session.

    Missing, foreign, expired and deleted files look the same, on purpose.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"No file {name!r} in this session; files() lists what there is.")


class LimitExceeded(SessionStoreError, OSError):
    """The save would go over a limit, or the device is full. Nothing of it is left."""

    limit: str | None = None
    """The setting that it is about: "max_file" and so on; None when the device is full."""

    def over(self, limit: str) -> Self:
        """This error, about that setting."""
        self.limit = limit
        return self


class BackendUnavailable(SessionStoreError, OSError):
    """The disk or service refused or did not answer; the cause is chained.

    A ``put`` that raised this may still have taken effect, once and whole.
    """


class Corrupted(SessionStoreError, OSError):
    """The stored bytes do not match the digest they were saved under."""
