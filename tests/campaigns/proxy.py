"""A loopback HTTP proxy that does to requests and answers what a network and a store in trouble do.

    with Proxy(endpoint, plan) as proxy:
        SessionStore.open(f"s3://bucket/prefix?endpoint_url={proxy.endpoint}")

A plan looks at each request and names a fault, or none. The faults, by what becomes of the request
and of its answer:

    e500, e503     not carried out; answered InternalError, or SlowDown
    e200           not carried out; answered 200 with an error in XML for a body
    reset          not carried out; the connection is reset
    silent         not carried out; no answer, until the client gives up
    late           carried out some time after the client has given up
    lost           carried out; the connection is reset instead of an answer
    held           carried out; no answer, until the client gives up
    half           carried out; the connection ends in the middle of the answer
    long           carried out; the answer's Content-Length claims more than comes
    short          carried out; the answer is cut, and its Content-Length claims just that
    untold         carried out; a listing says that it is truncated and not where it goes on

The last four need an answer with a body; without one they are ``lost``. Not among ``KINDS``, since
only some requests are guarded against it:

    flipped        carried out with one bit of its body flipped
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from tests.support.ports import free_port

KINDS = (
    "e500", "e503", "e200", "reset", "silent", "late", "lost", "held", "half", "long", "short",
    "untold",
)  # fmt: skip

_ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    "<Error><Code>{}</Code><Message>made up</Message></Error>"
)
_CANNED = {
    "e500": (500, "InternalError"),
    "e503": (503, "SlowDown"),
    "e200": (200, "InternalError"),
}
_LIMIT = 1 << 20
"""Bytes of the longest head."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came; ``number`` counts from 1."""

    number: int
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def path(self) -> str:
        """Bucket and key."""
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> str:
        return urlsplit(self.target).query


@dataclass(slots=True)
class Answer:
    """What the server said: the head without Content-Length and Connection, and the body."""

    head: list[bytes]
    body: bytes

    def encode(self, length: int | None = None) -> bytes:
        told = len(self.body) if length is None else length
        head = [*self.head, b"Content-Length: %d" % told, b"Connection: keep-alive"]
        return b"\r\n".join(head) + b"\r\n\r\n"


Plan = Callable[[Request], str | None]


@dataclass
class Rates:
    """A plan of random faults: so many of the requests, the kinds in equal parts."""

    rate: float
    seed: int
    kinds: tuple[str, ...] = KINDS

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def __call__(self, request: Request) -> str | None:
        return self._rng.choice(self.kinds) if self._rng.random() < self.rate else None


class Proxy:
    """The proxy, in a thread of its own. ``plan`` may be changed at any time."""

    def __init__(
        self, endpoint: str, plan: Plan, *, patience: float = 3.0, lateness: tuple[float, float]
    ) -> None:
        """``patience`` is seconds that no answer takes; ``lateness`` bounds those of ``late``."""
        parts = urlsplit(endpoint)
        assert parts.hostname is not None
        assert parts.port is not None
        self._upstream = (parts.hostname, parts.port)
        self.plan = plan
        self.patience = patience
        self.lateness = lateness
        self.requests = 0
        self.faults: Counter[str] = Counter()
        self.delivered_late: list[tuple[str, str]] = []
        """Method and path of each request that was, or may have been, carried out late."""
        self._rng = random.Random(1)
        self._port = free_port()
        self._loop = asyncio.new_event_loop()
        self._late: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._ready = threading.Event()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def drain(self) -> None:
        """Wait until every late request has been carried out."""

        async def drained() -> None:
            while self._late:
                await asyncio.gather(*self._late, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(drained(), self._loop).result()

    # In the proxy's thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._accept, "127.0.0.1", self._port, limit=_LIMIT)
        )
        self._ready.set()
        self._loop.run_forever()

    async def _stop(self) -> None:
        self._server.close()
        for task in [*self._tasks, *self._late]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._late, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection is good for another."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        request = await self._read(head, reader, writer)
        fault = self.plan(request)
        if fault is None:
            answer = await self._carry_out(request, reader)
            await _send(writer, answer.encode() + _body(request, answer))
            return True
        self.faults[fault] += 1
        return await self._spoil(fault, request, reader, writer)

    async def _read(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Request:
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        method, target, _ = first.split(" ")
        if headers.pop("expect", "").lower() == "100-continue":
            await _send(writer, b"HTTP/1.1 100 Continue\r\n\r\n")
        assert "transfer-encoding" not in headers, "every body's length is known beforehand"
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests += 1
        return Request(self.requests, method, target, headers, body)

    async def _carry_out(self, request: Request, reader: asyncio.StreamReader) -> Answer:
        answer = await self._forward(request)
        if reader.at_eof():  # on a busy machine: the client has given up before
            self.delivered_late.append((request.method, request.path))
        return answer

    async def _forward(self, request: Request) -> Answer:
        """Have the request carried out. HTTP/1.0, so that the answer ends with the connection."""
        reader, writer = await asyncio.open_connection(*self._upstream, limit=_LIMIT)
        try:
            head = [f"{request.method} {request.target} HTTP/1.0"]
            head += [
                f"{it}: {value}" for it, value in request.headers.items() if it != "connection"
            ]
            await _send(writer, "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + request.body)
            said = (await reader.readuntil(b"\r\n\r\n")).rstrip(b"\r\n").split(b"\r\n")
            body = await reader.read()
        finally:
            writer.close()
        dropped = (b"content-length:", b"connection:", b"transfer-encoding:")
        lines = [it for it in said[1:] if not it.lower().startswith(dropped)]
        return Answer([said[0].replace(b"HTTP/1.0", b"HTTP/1.1", 1), *lines], body)

    # Faults

    async def _spoil(
        self,
        fault: str,
        request: Request,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        if fault in _CANNED:
            answer = _canned(*_CANNED[fault])
            await _send(writer, answer.encode() + _body(request, answer))
            return True
        if fault == "flipped":
            answer = await self._forward(_flipped(request))
            await _send(writer, answer.encode() + _body(request, answer))
            return True
        if fault == "late":
            self._deliver_late(request)
        if fault in {"silent", "late"}:
            await asyncio.sleep(self.patience)
        elif fault != "reset":
            answer = await self._carry_out(request, reader)
            if fault == "held":
                await asyncio.sleep(self.patience)
            elif fault in {"short", "untold"} and await _cut(fault, answer, writer, request):
                return True
            elif fault in {"half", "long"} and answer.body:
                await _break_off(fault, answer, writer)
                return False
        _reset(writer)
        return False

    def _deliver_late(self, request: Request) -> None:
        async def deliver() -> None:
            await asyncio.sleep(self.patience + self._rng.uniform(*self.lateness))
            self.delivered_late.append((request.method, request.path))
            await self._forward(request)

        self._keep(deliver())

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._late.add(task)
        task.add_done_callback(self._late.discard)


def _canned(status: int, code: str) -> Answer:
    head = [b"HTTP/1.1 %d Made up" % status, b"Content-Type: application/xml"]
    return Answer(head, _ERROR.format(code).encode())


def _flipped(request: Request) -> Request:
    body = bytearray(request.body)
    body[len(body) // 2] ^= 1
    return replace(request, body=bytes(body))


def _body(request: Request, answer: Answer) -> bytes:
    return b"" if request.method == "HEAD" else answer.body


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def _cut(fault: str, answer: Answer, writer: asyncio.StreamWriter, request: Request) -> bool:
    """Answer with less, in a way that HTTP has nothing against; whether that was possible."""
    if fault == "untold":
        if b"<ListBucketResult" not in answer.body:
            return False
        told = re.sub(rb"<IsTruncated>\w+<", b"<IsTruncated>true<", answer.body)
        answer.body = re.sub(rb"<NextContinuationToken>.*?</NextContinuationToken>", b"", told)
    elif answer.body:
        answer.body = answer.body[: len(answer.body) // 2]
    else:
        return False
    await _send(writer, answer.encode() + _body(request, answer))
    return True


async def _break_off(fault: str, answer: Answer, writer: asyncio.StreamWriter) -> None:
    """End the connection in order, too early."""
    whole = fault == "long"
    sent = answer.body if whole else answer.body[: len(answer.body) // 2]
    await _send(writer, answer.encode(len(answer.body) + (7 if whole else 0)) + sent)
    writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close the connection with a RST."""
    raw = writer.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
