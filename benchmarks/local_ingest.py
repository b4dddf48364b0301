"""A file of a gibibyte: the time, the memory, and how long an event loop stands still meanwhile."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from benchmarks import peers
from benchmarks.disks import Disk
from benchmarks.harness import OURS, Batch, Figure, Row, Run
from sessionstore import SessionStore
from sessionstore.content import CHUNK

SIZE = 1 << 30


def source(path: Path, size: int = SIZE) -> Path:
    """A file of random bytes."""
    with open(path, "wb") as file:
        file.writelines(os.urandom(1 << 20) for _ in range(size >> 20))
    return path


def rows(disk: Disk, file: Path) -> list[Row]:
    """Save the file, beside Gradio, which reads it twice; the bytes go again after each round."""
    group = f"A file of {file.stat().st_size >> 20} MiB, {disk.name}"
    gradio = {peers.name("gradio", "save_file_to_cache"): _gradio(disk, file)}
    sides = {OURS: _ours(disk, file, "sha256"), **gradio,
             "digest and bare system calls": _floor(disk, file),
             "cp (shutil.copyfile), no digest": _copies(disk, file)}  # fmt: skip
    blake3 = {OURS: _ours(disk, file, "blake3"), **gradio}
    size = file.stat().st_size
    return [
        Row(group, "save a path", sides, 0.75, size, unit="byte"),
        Row(group, "save a path, blake3", blake3, None, size, unit="byte"),
    ]


def _settled(run: Run) -> Run:
    """Once what the others wrote is on the disk, which would else take time from the next one."""
    os.sync()
    return run


def _ours(disk: Disk, file: Path, digest: str) -> Batch:
    store = disk.opened.enter_context(SessionStore.open(disk.fresh(), digest=digest))

    def prepare() -> Run:
        store.session("visitor").drop()
        return _settled(lambda: store.session("visitor").put("big", file))

    return prepare


def _gradio(disk: Disk, file: Path) -> Batch:
    save = peers.gradio_save_file(disk.fresh())
    saved: list[str] = []

    def prepare() -> Run:
        for each in saved:
            with suppress(FileNotFoundError):
                os.unlink(each)
        return _settled(lambda: saved.append(str(save(file))))

    return prepare


def _floor(disk: Disk, file: Path) -> Batch:
    """One pass: each piece read, digested and written, to a file that has no name."""
    folder = disk.fresh()
    folder.mkdir()
    kept: list[int] = []

    def run() -> None:
        digest, buffer = hashlib.sha256(), memoryview(bytearray(CHUNK))
        kept.append(os.open(folder, os.O_TMPFILE | os.O_WRONLY))
        with open(file, "rb", buffering=0) as source:
            while count := source.readinto(buffer):
                digest.update(buffer[:count])
                os.write(kept[-1], buffer[:count])

    def prepare() -> Run:
        while kept:
            os.close(kept.pop())
        return _settled(run)

    disk.opened.callback(prepare)
    return prepare


def _copies(disk: Disk, file: Path) -> Batch:
    import shutil

    copy = disk.fresh()

    def prepare() -> Run:
        with suppress(FileNotFoundError):
            copy.unlink()
        return _settled(lambda: shutil.copyfile(file, copy))

    return prepare


_MEMORY = """
import sys, pathlib
from sessionstore import SessionStore

def peak():  # KiB; getrusage's would count the parent's from before exec(2)
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0])

with SessionStore.open(sys.argv[1]) as store:
    session = store.session("one")
    session.put("warm", [bytes(1 << 20)] * 4)
    session.put("warm", pathlib.Path(sys.argv[3]))
    before = peak()
    session.put("big", pathlib.Path(sys.argv[2]))
    print(peak() - before)
    session.drop()
"""


def memory(disk: Disk, file: Path) -> Figure:
    """How much more memory a process takes for it than for a file of 4 MiB."""
    small = source(disk.fresh(), 4 << 20)
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(disk.fresh()), str(file), str(small)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return Figure("Memory and event loop", f"a file of {file.stat().st_size >> 20} MiB: more RSS",
                  int(done.stdout) / 1024, "MiB", 4)  # fmt: skip


def stalls(disk: Disk, file: Path, rounds: int) -> list[Figure]:
    """The longest time that an event loop stands still while saves run in its threads."""
    store = disk.opened.enter_context(SessionStore.open(disk.fresh()))
    numbers = itertools.count()

    def contents() -> list[bytes]:
        rest = os.urandom((1 << 20) - 8)
        return [next(numbers).to_bytes(8, "big") + rest for _ in range(100)]

    async def one(_: list[bytes]) -> None:
        await store.session("big").put_async(f"{next(numbers)}", file)

    async def many(contents: list[bytes]) -> None:
        saves = [store.session(f"{at}").put_async("a", it) for at, it in enumerate(contents)]
        await asyncio.gather(*saves)

    async def nothing(_: list[bytes]) -> None:
        await asyncio.sleep(0.1)

    async def hashes(contents: list[bytes]) -> None:
        await asyncio.gather(*(asyncio.to_thread(hashlib.sha256, it) for it in contents))

    group = f"An event loop's longest stall, {disk.name}"
    size = f"put_async of {file.stat().st_size >> 20} MiB"
    bare = {"hashlib.sha256 alone in as many threads": longest_stall(hashes, contents, rounds),
            "an idle loop": longest_stall(nothing, contents, rounds)}  # fmt: skip
    found = [
        Figure(group, size, longest_stall(one, contents, 3), "ms", 10, "median of three"),
        Figure(group, "100 put_async of 1 MiB at once", longest_stall(many, contents, rounds),
               "ms", 10, "median of the rounds", bare),
    ]  # fmt: skip
    store.session("big").drop()
    return found


Work = Callable[[list[bytes]], Awaitable[None]]


def longest_stall(work: Work, contents: Callable[[], list[bytes]], rounds: int) -> float:
    """Milliseconds by which a timer of the loop came late at most; the median of the rounds.

    What the program has loaded is kept out of the garbage collector's way meanwhile (gc.freeze):
    its pauses hold every thread, and are as long as the program is large.
    """

    async def once(given: list[bytes]) -> float:
        late, working = 0.0, True

        async def watch() -> None:
            nonlocal late
            while working:
                due = time.perf_counter() + 0.001
                await asyncio.sleep(0.001)
                late = max(late, time.perf_counter() - due)

        watching = asyncio.create_task(watch())
        await work(given)
        working = False
        await watching
        return late * 1000

    gc.collect()
    gc.freeze()
    try:
        found = [asyncio.run(once(contents())) for _ in range(rounds + 1)][1:]
    finally:
        gc.unfreeze()
    return statistics.median(found)
