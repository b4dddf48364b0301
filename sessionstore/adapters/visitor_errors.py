"""The error messages for visitors: without buckets and paths, which go to the log."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from sessionstore.errors import FileNotStored, InvalidName, LimitExceeded, SessionStoreError
from sessionstore.names import HIDDEN

UNAVAILABLE: Final = "Storage is temporarily unavailable. Please try again."
NO_ROOM: Final = "The server does not have enough free space for the file. Please try again later."
NOT_STORED: Final = "The file no longer exists."

_OF_THE_VISITOR: Final = {"max_file", "max_session", "max_session_files"}
"""Limits that a smaller upload can meet. The others are about the server's disk."""

_hidden = re.compile(rf"{re.escape(HIDDEN)}[0-9a-f]+/").sub
"""Replaces the prefix that an adapter puts before a visitor's file name."""


class Reply(NamedTuple):
    """An HTTP status, and a sentence that a visitor may read."""

    status: int
    words: str


def reply_to(error: SessionStoreError) -> Reply:
    """Return the response to a visitor when the store raised ``error``."""
    match error:
        case LimitExceeded() if error.limit in _OF_THE_VISITOR:
            return Reply(413, _hidden("", str(error)))
        case LimitExceeded():
            return Reply(507, NO_ROOM)
        case InvalidName():
            return Reply(400, _hidden("", str(error)))
        case FileNotStored():
            return Reply(404, NOT_STORED)
    return Reply(503, UNAVAILABLE)
