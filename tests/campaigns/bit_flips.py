"""Random bits flipped in stored content: each found by verify, refused by reading, and healed.

    python -m tests.campaigns.bit_flips --flips 1000 --seed 1 [--endpoint URL]

First on the local disk, then in a bucket of a SeaweedFS that is started for this, or of the one at
the endpoint. In each store one bit is flipped in each of so many contents, beside as many that stay
whole. Every file is read: of the flipped ones not one may be read to its end, of the others all.
``verify`` has to name just the flipped ones; after a repair and a second save of the same bytes
everything has to read back. Exit status 1 says it was not so.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sessionstore import Corrupted, SessionStore
from sessionstore.backends.objects import keys
from sessionstore.backends.objects.client import Payload
from sessionstore.backends.s3 import S3Backend
from tests.support import seaweed
from tests.support.local import spoil

SMALL, LARGE = 20_000, 1_500_000
"""Bytes of most contents at most, and of one in fifty: more than is kept in memory at once."""

Flip = Callable[[str, random.Random], None]
"""Flips one bit of the content of this digest."""


@dataclass
class Result:
    """What a run saw, of one store."""

    place: str
    flips: int
    refused: int = 0
    found: int = 0
    healed: int = 0
    false: int = 0
    """Sound files that were refused or found."""

    def __str__(self) -> str:
        return (
            f"{self.place}: {self.flips} bits flipped, {self.refused} refused by reading, "
            f"{self.found} found by verify, {self.healed} healed by saving again, "
            f"{self.false} false alarms"
        )

    @property
    def good(self) -> bool:
        return self.false == 0 and self.refused == self.found == self.healed == self.flips


def content(rng: random.Random) -> bytes:
    return rng.randbytes(LARGE if rng.random() < 0.02 else rng.randint(1, SMALL))


def run(store: SessionStore, flip: Flip, flips: int, seed: int, place: str) -> Result:
    """The whole campaign on one store."""
    result, rng = Result(place, flips), random.Random(seed)
    files = {f"{number}.bin": rng.getrandbits(64) for number in range(2 * flips)}
    session = store.session("visitor")
    for name, own in files.items():
        session.put(name, content(random.Random(own)))
    flipped = set(rng.sample(sorted(files), flips))
    for name in sorted(flipped):
        flip(session.get(name).digest, rng)
    refused = {name for name in files if not _reads(store, name)}
    found = [finding.name for finding in store.verify()]
    result.refused, result.found = len(refused & flipped), len({*found} & flipped)
    result.false = len(refused - flipped) + len(found) - result.found
    store.verify(repair=True)
    for name in flipped:
        session.put(name, content(random.Random(files[name])))
    healed = {name for name in files if _whole(store, name, files[name])}
    result.healed = len(healed & flipped)
    result.false += len(files) - len(flipped) - len(healed - flipped) + len(store.verify())
    return result


def _reads(store: SessionStore, name: str) -> bool:
    try:
        store.session("visitor").read(name)
    except Corrupted:
        return False
    return True


def _whole(store: SessionStore, name: str, own: int) -> bool:
    return store.session("visitor").read(name) == content(random.Random(own))


def flipped_in(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one bit flipped."""
    spoilt = bytearray(data)
    bit = rng.randrange(8 * len(spoilt))
    spoilt[bit // 8] ^= 1 << bit % 8
    return bytes(spoilt)


@contextlib.contextmanager
def on_disk() -> Iterator[tuple[SessionStore, Flip]]:
    with tempfile.TemporaryDirectory() as directory, SessionStore.open(directory) as store:

        def flip(digest: str, rng: random.Random) -> None:
            path = Path(directory, "blobs", digest[:2], digest)
            spoil(path, flipped_in(path.read_bytes(), rng))

        yield store, flip


@contextlib.contextmanager
def in_bucket(endpoint: str) -> Iterator[tuple[SessionStore, Flip]]:
    url = f"s3://{seaweed.BUCKET}/flips-{os.getpid()}?endpoint_url={endpoint}"
    with SessionStore.open(url) as store:
        assert isinstance(store.backend, S3Backend)
        client = store.backend.client

        def flip(digest: str, rng: random.Random) -> None:
            for page in client.list(keys.blob(digest)):
                for entry in page.entries:
                    with client.get(entry.key).stream as stream:
                        data = stream.read()
                    client.put(entry.key, Payload.of(flipped_in(data, rng)))

        yield store, flip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--endpoint", help="a SeaweedFS that tests.support.seaweed started")
    options = parser.parse_args()
    os.environ.update(seaweed.ENVIRONMENT)
    with contextlib.ExitStack() as resources:
        endpoint = options.endpoint or seaweed.endpoint(resources)
        places = {"local disk": on_disk(), "SeaweedFS": in_bucket(endpoint)}
        good = True
        for place, opened in places.items():
            with opened as (store, flip):
                result = run(store, flip, options.flips, options.seed, place)
            sys.stdout.write(f"seed {options.seed}, {result}\n")
            good &= result.good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
