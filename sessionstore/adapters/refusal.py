"""The refusal of an upload while its rest is still being sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Message, Receive, Scope, Send

_LINGER: Final = 2.0  # seconds for which the rest of a refused upload is read and discarded


class Receiving:
    """Receives the messages of a request, and notes when its body is over."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.over: bool = False

    async def __call__(self) -> Message:
        message = await self._receive()
        self.over = not message.get("more_body", False)
        return message


async def refuse(response: Response, scope: Scope, body: Receiving, send: Send) -> None:
    """Send a response without a stream to a request whose body may not be over.

    If the connection was closed at once, the system would reset it because of the unread bytes,
    and the client might lose the response (RFC 9112, section 9.6). So the whole response is sent,
    and the rest of the upload is read and discarded for ``_LINGER`` seconds.
    """
    if scope["http_version"].startswith("1") and not body.over:  # later ones have no such header
        response.headers["Connection"] = "close"
    status, headers = response.status_code, response.raw_headers
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    with anyio.move_on_after(_LINGER):
        while not body.over:
            await body()
    await send({"type": "http.response.body", "body": b"", "more_body": False})
