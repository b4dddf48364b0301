"""The ``layout`` object, the marker of a store: the parameters that all its processes share."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import NamedTuple

from sessionstore import parsers
from sessionstore.content import hasher
from sessionstore.errors import BackendUnavailable, SettingsError
from sessionstore.parsers import show_duration

from . import keys
from .bucket import READS, Bucket
from .cache import LookupCache
from .client import Download, Entry, NotFound
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

_RECENT = 60.0
"""Seconds for which one read of the marker is enough, for listings that lead to no deletion."""

_SIGN = b'"version"'
"""A part of every ``layout`` object."""


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
        self._bucket, self._cache, self._terms, self._nonce = shared


def open_or_create(bucket: Bucket, digest: str | None, wanted: timedelta | None) -> StoreParams:
    """Return the parameters of the store in ``bucket``; create the store if it does not exist.

    ``digest`` and ``wanted`` (the grace) may be None: then the store's own value applies. Raises
    SettingsError for a store that has other values, or that a later version of this library made.
    """
    terms = _read(bucket)
    if terms is None:
        terms = StoreParams(wanted or GRACE, digest or "sha256")
        hasher(terms.digest)  # raises for a digest that is not installed, before the first write
        fields = {"digest": terms.digest, "grace": terms.grace.total_seconds()}
        bucket.put(keys.LAYOUT, json.dumps({"version": VERSION, **fields}).encode())
        terms = _read(bucket) or terms  # read it back: another process may have created it too
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


def _read(bucket: Bucket) -> StoreParams | None:
    for _ in range(READS):
        data = bucket.read(keys.LAYOUT)
        if data is None:
            return None
        with suppress(ValueError, KeyError, TypeError):
            fields = json.loads(data)
            version, grace = int(fields["version"]), timedelta(seconds=float(fields["grace"]))
            terms = StoreParams(grace, str(fields["digest"]))
            break
    else:
        raise SettingsError(
            "The object 'layout' was not written by this library: another program uses this "
            "bucket and prefix; use another prefix."
        )
    if version != VERSION:
        raise SettingsError(
            f"The store has layout version {version}, and this library supports only {VERSION}: "
            "use the version of the library that made the store, or a newer one."
        )
    return terms


class Marker:
    """Verifies an empty listing by reading the store's own marker, the object ``layout``.

    Some libraries do not show the HTTP response. For them a web page in place of the store, or a
    bucket that is gone for a moment, looks like an empty listing. A sweep that believes it would
    delete referenced content. ``get`` is the client's.
    """

    def __init__(self, get: Callable[[str], Download], url: str) -> None:
        self._get = get
        self._url = url
        self._seen = -_RECENT

    def confirm(self, prefix: str, *, opening: bool) -> None:
        """Raise BackendUnavailable if the marker is missing, so an empty listing is not believed.

        ``opening``: the store is being opened, and may have no marker yet.
        """
        if is_harmless(prefix) and time.monotonic() - self._seen < _RECENT:
            return
        data: bytes | None = None
        with suppress(NotFound), self._get(keys.LAYOUT).stream as stream:
            data = stream.read()
        if data is None and opening:
            return
        if data is None or _SIGN not in data:
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
