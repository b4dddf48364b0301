"""Visitors who come and go for half an hour, and a look at what grows meanwhile.

    python -m tests.campaigns.soak --minutes 30 [--kinds local boto3 obstore] [--url URL]

Each kind of store has a process of its own: a local disk, and a SeaweedFS that is started for this
with each of the two S3 engines. Threads send visitors at a fixed pace, most by the library and some
over HTTP to an attached Gradio app, with heartbeats and uploads. They use every verb, and leave by
drop, by end, by coming back and ending, or without a word. A sweeper runs, a second store object is
opened and closed now and then, and the store is verified.

After each third of the run no visitor comes until the times of all are over. Then memory, Python
objects, descriptors, sockets, threads, timers, sessions, and the files and folders in the store, in
TMPDIR and in Gradio's cache are counted. So a count does not depend on the number of visitors who
are there at a time, which varies with the load of the machine. More after the last third than after
the second is growth if it is more than ``ALLOWED``; ``LEFT`` is how much more may be there than
before the first visitor. A third of half an hour has hundreds or thousands of visitors, so that
anything that each of them leaves shows. Times that are hours in production (the lease of local
copies, the six hours of an unused upload) are seconds here, and bounds of thousands of remembered
visitors are hundreds.

Exit status 1 says that something grew, or that a visitor was served wrongly. ``--leak`` makes every
visitor leave something behind, to see that it is found. Needs Linux's /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from sessionstore import Limits, Retention, SessionStore, _threads
from sessionstore import limits as limits_module
from sessionstore.adapters.gradio import (
    attach,
    attached_store,
    paths,
    presence,
)
from sessionstore.adapters.gradio import (
    cache as gradio_local,
)
from sessionstore.adapters.gradio import (
    cache_files as gradio_files,
)
from sessionstore.backends.local import LocalBackend
from sessionstore.backends.objects import ObjectBackend
from tests.campaigns.visitors import LEAKS, SECRET, by_gradio, by_library, demo, reopened
from tests.support import gradio_rig, seaweed

RETENTION: Final = Retention(idle=timedelta(seconds=60), linger=timedelta(seconds=2))
LIMITS: Final = Limits(max_session=100_000_000, max_session_files=1000)
SWEEP_EVERY: Final = timedelta(seconds=5)
REOPEN_EVERY: Final = 50
"""Visitors of the library between two second store objects."""

VERIFY_EVERY: Final = 120.0
"""Seconds between two inspections of the whole store."""

PACE: Final = {"local": (8.0, 1.0), "boto3": (1.5, 0.7), "obstore": (1.5, 0.7)}
"""Visitors a second, by the library and by Gradio: what half a core can do, so that others may."""

REMEMBERED: Final = 200


class Counts(NamedTuple):
    """What there is of each thing at a moment."""

    descriptors: int
    sockets: int
    threads: int
    timers: int
    sessions: int
    stored: int
    """Files and folders below the store's root, or keys of the bucket and unfinished uploads."""
    temporary: int
    """Files and folders below TMPDIR."""
    cache: int
    """Files and folders below GRADIO_TEMP_DIR."""
    objects: int = 0
    """Python's."""
    memory: int = 0
    """Resident, in KiB."""


NOTHING: Final = Counts(*[0] * len(Counts._fields))

ALLOWED: Final = Counts(
    descriptors=10, sockets=6, threads=3, timers=0, sessions=1, stored=30, temporary=1, cache=30,
    objects=6_000, memory=6_000,
)  # fmt: skip
"""How much more than after the second third may be there after the last one. For Gradio's cache it
is as in ``LEFT``: a count begins as soon as no more is left, however many leases are not over."""

LEFT: Final = Counts(
    descriptors=300, sockets=70, threads=16, timers=0, sessions=2, stored=300, temporary=1,
    cache=30, objects=1 << 40, memory=1 << 40,
)  # fmt: skip
"""How much more than before the first visitor may be there after the last. Descriptors are folders
that are kept open, at most 256 of blobs and some of sessions; ``stored``, the 256 folders of blobs;
sockets, the connections of the library's 64 threads that wait; threads, those of other pools.
Python's memory is not given back; ``ALLOWED`` judges it."""

PATIENCE: Final = 420.0
"""Seconds until every time is over: ``idle``, ``grace`` twice, and the lease of local copies once
for each level of their folders, of which the innermost goes first."""


def descriptors() -> list[str]:
    """The open files of this process."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return found


def entries(directory: str | os.PathLike[str]) -> int:
    """Files and folders below a directory."""
    return sum(len(folders) + len(files) for _, folders, files in os.walk(directory))


def stored(store: SessionStore) -> int:
    """What a store has in its place, its own few files included."""
    backend = store.backend
    if isinstance(backend, LocalBackend):
        return entries(Path(backend._where))
    if isinstance(backend, ObjectBackend):
        keys = sum(1 for page in backend.client.list("") for _ in page.entries)
        return keys + sum(1 for _ in backend.client.uploads(""))
    return 0


def count(store: SessionStore) -> Counts:
    """Count all but what only a long run tells."""
    opened = descriptors()
    return Counts(
        descriptors=len(opened),
        sockets=sum(it.startswith("socket:") for it in opened),
        threads=threading.active_count(),
        timers=len(store._timers._due),
        sessions=sum(1 for _ in store.backend.sessions()),
        stored=stored(store),
        temporary=entries(tempfile.gettempdir()),
        cache=entries(os.environ["GRADIO_TEMP_DIR"]) if "GRADIO_TEMP_DIR" in os.environ else 0,
    )


def sample(store: SessionStore) -> Counts:
    """Count everything, after what Python and the C library can do without has been let go."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # glibc's alone: gives back what threads have freed
        ctypes.CDLL(None).malloc_trim(0)
    objects = len(gc.get_objects())
    status = Path("/proc/self/status").read_text()
    memory = int(status.partition("VmRSS:")[2].split()[0])
    return count(store)._replace(objects=objects, memory=memory)


def fill_pools() -> None:
    """Start all threads of the library's pools, which grow with the load and never shrink."""
    for threads, name in (
        (_threads.THREADS, "sessionstore-async"),
        (_threads.WAITS, "sessionstore-network"),
        (_threads.WAITS, "sessionstore-events"),
    ):
        pool, together = _threads._executor(threads, name), threading.Barrier(threads)
        for each in [pool.submit(together.wait) for _ in range(threads)]:
            each.result()
    while len(_threads._idle) < len(_threads._helpers):  # one that makes a call would be missing
        time.sleep(0.01)
    everyone = threading.Barrier(_threads.WAITS + 1)
    _threads.run_together([everyone.wait] * (_threads.WAITS + 1), _threads.WAITS + 1)


def grown(before: Counts, after: Counts, most: Counts) -> list[str]:
    """What became more by more than ``most``."""
    rows = zip(Counts._fields, before, after, most, strict=True)
    return [name for name, old, new, more in rows if new - old > more]


@dataclass
class Run:
    """What one run saw."""

    kind: str
    minutes: float = 0
    visitors: dict[str, int] = field(default_factory=dict)
    before: Counts = NOTHING
    """Before the first visitor came, with the app being served."""
    thirds: list[Counts] = field(default_factory=list)
    """After each third, when the times of its visitors were over."""
    wrong: list[str] = field(default_factory=list)

    def report(self) -> str:
        """The table, with a verdict in its last line."""
        came = ", ".join(f"{number:,} by {how}" for how, number in self.visitors.items())
        lines = [f"{self.kind}: {came} in {self.minutes:.1f} minutes"]
        head = ("", "before", "first", "second", "last", "growth", "allowed")
        lines.append("".join(f"{cell:>12}" for cell in head))
        first, second, last = self.thirds
        growth = [new - old for new, old in zip(last, second, strict=True)]
        columns = (Counts._fields, self.before, first, second, last, growth, ALLOWED)
        lines += ["".join(f"{cell:>12}" for cell in row) for row in zip(*columns, strict=True)]
        lines += [f"  wrong: {each}" for each in self.wrong[:10]]
        return "\n".join([*lines, f"  {self.verdict()}"])

    def verdict(self) -> str:
        """What is not as it should be, "flat" when all is."""
        _, second, last = self.thirds
        said = [f"{name} grew" for name in grown(second, last, ALLOWED)]
        said += [f"{name} were left" for name in grown(self.before, last, LEFT)]
        said += [f"{len(self.wrong)} wrong"] if self.wrong else []
        return ", ".join(said) or "flat"


class Pace:
    """Threads that send visitors, so many a second all together, until they are stopped."""

    def __init__(
        self, per_second: float, threads: int, visit: Callable[[int], None], numbers: Iterator[int]
    ) -> None:
        self.came = 0
        self.wrong: list[str] = []
        self._visit = visit
        self._numbers = numbers
        self._between = threads / per_second
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]
        for each in self._threads:
            each.start()

    def stop(self) -> None:
        self._stop.set()
        for each in self._threads:
            each.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._between, time.monotonic() - 5)  # late ones are not made up for
            with self._lock:
                self.came += 1
                number = next(self._numbers)
            try:
                self._visit(number)
            except Exception as error:  # noqa: BLE001 - all that goes wrong is what is looked for
                self.wrong.append(f"visitor {number}: {error!r}")


def shortened(patch: pytest.MonkeyPatch) -> None:
    """Make times of hours seconds, and bounds of thousands of visitors hundreds."""
    for module in (presence, gradio_files, paths):
        patch.setattr(module, "REMEMBERED", REMEMBERED)
    patch.setattr(limits_module, "_REMEMBERED", REMEMBERED)
    patch.setattr(gradio_files, "UNCLAIMED", timedelta(seconds=20))
    patch.setattr(gradio_local, "LEASE", 20.0)
    patch.setattr(gradio_local, "_RENEW", 7.0)
    patch.setattr(attached_store, "_CLEAN_EVERY", timedelta(seconds=10))
    patch.setenv("GRADIO_ANALYTICS_MAX_EVENTS", str(REMEMBERED))


@contextlib.contextmanager
def served(store: SessionStore) -> Iterator[Callable[[int], None]]:
    """An attached app; gives what sends a visitor to it."""
    with gradio_rig.closed_loops(), pytest.MonkeyPatch.context() as patch:
        over = gradio_rig.seen_to_end(patch)
        made = demo()
        attachment = attach(made, store, sweep_every=SWEEP_EVERY)
        try:
            with gradio_rig.launched(made, state_session_capacity=REMEMBERED) as url:
                # Gradio keeps the queues of messages of the last 2,000 sessions, 20 MB of them.
                made._queue.pending_messages_per_session.max_size = REMEMBERED
                yield lambda number: by_gradio(url, number, over)
        finally:
            attachment.detach()


def soak(kind: str, url: str, minutes: float, leak: str | None = None) -> Run:
    """Send visitors to the store at ``url`` for so long."""
    run = Run(kind)
    with pytest.MonkeyPatch.context() as patch:
        shortened(patch)
        with SessionStore.open(url, retention=RETENTION, limits=LIMITS, secret=SECRET) as store:

            def visit(number: int) -> None:
                by_library(store, number)
                if not number % REOPEN_EVERY:
                    reopened(url)
                if leak is not None:
                    LEAKS[leak](store, number)

            with served(store) as gradio:
                fill_pools()
                run.before = sample(store)
                direct, by_http = PACE.get(kind, PACE["boto3"])
                numbers = itertools.count(1), itertools.count(1)
                for _ in range(3):
                    begun = time.monotonic()
                    paces = (
                        Pace(direct, 4, visit, numbers[0]),
                        Pace(by_http, 2, gradio, numbers[1]),
                    )
                    try:
                        verified(store, run, begun + minutes / 3 * 60)
                    finally:
                        for pace in paces:
                            pace.stop()
                    run.minutes += (time.monotonic() - begun) / 60
                    for how, pace in zip(("the library", "Gradio"), paces, strict=True):
                        run.visitors[how] = run.visitors.get(how, 0) + pace.came
                        run.wrong += pace.wrong
                    run.thirds.append(when_all_is_over(store, run.before))
    return run


def verified(store: SessionStore, run: Run, until: float) -> None:
    """Wait until that time, and verify the store now and then."""
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(VERIFY_EVERY, left))
        found = [it for it in store.verify() if it.kind != "leftover"]  # that is swept just now
        run.wrong += [f"{it.place}: {it.problem}" for it in found]


def when_all_is_over(store: SessionStore, before: Counts) -> Counts:
    """A sample when no more than is allowed is left of the visitors, or after ``PATIENCE``."""
    deadline = time.monotonic() + PATIENCE
    while True:
        store.sweep()
        after = sample(store)
        if not grown(before, after, LEFT) or time.monotonic() > deadline:
            return after
        time.sleep(5)


def place_of(kind: str, root: Path, endpoint: str | None) -> str:
    """The URL of a store of that kind."""
    if kind == "local":
        return f"file:{root}/store"
    return f"s3://{seaweed.BUCKET}/soak-{kind}?endpoint_url={endpoint}&engine={kind}&grace=10s"


def start(kind: str, url: str, root: Path, options: argparse.Namespace) -> subprocess.Popen[bytes]:
    """A process that soaks one store, with a TMPDIR and a cache of its own."""
    command = [
        sys.executable, "-m", "tests.campaigns.soak", "--child", kind, url,
        "--minutes", str(options.minutes), *(["--leak", options.leak] if options.leak else []),
    ]  # fmt: skip
    own = {
        **os.environ,
        **seaweed.ENVIRONMENT,
        "GRADIO_ANALYTICS_ENABLED": "False",
        # glibc gives up to 8 heaps a core to threads, and each grows to the most that it ever held.
        "MALLOC_ARENA_MAX": "1",
    }
    for name, folder in (("TMPDIR", "tmp"), ("GRADIO_TEMP_DIR", "gradio")):
        (root / folder).mkdir(parents=True)
        own[name] = str(root / folder)
    return subprocess.Popen(command, env=own)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--kinds", nargs="+", choices=[*PACE], default=[*PACE])
    parser.add_argument("--url", help="a store to soak instead of these; it should be empty")
    parser.add_argument("--leak", choices=[*LEAKS], help="what each visitor leaves behind")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, url = options.child
        os.environ["SESSIONSTORE_TEST_GRACE"] = "1"  # here: tests.conftest clears what it was given
        run = soak(kind, url, options.minutes, options.leak)
        sys.stdout.write(run.report() + "\n")
        return 0 if run.verdict() == "flat" else 1
    with contextlib.ExitStack() as resources:
        root = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        kinds = ["url"] if options.url else options.kinds
        bucket = any(kind in {"boto3", "obstore"} for kind in kinds)
        endpoint = seaweed.endpoint(resources) if bucket else None
        children = [
            start(kind, options.url or place_of(kind, root / kind, endpoint), root / kind, options)
            for kind in kinds
        ]
        return max(child.wait() for child in children)


if __name__ == "__main__":
    sys.exit(main())
