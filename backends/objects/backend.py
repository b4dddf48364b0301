"""Store files in a bucket, safely for any number of processes, with PUT, GET, LIST and DELETE only.

``ObjectBackend`` implements the object protocol on top of an ``ObjectClient``. An engine is a
subclass that creates the client. ``keys`` describes the keys; docs/protocol-objects.md
explains why the protocol is safe.

    objects_write     saves: generations, the birth rule, replacing, multipart uploads
    objects_read      finds the current version of a file and verifies its bytes
    objects_sessions  session activity, ends, deleting and dropping
    objects_sweep     garbage collection
    objects_inspect   finds and repairs damage
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import BinaryIO, ClassVar, Self

from sessionstore import parsers
from sessionstore.clock import Clock
from sessionstore.content import DIGESTS, Content, TempSpool
from sessionstore.doctor import Check
from sessionstore.model import (
    Collected,
    Dropped,
    Location,
    Problem,
    Reference,
    Saved,
    SessionKey,
    SessionRecord,
    Stored,
)
from sessionstore.parsers import Parser

from . import keys, layout
from .bucket import Bucket
from .cache import LookupCache
from .client import ObjectClient
from .clock import Elapsed, StoreClock, boot_time
from .collector import Collector
from .inspect import Inspector
from .reader import Reader
from .sessions import Sessions
from .writer import Writer


class ObjectBackend:
    """A backend that keeps files in an object store.

    Options: ``grace`` (default 1 h) is the minimum time that unreferenced content stays, and the
    longest time from the first to the last but one request of a save. ``digest`` is ``sha256``
    (the default) or ``blake3``. Both are fixed when the store is created, because all its
    processes must agree on them.

    All times come from the store's clock, never from this machine's. A file that another process
    deleted or replaced may be served for two more seconds.
    """

    options: ClassVar[Mapping[str, Parser]] = {
        "grace": layout.grace,
        "digest": parsers.choice(*DIGESTS),
    }

    writer_type: ClassVar[type[Writer]] = Writer
    reader_type: ClassVar[type[Reader]] = Reader
    sessions_type: ClassVar[type[Sessions]] = Sessions
    sweeper_type: ClassVar[type[Collector]] = Collector

    def __init__(
        self,
        client: ObjectClient,
        *,
        grace: timedelta | None = None,
        digest: str | None = None,
        elapsed: Elapsed = boot_time,
        nonce: layout.Nonce = secrets.token_hex,
    ) -> None:
        """Open the store in ``client``; create it if it does not exist.

        ``elapsed`` and ``nonce`` are for tests. Raises SettingsError when the store was created
        with another ``grace`` or ``digest``.
        """
        self.client = client
        self._bucket = Bucket(client, StoreClock(elapsed))
        self.terms = layout.open_or_create(self._bucket, digest, grace)
        self.digest = self.terms.digest
        self._bucket.sync()
        self.cache = cache = LookupCache()
        self.reader = self.reader_type(self._bucket, cache, self.terms)
        self.writer = self.writer_type(self._bucket, cache, self.reader, self.terms, nonce)
        self._sessions = self.sessions_type(self._bucket, cache, self.reader, self.terms, nonce)
        self._sweeper = self.sweeper_type(self._bucket, self.terms)

    @classmethod
    def open_client(cls, location: Location, options: Mapping[str, object]) -> ObjectClient:
        """Return a client for a URL. Each engine implements this. Raises SettingsError."""
        raise NotImplementedError(
            f"{cls.__name__} cannot open a URL: it has no engine; pass a client to the constructor."
        )

    @classmethod
    def connect(cls, location: Location, options: Mapping[str, object], clock: Clock) -> Self:
        grace, digest = options.get("grace"), options.get("digest")
        client = cls.open_client(location, options)
        try:
            return cls(
                client,
                grace=grace if isinstance(grace, timedelta) else None,
                digest=None if digest is None else str(digest),
            )
        except BaseException:
            client.close()
            raise

    def wrap_client(self, wrapper: Callable[[ObjectClient], ObjectClient]) -> None:
        """Send every later request through ``wrapper(client)``."""
        self.client = self._bucket.client = wrapper(self.client)

    @classmethod
    def examine(cls, location: Location, options: Mapping[str, object]) -> Iterator[Check]:
        """Implement ``doctor.Examinable.examine``, beside the store and without creating one."""
        from . import doctor as objects_doctor

        scratch = objects_doctor.scratch(location)
        yield from objects_doctor.examine(cls.open_client(scratch, options))

    def now(self) -> datetime:
        return self._bucket.now()

    def spool(self) -> TempSpool:
        return TempSpool()

    def put(
        self,
        key: SessionKey,
        name: str,
        content: Content,
        *,
        expires: datetime | None = None,
        fresh: bool = False,
    ) -> Saved:
        return self.writer.put(key, name, content, expires=expires, fresh=fresh)

    def restore(
        self,
        key: SessionKey,
        name: str,
        content: Content,
        *,
        created: datetime,
        expires: datetime | None = None,
    ) -> Saved:
        return self.writer.put(key, name, content, expires=expires, fresh=False, created=created)

    def get(self, sid: str, name: str) -> Reference:
        return self.reader.get(sid, name)

    def open(
        self, sid: str, reference: Reference, start: int = 0, length: int | None = None
    ) -> BinaryIO:
        return self.reader.open(sid, reference, start, length)

    def files(self, sid: str) -> Iterator[Reference]:
        return self.reader.files(sid)

    def delete(self, sid: str, names: Iterable[str]) -> list[Reference]:
        return self._sessions.delete(sid, names)

    def discard(self, sid: str, references: Iterable[Reference]) -> list[Reference]:
        return self._sessions.discard(sid, references)

    def sessions(self) -> Iterator[SessionRecord]:
        return self._sessions.records()

    def session(self, sid: str) -> SessionRecord | None:
        return self._sessions.record(sid)

    def identify(self, sid: str) -> SessionKey | None:
        return self._sessions.identify(sid)

    def touch(self, sid: str) -> None:
        self._sessions.touch(sid)

    def end(self, sid: str) -> None:
        self._sessions.end(sid)

    def resume(self, sid: str) -> None:
        self._sessions.resume(sid)

    def drop(
        self, sid: str, *, unless_active_after: datetime | None = None, only_ended: bool = False
    ) -> Dropped | None:
        return self._sessions.drop(
            sid, unless_active_after=unless_active_after, only_ended=only_ended
        )

    def collect(self, *, force: bool = False) -> Collected:
        return self._sweeper.collect(force=force)

    def inspect(self) -> Iterator[Problem]:
        """Implement ``Inspects.inspect``: one GET for each copy of content, and three listings."""
        return self._inspector().problems()

    def omitted(self, *, files: bool = True) -> Iterator[Problem]:
        return self._inspector().omitted(files=files)

    def _inspector(self) -> Inspector:
        return Inspector(
            self._bucket, self.cache, self.reader, self.writer, self._sessions, self.terms
        )

    def stored(self) -> Stored:
        blobs = size = 0
        for entry in self._bucket.entries(keys.BLOBS):
            if keys.parse_blob(entry.key) is not None:
                blobs, size = blobs + 1, size + entry.size
        return Stored(blobs, size)

    def referred(self) -> Stored:
        """Implement ``ReclaimsLate.referred``.

        Unreferenced content still occupies space for ``grace`` plus the time to the next sweep.
        """
        return self._sweeper.referred()

    def close(self) -> None:
        self.client.close()
