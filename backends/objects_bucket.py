"""The client's requests as the protocol makes them, with every answer's Date told to the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import islice
from typing import NamedTuple, TypeVar

from sessionstore.backends import objects_keys as keys
from sessionstore.backends.objects_client import (
    BATCH,
    Download,
    Entry,
    Multipart,
    NotFound,
    ObjectClient,
    Payload,
    TakesSeveral,
    Upload,
)
from sessionstore.backends.objects_clock import StoreClock
from sessionstore.backends.objects_parallel import run
from sessionstore.errors import BackendUnavailable

T = TypeVar("T")

READS = 3
"""How often a small object is asked for that says nothing sensible."""

_PROBE_AFTER = 300.0
"""Seconds after which a client that sees no Date asks for the time again."""


class Dated(NamedTuple):
    """A page of a listing, and a time that the store's clock had reached when it was made."""

    entries: Iterable[Entry]
    date: datetime


class Bucket:
    """One client and one clock. Raises what the client raises. Holds no lock while it waits."""

    def __init__(self, client: ObjectClient, clock: StoreClock) -> None:
        self.client = client
        self.clock = clock

    def now(self) -> datetime:
        """The store's time, or a little before."""
        self.sync()
        return self.clock.now()

    def sync(self) -> None:
        """Ask for the store's time if nothing told it lately and no answer will."""
        age = self.clock.age()
        if age == float("inf") or (not self.client.shows_date and age > _PROBE_AFTER):
            self._probe()

    def _probe(self) -> None:
        asked = self.clock.elapsed()
        self.put(keys.PROBE, b"")
        if not self.client.shows_date or self.clock.age() == float("inf"):
            # Where dates are seen, this answer had none: moto's decorator dates listings only.
            probe = self.find(keys.PROBE)
            if probe is None:
                raise BackendUnavailable(
                    "The bucket does not list an object that was just written: it is not strongly "
                    "consistent, and the store cannot be kept in it."
                )
            # Another process may have written it later than we did, but not later than now.
            self.clock.saw(probe.modified, asked)

    def put(self, key: str, payload: Payload | bytes) -> None:
        asked = self.clock.elapsed()
        whole = Payload.of(payload) if isinstance(payload, bytes) else payload
        self._note(self.client.put(key, whole), asked)

    def get(self, key: str, start: int = 0, length: int | None = None) -> Download:
        """Raises NotFound."""
        asked = self.clock.elapsed()
        download = self.client.get(key, start, length)
        self._note(download.date, asked)
        return download

    def read(self, key: str) -> bytes | None:
        """A small object, None when there is none."""
        try:
            with self.get(key).stream as stream:
                return stream.read()
        except NotFound:
            return None

    def told(self, key: str, parse: Callable[[bytes], T | None]) -> T | None:
        """What a small object says, None when there is none or nobody can make sense of it.

        An answer without sense is asked for again: it may have been damaged on its way.
        """
        for _ in range(READS):
            data = self.read(key)
            if data is None:
                return None
            if (said := parse(data)) is not None:
                return said
        return None

    def pages(
        self, prefix: str, *, start_after: str = "", page_size: int = BATCH
    ) -> Iterator[Dated]:
        """The pages of a listing, one request each, as they are asked for."""
        pages = self.client.list(prefix, start_after=start_after, page_size=page_size)
        while True:
            asked = self.clock.elapsed()
            page = next(pages, None)
            if page is None:
                return
            self._note(page.date, asked)
            yield Dated(page.entries, page.date or self.clock.reached(asked))

    def entries(self, prefix: str) -> Iterator[Entry]:
        """All objects whose keys begin so."""
        for page in self.pages(prefix):
            yield from page.entries

    def find(self, key: str) -> Entry | None:
        """The object of that key as a listing shows it, None when there is none."""
        return next((entry for entry in self.entries(key) if entry.key == key), None)

    def first(self, prefix: str, *, start_after: str = "") -> Entry | None:
        """The first object whose key begins so, None when there is none; one request."""
        page = next(self.pages(prefix, start_after=start_after, page_size=1))
        return next(iter(page.entries), None)

    def delete(self, doomed: Iterable[str]) -> int:
        """Delete these keys in their order, ``BATCH`` to a request; returns how many."""
        waiting, count = iter(doomed), 0
        while batch := list(islice(waiting, BATCH)):
            asked = self.clock.elapsed()
            self._note(self.client.delete(batch), asked)
            count += len(batch)
        return count

    def upload(self, key: str, payload: Payload, part_size: int) -> None:
        """Put an object in parts. An upload that fails is aborted, as far as that goes."""
        client = self.client
        if not isinstance(client, Multipart):
            self.put(key, payload)
            return
        upload = client.begin(key)
        try:
            starts = range(0, payload.size, part_size)
            tasks = [
                partial(client.upload_part, key, upload, number, _part(payload, start, part_size))
                for number, start in enumerate(starts, start=1)
            ]
            parts = run(tasks, client.at_once if isinstance(client, TakesSeveral) else 1)
            asked = self.clock.elapsed()
            self._note(client.complete(key, upload, parts), asked)
        except NotFound as error:
            raise BackendUnavailable(
                f"The upload of {key} was aborted by somebody else; save the file again."
            ) from error
        except Exception:
            with suppress(BackendUnavailable):  # the sweep aborts it by its age
                client.abort(key, upload)
            raise

    def uploads(self) -> Iterator[Upload]:
        return self.client.uploads(keys.BLOBS)

    def _note(self, date: datetime | None, asked: float) -> None:
        if date is not None:
            self.clock.saw(date, asked)


def _part(payload: Payload, start: int, size: int) -> Payload:
    return payload.part(start, min(size, payload.size - start))
