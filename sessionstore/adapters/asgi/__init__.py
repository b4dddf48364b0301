"""Serve and receive stored files over HTTP in any ASGI app, such as FastAPI or Starlette."""

from __future__ import annotations

from sessionstore.adapters.asgi.app import Files, OwnerCookie, Visitor, owner, same_origin

__all__ = ["Files", "OwnerCookie", "Visitor", "owner", "same_origin"]
