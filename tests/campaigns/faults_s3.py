"""Writers and sweepers on one bucket, behind a proxy that spoils requests and answers.

    python -m tests.campaigns.faults_s3 --operations 1500 --rates 1 5 20 --seed 1 [--attempts 1]
        [--engine obstore]

The bucket is a SeaweedFS's that is started for this, or the one at ``--endpoint``; the faults are
those of ``tests.campaigns.proxy``, so many of each hundred requests. Each writer saves, replaces,
deletes, reads and lists files of its own, some of them uploaded in parts, and saves into, ends,
resumes and drops sessions that nobody counts on; two sweepers sweep and verify all the time, with
``repair``, and the store's grace is as short as it may be.

An operation may fail, with an error of the library's own. A save that failed may have taken effect,
or may still. Whatever else is not as it was acknowledged counts as lost, other bytes than were
saved count as wrong, and so does a listing that misses a file. When everything has expired, two
sweeps through the proxy's plain side must leave nothing. Exit status 1 says it was not so.

botocore repeats what failed, up to four times in all, so that few faults come through to the
library. With ``--attempts 1`` all of them do.

A request that is carried out late, after it was repeated and acknowledged, after the file was
deleted, makes the file come back: nothing in S3 can call a request off. These are counted apart,
and only if the proxy did deliver such a request.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import os
import random
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from hashlib import sha256
from unittest import mock

from sessionstore import FileNotStored, Retention, Session, SessionStore, SessionStoreError
from sessionstore.backends.objects import collector
from sessionstore.backends.s3 import S3Backend, boto3_session, obstore_store
from sessionstore.backends.s3.backend import ENGINES
from sessionstore.names import encode
from tests.campaigns import kill_local
from tests.campaigns.kill_local import CHURN, KEPT
from tests.campaigns.kill_s3 import EXPIRED, GRACE, Key, left
from tests.campaigns.proxy import KINDS, Proxy, Rates
from tests.support import seaweed

WRITERS = 6
SWEEPERS = 2
TIMEOUT = 1
"""Seconds without a byte after which the client gives up, instead of the usual 60."""

PATIENCE = 1.5
"""Seconds that the proxy gives no answer."""

LATENESS = (0.5, 6.0)
"""Seconds after that in which a late request is carried out: within the grace of 10 s."""

PART_SIZE = 5 << 20
"""The least that S3 takes."""

IN_PARTS = -1
"""The number of a content that is uploaded in two parts."""

RETENTION = Retention(idle=timedelta(hours=1), linger=timedelta(milliseconds=20))


def content(number: int) -> bytes:
    if number == IN_PARTS:
        return random.Random(number).randbytes(PART_SIZE + 1_000_000)
    return kill_local.content(number)


@dataclass
class Tally:
    """What all threads of a run saw together."""

    operations: int = 0
    acknowledged: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """Operations that raised an error of ours, by its class."""
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    """Errors that are none of ours."""
    came_back: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.wrong or self.foreign or self.left)


class Files:
    """What each file of one writer may be: one content or None, several where that is not known."""

    def __init__(self, proxy: Proxy, tally: Tally) -> None:
        self.allowed: dict[Key, list[int | None]] = {}
        self._proxy = proxy
        self._tally = tally

    def may_become(self, key: Key, number: int | None) -> None:
        self.allowed[key] = [*self.allowed.get(key, [None]), number]

    def became(self, key: Key, number: int | None) -> None:
        self.allowed[key] = [number]

    def check(self, session: Session, name: str) -> None:
        """Read a file. Raises what the store raises, but for FileNotStored."""
        key, data = (session.id, name), None
        with contextlib.suppress(FileNotStored):
            data = session.read(name)
        allowed = self.allowed.get(key, [None])
        if data in [None if it is None else content(it) for it in allowed]:
            return
        said = f"{key} is {'missing' if data is None else 'other bytes'}, not one of {allowed}"
        if data is None:
            self._tally.lost.append(said)
        elif self._was_late(session, name, data):
            self._tally.came_back.append(said)
        else:
            self._tally.wrong.append(said)

    def check_listing(self, session: Session) -> None:
        """A listing that was answered has every file."""
        found = {file.name for file in session.files()}
        for (sid, name), allowed in self.allowed.items():
            if sid == session.id and None not in allowed and name not in found:
                self._tally.lost.append(f"{sid} {name} is not listed, and is one of {allowed}")

    def _was_late(self, session: Session, name: str, data: bytes) -> bool:
        """Whether a reference of that file to these bytes was carried out late."""
        reference, digest = f"/s/{session.sid}/f/{encode(name)}/", sha256(data).hexdigest()
        return any(
            method == "PUT" and reference in path and digest in path
            for method, path in self._proxy.delivered_late
        )


class Writer:
    """One operation after another, until the run has had as many as it is to have."""

    def __init__(self, url: str, run: Run, number: int) -> None:
        self._rng = random.Random(f"{run.seed} {number}")
        self._run = run
        self._tally = run.tally
        self._url = url
        self._names = [f"w{number}/{it}.bin" for it in range(3)]
        self.files = Files(run.proxy, run.tally)

    def run(self) -> None:
        with self._run.opened(self._url) as store:
            writer = store.backend.writer
            writer.multipart_above = writer.part_size = PART_SIZE
            while self._run.goes_on():
                try:
                    self._turn(store)
                except SessionStoreError as error:
                    self._tally.failed[type(error).__name__] += 1

    def _turn(self, store: OpenStore) -> None:
        turn, key = self._rng.random(), (self._rng.choice(KEPT), self._rng.choice(self._names))
        session = store.session(key[0])
        if turn < 0.4:
            self._put(session, key)
        elif turn < 0.5:
            self.files.may_become(key, None)
            session.delete(key[1])
            self.files.became(key, None)
        elif turn < 0.75:
            self.files.check(session, key[1])
        elif turn < 0.8:
            self.files.check_listing(session)
        else:
            self._churn(store.session(self._rng.choice(CHURN)))
        self._tally.acknowledged += 1

    def _put(self, session: Session, key: Key) -> None:
        chosen = self._rng.random()
        number = self._rng.randrange(9) if chosen < 0.8 else self._rng.randrange(10, 1 << 30)
        number = IN_PARTS if chosen > 0.98 else number
        self.files.may_become(key, number)
        session.put(key[1], content(number))
        self.files.became(key, number)

    def _churn(self, session: Session) -> None:
        turn = self._rng.random()
        if turn < 0.6:
            ttl = timedelta(seconds=self._rng.choice([1, 100]))
            session.add(content(self._rng.randrange(9)), ".bin", ttl=ttl)
        elif turn < 0.75:
            session.end()
        elif turn < 0.85:
            session.resume()
        else:
            session.drop()


class OpenStore(SessionStore):
    """A store whose backend is known to be S3's."""

    backend: S3Backend


class Run:
    """One run at one rate of faults."""

    def __init__(
        self,
        proxy: Proxy,
        operations: int,
        seed: int,
        haste: Callable[[], contextlib.AbstractContextManager[None]],
    ) -> None:
        self.proxy = proxy
        self._haste = haste
        self.seed = seed
        self.tally = Tally()
        self._operations = operations
        self._lock = threading.Lock()
        self._writing = WRITERS

    def goes_on(self) -> bool:
        with self._lock:
            self.tally.operations += 1
            return self.tally.operations <= self._operations

    @contextlib.contextmanager
    def opened(self, url: str) -> Iterator[OpenStore]:
        """A store of a thread's own; it is opened until that succeeds."""
        while True:
            try:
                store = OpenStore.open(url, retention=RETENTION)
                break
            except SessionStoreError as error:
                self.tally.failed[type(error).__name__] += 1
        with store:
            yield store

    def write(self, writer: Writer) -> None:
        try:
            writer.run()
        except BaseException:  # noqa: BLE001 - it is reported
            self.tally.foreign.append(traceback.format_exc())
        finally:
            self._writing -= 1

    def sweep(self, url: str) -> None:
        """Sweep all the time, and repair what looks damaged: nothing is, so nothing may go."""
        try:
            with self.opened(url) as store:
                while self._writing:
                    try:
                        store.sweep()
                        store.verify(repair=True)
                    except SessionStoreError as error:
                        self.tally.failed[type(error).__name__] += 1
        except BaseException:  # noqa: BLE001 - it is reported
            self.tally.foreign.append(traceback.format_exc())

    def run(self, url: str, plain: str) -> None:
        """``url`` leads through the proxy, ``plain`` to the same store past it."""
        writers = [Writer(url, self, number) for number in range(WRITERS)]
        threads = [threading.Thread(target=self.write, args=(it,)) for it in writers]
        threads += [threading.Thread(target=self.sweep, args=(url,)) for _ in range(SWEEPERS)]
        with self._haste():
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.proxy.drain()
        with SessionStore.open(plain, retention=RETENTION) as store:
            for writer in writers:
                for sid, name in writer.files.allowed:
                    writer.files.check(store.session(sid), name)
                for sid in KEPT:
                    writer.files.check_listing(store.session(sid))
            self.tally.wrong += [
                f"{it.place}: {it.problem}" for it in store.verify() if it.kind == "damaged"
            ]
        self._expire(plain)

    def _expire(self, plain: str) -> None:
        """Let everything expire. Nobody saves any more, so that uploads need not be waited for."""
        time.sleep(1.3 * GRACE.total_seconds())  # the store's clock is a real one
        with (
            mock.patch.object(collector, "ABANDONED", GRACE),
            SessionStore.open(plain, retention=EXPIRED) as store,
        ):
            store.sweep()
            store.sweep()
            self.tally.left = left(store)


@contextlib.contextmanager
def hasty(
    *, waits: float = 1.0, attempts: int = boto3_session.ATTEMPTS, timeout: int = TIMEOUT
) -> Iterator[None]:
    """Short time-outs for the clients that are made in the block.

    ``waits`` scales the pauses between boto3's repetitions, of which there are ``attempts``, less
    one. ``timeout`` is in seconds.
    """
    real = time.sleep
    with (
        mock.patch.object(obstore_store, "READ_TIMEOUT", timedelta(seconds=timeout)),
        mock.patch.object(obstore_store, "RETRIES", attempts - 1),
        mock.patch.object(boto3_session, "READ_TIMEOUT", timeout),
        mock.patch.object(boto3_session, "ATTEMPTS", attempts),
        mock.patch("botocore.endpoint.time", mock.Mock(sleep=lambda it: real(waits * it))),
    ):
        yield


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operations", type=int, default=1500, help="at each rate")
    parser.add_argument("--rates", type=float, nargs="+", default=[1, 5, 20], help="percent")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, metavar="KIND")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--waits", type=float, default=1.0, help="scale of botocore's own pauses")
    parser.add_argument(
        "--attempts", type=int, default=boto3_session.ATTEMPTS, help="of each request; 1: no more"
    )
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0])
    parser.add_argument("--endpoint", help="a SeaweedFS that tests.support.seaweed started")
    options = parser.parse_args()
    os.environ.update(seaweed.ENVIRONMENT, SESSIONSTORE_TEST_GRACE="1")
    logging.getLogger("sessionstore").setLevel(logging.CRITICAL)  # sweeps that fail are counted
    good = True
    with contextlib.ExitStack() as resources:
        endpoint = options.endpoint or seaweed.endpoint(resources)
        haste = partial(hasty, waits=options.waits, attempts=options.attempts)
        for number, rate in zip(itertools.count(), options.rates):
            seed = options.seed * 100 + number
            with Proxy(
                endpoint,
                Rates(rate / 100, seed, tuple(options.kinds)),
                patience=PATIENCE,
                lateness=LATENESS,
            ) as proxy:
                began, run = time.monotonic(), Run(proxy, options.operations, seed, haste)
                prefix = f"s3://{seaweed.BUCKET}/faults-{os.getpid()}-{number}"
                grace = f"grace={GRACE.total_seconds():.0f}s"
                run.run(
                    f"{prefix}?endpoint_url={proxy.endpoint}&{grace}&engine={options.engine}",
                    f"{prefix}?endpoint_url={endpoint}&{grace}",
                )
                report(run, f"{options.engine}, {rate:g} %", time.monotonic() - began)
                good &= run.tally.good
    return 0 if good else 1


def report(run: Run, what: str, seconds: float) -> None:
    tally, faults = run.tally, run.proxy.faults
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(faults.items()))
    failed = ", ".join(f"{count} {kind}" for kind, count in sorted(tally.failed.items()))
    head = (
        f"SeaweedFS, seed {run.seed}, {what} of {run.proxy.requests} requests spoilt in "
        f"{seconds:.0f} s: {tally.acknowledged} operations acknowledged, {len(tally.lost)} lost, "
        f"{len(tally.wrong)} wrong, {len(tally.left)} left after two sweeps, "
        f"{len(tally.foreign)} errors not ours"
    )
    lines = [
        head,
        f"faults: {kinds or 'none'}",
        f"errors of ours: {failed or 'none'}",
        f"came back by a late request: {len(tally.came_back)}",
        *(tally.lost + tally.wrong + tally.foreign + tally.left)[:20],
    ]
    sys.stdout.write("\n  ".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
