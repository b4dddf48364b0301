"""The functions of Gradio that are patched. ``compat.check`` looks at all of them first.

* ``App.create_app``, which every way of serving a demo goes through (``launch``, ``queue``,
  ``mount_gradio_app``): the app of an attached demo gets the middleware and a lifespan.
* ``Blocks.process_api``, which every event goes through, and ``preprocess_data`` and
  ``postprocess_data`` within it: the owner of the event, and its inputs or outputs.
* ``Queue.process_events``: the senders of the samples of a batch, which Gradio 5 does not pass on.
  ``Queue.send_message``: the value of a generator, which waits for its files.
* ``Block.async_move_resource_to_block_cache`` and its synchronous version, which every file goes
  through on its way to a handler or a page.
* ``async_move_files_to_cache``, which moves the files of one output: all links are made together.
* ``GradioUploadFile``: a file of an upload while it is received.
* ``record_run`` and ``record_run_history`` of the run history, where this version has it.
* ``put`` of ``gr.cache``, where this version has it: the files of cached results. An audit hook of
  Python shows the files that a handler opens, so that one which it remembers can be fetched.
* ``get_config_file`` of an attached demo: Gradio's pages open a heartbeat only when the demo has a
  ``gr.State`` or an ``unload`` event (``gradio.utils.connect_heartbeat``). Pages of an
  attached demo always do.
* ``launch`` of an attached demo: no static workers, which serve files in other processes.

All have been there under these names, with these parameters, from Gradio 5.0 to 6.31.
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
from typing import TYPE_CHECKING, Any, Final, cast

from gradio import Error
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware

from sessionstore.adapters.gradio import compat, events, frames, uploads_in_progress, values
from sessionstore.adapters.gradio.cache import large_to_cache
from sessionstore.adapters.gradio.file_routes import SessionFiles
from sessionstore.adapters.visitor_errors import reply_to
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


log: Final = logging.getLogger("sessionstore")

_LARGE: Final = 4 << 20
"""Bytes above which a file is hashed and copied here and not by Gradio."""

_installed: Final[dict[tuple[Any, str], tuple[Any, Any]]] = {}
"""The patched functions: by class or module and name, the replacement and the original."""

_seeds: Final[list[bytes]] = []
_hooks: Final[list[Any]] = []

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
    app, blocks = compat.find("gradio.routes:App"), compat.find("gradio.blocks:Blocks")
    block, queue = compat.find("gradio.blocks:Block"), compat.find("gradio.queueing:Queue")
    file = compat.find("gradio.route_utils:GradioUploadFile")
    move = block.move_resource_to_block_cache
    _replace(app, "create_app", _create_app(app.create_app, service_of))
    _replace(blocks, "process_api", _process_api(blocks.process_api, service_of))
    _replace(queue, "process_events", _process_events(queue.process_events, service_of))
    _replace(queue, "send_message", _send_message(queue.send_message))
    _replace(blocks, "preprocess_data", _preprocess_data(blocks.preprocess_data))
    _replace(blocks, "postprocess_data", _postprocess_data(blocks.postprocess_data))
    name = "async_move_resource_to_block_cache"
    _replace(block, name, _async_move(getattr(block, name), move))
    _replace(block, "move_resource_to_block_cache", _move(move))
    processing = compat.find("gradio:processing_utils")
    moves = _move_files(processing.async_move_files_to_cache)
    _replace(processing, "async_move_files_to_cache", moves)
    _replace(file, "__init__", _file_begins(file.__init__))
    _replace(file, "write", _file_grows(file.write))
    history = compat.history_modules()
    if history is not None:
        recorder, routes = history
        _replace(recorder, "record_run", _record_run(recorder.record_run, service_of))
        finished = routes.record_run_history
        _replace(routes, "record_run_history", _record_history(finished, service_of))
    cache = compat.cache_class()
    if cache is not None:
        _replace(cache, "put", _cache_put(cache.put))
    _seeds.append(compat.hash_seed())
    compat.set_hash_seed(hash_seed)
    if not _hooks:
        _hooks.append(_audit)
        sys.addaudithook(_audit)


def uninstall() -> None:
    """Put Gradio back as it was.

    A replacement that other code has wrapped since then stays, and calls the original.
    """
    for (owner, name), (ours, original) in _installed.items():
        if getattr(owner, name) is ours:
            setattr(owner, name, _as_attribute(name, original))
    _installed.clear()
    while _seeds:
        compat.set_hash_seed(_seeds.pop())


def _replace(owner: Any, name: str, by: Any) -> None:
    original = getattr(owner, name)
    setattr(owner, name, _as_attribute(name, functools.wraps(original)(by)))
    _installed[owner, name] = getattr(owner, name), original


def _as_attribute(name: str, function: Any) -> Any:
    return staticmethod(function) if name == "create_app" else function


def _create_app(original: Callable[..., App], service_of: ServiceOf) -> Callable[..., App]:
    def create_app(*args: Any, **kwargs: Any) -> App:
        made = _made_by_server.get()
        if made is not None:
            _made_by_server.set(None)
            made(args[0] if args else kwargs["blocks"])
        app = original(*args, **kwargs)
        if service_of(app) is not None:
            compat.check_app(app)
            _equip(app, service_of)
        return app

    return create_app


def _process_api(
    original: Callable[..., Awaitable[dict[str, Any]]], service_of: ServiceOf
) -> Callable[..., Awaitable[dict[str, Any]]]:
    signature = inspect.signature(original)

    async def process_api(self: Blocks, *args: Any, **kwargs: Any) -> dict[str, Any]:
        service = service_of(self)
        if service is None:
            return await original(self, *args, **kwargs)
        given = signature.bind(self, *args, **kwargs).arguments
        try:
            event = _event(service, events.senders(_requests(given)))
            if event is None:
                return await original(self, *args, **kwargs)
            event.place = compat.name_of(given["block_fn"], self)
            shown = None if event.nested else frames.current.get()
            if shown is not None:
                shown.raise_failure()
            with events.running(event, given.get("iterator")):
                try:
                    output = await original(self, *args, **kwargs)
                except BaseException:
                    event.later.clear()
                    await event.saved()  # the error of an output came before Gradio's
                    raise
                finally:
                    await event.keep_cached()
                event.generator = output.get("iterator")
                if shown is not None and output.get("is_generating"):
                    await shown.add(await event.leave_saves(), event.pins)
                    return output
                await event.saved()
                if shown is not None:
                    await shown.saved()
                return output
        except SessionStoreError as error:
            # With ``show_error`` Gradio shows the text of any exception, and the store's errors
            # contain its bucket or path.
            log.warning("An event failed: %s", error)
            words = html.escape(reply_to(error).words, quote=False)  # Gradio shows it as HTML
            raise Error(words) from error

    return process_api


def _event(service: Service, senders: list[events.Sender]) -> events.Event | None:
    """Return the event of a call of ``process_api``; None if no visitor sent it."""
    outer = events.current.get()
    if outer is not None and outer.service is service and not outer.over:
        return events.Event(service, senders or outer.senders, outer.pins, nested=True)
    return events.Event(service, senders, events.Pins(service.files.local)) if senders else None


def _requests(given: dict[str, Any]) -> Any:
    """Return the request of an event, or those of a batch's samples."""
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


def _process_events(
    original: Callable[..., Awaitable[None]], service_of: ServiceOf
) -> Callable[..., Awaitable[None]]:
    queued = events.queued

    async def process_events(self: Queue, events: list[Any], *args: Any, **kwargs: Any) -> None:
        service = service_of(self.server_app)
        shown = frames.Frames() if service is not None and service.files.at_once > 1 else None
        tokens = queued.set(events), frames.current.set(shown)
        try:
            await original(self, events, *args, **kwargs)
        finally:
            if shown is not None:
                await shown.over()
            queued.reset(tokens[0])
            frames.current.reset(tokens[1])

    return process_events


def _send_message(original: Callable[..., None]) -> Callable[..., None]:
    def send_message(self: Queue, event: Any, event_message: Any) -> None:
        shown = frames.current.get()
        send = functools.partial(original, self, event, event_message)
        if shown is None:
            send()
        else:
            shown.send(event_message, send)

    return send_message


def _preprocess_data(
    original: Callable[..., Awaitable[list[Any]]],
) -> Callable[..., Awaitable[list[Any]]]:
    async def preprocess_data(
        self: Blocks, block_fn: Any, inputs: Any, *args: Any, **kwargs: Any
    ) -> list[Any]:
        event = events.current.get()
        if event is not None:
            event.next_sample(inputs=True)
            event.expect(inputs)
        given = await original(self, block_fn, inputs, *args, **kwargs)
        if event is not None:
            event.given(given)
        return given

    return preprocess_data


def _postprocess_data(
    original: Callable[..., Awaitable[list[Any]]],
) -> Callable[..., Awaitable[list[Any]]]:
    async def postprocess_data(
        self: Blocks, block_fn: Any, predictions: Any, *args: Any, **kwargs: Any
    ) -> list[Any]:
        event = events.current.get()
        if event is not None:
            event.next_sample(inputs=False)
            if missing := event.missing(predictions):
                await run_in_threadpool(event.recall, missing)
            if values.has_stored(predictions):
                predictions = await run_in_threadpool(
                    _for_components, block_fn, predictions, event.give
                )
        outputs = await original(self, block_fn, predictions, *args, **kwargs)
        if event is None:
            return outputs
        event.save_later()
        return cast("list[Any]", await event.adopt(outputs))

    return postprocess_data


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


def _async_move(
    original: Callable[[Block, Any], Awaitable[str | None]],
    in_thread: Callable[[Block, Any], str | None],
) -> Callable[[Block, Any], Awaitable[str | None]]:
    downloads: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def async_move_resource_to_block_cache(self: Block, url_or_file_path: Any) -> str | None:
        event = events.current.get()
        if event is None or url_or_file_path is None:
            return await original(self, url_or_file_path)
        path = str(url_or_file_path)
        if path.startswith(("http://", "https://")):
            # Gradio writes a download in place, so a second download would read half of it.
            async with downloads.setdefault(path, asyncio.Lock()):
                moved = await original(self, url_or_file_path)
        elif event.service.files.paths.relative(path) is None:
            # Gradio copies some outputs twice. The second copy would disturb the save of the first.
            if path not in event.copied:
                copied = await run_in_threadpool(_from_outside, in_thread, self, path)
                event.copied[path] = copied
            moved = event.copied[path]
        else:
            moved = await original(self, url_or_file_path)
        return None if moved is None else await event.move(moved)

    return async_move_resource_to_block_cache


def _move_files(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def async_move_files_to_cache(
        data: Any,
        block: Block,
        postprocess: bool = False,  # noqa: FBT001, FBT002 - as Gradio
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        event = events.current.get()
        if event is not None and postprocess and event.links:
            event.expect(data.model_dump() if hasattr(data, "model_dump") else data)
        return await original(data, block, postprocess, *args, **kwargs)

    return async_move_files_to_cache


def _from_outside(move: Callable[[Block, Any], str | None], block: Block, path: str) -> str | None:
    """Move a file to the cache; copy a large one here, before Gradio would."""
    # Gradio hashes 8 KB at a time and takes the interpreter's lock each time. For gigabytes that
    # delays the event loop, from any thread.
    with contextlib.suppress(OSError):
        if os.path.getsize(path) > _LARGE:
            return large_to_cache(path, block.GRADIO_CACHE)
    return move(block, path)


def _move(original: Callable[[Block, Any], str | None]) -> Callable[[Block, Any], str | None]:
    def move_resource_to_block_cache(self: Block, url_or_file_path: Any) -> str | None:
        moved = original(self, url_or_file_path)
        event = events.current.get()
        name = None if event is None or moved is None else event.service.files.paths.relative(moved)
        if event is not None and name is not None:
            event.later.append(name)
        return moved

    return move_resource_to_block_cache


def _record_run(
    original: Callable[..., Awaitable[Any]], service_of: ServiceOf
) -> Callable[..., Awaitable[Any]]:
    """Keep the copies of a run's files while Gradio copies them to the visitor's own bucket."""

    async def record_run(app: App, **run: Any) -> Any:
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

    return record_run


def _record_history(original: Callable[..., None], service_of: ServiceOf) -> Callable[..., None]:
    """Keep the files of a run that the page's history shows, after the response."""

    def record_run_history(app: App, **run: Any) -> None:
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

    return record_run_history


def _cache_put(original: Callable[..., None]) -> Callable[..., None]:
    def put(self: Any, key_hash: str, **entry: Any) -> None:
        original(self, key_hash, **entry)
        event, kept = events.current.get(), self.get(key_hash)
        if event is not None and kept is not None:
            event.cached.append((self, kept))

    return put


def _audit(name: str, args: tuple[Any, ...]) -> None:
    """Take part in each opening of a file. Python has no way to remove such a hook."""
    if name == "open" and isinstance(args[0], str):
        event = events.current.get()
        if event is not None and not event.over:
            event.opens(args[0], args[2])


def _file_begins(original: Callable[..., None]) -> Callable[..., None]:
    def init(self: GradioUploadFile, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        upload = uploads_in_progress.current.get()
        if upload is not None:
            upload.began(self)

    return init


def _file_grows(original: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    async def write(self: GradioUploadFile, data: bytes) -> None:
        upload = uploads_in_progress.current.get()
        if upload is None:
            await original(self, data)
        else:
            await upload.write(self, data, original)

    return write


def without_workers(demo: Blocks) -> None:
    """Make the demo's ``launch`` start no static workers."""
    original = demo.launch
    knows_workers = "num_workers" in inspect.signature(original).parameters  # Gradio 5 does not

    @functools.wraps(original)
    def launch(*args: Any, **kwargs: Any) -> Any:
        workers = kwargs.get("num_workers") or os.environ.get("GRADIO_NUM_WORKERS") or 0
        if knows_workers and int(workers) > 0:
            log.warning(
                "num_workers=%s has no effect on an attached demo: Gradio's static workers take "
                "uploads and serve files in processes that have no store. This process serves "
                "them; run more replicas of the app for more throughput.",
                workers,
            )
            kwargs["num_workers"] = 0
        return original(*args, **kwargs)

    demo.launch = launch  # type: ignore[method-assign]  # this is the hook


def at_launch(server: App, made: Callable[[Blocks], object]) -> None:
    """Make the ``launch`` of a ``gr.Server`` call ``made`` with the demo that it builds."""
    original = server.launch  # type: ignore[attr-defined]  # a server is an app with this method

    @functools.wraps(original)
    def launch(*args: Any, **kwargs: Any) -> Any:
        token = _made_by_server.set(made)
        try:
            return original(*args, **kwargs)
        finally:
            _made_by_server.reset(token)

    server.launch = launch  # type: ignore[attr-defined]  # this is the hook


def free(demo: Blocks | App) -> None:
    """Undo ``force_heartbeat``, ``without_workers`` and ``at_launch``."""
    vars(demo).pop("get_config_file", None)
    vars(demo).pop("launch", None)


def force_heartbeat(demo: Blocks) -> None:
    """Make the demo's pages open a heartbeat."""
    original = demo.get_config_file

    @functools.wraps(original)
    def get_config_file() -> Any:
        config = original()
        config["connect_heartbeat"] = True
        return config

    demo.get_config_file = get_config_file  # type: ignore[method-assign]  # this is the hook


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
