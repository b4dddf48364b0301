"""Verify an empty listing by reading the store's own marker, the object ``layout``.

Some libraries do not show the HTTP response. For them a web page in place of the store, or a bucket
that is gone for a moment, looks like an empty listing. A sweep that believes it would delete
referenced content. So whenever a listing is empty, the marker is read; without a marker the
listing counts as failed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sessionstore.errors import BackendUnavailable

from . import keys
from .client import NotFound

RECENT = 60.0
"""Seconds for which one read of the marker is enough, for listings that lead to no deletion."""

SIGN = b'"version"'
"""A part of every marker (see ``layout``)."""


class Marker:
    """The marker of one store. ``read`` returns its bytes or raises NotFound."""

    def __init__(self, read: Callable[[], bytes], url: str) -> None:
        self._read = read
        self._url = url
        self._seen = -RECENT

    def confirm(self, prefix: str, *, opening: bool) -> None:
        """Raise BackendUnavailable if the marker is missing, so an empty listing is not believed.

        ``opening``: the store is being opened, and may have no marker yet.
        """
        if is_harmless(prefix) and time.monotonic() - self._seen < RECENT:
            return
        try:
            is_marker = SIGN in self._read()
        except NotFound:
            if opening:
                return
            is_marker = False
        if not is_marker:
            raise BackendUnavailable(
                f"Could not list the objects in {self._url}: the listing is empty, and the store's "
                "own object 'layout' is not there either; see what answers at this URL."
            )
        self._seen = time.monotonic()


def is_harmless(prefix: str) -> bool:
    """Return whether an empty listing of ``prefix`` can cause no deletion.

    That holds for the copies of one content and for the versions of one file, listed by a save.
    """
    return prefix.endswith("/") and prefix not in {keys.BLOBS, keys.SESSIONS, keys.INTENTS}
