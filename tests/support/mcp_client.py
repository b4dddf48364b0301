"""A real MCP client, of the package ``mcp``, for apps with ``mcp_server=True``."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mcp import ClientSession


@contextlib.asynccontextmanager
async def mcp_session(url: str, transport: str = "http") -> AsyncIterator[ClientSession]:
    """Open an initialized session with the app at ``url``, by streamable "http" or by "sse"."""
    from mcp import ClientSession
    from mcp.client import sse, streamable_http

    by_http = getattr(streamable_http, "streamable_http_client", None)
    by_http = by_http or streamable_http.streamablehttp_client  # the name before mcp 1.24
    base = f"{url}/gradio_api/mcp/"
    opened = by_http(base) if transport == "http" else sse.sse_client(f"{base}sse", timeout=60)
    async with opened as streams, ClientSession(*streams[:2]) as session:
        await session.initialize()
        yield session
