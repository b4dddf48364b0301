"""The marker that says what a store is, and the terms that its processes agree on."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import NamedTuple

from sessionstore import values
from sessionstore.backends import objects_keys as keys
from sessionstore.backends.objects_bucket import READS, Bucket
from sessionstore.backends.objects_terms import Terms
from sessionstore.content import hasher
from sessionstore.errors import SettingsError
from sessionstore.values import show_duration

VERSION = 1
GRACE = timedelta(hours=1)

_SHORTEST = timedelta(minutes=10)
_SHORTEST_EVER = timedelta(seconds=10)


def grace(value: object) -> timedelta:
    """A parser of the setting: at least 10 min, or 10 s where SESSIONSTORE_TEST_GRACE=1.

    A save that takes longer than ``grace`` has to begin again, and the store's clocks may differ
    by a tenth of it.
    """
    parsed = values.duration(value)
    if parsed > values.LONGEST:
        raise ValueError("a hundred years are the most")
    if parsed < _SHORTEST_EVER:
        raise ValueError("it is at least 10s even in tests, and 10m otherwise")
    if parsed < _SHORTEST and os.environ.get("SESSIONSTORE_TEST_GRACE") != "1":
        raise ValueError("it is at least 10m, or saves that take longer would fail")
    return parsed


class Layout(NamedTuple):
    """What ``layout`` says."""

    version: int
    digest: str
    grace: float

    def terms(self) -> Terms:
        return Terms(timedelta(seconds=self.grace), self.digest)


def agree(bucket: Bucket, digest: str | None, wanted: timedelta | None) -> Terms:
    """The terms of the store in a bucket, which is made when there is none.

    None leaves a term to the store. Raises SettingsError for a store made on other terms, or by a
    later version of this library.
    """
    layout = _read(bucket)
    if layout is None:
        new = Layout(VERSION, digest or "sha256", (wanted or GRACE).total_seconds())
        hasher(new.digest)  # before anything is written
        bucket.put(keys.LAYOUT, json.dumps(new._asdict()).encode())
        layout = _read(bucket) or new  # another process may have been faster
    terms = layout.terms()
    hasher(terms.digest)
    if digest not in {None, terms.digest}:
        raise SettingsError(
            f"digest={digest!r} is not right: the store was made with {terms.digest!r}; leave the "
            "setting out, or use another prefix."
        )
    if wanted not in {None, terms.grace}:
        raise SettingsError(
            f"grace={show_duration(wanted or GRACE)} is not right: the store was made with "
            f"{show_duration(terms.grace)}, and all its processes have to agree; leave the setting "
            "out, or use another prefix."
        )
    return terms


def _read(bucket: Bucket) -> Layout | None:
    layout: Layout | None = None
    for _ in range(READS):
        data = bucket.read(keys.LAYOUT)
        if data is None:
            return None
        layout = _parsed(data)
        if layout is not None:
            break
    if layout is None:
        raise SettingsError(
            "The object 'layout' is not this library's: another program uses this place; use "
            "another prefix."
        )
    if layout.version != VERSION:
        raise SettingsError(
            f"The store has layout version {layout.version}, this library knows {VERSION}: use the "
            "version of the library that made it, or a newer one."
        )
    return layout


def _parsed(data: bytes) -> Layout | None:
    try:
        told = json.loads(data)
        return Layout(int(told["version"]), str(told["digest"]), float(told["grace"]))
    except (ValueError, KeyError, TypeError):
        return None
