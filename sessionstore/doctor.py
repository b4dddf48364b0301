"""Looks at a place before a store is kept there: whether it is safe and fast, and what is missing.

    from sessionstore.doctor import doctor

    report = doctor("s3://bucket/prefix")
    print(report)        # a line for each check, in words
    report.safe          # whether nothing was found that loses or leaks files

The place is probed with files of the doctor's own, beside a store that may be there already, and
they are removed again; no store is made. It needs no more than a store does. What only further
permissions tell (a bucket's lifecycle rules, its versioning) is "unknown" without them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from sessionstore.errors import SessionStoreError
from sessionstore.settings import resolve

if TYPE_CHECKING:
    from sessionstore.backend import Location

__all__ = ["Check", "Examinable", "Report", "Verdict", "doctor"]

Verdict = Literal["good", "note", "unknown", "bad"]
"""``good``: as it should be. ``note``: to be known, harmless. ``unknown``: nobody told. ``bad``:
files would be lost, would leak, or cannot be saved."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: what, how it is, and in words what was found and what to do.

    ``short`` is the same in a word or two, for a table.
    """

    what: str
    verdict: Verdict
    words: str
    short: str = ""

    def __str__(self) -> str:
        return f"{self.verdict:7} {self.what}: {self.words}"


@dataclass(frozen=True, slots=True)
class Report:
    """What the doctor found at a place. ``url`` is fit for messages: it has no password."""

    url: str
    checks: Sequence[Check]

    @property
    def safe(self) -> bool:
        """Whether nothing is bad."""
        return all(check.verdict != "bad" for check in self.checks)

    def find(self, what: str) -> Check | None:
        """The check of that name, None when it was not made."""
        return next((check for check in self.checks if check.what == what), None)

    def __str__(self) -> str:
        bad = sum(check.verdict == "bad" for check in self.checks)
        unknown = sum(check.verdict == "unknown" for check in self.checks)
        summary = "a store is safe here" if self.safe else f"no place for a store: {bad} bad"
        if unknown:
            summary += f", {unknown} unknown"
        return "\n".join((f"{self.url}: {summary}", *(f"  {check}" for check in self.checks)))


@runtime_checkable
class Examinable(Protocol):
    """A backend class that can look at a place without making a store there."""

    @classmethod
    def examine(cls, location: Location, options: Mapping[str, object]) -> Iterator[Check]:
        """The checks, as they are made. Removes what it wrote, also when it is closed early.

        An error that it raises becomes the last check.
        """
        ...


def doctor(url: str | os.PathLike[str] | None = None, **options: object) -> Report:
    """Look at the place of a URL; ``options`` are the backend's, as ``SessionStore.open`` has them.

    Without a URL it is the configured one. Takes some seconds, and on a bucket about 1,100
    requests. Raises SettingsError for settings that are wrong in themselves; all that is wrong with
    the place is in the report.
    """
    settings = resolve(url, options, os.environ, os.curdir)
    backend, location = settings.backend, settings.location
    if not isinstance(backend, Examinable):
        words = f"nobody has written checks for {location.scheme}:// stores"
        return Report(location.url, [Check("examination", "unknown", words)])
    checks: list[Check] = []
    examination = backend.examine(location, settings.backend_options)
    try:
        checks.extend(examination)
    except SessionStoreError as error:
        checks.append(Check("opening", "bad", str(error), "refused"))
    return Report(location.url, checks)
