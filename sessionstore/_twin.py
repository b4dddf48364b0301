"""How the ``_async`` twins run: in a worker thread, so that no I/O is done on an event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function in a thread of the running loop's default executor."""
    import asyncio  # here, because it takes longer to load than all the rest of the package

    return await asyncio.to_thread(function, *args, **kwargs)
