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

_turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
    weakref.WeakKeyDictionary()
)


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function in a thread of the running loop's default executor.

    No more calls are given to the executor than it has threads: the others wait in the loop. With
    its queue full the threads never wait for the loop, and it stands still three times as long
    (``benchmarks.local_ingest``); so they can only go on as fast as it can.
    """
    import asyncio  # here, because it takes longer to load than all the rest of the package

    loop = asyncio.get_running_loop()
    turn = _turns.get(loop)
    if turn is None:
        turn = _turns[loop] = asyncio.Semaphore(_threads(loop))
    async with turn:
        return await asyncio.to_thread(function, *args, **kwargs)


def _threads(loop: asyncio.AbstractEventLoop) -> int:
    """How many threads the loop's executor has; what ``ThreadPoolExecutor()`` has, if unknown.

    No public name tells.
    """
    executor = getattr(loop, "_default_executor", None)
    most: int = getattr(executor, "_max_workers", min(32, (os.cpu_count() or 1) + 4))
    return most
