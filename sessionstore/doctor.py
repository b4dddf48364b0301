"""Checks of a location for a store: safety, speed, and missing permissions or settings.

The location is probed with the doctor's own files, beside a store that may exist there, and they
are removed again; no store is made. It needs no more permissions than a store. Facts that need
further permissions (a bucket's lifecycle rules, its versioning) are "unknown" without them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from sessionstore.errors import SessionStoreError
from sessionstore.model import Location
from sessionstore.settings.resolver import resolve

__all__ = ["Check", "Examinable", "Report", "Verdict", "doctor"]

Verdict = Literal["good", "note", "unknown", "bad"]
"""``good``: as it should be. ``note``: good to know, harmless. ``unknown``: it could not be found
out. ``bad``: files would be lost, would leak, or cannot be saved."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, its verdict, and the result in words, with the action if one is needed.

    ``short`` is the result in a word or two, for a table.
    """

    what: str
    verdict: Verdict
    words: str
    short: str = ""

    def __str__(self) -> str:
        return f"{self.verdict:7} {self.what}: {self.words}"


@dataclass(frozen=True, slots=True)
class Report:
    """The checks of one location. ``url`` is safe for messages: it has no password."""

    url: str
    checks: Sequence[Check]

    @property
    def safe(self) -> bool:
        """Return whether no check is bad."""
        return all(check.verdict != "bad" for check in self.checks)

    def find(self, what: str) -> Check | None:
        """Return the check of that name, None if it was not made."""
        return next((check for check in self.checks if check.what == what), None)

    def __str__(self) -> str:
        bad = sum(check.verdict == "bad" for check in self.checks)
        unknown = sum(check.verdict == "unknown" for check in self.checks)
        failed = f"not safe for a store: {bad} check{'s' * (bad > 1)} failed"
        summary = "a store is safe here" if self.safe else failed
        if unknown:
            summary += f", {unknown} unknown"
        return "\n".join((f"{self.url}: {summary}", *(f"  {check}" for check in self.checks)))


@runtime_checkable
class Examinable(Protocol):
    """A backend class that can check a location without making a store there."""

    @classmethod
    def examine(cls, location: Location, options: Mapping[str, object]) -> Iterator[Check]:
        """Iterate over the checks as they are made. Removes its files, even if closed early.

        An error that it raises becomes the last check.
        """
        ...


def doctor(url: str | os.PathLike[str] | None = None, **options: object) -> Report:
    """Check the location of ``url``; ``options`` are the backend's, as in ``SessionStore.open``.

    The default of ``url`` is the configured one. Takes some seconds, and on a bucket about 1,100
    requests. Raises SettingsError for wrong settings; problems of the location are in the report.
    """
    settings = resolve(url, options, os.environ, os.curdir)
    backend, location = settings.backend, settings.location
    if not isinstance(backend, Examinable):
        words = f"there are no checks for {location.scheme}:// stores"
        return Report(location.url, [Check("examination", "unknown", words)])
    checks: list[Check] = []
    examination = backend.examine(location, settings.backend_options)
    try:
        checks.extend(examination)
    except SessionStoreError as error:
        checks.append(Check("opening", "bad", str(error), "refused"))
    return Report(location.url, checks)
