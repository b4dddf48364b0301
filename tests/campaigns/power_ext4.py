"""Cut the power of a writer on a real ext4 file system: ``power_loss --ext4``."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from sessionstore.backends.local import directory
from tests.campaigns.power_loss import (
    FEW,
    Expected,
    History,
    Tally,
    Ticks,
    Writer,
    few_lines,
    judge,
)

_SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN: from now on nothing comes to the disk."""
_WITHOUT_A_FLUSH = 2
_MEGABYTES = 48
_STEPS = 300


def run_ext4(cuts: int, seed: int) -> Tally:
    """Cut a writer so many times, half of them with ``durable``."""
    tally = Tally()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what is mounted is let go of
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        reason = _prepare(place)
        if reason is not None:
            sys.stdout.write(f"ext4 is not tried: {reason}\n")
            return tally
        for number in range(cuts):
            durable = number % 2 == 0
            tally.count(f"ext4, {'durable' if durable else 'loose'}")
            for each in _cut(place, f"{seed}.{number}", durable=durable, tally=tally):
                tally.wrong.append(f"seed {seed}, cut {number} ({durable=}): {each}")
    return tally


def _prepare(place: Path) -> str | None:
    """Make an empty image; a reason when file systems cannot be made and mounted here."""
    image = place / "empty.img"
    with open(image, "wb") as file:
        file.truncate(_MEGABYTES << 20)
    try:
        _command("mkfs.ext4", "-q", "-F", str(image))
        with _mounted(image, place / "try"):
            pass
    except (OSError, subprocess.CalledProcessError) as error:
        return str(getattr(error, "stderr", None) or error).strip()
    return None


def _command(*words: str) -> None:
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    subprocess.run(
        words, check=True, capture_output=True, text=True, env={**os.environ, "PATH": path}
    )


@contextlib.contextmanager
def _mounted(image: Path, at: Path) -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    # Names come to the disk each second, as they may at any: bytes that are not forced, later.
    _command("mount", "-o", "loop,commit=1", str(image), str(at))
    try:
        yield at
    finally:
        _command("umount", str(at))


def _cut(place: Path, seed: str, *, durable: bool, tally: Tally) -> list[str]:
    """Cut one writer; what is wrong with what it left."""
    rng = random.Random(seed)
    # New names each time: mount(8) takes a loop device again that still has a file of that name.
    image, copy = place / f"live {seed}.img", place / f"copy {seed}.img"
    shutil.copyfile(place / "empty.img", image)
    log = place / "log"
    log.write_bytes(b"")
    with _mounted(image, place / "live") as live:
        pid = os.fork()
        if pid == 0:
            _write(live / "s", log, seed, durable=durable)
        try:
            _wait(log, rng, durable=durable)
            os.kill(pid, signal.SIGSTOP)
            if not os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1]):
                raise RuntimeError((place / "error").read_text())
            secret = _secret(live / "s")
            done = log.stat().st_size
            _shut_down(live)
            shutil.copyfile(image, copy)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    expected = _expected(place, seed, done, durable=durable)
    if expected.secret is not None:
        expected.secret = secret
    must_be = sum(expected.must_be(file) for file in expected.files)
    tally.states["acknowledged steps"] = tally.states.get("acknowledged steps", 0) + done // 2
    tally.states["files sure"] = tally.states.get("files sure", 0) + must_be
    with _mounted(copy, place / "copy") as mounted, _restarted():
        (mounted / "s").mkdir(exist_ok=True)
        wrong = judge(mounted / "s", expected)
    image.unlink()
    copy.unlink()
    return wrong


@contextlib.contextmanager
def _restarted() -> Iterator[None]:
    """Let the machine have started after all that was written until now."""
    booted, directory.BOOTED = directory.BOOTED, time.time_ns()
    try:
        yield
    finally:
        directory.BOOTED = booted


def _wait(log: Path, rng: random.Random, *, durable: bool) -> None:
    """Wait for the moment of the cut: soon with ``durable``, else when names are on the disk."""
    most = rng.randint(0, 2 * _STEPS if durable else 80)
    until = time.monotonic() + 20
    while log.stat().st_size < most and time.monotonic() < until:
        time.sleep(0.001)
    if not durable:
        time.sleep(rng.uniform(0.5, 2.0))


def _write(root: Path, log: Path, seed: str, *, durable: bool) -> None:
    """The writer, in a process of its own."""
    try:
        fd = os.open(log, os.O_WRONLY | os.O_APPEND)
        _work(root, Ticks(fd), seed, durable=durable)
        while True:
            signal.pause()
    except BaseException:  # noqa: BLE001 - it is reported, and the child must not go on
        log.with_name("error").write_text(traceback.format_exc())
    finally:
        os._exit(1)


def _work(root: Path, ticks: Ticks, seed: str, *, durable: bool) -> History:
    history = History(ticks, forced=True)
    with few_lines(FEW[1]):
        writer = Writer(root, history, random.Random(f"work {seed}"), durable=durable)
        writer.work(_STEPS if durable else 40)
    if ticks.log is None:
        writer.close()
    return history


def _expected(place: Path, seed: str, done: int, *, durable: bool) -> Expected:
    """The same work again, elsewhere: it says what the writer did until then."""
    again = place / "again"
    history = _work(again / "s", Ticks(), seed, durable=durable)
    shutil.rmtree(again)
    expected = history.expected(done)
    expected.active.clear()  # the times are those of this second run
    expected.times.clear()
    return expected


def _secret(root: Path) -> bytes | None:
    try:
        return (root / "secret").read_bytes()
    except FileNotFoundError:
        return None


def _shut_down(live: Path) -> None:
    fd = os.open(live, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _WITHOUT_A_FLUSH))
    finally:
        os.close(fd)
