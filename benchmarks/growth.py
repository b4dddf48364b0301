"""What grows with the size of a store, and how fast: fitted exponents from several sizes.

An exponent of 0 is a cost that does not depend on the size, 1 one in proportion to it.
"""

from __future__ import annotations

import gc
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from benchmarks import local_sessions, peers
from benchmarks.disks import Disk
from benchmarks.harness import Figure, median_cost
from benchmarks.objects import AT_ONCE, Bench
from sessionstore import Session, SessionStore

Sizes = list[int]
PER_SESSION = local_sessions.FILES
BY_NAME = 100
"""Files of a session that are asked for by name."""


def local(disk: Disk, sizes: Sizes, rounds: int) -> Iterator[Figure]:
    """A store on a disk."""
    seen: dict[int, dict[str, float]] = {}
    for files in sizes:
        with local_sessions.grown(disk, files) as root:
            before = _memory()
            seen[files] = {"open and close, ms": _millis(_opening(root), rounds)}
            with SessionStore.open(root) as store:
                seen[files] |= _costs(store, files, rounds)
                store.sweep()
                seen[files]["memory a file, bytes"] = _more_memory(before) / files
    yield from _figures(f"Growth: a store on {disk.name}", seen)


def one_session(disk: Disk, sizes: Sizes, rounds: int) -> Iterator[Figure]:
    """One session of more and more files: what is done by name must not take longer for that."""
    seen: dict[int, dict[str, float]] = {}
    for files in sizes:
        with SessionStore.open(disk.path / f"one-session-{files}") as store:
            session = store.session("one")
            for number in range(files):
                session.put(f"{number}.bin", b"%d" % number)
            names = [f"{number}.bin" for number in range(0, files, files // BY_NAME)]
            seen[files] = _by_name(session, names, rounds)
            session.drop()
    yield from _figures(f"Growth: one session on {disk.name}", seen)
    for what, first in seen[sizes[0]].items():
        name = what.removesuffix(", us")
        ratio = seen[sizes[-1]][what] / first
        yield Figure(f"Growth: one session on {disk.name}", f"{name}: ratio", ratio, "times", 3,
                     f"{sizes[-1]:,} files to {sizes[0]:,}", {})  # fmt: skip


def _by_name(session: Session, names: list[str], rounds: int) -> dict[str, float]:
    """CPU microseconds of each operation, of ``names`` one after the other."""

    def each(operation: Callable[[str], object]) -> Callable[[], Callable[[], object]]:
        return lambda: lambda: [operation(name) for name in names]

    def deletion() -> Callable[[], object]:
        for number, name in enumerate(names):
            session.put(name, b"again %d" % number)
        return lambda: session.delete(*names)

    def micros(batch: Callable[[], Callable[[], object]]) -> float:
        return _millis(batch, rounds) * 1000 / len(names)

    each(session.get)()()  # a process looks up a few times before it makes a table
    return {
        "get, us": micros(each(session.get)),
        "read by name, us": micros(each(session.read)),
        "replace, us": micros(each(lambda name: session.put(name, os.urandom(16)))),
        "delete, each of many names, us": micros(deletion),
    }


def memory(sizes: Sizes, rounds: int) -> Iterator[Figure]:
    """A store in memory. Content is four bytes a file: the rest is what a file takes besides."""
    seen: dict[int, dict[str, float]] = {}
    for files in sizes:
        gc.collect()
        before = _memory()
        with SessionStore.open("memory://") as store:
            for number in range(files):
                session = store.session(f"visitor-{number // PER_SESSION}")
                session.put(f"{number % PER_SESSION}.bin", number.to_bytes(4, "big"))
            taken = _more_memory(before) / files
            seen[files] = _costs(store, files, rounds) | {"memory a file, bytes": taken}
    yield from _figures("Growth: a store in memory", seen)


def objects(benches: list[Bench], sizes: Sizes, rounds: int) -> Iterator[Figure]:
    """A store in a bucket by several engines, filled by the last of them, 32 saves at once."""
    seen: dict[str, dict[int, dict[str, float]]] = {bench.engine: {} for bench in benches}
    there = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for files in sizes:
            store = benches[-1].store
            list(pool.map(lambda number: _add(store, number), range(there, files)))  # noqa: B023 - done here
            there = files
            for bench in benches:
                opening = {"open and close, ms": _millis(bench.opening, max(rounds, 9))}
                seen[bench.engine][files] = opening | _costs(bench.store, files, rounds)
    for engine, costs in seen.items():
        yield from _figures(f"Growth: a bucket on SeaweedFS by {peers.name(engine, '')}", costs)


def listings(sizes: Sizes) -> Iterator[Figure]:
    """The sweep of a bucket, on listings that are made up: ``benchmarks.sweeps``."""
    for files in sizes:
        # In a new process: in this one and its forks some memory is left over, to be used again.
        told = subprocess.run(
            [sys.executable, "-m", "benchmarks.sweeps", "--files", f"{files}"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        _, _, lists, _, cpu, a_key, memory, _ = told.stdout.strip().splitlines()[-1].split("|")
        others = {"LIST": _number(lists), "CPU, s": _number(cpu), "CPU a key, us": _number(a_key)}
        yield Figure(
            "Growth: the sweep of a bucket whose listings are made up", f"{files:,} files: memory",
            _number(memory), "MiB", 128, "", others,
        )  # fmt: skip


def _number(cell: str) -> float:
    return float(cell.split(maxsplit=1)[0].replace(",", ""))


def _add(store: SessionStore, number: int) -> None:
    store.session(f"visitor-{number // PER_SESSION}").add(b"%d" % number)


def _costs(store: SessionStore, files: int, rounds: int) -> dict[str, float]:
    """CPU milliseconds of what there is to do, the session being one of many."""
    last = files // PER_SESSION - 1

    def drop() -> Callable[[], object]:
        session = store.session("one-more")
        for number in range(PER_SESSION):
            session.put(f"{number}.bin", b"more %d" % number)
        return session.drop

    one = store.session(f"visitor-{last}")
    return {
        "save a file, ms": _millis(lambda: lambda: one.put("new.bin", os.urandom(16)), rounds),
        "list a session of 100, ms": _millis(lambda: one.files, rounds),
        "drop a session of 100, ms": _millis(drop, rounds),
        "list all sessions, ms": _millis(lambda: lambda: list(store.backend.sessions()), rounds),
        "sweep, nothing old, ms": _millis(lambda: store.sweep, rounds),
    }


def _opening(root: os.PathLike[str]) -> Callable[[], Callable[[], object]]:
    return lambda: lambda: SessionStore.open(root).close()


def _millis(batch: Callable[[], Callable[[], object]], rounds: int) -> float:
    return median_cost(batch, rounds).cpu * 1000


def _figures(group: str, seen: dict[int, dict[str, float]]) -> Iterator[Figure]:
    """A figure for each cost at the largest size, with the others beside it and the exponent."""
    sizes = list(seen)
    for what in seen[sizes[0]]:
        values = [seen[size][what] for size in sizes]
        name, _, unit = what.rpartition(", ")
        others = {
            f"{size:,} files:": value for size, value in zip(sizes[:-1], values, strict=False)
        }
        note = f"{sizes[-1]:,} files; exponent {exponent(sizes, values):.2f}"
        yield Figure(group, name, values[-1], unit, None, note, others)


def exponent(sizes: Sizes, values: list[float]) -> float:
    """The slope of the straight line through the logarithms (least squares)."""
    x = [math.log(size) for size in sizes]
    y = [math.log(max(value, 1e-6)) for value in values]
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True))
    return above / sum((a - middle_x) ** 2 for a in x)


def _memory() -> int:
    """Bytes of memory this process has now (proc(5))."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _more_memory(before: int) -> int:
    """How much more it has now; a page at least, which is what can be told apart."""
    return max(_memory() - before, os.sysconf("SC_PAGE_SIZE"))
