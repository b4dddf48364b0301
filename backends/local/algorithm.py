"""Find the digest algorithm of a store without a layout file, by its content."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from sessionstore.content import CHUNK, DIGESTS, hasher
from sessionstore.errors import SettingsError

from . import journal
from .directory import Directory

_BLAKE3_OF_NOTHING = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def algorithm_of(root: Path) -> str | None:
    """Return the algorithm that made the digests of the store at ``root``.

    The first content with a matching digest decides. None means that no content is whole, so that
    any choice loses nothing. Raises SettingsError when only a package that is not installed could
    check the content.
    """
    known = list(_installed())
    unknown = False
    for digest, path in _content(root):
        hashers = {algorithm: hasher(algorithm) for algorithm in known}
        size = 0
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                size += len(chunk)
                for candidate in hashers.values():
                    candidate.update(chunk)
        for algorithm, candidate in hashers.items():
            if candidate.hexdigest() == digest:
                return algorithm
        # An empty file with any other digest was torn by a power cut, under every algorithm.
        unknown = unknown or size > 0 or digest == _BLAKE3_OF_NOTHING
    if unknown and len(known) < len(DIGESTS):
        raise SettingsError(
            f"invalid url=file://{root}: its layout file is missing or torn, and none of its "
            "content has a matching sha256 digest; install sessionstore[blake3], so that the "
            "store can be opened if it was made with blake3."
        )
    return None


def _installed() -> Iterator[str]:
    for algorithm in DIGESTS:
        with contextlib.suppress(SettingsError):
            hasher(algorithm)
            yield algorithm


def _content(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield (digest, path) of every blob, then of every file that a journal describes."""
    for path in root.glob("blobs/??/*"):
        if path.is_file():
            yield path.name, path
    for session in root.glob("sessions/*"):
        if session.is_dir():
            with Directory(str(session)) as folder:
                for line in journal.lines(folder):
                    path = session / "files" / line.file
                    if path.name == line.file and path.is_file():
                        yield line.reference.digest, path
