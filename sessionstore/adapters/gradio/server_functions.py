"""Functions of components that a page's script calls: those of ``gr.Workflow``, of ``gr.HTML``.

Gradio calls them outside any event. So files that they write into its cache, and link to in their
results, would belong to no visitor.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request

from sessionstore.adapters.gradio import compat, events
from sessionstore.adapters.gradio.paths import links_in
from sessionstore.adapters.gradio.presence import ARRIVED, CALLER, Visitor
from sessionstore.errors import InvalidName
from sessionstore.names import session_key

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from sessionstore.adapters.gradio.attached_store import Service

_OK: Final = 200


async def call(app: ASGIApp, scope: Scope, receive: Receive, send: Send, service: Service) -> None:
    """Answer a call when the linked files are in the store, as files of the visitor's session.

    Raises SessionStoreError before anything of the response is sent.
    """
    request = Request(scope)
    owner = compat.owner_of(await compat.login_of(scope["app"], request), request)
    messages: list[Message] = []
    if _is_json(request.headers):  # else it is a form, whose files Gradio passes on as bytes
        messages.append(await receive())
        while messages[-1]["type"] == "http.request" and messages[-1].get("more_body"):
            messages.append(await receive())
    given = _parsed(b"".join(message.get("body", b"") for message in messages))

    async def receive_again() -> Message:
        return messages.pop(0) if messages else await receive()

    scope[CALLER] = _visitor(given, owner)
    caller = events.Sender(owner, scope[CALLER], scope[ARRIVED])
    event = events.Event(service, [caller], events.Pins(service.files.local))
    event.place = str(given.get("fn_name")) if isinstance(given, dict) else "component_server"
    held: list[Message] = []

    async def hold(message: Message) -> None:
        if message["type"] == "http.response.start":
            is_result = message["status"] == _OK and _is_json(Headers(scope=message))
            held.extend([message] if is_result else [])
        if not held:
            await send(message)
        elif message is not held[0]:
            held.append(message)

    with events.running(event, None):
        await event.recall(list(links_in(given)))
        await app(scope, receive_again, hold)
        if not held:
            return
        start, body = held[0], b"".join(message.get("body", b"") for message in held[1:])
        result = _parsed(body)
        adopted = await event.adopt(result)
    if adopted is not result:
        body = json.dumps(adopted).encode()
        MutableHeaders(scope=start)["content-length"] = str(len(body))
    await send(start)
    await send({"type": "http.response.body", "body": body})


def _is_json(headers: Headers) -> bool:
    return headers.get("content-type", "").startswith("application/json")


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:  # the function's own response, or Gradio answers it
        return None


def _visitor(given: Any, owner: str | None) -> Visitor | None:
    """Return the visitor whose page calls, None for a call without a valid session id."""
    try:
        return Visitor(session_key(str(given["session_hash"]), owner).id, owner)
    except (InvalidName, LookupError, TypeError):
        return None
