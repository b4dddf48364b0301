"""The runner of the ``_async`` methods: a worker thread, so that no I/O is on an event loop."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    import asyncio

P = ParamSpec("P")
R = TypeVar("R")

_turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[int, asyncio.Semaphore]] = (
    weakref.WeakKeyDictionary()
)
"""By loop: the number of threads of its executor, and a semaphore of that value."""


async def run_in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function in a thread of the running loop's default executor.

    The executor gets no more calls than it has threads; the other calls wait in the loop. With a
    full queue the threads would never wait for the loop, and the loop would be blocked three times
    as long (``benchmarks.local_ingest``). This way the threads are as fast as the loop allows.
    """
    import asyncio  # here, because it takes longer to load than the rest of the package

    loop = asyncio.get_running_loop()
    threads = _threads(loop)
    if threads is None:
        return await asyncio.to_thread(function, *args, **kwargs)
    kept = _turns.get(loop)
    if kept is None or kept[0] != threads:  # the loop may have another executor now
        _forget_closed()
        kept = _turns[loop] = (threads, asyncio.Semaphore(threads))
    async with kept[1]:
        return await asyncio.to_thread(function, *args, **kwargs)


def _threads(loop: asyncio.AbstractEventLoop) -> int | None:
    """Return how many threads the loop's executor has or will have; None if that is unknown.

    asyncio has no public name for it, so private ones are read.
    """
    executor = getattr(loop, "_default_executor", loop)
    if executor is None:
        return min(32, (os.cpu_count() or 1) + 4)  # as ThreadPoolExecutor() will make them
    most: int | None = getattr(executor, "_max_workers", None)
    return most


def _forget_closed() -> None:
    """Forget closed loops: a used semaphore refers to its loop, and would keep it for ever."""
    for loop in list(_turns):
        if loop.is_closed():
            _turns.pop(loop, None)
