"""The ``layout`` object, the marker of a store: the parameters that all its processes share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import NamedTuple

from sessionstore import parsers
from sessionstore.content import hasher
from sessionstore.errors import SettingsError
from sessionstore.parsers import show_duration

from . import keys
from .bucket import READS, Bucket
from .cache import LookupCache
from .client import Entry
from .keys import Version

VERSION = 1
GRACE = timedelta(hours=1)

_SHORTEST = timedelta(minutes=10)
_SHORTEST_EVER = timedelta(seconds=10)

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
    clock skew between servers of one store, including the rounding of times to a second. ``window``
    is the greatest age of a generation when a reference to it is acknowledged.
    """

    grace: timedelta
    digest: str

    @cached_property
    def margin(self) -> timedelta:
        return self.grace / 10

    @cached_property
    def window(self) -> timedelta:
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


def grace(value: object) -> timedelta:
    """Parse the setting ``grace``: at least 10 min, or 10 s with SESSIONSTORE_TEST_GRACE=1.

    A save that takes longer than ``grace`` must start again. The clocks of the store's servers may
    differ by a tenth of ``grace``. Raises ValueError.
    """
    parsed = parsers.duration(value)
    if parsed > parsers.LONGEST:
        raise ValueError("write at most 100 years")
    if parsed < _SHORTEST_EVER:
        raise ValueError("write at least 10m (at least 10s in tests)")
    if parsed < _SHORTEST and os.environ.get("SESSIONSTORE_TEST_GRACE") != "1":
        raise ValueError("write at least 10m, because a save that takes longer than this fails")
    return parsed


class Shared(NamedTuple):
    """The state that all parts of one backend share."""

    bucket: Bucket
    cache: LookupCache
    terms: StoreParams
    nonce: Nonce


class Part:
    """A part of a backend: the reader, the writer, the sessions, the collector."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._bucket, self._cache, self._terms, self._nonce = shared


class Layout(NamedTuple):
    """The parsed content of the ``layout`` object; ``grace`` in seconds."""

    version: int
    digest: str
    grace: float


def open_or_create(bucket: Bucket, digest: str | None, wanted: timedelta | None) -> StoreParams:
    """Return the parameters of the store in ``bucket``; create the store if it does not exist.

    ``digest`` and ``wanted`` (the grace) may be None: then the store's own value applies. Raises
    SettingsError for a store that has other values, or that a later version of this library made.
    """
    layout = _read(bucket)
    if layout is None:
        new = Layout(VERSION, digest or "sha256", (wanted or GRACE).total_seconds())
        hasher(new.digest)  # raises for a digest that is not installed, before the first write
        bucket.put(keys.LAYOUT, json.dumps(new._asdict()).encode())
        layout = _read(bucket) or new  # read it back: another process may have created it too
    terms = StoreParams(timedelta(seconds=layout.grace), layout.digest)
    hasher(terms.digest)
    if digest not in {None, terms.digest}:
        raise SettingsError(
            f"invalid digest={digest!r}: the store was made with {terms.digest!r}; leave the "
            "setting out, or use another prefix."
        )
    if wanted not in {None, terms.grace}:
        raise SettingsError(
            f"invalid grace={show_duration(wanted or GRACE)}: the store was made with "
            f"{show_duration(terms.grace)}, and all its processes must use the same value; leave "
            "the setting out, or use another prefix."
        )
    return terms


def _read(bucket: Bucket) -> Layout | None:
    for _ in range(READS):
        data = bucket.read(keys.LAYOUT)
        if data is None:
            return None
        if (layout := _parsed(data)) is not None:
            break
    else:
        raise SettingsError(
            "The object 'layout' was not written by this library: another program uses this "
            "bucket and prefix; use another prefix."
        )
    if layout.version != VERSION:
        raise SettingsError(
            f"The store has layout version {layout.version}, and this library supports only "
            f"{VERSION}: use the version of the library that made the store, or a newer one."
        )
    return layout


def _parsed(data: bytes) -> Layout | None:
    try:
        fields = json.loads(data)
        return Layout(int(fields["version"]), str(fields["digest"]), float(fields["grace"]))
    except (ValueError, KeyError, TypeError):
        return None
