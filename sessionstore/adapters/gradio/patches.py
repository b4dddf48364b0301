"""The functions of Gradio that are patched. ``compat.check`` looks at all of them first.

All have been there under these names, with these parameters, from Gradio 5.0 to 6.31; those of the
run history and of ``gr.cache`` are newer.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import html
import inspect
import logging
import os
import sys
import weakref
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from gradio import Error
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware

from sessionstore.adapters.gradio import (
    compat,
    event_states,
    events,
    frames,
    upload_pieces,
    uploads_in_progress,
    values,
)
from sessionstore.adapters.gradio.cache import large_to_cache
from sessionstore.adapters.gradio.file_routes import SessionFiles
from sessionstore.adapters.visitor_errors import reply_to, without_details
from sessionstore.errors import SessionStoreError
from sessionstore.storedfile import StoredFile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gradio.blocks import Block, Blocks
    from gradio.queueing import Queue
    from gradio.route_utils import GradioUploadFile
    from gradio.routes import App

    from sessionstore.adapters.gradio.attached_store import Service

    ServiceOf = Callable[[Any], Service | None]
    """Returns the service of an app or demo, or None if it is not attached."""

    Move = Callable[[Block, Any], str | None]
    Async = Callable[..., Awaitable[Any]]

log: Final = logging.getLogger("sessionstore")

_LARGE: Final = 4 << 20
"""Bytes above which a file is hashed and copied here and not by Gradio."""

_installed: Final[dict[tuple[Any, str], tuple[Any, Any]]] = {}
"""The patched functions: by class or module and name, the replacement and the former attribute.

That is None where the class had it from another.
"""

_seeds: Final[list[bytes]] = []
_hooks: Final[list[Any]] = []
_downloads: Final[weakref.WeakValueDictionary[str, asyncio.Lock]] = weakref.WeakValueDictionary()
_signature = functools.cache(inspect.signature)

_made_by_server: Final[ContextVar[Callable[[Blocks], object] | None]] = ContextVar(
    "sessionstore_made_by_server", default=None
)
"""The function to call with the demo that a ``gr.Server`` builds when it is launched."""


def install(service_of: ServiceOf, hash_seed: bytes) -> None:
    """Patch Gradio, so that apps and events of demos known to ``service_of`` use the store.

    Processes with the same ``hash_seed`` have the same paths in Gradio's cache.
    """
    if _installed:
        return
    blocks, block = "gradio.blocks:Blocks", "gradio.blocks:Block"
    file, move = "gradio.route_utils:GradioUploadFile", "move_resource_to_block_cache"
    in_thread = compat.find(f"{block}.{move}")
    _replace("gradio.routes:App", "create_app", partial(_create_app, service_of))
    _replace(blocks, "process_api", partial(_process_api, service_of))
    # For the senders of the samples of a batch, which Gradio 5 does not pass on.
    _replace("gradio.queueing:Queue", "process_events", partial(_process_events, service_of))
    _replace("gradio.queueing:Queue", "send_message", _send_message)
    _replace(blocks, "preprocess_data", _preprocess_data)
    _replace(blocks, "postprocess_data", _postprocess_data)
    _replace(block, f"async_{move}", partial(_async_move, in_thread))
    _replace(block, move, _move)
    _replace("gradio:processing_utils", "async_move_files_to_cache", _move_files)
    _replace(file, "__init__", _file_begins)
    _replace(file, "write", _file_grows)
    _replace(file, "seek", _file_ends)
    _replace(compat.STATE_HOLDER, "delete_all_expired_state", partial(_expire, service_of))
    if compat.has_history():
        _replace("gradio:history", "record_run", partial(_record_run, service_of))
        finished = partial(_record_history, service_of)
        _replace("gradio:route_utils", "record_run_history", finished)
    if compat.has_cache():
        _replace(compat.CACHE, "put", _cache_put)
    if compat.has_mcp():
        _replace(compat.MCP_SERVER, "postprocess_output_data", _mcp_result)
    _seeds.append(compat.hash_seed())
    compat.set_hash_seed(hash_seed)
    if not _hooks:
        _hooks.append(_audit)
        sys.addaudithook(_audit)


def uninstall() -> None:
    """Put Gradio back as it was, except replacements that other code has wrapped since then."""
    for (owner, name), (ours, original) in _installed.items():
        if getattr(owner, name) is not ours:
            continue
        if original is None:
            delattr(owner, name)
        else:
            setattr(owner, name, original)
    _installed.clear()
    while _seeds:
        compat.set_hash_seed(_seeds.pop())


def _replace(where: str, name: str, by: Callable[..., Any]) -> None:
    """Replace a function by ``by``, which gets the original before the arguments."""
    owner = compat.find(where)
    original = getattr(owner, name)

    @functools.wraps(original)
    def replacement(*args: Any, **kwargs: Any) -> Any:
        return by(original, *args, **kwargs)

    former = vars(owner).get(name)
    setattr(owner, name, staticmethod(replacement) if name == "create_app" else replacement)
    _installed[owner, name] = getattr(owner, name), former


def _create_app(
    service_of: ServiceOf, original: Callable[..., App], /, *args: Any, **kwargs: Any
) -> App:
    made = _made_by_server.get()
    if made is not None:
        _made_by_server.set(None)
        made(args[0] if args else kwargs["blocks"])
    app = original(*args, **kwargs)
    if service_of(app) is not None:
        compat.check_app(app)
        _equip(app, service_of)
    return app


async def _process_api(
    service_of: ServiceOf, original: Async, demo: Blocks, /, *args: Any, **kwargs: Any
) -> Any:
    service = service_of(demo)
    if service is None:
        return await original(demo, *args, **kwargs)
    call = _signature(original).bind(demo, *args, **kwargs)
    given = call.arguments
    try:
        event = _event(service, events.senders(_requests(given)))
        if event is None:
            return await original(demo, *args, **kwargs)
        event.place = compat.name_of(given["block_fn"], demo)
        _use_states(event, demo, given)
        shown = None if event.nested else frames.current.get()
        if shown is not None:
            shown.raise_failure()
        with events.running(event, given.get("iterator")):
            try:
                await _load_states(event, given)
                output = await original(*call.args, **call.kwargs)
            except BaseException:
                event.later.clear()
                event.save_states()  # a handler may have changed one before it failed
                await event.saved()  # the error of an output came before Gradio's
                raise
            finally:
                await event.keep_cached()
            await _saved(event, output, shown)
            return output
    except SessionStoreError as error:
        # With ``show_error`` Gradio shows the text of any exception, and the store's errors
        # contain its bucket or path.
        log.warning("An event failed: %s", error)
        words = html.escape(reply_to(error).words, quote=False)  # Gradio shows it as HTML
        raise Error(words) from error
    except Exception as error:
        message = str(error.message if isinstance(error, Error) else error)
        words = without_details(message, error)
        if words == message:
            raise
        log.warning("An event failed: %s", error)
        if isinstance(error, Error):
            error.message = words
            raise
        raise RuntimeError(words) from error


async def _saved(event: events.Event, output: dict[str, Any], shown: frames.Frames | None) -> None:
    """Wait until what the event made is saved, or leave that to ``shown`` while it goes on."""
    event.generator = output.get("iterator")
    event.save_states(goes_on=bool(output.get("is_generating")))
    if shown is not None and output.get("is_generating"):
        await shown.add(await event.leave_saves(), event.pins)
        return
    await event.saved()
    if shown is not None:
        await shown.saved()


def _use_states(event: events.Event, demo: Blocks, given: dict[str, Any]) -> None:
    """Have a visitor's event use the visitor's own values of ``gr.State``."""
    sender, states = event.sender, event.service.states
    event.demo, event.memory = demo, given.get("state")
    alone = not event.nested and len(event.senders) == 1  # Gradio gives a batch the first's memory
    state = given.get("state")
    if states.size is None or state is None or not alone or sender.mcp or sender.visitor is None:
        return
    event.states = event_states.of_event(
        states, demo, given["block_fn"], state, sender.visitor, touch=event.touch
    )
    if event.states is not None:
        given["state"] = event.states.state


async def _load_states(event: events.Event, given: dict[str, Any]) -> None:
    """Load the values of ``gr.State`` while the files of the inputs are moved.

    Gradio looks at them before the inputs, to see which ones change.
    """
    if event.states is not None and given.get("iterator") is None:
        event.load_states()
        event.next_sample(inputs=True)
        event.expect(given["inputs"])
        await event.states.loaded()


def _event(service: Service, senders: list[events.Sender]) -> events.Event | None:
    """Return the event of a call of ``process_api``; None if no visitor sent it."""
    outer = events.current.get()
    if outer is not None and outer.service is service and not outer.over:
        return events.Event(service, senders or outer.senders, outer.pins, nested=True)
    return events.Event(service, senders, events.Pins(service.files.local)) if senders else None


def _requests(given: dict[str, Any]) -> Any:
    request = given.get("request")
    queued = events.queued.get()
    if not isinstance(request, list) or queued is None:
        return request
    # The queue leaves out events of visitors who have left, as it does when it makes the batch.
    alive = [event for event in queued if event.alive]
    samples = len(next(iter(given["inputs"]), alive))
    if len(alive) != samples:
        raise RuntimeError("A visitor of this batch has just left; send the event again.")
    return alive


async def _process_events(
    service_of: ServiceOf, original: Async, queue: Queue, /, *args: Any, **kwargs: Any
) -> None:
    given = _signature(original).bind(queue, *args, **kwargs).arguments
    service = service_of(queue.server_app)
    shown = frames.Frames() if service is not None and service.files.at_once > 1 else None
    tokens = events.queued.set(given["events"]), frames.current.set(shown)
    try:
        await original(queue, *args, **kwargs)
    finally:
        if shown is not None:
            await shown.over()
        events.queued.reset(tokens[0])
        frames.current.reset(tokens[1])


def _send_message(
    original: Callable[..., None], queue: Queue, /, event: Any, event_message: Any
) -> None:
    """Send a message; the value of a generator waits for its files."""
    shown = frames.current.get()
    send = partial(original, queue, event, event_message)
    if shown is None:
        send()
    else:
        shown.send(event_message, send)


async def _preprocess_data(
    original: Async, demo: Blocks, /, block_fn: Any, inputs: Any, *args: Any, **kwargs: Any
) -> Any:
    event = events.current.get()
    if event is not None and event.states is None:  # else they were begun before
        event.next_sample(inputs=True)
        event.expect(inputs)
    given = await original(demo, block_fn, inputs, *args, **kwargs)
    if event is not None:
        event.given(given)
    return given


async def _postprocess_data(
    original: Async, demo: Blocks, /, block_fn: Any, predictions: Any, *args: Any, **kwargs: Any
) -> Any:
    event = events.current.get()
    if event is not None:
        event.next_sample(inputs=False)
        await event.recall(predictions)
        if values.has_stored(predictions):
            predictions = await run_in_threadpool(
                _for_components, block_fn, predictions, event.give
            )
    outputs = await original(demo, block_fn, predictions, *args, **kwargs)
    if event is not None:
        event.save_later()
        outputs = await event.link_pictures(await event.adopt(outputs))
    return outputs


def _for_components(block_fn: Any, predictions: Any, path: Callable[[StoredFile], str]) -> Any:
    """Replace stored files by paths in a handler's outputs, except those for ``gr.State``."""
    outputs = list(block_fn.outputs)

    def convert(output: Any, value: Any) -> Any:
        return value if output.stateful else values.with_paths(value, path)

    if isinstance(predictions, dict) and set(predictions) <= set(outputs):
        return {output: convert(output, value) for output, value in predictions.items()}
    if len(outputs) == 1 and not block_fn.batch:
        return convert(outputs[0], predictions)
    if isinstance(predictions, list | tuple) and len(predictions) == len(outputs):
        return [convert(*pair) for pair in zip(outputs, predictions, strict=True)]
    return predictions  # a wrong number of values: Gradio raises its own error


async def _async_move(
    in_thread: Move, original: Async, block: Block, /, url_or_file_path: Any
) -> Any:
    event = events.current.get()
    if event is None or url_or_file_path is None:
        return await original(block, url_or_file_path)
    path = str(url_or_file_path)
    if path.startswith(("http://", "https://")):
        # Gradio writes a download in place, so a second download would read half of it.
        async with _downloads.setdefault(path, asyncio.Lock()):
            moved = await original(block, url_or_file_path)
    elif event.service.files.paths.relative(path) is None:
        # Gradio copies some outputs twice. The second copy would disturb the save of the first.
        if path not in event.copied:
            copied = await run_in_threadpool(_from_outside, in_thread, block, path)
            event.copied[path] = copied
        moved = event.copied[path]
    else:
        moved = await original(block, url_or_file_path)
    return None if moved is None else await event.move(moved)


async def _move_files(original: Async, /, *args: Any, **kwargs: Any) -> Any:
    event = events.current.get()
    if event is not None and event.links:
        given = _signature(original).bind(*args, **kwargs).arguments
        data = given["data"]
        if given.get("postprocess"):
            event.expect(data.model_dump() if hasattr(data, "model_dump") else data)
    return await original(*args, **kwargs)


def _from_outside(move: Move, block: Block, path: str) -> str | None:
    """Move a file to the cache; copy a large one here, before Gradio would."""
    # Gradio hashes 8 KB at a time and takes the interpreter's lock each time. For gigabytes that
    # delays the event loop, from any thread.
    with contextlib.suppress(OSError):
        if os.path.getsize(path) > _LARGE:
            return large_to_cache(path, block.GRADIO_CACHE)
    return move(block, path)


def _move(original: Move, block: Block, /, url_or_file_path: Any) -> str | None:
    moved = original(block, url_or_file_path)
    event = events.current.get()
    name = None if event is None or moved is None else event.service.files.paths.relative(moved)
    if event is not None and name is not None:
        event.later.append(name)
    return moved


async def _record_run(service_of: ServiceOf, original: Async, /, app: App, **run: Any) -> Any:
    """Keep the copies of a run's files while Gradio copies them to the visitor's own bucket."""
    service = service_of(app)
    senders = events.senders(run["request"])
    if service is None or not senders or not compat.has_history_bucket(app, run):
        return await original(app, **run)
    pins = events.Pins(service.files.local)
    try:
        files = [run["inputs"], run["outputs"]]
        await run_in_threadpool(service.pin_run, senders[0].owner, files, pins.add)
        return await original(app, **run)
    finally:
        pins.release()


def _record_history(
    service_of: ServiceOf, original: Callable[..., None], /, app: App, **run: Any
) -> None:
    original(app, **run)
    service = service_of(app)
    if service is None or service.files.history is None or not compat.is_in_history(app, run):
        return
    senders = events.senders(run["gr_request"])
    values = [run["inputs"], run["outputs"] or []]
    if run.get("batched"):
        values = [list(zip(*each, strict=False)) for each in values]
        samples = list(zip(senders, *values, strict=False))
    else:
        samples = [(sender, *values) for sender in senders[:1]]
    for sender, *files in samples:
        if sender.owner is not None and not sender.program:
            loop = asyncio.get_running_loop()
            loop.run_in_executor(None, service.keep_run, sender.owner, files)


def _expire(service_of: ServiceOf, original: Callable[..., None], holder: Any, /) -> None:
    service = service_of(getattr(holder, "blocks", None))
    if service is None:
        original(holder)
    else:
        service.states.expire(holder)


def _cache_put(original: Callable[..., None], cache: Any, /, key_hash: str, **entry: Any) -> None:
    original(cache, key_hash, **entry)
    event, kept = events.current.get(), cache.get(key_hash)
    if event is not None and kept is not None:
        event.cached.append((cache, kept))


def _mcp_result(
    original: Callable[..., list[Any]], server: Any, /, data: Any, *args: Any, **kwargs: Any
) -> list[Any]:
    """Make the contents of a tool's result, with the links of ``Event.link_pictures``."""
    contents = []
    for output in data:
        made = original(server, [output], *args, **kwargs)
        link = output.get(events.LINK) if isinstance(output, dict) else None
        if link is not None:
            before, mark, _ = made[-1].text.partition("file=")
            made[-1].text = before + mark + quote(link)
        contents += made
    return contents


def _audit(name: str, args: tuple[Any, ...]) -> None:
    """Take part in each opening of a file. Python has no way to remove such a hook."""
    if name == "open" and isinstance(args[0], str):
        event = events.current.get()
        if event is not None and not event.over:
            event.opens(args[0], args[2])


def _file_begins(
    original: Callable[..., None], file: GradioUploadFile, /, *args: Any, **kwargs: Any
) -> None:
    original(file, *args, **kwargs)
    upload = uploads_in_progress.current.get()
    if upload is not None:
        upload.began(file)


async def _file_grows(original: Async, file: GradioUploadFile, /, data: bytes) -> None:
    upload = uploads_in_progress.current.get()
    if upload is None:
        await original(file, data)
    else:
        await upload.write(file, data, original)


async def _file_ends(original: Async, file: GradioUploadFile, /, offset: int) -> None:
    """Rewind a file, as Gradio's parser does once: when it has written the last bytes."""
    upload = uploads_in_progress.current.get()
    if upload is None or not file.filename:
        await original(file, offset)
    else:
        await upload.complete(file, partial(file.file.seek, offset))


def equip(demo: Blocks, pieces: int | None) -> None:
    """Make the demo's pages open a heartbeat, and its ``launch`` start no static workers.

    Gradio's own pages open one only for a ``gr.State`` or an ``unload`` event. The pages send files
    of more than ``pieces`` bytes in pieces.
    """

    def config(original: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        made = {**original(), "connect_heartbeat": True}
        if pieces is not None:  # both of Gradio's frontends put this into the page's head
            made["head"] = (made.get("head") or "") + upload_pieces.script(pieces)
        return made

    _hook(demo, "get_config_file", config)
    _hook(demo, "launch", _launch)


def _launch(original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    workers = kwargs.get("num_workers") or os.environ.get("GRADIO_NUM_WORKERS") or 0
    # Gradio 5 does not know them.
    if "num_workers" in inspect.signature(original).parameters and int(workers) > 0:
        log.warning(
            "num_workers=%s has no effect on an attached demo: Gradio's static workers take "
            "uploads and serve files in processes that have no store. This process serves "
            "them; run more replicas of the app for more throughput.",
            workers,
        )
        kwargs["num_workers"] = 0
    return original(*args, **kwargs)


def at_launch(server: App, made: Callable[[Blocks], object]) -> None:
    """Make the ``launch`` of a ``gr.Server`` call ``made`` with the demo that it builds."""

    def launch(original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        token = _made_by_server.set(made)
        try:
            return original(*args, **kwargs)
        finally:
            _made_by_server.reset(token)

    _hook(server, "launch", launch)


def _hook(demo: Blocks | App, name: str, by: Callable[..., Any]) -> None:
    original = getattr(demo, name)
    setattr(demo, name, functools.wraps(original)(partial(by, original)))


def free(demo: Blocks | App) -> None:
    """Undo ``equip`` and ``at_launch``."""
    vars(demo).pop("get_config_file", None)
    vars(demo).pop("launch", None)


def rebuild(demo: Blocks) -> None:
    """Make ``demo.config`` again, and ``demo.app`` unless it serves, as ``Blocks.queue`` does."""
    demo.config = demo.get_config_file()
    if not demo.is_running:
        demo.app = compat.find("gradio.routes:App.create_app")(demo, mcp_server=False)


def _equip(app: App, service_of: ServiceOf) -> None:
    """Add the middleware, once, and the lifespan, which a reload of the app replaces."""
    names = [getattr(middleware.cls, "__name__", "") for middleware in app.user_middleware]
    if SessionFiles.__name__ not in names:
        # Inside the one that reads the cookie of gr.LoginButton, which names the owner.
        place = names.index("SessionMiddleware") + 1 if "SessionMiddleware" in names else 0
        app.user_middleware.insert(place, Middleware(SessionFiles, service_of=service_of))
    inner = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(served: Any) -> AsyncIterator[Any]:
        async with inner(served) as state:
            service = service_of(app)
            if service is not None:
                await run_in_threadpool(service.pin, app.get_blocks())
                service.serving(app)
            try:
                yield state
            finally:
                service = service_of(app)  # a reload may have changed it
                if service is not None:
                    await run_in_threadpool(service.stopped, app)

    app.router.lifespan_context = lifespan
