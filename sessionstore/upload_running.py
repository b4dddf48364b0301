"""The content of an upload in pieces, hashed and written in one pass while its pieces arrive.

A process that receives an upload from its beginning, on a store on a disk, keeps the pieces and
writes the whole file beside them, as any save does. Then ``finish`` has the content, and reads no
piece again. It only saves work: after a crash, with pieces at other replicas, or without use for
``IDLE``, there is none, and ``finish`` reads the pieces, which alone are what is kept.

While it is there no one reads the pieces, so the kernel need not keep them in memory.
"""

from __future__ import annotations

import copy
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Self

from sessionstore.backend import Backend, HasFreeSpace
from sessionstore.content import Buffer, Content, Ingest, LeavesMemory
from sessionstore.errors import SessionStoreError

IDLE: Final = timedelta(minutes=10)
"""The time without a byte after which a content is given up: it takes room on the disk."""

MOST: Final = 8
"""The most contents of a store at the same time; the least recently used is given up."""

_BEHIND: Final = 4  # pieces that the kernel may still be writing to the disk


class RunningContent:
    """The bytes of an upload up to ``offset``, where the writer ``tail`` ended."""

    def __init__(self, backend: Backend, tail: str) -> None:
        self._ingest: Ingest | None = Ingest(backend.digest, backend.spool)
        self._leaving: deque[Callable[[], None]] = deque()
        self.tail = tail
        self.upload: object = None
        """The upload as its last writer saw it at its end."""
        self.pid: Final = os.getpid()
        self.used: datetime = backend.now()

    @property
    def offset(self) -> int:
        """Return the number of bytes; -1 after it was given up."""
        return -1 if self._ingest is None else self._ingest.size

    def write(self, data: Buffer) -> None:
        """Take the next bytes. A full disk only ends this content: the pieces are kept."""
        if self._ingest is not None:
            try:
                self._ingest.write(data)
            except SessionStoreError:
                self.close()

    def kept(self, piece: Content) -> None:
        """Have the kernel write a piece to the disk, and soon forget it."""
        if self._ingest is not None and isinstance(piece.spool, LeavesMemory):
            self._leaving.append(piece.spool.leave_memory())
            if len(self._leaving) > _BEHIND:
                self._leaving.popleft()()

    def finish(self) -> Content:
        if self._ingest is None:
            raise ValueError("The content was given up.")
        return self._ingest.finish()

    def close(self) -> None:
        """Discard the bytes, unless ``finish`` returned them."""
        while self._leaving:
            self._leaving.popleft()()
        if self._ingest is not None:
            self._ingest.abort()
            self._ingest = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RunningContents:
    """The contents of one store that no request uses at the moment, by upload."""

    def __init__(self, backend: Callable[[], Backend]) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        self._contents: OrderedDict[str, RunningContent] = OrderedDict()

    def begin(self, key: str, size: int | None, tail: str) -> RunningContent | None:
        """Return a new content for ``size`` bytes; None if the disk has no room for it as well."""
        backend = self._backend()
        self.discard(key)
        if size is None or not isinstance(backend, HasFreeSpace) or backend.free() < 3 * size:
            return None
        return RunningContent(backend, tail)

    def take(self, key: str, offset: int, tail: str) -> RunningContent | None:
        """Return the content that ends at ``offset`` with the writer ``tail``, for one user."""
        with self._lock:
            content = self._contents.pop(key, None)
        if content is None:
            return None
        if (content.offset, content.tail, content.pid) == (offset, tail, os.getpid()):
            return content
        content.close()
        return None

    def known(self, key: str, offset: int) -> object:
        """Return the upload as this process knows it, if its content ends at ``offset``."""
        with self._lock:
            content = self._contents.get(key)
            is_mine = content is not None and (content.offset, content.pid) == (offset, os.getpid())
            return copy.copy(content.upload) if content is not None and is_mine else None

    def give_back(
        self, key: str, content: RunningContent, offset: int, tail: str, upload: object
    ) -> None:
        """Keep the content for the next user, if it has exactly the bytes up to ``offset``."""
        content.tail, content.used = tail, self._backend().now()
        content.upload = copy.copy(upload)
        if content.offset != offset:
            content.close()
            return
        self.discard(key)
        with self._lock:
            self._contents[key] = content
        self.tidy()

    def discard(self, key: str) -> None:
        with self._lock:
            content = self._contents.pop(key, None)
        if content is not None:
            content.close()

    def tidy(self) -> None:
        """Give up the contents that were not used for ``IDLE``, and those beyond ``MOST``."""
        old = self._backend().now() - IDLE
        with self._lock:
            many = max(len(self._contents) - MOST, 0)
            unused = [
                key
                for number, (key, content) in enumerate(self._contents.items())
                if number < many or content.used < old
            ]
            gone = [self._contents.pop(key) for key in unused]
        for content in gone:
            content.close()

    def close(self) -> None:
        with self._lock:
            gone, self._contents = list(self._contents.values()), OrderedDict()
        for content in gone:
            content.close()
