"""The explorer of the object protocol with a real engine on a real server.

    python -m tests.campaigns.explore_engines --engine obstore --schedules 500 --seed 1
        [--engine boto3 | obstore | fsspec] [--server seaweed | rclone] [--endpoint URL]

The scheduler decides as it does in memory who goes on, who dies, which request is lost or late, and
what time it is. Each request that it lets pass is made by the engine, and the server's answer is
what the protocol sees: its objects, its listings, its order. Only times are the scheduler's, since
no server's clock can be moved. Parts of an upload wait in memory for its end.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import chain, islice

from sessionstore.backends.objects import ObjectBackend
from sessionstore.backends.objects.client import Entry, ObjectClient, Payload
from sessionstore.content import Buffer
from tests.campaigns.kill_s3 import started
from tests.explorer.__main__ import explore
from tests.explorer.variants import VARIANTS
from tests.explorer.world import MakeBucket
from tests.s3.place import Bucket
from tests.s3.test_fsspec_s3 import client_at
from tests.support import seaweed
from tests.support.object_client import FakeBucket, Stored

_numbers = itertools.count(1)


class EngineBucket(FakeBucket):
    """A place on a server, asked by an engine; ``now`` dates what is in it."""

    def __init__(self, now: Callable[[], datetime], client: ObjectClient) -> None:
        super().__init__(now)
        self.client = client
        self._times: dict[str, datetime] = {}

    def all_keys(self) -> list[str]:
        pages = self.client.list("")
        return sorted(entry.key for page in pages for entry in page.entries)

    def put(self, key: str, data: Buffer, modified: datetime | None = None) -> None:
        self._times[key] = modified or self.date()
        self.client.put(key, Payload.of(bytes(data)))

    def get(self, key: str) -> Stored:
        with self.client.get(key).stream as stream:
            return Stored(stream.read(), self._times[key])

    def delete(self, keys: Sequence[str]) -> None:
        self.client.delete(keys)

    def page(self, prefix: str, after: str, size: int) -> list[Entry]:
        start_after = after if after >= prefix else ""
        pages = self.client.list(prefix, start_after=start_after, page_size=size)
        found = islice(chain.from_iterable(page.entries for page in pages), size)
        return [Entry(it.key, it.size, self._times[it.key]) for it in found]


def buckets(engine: str, endpoint: str) -> MakeBucket:
    """Makes a new place for each run."""
    bucket = Bucket(endpoint, engine)

    def make(now: Callable[[], datetime]) -> FakeBucket:
        prefix = f"explore-{os.getpid()}-{next(_numbers)}"
        client: ObjectClient
        client = client_at(endpoint, prefix) if engine == "fsspec" else bucket.client(prefix)
        return EngineBucket(now, client)

    return make


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schedules", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--endpoint", help="a server that is running")
    parser.add_argument("--engine", choices=["boto3", "obstore", "fsspec"], default="obstore")
    parser.add_argument("--server", choices=["seaweed", "rclone"], default="seaweed")
    parser.add_argument("--variant", default="", choices=["", *VARIANTS], help="a broken one")
    options = parser.parse_args()
    backend_type = VARIANTS[options.variant] if options.variant else ObjectBackend
    os.environ.update(seaweed.ENVIRONMENT)
    seeds = range(options.seed, options.seed + options.schedules)
    with contextlib.ExitStack() as resources:
        endpoint = options.endpoint or started(options.server, resources)
        report = explore(backend_type, seeds, make_bucket=buckets(options.engine, endpoint))
    sys.stdout.write(
        f"{options.engine} on {options.endpoint or options.server}: {report.runs} schedules from "
        f"seed {options.seed} in {report.seconds:.0f} s, {len(report.failed)} failed\n"
    )
    for run in report.failed[:5]:
        sys.stdout.write(f"  seed {run.seed}: {run.wrong[0]}\n")
    return int(bool(report.failed))


if __name__ == "__main__":
    sys.exit(main())
