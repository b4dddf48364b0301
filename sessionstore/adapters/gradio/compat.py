"""Everything that this adapter uses of Gradio's private inside, except the patched functions.

``check`` looks at every name that is used here or patched in ``patches``, ``check_app`` at every
route and attribute of an app: an unknown Gradio gives one SettingsError when a demo is attached.
A name is written ``module:attribute.attribute`` and looked up when it is used, so this module can
be imported with a Gradio that lacks it.
"""

from __future__ import annotations

import hashlib
import hmac
import importlib
import inspect
import io
import mimetypes
import re
import sys
from datetime import datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast
from urllib.parse import quote, unquote, urlsplit

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.responses import FileResponse
from starlette.routing import Match

from sessionstore.adapters import cookies
from sessionstore.adapters.gradio.paths import links_in
from sessionstore.errors import SettingsError

if TYPE_CHECKING:
    from gradio import Blocks
    from gradio.routes import App
    from starlette.requests import Request

_PARAMETERS: Final = {
    "gradio.routes:App.create_app": "blocks",
    "gradio.routes:App.get_blocks": "self",
    "gradio.blocks:Blocks.get_config_file": "self",
    "gradio.blocks:Blocks.launch": "self",
    "gradio.blocks:Blocks.process_api": "self block_fn inputs state request iterator",
    "gradio.blocks:Blocks.preprocess_data": "self block_fn inputs state",
    "gradio.blocks:Blocks.postprocess_data": "self block_fn predictions state",
    "gradio.blocks:Block.async_move_resource_to_block_cache": "self url_or_file_path",
    "gradio.blocks:Block.move_resource_to_block_cache": "self url_or_file_path",
    "gradio.processing_utils:async_move_files_to_cache": "data block postprocess",
    "gradio.queueing:Queue.process_events": "self events batch",
    "gradio.queueing:Queue.send_message": "self event event_message",
    "gradio.route_utils:get_root_url": "request route_path root_path",
    "gradio.route_utils:GradioUploadFile.__init__": "self file",
    "gradio.route_utils:GradioUploadFile.write": "self data",
    "gradio.route_utils:GradioUploadFile.seek": "self offset",
    "gradio.component_meta:updateable": "fn",
    "gradio.state_holder:StateHolder.delete_all_expired_state": "self",
    "gradio.state_holder:SessionState.__init__": "self blocks",
    "gradio.utils:is_allowed_file": "path blocked_paths allowed_paths created_paths",
    "gradio.utils:is_in_or_equal": "path_1 path_2",
    "gradio_client.utils:strip_invalid_filename_characters": "filename",
}
"""The functions that are called or patched, each with its first parameters."""

STATE: Final = "gradio.components.state:State"
STATE_HOLDER: Final = "gradio.state_holder:StateHolder"
SESSION_STATE: Final = "gradio.state_holder:SessionState"

CACHE: Final = "gradio.caching:_CacheStore"
"""The class of the caches of ``gr.cache``, from Gradio 6.12 on."""

_OF_A_CACHE: Final = {f"{CACHE}.put": "self key_hash", f"{CACHE}.get": "self key_hash"}
_OF_THE_HISTORY: Final = (
    "gradio.history:record_run", "gradio.route_utils:record_run_history",
    "gradio.history:resolve_target",
)  # fmt: skip
"""The functions of the run history, from Gradio 6.27 on."""

_TYPES: Final[dict[str, type]] = {
    "gradio.processing_utils:hash_seed": bytes,
    "gradio.routes:XSS_SAFE_MIMETYPES": set,
    "gradio.data_classes:_StaticFiles.all_paths": list,
    "gradio.exceptions:InvalidPathError": type,
    "gradio.context:Context.root_block": object,
    "gradio.state_holder:SessionState.state_components": property,
}
"""The other names, each with its type."""

_ROUTES: Final = (
    ("GET", "/gradio_api/heartbeat/id"),
    ("GET", "/gradio_api/file=path"),
    ("HEAD", "/gradio_api/file=path"),
    ("POST", "/gradio_api/upload"),
    ("POST", "/gradio_api/component_server"),
    ("GET", "/config"),
)
"""A request for each route that the middleware knows."""

_OF_THE_APP: Final = ("auth", "auth_dependency", "cookie_id", "tokens", "user_middleware")
_OF_THE_DEMO: Final = (
    "GRADIO_CACHE", "app_id", "blocks", "delete_cache", "fns", "is_running", "temp_files", "title",
)  # fmt: skip

_OF_A_SESSION: Final = (
    "state_data", "_state_ttl", "is_closed", "STATE_TTL_WHEN_CLOSED", "blocks_config",
)  # fmt: skip

MCP_SERVER: Final = "gradio.mcp:GradioMCPServer"
MCP_SESSION: Final = "x-sessionstore-mcp"
"""The header in which the middleware notes the MCP session of a request."""

ZIP: Final = "/gradio_api/sessionstore/my-files.zip"
"""The route of the zip of a visitor's files, which is ours and not Gradio's."""

_known_route = re.compile(
    r"/gradio_api/heartbeat/(?P<heartbeat>[^/]+)/?"
    r"|/gradio_api/file[=/](?P<file>.*)"
    r"|/gradio_api/(?P<upload>upload)/?"
    r"|/gradio_api/upload/(?P<pieces>pieces(?:/[^/]*)?)/?"
    r"|/gradio_api/(?P<function>component_server)/?"
    r"|/gradio_api/(?P<mcp>mcp)(?:/.*)?"
    rf"|(?P<zip>{re.escape(ZIP)})"
    r"|/(?P<config>config)/?",
    re.DOTALL,
).fullmatch


# Checks


def check(demo: Blocks | App) -> None:
    """Raise SettingsError, naming the difference, when this Gradio is not one we know."""
    _check_parameters(_PARAMETERS)
    for path, kind in _TYPES.items():
        if not isinstance(find(path), kind):
            _refuse(f"has another {_short(path)}, which is no {kind.__name__}")
    if not hasattr(find("gradio.route_utils:GradioUploadFile")(io.BytesIO()), "sha"):
        _refuse("has no GradioUploadFile.sha")
    component = SimpleNamespace()
    find("gradio.component_meta:updateable")(lambda self: None)(component)  # noqa: ARG005 - a method
    if not isinstance(getattr(component, "_constructor_args", None), list):
        _refuse("has no Component._constructor_args")
    if isinstance(demo, FastAPI):
        return
    for name in _OF_THE_DEMO:
        if not hasattr(demo, name):
            _refuse(f"has no Blocks.{name}")
    session = find(SESSION_STATE)(demo)
    for name in _OF_A_SESSION:
        if not hasattr(session, name):
            _refuse(f"has no SessionState.{name}")


def _check_parameters(functions: dict[str, str]) -> None:
    for path, given in functions.items():
        parameters = given.split()
        actual = list(inspect.signature(find(path)).parameters)[: len(parameters)]
        if actual != parameters:
            _refuse(f"has another {_short(path)}, with the parameters {', '.join(actual)}")


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
        value = sys.modules.get(module) or importlib.import_module(module)
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


# Logins


def owner_of(login: str | None, request: Request) -> str | None:
    """Return the owner of a request: its login (or OAuth login), else its cookie, else None."""
    login = _oauth_login(request) if login is None else login
    return cookies.owner(request) if login is None else cookies.of_login(login)


def _oauth_login(request: Request) -> str | None:
    """Return the user name of a login by ``gr.LoginButton``, also when its token expired."""
    info = request.scope.get("session", {}).get("oauth_info")
    name = info.get("userinfo", {}).get("preferred_username") if isinstance(info, dict) else None
    return name if isinstance(name, str) and name else None


def needs_login(app: App) -> bool:
    """Return whether the app lets in logged-in visitors only, as Gradio's ``login_check`` does."""
    return app.auth is not None or app.auth_dependency is not None


async def login_of(app: App, request: Request) -> str | None:
    """Return the login name of a request, as Gradio's closure ``get_current_user`` does."""
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


def has_cache() -> bool:
    """Return whether this Gradio has ``gr.cache``. Raises SettingsError if it is another."""
    has = _has(CACHE)
    if has:
        _check_parameters(_OF_A_CACHE)
    return has


def values_in(cache: Any) -> list[Any]:
    """Return the values of all entries of a cache of ``gr.cache``."""
    with cache._lock:  # noqa: SLF001 - Gradio has no public way
        return [value for entry in cache._exact.values() for value in entry.values()]  # noqa: SLF001 - as above


# Run history


def has_history() -> bool:
    """Return whether this Gradio has a run history."""
    return _has(*_OF_THE_HISTORY)


def _has(*paths: str) -> bool:
    try:
        return all(find(path) for path in paths)
    except SettingsError:
        return False


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

    Gradio's own is random. The run history is filed under it, and a page that reconnects to another
    id reloads itself.
    """
    # Not the ids: they count all components of the process.
    parts = [str(demo.title), *(type(block).__name__ for block in demo.blocks.values())]
    parts += [str(function.api_name) for function in demo.fns.values()]
    text = "\n".join(["gradio app id", *parts]).encode(errors="surrogatepass")
    digest = hmac.new(secret, text, hashlib.sha256).digest()
    return int.from_bytes(digest[:6], "big")  # JavaScript has whole numbers of up to 53 bits


# Senders of events


def connection_of(request: Any) -> Request | None:
    """Return the HTTP request of an event: a ``gr.Request`` has it, an MCP call may be it."""
    if isinstance(request, HTTPConnection):
        return cast("Request", request)
    return getattr(request, "request", None)


def root_of(request: Any) -> str:
    """Return the path at which browsers have the app of an event, without a slash at its end."""
    connection = connection_of(request)
    if connection is None:
        return ""
    _, slash, rest = connection.url.path.partition("/gradio_api/")
    root = getattr(connection.scope.get("app"), "root_path", None)
    url = find("gradio.route_utils:get_root_url")(connection, slash + rest, root)
    return quote(unquote(urlsplit(str(url)).path.rstrip("/")))


def is_program(owner: str | None, connection: Request) -> bool:
    """Return whether the client is no page. Gradio's older clients do not say so in a header."""
    user = connection.headers.get("x-gradio-user")
    return owner is None or user in {"api", "mcp"} or (user is None and cookies.is_program(owner))


def route_of(route: str) -> tuple[str, str]:
    """Return the kind of a route below the app's root, and its session id, path or URL.

    The kinds are heartbeat, file, upload, pieces, function, mcp, zip and config; both are empty for
    others.
    """
    match = _known_route(route)
    kind = None if match is None else match.lastgroup
    return ("", "") if match is None or kind is None else (kind, match[kind])


# MCP


def has_mcp() -> bool:
    """Return whether this Gradio has an MCP server that passes inline pictures on."""
    return _has(f"{MCP_SERVER}.get_svg", f"{MCP_SERVER}.postprocess_output_data")


def svg_of(output: Any) -> tuple[str, bytes]:
    """Return name and content of an output that is an inline SVG picture, else empty ones."""
    name = output.get("orig_name") if isinstance(output, dict) else None
    content = find(f"{MCP_SERVER}.get_svg")(output) if name and has_mcp() else None
    return (name, content) if isinstance(name, str) and content else ("", b"")


# The cache directory


def write_to_cache(content: bytes, name: str, root: Path) -> str:
    """Write a file where Gradio would, and return its path."""
    return str(find("gradio.processing_utils:save_bytes_to_cache")(content, name, str(root)))


def hash_seed() -> bytes:
    """Return the bytes that Gradio hashes first for each path of its cache."""
    return cast("bytes", find("gradio.processing_utils:hash_seed"))


def set_hash_seed(seed: bytes) -> None:
    """Have Gradio make the paths of its cache with ``seed``."""
    find("gradio:processing_utils").hash_seed = seed


def cache_name(path: str) -> str:
    """Return the name that ``processing_utils.save_file_to_cache`` gives to a copy of ``path``."""
    return str(find("gradio_client.utils:strip_invalid_filename_characters")(Path(path).name))


def is_public(app: App, path: str, root: Path) -> bool:
    """Return whether ``allowed_paths`` or ``gr.set_static_paths`` names a place inside ``root``.

    A place that contains the whole cache does not count: the files of all visitors would be public.
    """
    places = [*app.get_blocks().allowed_paths, *find("gradio.data_classes:_StaticFiles.all_paths")]
    return any(
        find("gradio.utils:is_in_or_equal")(path, place)
        for place in places
        if _is_inside(str(place), root)
    )


@lru_cache  # Gradio looks at each folder above both: eight system calls on the event loop
def _is_inside(place: str, root: Path) -> bool:
    is_in = find("gradio.utils:is_in_or_equal")
    return is_in(place, root) and not is_in(root, place)


def file_headers(app: App, path: str, root: Path) -> dict[str, str] | None:
    """Return the headers with which Gradio would send a file of its cache, None if it would not."""
    demo = app.get_blocks()
    allowed = [*demo.allowed_paths, *find("gradio.data_classes:_StaticFiles.all_paths")]
    is_allowed, why = find("gradio.utils:is_allowed_file")(
        Path(path), demo.blocked_paths, allowed, [root]
    )
    kind = mimetypes.guess_type(path)[0]
    shown = kind in find("gradio.routes:XSS_SAFE_MIMETYPES") or why == "allowed"
    response = FileResponse(  # nothing is read from the disk before it is sent
        path,
        media_type=(kind if shown else None) or "application/octet-stream",
        filename=Path(path).name,
        content_disposition_type="inline" if shown else "attachment",
    )
    return dict(response.headers) if is_allowed else None


def own_files(demo: Blocks) -> set[str]:
    """Return the paths of the files that came with the demo's components, as values or in texts."""
    blocks = demo.blocks.values()
    moved = {path for block in blocks for path in block.temp_files}
    return moved.union(links_in([getattr(block, "value", None) for block in blocks]))


# Events and components


def is_being_built(demo: Blocks) -> bool:
    """Return whether the code is inside the demo's ``with`` block."""
    return find("gradio.context:Context.root_block") is demo


def invalid_path(message: str) -> Exception:
    """Return the error that Gradio raises for an input that the visitor may not use."""
    return cast("Exception", find("gradio.exceptions:InvalidPathError")(message))


def arguments_of(value: Any) -> list[dict[str, Any]]:
    """Return the arguments of an update such as ``gr.Image(...)``; none for anything else."""
    arguments = getattr(value, "_constructor_args", None)
    return arguments if isinstance(arguments, list) else []


def set_arguments(component: Any, arguments: list[dict[str, Any]]) -> None:
    """Replace the arguments of a component that is returned as an update."""
    component._constructor_args = arguments  # noqa: SLF001 - Gradio has no public way


# State

_id = attrgetter("_id")
_set_at = attrgetter("_state_ttl")


def states_of(demo: Blocks) -> list[Any]:
    """Return the ``gr.State`` components of a demo in their order, equal in all its processes."""
    state = find(STATE)
    return [block for block in demo.blocks.values() if isinstance(block, state)]


def states_used(block_fn: Any, demo: Blocks) -> list[Any]:
    """Return the ``gr.State`` components that an event gets or sets, each once."""
    function, state = demo.fns[block_fn] if isinstance(block_fn, int) else block_fn, find(STATE)
    used = {_id(block): block for block in (*function.inputs, *function.outputs)}
    return [block for block in used.values() if isinstance(block, state)]


def state_name(block: Any, demo: Blocks) -> str:
    """Return words for the log that tell the author of an app which ``gr.State`` it is."""
    users = [fn.api_name for fn in demo.fns.values() if block in (*fn.inputs, *fn.outputs)]
    used = ", ".join(repr(name) for name in dict.fromkeys(users) if name) or "no event"
    place = next((n for n, each in enumerate(states_of(demo), 1) if each is block), None)
    return f"the gr.State {'of a gr.render' if place is None else f'no. {place}'} (used by {used})"


def new_state(demo: Blocks) -> Any:
    """Return the memory of a new session."""
    return find(SESSION_STATE)(demo)


def has_callback(block: Any) -> bool:
    """Return whether a ``gr.State`` has a ``delete_callback``."""
    # The default is a function of that module, or a lambda in Gradio 5.0.
    return getattr(block.delete_callback, "__module__", None) != STATE.partition(":")[0]


def has_value(state: Any, block: Any) -> bool:
    """Return whether a session has a value of a ``gr.State`` in memory."""
    return _id(block) in state.state_data


def value_of(state: Any, block: Any) -> Any:
    """Return the value of a ``gr.State`` in a session's memory."""
    return state.state_data[_id(block)]


def set_value(state: Any, block: Any, value: Any, since: datetime) -> None:
    """Put a value that was set at the time ``since`` into a session's memory."""
    state.state_data[_id(block)] = value
    _set_at(state)[_id(block)] = (block.time_to_live, since)


def forget_value(state: Any, block: Any) -> None:
    """Remove a value from a session's memory: the next event has the initial one."""
    state.state_data.pop(_id(block), None)
    _set_at(state).pop(_id(block), None)


def set_since(state: Any, block: Any) -> datetime | None:
    """Return the local time when an event set a ``gr.State``, None if it has its initial value."""
    since: datetime | None = _set_at(state).get(_id(block), (0, None))[1]
    return since


def closed_for(state: Any) -> timedelta:
    """Return the time for which Gradio keeps the values of a page that was closed."""
    return timedelta(seconds=state.STATE_TTL_WHEN_CLOSED)


def sessions_in(holder: Any) -> list[tuple[str, Any]]:
    """Return the sessions in the memory of an app, each with its id."""
    return list(holder.session_data.items())
