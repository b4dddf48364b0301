"""The processes of the differential campaign: each carries operations out on real stores.

Also the broken stores that the campaign has to catch, since they are put in place here.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import random
import tempfile
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

from sessionstore import (
    FileNotStored,
    InvalidName,
    LimitExceeded,
    Limits,
    Retention,
    Session,
    SessionStore,
)
from sessionstore import store as store_module
from sessionstore.backend import Location
from sessionstore.backends.local import LocalBackend
from sessionstore.backends.memory import MemoryBackend
from sessionstore.backends.objects import ObjectBackend
from sessionstore.clock import SystemClock
from sessionstore.names import session_key
from sessionstore.wrapping import Call, wrap_methods
from tests.broken import content, forgetting, saving, sessions
from tests.campaigns.differential_model import (
    MAX_FILE,
    MAX_FILES,
    MAX_SESSION,
    PART_SIZE,
    Answer,
    Op,
    digest,
    picture,
    some_bytes,
)
from tests.explorer import variants
from tests.explorer.variants import FromMemory
from tests.support import seaweed

RETENTION = Retention(idle=timedelta(hours=1), linger=timedelta(hours=1))
EXPIRED = Retention(idle=timedelta(seconds=1), linger=timedelta(0))
LIMITS = Limits(max_file=MAX_FILE, max_session=MAX_SESSION, max_session_files=MAX_FILES)
ZONES = ("UTC", "Pacific/Kiritimati", "America/St_Johns", "Asia/Kathmandu", "Pacific/Niue")

Stores = dict[str, str]
"""URLs by the names of their engines."""


# Broken stores


def _lies_about_owners(_: object, sid: str) -> object:
    return session_key("alice", "mallory")._replace(sid=sid)


@contextlib.contextmanager
def _from_memory() -> Iterator[None]:
    """For longer than the two seconds of old, since machines may be slow."""
    with (
        mock.patch.object(ObjectBackend, "writer_type", FromMemory),
        mock.patch.object(variants, "RECENT", 30.0),
    ):
        yield


def _no_overlaps(_: Any, __: Any) -> bool:
    return False


def _reads_the_first_half(real: Callable[..., Any]) -> Callable[..., Any]:
    def open_(
        self: Any, sid: str, reference: Any, start: int = 0, length: int | None = None
    ) -> Any:
        whole = real(self, sid, reference, start, length)
        if reference.size != 131_073:
            return whole
        with contextlib.closing(whole):
            return io.BytesIO(whole.read()[:-1])

    return open_


def _in_memory(backend: type[MemoryBackend]) -> contextlib.AbstractContextManager[object]:
    return mock.patch.object(Work, "memory", backend)


BROKEN: dict[str, tuple[str, Callable[[], contextlib.AbstractContextManager[object]]]] = {
    "acknowledges from memory": ("boto3", _from_memory),
    "counts overlapping changes as they are answered": (
        "local",
        lambda: mock.patch("sessionstore.limits.Change.overlaps", _no_overlaps),
    ),
    "knows no owner": (
        "local",
        lambda: mock.patch.object(
            store_module, "session_key", lambda id_, _: session_key(id_, None)
        ),
    ),
    "lies about owners": (
        "local",
        lambda: mock.patch.object(LocalBackend, "identify", _lies_about_owners),
    ),
    "cuts one byte off one size": (
        "local",
        lambda: mock.patch.object(LocalBackend, "open", _reads_the_first_half(LocalBackend.open)),
    ),
    **{
        backend.__name__: ("memory", partial(_in_memory, backend))
        for backend in (
            content.NeverReclaims,
            forgetting.NeverForgetsAnEnd,
            saving.FoldsCase,
            saving.LosesTheSecondSave,
            saving.LosesTimeToLive,
            sessions.ForgetsTheEnd,
            sessions.SharesOneDirectory,
        )
    },
}
"""What is wrong -> the engine that it is wrong with, and how that is done."""


class Work:
    """Stores as one process has them. Of each engine there are two: with limits and without."""

    memory: Any = None
    """A broken memory backend to use."""

    def __init__(self, urls: Stores) -> None:
        self._urls = urls
        self._open: dict[tuple[str, bool], SessionStore] = {}
        self._lock = threading.Lock()

    def store(self, engine: str, *, limited: bool = False) -> SessionStore:
        with self._lock:
            if (engine, limited) not in self._open:
                limits = LIMITS if limited else Limits()
                self._open[engine, limited] = self._opened(engine, limits, RETENTION)
            return self._open[engine, limited]

    def _opened(self, engine: str, limits: Limits, retention: Retention) -> SessionStore:
        url = self._urls[engine]
        if self.memory is not None and url.startswith("memory://"):
            place = Location(url, "memory", url.removeprefix("memory://"), "")
            backend = self.memory.connect(place, {}, SystemClock())
            return SessionStore(backend, limits=limits, retention=retention)
        store = SessionStore.open(url, limits=limits, retention=retention)
        if isinstance(store.backend, ObjectBackend):
            store.backend.writer.multipart_above = store.backend.writer.part_size = PART_SIZE
        if limits != Limits():
            store.wrap(lambda it: wrap_methods(it, dict.fromkeys(("put", "delete", "drop"), _late)))
        return store

    def close(self, engine: str | None = None) -> None:
        for each in [each for each in self._open if engine in {None, each[0]}]:
            self._open.pop(each).close()

    # Operations

    def do(self, engine: str, op: Op) -> Answer:
        """Carry an operation out; an error that is none of the expected ones is an answer too."""
        try:
            answer: Answer = getattr(self, f"_{op.verb}")(engine, op)
        except FileNotStored:
            return ("missing",)
        except LimitExceeded:
            return ("refused",)
        except InvalidName:
            return ("invalid",)
        except Exception:  # noqa: BLE001 - it is reported
            return ("error", traceback.format_exc())
        return answer

    def _session(self, engine: str, op: Op) -> Session:
        return self.store(engine, limited=op.limited).session(*op.key)

    def _put(self, engine: str, op: Op) -> Answer:
        session = self._session(engine, op)
        if op.kind == "written":
            with session.open(op.name, "wb") as file:
                file.write(some_bytes(*op.piece))
            return ("saved", *_what(session.get(op.name)))
        ttl = None if op.ttl is None else timedelta(seconds=op.ttl)
        with _source(op) as source:
            return ("saved", *_what(_call(op.how, session, "put", op.name, source, ttl)))

    def _add(self, engine: str, op: Op) -> Answer:
        ttl = None if op.ttl is None else timedelta(seconds=op.ttl)
        args = (some_bytes(*op.piece), ".bin", ttl)
        file = _call(op.how, self._session(engine, op), "add", *args)
        return ("saved", *_what(file), file.name)

    def _read(self, engine: str, op: Op) -> Answer:
        data = _call(op.how, self._session(engine, op), "read", op.name)
        return ("read", len(data), digest(data))

    def _range(self, engine: str, op: Op) -> Answer:
        file = self._session(engine, op).get(op.name)
        data = _call(op.how, file, "read", op.start, op.length)
        return ("read", len(data), digest(data))

    def _files(self, engine: str, op: Op) -> Answer:
        files = _call(op.how, self._session(engine, op), "files")
        return ("files", *(_row(file) for file in files))

    def _contains(self, engine: str, op: Op) -> Answer:
        return ("contains", op.name in self._session(engine, op))

    def _usage(self, engine: str, op: Op) -> Answer:
        return ("usage", *_call(op.how, self._session(engine, op), "usage"))

    def _marks(self, engine: str, op: Op) -> Answer:
        session = self._session(engine, op)
        record = session.store.backend.session(session.sid)
        return ("marks", record is not None, record is not None and record.ended is not None)

    def _whose(self, engine: str, op: Op) -> Answer:
        session = self._session(engine, op)
        key = session.store.backend.identify(session.sid)
        return ("whose", None, None) if key is None else ("whose", key.id, key.owner)

    def _illegal(self, engine: str, op: Op) -> Answer:
        _call(op.how, self._session(engine, op), "put", op.name, b"")
        return ("saved",)

    def _delete(self, engine: str, op: Op) -> Answer:
        _call(op.how, self._session(engine, op), "delete", *op.names)
        return ("done",)

    def _mark(self, engine: str, op: Op) -> Answer:
        _call(op.how, self._session(engine, op), op.verb)
        return ("done",)

    _drop = _touch = _end = _resume = _mark

    def _reopen(self, engine: str, _: Op) -> Answer:
        self.close(engine)
        return ("done",)

    # The store

    def _sweep(self, engine: str, _: Op) -> Answer:
        self.store(engine).sweep()
        return ("done",)

    def _verify(self, engine: str, _: Op) -> Answer:
        found = self.store(engine).verify(repair=True)
        return ("verified", *(f"{it.place}: {it.problem}" for it in found))

    def _sessions(self, engine: str, _: Op) -> Answer:
        keys = [(session.id, session.owner) for session in self.store(engine).sessions()]
        return ("sessions", *sorted(keys, key=lambda key: (key[0], key[1] or "")))

    def _total(self, engine: str, _: Op) -> Answer:
        store = self.store(engine)
        store.sweep()  # files over their time count until then
        usage = store.usage()
        return ("total", usage.files, usage.bytes, usage.sessions)

    def _copy(self, engine: str, op: Op) -> Answer:
        self.store(engine).copy_to(self.store(op.name))
        return ("done",)

    def _expire(self, engine: str, _: Op) -> Answer:
        self.close(engine)
        with self._opened(engine, Limits(), EXPIRED) as store:
            store.sweep()
            store.sweep()
            return ("left", len(list(store.backend.sessions())), store.backend.stored().blobs)

    def _burst(self, engine: str, op: Op) -> Answer:
        with ThreadPoolExecutor(4) as pool:
            outcomes = list(pool.map(lambda each: self.do(engine, each), op.several))
        session = self._session(engine, op)
        exact = _is_exact(session)
        _, exists, ended = self._marks(engine, op)
        listing = tuple(_row(file) for file in session.files())
        return ("burst", outcomes, listing, exists, ended, exact)


def _is_exact(session: Session) -> bool:
    """Whether a session takes just what its limits let it, now that nothing is under way."""
    usage, saved = session.usage(), []
    files, left = MAX_FILES - usage.files, MAX_SESSION - usage.bytes
    while files > 0 and left > 0:
        size = min(left, MAX_FILE)
        saved.append(_accepts(session, f"probe {files}", size))
        files, left = files - 1, left - size
    saved.append(not _accepts(session, "probe", 1))
    session.delete(*(file.name for file in session.files() if file.name.startswith("probe")))
    return all(saved)


def _accepts(session: Session, name: str, size: int) -> bool:
    try:
        session.put(name, bytes(size))
    except LimitExceeded:
        return False
    return True


def _late(real: Call) -> Call:
    """Lets other threads in between what a backend does and that the store hears of it."""

    def run(*args: Any, **keywords: Any) -> Any:
        answer = real(*args, **keywords)
        time.sleep(random.choice((0, 0, 0.0005, 0.002)))
        return answer

    return run


def _what(file: Any) -> tuple[int, str]:
    return file.size, file.digest


def _row(file: Any) -> tuple[str, int, str, bool]:
    return file.name, file.size, file.digest, file.expires is not None


def _call(how: str, target: Any, verb: str, *args: Any) -> Any:
    if how == "async":
        return asyncio.run(getattr(target, f"{verb}_async")(*args))
    if how == "thread":
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(getattr(target, verb), *args).result()
    return getattr(target, verb)(*args)


@contextlib.contextmanager
def _source(op: Op) -> Iterator[Any]:
    """The content of a save, of its kind."""
    if op.kind == "image":
        yield picture(op.piece[0])
        return
    data = some_bytes(*op.piece)
    rng = random.Random(op.piece[0])
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    with tempfile.NamedTemporaryFile() as file:
        if op.kind in {"path", "file"}:
            file.write(data)
            file.seek(0)
        yield {
            "bytes": data,
            "bytearray": bytearray(data),
            "memoryview": memoryview(data),
            "path": Path(file.name),
            "file": file,
            "pieces": (piece for piece in pieces),
            "list": pieces,
        }[op.kind]


# Processes


def _prepare(broken: str, resources: contextlib.ExitStack) -> None:
    os.environ.update(seaweed.ENVIRONMENT, SESSIONSTORE_TEST_GRACE="1")
    logging.getLogger("sessionstore").setLevel(logging.CRITICAL)
    if broken:
        resources.enter_context(BROKEN[broken][1]())


def worker(connection: Connection, urls: Stores, number: int, broken: str) -> None:
    """Carry out what comes, ``(engine, process, operation)`` each; those of one message at once.

    What is in memory is in one process alone, which stands for all of them.
    """
    with contextlib.ExitStack() as resources:
        _prepare(broken, resources)
        os.environ["TZ"] = ZONES[number % len(ZONES)]
        time.tzset()
        works: defaultdict[int, Work] = defaultdict(lambda: Work(urls))
        pool = resources.enter_context(ThreadPoolExecutor(len(urls) * 4))
        while (jobs := connection.recv()) is not None:
            owned = [(works[process], engine, op) for engine, process, op in jobs]
            connection.send(list(pool.map(lambda job: job[0].do(*job[1:]), owned)))
        for work in works.values():
            work.close()


def sweeper(connection: Connection, urls: Stores, _number: int, broken: str) -> None:
    """Sweep and repair every store in turn until something is received; then send what was seen."""
    rounds, problems = 0, []
    with contextlib.ExitStack() as resources:
        _prepare(broken, resources)
        work = Work(urls)
        while not connection.poll(0.2):
            for engine in urls:
                for verb in ("sweep", "verify"):
                    answer = work.do(engine, Op(verb))
                    if answer not in {("done",), ("verified",)}:
                        problems.append(f"{engine}: {verb} beside writers: {answer}")
            rounds += 1
        connection.send((rounds, problems))
        work.close()
