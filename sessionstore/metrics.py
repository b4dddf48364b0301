"""Metrics for Prometheus: operations, durations and errors of a store.

Operations are counted from the store's events; durations are measured around the backend. A store
without metrics has no cost of either. Needs the extra ``metrics``. For several worker processes see
"Multiprocess Mode" of prometheus_client, which works without a change.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO, Final, Self

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from sessionstore.backend import Backend
from sessionstore.errors import FileNotStored, SessionStoreError
from sessionstore.events import Event
from sessionstore.model import Collected
from sessionstore.store import SessionStore
from sessionstore.wrapping import Call, HasClient, Wrapper, wrap_methods

BUCKETS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0,
)  # fmt: skip
"""Seconds: from a call on a local disk (tens of microseconds) to a large object from far away."""


_CALLS: Final = (
    "put", "get", "open", "delete", "discard", "session", "identify", "touch", "end", "resume",
    "drop", "collect", "stored", "restore",
)  # fmt: skip
_LISTINGS: Final = ("files", "sessions", "inspect", "omitted")
_REQUESTS: Final = ("put", "get", "delete", "begin", "upload_part", "complete", "abort")

_END: Final = object()


def _one(_: Event) -> int:
    return 1


def _size(event: Event) -> int:
    return event.size


class _Instruments:
    """The metrics of one registry, which the stores of a process share."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"sessionstore_{name}", text, ("store", *labels), registry=registry)

        def histogram(name: str, text: str, label: str) -> Histogram:
            return Histogram(
                f"sessionstore_{name}", text, ("store", label), registry=registry, buckets=BUCKETS
            )

        self.saves = counter("saves", "Files saved.")
        self.saved_bytes = counter("saved_bytes", "Bytes of files saved.")
        self.deduplicated = counter("deduplicated", "Saves whose bytes were there already.")
        self.deduplicated_bytes = counter("deduplicated_bytes", "Bytes of those saves.")
        self.read_bytes = counter("read_bytes", "Bytes of files handed out.")
        self.deleted_files = counter("deleted_files", "Files deleted, by why.", "why")
        self.deleted_bytes = counter("deleted_bytes", "Bytes of files deleted, by why.", "why")
        self.sessions = counter("sessions", "Sessions ended, resumed and dropped.", "event")
        self.limits = counter("limit_exceeded", "Saves refused, by limit or full disk.", "limit")
        self.sweeps = counter("sweeps", "Sweeps started, finished, failed and held.", "event")
        self.collected = counter("collected_blobs", "Contents removed that nothing referred to.")
        self.collected_bytes = counter("collected_bytes", "Bytes of those.")
        self.errors = counter(
            "errors", "Errors of the backend, by call and error.", "call", "error"
        )
        self.calls = histogram("call_seconds", "Time of the backend's calls.", "call")
        self.requests = histogram("request_seconds", "Time of requests to the bucket.", "request")


_made: weakref.WeakKeyDictionary[CollectorRegistry, _Instruments] = weakref.WeakKeyDictionary()


class Metrics:
    """Counts the operations of a store from now on, as long as the store lives.

    ``name`` is the label ``store`` of each metric, for a process with several stores.
    """

    def __init__(
        self, store: SessionStore, *, name: str = "default", registry: CollectorRegistry = REGISTRY
    ) -> None:
        self._of = _made.get(registry) or _made.setdefault(registry, _Instruments(registry))
        self._name = name
        self._listen(store)
        self._calls = _Times(self._of.calls, self._of.errors, name)
        self._requests = _Times(self._of.requests, None, name)
        store.wrap(self._around)

    # Operations, from events

    def _listen(self, store: SessionStore) -> None:
        of, name = self._of, self._name

        def count(
            kind: str, counter: Counter, amount: Callable[[Event], int] = _one, *labels: str
        ) -> None:
            counted = counter.labels(name, *labels)
            store.on(kind, lambda event: counted.inc(amount(event)))

        count("saved", of.saves)
        count("saved", of.saved_bytes, _size)
        count("deduplicated", of.deduplicated)
        count("deduplicated", of.deduplicated_bytes, _size)
        refused = partial(of.limits.labels, name)
        store.on("limit_exceeded", lambda event: refused(event.limit or "disk").inc())
        for kind in ("dropped", "ended", "resumed"):
            count(kind, of.sessions, _one, kind)
        for kind in ("dropped", "deleted", "expired"):
            count(kind, of.deleted_files, lambda event: event.files, kind)
            count(kind, of.deleted_bytes, _size, kind)
        for event in ("started", "finished", "failed", "held"):
            count(f"sweep_{event}", of.sweeps, _one, event)

    # Durations and errors, around the backend

    def _around(self, backend: Backend) -> Backend:
        if isinstance(backend, HasClient):
            single = {name: self._requests.call(name) for name in _REQUESTS}
            listings = {
                "list": self._requests.listing("list", by_page=True),
                "uploads": self._requests.listing("uploads"),  # by the upload, not by the page
            }
            backend.wrap_client(lambda client: wrap_methods(client, {**single, **listings}))
        calls = {name: self._calls.call(name) for name in _CALLS}
        calls |= {name: self._calls.listing(name) for name in _LISTINGS}
        calls |= {
            "open": self._calls.call("open", self._reading),
            "collect": self._calls.call("collect", self._collected),
            "survey": lambda survey: lambda **of: wrap_methods(survey(**of), calls),
        }
        return wrap_methods(backend, calls)

    def _reading(self, stream: BinaryIO) -> _Reading:
        return _Reading(stream, self._of.read_bytes.labels(self._name), self._calls.failed)

    def _collected(self, collected: Collected) -> Collected:
        self._of.collected.labels(self._name).inc(collected.blobs)
        self._of.collected_bytes.labels(self._name).inc(collected.bytes)
        return collected


class _Times:
    """Observes the duration of calls, and counts their errors."""

    def __init__(self, histogram: Histogram, errors: Counter | None, store: str) -> None:
        self._histogram = histogram
        self._errors = errors
        self._store = store

    def failed(self, name: str, error: BaseException) -> None:
        """Count an error of the call ``name``. FileNotStored is a normal result, not an error."""
        if self._errors is not None and not isinstance(error, FileNotStored):
            self._errors.labels(self._store, name, type(error).__name__).inc()

    def call(self, name: str, result: Callable[[Any], Any] = lambda value: value) -> Wrapper:
        """Return a wrapper that measures a method. ``result`` maps the returned value."""
        observe = self._histogram.labels(self._store, name).observe

        def timed(call: Call, *args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return result(call(*args, **options))
            except BaseException as error:
                self.failed(name, error)
                raise
            finally:
                observe(time.perf_counter() - began)

        return lambda call: partial(timed, call)

    def listing(self, name: str, *, by_page: bool = False) -> Wrapper:
        """Return a wrapper for a method that returns an iterator. Measures the iterator only.

        ``by_page`` observes each item, which took one request, and otherwise their sum.
        """
        observe = self._histogram.labels(self._store, name).observe

        def timed(call: Call, *args: Any, **options: Any) -> Iterator[Any]:
            entries: Iterator[Any] | None = None
            total = 0.0
            try:
                while True:
                    began = time.perf_counter()
                    try:
                        entries = iter(call(*args, **options)) if entries is None else entries
                        entry = next(entries, _END)
                    finally:
                        seconds = time.perf_counter() - began
                        total += seconds
                    if entry is _END:
                        return
                    if by_page:
                        observe(seconds)
                    yield entry
            except Exception as error:
                self.failed(name, error)
                raise
            finally:
                if not by_page:
                    observe(total)

        return lambda call: partial(timed, call)


class _Reading:
    """A stream that counts its bytes and errors."""

    def __init__(
        self, stream: BinaryIO, counter: Any, failed: Callable[[str, Exception], None]
    ) -> None:
        self._stream = stream
        self._counter = counter
        self._failed = failed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def read(self, size: int = -1) -> bytes:
        try:
            data = self._stream.read(size)
        except SessionStoreError as error:
            self._failed("read", error)
            raise
        self._counter.inc(len(data))
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
