"""What makes hundreds of servers and clients quick. No server and no client behaves otherwise."""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from fastapi.dependencies import models
from httpx._transports import default as transports  # httpx has no option for this

from sessionstore.adapters.gradio import attachment


class _Hurried:
    """``asyncio`` for uvicorn, which sleeps a tenth of the time.

    A server that should end notices it within 0.1 s, and then sleeps 0.1 s at least once.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 10)


@pytest.fixture(scope="session", autouse=True)
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn.server, "asyncio", _Hurried())
        # Each client reads all certificate authorities otherwise, also for plain HTTP: 16 ms.
        once = functools.cache(vars(transports)["create_ssl_context"])
        patch.setattr(transports, "create_ssl_context", once)
        yield


@pytest.fixture(scope="module", autouse=True)
def _collected() -> Iterator[None]:
    """Collect what is old a tenth as often, and let a file's apps go at its end.

    Each app makes tens of thousands of objects, and a third of the time went into looking at all
    of them again. An app that has answered refers to itself by the table of those served; FastAPI
    remembers the functions of the last routes, which refer to their apps.
    """
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, 10 * old)
    yield
    gc.set_threshold(young, middle, old)
    attachment._served.clear()
    for function in vars(models).values():
        if hasattr(function, "cache_clear") and function.__module__ == models.__name__:
            function.cache_clear()
