"""How the ``_async`` twins run: in a worker thread, so that no I/O is done on an event loop."""

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
"""By loop: how many threads its executor has, and as many turns."""


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function in a thread of the running loop's default executor.

    No more calls are given to the executor than it has threads: the others wait in the loop. With
    its queue full the threads never wait for the loop, and it stands still three times as long
    (``benchmarks.local_ingest``); so they can only go on as fast as it can.
    """
    import asyncio  # here, because it takes longer to load than all the rest of the package

    loop = asyncio.get_running_loop()
    threads = _threads(loop)
    if threads is None:
        return await asyncio.to_thread(function, *args, **kwargs)
    kept = _turns.get(loop)
    if kept is None or kept[0] != threads:  # it may have been given another executor
        _forget_closed()
        kept = _turns[loop] = (threads, asyncio.Semaphore(threads))
    async with kept[1]:
        return await asyncio.to_thread(function, *args, **kwargs)


def _threads(loop: asyncio.AbstractEventLoop) -> int | None:
    """How many threads the loop's executor has or will have; None when that cannot be told.

    No public name tells.
    """
    executor = getattr(loop, "_default_executor", loop)
    if executor is None:
        return min(32, (os.cpu_count() or 1) + 4)  # as ThreadPoolExecutor() will make them
    most: int | None = getattr(executor, "_max_workers", None)
    return most


def _forget_closed() -> None:
    """A semaphore that was waited for refers to its loop, and would keep it for ever."""
    for loop in list(_turns):
        if loop.is_closed():
            _turns.pop(loop, None)
