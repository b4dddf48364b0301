"""Stores in a bucket of a running server, and a clock for that server.

A server's clock cannot be moved, so the time is put in on the way: ``timed`` sends every
request to the real server and dates what comes back by a ``FakeClock``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar

from sessionstore.backends.objects.client import (
    Download,
    Entry,
    Multipart,
    ObjectClient,
    Page,
    Part,
    Payload,
    Upload,
)
from sessionstore.backends.objects.connection import Connection
from sessionstore.backends.objects.keys import EPOCH
from sessionstore.backends.s3 import S3Backend
from sessionstore.backends.s3.backend import Engine
from sessionstore.backends.s3.boto3_client import S3Client
from sessionstore.backends.s3.boto3_session import make_client
from sessionstore.backends.s3.obstore_client import ObstoreClient
from sessionstore.backends.s3.options import Options
from sessionstore.testing import FakeClock, OpenBackend
from tests.support import seaweed


@dataclass
class Bucket:
    """A bucket of a server. Its clients share one connection pool: making one takes 0.2 s.

    ``engine`` is who makes the store's requests; what looks behind the store's back is boto3.
    """

    endpoint: str
    engine: str = "boto3"

    def options(self, prefix: str = "") -> Options:
        url = f"s3://{seaweed.BUCKET}/{prefix}"
        return Options(
            url,
            seaweed.BUCKET,
            f"{prefix}/" if prefix else "",
            region=seaweed.REGION,
            endpoint_url=self.endpoint,
            access_key_id=seaweed.ACCESS_KEY,
            secret_access_key=seaweed.SECRET_KEY,
        )

    @cached_property
    def connection(self) -> Connection:
        return Connection(lambda: make_client(self.options(), seaweed.REGION))

    @property
    def boto(self) -> Any:
        """A plain boto3 client, to look behind the store's back."""
        return self.connection.client

    def client(self, prefix: str) -> Engine:
        """The engine's client for a prefix."""
        if self.engine == "boto3":
            return self.boto3_client(prefix)
        client = ObstoreClient(self.options(prefix))
        client.opening = False
        return client

    def boto3_client(self, prefix: str) -> S3Client:
        client = S3Client(self.options(prefix))
        client.connection = self.connection
        client.opening = False
        return client

    def opener(self, prefix: str) -> OpenBackend:
        """Opens the store at this prefix, in a fake clock's time."""
        times: list[Times] = []

        def open_backend(clock: FakeClock) -> S3Backend:
            if not times:
                times.append(Times(clock))
            client = timed(self.client(prefix), times[0])
            return S3Backend(client, elapsed=times[0].seconds)  # type: ignore[arg-type]  # its shows_date is another client's

        return open_backend

    def keys(self, prefix: str) -> list[str]:
        """Every key below a prefix, without it."""
        pages = self.boto3_client(prefix).list("")
        return [entry.key for page in pages for entry in page.entries]

    def close(self) -> None:
        self.connection.close()


@dataclass
class Times:
    """When each object was written, by a fake clock."""

    clock: FakeClock
    taken: dict[str, datetime] = field(default_factory=dict)

    def seconds(self) -> float:
        return (self.clock.now() - EPOCH).total_seconds()

    def date(self) -> datetime:
        return self.clock.now().replace(microsecond=0)

    def take(self, key: str) -> datetime:
        """An object is being written now."""
        self.taken[key] = self.date()
        return self.taken[key]


def timed(client: ObjectClient, times: Times) -> TimedClient:
    """A client in a fake clock's time, with the abilities that it has."""
    return (
        TimedParts(client, times) if isinstance(client, Multipart) else TimedClient(client, times)
    )


class TimedClient:
    """A client in a fake clock's time. Listings have small pages, so that there are some."""

    page_size: ClassVar[int] = 50
    at_once: ClassVar[int] = 2  # so its requests are sent side by side

    def __init__(self, client: ObjectClient, times: Times) -> None:
        self.shows_date = client.shows_date
        self.opening = False
        self._client: Any = client
        self._times = times

    def _date(self) -> datetime | None:
        return self._times.date() if self.shows_date else None

    def put(self, key: str, payload: Payload) -> datetime | None:
        self._client.put(key, payload)
        self._times.take(key)
        return self._date()

    def get(self, key: str, start: int = 0, length: int | None = None) -> Download:
        download: Download = self._client.get(key, start, length)
        return download._replace(date=self._date())

    def list(self, prefix: str, *, start_after: str = "", page_size: int = 1000) -> Iterator[Page]:
        size = min(page_size, self.page_size)
        for page in self._client.list(prefix, start_after=start_after, page_size=size):
            entries = [it._replace(modified=self._time_of(it)) for it in page.entries]
            yield Page(entries, self._date())

    def _time_of(self, entry: Entry) -> datetime:
        # Taken by the server, and its writer's request is not back yet.
        return self._times.taken.get(entry.key, self._times.date())

    def delete(self, keys: Sequence[str]) -> datetime | None:
        self._client.delete(keys)
        return self._date()

    def abort(self, key: str, upload: str) -> None:
        self._client.abort(key, upload)

    def uploads(self, prefix: str) -> Iterator[Upload]:
        yield from self._client.uploads(prefix)

    def sign(self, key: str, **how: Any) -> str:
        return str(self._client.sign(key, **how))

    @property
    def signer(self) -> Any:
        return self._client.signer

    def probe(self, key: str) -> None:
        self._client.probe(key)

    def close(self) -> None:
        """The connection is everybody's."""


class TimedParts(TimedClient):
    """One whose uploads may be made of parts."""

    def begin(self, key: str) -> str:
        self._times.take(key)
        return str(self._client.begin(key))

    def upload_part(self, key: str, upload: str, number: int, payload: Payload) -> Part:
        part: Part = self._client.upload_part(key, upload, number, payload)
        return part

    def complete(self, key: str, upload: str, parts: Sequence[Part]) -> datetime | None:
        self._client.complete(key, upload, parts)
        return self._date()
