"""Content in memory as a stream: views of the pieces it is kept in, without copying them."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from sessionstore.content import Buffer

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class Pieces(io.RawIOBase):
    """Views of bytes, one after the other, as a stream."""

    def __init__(self, views: Iterable[memoryview]) -> None:
        self._views = deque(views)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        into = memoryview(buffer).cast("B")
        if not self._views or not into:
            return 0
        view = self._views.popleft()
        size = min(len(into), len(view))
        into[:size] = view[:size]
        if size < len(view):
            self._views.appendleft(view[size:])
        return size

    def readall(self) -> bytes:
        views, self._views = self._views, deque()
        return b"".join(views)


def window(pieces: Sequence[bytes], start: int, stop: int | None) -> Iterator[memoryview]:
    """What lies between two positions, without copying it."""
    position = 0
    for piece in pieces:
        until = len(piece) if stop is None else stop - position
        if view := memoryview(piece)[max(start - position, 0) : max(until, 0)]:
            yield view
        position += len(piece)


def frozen(chunk: Buffer) -> bytes:
    """The same bytes as an object that cannot change, copied only when it could."""
    whole = chunk.obj if isinstance(chunk, memoryview) else chunk
    if type(whole) is bytes and len(whole) == len(chunk):
        return whole
    return bytes(chunk)
