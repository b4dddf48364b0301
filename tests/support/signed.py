"""A backend in memory that takes the parts of uploads itself; ``send`` is a client's PUT."""

from __future__ import annotations

import contextlib
import io
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import BinaryIO, Final

import pytest

from sessionstore.backend import Collected
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.errors import FileNotStored, UploadConflict


@dataclass
class Staged:
    """An upload: its parts, then their bytes together."""

    place: Place
    expires: datetime
    parts: dict[int, bytes] = field(default_factory=dict)
    joined: bytes | None = None


STAGED: Final[dict[str, Staged]] = {}
"""The uploads of all places, by name."""


@contextlib.contextmanager
def small_parts(size: int) -> Iterator[None]:
    """Context manager: uploads have parts of ``size`` bytes, and there is no other upload."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sessionstore.signed_uploads.PART", size)
        STAGED.clear()  # tests of broken backends leave some
        yield
        STAGED.clear()


class Refused(Exception):
    """The server does not take the part."""


def send(url: str, data: bytes) -> None:
    """PUT a part, of exactly the length that the URL is signed for. Raises Refused."""
    upload, number, size = url.rsplit("/", 3)[1:]
    staged = STAGED.get(upload)
    if staged is None or staged.joined is not None or len(data) != int(size):
        raise Refused(url)
    staged.parts[int(number)] = data


class SignedMemory(MemoryBackend):
    """The memory backend as one of ``SignsUploads``."""

    def begin_parts(self, sid: str, expires: datetime) -> str:
        upload = f"{sid}-{secrets.token_hex(8)}"
        STAGED[upload] = Staged(self._place, expires)
        return upload

    def part_url(self, upload: str, number: int, size: int, expires: timedelta) -> str:
        del expires
        return f"https://example.org/{upload}/{number}/{size}"

    def part_sizes(self, upload: str) -> dict[int, int]:
        staged = STAGED.get(upload)
        if staged is None or staged.joined is not None:
            raise FileNotStored(upload)
        return {number: len(data) for number, data in staged.parts.items()}

    def join_parts(self, upload: str, sizes: Sequence[int]) -> BinaryIO:
        staged = STAGED.get(upload)
        if staged is None:
            raise FileNotStored(upload)
        if staged.joined is None:
            if self.part_sizes(upload) != dict(enumerate(sizes, start=1)):
                raise UploadConflict(f"The parts are {self.part_sizes(upload)}.")
            staged.joined = b"".join(staged.parts[number] for number in sorted(staged.parts))
        return io.BytesIO(staged.joined)

    def discard_parts(self, upload: str) -> None:
        STAGED.pop(upload, None)

    def collect(self, *, force: bool = False) -> Collected:
        for upload, staged in list(STAGED.items()):
            if staged.place is self._place and staged.expires < self.now():
                self.discard_parts(upload)
        return super().collect(force=force)
