"""Serve one app in a process of its own, plain or attached, and tell the driver its URL.

The app is run as it is, as a script. The one line that an author adds, ``attach(demo, store)``, is
called where the app launches or mounts its demo.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import multiprocessing.connection
import os
import runpy
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import gradio as gr
import uvicorn

from sessionstore import Retention, SessionStore
from sessionstore.adapters.gradio import attach
from tests.campaigns.apps.broken import BREAKS
from tests.support import seaweed
from tests.support.ports import free_port

LINGER: Final = timedelta(seconds=1)
SWEEP_EVERY: Final = timedelta(seconds=1)
STARTS: Final = 90.0
"""Seconds until an app must serve, on a loaded machine."""

STOPS: Final = 8.0
SECRET: Final = "of this campaign, and of nothing else"

_processes = multiprocessing.get_context("forkserver")  # Gradio is imported once for all apps
_processes.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Served:
    """An app that is being served at ``url``; its files are below ``directory``."""

    url: str
    directory: Path

    @property
    def log(self) -> str:
        """The text that the app has written so far."""
        return (self.directory / "log").read_text(errors="replace")


class DoesNotStartError(Exception):
    """The app ended, or did not serve in time; the text is the end of its log."""


@contextlib.contextmanager
def served(
    app: Path,
    store: str | None,
    broken: str | None = None,
    *,
    sweep_every: timedelta | None = SWEEP_EVERY,
) -> Iterator[Served]:
    """Serve ``app``, attached to a store at the URL ``store`` if one is given.

    ``broken`` names a defect of ``attach`` to add. With ``sweep_every=None`` the store is swept as
    often as by default.
    """
    with tempfile.TemporaryDirectory(prefix="apps-", ignore_cleanup_errors=True) as name:
        directory = Path(name).resolve()
        shutil.copytree(app.parent, directory / "app", ignore=shutil.ignore_patterns("__pycache__"))
        (directory / "tmp").mkdir()
        arguments = (directory, app.name, free_port(), store, broken, sweep_every)
        process = _processes.Process(target=_serve, args=arguments)
        process.start()
        try:
            yield Served(_url(directory, process), directory)
        finally:
            _stop(process)


def _url(directory: Path, process: Any) -> str:
    deadline = time.monotonic() + STARTS
    while time.monotonic() < deadline and process.is_alive():
        with contextlib.suppress(FileNotFoundError):
            return (directory / "url").read_text()
        time.sleep(0.02)  # another process starts: there is no event to wait for
    raise DoesNotStartError((directory / "log").read_text(errors="replace")[-2000:])


def _stop(process: Any) -> None:
    """End the process as Ctrl-C does, then it and all that it started, for good."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGINT)
    process.join(STOPS)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


def _ends_with_driver() -> None:
    """Have this process, and all that it starts, killed when the driver ends in any way."""
    driver = multiprocessing.parent_process()
    assert driver is not None

    def wait() -> None:
        multiprocessing.connection.wait([driver.sentinel])
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def _serve(  # noqa: PLR0917 - the arguments of a new process
    directory: Path,
    name: str,
    port: int,
    store: str | None,
    broken: str | None,
    sweep_every: timedelta | None,
) -> None:
    os.setsid()
    _ends_with_driver()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(directory / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(directory / "app")
    os.environ |= {
        "TMPDIR": str(directory / "tmp"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_TEMP_DIR": str(directory / "tmp/gradio"),
        "GRADIO_EXAMPLES_CACHE": str(directory / "app/.gradio/cached_examples"),
        "HF_HUB_OFFLINE": "1",
        **seaweed.ENVIRONMENT,
    }
    tempfile.tempdir = None  # it was read before the fork
    if hasattr(gr, "mcp"):
        gr.mcp.DEFAULT_TEMP_DIR = str(directory / "tmp/gradio")  # read at its import
    gr.networking.url_ok = _ok
    sys.path.insert(0, str(directory / "app"))
    sys.argv = [name]
    if broken is not None:
        BREAKS[broken]()
    _hook(_Hooks(directory, port, None if store is None else _attacher(store, sweep_every)))
    try:
        runpy.run_path(name, run_name="__main__")
    except KeyboardInterrupt:
        pass
    except BaseException:  # noqa: BLE001 - the log says why the app ended
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(0)  # threads of the app, and of servers, end with it


def _ok(url: str) -> bool:
    """Replace Gradio's look at its own page, with its limit of three seconds."""
    return bool(url)


def _attacher(url: str, sweep_every: timedelta | None) -> Callable[[Any], None]:
    """Return a function that attaches a demo to the one store of this app."""
    opened: list[SessionStore] = []

    def attach_to_store(demo: Any) -> None:
        if not opened:
            retention = Retention(linger=LINGER)
            opened.append(SessionStore.open(url, retention=retention, secret=SECRET))
        attach(demo, opened[0], sweep_every=sweep_every)

    return attach_to_store


class _Hooks:
    """The work to do where an app launches or mounts a demo."""

    def __init__(self, directory: Path, port: int, attach: Callable[[Any], None] | None) -> None:
        self.directory, self.port = directory, port
        self.attach = attach or (lambda _demo: None)

    def serves(self, url: str) -> None:
        """Tell the driver the URL, in one step."""
        (self.directory / "url.tmp").write_text(url.rstrip("/"))
        (self.directory / "url.tmp").rename(self.directory / "url")


def _hook(hooks: _Hooks) -> None:
    _hook_launch(hooks)
    if hasattr(gr, "Server"):
        launch_server = gr.Server.launch

        @functools.wraps(launch_server)
        def server_launch(self: Any, *args: Any, **kwargs: Any) -> Any:
            hooks.attach(self)
            return launch_server(self, *args, **kwargs)

        gr.Server.launch = server_launch  # type: ignore[method-assign]  # the hook
    mount = gr.mount_gradio_app
    mounted: list[str] = []

    @functools.wraps(mount)
    def mount_gradio_app(app: Any, blocks: Any, path: str, *args: Any, **kwargs: Any) -> Any:
        hooks.attach(blocks)
        mounted.append(path)
        return mount(app, blocks, path, *args, **kwargs)

    gr.mount_gradio_app = gr.routes.mount_gradio_app = mount_gradio_app
    run = uvicorn.run

    @functools.wraps(run)
    def uvicorn_run(app: Any, **kwargs: Any) -> None:
        kwargs |= {"host": "127.0.0.1", "port": hooks.port, "log_level": "warning"}
        startup = uvicorn.Server.startup

        async def started(self: Any, *arguments: Any, **options: Any) -> None:
            await startup(self, *arguments, **options)
            hooks.serves(f"http://127.0.0.1:{hooks.port}{mounted[0].rstrip('/')}")

        uvicorn.Server.startup = started  # type: ignore[method-assign]  # the hook
        run(app, **kwargs)

    uvicorn.run = uvicorn_run


def _hook_launch(hooks: _Hooks) -> None:
    launch = gr.Blocks.launch
    begun: list[Any] = []

    @functools.wraps(launch)
    def blocks_launch(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self in begun:
            return launch(self, *args, **kwargs)
        begun.append(self)
        if kwargs.get("_app") is None:  # gr.Server's own demo is attached by its server
            hooks.attach(self)
        goes_on = kwargs.pop("prevent_thread_lock", False)
        kwargs |= {"server_name": "127.0.0.1", "server_port": hooks.port, "share": False}
        kwargs |= {"inbrowser": False, "quiet": True, "prevent_thread_lock": True}
        # ``attach`` may have given the demo a launch of its own; it comes back here.
        own = vars(self).get("launch", functools.partial(launch, self))
        result = own(*args, **kwargs)
        hooks.serves(self.local_url)
        if not goes_on:
            self.block_thread()
        return result

    gr.Blocks.launch = blocks_launch  # type: ignore[method-assign]  # the hook
