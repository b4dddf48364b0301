"""Measure operations on a bucket across a network, in round trips.

    python -m benchmarks.latency [--rtt 20 50 100] [--engine boto3 obstore] [--rows TEXT ...]
                                 [--rounds 9] [--tls]

SeaweedFS runs on this machine behind ``benchmarks.relay``, which adds ``--rtt`` milliseconds of
round trip (RTT). A figure is the median of the wall-clock time, in RTT. It includes the processor
time of the client and of the server, so it is nearer to a whole number for a longer round trip.
``--tls`` uses https through the same relay.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import peers
from benchmarks.harness import Figure, Run
from benchmarks.objects import AT_ONCE, Calls, bare_client, boto3_calls, obstore_calls
from benchmarks.relay import relaying
from benchmarks.report import machine
from sessionstore import Session, SessionStore
from tests.support import seaweed

KB = 1 << 10
SIZE = 10 * KB
ENGINES = ("boto3", "obstore")
STALE = 2.2
"""Seconds after which a store checks a file again."""

_numbers = itertools.count()


@dataclass
class Side:
    """An engine, or a bare library: ``name`` is its column."""

    name: str


@dataclass
class Ours(Side):
    """A store, and a second one that has seen nothing of it; ``pool`` makes calls at once."""

    store: SessionStore
    other: SessionStore
    pool: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, AT_ONCE))

    def new(self) -> Session:
        """Return a new session with a file."""
        session = self.store.session(f"visitor-{next(_numbers)}")
        session.put("first", b"x")
        return session


@dataclass
class Bare(Side):
    """The bare requests of a library."""

    calls: Calls
    pool: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, AT_ONCE))


@dataclass(frozen=True)
class Row:
    """An operation: ``ours`` and ``bare`` prepare it, unmeasured, and return the measured part."""

    what: str
    ours: Callable[[Ours], Run]
    bare: Callable[[Bare], Run] | None = None


@dataclass(frozen=True)
class Found:
    """The median of a row by one side, in seconds."""

    what: str
    side: str
    seconds: float


def _data() -> bytes:
    return os.urandom(SIZE)


# The rows


def _add(side: Ours) -> Run:
    return partial(side.new().add, _data())


def _put(side: Ours) -> Run:
    return partial(side.new().put, "a", _data())


def _replace(side: Ours) -> Run:
    session = side.new()
    session.put("a", _data())
    return partial(session.put, "a", _data())


def _first(side: Ours) -> Run:
    data, number = _data(), next(_numbers)
    return lambda: side.store.session(f"visitor-{number}").put("a", data)


def _known_here(side: Ours) -> Run:
    session, data = side.new(), _data()
    session.add(data)
    return partial(session.add, data)


def _known_there(side: Ours) -> Run:
    data = _data()
    side.other.session(f"visitor-{next(_numbers)}").add(data)
    return partial(side.new().add, data)


def _read(side: Ours) -> Run:
    file = side.new().add(_data())
    time.sleep(STALE)
    return file.read


def _read_by_name(side: Ours) -> Run:
    session = side.new()
    session.put("a", _data())
    return partial(session.read, "a")


def _delete(side: Ours) -> Run:
    session = side.new()
    session.put("a", _data())
    return partial(session.delete, "a")


def _end(side: Ours) -> Run:
    return side.new().end


def _drop(side: Ours) -> Run:
    session = side.new()
    session.put("a", _data())
    return session.drop


def _many(side: Ours) -> Run:
    session, contents = side.new(), [_data() for _ in range(AT_ONCE)]
    return lambda: list(side.pool.map(session.add, contents))


def _many_async(side: Ours) -> Run:
    session, contents = side.new(), [_data() for _ in range(200)]

    async def run() -> None:
        await asyncio.gather(*map(session.add_async, contents))

    return lambda: asyncio.run(run())


def _directory(side: Ours) -> Run:
    session, contents = side.new(), [_data() for _ in range(10)]

    def run() -> None:
        with session.directory() as folder:
            for number, data in enumerate(contents):
                Path(folder, f"{number}").write_bytes(data)

    return run


def _key() -> str:
    return f"bare/{next(_numbers):020x}"


def _bare_put(side: Bare) -> Run:
    return partial(side.calls.put, _key(), _data())


def _bare_get(side: Bare) -> Run:
    key = _key()
    side.calls.put(key, _data())
    return partial(side.calls.get, key)


def _bare_delete(side: Bare) -> Run:
    key = _key()
    side.calls.put(key, _data())
    return partial(side.calls.delete, key)


def _bare_many(side: Bare) -> Run:
    pairs = [(_key(), _data()) for _ in range(AT_ONCE)]
    return lambda: list(side.pool.map(lambda pair: side.calls.put(*pair), pairs))


def _bare_ten(side: Bare) -> Run:
    pairs = [(_key(), _data()) for _ in range(10)]
    return lambda: [side.calls.put(*pair) for pair in pairs]


ROWS = [
    Row("add, new content of 10 KB", _add, _bare_put),
    Row("put under a new name", _put, _bare_put),
    Row("put that replaces a file", _replace, _bare_put),
    Row("add, content known to this process", _known_here),
    Row("add, content known to the store", _known_there),
    Row("session() and its first put", _first),
    Row("StoredFile.read after 2 s", _read, _bare_get),
    Row("read by name", _read_by_name, _bare_get),
    Row("delete", _delete, _bare_delete),
    Row("end", _end),
    Row("drop", _drop),
    Row("32 adds at once", _many, _bare_many),
    Row("200 add_async at once", _many_async),
    Row("directory() of 10 files", _directory, _bare_ten),
]


# The sides


@contextmanager
def serving(*, https: bool) -> Iterator[str]:
    """The endpoint of a SeaweedFS, with TLS if ``https``."""
    os.environ.update(seaweed.ENVIRONMENT)
    with ExitStack() as opened:
        endpoint = seaweed.endpoint(opened)
        if https:
            from tests.support import tls  # its library is not in the extra "bench"

            folder = Path(opened.enter_context(tempfile.TemporaryDirectory()))
            authority = tls.Authority(folder, "authority")
            os.environ["AWS_CA_BUNDLE"] = os.environ["SSL_CERT_FILE"] = str(authority.file)
            endpoint = opened.enter_context(tls.relay(endpoint, authority.certify(tls.HERE)))
        yield endpoint


@contextmanager
def far(endpoint: str, milliseconds: float, mbit: float = math.inf) -> Iterator[str]:
    """The endpoint of the same server, a round trip of so many milliseconds away."""
    parts = urlsplit(endpoint)
    with relaying(parts.hostname or "", parts.port or 80, milliseconds / 1000, mbit) as port:
        yield f"{parts.scheme}://{parts.hostname}:{port}"


@contextmanager
def library(endpoint: str, engines: Iterable[str]) -> Iterator[list[Ours]]:
    """A store by each engine."""
    with ExitStack() as opened:

        def store(engine: str) -> SessionStore:
            url = f"s3://{seaweed.BUCKET}/latency-{engine}/?endpoint_url={endpoint}"
            return opened.enter_context(SessionStore.open(url, engine=engine))

        yield [Ours(engine, store(engine), store(engine)) for engine in engines]


@contextmanager
def bare(endpoint: str) -> Iterator[list[Bare]]:
    """The bare libraries."""
    with closing(bare_client(endpoint)) as client:
        yield [
            Bare("bare boto3", boto3_calls(client)),
            Bare("bare obstore", obstore_calls(endpoint)),
            Bare("s3fs", _s3fs_calls(endpoint)),
        ]


def _s3fs_calls(endpoint: str) -> Calls:
    import s3fs

    files = s3fs.S3FileSystem(
        endpoint_url=endpoint, skip_instance_cache=True, use_listings_cache=False,
        config_kwargs={"max_pool_connections": 64},
    )  # fmt: skip
    return Calls(
        lambda key, data: files.pipe_file(f"{seaweed.BUCKET}/{key}", data),
        lambda key: bytes(files.cat_file(f"{seaweed.BUCKET}/{key}")),
        lambda prefix: files.ls(f"{seaweed.BUCKET}/{prefix}"),
        lambda key: files.rm_file(f"{seaweed.BUCKET}/{key}"),
    )


# The measuring


def measure(
    rows: Sequence[Row], ours: Sequence[Ours], beside: Sequence[Bare], rounds: int
) -> Iterator[Found]:
    """Yield the median of each row by each side, in turn; the first round warms up."""
    for row in rows:
        prepares: dict[str, Callable[[], Run]] = {}
        for side in ours:
            prepares[side.name] = partial(row.ours, side)
        if row.bare is not None:
            prepares |= {peer.name: partial(row.bare, peer) for peer in beside}
        took: dict[str, list[float]] = {name: [] for name in prepares}
        for _ in range(rounds + 1):
            for name, prepare in prepares.items():
                took[name].append(seconds(prepare()))
        for name, each in took.items():
            yield Found(row.what, name, statistics.median(each[1:]))


def seconds(run: Run) -> float:
    """Return the wall-clock time of ``run``."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def table(found: Sequence[Found], rtt: float) -> str:
    """Return a table of the rows by the sides, in round trips of ``rtt`` seconds."""
    sides = list(dict.fromkeys(it.side for it in found))
    lines = [f"| {' | '.join(['', *sides])} |", f"|---|{'---:|' * len(sides)}"]
    for what, some in itertools.groupby(found, _what):
        by_side: Mapping[str, float] = {it.side: it.seconds / rtt for it in some}
        cells = (f"{by_side[side]:.1f}" if side in by_side else "" for side in sides)
        lines.append(f"| {' | '.join([what, *cells])} |")
    return "\n".join(lines)


def figures(endpoint: str, milliseconds: float, rounds: int) -> Iterator[Figure]:
    """Yield every row of the first engine, the other sides beside it, for ``make bench``."""
    group = f"Latency, {milliseconds:g} ms of round trip"
    for what, some in itertools.groupby(
        _found(endpoint, milliseconds, ROWS, ENGINES, rounds), _what
    ):
        first, *others = ((it.side, it.seconds / milliseconds * 1000) for it in some)
        yield Figure(group, f"{what}; {first[0]}", first[1], "RTT", others=dict(others))


def _what(found: Found) -> str:
    return found.what


def _found(
    endpoint: str, milliseconds: float, rows: Sequence[Row], engines: Iterable[str], rounds: int
) -> Iterator[Found]:
    with (
        far(endpoint, milliseconds) as there,
        library(there, engines) as ours,
        bare(there) as beside,
    ):
        yield from measure(rows, ours, beside, rounds)


def report(endpoint: str, milliseconds: float, asked: argparse.Namespace) -> str:
    """Measure at one distance; return the tables."""
    rows = [row for row in ROWS if not asked.rows or any(it in row.what for it in asked.rows)]
    found = list(_found(endpoint, milliseconds, rows, asked.engine, asked.rounds))
    way = "https" if endpoint.startswith("https:") else "http"
    title = f"### Latency: {milliseconds:g} ms of round trip, {way}, in RTT"
    return f"{title}\n\n{table(found, milliseconds / 1000)}\n"


def parser(about: str) -> argparse.ArgumentParser:
    """Return the parser of the arguments of the program that ``about`` describes."""
    made = argparse.ArgumentParser(description=about.partition("\n")[0])
    made.add_argument("--rtt", nargs="+", type=float, default=[50.0], help="milliseconds")
    made.add_argument("--engine", nargs="+", choices=ENGINES, default=list(ENGINES))
    made.add_argument("--rows", nargs="+", help="only rows with one of these texts")
    made.add_argument("--rounds", type=int, default=9)
    made.add_argument("--tls", action="store_true", help="https")
    return made


def main() -> None:
    """Measure and print."""
    asked = parser(__doc__).parse_args()
    with serving(https=asked.tls) as endpoint:
        for milliseconds in asked.rtt:
            sys.stdout.write(f"{report(endpoint, milliseconds, asked)}\n")
            sys.stdout.flush()
    versions = ", ".join(peers.name(each, "") for each in ("boto3", "obstore", "s3fs"))
    sys.stdout.write(f"Medians of {asked.rounds} rounds; {versions}; {machine()}.\n")


if __name__ == "__main__":
    main()
