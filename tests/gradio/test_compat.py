"""A Gradio that lacks a private name, attribute or route is refused by one SettingsError."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio import component_meta, route_utils
from gradio.routes import App
from gradio.state_holder import SessionState
from starlette.routing import BaseRoute, Match

from sessionstore import SessionStore, SettingsError
from sessionstore.adapters.gradio import attach, compat
from tests.support.gradio_rig import GRADIO_S_OWN, closed_loops

pytestmark = GRADIO_S_OWN

NAMES = [*compat._PARAMETERS, *compat._TYPES]


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[gr.Blocks]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    with closed_loops():
        with gr.Blocks() as demo:
            gr.Image()
        yield demo


def refused(demo: gr.Blocks) -> str:
    with pytest.raises(
        SettingsError, match=r"^This version of Gradio has .*newer sessionstore"
    ) as e:
        attach(demo, SessionStore.open("memory://"))
    return str(e.value)


def remove(path: str, patch: pytest.MonkeyPatch) -> str:
    """Remove a name from Gradio, or from the class that Gradio has it from; return the name."""
    module, _, names = path.partition(":")
    *parents, name = names.split(".")
    owner: Any = importlib.import_module(module)
    for parent in parents:
        owner = getattr(owner, parent)
    classes = owner.__mro__ if isinstance(owner, type) else [owner]
    patch.delattr(next(each for each in classes if name in vars(each)), name)
    return name


@pytest.mark.parametrize("path", [path for path in NAMES if not path.endswith(".__init__")])
def test_a_missing_name_is_named(demo: gr.Blocks, path: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        name = remove(path, patch)
        error = refused(demo)

    assert f"{name}," in error


@pytest.mark.parametrize("path", compat._PARAMETERS)
def test_a_function_with_other_parameters_is_named(demo: gr.Blocks, path: str) -> None:
    owner, _, name = path.rpartition("." if "." in path.partition(":")[2] else ":")
    with pytest.MonkeyPatch.context() as patch:
        target = compat.find(owner) if ":" in owner else importlib.import_module(owner)
        patch.setattr(target, name, lambda other: None)  # noqa: ARG005 - only its name counts
        error = refused(demo)

    assert f"another {name}" in error or f".{name}, with the parameters other" in error


@pytest.mark.parametrize(
    "path", [path for path, kind in compat._TYPES.items() if kind is not object]
)
def test_a_value_of_another_type_is_named(demo: gr.Blocks, path: str) -> None:
    owner, _, name = path.rpartition("." if "." in path.partition(":")[2] else ":")
    with pytest.MonkeyPatch.context() as patch:
        target = compat.find(owner) if ":" in owner else importlib.import_module(owner)
        patch.setattr(target, name, None)
        error = refused(demo)

    assert f"{name}, which is no {compat._TYPES[path].__name__}" in error


def test_an_upload_without_its_hash_is_refused(
    demo: gr.Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(route_utils.GradioUploadFile, "__init__")

    assert "GradioUploadFile.sha" in refused(demo)


def test_a_component_without_its_arguments_is_refused(
    demo: gr.Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(component_meta, "updateable", lambda fn: fn)

    assert "_constructor_args" in refused(demo)


@pytest.mark.parametrize("name", compat._OF_THE_DEMO)
def test_a_missing_attribute_of_the_demo_is_named(
    demo: gr.Blocks, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in vars(demo):
        monkeypatch.delattr(demo, name)
    else:
        monkeypatch.delattr(next(each for each in type(demo).__mro__ if name in vars(each)), name)

    assert f"Blocks.{name}," in refused(demo)


@pytest.mark.parametrize("name", compat._OF_A_SESSION)
def test_a_missing_attribute_of_a_session_is_named(
    demo: gr.Blocks, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SessionState.__init__

    def init(self: SessionState, blocks: gr.Blocks) -> None:
        original(self, blocks)
        delattr(self, name)

    monkeypatch.setattr(SessionState, "__init__", init)

    assert f"SessionState.{name}," in refused(demo)


class Hidden(BaseRoute):
    """A route that does not match one request."""

    def __init__(self, route: BaseRoute, hidden: tuple[str, str]) -> None:
        self.route = route
        self.hidden = hidden

    def matches(self, scope: Any) -> tuple[Match, Any]:
        if (scope["method"], scope["path"]) == self.hidden:
            return Match.NONE, {}
        return self.route.matches(scope)


def changed(monkeypatch: pytest.MonkeyPatch, change: Callable[[App], None]) -> None:
    """Have Gradio make apps that ``change`` was applied to."""
    original = App.create_app

    def create_app(blocks: gr.Blocks, **options: Any) -> App:
        app = original(blocks, **options)
        change(app)
        return app

    monkeypatch.setattr(App, "create_app", staticmethod(create_app))


@pytest.mark.parametrize("route", compat._ROUTES)
def test_a_missing_route_is_named(route: tuple[str, str], demo: gr.Blocks) -> None:
    def hide(app: App) -> None:
        app.router.routes = [Hidden(each, route) for each in app.router.routes]

    with pytest.MonkeyPatch.context() as patch:
        changed(patch, hide)
        error = refused(demo)

    assert "no route for {} {}".format(*route) in error


@pytest.mark.parametrize("name", compat._OF_THE_APP)
def test_a_missing_attribute_of_the_app_is_named(name: str, demo: gr.Blocks) -> None:
    with pytest.MonkeyPatch.context() as patch:
        changed(patch, lambda app: delattr(app, name))
        error = refused(demo)

    assert f"App.{name}," in error


def test_the_adapter_can_be_imported_with_a_gradio_that_lacks_its_private_names() -> None:
    code = f"""
import importlib, gradio
from sessionstore import SessionStore, SettingsError
with gradio.Blocks() as demo: pass
for path in {NAMES!r}:
    module, _, names = path.partition(":")
    if "." not in names:
        delattr(importlib.import_module(module), names)
for module, name in [("queueing", "Queue"), ("route_utils", "GradioUploadFile"),
                     ("data_classes", "_StaticFiles"), ("context", "Context")]:
    delattr(importlib.import_module("gradio." + module), name)
from sessionstore.adapters.gradio import attach
try:
    attach(demo, SessionStore.open("memory://"))
except SettingsError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "This version of Gradio has no" in done.stdout, done.stderr
