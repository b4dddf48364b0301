"""Run requests in parallel, and read responses ahead, where the protocol needs no order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import BinaryIO, TypeVar

from sessionstore._streams import ReadStream
from sessionstore.content import CHUNK

AHEAD = 4
"""Chunks that are read ahead: 4 MiB."""

_PATIENCE = 0.1
"""Seconds between two checks of a thread that waits for its reader: should it stop?"""

T = TypeVar("T")


def run(tasks: Sequence[Callable[[], T]], at_once: int) -> list[T]:
    """Run the tasks, at most ``at_once`` in parallel, and return their results in order.

    After an error no further task starts; the error is raised when the running tasks have ended.
    """
    if at_once <= 1 or len(tasks) <= 1:
        return [task() for task in tasks]
    with ThreadPoolExecutor(min(at_once, len(tasks)), "sessionstore-parts") as pool:
        running = [pool.submit(task) for task in tasks]
        try:
            return [future.result() for future in running]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # ``with`` waits for the running ones


class ReadAhead(ReadStream):
    """A stream that a thread of its own reads ahead, while the caller does other work.

    A caller that computes a digest would otherwise leave the connection idle half of the time. An
    error of the stream is raised here when the caller reaches it. The thread ends at the end of
    the stream or when this object is closed; it then closes the stream.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._source = stream
        self._chunks: Queue[bytes | Exception] = Queue(AHEAD)
        self._left = b""
        self._ended = False
        self._over = threading.Event()
        threading.Thread(target=self._pump, name="sessionstore-read", daemon=True).start()

    def _take(self, size: int) -> bytes:
        if not self._left:
            self._left = self._next()
        taken, self._left = self._left[:size], self._left[size:]
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
            while chunk := self._source.read(CHUNK):
                if not self._hand(chunk):
                    return
            self._hand(b"")
        except Exception as error:  # noqa: BLE001 - ``read`` raises it
            self._hand(error)
        finally:
            self._over.set()
            self._source.close()

    def _hand(self, chunk: bytes | Exception) -> bool:
        """Put ``chunk`` in the queue when it has space; return False if it was closed."""
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
