"""Worker threads: for the ``_async`` methods, so that no I/O is on an event loop, and for waiting.

Waiting for a bucket takes little of a processor, so it has more threads, of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import functools
import inspect
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")

THREADS = min(32, max(16, (os.cpu_count() or 1) + 4))
"""Threads of the executor: more than there are cores, because they wait for a network or a disk.

With 32 threads on two cores, saves to a local disk stalled an event loop twice as long as with 16.
"""

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_made: dict[str, ThreadPoolExecutor] = {}

_slots: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Semaphore]] = (
    weakref.WeakKeyDictionary()
)
"""By loop and executor: a semaphore of as many calls as the executor has threads."""


async def run_in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function in a thread of our executor, with the caller's context variables.

    A loop gives the executor no more calls than it has threads; the other calls wait in the loop.
    With a full queue the threads would never wait for the loop, and the loop would be blocked three
    times as long (``benchmarks.local_ingest``). This way the threads are as fast as the loop
    allows.
    """
    call = functools.partial(contextvars.copy_context().run, function, *args, **kwargs)
    return await _run(call, THREADS, "sessionstore-async")


async def _run(call: Callable[[], R], threads: int, name: str) -> R:
    import asyncio  # here, because it takes longer to load than the rest of the package

    loop = asyncio.get_running_loop()
    slots = _slots.get(loop)
    if slots is None:
        for other in list(_slots):
            if other.is_closed():  # a used semaphore refers to its loop, and would keep it for ever
                _slots.pop(other, None)
        slots = _slots[loop] = {}
    async with slots.setdefault(name, asyncio.Semaphore(threads)):
        return await loop.run_in_executor(_executor(threads, name), call)


async def run_on(backend: object, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function that works on ``backend``, like ``run_in_thread``.

    It has threads of its own: it may itself wait for calls of ``run_together``.

    If the backend is a disk, the event loop does nothing else for the first ``PATIENCE`` seconds.
    A thread gives up Python's global lock at each system call, and gets it back when the loop, with
    other work to do, gives it up: with 200 visitors at once half of the hand-overs of the lock were
    these. After ``PATIENCE`` seconds in quick calls other tasks have a turn. If ``IN_VAIN`` calls
    in a row took longer, the disk is slow, and no call is waited for during ``PAUSE`` seconds.
    """
    global _late, _again, _waited  # noqa: PLW0603 - of the process: most have one disk and one loop
    import asyncio  # here for the same reason as above

    call = functools.partial(contextvars.copy_context().run, function, *args, **kwargs)
    future = _executor(WAITS, "sessionstore-events").submit(call)
    if getattr(backend, "at_once", 1) == 1 and (began := time.monotonic()) >= _again:
        try:
            result = future.result(PATIENCE)
        except TimeoutError:  # or one of the function
            _late += 1
            if _late >= IN_VAIN:
                _late, _again = 0, time.monotonic() + PAUSE
        else:
            _late = 0
            _waited += time.monotonic() - began
            if _waited >= PATIENCE:  # one task may make many calls
                _waited = 0.0
                await asyncio.sleep(0)
            return result
    return await asyncio.wrap_future(future)


PATIENCE = 0.003  # a small file on a quick disk takes a tenth of it
IN_VAIN = 20
PAUSE = 5.0
_late, _again, _waited = 0, 0.0, 0.0


def start_waiting() -> None:
    """Start the threads of ``run_on``, from another thread."""
    start_all(_executor(WAITS, "sessionstore-events"), WAITS)


def start_all(executor: ThreadPoolExecutor, count: int) -> None:
    """Start all ``count`` threads of an idle executor, from another thread.

    Each start waits for the new thread, which on a busy process stalled the event loop of the first
    visitors for 145 ms.
    """

    def start() -> None:
        go = threading.Event()
        with contextlib.suppress(RuntimeError):  # it is shut down, or the interpreter is ending
            for _ in range(count):
                executor.submit(go.wait)  # no thread is idle, so this starts one
        go.set()

    threading.Thread(target=start, name="sessionstore-start", daemon=True).start()


def in_thread(
    method: Callable[Concatenate[S, P], R],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Return the ``_async`` method of a method: the same call in a worker thread.

    An object that ``_is_far`` waits for a network, and has the more threads.
    """
    name = method.__name__

    async def twin(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        bound = getattr(self, name)
        if not getattr(self, "_is_far", False):
            return await run_in_thread(bound, *args, **kwargs)
        call = functools.partial(contextvars.copy_context().run, bound, *args, **kwargs)
        return await _run(call, WAITS, "sessionstore-network")

    twin.__name__ = f"{name}_async"
    twin.__qualname__ = f"{method.__qualname__}_async"
    twin.__module__ = method.__module__
    twin.__doc__ = f"Call ``{name}`` in a worker thread."
    twin.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]  # as ``inspect`` documents
    return twin


def _executor(threads: int = THREADS, name: str = "sessionstore-async") -> ThreadPoolExecutor:
    """Return the executor of that name of this process. Its threads end with the process."""
    made = _made.get(name)  # an event loop must not wait for the lock: threads are started under it
    if made is not None:
        return made
    with _lock:
        if name not in _made:
            from concurrent.futures import ThreadPoolExecutor  # here for the same reason as asyncio

            _made[name] = ThreadPoolExecutor(threads, name)
        return _made[name]


def _after_fork() -> None:
    """Forget all threads in a child process, which has no thread of the parent."""
    global _lock  # noqa: PLW0603 - one lock for the process
    _lock = threading.Lock()
    _made.clear()
    _helpers.clear()
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# Waiting

WAITS = 64  # threads that wait for a network use little of a processor, so they may be many
PENDING = 32  # deferred calls at the same time, at most; their caller makes further ones

_helpers: list[_Helper] = []
_idle: list[_Helper] = []


class _Helper:
    """A thread that makes one call after another.

    Two locks hand a call over and tell its end. That takes 0.01 ms of a processor; the queue, the
    condition and the future of an executor take 0.06 ms.
    """

    def __init__(self) -> None:
        self._go, self.ended = threading.Lock(), threading.Lock()
        self._go.acquire()
        # A daemon, because Python would wait for its end. ``_finish`` waits for its call.
        threading.Thread(target=self._run, name="sessionstore-waits", daemon=True).start()

    def begin(self, call: Callable[[], object]) -> threading.Lock:
        """Begin a call, which raises nothing; return a lock that is free when it has ended."""
        self._call, self.ended = call, threading.Lock()
        self.ended.acquire()
        self._go.release()
        return self.ended

    def _run(self) -> None:
        while True:
            self._go.acquire()
            try:
                self._call()
            except BaseException:  # noqa: BLE001 - the thread has other calls to make
                _log.exception("A call in the background failed.")
            ended = self.ended
            del self._call  # and what it refers to
            _idle.append(self)
            ended.release()


def _helper() -> _Helper | None:
    """Return a helper that makes no call; None if all do, or if no thread can be started."""
    with contextlib.suppress(IndexError):
        return _idle.pop()
    with _lock, contextlib.suppress(RuntimeError):
        if len(_helpers) < WAITS:
            _helpers.append(_Helper())
            return _helpers[-1]
    return None


@atexit.register
def _finish() -> None:
    """Wait for the calls of the helpers: after this their threads are stopped."""
    for helper in _helpers:
        with helper.ended:
            pass


def run_together(tasks: Sequence[Callable[[], T]], at_once: int = WAITS) -> list[T]:
    """Call the tasks, at most ``at_once`` at the same time, and return their results in order.

    After an error no further task starts; it is raised when the running ones have ended. The
    calling thread calls the tasks that no other thread has begun, so a task may itself do the same.
    """
    if len(tasks) <= 1:
        return [task() for task in tasks]
    numbers, results = iter(range(len(tasks))), dict[int, T]()
    errors: list[BaseException] = []

    def work() -> None:
        for number in numbers:  # the iterator gives each number to one thread
            if errors:
                return
            try:
                results[number] = tasks[number]()
            except BaseException as error:  # noqa: BLE001 - the caller raises it
                errors.append(error)

    helpers = [_helper() for _ in range(min(at_once, len(tasks)) - 1)]
    running = [helper.begin(work) for helper in helpers if helper is not None]
    work()
    for ended in running:
        with ended:
            pass
    if errors:
        try:
            raise errors[0]
        finally:
            errors.clear()  # their tracebacks refer to this list
    return [results[number] for number in range(len(tasks))]


class Deferred:
    """Calls that are made later, in other threads. ``drain`` waits for them."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._lock, self._drained = threading.Lock(), threading.Event()
        self._running: list[threading.Lock] = []

    def call(self, function: Callable[[], object], after: float = 0.0) -> None:
        """Call a function that raises nothing: in another thread, ``after`` so many seconds.

        The caller makes the call itself, at once, if no thread is free or if ``PENDING`` calls are
        running.
        """

        def wait_and_call() -> None:
            drained.wait(after)
            function()

        if self._process != os.getpid():  # forked: the parent makes its own calls
            Deferred.__init__(self)
        with self._lock:
            self._running = [ended for ended in self._running if ended.locked()]
            helper, drained = _helper() if len(self._running) < PENDING else None, self._drained
            if helper is not None:
                self._running.append(helper.begin(wait_and_call if after else function))
                return
        function()

    def drain(self) -> None:
        """Make the calls of this process at once, and wait until they have ended."""
        if self._process == os.getpid():
            with self._lock:
                drained, self._drained = self._drained, threading.Event()
                running = list(self._running)
            drained.set()
            for ended in running:
                with ended:
                    pass
