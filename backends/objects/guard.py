"""A sanity check before a sweep deletes: a wrong prefix or permission can hide references."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from sessionstore.parsers import show_duration

from . import keys
from .bucket import Bucket
from .terms import StoreParams

_FEW = 1000
"""Up to this many blobs may be deleted without the check."""

_SHARE = 10
"""There must be at least one ``_SHARE``-th of the references that the last sweep counted."""


@dataclass(frozen=True, slots=True)
class Count:
    """The result of the last sweeps: the number of ``references`` of the last complete sweep.

    ``low`` is the suspiciously low number of a held sweep, ``since`` its time in microseconds.
    """

    references: int = 0
    low: int | None = None
    since: int = 0


class SafetyCheck:
    """Compares the number of references in this sweep with the number in the last sweep.

    The check is advisory. A lost or stale record delays a sweep or lets it pass; safety does not
    depend on it.
    """

    def __init__(self, bucket: Bucket, terms: StoreParams) -> None:
        self._bucket = bucket
        self._terms = terms
        self._last = bucket.load(keys.SWEEP, _parsed)

    def problem(self, references: int, idle: int) -> str | None:
        """Return the reason why nothing should be deleted now, or None.

        ``references`` were listed, and ``idle`` blobs would be deleted.
        """
        expected = 0 if self._last is None else self._last.references
        few = references == 0 if self._last is None else references * _SHARE < expected
        if idle <= _FEW or not few:
            return None
        now, last = keys.microseconds(self._bucket.now()), self._last or Count()
        grace = self._terms.grace
        if last.low is not None and now - last.since >= grace.total_seconds() * 1e6:
            return None  # it has been low for ``grace``: believe it
        if last.low is None:
            self._write(Count(last.references, references, now))
        return (
            f"{idle} stored blobs would be deleted, because only {references} references are "
            f"listed ({expected} before): check the store's URL and the permission to list. If "
            f"the number is still low {show_duration(grace)} after it was first seen, a sweep "
            "deletes them; force deletes them now."
        )

    def note(self, references: int) -> None:
        """Record the number of references of a sweep that completed."""
        if self._last != Count(references):
            self._write(Count(references))

    def _write(self, count: Count) -> None:
        self._bucket.put(keys.SWEEP, json.dumps(asdict(count)).encode())


def _parsed(data: bytes) -> Count | None:
    try:
        return Count(**json.loads(data))
    except (ValueError, TypeError):
        return None
