"""The two places where Gradio is changed, found by name and checked before anything is touched.

* ``App.create_app``, which every way of serving a demo goes through (``launch``, ``queue``,
  ``mount_gradio_app``): the app of an attached demo gets the middleware and a lifespan.
* ``get_config_file`` of an attached demo: Gradio's pages open a heartbeat only when the demo has a
  ``gr.State`` or an ``unload`` event (``gradio.utils.connect_heartbeat``); ours always do.

Both have been there under these names from Gradio 5.0 on.
"""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any, Final

from gradio.blocks import Blocks
from gradio.routes import App
from starlette.concurrency import run_in_threadpool

from sessionstore.adapters.gradio_middleware import SessionFiles
from sessionstore.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sessionstore.adapters.gradio_service import Service

    ServiceOf = Callable[[App], Service | None]

_ORIGINAL: Final = "__sessionstore_original__"


def check() -> None:
    """Raise SettingsError, naming what is missing, when this Gradio is not one we know."""
    for owner, name in ((App, "create_app"), (App, "get_blocks"), (Blocks, "get_config_file")):
        if not callable(getattr(owner, name, None)):
            raise SettingsError(
                f"This version of Gradio has no {owner.__name__}.{name}, which attach() needs: "
                "use Gradio 5 or 6, or a newer sessionstore."
            )


def install(service_of: ServiceOf) -> None:
    """Have every app that is created from here on equipped, if ``service_of`` knows it."""
    original = App.create_app
    if hasattr(original, _ORIGINAL):
        return

    @functools.wraps(original)
    def create_app(*args: Any, **kwargs: Any) -> App:
        app = original(*args, **kwargs)
        if service_of(app) is not None:
            _equip(app, service_of)
        return app

    setattr(create_app, _ORIGINAL, original)
    App.create_app = staticmethod(create_app)  # type: ignore[method-assign]  # this is the hook


def uninstall() -> None:
    """Put ``App.create_app`` back, unless somebody has wrapped it since: then ours passes on."""
    original = getattr(App.create_app, _ORIGINAL, None)
    if original is not None:
        App.create_app = staticmethod(original)  # type: ignore[method-assign]  # as above


def force_heartbeat(demo: Blocks) -> None:
    """Have the demo's pages open a heartbeat."""
    original = demo.get_config_file

    @functools.wraps(original)
    def get_config_file() -> Any:
        config = original()
        config["connect_heartbeat"] = True
        return config

    demo.get_config_file = get_config_file  # type: ignore[method-assign]  # this is the hook


def free_heartbeat(demo: Blocks) -> None:
    """Undo ``force_heartbeat``."""
    vars(demo).pop("get_config_file", None)


def rebuild(demo: Blocks) -> None:
    """Make ``demo.config`` anew, and ``demo.app`` unless it serves, as ``Blocks.queue`` does."""
    demo.config = demo.get_config_file()
    if not demo.is_running:
        demo.app = App.create_app(demo, mcp_server=False)


def _equip(app: App, service_of: ServiceOf) -> None:
    """Add the middleware, once, and the lifespan, which a reload replaces."""
    present: list[object] = [each.cls for each in app.user_middleware]
    if SessionFiles not in present:
        app.add_middleware(SessionFiles, service_of=service_of)
    inner = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(served: Any) -> AsyncIterator[Any]:
        async with inner(served) as state:
            service = service_of(app)
            if service is not None:
                service.serving(app)
            try:
                yield state
            finally:
                if service is not None:
                    await run_in_threadpool(service.stopped, app)

    app.router.lifespan_context = lifespan
