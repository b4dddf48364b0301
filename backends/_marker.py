"""Tells a listing that is empty from an answer that is none: by the store's own marker.

A web page in the store's place, or a bucket that is gone for a moment, looks like an empty listing
to a library that shows no answers, and a sweep that believes it would delete what is referred to.
So where nothing is listed, the marker is read: a store that has none cannot be asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sessionstore.backends import objects_keys as keys
from sessionstore.backends.objects_client import NotFound
from sessionstore.errors import BackendUnavailable

RECENT = 60.0
"""Seconds for which the marker is taken to be there where a wrong answer deletes nothing."""

SIGN = b'"version"'
"""What stands in every marker (``objects_layout``)."""


class Marker:
    """The marker of one store. ``read`` gets it, or raises NotFound."""

    def __init__(self, read: Callable[[], bytes], url: str) -> None:
        self._read = read
        self._url = url
        self._seen = -RECENT

    def confirm(self, prefix: str, *, opening: bool) -> None:
        """Raise BackendUnavailable unless the store is one that can list nothing below a prefix.

        While it is being opened it may have no marker yet.
        """
        if is_harmless(prefix) and time.monotonic() - self._seen < RECENT:
            return
        try:
            found = SIGN in self._read()
        except NotFound:
            if opening:
                return
            found = False
        if not found:
            raise BackendUnavailable(
                f"Could not list the objects in {self._url}: nothing is listed, and the store's "
                "own object 'layout' is not there either; see what answers at this URL."
            )
        self._seen = time.monotonic()


def is_harmless(prefix: str) -> bool:
    """Whether nothing is deleted for want of an object below it: content and versions of a save."""
    return prefix.endswith("/") and prefix not in {keys.BLOBS, keys.SESSIONS, keys.INTENTS}
