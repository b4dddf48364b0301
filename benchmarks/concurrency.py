"""Many at once: threads of one process, and processes on one store."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import MappingProxyType

from benchmarks import peers
from benchmarks.disks import Disk
from benchmarks.harness import Figure
from sessionstore import SessionStore

SAVES = 4000
_numbers = itertools.count()


def threads(disk: Disk, counts: tuple[int, ...] = (1, 4, 16, 64)) -> Iterator[Figure]:
    """Saves a second by so many threads, each in sessions of its own."""
    save = peers.gradio_save(disk.fresh())
    with SessionStore.open(disk.fresh()) as store:
        speeds = {count: _by_threads(partial(_saves, store), count) for count in counts}
    theirs = _by_threads(partial(_peer_saves, save), counts[-1])
    beside = {f"{peers.name('gradio', 'save_bytes_to_cache')}, {counts[-1]}:": theirs}
    yield _figure(f"threads of one process, {disk.name}", speeds, beside)


def _by_threads(saves: Callable[[int, int], None], count: int) -> float:
    share = SAVES // count
    with ThreadPoolExecutor(count) as pool:
        began = time.perf_counter()
        list(pool.map(partial(saves, share), range(count)))
        return share * count / (time.perf_counter() - began)


def processes(disk: Disk, counts: tuple[int, ...] = (1, 2, 4)) -> Iterator[Figure]:
    """Saves a second by so many processes on one store."""
    root = disk.fresh()
    SessionStore.open(root).close()
    speeds = {}
    for count in counts:
        share = SAVES // count
        began = time.perf_counter()
        pids = [_forked(partial(_in_process, root, share)) for _ in range(count)]
        for pid in pids:
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
                raise RuntimeError("A saving process failed.")
        speeds[count] = share * count / (time.perf_counter() - began)
    yield _figure(f"processes on one store, {disk.name}", speeds)


def _saves(store: SessionStore, count: int, at: int) -> None:
    session = store.session(f"visitor-{os.getpid()}-{at}-{next(_numbers)}")
    rest = os.urandom(1024)
    for number in range(count):
        session.add(rest + number.to_bytes(8, "big"), suffix=".bin")


def _peer_saves(save: peers.Save, count: int, at: int) -> None:
    rest = os.urandom(1024)
    for number in range(count):
        save(f"{at}", "f.bin", rest + at.to_bytes(4, "big") + number.to_bytes(8, "big"))


def _in_process(root: os.PathLike[str], count: int) -> None:
    with SessionStore.open(root) as store:
        _saves(store, count, 0)


def _forked(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except BaseException:
        os._exit(1)
        raise
    os._exit(0)


def _figure(
    what: str, speeds: dict[int, float], beside: Mapping[str, float] = MappingProxyType({})
) -> Figure:
    one, *_, most = speeds
    others = {f"{count}:": speed for count, speed in speeds.items()} | dict(beside)
    gain = speeds[most] / speeds[one]
    note = f"first saves of 1 KB a second, {most} to one"
    return Figure("Many at once", what, gain, "x", None, note, others)
