"""Saving on a local disk: bytes small and large, first and again, and many of them."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import peers
from benchmarks.disks import Disk
from benchmarks.harness import OURS, Batch, Row, Run
from sessionstore import SessionStore

SESSIONS = 50
"""How many visitors the saves are spread over."""

# On a file system in memory creating a file is so cheap that hashing decides, and all sides hash.
FIRST = {False: {1: 0.6, 100: 0.8}, True: {1: 0.75, 100: 0.9}}
AGAIN = {False: {1: 0.25, 100: 0.4}, True: {1: 0.3, 100: 0.5}}
BLAKE3 = 0.65

FLOOR = "digest and the least system calls"
CALLS = "digest and the system calls it makes"


def rows(disk: Disk) -> list[Row]:
    """First writes and duplicates of 1 KB and 100 KB, beside Gradio and the floor."""
    made: list[Row] = []
    gradio = peers.name("gradio", "save_bytes_to_cache")
    for kilobytes in (1, 100):
        count = 1000 if kilobytes == 1 else 300
        size = kilobytes << 10
        for what, reach, source in (
            ("first write", FIRST, unlike(size)),
            ("duplicate", AGAIN, itertools.repeat(os.urandom(size))),
        ):
            sides = {
                OURS: ours(disk, source, count, "sha256"),
                gradio: peer(peers.gradio_save, disk, source, count),
                CALLS: peer(peers.own_calls_save, disk, source, count),
                FLOOR: peer(peers.floor_save, disk, source, count),
            }
            goal = reach[disk.in_memory][kilobytes]
            group = f"Saving bytes, {disk.name}"
            made.append(Row(group, f"{what}, {kilobytes} KB", sides, goal, count))
            sides = {OURS: ours(disk, source, count, "blake3"), gradio: sides[gradio]}
            goal_ = None if kilobytes == 1 or what == "duplicate" else BLAKE3
            title = f"{what}, {kilobytes} KB, blake3"
            made.append(Row(group, title, sides, goal_, count))
    return made


def ours(disk: Disk, source: Iterator[bytes], count: int, digest: str) -> Batch:
    """``add`` into many sessions of one store, which lives as long as the benchmark."""
    store = disk.opened.enter_context(SessionStore.open(disk.fresh(), digest=digest))
    visitors = itertools.cycle([store.session(f"visitor-{each}") for each in range(SESSIONS)])

    def prepare() -> Run:
        data = list(itertools.islice(source, count))

        def run() -> None:
            for each in data:
                next(visitors).add(each, suffix=".bin")

        return run

    return prepare


def peer(
    make: Callable[[Path], peers.Save], disk: Disk, source: Iterator[bytes], count: int
) -> Batch:
    """The same by a peer; Gradio is given one name, so that a duplicate is one for it too."""
    save = make(disk.fresh())
    names = itertools.count()
    fixed = make is peers.gradio_save

    def prepare() -> Run:
        data = list(itertools.islice(source, count))

        def run() -> None:
            for each in data:
                save("visitor", "f.bin" if fixed else f"{next(names)}.bin", each)

        return run

    return prepare


# Many files

COUNT, SIZE = 10_000, 100 << 10


def many(disk: Disk, count: int = COUNT) -> list[Row]:
    """``count`` files of 100 KB in sessions of 100, every second one a duplicate."""
    group = f"{count} files of 100 KB, half of them duplicates, {disk.name}"
    sides = {OURS: _many(disk, _our_saves, count)}
    cache = sides | {
        peers.name("diskcache", ""): _many(disk, _diskcache, count),
        FLOOR: _many(disk, _floor, count),
    }
    django = sides | {
        peers.name("django", "FileSystemStorage"): _many(disk, _django, count),
        peers.name("cachelib", "FileSystemCache"): _many(disk, _cachelib, count),
        "open, write and close": _many(disk, _raw, count),
    }
    blake3 = {OURS: _many(disk, _our_blake3, count), **dict(list(django.items())[1:2])}
    return [
        Row(group, "save all", cache, 0.35, count),
        Row(group, "save all, beside what makes no digest", django, 1.1, count),
        Row(group, "the same, blake3", blake3, None, count),
    ]


Maker = Callable[[Path], tuple[peers.Save, Callable[[], object]]]


def _many(disk: Disk, make: Maker, count: int) -> Batch:
    rest = os.urandom(SIZE - 8)

    def prepare() -> Run:
        folder = disk.fresh()
        save, close = make(folder)

        def run() -> None:
            for number in range(count):
                data = (number // 2).to_bytes(8, "big") + rest
                save(f"visitor-{number // 100}", f"{number}.bin", data)
            close()

        _once_gone(folder)
        return run

    return prepare


_folders: list[Path] = []


def _once_gone(folder: Path) -> None:
    """Remove what the batch before left: a disk has room for one at a time."""
    while _folders:
        shutil.rmtree(_folders.pop(), ignore_errors=True)
    _folders.append(folder)


def _our_saves(folder: Path, digest: str = "sha256") -> tuple[peers.Save, Callable[[], object]]:
    store = SessionStore.open(folder, digest=digest)
    return lambda session, name, data: store.session(session).put(name, data), store.close


def _our_blake3(folder: Path) -> tuple[peers.Save, Callable[[], object]]:
    return _our_saves(folder, "blake3")


def _floor(folder: Path) -> tuple[peers.Save, Callable[[], object]]:
    return peers.floor_save(folder), lambda: None


def _diskcache(folder: Path) -> tuple[peers.Save, Callable[[], object]]:
    cache = peers.diskcache(folder)
    return peers.diskcache_save(cache), cache.close


def _django(folder: Path) -> tuple[peers.Save, Callable[[], object]]:
    return peers.django_save(folder), lambda: None


def _cachelib(folder: Path) -> tuple[peers.Save, Callable[[], object]]:
    return peers.cachelib_save(folder), lambda: None


def _raw(folder: Path) -> tuple[peers.Save, Callable[[], object]]:
    return peers.raw_save(folder), lambda: None


def unlike(size: int) -> Iterator[bytes]:
    """Random bytes without end, no two alike."""
    rest = os.urandom(size - 8)
    return (number.to_bytes(8, "big") + rest for number in itertools.count())
