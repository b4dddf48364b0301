"""Every request of every operation on a bucket is stopped in turn, in each way that there is.

    python -m tests.campaigns.stops_s3 [--every 1] [--seed 1] [--endpoint URL]

Systematic, not random: the requests of an operation are counted in a first run on a SeaweedFS that
is started for this (or the one at the endpoint), and then each is stopped in turn:

    dies before    the process is gone before it is sent
    dies after     the process is gone when it has been carried out
    fails          it is never carried out, however often it is repeated
    lost           it is carried out, the answer is lost, and it is repeated
    lost for good  the same, every time

After each, the file that was worked on is the old one or the new one, every other is what it was,
and the same operation, tried again by another process, succeeds. When everything has expired, two
sweeps must leave nothing. ``--every`` takes only each so-manieth case, drawn from the seed. Exit
status 1 says it was not so.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple
from unittest import mock

from botocore.exceptions import ConnectionClosedError

from sessionstore import FileNotStored, Retention, SessionStore, SessionStoreError
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.backends.objects import collector
from sessionstore.backends.objects.client import Payload
from sessionstore.backends.s3 import S3Backend, boto3_session
from sessionstore.clock import SystemClock
from tests.campaigns.faults_s3 import PART_SIZE, hasty
from tests.campaigns.kill_s3 import EXPIRED, GRACE, left
from tests.s3.place import Bucket
from tests.support import seaweed

MODES = ("dies before", "dies after", "fails", "lost", "lost for good")
OLD, NEW, OTHER, KNOWN = b"old", b"new", b"other", b"known"
LARGE = bytes(PART_SIZE) + b"and a second part"
RETENTION = Retention(idle=timedelta(hours=1), linger=timedelta(0))


class Died(BaseException):
    """The process is gone: nothing of it may send anything any more."""


class Stopper:
    """Between botocore and the network: does something about the n-th request."""

    def __init__(self, boto: Any) -> None:
        self._send = boto._endpoint.http_session.send
        boto._endpoint.http_session.send = self._sending
        boto.meta.events.register("before-call.s3", self._counting)
        self.count = 0
        self._at = 0
        self._mode = ""
        self._repeated = False

    def _counting(self, **_: object) -> None:
        self.count += 1
        self._repeated = False

    @contextlib.contextmanager
    def armed(self, at: int, mode: str) -> Iterator[None]:
        self.count, self._at, self._mode = 0, at, mode
        try:
            yield
        finally:
            self._mode = ""

    def _sending(self, request: Any) -> Any:
        dead = self._mode.startswith("dies") and self.count > self._at
        if dead or (self._mode == "dies before" and self.count == self._at):
            raise Died
        if not self._mode or self.count != self._at:
            return self._send(request)
        lost = self._mode == "lost for good" or (self._mode == "lost" and not self._repeated)
        self._repeated = True
        if self._mode == "fails":
            raise ConnectionClosedError(endpoint_url=request.url)
        answer = self._send(request)
        if self._mode == "dies after":
            raise Died
        if lost:
            answer.content  # noqa: B018 - read, so that the connection can be used again
            raise ConnectionClosedError(endpoint_url=request.url)
        return answer


Step = Callable[[SessionStore], object]


class Operation(NamedTuple):
    """What is done, what is there before besides, and what the file may be afterwards."""

    act: Step
    may_be: tuple[bytes | None, ...]
    done: bytes | None
    arrange: Step = lambda _: None


def put(data: bytes, **how: Any) -> Step:
    return lambda store: store.session("one").put("target", data, **how)


def known(store: SessionStore) -> None:
    store.session("bystander").put("known", KNOWN)


def ended(store: SessionStore) -> None:
    store.backend.end(store.session("one").sid)


def due(store: SessionStore) -> None:
    """A session that a sweep drops, beside the content of one that is gone already."""
    session = store.session("due")
    session.put("a", b"a")
    store.backend.end(session.sid)


def spoil(store: SessionStore) -> None:
    """Damage the content of the file, of which there is another copy."""
    backend = store.backend
    assert isinstance(backend, S3Backend)
    backend.cache.born.pop(store.session("one").get("target").digest)
    (page,) = backend.client.list("b/")
    with backend.client.get(page.entries[0].key).stream as stream:
        data = stream.read()
    backend.client.put(page.entries[0].key.rsplit("/", 1)[0] + "/" + "f" * 32, Payload.of(data))
    backend.client.put(page.entries[0].key, Payload.of(data + b"!"))


def copy(store: SessionStore) -> None:
    with SessionStore(MemoryBackend(Place(), SystemClock())) as source:
        source.session("one").put("target", NEW)
        source.session("copied", "owner").put("a", OTHER, ttl=timedelta(hours=1))
        source.backend.end(source.session("copied", "owner").sid)
        source.copy_to(store)


OPERATIONS = {
    "put": Operation(put(NEW), (OLD, NEW), NEW),
    "put with a time to live": Operation(put(NEW, ttl=timedelta(hours=1)), (OLD, NEW), NEW),
    "put of known content": Operation(put(KNOWN), (OLD, KNOWN), KNOWN, known),
    "put in parts": Operation(put(LARGE), (OLD, LARGE), LARGE),
    "delete": Operation(lambda it: it.session("one").delete("target"), (OLD, None), None),
    "drop": Operation(lambda it: it.session("one").drop(), (OLD, None), None),
    "touch": Operation(lambda it: it.session("one").touch(), (OLD,), OLD),
    "end": Operation(ended, (OLD,), OLD),
    "resume": Operation(lambda it: it.session("one").resume(), (OLD,), OLD, ended),
    "sweep": Operation(lambda it: it.sweep(), (OLD,), OLD, due),
    "copy": Operation(copy, (OLD, NEW), NEW),
    "repair": Operation(lambda it: it.verify(repair=True), (OLD,), OLD, spoil),
}


@dataclass
class Tally:
    """What a run saw."""

    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """Second tries that failed."""
    left: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.foreign or self.failed or self.left)


class Run:
    """All cases. They share one connection, since making one takes longer than a case."""

    def __init__(self, endpoint: str) -> None:
        self.tally = Tally()
        self._bucket = Bucket(endpoint)
        self._stopper = Stopper(self._bucket.boto)
        self._prefixes: list[str] = []

    def close(self) -> None:
        self._bucket.close()

    @contextlib.contextmanager
    def opened(self, prefix: str, retention: Retention = RETENTION) -> Iterator[SessionStore]:
        """The store there, as another process opens it."""
        backend = S3Backend(self._bucket.client(prefix), grace=GRACE)
        backend.writer.multipart_above = backend.writer.part_size = PART_SIZE
        yield SessionStore(backend, retention=retention)

    @contextlib.contextmanager
    def prepared(self, prefix: str, operation: Operation) -> Iterator[SessionStore]:
        self._prefixes.append(prefix)
        with self.opened(prefix) as store:
            store.session("one").put("target", OLD)
            operation.arrange(store)
        with self.opened(prefix) as store:
            store.session("bystander").put("other", OTHER)
            yield store

    def count(self, name: str, prefix: str) -> int:
        """The requests of an operation when nothing goes wrong."""
        with (
            self.prepared(f"{prefix}/count", OPERATIONS[name]) as store,
            self._stopper.armed(0, "count"),
        ):
            OPERATIONS[name].act(store)
        return self._stopper.count

    def case(self, name: str, mode: str, at: int, prefix: str) -> None:
        operation, case = OPERATIONS[name], f"{name}: request {at} {mode}"
        self.tally.cases += 1
        with self.prepared(prefix, operation) as store:
            outcome = "succeeded"
            try:
                with self._stopper.armed(at, mode):
                    operation.act(store)
            except Died:
                outcome = "died"
            except SessionStoreError as error:
                outcome = f"raised {type(error).__name__}"
            except Exception:  # noqa: BLE001 - it is reported
                outcome = "raised what is not ours"
                self.tally.foreign.append(f"{case}\n{traceback.format_exc()}")
        self.tally.outcomes[outcome] += 1
        self._look(case, prefix, operation, outcome)

    def _look(self, case: str, prefix: str, operation: Operation, outcome: str) -> None:
        with self.opened(prefix) as store:
            allowed = (operation.done,) if outcome == "succeeded" else operation.may_be
            self._expect(store, case, "one", "target", *allowed)
            self._expect(store, case, "bystander", "other", OTHER)
            try:
                operation.act(store)
            except Exception:  # noqa: BLE001 - it is reported
                self.tally.failed.append(f"{case}\n{traceback.format_exc()}")
        with self.opened(prefix) as store:
            self._expect(store, f"{case}, tried again", "one", "target", operation.done)
            self._expect(store, f"{case}, tried again", "bystander", "other", OTHER)

    def _expect(
        self, store: SessionStore, case: str, session: str, name: str, *allowed: bytes | None
    ) -> None:
        found: bytes | None = None
        with contextlib.suppress(FileNotStored):
            found = store.session(session).read(name)
        if found not in allowed:
            said = None if found is None else found[:20]
            self.tally.lost.append(f"{case}: {session} {name} is {said!r}")

    def expire(self) -> None:
        """Let everything expire, and sweep twice. Nobody saves any more, so uploads go too."""
        time.sleep(1.3 * GRACE.total_seconds())  # the store's clock is a real one
        with mock.patch.object(collector, "ABANDONED", GRACE):
            for prefix in self._prefixes:
                with self.opened(prefix, EXPIRED) as store:
                    store.sweep()
                    store.sweep()
                    self.tally.left += [f"{prefix}: {key}" for key in left(store)]


def run(endpoint: str, every: int, seed: int) -> Run:
    running, rng = Run(endpoint), random.Random(seed)
    prefix = f"stops-{os.getpid()}"
    for number, name in enumerate(OPERATIONS):
        total = running.count(name, f"{prefix}/{number}")
        for case, (at, mode) in enumerate((at, it) for at in range(1, total + 1) for it in MODES):
            if rng.randrange(every) == 0:
                running.case(name, mode, at, f"{prefix}/{number}/{case}")
    running.expire()
    running.close()
    return running


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="one case in so many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--endpoint", help="a SeaweedFS that tests.support.seaweed started")
    options = parser.parse_args()
    os.environ.update(seaweed.ENVIRONMENT, SESSIONSTORE_TEST_GRACE="1")
    logging.getLogger("sessionstore").setLevel(logging.CRITICAL)  # sweeps that fail are expected
    with contextlib.ExitStack() as resources:
        endpoint = options.endpoint or seaweed.endpoint(resources)
        resources.enter_context(hasty(waits=0.01, timeout=boto3_session.READ_TIMEOUT))
        tally = run(endpoint, options.every, options.seed).tally
    outcomes = ", ".join(f"{count} {it}" for it, count in sorted(tally.outcomes.items()))
    head = (
        f"SeaweedFS, seed {options.seed}: {tally.cases} requests stopped ({outcomes}), "
        f"{len(tally.lost)} lost, {len(tally.left)} left after two sweeps, "
        f"{len(tally.failed)} second tries failed, {len(tally.foreign)} errors not ours"
    )
    details = (*tally.lost, *tally.left, *tally.failed, *tally.foreign)[:20]
    sys.stdout.write("\n  ".join((head, *details)) + "\n")
    return 0 if tally.good else 1


if __name__ == "__main__":
    sys.exit(main())
