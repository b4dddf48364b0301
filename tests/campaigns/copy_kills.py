"""A store copied to a bucket and back by processes that are killed with SIGKILL on the way.

    python -m tests.campaigns.copy_kills --files 400 --kills 10 --seed 1 [--endpoint URL]

A local store is copied into a bucket of a SeaweedFS that is started for this (or of the one at the
endpoint), and from there into another local store. Each copy is a process of its own that says what
it did file by file; it is killed so many times, the first time half way, and then left to finish.
At the end all three stores must hold the same sessions, files, ages and ends, byte for byte, no
file may have been copied twice but for those that a kill interrupted, and ``verify`` may find
nothing. Exit status 1 says it was not so.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from sessionstore import SessionStore
from sessionstore.transfer import Progress
from tests.support import seaweed

LARGE = 1_500_000
"""Bytes of one file in twenty: more than is kept in memory at once."""


@dataclass
class Result:
    """What one copy saw."""

    way: str
    files: int
    kills: int = 0
    twice: int = 0
    """Files that more than one process copied."""
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.way}: {self.files} files, {self.kills} kills, {self.twice} copied twice, "
            f"{len(self.wrong)} wrong"
        )

    @property
    def good(self) -> bool:
        return not self.wrong and self.twice <= self.kills


def fill(store: SessionStore, files: int, seed: int) -> None:
    """Sessions with and without owners, ends, times to live, equal contents, long names."""
    rng = random.Random(seed)
    for number in range(files):
        visitor = rng.randrange(max(files // 8, 1))
        session = store.session(f"visitor {visitor}", "owner" if visitor % 3 == 0 else None)
        session = store.shared if visitor == 1 else session
        size = LARGE if number % 20 == 19 else rng.randint(0, 5000)
        content = random.Random(rng.randrange(files // 2 + 1)).randbytes(size)
        ttl = timedelta(hours=rng.randint(5, 9)) if number % 3 == 0 else None
        name = f"{number}/{'Ä' * 90 if number % 7 == 0 else 'x'}.bin"
        session.put(name, content, ttl=ttl)
    for session in list(store.sessions())[::4]:
        session.end()


Row = tuple[str, str | None, str]


class File(NamedTuple):
    """What is known of a file. The time of its save is a second early at most: of a bucket the
    time is known to the second, and nothing is noted as saved in the future."""

    what: str
    created: datetime
    expires: datetime | None

    def is_copy_of(self, other: File | None) -> bool:
        late = timedelta(0) if other is None else other.created - self.created
        return other == self._replace(created=self.created + late) and (
            timedelta(0) <= late <= timedelta(seconds=1)
        )


def everything(store: SessionStore) -> dict[Row, File]:
    """Every file with all that is known of it; its bytes are read, and so checked."""
    found = {}
    for session in [*store.sessions(), store.shared]:
        record = store.backend.session(session.sid)
        assert record is not None
        ended = "ended" if record.ended is not None else "here"
        for file in session.files():
            row = (session.id, session.owner, file.name)
            what = f"{ended} {file.digest} {len(file.read())}"
            found[row] = File(what, file.created, file.expires)
    return found


def copy(source: str, target: str) -> None:
    """The child: copies, and says so file by file."""

    def say(progress: Progress) -> None:
        done, row = progress.done, (progress.session_id, progress.owner, progress.name)
        sys.stdout.write(f"{done.files} {done.skipped} {row!r}\n")
        sys.stdout.flush()

    with SessionStore.open(source) as one, SessionStore.open(target) as other:
        one.copy_to(other, progress=say)


def start(source: str, target: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.campaigns.copy_kills", "--copy", source, target]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def follow(child: subprocess.Popen[str], until: int | None) -> list[str]:
    """The files a child copied, killed after its so-manieth line if it is to be."""
    assert child.stdout is not None
    copied, before = [], 0
    with child.stdout:
        for number, line in enumerate(child.stdout, start=1):
            files, _, row = line.split(" ", 2)
            if int(files) > before:
                copied.append(row)
            before = int(files)
            if number == until:
                os.kill(child.pid, signal.SIGKILL)
    child.wait()
    return copied


def run(source: str, target: str, kills: int, rng: random.Random, way: str) -> Result:
    """One way: kill, start again, and look when it is done."""
    with SessionStore.open(source) as store:
        expected = everything(store)
    result = Result(way, len(expected))
    copied: list[str] = []
    while result.kills < kills:
        # The last one that is killed may have come to its end before.
        until = len(expected) // 2 if not result.kills else rng.randint(1, len(expected))
        copied += follow(start(source, target), until)
        result.kills += 1
    last = start(source, target)
    copied += follow(last, None)
    result.twice = len(copied) - len(set(copied))
    with SessionStore.open(target) as store:
        found = everything(store)
        store.sweep()  # what the killed ones left unfinished
        result.wrong = [f"{it.place}: {it.problem}" for it in store.verify()]
    for row in sorted(expected.keys() | found.keys(), key=repr):
        there = found.get(row)
        if there is None or not there.is_copy_of(expected.get(row)):
            result.wrong.append(f"{row} is {there}, not {expected.get(row)}")
    if last.returncode:
        result.wrong.append(f"the last copy ended with {last.returncode}")
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--kills", type=int, default=10, help="of each of the two copies")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--endpoint", help="a SeaweedFS that tests.support.seaweed started")
    parser.add_argument("--copy", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.copy:
        copy(*options.copy)
        return 0
    os.environ.update(seaweed.ENVIRONMENT)
    rng = random.Random(options.seed)
    with contextlib.ExitStack() as resources:
        endpoint = options.endpoint or seaweed.endpoint(resources)
        root = Path(resources.enter_context(tempfile.TemporaryDirectory()))
        bucket = f"s3://{seaweed.BUCKET}/copy-{os.getpid()}?endpoint_url={endpoint}"
        places = [f"file:{root}/first", bucket, f"file:{root}/last"]
        with SessionStore.open(places[0]) as store:
            fill(store, options.files, options.seed)
        there = run(places[0], places[1], options.kills, rng, "local disk to SeaweedFS")
        back = run(places[1], places[2], options.kills, rng, "SeaweedFS to local disk")
    for result in (there, back):
        lines = (f"seed {options.seed}, {result}", *result.wrong[:20])
        sys.stdout.write("\n  ".join(lines) + "\n")
    return 0 if there.good and back.good else 1


if __name__ == "__main__":
    sys.exit(main())
