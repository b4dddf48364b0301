"""Paths below Gradio's cache directory: what they are called in the store, and what they name.

A file that Gradio moves lies at ``<cache>/<hash>/<name>``, the same path for whoever has the same
bytes. In the store it is the visitor's file ``@/<hash>/<name>``.

A ``StoredFile`` that a handler returns has no such path. It is given one that says by itself which
file it is, and that nobody else can use or make up::

    <cache>/sessionstore/<session>/<stored name>/<proof>/<name>

The proof is an HMAC with the store's secret over session, name, version and the visitor it was
handed to. So any replica can find the file, and a path that was passed on opens nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from sessionstore.errors import InvalidName
from sessionstore.names import HIDDEN, encode, file_name, is_sid
from sessionstore.working import fit

if TYPE_CHECKING:
    from sessionstore.backend import Reference

OURS: Final = "sessionstore"
"""The directory below Gradio's cache that this adapter has for itself."""

_is_proof = re.compile(r"[0-9a-f]{32}").fullmatch


class Pointer(NamedTuple):
    """What a path of a stored file says: session, name in its stored form, proof."""

    sid: str
    stored: str
    proof: str


class CachePaths:
    """Paths below one cache directory. Makes and takes apart; writes nothing."""

    def __init__(self, root: str | os.PathLike[str], secret: bytes) -> None:
        self.root = Path(os.path.abspath(root))
        self._prefix = str(self.root) + os.sep
        self._secret = secret

    def relative(self, path: str) -> str | None:
        """The path within the cache, with slashes; None for a path that is not inside.

        A path that comes to the cache by a link (``/proc/self/root`` is one), or by two slashes at
        its beginning, is inside: Gradio resolves paths before it looks whether they are allowed.
        """
        absolute, prefix = os.path.abspath(path), self._prefix
        if not absolute.startswith(prefix):
            prefix = os.path.realpath(self.root) + os.sep
            try:
                absolute = os.path.realpath(path)
            except ValueError:  # no path at all
                return None
        if not absolute.startswith(prefix):
            return None
        return absolute[len(prefix) :].replace(os.sep, "/")

    def absolute(self, relative: str) -> Path:
        """The path of what ``relative`` gave."""
        return self.root / relative

    def kept(self, relative: str) -> str | None:
        """The name by which a file of Gradio's is kept, None when it cannot be."""
        if relative.startswith(OURS + "/"):
            return None
        try:
            return file_name(HIDDEN + relative)
        except InvalidName:
            return None

    def to(self, sid: str, reference: Reference, visitor: str) -> str:
        """The path within the cache of a stored file, for one visitor."""
        proof = self.proof(sid, reference, visitor)
        return f"{OURS}/{sid}/{encode(reference.name)}/{proof}/{fit(reference.name)}"

    def pointer(self, relative: str) -> Pointer | None:
        """What a path says that ``to`` made; None for any other. The proof is not checked here."""
        parts = relative.split("/")
        if len(parts) != 5 or parts[0] != OURS:  # noqa: PLR2004 - as ``to`` makes them
            return None
        _, sid, stored, proof, _ = parts
        return Pointer(sid, stored, proof) if is_sid(sid) and _is_proof(proof) else None

    def proof(self, sid: str, reference: Reference, visitor: str) -> str:
        """The mark that this version of the file was handed to that visitor."""
        parts = ("file", sid, reference.name, reference.token, visitor)
        text = b"".join(
            len(raw).to_bytes(4, "big") + raw
            for raw in (part.encode(errors="surrogatepass") for part in parts)
        )
        return hmac.new(self._secret, text, hashlib.sha256).hexdigest()[:32]
