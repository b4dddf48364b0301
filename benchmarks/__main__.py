"""``python -m benchmarks [--only local] [--rounds 5] [--full]`` measures and prints Markdown.

The same goes to ``build/benchmarks.json``, with every round's ratio.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks import (
    concurrency,
    disks,
    growth,
    latency,
    load,
    local_ingest,
    local_saves,
    local_sessions,
    objects_large,
    start,
)
from benchmarks import objects as s3
from benchmarks.disks import Disk
from benchmarks.harness import Figure, Result, measure
from benchmarks.report import as_json, machine, markdown

Found = Iterator[Result | Figure]


def far_away(rounds: int, *, full: bool) -> Found:
    """Round trips of an operation on a bucket across a network."""
    with latency.serving(https=False) as endpoint:
        for milliseconds in (20, 50, 100) if full else (50,):
            yield from latency.figures(endpoint, milliseconds, rounds if full else 3)


def saves(rounds: int, *, full: bool) -> Found:  # noqa: ARG001 - as the other parts
    """First writes and duplicates."""
    for disk in _disks():
        yield from measure(local_saves.rows(disk), max(rounds, 9))


def many(rounds: int, *, full: bool) -> Found:
    """Ten thousand files of 100 KB."""
    for disk in _disks():
        yield from measure(local_saves.many(disk, 10_000 if full else 2_000), rounds)


def ingest(rounds: int, *, full: bool) -> Found:
    """A gibibyte, its memory and its event loop."""
    for disk in _disks():
        file = local_ingest.source(disk.path / "source", (1 << 30) if full else 256 << 20)
        yield from measure(local_ingest.rows(disk, file), rounds)
        yield local_ingest.memory(disk, file)
        yield from local_ingest.stalls(disk, file, rounds)


def sessions(rounds: int, *, full: bool) -> Found:
    """Drops, sweeps and opening."""
    for disk in _disks():
        yield from measure(local_sessions.drops(disk), rounds)
    files = 1_000_000 if full else 100_000
    with disks.memory() as disk, local_sessions.grown(disk, files) as root:
        yield from local_sessions.sweeps(root, files, disk, rounds, goals=full)


def objects(rounds: int, *, full: bool) -> Found:
    """S3: CPU beside the bare calls, operations a second, listing, large files."""
    with disks.memory() as disk:
        file = local_ingest.source(disk.path / "large", 512 << 20)
        with s3.serving(disk.path) as endpoint:
            for engine in s3.GOALS:
                with s3.bench(endpoint, engine, f"{engine}/") as bench:
                    yield from measure(s3.operations(bench, 100), max(rounds, 9))
                    yield from measure(s3.rates(bench, 600), rounds)
                    yield from s3.listing(bench, 10_000 if full else 3_000, rounds)
            with s3.bench(endpoint, "auto", "auto/") as bench:
                yield from measure(s3.rates(bench, 600), rounds)
            yield from objects_large.figures(endpoint, file, 5 if full else 3)


def many_at_once(rounds: int, *, full: bool) -> Found:  # noqa: ARG001 - as the other parts
    """Threads and processes."""
    for disk in _disks():
        yield from concurrency.threads(disk)
        yield from concurrency.processes(disk)


def starting(rounds: int, *, full: bool) -> Found:  # noqa: ARG001 - as the other parts
    """Loading the package and opening a store."""
    with disks.memory() as disk:
        yield from measure(start.rows(disk), max(rounds, 9))


def growing(rounds: int, *, full: bool) -> Found:
    """Fitted exponents."""
    sizes = [10_000, 100_000, 1_000_000] if full else [1_000, 10_000, 100_000]
    with disks.memory() as disk:
        yield from growth.local(disk, sizes, rounds)
        yield from growth.one_session(disk, [100, 1_000, 10_000, 100_000], rounds)
        yield from growth.memory(sizes, rounds)
        yield from growth.listings([1_000_000, 4_000_000] if full else [1_000_000])
        if full:
            with s3.serving(disk.path) as endpoint, ExitStack() as opened:
                benches = [opened.enter_context(s3.bench(endpoint, it)) for it in s3.GOALS]
                yield from growth.objects(benches, [10_000, 100_000], 3)


def visitors(rounds: int, *, full: bool) -> Found:  # noqa: ARG001 - as the other parts
    """Visitors of an attached app, at once."""
    yield from load.figures(200 if full else 50)


PARTS: dict[str, Callable[..., Found]] = {
    "latency": far_away, "saves": saves, "many": many, "ingest": ingest, "sessions": sessions,
    "objects": objects, "concurrency": many_at_once, "growth": growing, "start": starting,
    "load": visitors,
}  # fmt: skip


def _disks() -> Iterator[Disk]:
    """Each of the file systems, one after the other."""
    for make in (disks.memory, disks.journalled):
        with make() as disk:
            yield disk


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--full", action="store_true", help="the sizes and parts that take long")
    parser.add_argument("--json", type=Path, default=Path("build/benchmarks.json"))
    asked = parser.parse_args()
    found: list[Result | Figure] = []
    for name in asked.only:
        found += PARTS[name](asked.rounds, full=asked.full)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(as_json(found, {"machine": machine(), "rounds": asked.rounds}))
    sys.stdout.write(f"{markdown(found)}\nMedians of {asked.rounds} rounds; {machine()}.\n")


if __name__ == "__main__":
    main()
