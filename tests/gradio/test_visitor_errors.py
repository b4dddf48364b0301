"""What visitors read of errors: no bucket, no endpoint, no path. The log has all of it."""

from __future__ import annotations

import html
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest

from sessionstore import (
    BackendUnavailable,
    Corrupted,
    FileNotStored,
    InvalidName,
    LimitExceeded,
    Limits,
    SessionStore,
    SessionStoreError,
    SettingsError,
)
from sessionstore.adapters.gradio import session
from sessionstore.adapters.visitor_errors import reply_to, without_details
from sessionstore.testing import FakeClock, Fault, FaultyBackend, on
from tests.support.asgi_rig import Form, app_of, ask
from tests.support.gradio_rig import GRADIO_S_OWN, MakeReplicas, replicas
from tests.support.stores import memory_store

pytestmark = GRADIO_S_OWN

SENTENCE = "Storage is temporarily unavailable. Please try again."
PLACE = "s3://a-bucket/prefix at https://minio.internal:9000 (/var/lib/store)"
SECRETS = ("a-bucket", "minio.internal", "/var/lib/store")


def down() -> BackendUnavailable:
    return BackendUnavailable(f"Could not save an object in {PLACE}: nothing answers.")


def caused() -> BackendUnavailable:
    error = down()
    error.__cause__ = OSError(f"Connection refused: {PLACE}")
    return error


def full() -> LimitExceeded:
    return LimitExceeded(f"Could not write a file in {PLACE}: the disk is full.")


def shows_nothing(text: str) -> bool:
    return not any(secret in text for secret in SECRETS)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (down(), 503),
        (Corrupted(PLACE), 503),
        (SettingsError(PLACE), 503),
        (full(), 507),
        (LimitExceeded(PLACE, limit="max_store"), 507),
        (LimitExceeded(PLACE, limit="min_free"), 507),
        (FileNotStored(PLACE), 404),
    ],
    ids=lambda it: type(it).__name__,
)
def test_a_reply_shows_nothing_of_the_place(error: SessionStoreError, status: int) -> None:
    reply = reply_to(error)
    assert reply.status == status
    assert shows_nothing(reply.words)


def test_a_reply_says_what_the_visitor_can_change() -> None:
    limit = LimitExceeded("'@/0a1b2c/cat.png' is larger than max_file=1 KB.", limit="max_file")
    assert reply_to(limit) == (413, "'cat.png' is larger than max_file=1 KB.")
    assert reply_to(InvalidName("The file name '..' is not right.")).words.endswith("not right.")


# Files over HTTP


@pytest.fixture
def backend() -> FaultyBackend:
    return FaultyBackend(memory_store(FakeClock()).backend)


@pytest.fixture
def app(backend: FaultyBackend) -> Any:
    return app_of(SessionStore(backend, clock=FakeClock(), base_url="/files"))


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_an_upload_is_answered_with_the_sentence_alone(
    app: Any, backend: FaultyBackend, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend.plan = on("put", Fault(down))
    path, form = "/files/upload" + ("/a.png" if method == "PUT" else ""), Form(("a.png", b"cat"))
    content = b"cat" if method == "PUT" else form.body
    headers = {"x-visitor": "ada", **({} if method == "PUT" else form.headers)}
    answer = ask(app, method, path, content=content, headers=headers)
    assert answer.status_code == 503
    assert answer.json()["error"] == SENTENCE
    assert shows_nothing(answer.text + str(answer.headers))
    assert PLACE in caplog.text


def test_an_upload_to_a_full_disk_is_answered_without_its_path(
    app: Any, backend: FaultyBackend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.plan = on("put", Fault(full))
    headers = {"x-visitor": "ada"}
    answer = ask(app, "PUT", "/files/upload/a.png", content=b"cat", headers=headers)
    assert answer.status_code == 507
    assert shows_nothing(answer.text)
    assert PLACE in caplog.text


def test_a_file_that_cannot_be_served_is_answered_with_the_sentence(
    backend: FaultyBackend, caplog: pytest.LogCaptureFixture
) -> None:
    store = SessionStore(backend, clock=FakeClock(), base_url="/files")
    url = store.session("files", "ada").put("a.png", b"cat").url()
    backend.plan = on("get", Fault(down))
    answer = ask(app_of(store), "GET", url)
    assert (answer.status_code, answer.text) == (503, SENTENCE)
    assert PLACE in caplog.text


# Gradio


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeReplicas]:
    with replicas(tmp_path) as make:
        yield make


def copied(path: str) -> str:
    """Make a file in the cache, which the adapter then keeps."""
    target = Path(path).with_name("<b>.txt")
    shutil.copy(path, target)
    return str(target)


def saved(path: str, request: gr.Request) -> Any:
    """Save a file in the visitor's session."""
    return session(request).put("saved.txt", Path(path))


def wrapped(text: str, request: gr.Request) -> Any:
    """Wrap the store's error in the app's own."""
    try:
        return session(request).put("saved.txt", text.encode())
    except SessionStoreError as error:
        raise RuntimeError(f"Could not save: {error!r}") from error


def shown(text: str, request: gr.Request) -> Any:
    """Show the store's error to the visitor, with a cause of its own."""
    try:
        return session(request).put("saved.txt", text.encode())
    except SessionStoreError as error:
        raise gr.Error(f"Could not save: {html.escape(str(error))} ({error.__cause__})") from None


def build() -> gr.Blocks:
    made: gr.Blocks
    with gr.Blocks() as made:
        for fn in (copied, saved):
            gr.on(fn=fn, inputs=gr.File(), outputs=gr.File(), api_name=fn.__name__)
        for of_text in (wrapped, shown):
            gr.on(fn=of_text, inputs=gr.Textbox(), outputs=gr.File(), api_name=of_text.__name__)
    return made


def test_a_gradio_upload_is_answered_with_the_sentence(
    make: MakeReplicas, caplog: pytest.LogCaptureFixture
) -> None:
    replica = make(build)
    tab = replica.tab().load()
    replica.store.wrap(lambda backend: FaultyBackend(backend, on("put", Fault(down))))
    answer = tab.client.post(tab.api("upload"), files={"files": ("a.txt", b"text")})
    assert (answer.status_code, answer.text) == (503, SENTENCE)
    assert PLACE in caplog.text


def test_a_gradio_upload_over_a_limit_shows_the_visitor_s_own_name(make: MakeReplicas) -> None:
    replica = make(build, limits=Limits(max_file=1000))
    tab = replica.tab().load()
    answer: httpx.Response = tab.client.post(
        tab.api("upload"), files={"files": ("a.txt", bytes(1001))}
    )
    assert answer.status_code == 413
    assert answer.text.startswith("'a.txt' is larger than max_file=")


@pytest.mark.parametrize("show_error", [False, True])
@pytest.mark.parametrize("handler", ["copied", "saved"])
def test_a_failed_event_shows_the_sentence(
    make: MakeReplicas, caplog: pytest.LogCaptureFixture, handler: str, *, show_error: bool
) -> None:
    replica = make(build, show_error=show_error)
    tab = replica.tab().load()
    upload = tab.upload("note.txt", b"hello")
    replica.store.wrap(lambda backend: FaultyBackend(backend, on("put", Fault(down))))
    with pytest.raises(RuntimeError) as shown:
        tab.call(handler, upload)
    assert str(shown.value) == SENTENCE
    assert PLACE in caplog.text


@pytest.mark.parametrize("handler", ["wrapped", "shown"])
def test_an_app_s_own_error_shows_nothing_of_the_place(
    make: MakeReplicas, caplog: pytest.LogCaptureFixture, handler: str
) -> None:
    replica = make(build, show_error=True)
    tab = replica.tab().load()
    replica.store.wrap(lambda backend: FaultyBackend(backend, on("put", Fault(caused))))
    with pytest.raises(RuntimeError) as raised:
        tab.call(handler, "hello")
    assert str(raised.value).startswith("Could not save: ")
    assert SENTENCE in str(raised.value)
    assert shows_nothing(str(raised.value))
    assert PLACE in caplog.text


def test_a_message_of_an_app_s_own_stays() -> None:
    error = RuntimeError("Could not save.")
    error.__cause__ = down()
    assert without_details(str(error), error) == "Could not save."
    assert without_details("", error) == ""


@pytest.mark.parametrize("form", [str, repr, lambda error: html.escape(str(error))])
def test_a_store_s_error_anywhere_in_the_chain_is_replaced(form: Callable[[Any], str]) -> None:
    inner = BackendUnavailable(f"""Could not reach "{PLACE}" or '{PLACE}'.""")
    outer = ExceptionGroup("several", [ValueError("x"), inner])
    error = RuntimeError("at last")
    error.__context__ = outer
    assert without_details(f"no: {form(inner)}", error).count(SENTENCE) == 1
    assert shows_nothing(without_details(f"no: {form(inner)}", error))


def test_a_name_in_an_event_s_error_is_no_html(make: MakeReplicas) -> None:
    replica = make(build, show_error=True, limits=Limits(max_session=1500))
    tab = replica.tab().load()
    upload = tab.upload("note.txt", bytes(1000))
    with pytest.raises(RuntimeError) as shown:
        tab.call("copied", upload)
    assert "max_session" in str(shown.value)
    assert "<" not in str(shown.value)
