"""Find the digest algorithm of a store whose layout file is gone, by the content that is there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from sessionstore.backends import _local_journal as journal
from sessionstore.backends._directory import Directory
from sessionstore.content import CHUNK, DIGESTS, hasher
from sessionstore.errors import SettingsError

_BLAKE3_OF_NOTHING = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def algorithm_of(root: Path) -> str | None:
    """Return the algorithm under which some content of the store at ``root`` has its digest.

    One match decides. None means that no content is whole, so that the choice loses nothing. Raises
    SettingsError when content is there that only a package which is not installed could judge.
    """
    known = list(_installed())
    unknown = False
    for digest, path in _content(root):
        found = {algorithm: hasher(algorithm) for algorithm in known}
        size = 0
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                size += len(chunk)
                for each in found.values():
                    each.update(chunk)
        for algorithm, each in found.items():
            if each.hexdigest() == digest:
                return algorithm
        # An empty file of another digest was torn by a power cut: no algorithm can judge otherwise.
        unknown = unknown or size > 0 or digest == _BLAKE3_OF_NOTHING
    if unknown and len(known) < len(DIGESTS):
        raise SettingsError(
            f"invalid url=file://{root}: its layout file is missing or torn, and no content "
            "that is there has its digest by sha256. Install sessionstore[blake3], so that this "
            "store can be opened if it was made with blake3."
        )
    return None


def _installed() -> Iterator[str]:
    for algorithm in DIGESTS:
        with contextlib.suppress(SettingsError):
            hasher(algorithm)
            yield algorithm


def _content(root: Path) -> Iterator[tuple[str, Path]]:
    """Give the digest and path of every blob, then of every file that a journal describes."""
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
