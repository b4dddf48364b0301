"""The errors that the engines of object stores raise: the type of a row in their tables of errors.

The tables are ``backends/s3/errors.py`` and ``backends/fsspec/errors.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sessionstore.errors import BackendUnavailable, LimitExceeded, SessionStoreError, SettingsError


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """The reason of a failure and its remedy, as the end of the sentence "Could not ...: ...".

    ``why`` may hold the names of facts in braces, such as ``{detail}``. ``setting``: another
    setting would cure it, so it is a SettingsError while the store is being opened. ``full``: there
    is no space left, so it is a LimitExceeded. Any other failure is a BackendUnavailable.
    """

    why: str
    setting: bool = False
    full: bool = False

    def error(
        self, doing: str, url: str, facts: Mapping[str, str], *, opening: bool
    ) -> SessionStoreError:
        """Return the error to raise. ``doing`` completes "Could not ..."; ``url`` is the store.

        ``opening``: the store is being opened.
        """
        kind: type[SessionStoreError] = LimitExceeded if self.full else BackendUnavailable
        if opening:
            doing, kind = "open the store", SettingsError if self.setting else kind
        return kind(f"Could not {doing} in {url}: {self.why.format_map(facts)}.")


CLOSED = ErrorRow("the store is closed")


def by_class(rows: Mapping[str, ErrorRow], error: BaseException) -> ErrorRow:
    """Return the row for the class of ``error`` or its nearest base class, by name.

    ``rows`` must have a row "Exception".
    """
    names = (kind.__name__ for kind in type(error).__mro__)
    return next(rows[name] for name in names if name in rows)


def one_line(error: BaseException) -> str:
    """Return the message of ``error`` on one line, without its full stop; else its class name."""
    return " ".join(str(error).split()).removesuffix(".") or type(error).__name__
