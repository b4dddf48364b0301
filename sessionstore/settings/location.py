r"""The parser of a store's URL, or of a local directory in any of the usual forms.

The forms:

* An ``os.PathLike``, and text without a scheme (``./data``, ``/srv/data``, ``~/data``), is a local
  directory and taken literally: no query, no percent-decoding. ``~`` is expanded in text only.
  A scheme has two letters at least, so ``C:\data`` is a path as well.
* ``file:relative/path`` and ``file:///absolute/path`` are local directories too, percent-encoded
  and perhaps with a query. ``file://host/path`` is refused: other hosts are not local.
* ``scheme://netloc/path?query`` is any other store.

Relative directories start at the working directory of the moment the store is opened.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote_to_bytes, urlsplit

from sessionstore.model import Location

_scheme = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):").match
# Past a "/" when there is a ":", because people paste passwords without encoding them.
_hide_user = re.compile(r"^(?:[^/:]*:.*|[^/]*)@").sub


def parse_url(url: object, cwd: Path) -> tuple[Location, dict[str, str]]:
    """Return the location of ``url`` and the options of its query, both percent-decoded.

    ``Location.url`` is safe for messages: it has neither the query nor the user and password, which
    are in ``Location.netloc``. Raises ValueError with a hint at a valid URL.
    """
    if isinstance(url, os.PathLike):
        return _directory(Path(os.fsdecode(url)), cwd), {}
    if not isinstance(url, str):
        raise ValueError("give a URL as text, or a path")  # noqa: TRY004 - as parsers do
    if not url.strip():
        raise ValueError("it is empty; write a URL such as file:///var/lib/app, or a path")
    if url != url.strip() or not url.isprintable():
        raise ValueError("write it without surrounding blanks and control characters")
    scheme = _scheme(url)
    if scheme is None:
        return _directory(Path(os.path.expanduser(url)), cwd), {}
    is_file = scheme[1].lower() == "file"
    if not is_file and not url.startswith("//", scheme.end()):
        raise ValueError(
            f"two slashes follow the scheme, {scheme[1]}://...; a directory of such a name is "
            "written with ./ in front"
        )
    if "#" in url:
        raise ValueError("the URL of a store has no fragment; write # as %23")
    parts = urlsplit(url)  # a ValueError for brackets that are no IPv6 address
    if is_file:
        return _file(parts, cwd), _query(parts.query)
    location = Location(redacted(url), parts.scheme, parts.netloc, _decoded(parts.path))
    return location, _query(parts.query)


def redacted(url: object) -> str:
    """Return the URL or path for messages: without the query, user and password."""
    text = os.fsdecode(url) if isinstance(url, os.PathLike) else str(url)
    if _scheme(text) is None:
        return text
    scheme, slashes, rest = text.partition("://")
    if not slashes:
        return text.partition("?")[0]
    place, _, query = rest.partition("?")
    if "@" in query and (":" in place or "/" not in place):
        return f"{scheme}://***"  # the "?" may be part of a password
    return f"{scheme}://{_hide_user('***@', place)}"


def _file(parts: SplitResult, cwd: Path) -> Location:
    if parts.netloc not in {"", "localhost"}:  # the one host that RFC 8089 calls local
        raise ValueError(
            f"write three slashes before an absolute path, file:///{parts.netloc}{parts.path}, "
            f"or none before a relative one, file:{parts.netloc}{parts.path}"
        )
    path = _decoded(parts.path)
    if not path:
        raise ValueError("name a directory, such as file:///var/lib/app or file:data")
    if os.name == "nt" and re.match(r"/[A-Za-z]:", path):
        path = path[1:]  # file:///C:/data
    return _directory(Path(path), cwd)


def _directory(path: Path, cwd: Path) -> Location:
    if "\0" in str(path):
        raise ValueError("a path has no NUL character")
    absolute = cwd.absolute() / path
    return Location(absolute.as_uri(), "file", "", str(absolute))


def _decoded(path: str) -> str:
    """Return the path percent-decoded; bytes that are not UTF-8 are kept as by ``os.fsdecode``."""
    return os.fsdecode(unquote_to_bytes(path))


def _query(query: str) -> dict[str, str]:
    if not query:
        return {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict")
    except ValueError:  # its text quotes the query, which may hold a secret
        raise ValueError("write the query as option=value, joined by &") from None
    options = dict(pairs)
    if len(options) < len(pairs):
        raise ValueError("each option stands once in the query")
    return options
