"""The base class of the raw streams that pass on the bytes of another stream."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Buffer  # type checkers know it without the package

_PIECE = 1 << 20


class ReadStream(io.RawIOBase):
    """A raw stream of which a subclass defines ``_take``; closing it closes ``_stream`` too.

    A stream that can fill the caller's buffer without a copy defines ``readinto`` itself instead.
    """

    _stream: Any = None  # the stream below, if it has a ``close``

    def _take(self, size: int) -> bytes:
        """Return at most ``size`` bytes, possibly fewer; b"" at the end."""
        raise NotImplementedError

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        return self.readall() if size is None or size < 0 else self._take(size)

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self._take(_PIECE), b""))

    def readinto(self, buffer: Buffer, /) -> int:
        into = memoryview(buffer).cast("B")
        data = self._take(len(into))
        into[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if self._stream is not None and not self.closed:
            self._stream.close()
        super().close()
