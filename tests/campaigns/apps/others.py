"""Clients that are not the page: plain HTTP, ``gradio_client``, and MCP over both transports.

Each hands the links that it is given to another program without a cookie.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from typing import Any, Final

import httpx

from tests.campaigns.apps.notes import Notes, digest
from tests.campaigns.apps.page import PATIENCE, EventError, Files, client, upload
from tests.campaigns.apps.samples import FILES, SAMPLES, plausible, sample_for
from tests.campaigns.apps.settings import Settings
from tests.support.mcp_client import mcp_session

_url: Final = re.compile(r"https?://[^\s\"'<>()\\]*/gradio_api/file=[^\s\"'<>()\\]+")
_MOST: Final = 10
"""Endpoints of an app that such a client calls at most."""


def by_http(notes: Notes, settings: Settings, files: Files, reader: httpx.Client) -> None:
    """Call each public endpoint as a program does that knows no Gradio."""
    if settings.login is not None:
        return  # it needs a cookie then, and is a page's visitor
    with httpx.Client(timeout=PATIENCE) as sender:
        config = sender.get(f"{notes.url}/config").json()
        components = {each["id"]: each for each in config["components"]}
        for dependency in _public(config):
            step = f"http: {dependency['api_name']}"
            try:
                data = [
                    plausible(
                        components.get(each, {"type": "state"}),
                        components.get(each, {}).get("props", {}).get("value"),
                        lambda name: upload(sender, f"{notes.url}/gradio_api/upload", name, "http"),
                    )
                    for each in dependency["inputs"]
                ]
                output = _called(sender, notes.url, dependency["api_name"], data)
            except (httpx.HTTPError, EventError) as error:
                notes.add(step, False, f"{type(error).__name__} {error}")
                continue
            notes.add(step, True, output)
            files.fetch(sender, f"{step}, by itself", output)
            files.fetch(reader, f"{step}, by another", output)


def _public(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        each
        for each in config["dependencies"]
        if each.get("api_name") and each.get("backend_fn")
        and each.get("api_visibility", "public") == "public"
        and each.get("show_api", True)
    ][:_MOST]  # fmt: skip


def _called(by: httpx.Client, url: str, name: str, data: list[Any]) -> Any:
    joined = by.post(f"{url}/gradio_api/call/{name}", json={"data": data})
    if not joined.is_success:
        raise EventError(f"{joined.status_code} {joined.text}")
    event_id = joined.json()["event_id"]
    kind, deadline, last = "", time.monotonic() + PATIENCE, None
    with by.stream("GET", f"{url}/gradio_api/call/{name}/{event_id}") as stream:
        for line in stream.iter_lines():
            if time.monotonic() > deadline:
                raise EventError("no end")
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: ") and kind in {"complete", "generating"}:
                last = json.loads(line.removeprefix("data: "))
            elif line.startswith("data: ") and kind == "error":
                raise EventError(line)
    return last


def by_client(notes: Notes, settings: Settings, files: Files, reader: httpx.Client) -> None:
    """Call each public endpoint as ``gr.load`` does: with a ``gradio_client`` on a server."""
    import gradio_client  # type: ignore[import-untyped]  # it has no types

    options: dict[str, Any] = {} if settings.login is None else {"auth": settings.login}
    calls = gradio_client.Client(
        notes.url, download_files=False, verbose=False, analytics_enabled=False, **options
    )
    try:
        described = calls.view_api(print_info=False, return_format="dict")
        for name, endpoint in list(described["named_endpoints"].items())[:_MOST]:
            step = f"client: {name}"
            try:
                arguments = [_argument(each) for each in endpoint["parameters"]]
                output = calls.submit(*arguments, api_name=name).result(timeout=PATIENCE)
            except Exception as error:  # noqa: BLE001 - whatever an app raises is the outcome
                notes.add(step, False, f"{type(error).__name__} {error}")
                continue
            notes.add(step, True, output)
            if settings.login is None:
                files.fetch(reader, f"{step}, by another", output)
    finally:
        calls.close()


def _argument(parameter: dict[str, Any]) -> Any:
    """Return an argument for a parameter that ``view_api`` describes."""
    from gradio_client import handle_file

    kind = parameter["component"].lower()
    if kind in FILES or kind in {"file", "image"}:
        sample = _kept(FILES.get(kind, sample_for({})))
        several = "list" in parameter["python_type"]["type"].lower()
        return [handle_file(sample)] if several else handle_file(sample)
    if kind == "multimodaltextbox":
        return {"text": "look", "files": [handle_file(_kept("cat.png"))]}
    if kind == "gallery":
        return [{"image": handle_file(_kept("cat.png")), "caption": None}]
    if parameter.get("parameter_has_default"):
        return parameter["parameter_default"]
    return parameter["example_input"]


def _kept(name: str) -> str:
    """Return the path of a sample on this disk."""
    import tempfile
    from pathlib import Path

    path = Path(tempfile.gettempdir()) / "sessionstore-samples" / name
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(SAMPLES[name])
    return str(path)


def by_mcp(notes: Notes, files: Files, reader: httpx.Client) -> None:
    """Call each tool over streamable HTTP and SSE; read the results while the session lives."""
    with client() as asking:
        answer = asking.get(f"{notes.url}/config")
    if not answer.is_success or not answer.json().get("mcp_server"):
        return
    for transport in ("http", "sse"):
        try:
            asyncio.run(_tools(transport, notes, files, reader))
        except Exception as error:  # noqa: BLE001 - whatever a server does is the outcome
            notes.add(f"mcp by {transport}", False, f"{type(error).__name__} {error}")


async def _tools(transport: str, notes: Notes, files: Files, reader: httpx.Client) -> None:
    async with mcp_session(notes.url, transport) as session:
        for tool in (await session.list_tools()).tools[:_MOST]:
            step = f"mcp by {transport}: {tool.name}"
            result = await session.call_tool(tool.name, _arguments(tool.inputSchema))
            shown = [_shown(each) for each in result.content]
            notes.add(step, not result.isError, shown)
            for number, url in enumerate(_url.findall(json.dumps(shown)), 1):
                await asyncio.to_thread(files.one, reader, f"{step}, file {number}", url)


def _shown(content: Any) -> str:
    """Return the text of a part of a result, or the digest of an inline picture's pixels."""
    if content.type == "image":
        return f"image {content.mimeType} {digest(base64.b64decode(content.data))}"
    return str(getattr(content, "text", content))


def _arguments(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _value(part)
        for name, part in schema.get("properties", {}).items()
        if name in schema.get("required", schema["properties"])
    }


def _value(part: dict[str, Any]) -> Any:
    if "url" in str(part.get("format", "")):
        return "data:image/png;base64," + base64.b64encode(SAMPLES["cat.png"]).decode()
    if "enum" in part:
        return part["enum"][0]
    simple = {"string": "hello", "number": 3, "integer": 3, "boolean": True, "object": {}}
    if part.get("type") == "array":
        return [_value(part.get("items", {}))]
    return part.get("default", simple.get(str(part.get("type")), "hello"))
