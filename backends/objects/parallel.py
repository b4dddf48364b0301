"""Run requests in parallel, and read responses ahead, where the protocol needs no order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import BinaryIO, TypeVar

from sessionstore._streams import ReadStream
from sessionstore.content import CHUNK

AHEAD = 4
"""Chunks that are read ahead: 4 MiB."""

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
        self._chunks: SimpleQueue[bytes | Exception] = SimpleQueue()
        self._room = threading.Semaphore(AHEAD)
        self._left = b""
        self._ended = self._over = False
        threading.Thread(target=self._pump, name="sessionstore-read", daemon=True).start()

    def _take(self, size: int) -> bytes:
        if not self._left and not self._ended:
            chunk = self._chunks.get()
            self._room.release()
            self._ended = isinstance(chunk, Exception) or not chunk  # nothing comes after it
            if isinstance(chunk, Exception):
                raise chunk
            self._left = chunk
        taken, self._left = self._left[:size], self._left[size:]
        return taken

    def _pump(self) -> None:
        try:
            while not self._over and (chunk := self._source.read(CHUNK)):
                self._chunks.put(chunk)
                self._room.acquire()
        except Exception as error:  # noqa: BLE001 - ``read`` raises it
            self._chunks.put(error)
        finally:
            self._chunks.put(b"")
            self._source.close()

    def close(self) -> None:
        self._over = True
        self._room.release()
        super().close()
