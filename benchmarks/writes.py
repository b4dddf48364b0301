"""Saving bytes on a local disk, beside Gradio's own cache (``save_bytes_to_cache``)."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from gradio.processing_utils import save_bytes_to_cache

from benchmarks.harness import Batch, Row
from sessionstore import SessionStore

SESSIONS = 50
"""How many visitors the saves are spread over."""

Save = Callable[[bytes], object]


class Reach(NamedTuple):
    """The ratios to reach."""

    first: float
    duplicate: float


# On tmpfs creating a file is so cheap that hashing decides, and both sides hash.
REACH = {
    "disk": {1: Reach(0.6, 0.25), 100: Reach(0.8, 0.4)},
    "tmpfs": {1: Reach(0.75, 0.3), 100: Reach(0.9, 0.5)},
}


def rows(store: SessionStore, cache: Path) -> list[Row]:
    """First writes and duplicates of 1 KB and 100 KB."""
    visitors = itertools.cycle([store.session(f"visitor-{each}") for each in range(SESSIONS)])

    def ours(data: bytes) -> None:
        next(visitors).add(data, suffix=".bin")

    def peer(data: bytes) -> None:
        save_bytes_to_cache(data, "f.bin", str(cache))

    made: list[Row] = []
    for kilobytes, reach in REACH["tmpfs" if on_tmpfs(cache.parent) else "disk"].items():
        count = 400 if kilobytes == 1 else 200
        for what, ratio, source in (
            ("first write", reach.first, unlike(kilobytes << 10)),
            ("duplicate", reach.duplicate, itertools.repeat(os.urandom(kilobytes << 10))),
        ):
            mine, theirs = batch(ours, source, count), batch(peer, source, count)
            made.append(Row(f"{what}, {kilobytes} KB", count, mine, theirs, ratio))
    return made


def batch(save: Save, source: Iterator[bytes], count: int) -> Batch:
    """``count`` saves of what the source gives."""

    def prepare() -> Callable[[], None]:
        data = list(itertools.islice(source, count))

        def run() -> None:
            for each in data:
                save(each)

        return run

    return prepare


def unlike(size: int) -> Iterator[bytes]:
    """Random bytes without end, no two alike."""
    rest = os.urandom(size - 8)
    return (number.to_bytes(8, "big") + rest for number in itertools.count())


def on_tmpfs(path: Path) -> bool:
    """Whether the directory is in memory, as far as this system tells."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return False
    above = [mount for mount in mounts if path.resolve().is_relative_to(mount[1])]
    return bool(above) and max(above, key=lambda mount: len(mount[1]))[2] == "tmpfs"
