"""The guard against a sweep that believes an empty listing: a wrong prefix, a lost permission."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from sessionstore.backends import objects_keys as keys
from sessionstore.backends.objects_bucket import Bucket
from sessionstore.backends.objects_terms import Terms
from sessionstore.values import show_duration

_FEW = 1000
"""Blobs that may go without question."""

_SHARE = 10
"""References must be at least this part of what they were."""


@dataclass(frozen=True, slots=True)
class Count:
    """What the last sweeps saw: references, and since when (microseconds) there are too few."""

    references: int = 0
    low: int | None = None
    since: int = 0


class Guard:
    """Compares what this sweep sees with what the last one saw.

    It is advisory: a lost or a stale record delays a sweep or lets it pass, and safety rests on
    neither.
    """

    def __init__(self, bucket: Bucket, terms: Terms) -> None:
        self._bucket = bucket
        self._terms = terms
        self._last = bucket.told(keys.SWEEP, _parsed)

    def objection(self, references: int, idle: int) -> str | None:
        """Why nothing should be deleted now, in words; None when all looks well."""
        expected = 0 if self._last is None else self._last.references
        few = references == 0 if self._last is None else references * _SHARE < expected
        if idle <= _FEW or not few:
            return None
        now, last = keys.microseconds(self._bucket.now()), self._last or Count()
        grace = self._terms.grace
        if last.low is not None and now - last.since >= grace.total_seconds() * 1e6:
            return None
        if last.low is None:
            self._write(Count(last.references, references, now))
        return (
            f"{idle} stored contents would go, because only {references} references are listed "
            f"where {expected} were before: check the store's URL and the permission to list. A "
            f"sweep {show_duration(grace)} after the first that saw this goes ahead; force does "
            "so at once."
        )

    def note(self, references: int) -> None:
        """Remember what a sweep that went through has seen."""
        if self._last != Count(references):
            self._write(Count(references))

    def _write(self, count: Count) -> None:
        self._bucket.put(keys.SWEEP, json.dumps(asdict(count)).encode())


def _parsed(data: bytes) -> Count | None:
    try:
        return Count(**json.loads(data))
    except (ValueError, TypeError):
        return None
