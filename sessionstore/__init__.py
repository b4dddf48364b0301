"""File storage for visitors' sessions: deduplicated, isolated, and deleted on time."""

from __future__ import annotations

from sessionstore.errors import (
    BackendUnavailable,
    Corrupted,
    FileNotStored,
    InvalidName,
    LimitExceeded,
    SessionStoreError,
    SettingsError,
    UploadConflict,
)
from sessionstore.limits import Limits
from sessionstore.retention import Retention
from sessionstore.session import Session
from sessionstore.signed_uploads import SignedUpload
from sessionstore.store import SessionStore
from sessionstore.storedfile import StoredFile
from sessionstore.uploads import Upload

__all__ = [
    "BackendUnavailable",
    "Corrupted",
    "FileNotStored",
    "InvalidName",
    "LimitExceeded",
    "Limits",
    "Retention",
    "Session",
    "SessionStore",
    "SessionStoreError",
    "SettingsError",
    "SignedUpload",
    "StoredFile",
    "Upload",
    "UploadConflict",
]
