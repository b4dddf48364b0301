"""Writers, a sweeper and a reader on one local root, killed with SIGKILL at random points.

    python -m tests.campaigns.kill_local --kills 100 --seed 1 [--root DIRECTORY]

Each writer saves, replaces and deletes files of its own name in sessions that all of them use, and
drops and ends sessions that nobody counts on. Before each operation it notes what it is about to
do, and after it that it was done, in a log that a kill cannot undo. At the end every noted file
must read back byte for byte (an operation that was under way may have happened or not), nothing
may be torn, and one sweep past the age must leave nothing at all. Exit status 1 says it did not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sessionstore import FileNotStored, Retention, SessionStore, SessionStoreError
from sessionstore.clock import SystemClock

WRITERS = 4
KEPT = [f"kept-{number}" for number in range(4)]
CHURN = [f"churn-{number}" for number in range(4)]
RETENTION = Retention(idle=timedelta(hours=1), linger=timedelta(milliseconds=20))


class LaterClock(SystemClock):
    """The machine's clock, two hours ahead."""

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(hours=2)


def content(number: int) -> bytes:
    """Hot contents for 0 to 9, one of a kind beyond; every tenth longer than the buffer."""
    size = 1_500_000 if number % 10 == 9 else 100 + number % 1000
    return random.Random(number).randbytes(size)


@dataclass
class Log:
    """What one process was about to do and has done: JSON lines, one write(2) each."""

    path: Path
    fd: int = field(init=False)

    def __post_init__(self) -> None:
        self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, *row: object) -> None:
        os.write(self.fd, json.dumps(row).encode() + b"\n")


def write(root: Path, log: Log, seed: int) -> None:
    """A writer: one operation after another until it is killed."""
    rng = random.Random(seed)
    store = SessionStore.open(root, retention=RETENTION)
    names = [f"w{seed}/{number}.bin" for number in range(6)]
    while True:
        turn = rng.random()
        number = rng.randrange(10) if rng.random() < 0.7 else rng.randrange(10, 1 << 30)
        if turn < 0.55:
            sid, name = rng.choice(KEPT), rng.choice(names)
            log.write("do", sid, name, number)
            store.session(sid).put(name, content(number))
            log.write("done", sid, name)
        elif turn < 0.65:
            sid, name = rng.choice(KEPT), rng.choice(names)
            log.write("do", sid, name, None)
            store.session(sid).delete(name)
            log.write("done", sid, name)
        elif turn < 0.9:
            session = store.session(rng.choice(CHURN))
            session.add(content(number), ".bin", ttl=timedelta(seconds=rng.choice([1, 100])))
        elif turn < 0.95:
            store.session(rng.choice(CHURN)).end()
        else:
            store.session(rng.choice(CHURN)).drop()


def sweep(root: Path, _log: Log, _seed: int) -> None:
    """A sweeper: one sweep after another until it is killed."""
    store = SessionStore.open(root, retention=RETENTION)
    while True:
        store.sweep()


def read(root: Path, _log: Log, _seed: int) -> None:
    """A reader: lists and reads everything, until it is killed. A file may go, but never tear."""
    store = SessionStore.open(root, retention=RETENTION)
    while True:
        for session in store.sessions():
            for file in session.files():
                with contextlib.suppress(FileNotStored):
                    file.read()


Role = Callable[[Path, Log, int], None]


def start(role: Role, root: Path, logs: Path, seed: int) -> int:
    """Fork a process for the role; its pid. An error of its own is reported and fails the run."""
    pid = os.fork()
    if pid:
        return pid
    try:
        role(root, Log(logs / f"{seed}.log"), seed)
    except BaseException:  # noqa: BLE001 - it is reported, and the child must not go on
        (logs / f"{seed}.error").write_text(traceback.format_exc())
    os._exit(1)


def rows(logs: Path) -> Iterator[list[object]]:
    """Every row of every log. Names are used by one process only, so files may be read in turn."""
    for path in sorted(logs.glob("*.log")):
        for line in path.read_text().splitlines():
            yield json.loads(line)


def expected(logs: Path) -> dict[tuple[str, str], list[object]]:
    """(session, name) -> the contents it may have: one, or two when an operation was under way."""
    state: dict[tuple[str, str], list[object]] = {}
    for kind, sid, name, *rest in rows(logs):
        key = (str(sid), str(name))
        old = state.get(key, [None])
        state[key] = [old[-1]] if kind == "done" else [old[-1], rest[0]]
    return state


def lost(store: SessionStore, logs: Path) -> list[str]:
    """Every file that is not what it must be, in words."""
    wrong = []
    for (sid, name), allowed in expected(logs).items():
        try:
            data = store.session(sid).read(name)
        except FileNotStored:
            data = None
        if data not in [None if it is None else content(int(str(it))) for it in allowed]:
            wrong.append(f"{sid} {name}: {'missing' if data is None else 'other bytes'}")
    return wrong


def left_over(root: Path) -> list[str]:
    """What is still on the disk that should not be."""
    kept = {"layout", "secret", "blobs", "sessions", "tmp"}
    files = [path for path in root.rglob("*") if path.is_file() and path.name not in kept]
    folders = [*(root / "sessions").iterdir(), *(root / "tmp").iterdir()]
    return [str(path.relative_to(root)) for path in {*files, *folders}]


@dataclass
class Result:
    """What a run saw."""

    kills: int
    acknowledged: int
    lost: list[str]
    torn: list[str]
    left: list[str]
    errors: list[str]

    @property
    def good(self) -> bool:
        return not (self.lost or self.torn or self.left or self.errors)


def run(root: Path, logs: Path, kills: int, seed: int, least: int = 0) -> Result:
    """The whole campaign: so many kills, and more until ``least`` operations were acknowledged."""
    rng = random.Random(seed)
    roles: list[Role] = [write] * WRITERS + [sweep, read]
    seeds = iter(range(seed * 100_000, seed * 100_000 + 99_999))
    SessionStore.open(root).close()
    running = {start(role, root, logs, next(seeds)): role for role in roles}
    done = 0
    try:
        while done < kills or acknowledged(logs) < least:
            time.sleep(rng.uniform(0.002, 0.12))
            pid = rng.choice(list(running))
            role = running.pop(pid)
            kill(pid)
            running[start(role, root, logs, next(seeds))] = role
            done += 1
    finally:
        for pid in running:
            kill(pid)
    return judge(root, logs, done)


def acknowledged(logs: Path) -> int:
    return sum(path.read_bytes().count(b'["done"') for path in logs.glob("*.log"))


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def judge(root: Path, logs: Path, kills: int) -> Result:
    """Look at what the killed processes left, then sweep once past the age and look again."""
    errors = [path.read_text() for path in logs.glob("*.error")]
    with SessionStore.open(root, retention=RETENTION) as store:
        missing = lost(store, logs)
        torn = [
            f"{it.place}: {it.problem}"
            for it in store.verify()
            if it.kind != "leftover"  # what the killed ones left is the sweep's to find
        ]
    try:
        with SessionStore.open(root, retention=RETENTION, clock=LaterClock()) as store:
            store.sweep()
    except SessionStoreError as error:
        errors.append(str(error))
    done = sum(kind == "done" for kind, *_ in rows(logs))
    return Result(kills, done, missing, torn, left_over(root), errors)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--root", type=Path, help="where; a temporary directory if not said")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root, logs = (options.root or Path(temporary)) / "store", Path(temporary, "logs")
        logs.mkdir()
        result = run(root, logs, options.kills, options.seed)
    report = (
        f"seed {options.seed}: {result.kills} kills, {result.acknowledged} acknowledged, "
        f"{len(result.lost)} lost, {len(result.torn)} torn, {len(result.left)} left over, "
        f"{len(result.errors)} errors"
    )
    details = (*result.lost, *result.torn, *result.left, *result.errors)[:20]
    sys.stdout.write("\n  ".join((report, *details)) + "\n")
    return 0 if result.good else 1


if __name__ == "__main__":
    sys.exit(main())
