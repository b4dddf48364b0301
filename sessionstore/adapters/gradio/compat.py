"""Everything that this adapter uses of Gradio's private inside, except the patched functions.

The other modules of the adapter call the functions here and import no private name of Gradio.
``check`` looks at every name that is used here or patched in ``patches``; ``check_app`` looks
at every route and attribute of an app. So an unknown Gradio gives one SettingsError when a demo is
attached, and no ImportError or AttributeError later.

A name is written ``module:attribute.attribute`` and is looked up when it is used: this module can
be imported without Gradio, and with a Gradio that lacks a name.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib
import inspect
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.routing import Match

from sessionstore.adapters import cookies
from sessionstore.errors import SettingsError

if TYPE_CHECKING:
    from gradio import Blocks
    from gradio.routes import App
    from starlette.requests import Request

_PARAMETERS: Final[dict[str, tuple[str, ...]]] = {
    "gradio.routes:App.create_app": ("blocks",),
    "gradio.routes:App.get_blocks": ("self",),
    "gradio.blocks:Blocks.get_config_file": ("self",),
    "gradio.blocks:Blocks.launch": ("self",),
    "gradio.blocks:Blocks.process_api": (
        "self",
        "block_fn",
        "inputs",
        "state",
        "request",
        "iterator",
    ),
    "gradio.blocks:Blocks.preprocess_data": ("self", "block_fn", "inputs", "state"),
    "gradio.blocks:Blocks.postprocess_data": ("self", "block_fn", "predictions", "state"),
    "gradio.blocks:Block.async_move_resource_to_block_cache": ("self", "url_or_file_path"),
    "gradio.blocks:Block.move_resource_to_block_cache": ("self", "url_or_file_path"),
    "gradio.processing_utils:async_move_files_to_cache": ("data", "block", "postprocess"),
    "gradio.queueing:Queue.process_events": ("self", "events", "batch"),
    "gradio.queueing:Queue.send_message": ("self", "event", "event_message"),
    "gradio.route_utils:GradioUploadFile.__init__": ("self", "file"),
    "gradio.route_utils:GradioUploadFile.write": ("self", "data"),
    "gradio.component_meta:updateable": ("fn",),
    "gradio.utils:is_in_or_equal": ("path_1", "path_2"),
    "gradio_client.utils:strip_invalid_filename_characters": ("filename",),
}
"""The functions that are called or patched, each with its first parameters."""

_TYPES: Final[dict[str, type]] = {
    "gradio.processing_utils:hash_seed": bytes,
    "gradio.data_classes:_StaticFiles.all_paths": list,
    "gradio.exceptions:InvalidPathError": type,
    "gradio.context:Context.root_block": object,
}
"""The other names, each with its type."""

_ROUTES: Final = (
    ("GET", "/gradio_api/heartbeat/id"),
    ("GET", "/gradio_api/file=path"),
    ("HEAD", "/gradio_api/file=path"),
    ("POST", "/gradio_api/upload"),
    ("GET", "/config"),
)
"""A request for each route that the middleware knows."""

_OF_THE_APP: Final = ("auth", "auth_dependency", "cookie_id", "tokens", "user_middleware")
_OF_THE_DEMO: Final = (
    "GRADIO_CACHE", "app_id", "blocks", "delete_cache", "fns", "is_running", "temp_files", "title",
)  # fmt: skip

MCP_SESSION: Final = "x-sessionstore-mcp"
"""The header in which the middleware notes the MCP session of a request."""

_MCP: Final = "/gradio_api/mcp"
_heartbeat = re.compile(r"/gradio_api/heartbeat/([^/]+)/?").fullmatch
_file = re.compile(r"/gradio_api/file[=/](.*)", re.DOTALL).fullmatch


# Checks


def check(demo: Blocks | App) -> None:
    """Raise SettingsError, naming the difference, when this Gradio is not one we know."""
    for path, parameters in _PARAMETERS.items():
        actual = tuple(inspect.signature(find(path)).parameters)[: len(parameters)]
        if actual != parameters:
            _refuse(f"has another {_short(path)}, with the parameters {', '.join(actual)}")
    for path, kind in _TYPES.items():
        if not isinstance(find(path), kind):
            _refuse(f"has another {_short(path)}, which is no {kind.__name__}")
    if not hasattr(find("gradio.route_utils:GradioUploadFile")(io.BytesIO()), "sha"):
        _refuse("has no GradioUploadFile.sha")
    if not _arguments_are_noted():
        _refuse("has no Component._constructor_args")
    for name in () if isinstance(demo, FastAPI) else _OF_THE_DEMO:
        if not hasattr(demo, name):
            _refuse(f"has no Blocks.{name}")


def check_app(app: App) -> None:
    """Raise SettingsError, naming the difference, when an app of Gradio is not as we know it."""
    for name in _OF_THE_APP:
        if not hasattr(app, name):
            _refuse(f"has no App.{name}")
    for method, path in _ROUTES:
        scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": []}
        # The routes are tried and not listed: FastAPI may keep those of a router in one entry.
        if all(route.matches(scope)[0] is not Match.FULL for route in app.routes):
            _refuse(f"has no route for {method} {path}")


def find(path: str) -> Any:
    """Return the object that ``path`` names. Raises SettingsError when Gradio does not have it."""
    module, _, names = path.partition(":")
    try:
        value = importlib.import_module(module)
        for name in names.split("."):
            value = getattr(value, name)
    except (ImportError, AttributeError) as error:
        _refuse(f"has no {_short(path)}", error)
    return value


def _short(path: str) -> str:
    module, _, names = path.partition(":")
    # ``App.create_app`` says enough; a plain ``hash_seed`` needs the name of its module.
    return names if "." in names else f"{module.rpartition('.')[2]}.{names}"


def _refuse(difference: str, cause: Exception | None = None) -> NoReturn:
    raise SettingsError(
        f"This version of Gradio {difference}, which attach() needs: use Gradio 5 or 6, or a newer "
        "sessionstore."
    ) from cause


def _arguments_are_noted() -> bool:
    """Return whether Gradio notes the arguments of a component where ``arguments_of`` reads."""

    class Component:
        pass

    component = Component()
    find("gradio.component_meta:updateable")(lambda self: None)(component)  # noqa: ARG005 - a method
    return isinstance(getattr(component, "_constructor_args", None), list)


# Logins


def owner_of(login: str | None, request: Request) -> str | None:
    """Return the owner of a request: its login (or OAuth login), else its cookie, else None."""
    login = _oauth_login(request) if login is None else login
    return cookies.owner(request) if login is None else cookies.of_login(login)


def _oauth_login(request: Request) -> str | None:
    """Return the user name of a login by ``gr.LoginButton``, None without one.

    It stays when the token expires: a page that is open keeps its files.
    """
    info = request.scope.get("session", {}).get("oauth_info")
    name = info.get("userinfo", {}).get("preferred_username") if isinstance(info, dict) else None
    return name if isinstance(name, str) and name else None


def needs_login(app: App) -> bool:
    """Return whether the app lets in logged-in visitors only, as Gradio's ``login_check`` does."""
    return app.auth is not None or app.auth_dependency is not None


async def login_of(app: App, request: Request) -> str | None:
    """Return the login name of a request, None when it is not logged in.

    This repeats Gradio's ``get_current_user``, which is a closure and cannot be called.
    """
    if app.auth_dependency is not None:
        user = await run_in_threadpool(app.auth_dependency, request)
        return await user if inspect.isawaitable(user) else user
    for name in (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}"):
        if token := request.cookies.get(name):
            return app.tokens.get(token)
    return None


def name_of(block_fn: Any, demo: Blocks) -> str:
    """Return the name of an event in its app."""
    function = demo.fns[block_fn] if isinstance(block_fn, int) else block_fn
    return str(function.api_name or function.name)


def cache_class() -> Any:
    """Return the class of the caches of ``gr.cache``; None before Gradio 6.12, which has none."""
    try:
        found = find("gradio.caching:_CacheStore")
    except SettingsError:
        return None
    for name, parameters in (("put", ("self", "key_hash")), ("get", ("self", "key_hash"))):
        if tuple(inspect.signature(getattr(found, name)).parameters)[:2] != parameters:
            _refuse(f"has another gr.cache, with another {name}")
    return found


def values_in(cache: Any) -> list[Any]:
    """Return the values of all entries of a cache of ``gr.cache``."""
    with cache._lock:  # noqa: SLF001 - Gradio has no public way
        return [value for entry in cache._exact.values() for value in entry.values()]  # noqa: SLF001 - as above


# Run history


def history_modules() -> tuple[Any, Any] | None:
    """Return the modules of the run history and of the routes; None before Gradio 6.27."""
    try:
        find("gradio.history:record_run"), find("gradio.route_utils:record_run_history")
        find("gradio.history:resolve_target")
    except SettingsError:
        return None
    return find("gradio:history"), find("gradio:route_utils")


def has_history_bucket(app: App, run: dict[str, Any]) -> bool:
    """Return whether Gradio saves this run in a bucket of the visitor's."""
    chosen = {name: run.get(name) for name in ("bucket_id", "app_id")}
    return find("gradio.history:resolve_target")(app, run["request"], **chosen) is not None


def is_in_history(app: App, run: dict[str, Any]) -> bool:
    """Return whether the history of the page shows this run."""
    shown = run.get("is_final", True) and run["fn"].api_visibility == "public"
    return bool(shown and getattr(app.get_blocks(), "run_history", False))


def app_id(demo: Blocks, secret: bytes) -> int:
    """Return an id that all replicas and restarts of an app have, until its parts change.

    Gradio makes a random one for each process. The run history is filed under it, and a page that
    reconnects to another id reloads itself.
    """
    # Not the ids: they count all components of the process.
    parts = [str(demo.title), *(type(block).__name__ for block in demo.blocks.values())]
    parts += [str(function.api_name) for function in demo.fns.values()]
    text = "\n".join(["gradio app id", *parts]).encode(errors="surrogatepass")
    digest = hmac.new(secret, text, hashlib.sha256).digest()
    return int.from_bytes(digest[:6], "big")  # JavaScript has whole numbers of up to 53 bits


# Senders of events


def connection_of(request: Any) -> Request | None:
    """Return the HTTP request of an event: that of a ``gr.Request``, or the request itself.

    An MCP call of an event with ``queue=False`` passes the bare request of Starlette.
    """
    if isinstance(request, HTTPConnection):
        return cast("Request", request)
    return getattr(request, "request", None)


def mcp_session_of(connection: Request) -> str | None:
    """Return the id of the MCP session that an event comes from, None for any other event.

    Gradio runs the tools through a client of its own, which passes on the headers of the call.
    """
    return connection.headers.get(MCP_SESSION)


def is_program(owner: str | None, connection: Request) -> bool:
    """Return whether an event comes from a program and not from a page of the app.

    Gradio's clients say in a header which of the two they are; older ones say nothing.
    """
    user = connection.headers.get("x-gradio-user")
    return owner is None or user in {"api", "mcp"} or (user is None and cookies.is_program(owner))


# Routes, each given as the path below the app's own root


def heartbeat_of(route: str) -> str | None:
    """Return the session id in the route of a heartbeat, None for any other route."""
    match = _heartbeat(route)
    return None if match is None else match[1]


def file_of(route: str) -> str | None:
    """Return the path or URL in the route of a file, None for any other route."""
    match = _file(route)
    return None if match is None else match[1]


def is_mcp(route: str) -> bool:
    """Return whether the route is one of the MCP server."""
    return route == _MCP or route.startswith(_MCP + "/")


def is_upload(route: str) -> bool:
    """Return whether the route takes uploads."""
    return route.removesuffix("/") == "/gradio_api/upload"


def is_config(route: str) -> bool:
    """Return whether the route gives the demo's configuration."""
    return route.removesuffix("/") == "/config"


# The cache directory


def hash_seed() -> bytes:
    """Return the bytes that Gradio hashes first for each path of its cache."""
    seed: bytes = find("gradio.processing_utils:hash_seed")
    return seed


def set_hash_seed(seed: bytes) -> None:
    """Have Gradio make the paths of its cache with ``seed``."""
    find("gradio:processing_utils").hash_seed = seed


def cache_hasher() -> hashlib._Hash:
    """Return a hash that, fed with a file's bytes, names the file's directory in the cache."""
    return hashlib.sha256(hash_seed())


def cache_name(path: str) -> str:
    """Return the name that ``processing_utils.save_file_to_cache`` gives to a copy of ``path``."""
    name: str = find("gradio_client.utils:strip_invalid_filename_characters")(Path(path).name)
    return name


def is_public(app: App, path: str, root: Path) -> bool:
    """Return whether the app makes ``path`` public by naming a place inside the cache ``root``.

    ``allowed_paths`` and ``gr.set_static_paths`` name such places. One that contains the whole
    cache does not count: it would make the files of all visitors public.
    """
    is_in = find("gradio.utils:is_in_or_equal")
    places = [
        *app.get_blocks().allowed_paths,
        *find("gradio.data_classes:_StaticFiles.all_paths"),
    ]
    return any(
        is_in(path, place) for place in places if is_in(place, root) and not is_in(root, place)
    )


def moved_files(demo: Blocks) -> set[str]:
    """Return the paths in the cache of the files that came with the demo's components."""
    return {path for block in demo.blocks.values() for path in block.temp_files}


def values_of(demo: Blocks) -> list[Any]:
    """Return the values that the demo's components have before any event."""
    return [getattr(block, "value", None) for block in demo.blocks.values()]


# Events and components


def is_being_built(demo: Blocks) -> bool:
    """Return whether the code is inside the demo's ``with`` block."""
    return find("gradio.context:Context.root_block") is demo


def invalid_path(message: str) -> Exception:
    """Return the error that Gradio raises for an input that the visitor may not use."""
    error: Exception = find("gradio.exceptions:InvalidPathError")(message)
    return error


def arguments_of(value: Any) -> list[dict[str, Any]]:
    """Return the arguments of a component that is returned as an update, such as ``gr.Image(...)``.

    The list is empty for anything else.
    """
    arguments = getattr(value, "_constructor_args", None)
    return arguments if isinstance(arguments, list) else []


def set_arguments(component: Any, arguments: list[dict[str, Any]]) -> None:
    """Replace the arguments of a component that is returned as an update."""
    component._constructor_args = arguments  # noqa: SLF001 - Gradio has no public way
