"""What all processes on one store have agreed on, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

from sessionstore.backends.objects_client import Entry
from sessionstore.backends.objects_keys import Version

Nonce = Callable[[int], str]
"""So many random bytes in hex, never the same again."""

UPLOAD_LIMIT = timedelta(hours=12)
"""How old its intent may be when a multipart upload is acknowledged."""

ABANDONED = 2 * UPLOAD_LIMIT
"""Age of intents and uploads that no save can be acknowledged by any more."""


@dataclass(frozen=True)
class Terms:
    """The store's terms.

    ``grace`` is how old content has to be before a sweep may take it. ``margin`` is what clocks of
    one store may differ by, the second that a time is cut by included.
    """

    grace: timedelta
    digest: str

    @cached_property
    def margin(self) -> timedelta:
        return self.grace / 10

    @cached_property
    def window(self) -> timedelta:
        """How old a generation may be when a reference to it is acknowledged."""
        return self.grace - self.margin

    def is_firm(self, version: Version, blob: Entry | None) -> bool:
        """Whether a reference came while its content was young, by the store's record of both.

        Such a reference never loses its content, since every sweep that saw the content old has
        seen the reference, and its writer never takes it back. Of references that an intent
        protects this tells nothing, and they count as not firm.
        """
        if blob is None or version.by_intent:
            return False
        return version.modified <= blob.modified + self.window
