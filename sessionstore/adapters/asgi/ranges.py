"""The bytes of a file that a request wants: Range, If-Range and If-None-Match (RFC 9110).

One range is served. A request for several gets the whole file, which section 14.2 allows: requests
with thousands of ranges have been used to overload servers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

LONGEST: Final = 256
"""The most characters of a Range header; a longer one is ignored."""

_one_range = re.compile(r"bytes=\s*([0-9]{0,19})-([0-9]{0,19})\s*").fullmatch
_tags = re.compile(r'(?:W/)?("[^"]*")').findall


class Span(NamedTuple):
    """Bytes of a file, from ``start`` up to but not including ``stop``."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


class Unsatisfiable(Exception):
    """The range has no byte of the file."""


def wanted(headers: Mapping[str, str], etag: str, size: int) -> Span | None:
    """Return the range that a GET requests, None for the whole file.

    Raises Unsatisfiable, also for a range whose end is before its start; section 14.2 leaves that
    case open.
    """
    written = headers.get("range", "")
    if not 0 < len(written) <= LONGEST or headers.get("if-range", etag) != etag:
        return None
    match = _one_range(written)
    if match is None or not (match[1] or match[2]):
        return None
    if match[1]:
        start, stop = int(match[1]), min(int(match[2] or size) + 1, size)
    else:
        start, stop = max(size - int(match[2]), 0), size
    if start >= stop:
        raise Unsatisfiable
    return Span(start, stop)


def is_known(headers: Mapping[str, str], etag: str) -> bool:
    """Return whether the client has these bytes by If-None-Match (a weak comparison)."""
    written = headers.get("if-none-match", "")
    return written.strip() == "*" or etag in _tags(written)
