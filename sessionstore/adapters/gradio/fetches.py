"""A file on its way from the store to the local disk, which any number of responses follow.

A thread of its own writes the local copy, as fast as the store gives it. A response reads the bytes
back from that file. So a slow client takes no memory and stops nobody, a client that leaves ends
nothing, and the bytes cross the network once. The last bytes are written only after the digest of
all is right: no response is complete before.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Final

from starlette.concurrency import run_in_threadpool

from sessionstore.adapters.asgi.responses import Span
from sessionstore.content import CHUNK
from sessionstore.errors import BackendUnavailable, FileNotStored, SessionStoreError

if TYPE_CHECKING:
    from sessionstore.adapters.gradio.cache import Copying

FETCHING: Final = "sessionstore-fetch"
"""The name of the threads that fetch."""

_MOST: Final = 8
"""The most large files that are fetched at the same time, with 5 MiB of memory each."""

log: Final = logging.getLogger("sessionstore")

CAN_FOLLOW: Final = hasattr(os, "pread")
"""Whether a file can be read while another thread writes it and gives it its name. Windows: no."""


class Fetch:
    """A local copy that is being written, inside a ``with`` block, by ``copy``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._grown = _signal()
        self._file = -1
        self._length = 0
        self._over = False
        self._error: BaseException | None = None

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        with self._lock:
            self._over, self._error = True, error
            if self._file >= 0:
                os.close(self._file)
        self._grown.set_result(None)

    def copy(self, source: BinaryIO, target: BinaryIO) -> None:
        """Write all of ``source`` to ``target``, a new file that is open for reading too."""
        self._file = os.dup(target.fileno())
        while chunk := source.read(CHUNK):
            target.write(chunk)
            target.flush()
            with self._lock:
                self._length += len(chunk)
                grown, self._grown = self._grown, _signal()
            grown.set_result(None)

    @property
    def length(self) -> int:
        """Return the number of bytes that are there."""
        return self._length

    def beyond(self, position: int) -> Future[None] | None:
        """Return None if the byte at ``position`` is there or the fetch is over, else a future.

        It is done when there is more. Raises the error with which the fetch ended.
        """
        with self._lock:
            if self._length > position:
                return None
            if self._error is not None:
                raise self._error
            return None if self._over else self._grown

    def wait(self, position: int) -> None:
        """Wait until the byte at ``position`` is there or the fetch is over. Raises its error."""
        while (grown := self.beyond(position)) is not None:
            grown.result()

    def follow(self, span: Span) -> Following | None:
        """Return the bytes of ``span`` when the first one is there; None if they are elsewhere.

        Another process may have made the copy, for example. Raises the error of the fetch.
        """
        self.wait(span.start)
        with self._lock:
            return None if self._over else Following(self, os.dup(self._file), span)


class Fetches:
    """The fetches of one process, by name and digest of the file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[tuple[str, str], Fetch] = {}

    def of(self, key: tuple[str, str], make: Callable[[Copying], object]) -> Fetch | None:
        """Return the fetch of a file, which begins ``make`` now unless it runs.

        Return None if too many run.
        """
        with self._lock:
            fetch = self._running.get(key)
            if fetch is None and len(self._running) < _MOST:
                fetch = self._running[key] = Fetch()
                # Of its own, and a daemon: a process that ends does not wait for a large file.
                run = partial(self._run, key, make, fetch)
                threading.Thread(target=run, name=FETCHING, daemon=True).start()
        return fetch

    def _run(self, key: tuple[str, str], make: Callable[[Copying], object], fetch: Fetch) -> None:
        try:
            with fetch:
                try:
                    make(fetch.copy)
                finally:  # before its end is told: who tries again gets another one
                    with self._lock:
                        del self._running[key]
        except FileNotStored:
            pass  # its responses say so
        except SessionStoreError as error:
            log.warning("Could not fetch a large file: %s", error)


class Following:
    """The bytes of ``span`` for a client: those that are there, and the others as they come.

    The first ones are read at once, in the thread that makes the object.
    """

    def __init__(self, fetch: Fetch, file: int, span: Span) -> None:
        self._fetch = fetch
        self._file = file
        self._stop = span.stop
        self._first = (span.start, self._read(span.start))

    def _read(self, position: int) -> bytes:
        most = min(self._fetch.length, self._stop, position + CHUNK) - position
        piece = os.pread(self._file, most, position)
        if not piece:
            raise BackendUnavailable("A local copy was cut off while it was sent.")
        return piece

    async def pieces(self) -> AsyncIterator[bytes]:
        position, piece = self._first
        del self._first  # a slow client holds one piece
        while True:
            yield piece
            position += len(piece)
            if position >= self._stop:
                break
            while (grown := self._fetch.beyond(position)) is not None:
                await asyncio.wrap_future(grown)
            piece = await run_in_threadpool(self._read, position)

    async def close(self) -> None:
        os.close(self._file)


def _signal() -> Future[None]:
    """Return a future that no one who waits for it can cancel for the others."""
    future = Future[None]()
    future.set_running_or_notify_cancel()
    return future
