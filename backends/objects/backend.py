"""Store files in a bucket, safely for any number of processes, with PUT, GET, LIST and DELETE only.

``ObjectBackend`` implements the object protocol on top of an ``ObjectClient``. An engine is a
subclass that creates the client. ``keys`` describes the keys; docs/protocol-objects.md
explains why the protocol is safe.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, ClassVar, Final, Self

from sessionstore import parsers
from sessionstore.clock import Clock
from sessionstore.content import DIGESTS, TempSpool
from sessionstore.doctor import Check
from sessionstore.model import Location, Stored
from sessionstore.parsers import Parser

from . import keys, layout
from .bucket import Bucket, Elapsed, StoreClock, Waits, boot_time
from .cache import LookupCache
from .client import ObjectClient
from .collector import Collector
from .damage import Inspector
from .reader import Reader
from .sessions import Sessions
from .writer import Writer

AT_ONCE = 16
"""Calls of one caller at the same time: a save has up to three requests, of 64 threads to wait."""


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
        waits: Waits | None = None,
    ) -> None:
        """Open the store in ``client``; create it if it does not exist.

        ``elapsed``, ``nonce`` and ``waits`` are for tests. Raises SettingsError when the store was
        created with another ``grace`` or ``digest``.
        """
        self.client: ObjectClient = client
        self._bucket = Bucket(client, StoreClock(elapsed), waits)
        self.terms: Final = layout.open_or_create(self._bucket, digest, grace)
        self.digest: str = self.terms.digest
        self._bucket.sync()
        self.cache: Final = LookupCache()
        shared = layout.Shared(self._bucket, self.cache, self.terms, nonce)
        reader = self.reader_type(shared)
        writer = self.writer_type(shared, reader)
        self.writer: Final = writer
        sessions = self.sessions_type(shared, reader)
        self._sweeper = sweeper = self.sweeper_type(shared)
        inspector = Inspector(shared, reader, writer, sessions)
        # The calls of ``Backend``, each by the part that implements it.
        self.put: Final = writer.put
        self.restore: Final = writer.put
        self.get: Final = reader.get
        self.open: Final = reader.open
        self.files: Final = reader.files
        self.sessions: Final = sessions.records
        self.session: Final = sessions.record
        self.identify: Final = sessions.identify
        self.touch: Final = sessions.touch
        self.end: Final = sessions.end
        self.resume: Final = sessions.resume
        self.delete: Final = sessions.delete
        self.discard: Final = sessions.discard
        self.forget: Final = sessions.forget
        self.drop: Final = sessions.drop
        self.collect: Final = sweeper.collect
        self.survey: Final = sweeper.survey
        self.lease: Final = partial(self._bucket.read, keys.SWEEPER)
        self.write_lease: Final = partial(self._bucket.put, keys.SWEEPER)
        self.referred: Final = sweeper.referred
        self.inspect: Final = inspector.problems
        self.omitted: Final = inspector.omitted

    @classmethod
    def open_client(cls, location: Location, options: Mapping[str, object]) -> ObjectClient:
        """Return a client for a URL. Each engine implements this. Raises SettingsError."""
        raise NotImplementedError(
            f"{cls.__name__} cannot open a URL: it has no engine; pass a client to the constructor."
        )

    @classmethod
    def connect(cls, location: Location, options: Mapping[str, object], clock: Clock) -> Self:
        given: Any = options
        client = cls.open_client(location, options)
        try:
            return cls(client, grace=given.get("grace"), digest=given.get("digest"))
        except BaseException:
            client.close()
            raise

    def wrap_client(self, wrapper: Callable[[ObjectClient], ObjectClient]) -> None:
        """Send every later request through ``wrapper(client)``."""
        self._bucket.client = self.client = wrapper(self.client)

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

    def stored(self) -> Stored:
        blobs = size = 0
        for entry in self._bucket.entries(keys.BLOBS):
            if keys.parse_blob(entry.key) is not None:
                blobs, size = blobs + 1, size + entry.size
        return Stored(blobs, size)

    @property
    def grace(self) -> timedelta:
        """The time for which unreferenced content stays."""
        return self.terms.grace

    @property
    def at_once(self) -> int:
        """The number of calls that are useful at the same time, because they wait for a network."""
        return AT_ONCE if self._bucket.waits.parallel else 1

    def close(self) -> None:
        self.drain()
        self.client.close()

    def drain(self) -> None:
        """Wait for the deletes that no call waited for. After a crash a sweep does them."""
        self._bucket.waits.drain()
