"""Paths below Gradio's cache directory, and the files in the store that they name.

A file that Gradio moves is at ``<cache>/<hash>/<name>``, for every visitor with the same bytes. In
the store it is the visitor's file ``@/<hash>/<name>``. The path of a ``StoredFile`` is::

    <cache>/sessionstore/<session>/<stored name>/<proof>/<name>

The proof is an HMAC with the store's secret over session, name, version and the visitor who got it.
So any replica can find the file, and the path is useless to another visitor.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, unquote

from sessionstore.errors import InvalidName
from sessionstore.local_copies import RECHECK, fit
from sessionstore.names import HIDDEN, encode, file_name, is_sid

if TYPE_CHECKING:
    from sessionstore.model import Reference

OURS: Final = "sessionstore"
"""This adapter's own directory below Gradio's cache."""

REMEMBERED: Final = 20_000
"""The most file names in the cache. Others are looked up in the store again."""

_is_proof = re.compile(r"[0-9a-f]{32}").fullmatch

_links = re.compile(r"/file=([^\s\"'<>()\\?#]+)")


def links_in(values: Any) -> Iterator[str]:
    """Yield the paths of files among ``values``, and those that texts link to."""
    if isinstance(values, str):
        for link in _links.finditer(values):
            yield unquote(html.unescape(link[1]))
    elif isinstance(values, dict) and isinstance(values.get("path"), str):
        yield values["path"]  # of a ``gr.Server``, which moves no files
    elif isinstance(values, dict | list | tuple):
        for value in values.values() if isinstance(values, dict) else values:
            yield from links_in(value)


def with_links(values: Any, paths: dict[str, str]) -> Any:
    """Return ``values`` with the paths that their texts link to replaced as ``paths`` says."""
    if all(path == other for path, other in paths.items()):
        return values
    if isinstance(values, str):
        return _links.sub(lambda link: "/file=" + _replaced(link[1], paths), values)
    if isinstance(values, list | tuple):
        return [with_links(value, paths) for value in values]
    if isinstance(values, dict) and isinstance(values.get("path"), str):
        return {**values, "path": paths.get(values["path"], values["path"])}
    if isinstance(values, dict):
        return {key: with_links(value, paths) for key, value in values.items()}
    return values


def _replaced(link: str, paths: dict[str, str]) -> str:
    path = unquote(html.unescape(link))
    other = paths.get(path, path)
    return link if other == path else quote(other)


class Pointer(NamedTuple):
    """The parts of a stored file's path: session, name in its stored form, proof."""

    sid: str
    stored: str
    proof: str


class CachePaths:
    """Makes and parses paths below one cache directory. Writes nothing."""

    def __init__(self, root: str | os.PathLike[str], secret: bytes) -> None:
        self.root: Final = Path(os.path.abspath(root))
        self._prefix = str(self.root) + os.sep
        self._secret = secret

    def relative(self, path: str) -> str | None:
        """Return the path relative to the cache, with slashes; None for a path outside it.

        Gradio resolves paths before it checks whether they are allowed. So one that leads into the
        cache by a link (``/proc/self/root`` is one), or begins with two slashes, is inside.
        """
        absolute, prefix = os.path.abspath(path), self._prefix
        if not absolute.startswith(prefix):
            prefix = os.path.realpath(self.root) + os.sep
            try:
                absolute = os.path.realpath(path)
            except ValueError:  # not a valid path
                return None
        if not absolute.startswith(prefix):
            return None
        return absolute[len(prefix) :].replace(os.sep, "/")

    def within(self, values: Any) -> Iterator[tuple[str, str]]:
        """Yield the paths below the cache among ``values``, each with its relative path."""
        if isinstance(values, str):
            if values.startswith(self._prefix) and (name := self.relative(values)) is not None:
                yield str(values), name
        elif isinstance(values, dict | list | tuple):
            for value in values.values() if isinstance(values, dict) else values:
                yield from self.within(value)

    def absolute(self, relative: str) -> Path:
        return self.root / relative

    def kept(self, relative: str) -> str | None:
        """Return the name in the store of a file of Gradio's, None when it cannot be saved."""
        if relative.startswith(OURS + "/"):
            return None
        try:
            return file_name(HIDDEN + relative)
        except InvalidName:
            return None

    def to(self, sid: str, reference: Reference, visitor: str) -> str:
        """Return the relative path of a stored file for one visitor."""
        proof = self.proof(sid, reference, visitor)
        return f"{OURS}/{sid}/{encode(reference.name)}/{proof}/{fit(reference.name)}"

    def pointer(self, relative: str) -> Pointer | None:
        """Parse a path that ``to`` made; return None for any other. Does not check the proof."""
        parts = relative.split("/")
        if len(parts) != 5 or parts[0] != OURS:  # noqa: PLR2004 - the parts that ``to`` makes
            return None
        _, sid, stored, proof, _ = parts
        return Pointer(sid, stored, proof) if is_sid(sid) and _is_proof(proof) else None

    def proof(self, sid: str, reference: Reference, visitor: str) -> str:
        """Return the proof that this version of the file was given to that visitor."""
        parts = ("file", sid, reference.name, reference.token, visitor)
        text = b"".join(
            len(raw).to_bytes(4, "big") + raw
            for raw in (part.encode(errors="surrogatepass") for part in parts)
        )
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()[:32]


def remember(known: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    """Set a key of ``known``, and forget its oldest keys beyond ``REMEMBERED``."""
    known[key] = value
    while len(known) > REMEMBERED:
        known.popitem(last=False)


class LocationCache:
    """Files by name, owner and session: the last seen ones, at most ``REMEMBERED`` names."""

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._lock = threading.Lock()
        self._by_name: OrderedDict[str, dict[str | None, dict[str, tuple[Reference, float]]]]
        self._by_name = OrderedDict()
        self._by_session: dict[str, set[str]] = {}

    def add(self, owner: str | None, name: str, sid: str, reference: Reference) -> None:
        """Note that the session has this version of the file now."""
        with self._lock:
            sights = self._by_name.setdefault(name, {}).setdefault(owner, {})
            sights[sid] = reference, self.seconds()
            self._by_session.setdefault(sid, set()).add(name)
            self._by_name.move_to_end(name)
            if len(self._by_name) > REMEMBERED:
                oldest, owners = next(iter(self._by_name.items()))
                for known in {sid for sights in owners.values() for sid in sights}:
                    self._gone(known, oldest)

    def sessions(self, owner: str | None, name: str) -> list[str]:
        """Return the sessions that the owner's file was seen in, except where it was deleted."""
        with self._lock:
            return list(self._by_name.get(name, {}).get(owner, ()))

    def recent(self, owner: str | None, name: str, sid: str) -> Reference | None:
        """Return the version in that session, if it was seen within ``RECHECK`` seconds."""
        now = self.seconds()
        with self._lock:
            reference, at = self._by_name.get(name, {}).get(owner, {}).get(sid, (None, now))
            return reference if now - at < RECHECK else None

    def discard(self, sid: str, name: str) -> None:
        """Note that the session no longer has the file."""
        with self._lock:
            self._gone(sid, name)

    def discard_session(self, sid: str) -> list[str]:
        """Note that the session was deleted; return the names of its files."""
        with self._lock:
            names = list(self._by_session.get(sid, ()))
            for name in names:
                self._gone(sid, name)
        return names

    def _gone(self, sid: str, name: str) -> None:
        owners = self._by_name.get(name, {})
        for owner, sights in list(owners.items()):
            sights.pop(sid, None)
            if not sights:
                del owners[owner]
        if not owners:
            self._by_name.pop(name, None)
        names = self._by_session.get(sid, set())
        names.discard(name)
        if not names:
            self._by_session.pop(sid, None)
