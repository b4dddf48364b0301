"""Processes that are suspended (SIGSTOP) at every step of a write, for longer than the grace.

    python -m tests.campaigns.sleeps_s3 --seconds 30 [--every 1] [--seed 1] [--endpoint URL]

The bucket is a SeaweedFS's that is started for this, or the one at the endpoint. For each operation
and each of its requests there are two processes: one that suspends itself just before it sends the
request, and one just after it was carried out. While they sleep, two sweepers go on sweeping, with
the shortest grace there is (10 s), so that content which only a sleeper counts on is collected.
Then all are woken up and come to their end. What one of them acknowledged must be there byte for
byte, every other file must be what it was, and when everything has expired two sweeps must leave
nothing. Exit status 1 says it was not so.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from sessionstore import FileNotStored, Session, SessionStore, SessionStoreError
from sessionstore.backends.objects import collector
from sessionstore.backends.s3 import S3Backend
from sessionstore.backends.s3.boto3_client import S3Client
from tests.campaigns import kill_s3
from tests.campaigns.faults_s3 import PART_SIZE
from tests.campaigns.kill_local import Log, kill, start
from tests.campaigns.kill_s3 import EXPIRED, GRACE, RETENTION, left
from tests.support import seaweed
from tests.support.stores import store_of

ACKNOWLEDGED, REFUSED, FAILED = 0, 3, 4
"""Exit statuses of a process: its save was acknowledged, raised an error of ours, or another."""

PATIENCE = 120.0
"""Seconds for all processes to come to their step, or to their end."""

Arrange = Callable[[Session, bytes], object]


def nothing(_session: Session, _data: bytes) -> None:
    """Nothing is there before."""


def an_older(session: Session, _data: bytes) -> None:
    session.put("target", b"old")


def known(session: Session, data: bytes) -> None:
    """The content is in the store and no file has it, so that a sweep is about to take it."""
    store_of(session).session(f"{session.id} before").put("known", data)
    store_of(session).session(f"{session.id} before").delete("known")


def known_and_older(session: Session, data: bytes) -> None:
    an_older(session, data)
    known(session, data)


class Operation(NamedTuple):
    """A save: what is there before, how many requests it takes, and its bytes."""

    arrange: Arrange
    requests: int
    size: int = 1000


OPERATIONS = {
    "new": Operation(nothing, 4),
    "known": Operation(known, 3),
    "replacing": Operation(an_older, 5),
    "known, replacing": Operation(known_and_older, 4),
    "in parts": Operation(nothing, 9, PART_SIZE + 1000),
}


class Step(NamedTuple):
    """Where one process sleeps: after the n-th request, or before it."""

    operation: str
    at: int
    after: bool

    def __str__(self) -> str:
        return f"{self.operation}: {'after' if self.after else 'before'} request {self.at}"


def content(step: Step) -> bytes:
    return random.Random(str(step)).randbytes(OPERATIONS[step.operation].size)


def save(step: Step, url: str, logs: Path, _log: Log, _seed: int) -> None:
    """A process that saves one file, and sleeps on the way."""
    operation = OPERATIONS[step.operation]
    store = SessionStore.open(url, retention=RETENTION)
    assert isinstance(store.backend, S3Backend)
    writer = store.backend.writer
    writer.multipart_above = writer.part_size = PART_SIZE
    session = store.session(str(step))
    operation.arrange(session, content(step))
    store.close()
    store = SessionStore.open(url, retention=RETENTION)  # nothing is remembered
    assert isinstance(store.backend, S3Backend)
    store.backend.writer.multipart_above = store.backend.writer.part_size = PART_SIZE
    _sleep_at(store.backend, step)
    try:
        store.session(str(step)).put("target", content(step))
    except SessionStoreError:
        os._exit(REFUSED)
    except BaseException:  # noqa: BLE001 - it is reported
        (logs / f"{os.getpid()}.error").write_text(f"{step}\n{traceback.format_exc()}")
        os._exit(FAILED)
    os._exit(ACKNOWLEDGED)


def _sleep_at(backend: S3Backend, step: Step) -> None:
    client = backend.client
    assert isinstance(client, S3Client)
    session = client.connection.client._endpoint.http_session
    real, count = session.send, 0

    def send(request: Any) -> Any:
        nonlocal count
        count += 1
        if count != step.at:
            return real(request)
        if step.after:
            answer = real(request)
            answer.content  # noqa: B018 - read, or the server would be kept waiting
            os.kill(os.getpid(), signal.SIGSTOP)
            return answer
        os.kill(os.getpid(), signal.SIGSTOP)
        return real(request)

    session.send = send


@dataclass
class Result:
    """What a run saw."""

    steps: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.errors or self.left)


def run(url: str, logs: Path, steps: list[Step], seconds: float) -> Result:
    """Nothing of boto3 may be open in this process when it forks."""
    result = Result(len(steps))
    running: dict[int, Step] = {}
    for number, step in enumerate(steps):

        def role(logs: Path, log: Log, seed: int, step: Step = step) -> None:
            save(step, url, logs, log, seed)

        running[start(role, logs, logs, number)] = step
    asleep, done = _wait(dict(running), os.WUNTRACED)
    sweepers = [start(sweep(url), logs, logs, len(steps) + each) for each in range(2)]
    time.sleep(seconds)
    for pid in asleep:
        os.kill(pid, signal.SIGCONT)
    _, woken = _wait(dict.fromkeys(asleep, steps[0]), 0)
    for pid in sweepers:
        kill(pid)
    result.outcomes["never came to its step"] = len(done)
    _judge(result, url, logs, {running[pid]: status for pid, status in {**done, **woken}.items()})
    return result


def sweep(url: str) -> Callable[[Path, Log, int], None]:
    return lambda logs, log, seed: kill_s3.sweep(url, logs, log, seed)


def _wait(pids: dict[int, Step], options: int) -> tuple[list[int], dict[int, int]]:
    """Wait until each has stopped or come to its end: those stopped, and exit statuses."""
    asleep: list[int] = []
    done: dict[int, int] = {}
    deadline = time.monotonic() + PATIENCE
    while pids:
        if time.monotonic() > deadline:
            raise TimeoutError(f"Neither asleep nor done: {[str(it) for it in pids.values()]}")
        for pid in list(pids):
            found, status = os.waitpid(pid, os.WNOHANG | options)
            if found and os.WIFSTOPPED(status):
                asleep.append(pid)
                del pids[pid]
            elif found:
                done[pid] = os.waitstatus_to_exitcode(status)
                del pids[pid]
        time.sleep(0.05)  # children are waited for one by one: there is no event for any of some
    return asleep, done


def _judge(result: Result, url: str, logs: Path, statuses: dict[Step, int]) -> None:
    result.errors = [path.read_text() for path in logs.glob("*.error")]
    names = {ACKNOWLEDGED: "acknowledged", REFUSED: "refused", FAILED: "failed"}
    with SessionStore.open(url, retention=RETENTION) as store:
        for step, status in statuses.items():
            result.outcomes[names[status]] += 1
            found: bytes | None = None
            with contextlib.suppress(FileNotStored):
                found = store.session(str(step)).read("target")
            older = b"old" if "replacing" in step.operation else None
            if found not in [content(step)] + [older] * (status != ACKNOWLEDGED):
                said = "missing" if found is None else f"{len(found)} other bytes"
                result.lost.append(f"{step} was {names[status]} and is {said}")
        result.errors += [
            f"{it.place}: {it.problem}" for it in store.verify() if it.kind != "leftover"
        ]
    time.sleep(1.3 * GRACE.total_seconds())  # the store's clock is a real one
    with (
        mock.patch.object(collector, "ABANDONED", GRACE),  # nobody uploads any more
        SessionStore.open(url, retention=EXPIRED) as store,
    ):
        store.sweep()
        store.sweep()
        result.left = left(store)


def all_steps() -> list[Step]:
    return [
        Step(name, at, after)
        for name, operation in OPERATIONS.items()
        for at in range(1, operation.requests + 1)
        for after in (False, True)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--every", type=int, default=1, help="one step in so many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--endpoint", help="a SeaweedFS that tests.support.seaweed started")
    options = parser.parse_args()
    os.environ.update(seaweed.ENVIRONMENT, SESSIONSTORE_TEST_GRACE="1")
    steps = all_steps()
    chosen = random.Random(options.seed).sample(steps, len(steps) // options.every)
    with contextlib.ExitStack() as resources:
        logs = Path(resources.enter_context(tempfile.TemporaryDirectory()))
        endpoint = options.endpoint or seaweed.endpoint(resources)
        grace = f"{GRACE.total_seconds():.0f}s"
        place = f"s3://{seaweed.BUCKET}/sleeps-{os.getpid()}"
        url = f"{place}?endpoint_url={endpoint}&grace={grace}&engine=boto3"
        result = run(url, logs, chosen, options.seconds)
    outcomes = ", ".join(f"{count} {it}" for it, count in sorted(result.outcomes.items()))
    head = (
        f"SeaweedFS, seed {options.seed}: {result.steps} processes suspended for "
        f"{options.seconds:g} s ({outcomes}), {len(result.lost)} lost, "
        f"{len(result.left)} left after two sweeps, {len(result.errors)} errors"
    )
    sys.stdout.write("\n  ".join((head, *(result.lost + result.errors + result.left)[:20])) + "\n")
    return 0 if result.good else 1


if __name__ == "__main__":
    sys.exit(main())
