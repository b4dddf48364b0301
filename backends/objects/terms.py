"""The parameters that all processes of one store share, and the limits derived from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

from .client import Entry
from .keys import Version

Nonce = Callable[[int], str]
"""Returns the given number of random bytes as hex; no value is returned twice."""

UPLOAD_LIMIT = timedelta(hours=12)
"""The greatest age of an intent when its multipart upload is acknowledged."""

ABANDONED = 2 * UPLOAD_LIMIT
"""The age from which intents and uploads can no longer belong to an acknowledged save."""


@dataclass(frozen=True)
class StoreParams:
    """The store's parameters.

    A sweep may delete content only when it is older than ``grace``. ``margin`` is the greatest
    allowed clock skew between servers of one store, including the rounding of times to a second.
    """

    grace: timedelta
    digest: str

    @cached_property
    def margin(self) -> timedelta:
        return self.grace / 10

    @cached_property
    def window(self) -> timedelta:
        """The greatest age of a generation when a reference to it is acknowledged."""
        return self.grace - self.margin

    def is_firm(self, version: Version, blob: Entry | None) -> bool:
        """Return whether ``version`` was written while its ``blob`` was younger than ``window``.

        Both times are the store's ``modified``. A firm reference never loses its content: every
        sweep that found the content old also listed the reference. Its writer never takes it back.
        The rule does not apply to references that an intent protects; they count as not firm.
        """
        if blob is None or version.by_intent:
            return False
        return version.modified <= blob.modified + self.window
