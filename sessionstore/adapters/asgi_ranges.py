"""Which bytes of a file a request wants: Range, If-Range and If-None-Match (RFC 9110).

One range is served. What asks for several gets the whole file, which section 14.2 allows: merging
thousands of ranges has been a way to keep a server busy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

LONGEST: Final = 256
"""Characters of a Range header; a longer one is passed over."""

_one_range = re.compile(r"bytes=\s*([0-9]{0,19})-([0-9]{0,19})\s*").fullmatch
_tags = re.compile(r'(?:W/)?("[^"]*")').findall


class Span(NamedTuple):
    """Bytes of a file, ``start`` the first and ``stop`` the one behind the last."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


class Unsatisfiable(Exception):
    """The range has no byte that the file has."""


def wanted(headers: Mapping[str, str], etag: str, size: int) -> Span | None:
    """The one range that a GET asks for, None for the whole file.

    Raises Unsatisfiable. A backward range counts as that too, which section 14.2 leaves open.
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
    """Whether If-None-Match says that the client has these very bytes (a weak comparison)."""
    written = headers.get("if-none-match", "")
    return written.strip() == "*" or etag in _tags(written)
