"""The runner of the ``_async`` methods: a worker thread, so that no I/O is on an event loop."""

from __future__ import annotations

import contextvars
import functools
import inspect
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

THREADS = min(32, max(16, (os.cpu_count() or 1) + 4))
"""Threads of the executor: more than there are cores, because they wait for a network or a disk.

With 32 threads on two cores, saves to a local disk stalled an event loop twice as long as with 16.
"""

_lock = threading.Lock()
_made: ThreadPoolExecutor | None = None

_slots: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
    weakref.WeakKeyDictionary()
)
"""By loop: a semaphore of as many calls as the executor has threads."""


async def run_in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function in a thread of our executor, with the caller's context variables.

    A loop gives the executor no more calls than it has threads; the other calls wait in the loop.
    With a full queue the threads would never wait for the loop, and the loop would be blocked three
    times as long (``benchmarks.local_ingest``). This way the threads are as fast as the loop
    allows.
    """
    import asyncio  # here, because it takes longer to load than the rest of the package

    loop = asyncio.get_running_loop()
    slots = _slots.get(loop)
    if slots is None:
        _forget_closed()
        slots = _slots[loop] = asyncio.Semaphore(THREADS)
    call = functools.partial(contextvars.copy_context().run, function, *args, **kwargs)
    async with slots:
        return await loop.run_in_executor(_executor(), call)


def in_thread(
    method: Callable[Concatenate[S, P], R],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Return the ``_async`` method of a method: the same call in a worker thread."""
    name = method.__name__

    async def twin(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await run_in_thread(getattr(self, name), *args, **kwargs)

    twin.__name__ = f"{name}_async"
    twin.__qualname__ = f"{method.__qualname__}_async"
    twin.__module__ = method.__module__
    twin.__doc__ = f"Call ``{name}`` in a worker thread."
    twin.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]  # as ``inspect`` documents
    return twin


def _executor() -> ThreadPoolExecutor:
    """Return the executor of this process. Its threads end with the process."""
    global _made  # noqa: PLW0603 - one executor for the process
    with _lock:
        if _made is None:
            from concurrent.futures import ThreadPoolExecutor  # here for the same reason as asyncio

            _made = ThreadPoolExecutor(THREADS, "sessionstore-async")
        return _made


def _forget_closed() -> None:
    """Forget closed loops: a used semaphore refers to its loop, and would keep it for ever."""
    for loop in list(_slots):
        if loop.is_closed():
            _slots.pop(loop, None)


def _after_fork() -> None:
    """Forget the executor in a child process, which has no thread of the parent."""
    global _lock, _made
    _lock, _made = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
