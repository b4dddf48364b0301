"""A loopback HTTP server that answers what a test tells it, and notes what it was asked."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. ``length`` is what Content-Length claims, the truth if None."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


def listing(*keys: str, **more: str) -> Reply:
    """The answer to a ListObjectsV2; ``more`` are further elements, such as IsTruncated."""
    contents = "".join(
        f"<Contents><Key>{key}</Key><Size>1</Size>"
        "<LastModified>2026-01-01T12:00:00.000Z</LastModified></Contents>"
        for key in keys
    )
    told = {"IsTruncated": "false", **more}
    elements = "".join(f"<{name}>{text}</{name}>" for name, text in told.items())
    return Reply(body=f"<ListBucketResult>{elements}{contents}</ListBucketResult>".encode())


def refusal(status: int, code: str, message: str = "", **more: str) -> Reply:
    """An S3 error; ``more`` are further elements, such as Region."""
    elements = "".join(f"<{name}>{text}</{name}>" for name, text in more.items())
    body = f"<Error><Code>{code}</Code><Message>{message}</Message>{elements}</Error>"
    return Reply(status, body.encode())


class ScriptedServer:
    """Gives its replies in turn, the last one again and again."""

    def __init__(self) -> None:
        self.replies: list[Reply] = [Reply()]
        self.asked: list[Asked] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def next(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        return self.replies[min(len(self.asked), len(self.replies)) - 1]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                asked = Asked(self.command, self.path, dict(self.headers.items()), body)
                self._answer(server.next(asked))

            def _answer(self, reply: Reply) -> None:
                always = {"Date": formatdate(usegmt=True), "Connection": "close"}
                headers = {**always, **reply.headers}
                length = len(reply.body) if reply.length is None else reply.length
                self.send_response_only(reply.status)
                for name, value in {**headers, "Content-Length": str(length)}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":  # its answer has a length, and no body
                    self.wfile.write(reply.body)
                self.close_connection = True

            def log_message(self, *_: Any) -> None:
                """The test knows."""

        return Handler
