"""Dropping, sweeping and opening: what must not depend on what else the store holds."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from benchmarks import peers
from benchmarks.disks import Disk
from benchmarks.harness import OURS, Batch, Figure, Row, Run, median_cost
from benchmarks.local_saves import unlike
from sessionstore import SessionStore
from sessionstore.backend import Reference
from sessionstore.backends.local.journal import encode
from sessionstore.clock import EPOCH
from sessionstore.names import session_key

FILES = 100
"""Files of one session."""

DROPS = 20
"""Sessions dropped in one batch."""


def drops(disk: Disk) -> list[Row]:
    """Drop sessions of 100 files of 100 KB, beside rm -r and what peers have for it."""
    group = f"Dropping a session of {FILES} files of 100 KB, {disk.name}"
    sides = {OURS: _our_drops(disk)}
    plain = {"rm -r (shutil.rmtree)": _removals(disk)}
    removed = (
        sides
        | plain
        | {
            "bare unlink(2) of both names": _unlinks(disk, look=False),
            "the same, after a look at each file's links": _unlinks(disk, look=True),
        }
    )
    evicted = sides | {peers.name("diskcache", "evict"): _evictions(disk)} | plain
    return [
        Row(group, "drop", removed, 1.3, DROPS),
        Row(group, "drop, beside a cache with tags", evicted, 0.5, DROPS),
    ]


def _filled(save: peers.Save) -> list[str]:
    """Sessions of 100 files, each file of its own content."""
    names = [f"visitor-{next(_visitors)}" for _ in range(DROPS)]
    contents = unlike(100 << 10)
    for session in names:
        for number in range(FILES):
            data = next(_distinct) + next(contents)[8:]
            save(session, f"{number}.bin", data)
    return names


_visitors = itertools.count()
_distinct = (number.to_bytes(8, "little") for number in itertools.count())


def _our_drops(disk: Disk) -> Batch:
    store = disk.opened.enter_context(SessionStore.open(disk.fresh()))

    def prepare() -> Run:
        names = _filled(lambda session, name, data: store.session(session).put(name, data))

        def run() -> None:
            for name in names:
                store.session(name).drop()

        return run

    return prepare


def _removals(disk: Disk) -> Batch:
    folder = disk.fresh()
    save = peers.raw_save(folder)

    def prepare() -> Run:
        names = _filled(save)

        def run() -> None:
            for name in names:
                shutil.rmtree(folder / name)

        return run

    return prepare


def _unlinks(disk: Disk, *, look: bool) -> Batch:
    """The floor of dropping what is kept once: a file has two names."""
    folder = disk.fresh()
    names: list[str] = []

    def save(session: str, name: str, data: bytes) -> None:
        raw(session, name, data)
        blob = f"{len(names)}"
        os.link(f"{folder}/{session}/{name}", f"{folder}/blobs/{blob}")
        names.append(blob)

    raw = peers.raw_save(folder)
    (folder / "blobs").mkdir(parents=True)

    def prepare() -> Run:
        names.clear()
        sessions = _filled(save)

        def run() -> None:
            blobs = os.open(folder / "blobs", os.O_RDONLY)
            left = iter(names)
            for session in sessions:
                files = os.open(folder / session, os.O_RDONLY)
                for number in range(FILES):
                    file = f"{number}.bin"
                    if look:
                        os.stat(file, dir_fd=files, follow_symlinks=False)
                    os.unlink(next(left), dir_fd=blobs)
                    os.unlink(file, dir_fd=files)
                os.close(files)
                os.rmdir(folder / session)
            os.close(blobs)

        return run

    return prepare


def _evictions(disk: Disk) -> Batch:
    cache = peers.diskcache(disk.fresh())

    def prepare() -> Run:
        names = _filled(peers.diskcache_save(cache))

        def run() -> None:
            for name in names:
                cache.evict(name)

        return run

    return prepare


# Large stores


@contextmanager
def grown(disk: Disk, files: int) -> Iterator[Path]:
    """A store of so many small files, all different, ``FILES`` to a session; gone afterwards."""
    root = disk.fresh()
    build(root, files)
    try:
        yield root
    finally:
        shutil.rmtree(root)


def build(root: Path, files: int) -> None:
    """Write a store as saves would leave it, but without going through them one by one.

    In as many processes as there are processors.
    """
    with SessionStore.open(root) as store:  # the layout is a save's own
        store.session("visitor-0").put("0.bin", b"first")
        store.session("visitor-0").drop()
    for fan in range(256):
        (root / "blobs" / f"{fan:02x}").mkdir(exist_ok=True)
    sessions = range(files // FILES)
    workers = os.cpu_count() or 1
    shares = [sessions[at::workers] for at in range(workers)]
    pids = [_forked(partial(_sessions, root, share)) for share in shares]
    for pid in pids:
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            raise RuntimeError("A process that fills the store failed.")


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


def _sessions(root: Path, numbers: range) -> None:
    now = datetime.now(UTC)
    blobs = {fan: f"{root}/blobs/{fan}/" for fan in os.listdir(root / "blobs")}
    for number in numbers:
        key = session_key(f"visitor-{number}", None)
        folder = f"{root}/sessions/{key.sid}"
        os.makedirs(f"{folder}/files")
        Path(folder, "id").write_text(f'{{"id": "{key.id}", "owner": null}}')
        Path(folder, "seen").touch()
        lines = [_file(folder, blobs, number * FILES + each, now) for each in range(FILES)]
        Path(folder, "journal").write_bytes(b"".join(lines))


def _file(folder: str, blobs: dict[str, str], number: int, now: datetime) -> bytes:
    data = b"%d" % number
    digest = hashlib.sha256(data).hexdigest()
    name = f"{number}.bin"
    fd = os.open(f"{folder}/files/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    try:
        os.write(fd, data)
        there = os.fstat(fd)
    finally:
        os.close(fd)
    os.link(f"{folder}/files/{name}", f"{blobs[digest[:2]]}{digest}")
    token = f"{there.st_ino}.{there.st_mtime_ns}"
    return encode(name, Reference(name, len(data), digest, max(now, EPOCH), None, token))


def sweeps(root: Path, files: int, disk: Disk, rounds: int, *, goals: bool) -> list[Figure]:
    """Nothing old: a sweep of the whole store, and opening it. ``goals`` are for a million."""
    group = f"A store of {files:,} files, {disk.name}"
    known = min(files, 100_000)
    gradio = median_cost(_gradio_sweep(disk, known), rounds).cpu * files / known
    others = {f"{peers.name('gradio', 'sweep')}, by {known:,} files": gradio}
    with SessionStore.open(root) as store:
        sweep = median_cost(lambda: store.sweep, rounds).cpu
    opened = median_cost(lambda: lambda: SessionStore.open(root).close(), rounds).cpu * 1000
    return [
        Figure(group, "sweep, nothing old, CPU", sweep, "s", 0.15 if goals else None, "", others),
        Figure(group, "open and close, CPU", opened, "ms", 5 if goals else None),
    ]


def _gradio_sweep(disk: Disk, files: int) -> Batch:
    cache = disk.fresh()
    save = peers.gradio_save(cache)
    paths = [str(save("", "f.bin", b"%d" % number)) for number in range(files)]
    run = peers.gradio_sweep(paths, cache)
    return lambda: run
