"""The error messages for visitors: without buckets and paths, which go to the log."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from sessionstore.errors import (
    FileNotStored,
    InvalidName,
    LimitExceeded,
    SessionStoreError,
    UploadConflict,
)
from sessionstore.names import HIDDEN

UNAVAILABLE: Final = "Storage is temporarily unavailable. Please try again."
NO_ROOM: Final = "The server does not have enough free space for the file. Please try again later."
NOT_STORED: Final = "The file no longer exists."

_OF_THE_VISITOR: Final = {
    "max_file", "max_session", "max_session_files", "max_owner", "max_owner_files",
}  # fmt: skip
"""Limits that a smaller upload can meet. The others are about the server's disk."""

_SHORTEST: Final = 8
"""The least length of another library's text that is looked for in an app's message."""

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
        case UploadConflict():
            return Reply(409, str(error))
    return Reply(503, UNAVAILABLE)


def without_details(message: str, error: BaseException) -> str:
    """Return the ``message`` of an app's ``error`` without the texts of the store's errors.

    Each text of a store's error that led to ``error``, and of that one's causes, is replaced by the
    reply to a visitor. The app may have quoted or escaped it.
    """
    replies: dict[str, str] = {}
    for each in _chain(error):
        if isinstance(each, SessionStoreError):
            reply = html.escape(reply_to(each).words, quote=False)  # Gradio shows it as HTML
            replies[str(each)] = reply
            for cause in _chain(each):
                if len(str(cause)) >= _SHORTEST:
                    replies.setdefault(str(cause), reply)
    for text in sorted(filter(None, replies), key=len, reverse=True):
        for form in (text, html.escape(text), html.escape(text, quote=False), repr(text)[1:-1]):
            message = message.replace(form, replies[text])
    return message


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and all errors that led to it."""
    waiting, seen = [error], set()
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            inner = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
            waiting += [it for it in (each.__cause__, each.__context__, *inner) if it is not None]
