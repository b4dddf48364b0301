"""The async twins: the same words and answers, and the event loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import inspect
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sessionstore import (
    FileNotStored,
    InvalidName,
    Session,
    SessionStore,
    SignedUpload,
    StoredFile,
    Upload,
    _threads,
)
from sessionstore._threads import THREADS, run_in_thread
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.local_copies import LocalCopies
from sessionstore.testing import Call, FakeClock, FaultyBackend
from tests.support.stores import MINUTE, PATIENCE, Heard, brief, memory_store, names

VERBS = {
    SessionStore: {"open", "close", "sessions", "plan", "sweep", "usage", "verify", "copy_to"},
    Session: {
        "put", "add", "open", "directory", "get", "read", "files", "usage", "delete", "drop",
        "touch", "end", "resume", "begin_upload", "upload",
        "begin_signed_upload", "signed_upload",
    },
    StoredFile: {"read", "open", "local_path", "url"},
    Upload: {"refresh", "write", "finish", "abort"},
    SignedUpload: {"refresh", "missing", "urls", "finish", "abort"},
}  # fmt: skip


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> Iterator[SessionStore]:
    with memory_store(clock, base_url="/files", secret="a long random text") as store:
        yield store


@pytest.fixture
def session(store: SessionStore) -> Session:
    return store.session("alice")


@pytest.mark.parametrize("cls", VERBS, ids=lambda cls: cls.__name__)
def test_every_verb_has_a_twin_and_there_are_no_others(cls: type) -> None:
    twins = {name.removesuffix("_async") for name in dir(cls) if name.endswith("_async")}
    assert twins == VERBS[cls]


@pytest.mark.parametrize(
    ("cls", "verb"), [(cls, verb) for cls, verbs in VERBS.items() for verb in sorted(verbs)]
)
def test_a_twin_takes_the_same_words(cls: type, verb: str) -> None:
    plain, twin = getattr(cls, verb), getattr(cls, f"{verb}_async")
    assert inspect.signature(twin).parameters == inspect.signature(plain).parameters


def test_every_twin_answers_as_its_verb_does(store: SessionStore, tmp_path: Path) -> None:
    store.use_local_copies(LocalCopies(tmp_path))

    async def use_all() -> list[object]:
        session = store.session("alice")
        file = await session.put_async("a", b"cat", ttl=MINUTE)
        added = await session.add_async(b"dog", ".bin")
        with await session.open_async("w", "wb") as writer:
            writer.write(b"owl")
        async with session.directory_async() as path:
            (path / "d").write_bytes(b"eel")
        with await session.open_async("w") as reader, await file.open_async() as other:
            read = reader.read(), other.read()
        await session.touch_async()
        await session.resume_async()
        return [
            file.expires is not None,
            added.name.endswith(".bin"),
            read,
            (await session.get_async("a")) == file,
            await session.read_async("d"),
            [each.name for each in await session.files_async()] == names(session),
            await session.usage_async() == session.usage(),
            await file.read_async(1, 1),
            (await file.local_path_async()).read_bytes(),
            (await file.url_async()).startswith("/files/"),
            [each.id for each in await store.sessions_async()],
            await store.plan_async() == store.plan(),
            await store.sweep_async(dry_run=True) == store.plan(),
            await store.usage_async() == store.usage(),
            await store.verify_async(),
        ]

    assert asyncio.run(use_all()) == [
        True, True, (b"owl", b"cat"), True, b"eel", True, True, b"a", b"cat", True, ["alice"], True,
        True, True, [],
    ]  # fmt: skip


def test_the_twins_of_an_upload(session: Session) -> None:
    async def use_all() -> list[object]:
        begun = await session.begin_upload_async("a", 6)
        first = await begun.write_async(0, b"cat")
        other = await session.upload_async(begun.id)
        second = await other.write_async(other.offset, b"dog")
        await begun.refresh_async()
        file = await begun.finish_async()
        left = await session.begin_upload_async("b")
        await left.abort_async()
        return [first, second, begun.offset, file.read(), names(session)]

    assert asyncio.run(use_all()) == [3, 6, 6, b"catdog", ["a"]]


def test_twins_that_end_things(store: SessionStore, clock: FakeClock) -> None:
    async def use_all() -> list[object]:
        session = store.session("alice")
        await session.put_async("a", b"cat")
        await session.delete_async("a", "missing")
        left = names(session)
        await session.put_async("b", b"cat")
        await session.end_async()
        ended = brief(store.plan())
        await session.drop_async()
        other = await SessionStore.open_async("memory://", clock=clock)
        await store.session("bob").put_async("c", b"cat")
        copied = await store.copy_to_async(other)
        await other.close_async()
        return [left, ended, session.files(), copied.files]

    assert asyncio.run(use_all()) == [[], [("hold", "alice", "")], [], 1]


@pytest.mark.parametrize(
    ("verb", "args", "error"),
    [
        ("put", ("../x", b""), InvalidName), ("put", ("a", "text"), TypeError),
        ("read", ("missing",), FileNotStored), ("get", ("missing",), FileNotStored),
        ("open", ("a", "r+"), ValueError),
    ],
)  # fmt: skip
def test_a_twin_raises_what_its_verb_raises(
    session: Session, verb: str, args: tuple[Any, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        asyncio.run(getattr(session, f"{verb}_async")(*args))


def test_the_loop_goes_on_while_a_source_is_read(session: Session) -> None:
    go_on = threading.Event()

    def source() -> Iterator[bytes]:
        yield b"c"
        assert go_on.wait(PATIENCE), "the loop did not run"
        yield b"at"

    async def save_beside_other_work() -> bytes:
        saving = asyncio.create_task(session.put_async("a", source()))
        await asyncio.sleep(0)
        go_on.set()
        return (await saving).read()

    assert asyncio.run(save_beside_other_work()) == b"cat"


def test_the_loop_goes_on_while_the_backend_works(clock: FakeClock) -> None:
    """Every twin that asks the backend asks it from another thread than the loop's."""
    loop_thread = threading.current_thread()
    blocked: list[str] = []

    def watch(call: Call) -> None:
        if threading.current_thread() is loop_thread:
            blocked.append(call.verb)

    backend = FaultyBackend(MemoryBackend(Place(), clock), watch)
    store = SessionStore(backend, clock=clock, base_url="/f", secret="a long random text")
    session = store.session("alice")
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: session.put_async("a", b"cat"), lambda: session.add_async(b"dog"),
        lambda: session.get_async("a"), lambda: session.read_async("a"), session.files_async,
        session.usage_async, session.touch_async, session.end_async, session.resume_async,
        store.sessions_async, store.plan_async, store.sweep_async, store.usage_async,
        store.verify_async, lambda: session.delete_async("a"), session.drop_async,
        store.close_async,
    ]  # fmt: skip

    async def use_all() -> None:
        for call in calls:
            await call()

    asyncio.run(use_all())
    assert blocked == []
    assert len(backend.calls) >= 14


class TestDirectory:
    def test_is_saved_at_its_end(self, session: Session) -> None:
        async def use() -> None:
            async with session.directory_async() as path:
                (path / "a").write_bytes(b"cat")

        asyncio.run(use())
        assert session.read("a") == b"cat"

    def test_nothing_is_saved_when_the_block_raises(self, session: Session) -> None:
        found: list[Path] = []

        async def use() -> None:
            async with session.directory_async() as path:
                found.append(path)
                (path / "a").write_bytes(b"cat")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            asyncio.run(use())
        assert (session.files(), found[0].exists()) == ([], False)

    def test_nothing_is_saved_when_the_task_is_cancelled(self, session: Session) -> None:
        found: list[Path] = []

        async def use(inside: asyncio.Event) -> None:
            async with session.directory_async() as path:
                found.append(path)
                (path / "a").write_bytes(b"cat")
                inside.set()
                await asyncio.Event().wait()

        async def cancel() -> None:
            inside = asyncio.Event()
            task = asyncio.create_task(use(inside))
            await inside.wait()
            task.cancel()
            await asyncio.wait([task])

        asyncio.run(cancel())
        assert (session.files(), found[0].exists()) == ([], False)


def test_many_saves_at_once_are_all_kept(session: Session) -> None:
    async def save_many() -> None:
        await asyncio.gather(*(session.put_async(f"{number}", b"cat") for number in range(50)))

    asyncio.run(save_many())
    assert len(session.files()) == 50


def test_events_are_told_from_the_twins_too(store: SessionStore) -> None:
    heard = Heard(store, "saved")
    asyncio.run(store.session("alice").put_async("a", b"cat"))
    assert heard.kinds() == ["saved"]


def test_in_thread_passes_words_and_answers_on() -> None:
    def thread_and(*args: int, **words: int) -> tuple[bool, tuple[int, ...], dict[str, int]]:
        return threading.current_thread() is threading.main_thread(), args, words

    assert asyncio.run(run_in_thread(thread_and, 1, 2, three=3)) == (False, (1, 2), {"three": 3})


def test_the_context_variables_of_the_caller_are_seen() -> None:
    visitor = contextvars.ContextVar("visitor", default="none")

    async def as_alice() -> str:
        visitor.set("alice")
        return await run_in_thread(visitor.get)

    assert asyncio.run(as_alice()) == "alice"


def test_no_more_calls_are_given_to_the_executor_than_it_has_threads(given: Given) -> None:
    async def many() -> list[int]:
        return await asyncio.gather(*(run_in_thread(int, number) for number in range(200)))

    assert asyncio.run(many()) == list(range(200))
    assert given.most == given.threads == THREADS


def test_as_many_calls_wait_at_once_as_there_are_threads() -> None:
    together = threading.Barrier(THREADS)

    async def wait() -> None:
        await asyncio.gather(*(run_in_thread(together.wait, PATIENCE) for _ in range(THREADS)))

    asyncio.run(wait())


def test_calls_that_wait_for_a_network_have_more_threads(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(_threads.WAITS)
    monkeypatch.setattr(store.backend, "at_once", 16, raising=False)
    monkeypatch.setattr(store.backend, "touch", lambda _sid: together.wait(PATIENCE))

    async def touch() -> None:
        session = store.session("alice")
        await asyncio.gather(*(session.touch_async() for _ in range(_threads.WAITS)))

    asyncio.run(touch())


def test_the_executor_of_the_loop_is_left_alone(given: Given) -> None:
    own = Given(2)

    async def many() -> None:
        asyncio.get_running_loop().set_default_executor(own)
        await asyncio.gather(*(run_in_thread(int, number) for number in range(100)))

    asyncio.run(many())
    assert (own.most, given.most) == (0, THREADS)


def test_loops_share_one_executor() -> None:
    async def thread_names() -> set[str]:
        calls = (run_in_thread(lambda: threading.current_thread().name) for _ in range(THREADS))
        return set(await asyncio.gather(*calls))

    executor = _threads._executor()
    seen = asyncio.run(thread_names()) | asyncio.run(thread_names())
    assert seen <= {thread.name for thread in executor._threads}
    assert _threads._executor() is executor


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_process_has_threads_of_its_own() -> None:
    asyncio.run(run_in_thread(int))
    with _threads._lock:  # as if another thread had it at the moment of the fork
        child = multiprocessing.get_context("fork").Process(target=asyncio_in_child)
        child.start()
    child.join(PATIENCE)
    try:
        assert child.exitcode == 0
    finally:
        child.kill()


def asyncio_in_child() -> None:
    assert asyncio.run(run_in_thread(int, 5)) == 5


def test_the_threads_end_with_the_process() -> None:
    """A call that nothing waits for any more is finished, and then the process ends."""
    program = """if True:
        import asyncio, time
        from sessionstore._threads import run_in_thread
        started = []
        def last(): started.append(1); time.sleep(0.1); print("finished")
        async def leave():
            asyncio.create_task(run_in_thread(last))
            while not started: await asyncio.sleep(0)
        asyncio.run(leave())
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE,
        check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("finished\n", "")


def test_closed_loops_are_not_kept() -> None:
    async def many() -> None:
        await asyncio.gather(*(run_in_thread(int) for _ in range(100)))

    before = set(_threads._slots)  # a server of another test may be about to end
    for _ in range(5):
        asyncio.run(many())
    gc.collect()
    assert len(set(_threads._slots) - before) == 1


def test_no_private_name_of_the_loop_is_read() -> None:
    class Watched(asyncio.SelectorEventLoop):
        def __getattribute__(self, name: str) -> Any:
            caller = sys._getframe(1).f_code.co_filename
            if name.startswith("_") and not name.startswith("__") and caller == _threads.__file__:
                raise AttributeError(name)
            return super().__getattribute__(name)

    async def many() -> list[int]:
        return await asyncio.gather(*(run_in_thread(int, number) for number in range(50)))

    with contextlib.closing(Watched()) as loop:
        assert loop.run_until_complete(many()) == list(range(50))


class Given(ThreadPoolExecutor):
    """An executor that counts the calls that it has been given and has not finished yet."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.threads = self._max_workers
        self.now = self.most = 0

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        self.now += 1
        self.most = max(self.most, self.now)
        done = super().submit(*args, **kwargs)
        # Counted in the loop's own thread, where the next call is given: the numbers are exact.
        loop = asyncio.get_running_loop()
        done.add_done_callback(lambda _: loop.call_soon_threadsafe(self._finished))
        return done

    def _finished(self) -> None:
        self.now -= 1


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Given:
    """Return an executor that counts, in the place of ours."""
    executor = Given(THREADS)
    monkeypatch.setattr(_threads, "_made", {"sessionstore-async": executor})
    return executor
