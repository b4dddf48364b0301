"""Requests side by side, and answers read ahead, where the protocol has no order between them."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import BinaryIO, TypeVar

from sessionstore.content import CHUNK

AHEAD = 4
"""Chunks that are read before they are asked for: 4 MiB."""

_PATIENCE = 0.1
"""Seconds after which a thread that nobody takes chunks from looks whether it should end."""

T = TypeVar("T")


def run(tasks: Sequence[Callable[[], T]], at_once: int) -> list[T]:
    """The results of all tasks in their order, at most ``at_once`` of them under way.

    After an error no task is begun; it is raised when those under way have ended.
    """
    if at_once <= 1 or len(tasks) <= 1:
        return [task() for task in tasks]
    with ThreadPoolExecutor(min(at_once, len(tasks)), "sessionstore-parts") as pool:
        running = [pool.submit(task) for task in tasks]
        try:
            return [each.result() for each in running]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class ReadAhead(io.RawIOBase):
    """A stream that goes on being read in a thread of its own while its reader does other work.

    A reader that makes a digest would otherwise leave the connection idle half of the time. What
    the stream raises is raised here, in its turn. The thread ends with the stream, or when this is
    closed, and closes the stream.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._chunks: Queue[bytes | Exception] = Queue(AHEAD)
        self._left = b""
        self._ended = False
        self._over = threading.Event()
        threading.Thread(target=self._pump, name="sessionstore-read", daemon=True).start()

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Some bytes, at most ``size``; none at the end."""
        if not self._left:
            self._left = self._next()
        count = len(self._left) if size is None or size < 0 else size
        taken, self._left = self._left[:count], self._left[count:]
        return taken

    def _next(self) -> bytes:
        if self._ended or (self._over.is_set() and self._chunks.empty()):
            return b""
        chunk = self._chunks.get()
        self._ended = isinstance(chunk, Exception) or not chunk  # nothing comes after it
        if isinstance(chunk, Exception):
            raise chunk
        return chunk

    def _pump(self) -> None:
        try:
            while chunk := self._stream.read(CHUNK):
                if not self._hand(chunk):
                    return
            self._hand(b"")
        except Exception as error:  # noqa: BLE001 - the reader's to see
            self._hand(error)
        finally:
            self._over.set()
            self._stream.close()

    def _hand(self, chunk: bytes | Exception) -> bool:
        """Wait for room, and put it there; False when nobody reads any more."""
        while not self._over.is_set():
            with suppress(Full):
                self._chunks.put(chunk, timeout=_PATIENCE)
                return True
        return False

    def close(self) -> None:
        self._over.set()
        with suppress(Empty):
            while True:
                self._chunks.get_nowait()
        super().close()
