"""The pytest plug-in of both runs: it notes what came of each test, and attaches every demo.

``pytest -p tests.gradio_suite.plugin`` takes from the environment

* ``GRADIO_SUITE_REPORT``: the file to which the outcomes and counts go, as JSON,
* ``GRADIO_SUITE_ATTACH=1``: attach each demo, as soon as it is built, to a store in memory.

A local copy is removed as soon as it is in the store and nobody uses it, so what is used or served
afterwards has been read back. When a test itself looks at files, what the store has is put back
under its names first, and the test judges that. Each test has stores of its own, one for each cache
directory.
"""

from __future__ import annotations

import builtins
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio.context import Context

from sessionstore import SessionStore
from sessionstore.adapters.gradio import attach
from sessionstore.adapters.gradio.cache_files import CacheFiles, FoundFile
from sessionstore.names import HIDDEN

ATTACHED = os.environ.get("GRADIO_SUITE_ATTACH") == "1"

outcomes: dict[str, str] = {}
counts: Counter[str] = Counter()


class Stores:
    """The stores of one test, by the cache directory of the demos that are attached to them."""

    def __init__(self) -> None:
        self._stores: dict[str, SessionStore] = {}
        self._stack = ExitStack()
        self.links: dict[Path, tuple[CacheFiles, FoundFile]] = {}
        """The paths that programs got, as these tests are, with the files that they lead to."""

    def attach(self, demo: gr.Blocks) -> None:
        cache = demo.GRADIO_CACHE
        if cache not in self._stores:
            self._stores[cache] = self._stack.enter_context(counted(SessionStore.open("memory://")))
        attachment = attach(demo, self._stores[cache], keep_local=False)
        self._stack.callback(attachment.detach)
        counts["demos attached"] += 1

    def put_back(self) -> None:
        """Have in the cache directories what the stores have of them."""
        for cache, store in self._stores.items():
            for record in store.backend.sessions():
                for file in store.backend.files(record.sid):
                    path = Path(cache, file.name.removeprefix(HIDDEN))
                    if file.name.startswith(HIDDEN) and not path.exists():
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(store.backend.open(record.sid, file).read())
                        counts["read-backs"] -= 1  # the count is of what an attached demo does
                        counts["put back for a test to look at"] += 1

        for path, (files, found) in self.links.items():
            if not path.exists() and files.store in self._stores.values():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(files.store.backend.open(found.sid, found.reference).read())
                counts["read-backs"] -= 1
                counts["put back for a test to look at"] += 1

    def close(self) -> None:
        self._stack.close()


def counted(store: SessionStore) -> SessionStore:
    """The store, with its saves and reads counted."""
    backend: Any = store.backend
    for name, what in (("put", "saves"), ("open", "read-backs")):
        setattr(backend, name, counting(getattr(backend, name), what))
    return store


def counting(original: Callable[..., Any], what: str) -> Callable[..., Any]:
    @wraps(original)
    def method(*args: Any, **kwargs: Any) -> Any:
        done = original(*args, **kwargs)
        counts[what] += 1
        return done

    return method


stores = Stores()
"""Those of the test that runs, or is collected: demos can be built in a module."""


def note_links() -> None:
    """Note each path that a program gets in place of the one in Gradio's cache."""
    original = CacheFiles.give

    @wraps(original)
    def give(self: CacheFiles, *args: Any, **kwargs: Any) -> FoundFile:
        found = original(self, *args, **kwargs)
        stores.links[self.paths.absolute(found.name)] = self, found
        return found

    CacheFiles.give = give  # type: ignore[method-assign]  # what this plug-in is for


def attach_when_built() -> None:
    original = gr.Blocks.__exit__

    @wraps(original)
    def leave(self: gr.Blocks, *args: Any) -> Any:
        result = original(self, *args)
        if self.exited and Context.root_block is None:
            stores.attach(self)
        return result

    gr.Blocks.__exit__ = leave  # type: ignore[method-assign]  # what this plug-in is for


def put_back_for_tests() -> None:
    """Have the store's files back where a test itself looks for them, lists or reads them."""
    looks = ((Path, "glob"), (Path, "read_bytes"), (builtins, "open"), (os.path, "exists"))
    for owner, name in looks:
        setattr(owner, name, putting_back(getattr(owner, name)))


def putting_back(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def looking(*args: Any, **kwargs: Any) -> Any:
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.startswith("test."):
            stores.put_back()
        return original(*args, **kwargs)

    return looking


if ATTACHED:
    note_links()
    attach_when_built()
    put_back_for_tests()


@pytest.fixture(autouse=True)
def _stores_of_the_test() -> Iterator[None]:
    """Closed last, as this fixture is set up first."""
    yield
    global stores  # noqa: PLW0603 - pytest knows no place for what is there before a test begins
    stores.close()
    stores = Stores()


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note the last outcome: of phases the worst, of reruns the last."""
    if report.when == "setup" or report.outcome not in ("passed", "rerun"):
        outcomes[report.nodeid] = report.outcome


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        outcomes[report.nodeid] = "failed"


def pytest_sessionfinish() -> None:
    path = os.environ["GRADIO_SUITE_REPORT"]
    Path(path).write_text(json.dumps({"outcomes": outcomes, "counts": counts}))
