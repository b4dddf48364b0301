"""An app with stored files, asked without a server or served by a real one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount

from sessionstore import Session, SessionStore
from sessionstore.adapters.asgi.app import Files
from tests.support.ports import free_port
from tests.support.stores import PATIENCE

HOST = "http://test"


def visitor_of(store: SessionStore) -> Any:
    """A visitor is whoever its header says; without the header it is nobody."""

    def visitor(request: Request) -> Session | None:
        name = request.headers.get("x-visitor")
        return None if name is None else store.session("files", name)

    return visitor


def app_of(store: SessionStore, **options: Any) -> Starlette:
    return Starlette(routes=[Mount("/files", Files(store, visitor_of(store), **options))])


def ask(app: Any, method: str, path: str, **options: Any) -> httpx.Response:
    """One request, with a path as it stands."""
    return asyncio.run(_ask(app, method, path, options))


async def _ask(app: Any, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=HOST) as client:
        return await client.request(method, path, **options)


async def as_it_comes(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


class Form:
    """A multipart form, as a browser writes it."""

    boundary = b"----a-boundary"
    headers: ClassVar = {"content-type": "multipart/form-data; boundary=----a-boundary"}

    def __init__(self, *files: tuple[str, bytes], field: str | None = None) -> None:
        parts = [_part(f'name="file"; filename="{name}"', data) for name, data in files]
        if field is not None:
            parts.insert(0, _part('name="comment"', field.encode()))
        self.body = b"".join(parts) + b"--" + self.boundary + b"--\r\n"


def _part(parameters: str, data: bytes) -> bytes:
    head = f"Content-Disposition: form-data; {parameters}\r\n\r\n".encode()
    return b"--" + Form.boundary + b"\r\n" + head + data + b"\r\n"


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The app behind a real server in a thread; its address."""
    port = free_port()
    config = uvicorn.Config(app, port=port, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    ready = threading.Event()
    startup = server.startup

    async def and_say_so(*args: Any, **options: Any) -> None:
        await startup(*args, **options)
        ready.set()

    server.startup = and_say_so  # type: ignore[method-assign]  # it has no event for it
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    assert ready.wait(PATIENCE)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
