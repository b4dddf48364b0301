"""Who a request of a Gradio app is from: its login, as Gradio itself has it, else its cookie."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool

from sessionstore.adapters.gradio_owner import of_cookie, of_login

if TYPE_CHECKING:
    from gradio.routes import App
    from starlette.requests import Request


def owner_of(login: str | None, request: Request) -> str | None:
    """The owner of what a request does: its login, else its cookie, else nobody."""
    return of_cookie(request) if login is None else of_login(login)


def needs_login(app: App) -> bool:
    """Whether the app lets only visitors in who are logged in; as Gradio's ``login_check``."""
    return app.auth is not None or app.auth_dependency is not None


async def login_of(app: App, request: Request) -> str | None:
    """Who is logged in, as Gradio's ``get_current_user``, which is out of reach in a closure."""
    if app.auth_dependency is not None:
        user = await run_in_threadpool(app.auth_dependency, request)
        return await user if inspect.isawaitable(user) else user
    for name in (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}"):
        if token := request.cookies.get(name):
            return app.tokens.get(token)
    return None
