"""Numbers for Prometheus: they are what was done, and measuring changes nothing."""

from __future__ import annotations

import inspect
import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, make_asgi_app
from prometheus_client.parser import text_string_to_metric_families

from sessionstore import Corrupted, LimitExceeded, Limits, Retention, SessionStore
from sessionstore.backend import HasFreeSpace, KeepsSecret, KnowsIfAlone, SignsUrls
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.backends.objects import ObjectBackend
from sessionstore.errors import BackendUnavailable, FileNotStored
from sessionstore.metrics import Metrics
from sessionstore.testing import (
    BackendContract,
    FakeClock,
    Fault,
    FaultyBackend,
    FreeSpace,
    OpenBackend,
    Restored,
    Secret,
    on,
)
from sessionstore.testing.faulty import unavailable
from tests.support.asgi_rig import served
from tests.support.object_client import Answer, FakeBucket, FakeObjectClient, Request
from tests.support.stores import HOUR, MINUTE, local_store, memory_store

SEED = 6


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def scraped(registry: CollectorRegistry) -> dict[str, float]:
    """What a Prometheus server gets over HTTP: "name label label" -> value, zeros left out."""
    with served(make_asgi_app(registry)) as address:
        text = httpx.get(f"{address}/").text
    values: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            wanted = sample.name.endswith(("_total", "_seconds_count"))
            labels = [each for key, each in sample.labels.items() if key != "store"]
            if wanted and sample.value:
                name = sample.name.removeprefix("sessionstore_").removesuffix("_total")
                values[" ".join([name, *labels])] = sample.value
    return values


def a_mixed_run(store: SessionStore, clock: FakeClock, seed: int) -> Counter[str]:
    """Do many things in a random order; what was done, by the names of the metrics."""
    draw = random.Random(seed)
    done: Counter[str] = Counter()
    kept: dict[tuple[int, str], bytes] = {}

    def save(of: int, name: str, data: bytes) -> None:
        known = data in kept.values()
        store.session(f"s{of}").put(name, data)
        kept[of, name] = data
        done.update({"saves": 1, "saved_bytes": len(data)})
        if known:
            done.update({"deduplicated": 1, "deduplicated_bytes": len(data)})

    def read(of: int, name: str, data: bytes) -> None:
        assert store.session(f"s{of}").read(name) == data
        done["read_bytes"] += len(data)

    def delete(of: int, name: str, data: bytes) -> None:
        store.session(f"s{of}").delete(name)
        del kept[of, name]
        done.update({"deleted_files deleted": 1, "deleted_bytes deleted": len(data)})

    def drop(of: int, *_: object) -> None:
        gone = [key for key in kept if key[0] == of]
        size = sum(len(kept.pop(key)) for key in gone)
        store.session(f"s{of}").drop()
        done.update({"sessions dropped": 1, "deleted_files dropped": len(gone)})
        done["deleted_bytes dropped"] += size

    def too_large(of: int, *_: object) -> None:
        with pytest.raises(LimitExceeded):
            store.session(f"s{of}").put("large", bytes(1001))
        done["limit_exceeded max_file"] += 1

    def missing(of: int, *_: object) -> None:
        with pytest.raises(FileNotStored):
            store.session(f"s{of}").read("no such file")

    for _ in range(300):
        if not kept or draw.random() < 0.5:
            save(draw.randrange(5), f"f{draw.randrange(20)}", draw.randbytes(1) * draw.randrange(9))
        else:
            (of, name), data = draw.choice(list(kept.items()))
            steps: list[Callable[..., None]] = [read, delete, drop, too_large, missing]
            draw.choices(steps, [9, 3, 1, 1, 1])[0](of, name, data)
    clock.advance(2 * HOUR)
    left = len({of for of, _ in kept})
    store.sweep()
    done.update({"sessions dropped": left, "deleted_files dropped": len(kept)})
    done["deleted_bytes dropped"] += sum(map(len, kept.values()))
    done.update({"sweeps started": 1, "sweeps finished": 1})
    return +done


def test_a_scrape_after_a_mixed_run_says_what_the_run_did(
    clock: FakeClock, registry: CollectorRegistry
) -> None:
    store = memory_store(clock, retention=Retention(idle=HOUR), limits=Limits(max_file=1000))
    Metrics(store, registry=registry)
    done = a_mixed_run(store, clock, SEED)
    values = scraped(registry)
    assert {name: value for name, value in values.items() if "seconds" not in name} == done
    calls = {name.split()[1] for name in values if name.startswith("call_seconds")}
    assert {"put", "get", "open", "delete", "drop", "sessions", "collect"} <= calls
    assert values["call_seconds_count put"] == done["saves"]


class CountingBucket(FakeBucket):
    """A bucket that counts the requests made to it."""

    requests = 0

    def carry_out(self, request: Request[Any]) -> Answer[Any]:
        self.requests += 1
        return super().carry_out(request)


def test_every_request_to_a_bucket_is_counted(
    clock: FakeClock, registry: CollectorRegistry
) -> None:
    bucket = CountingBucket(clock.now)
    backend = ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds)
    store = SessionStore(backend, clock=clock, retention=Retention(idle=HOUR))
    Metrics(store, registry=registry)
    bucket.requests = 0
    session = store.session("a")
    session.put("one", b"x")
    session.put("one", b"y")
    session.put("big", bytes(100_000_000))
    assert session.read("one") == b"y"
    session.delete("one")
    clock.advance(3 * HOUR)
    store.sweep()
    values = scraped(registry)
    requests = {name: n for name, n in values.items() if name.startswith("request_seconds")}
    assert sum(requests.values()) == bucket.requests
    assert {"put", "list", "delete", "upload_part", "complete"} <= {
        it.split()[1] for it in requests
    }


def test_held_and_failed_sweeps_are_counted(clock: FakeClock, registry: CollectorRegistry) -> None:
    backend = FaultyBackend(memory_store(clock).backend)
    store = SessionStore(backend, clock=clock)
    Metrics(store, registry=registry)
    store.emit("sweep_held", reason="it looks wrong")
    backend.plan = on("collect", Fault(unavailable))
    with pytest.raises(BackendUnavailable):
        store.sweep()
    values = scraped(registry)
    assert (values["sweeps held"], values["sweeps failed"], values["sweeps started"]) == (1, 1, 1)
    assert values["errors collect BackendUnavailable"] == 1


def test_errors_are_counted_and_answers_are_not(
    clock: FakeClock, registry: CollectorRegistry
) -> None:
    backend = FaultyBackend(memory_store(clock).backend, on("put", Fault(unavailable), number=2))
    store = SessionStore(backend, clock=clock)
    Metrics(store, registry=registry)
    session = store.session("a")
    session.put("a", b"x")
    with pytest.raises(BackendUnavailable):
        session.put("b", b"x")
    with pytest.raises(FileNotStored):
        session.get("c")
    backend.plan = on("files", Fault(unavailable, at=0))
    with pytest.raises(BackendUnavailable):
        session.files()
    values = scraped(registry)
    assert {name: n for name, n in values.items() if name.startswith("errors")} == {
        "errors put BackendUnavailable": 1,
        "errors files BackendUnavailable": 1,
    }
    assert values["call_seconds_count put"] == 2


def test_damage_met_while_reading_is_an_error(
    tmp_path: Path, clock: FakeClock, registry: CollectorRegistry
) -> None:
    with local_store(tmp_path, clock) as store:
        Metrics(store, registry=registry)
        file = store.session("a").put("a", b"bytes")
        (path,) = tmp_path.glob("sessions/*/files/a")
        was = path.stat()
        path.chmod(0o600)
        path.write_bytes(b"other")
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))  # a disk's error does not move it
        with pytest.raises(Corrupted):
            file.read()
    assert scraped(registry)["errors read Corrupted"] == 1


def test_stores_of_one_process_are_told_apart(
    clock: FakeClock, registry: CollectorRegistry
) -> None:
    for name, count in (("one", 1), ("two", 2)):
        store = memory_store(clock)
        Metrics(store, name=name, registry=registry)
        for number in range(count):
            store.session("a").put(str(number), b"x")
    told = {
        name: registry.get_sample_value("sessionstore_saves_total", {"store": name})
        for name in ("one", "two")
    }
    assert told == {"one": 1, "two": 2}


def test_ends_and_returns_are_counted(clock: FakeClock, registry: CollectorRegistry) -> None:
    store = memory_store(clock, retention=Retention(linger=MINUTE))
    Metrics(store, registry=registry)
    session = store.session("a")
    session.put("a", b"x")
    session.end()
    session.resume()
    values = scraped(registry)
    assert (values["sessions ended"], values["sessions resumed"]) == (1, 1)
    store.close()


def test_a_measured_store_has_the_same_abilities(
    tmp_path: Path, clock: FakeClock, registry: CollectorRegistry
) -> None:
    abilities = (HasFreeSpace, KeepsSecret, KnowsIfAlone, SignsUrls)
    for name, store in (("local", local_store(tmp_path, clock)), ("memory", memory_store(clock))):
        before = [isinstance(store.backend, each) for each in abilities]
        Metrics(store, name=name, registry=registry)
        assert [isinstance(store.backend, each) for each in abilities] == before
        assert True in before
        # As newer versions of Python look for an ability: not behind __getattr__.
        assert inspect.getattr_static(store.backend, "secret")
        store.close()


@contextmanager
def measured_place() -> Iterator[OpenBackend]:
    place, registry = Place(), CollectorRegistry()

    def open_backend(clock: FakeClock) -> Any:
        store = SessionStore(MemoryBackend(place, clock), clock=clock)
        Metrics(store, registry=registry)
        return store.backend

    yield open_backend


class TestMeasuredBackend(BackendContract, FreeSpace, Restored, Secret):
    """A measured backend keeps the contract of the one within."""

    keeps_content_in_memory = True

    @pytest.fixture
    def open_backend(self) -> Iterator[Callable[[FakeClock], Any]]:
        with measured_place() as open_backend:
            yield open_backend
