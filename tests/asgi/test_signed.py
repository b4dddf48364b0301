"""Uploads straight to the bucket, request by request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from sessionstore import Limits, SessionStore, SettingsError
from sessionstore.adapters.asgi import Files
from sessionstore.backends.memory import Place
from sessionstore.testing import FakeClock
from tests.support.asgi_rig import app_of, ask
from tests.support.signed import STAGED, SignedMemory, send, small_parts
from tests.support.stores import memory_store, names

ADA = {"x-visitor": "ada"}
AT = "/files/signed"
DATA = bytes(range(250))


@pytest.fixture(autouse=True)
def _small_parts() -> Iterator[None]:
    with small_parts(10):
        yield


@pytest.fixture
def store() -> Iterator[SessionStore]:
    clock = FakeClock()
    backend, limits = SignedMemory(Place(), clock), Limits(max_file=1000)
    with SessionStore(backend, clock=clock, limits=limits, secret="s" * 40) as made:
        yield made


@pytest.fixture
def app(store: SessionStore) -> Any:
    return app_of(store, signed_uploads=True)


def begin(app: Any, **fields: Any) -> httpx.Response:
    return ask(app, "POST", AT, json={"name": "a.bin", "size": 250, **fields}, headers=ADA)


def fill(app: Any, state: dict[str, Any], data: bytes = DATA) -> None:
    """Send parts until none is missing, as a page does."""
    while state["missing"]:
        for number, url in state["urls"].items():
            start = (int(number) - 1) * state["part_size"]
            send(url, data[start : min(start + state["part_size"], state["size"])])
        state = ask(app, "GET", f"{AT}/{state['id']}", headers=ADA).json()


def test_a_file_is_begun_sent_and_saved(app: Any, store: SessionStore) -> None:
    begun = begin(app, name="ä/b.bin")
    state = begun.json()
    assert begun.status_code == 201
    assert (state["size"], state["parts"], state["part_size"], state["missing"]) == (
        250,
        25,
        10,
        25,
    )
    assert list(state["urls"]) == [str(number) for number in range(1, 9)]
    fill(app, state)
    saved = ask(app, "POST", f"{AT}/{state['id']}", headers=ADA)
    (described,) = saved.json()

    assert (saved.status_code, described["name"], described["size"]) == (201, "ä/b.bin", 250)
    assert ask(app, "GET", described["url"]).content == DATA
    assert store.session("files", "ada").read("ä/b.bin") == DATA
    again = ask(app, "POST", f"{AT}/{state['id']}", headers=ADA)
    assert (again.status_code, again.json()[0]["name"]) == (201, "ä/b.bin")
    assert ask(app, "GET", f"{AT}/{state['id']}", headers=ADA).json()["missing"] == 0


def test_without_a_name_it_gets_one(app: Any, store: SessionStore) -> None:
    state = ask(app, "POST", AT, json={"size": 3}, headers=ADA).json()
    fill(app, state)
    ask(app, "POST", f"{AT}/{state['id']}", headers=ADA)
    assert len(names(store.session("files", "ada"))) == 1


def test_it_is_not_saved_before_it_is_complete(app: Any) -> None:
    answer = ask(app, "POST", f"{AT}/{begin(app).json()['id']}", headers=ADA)
    assert (answer.status_code, "Part" in answer.text or "parts" in answer.text) == (409, True)


def test_other_bytes_than_announced_are_refused(app: Any, store: SessionStore) -> None:
    state = begin(app, digest="0" * 64).json()
    fill(app, state)
    for status in (409, 404):
        answer = ask(app, "POST", f"{AT}/{state['id']}", headers=ADA)
        assert answer.status_code == status
    assert (names(store.session("files", "ada")), STAGED) == ([], {})


def test_an_aborted_one_is_gone(app: Any) -> None:
    state = begin(app).json()
    assert ask(app, "DELETE", f"{AT}/{state['id']}", headers=ADA).status_code == 204
    assert STAGED == {}
    assert ask(app, "GET", f"{AT}/{state['id']}", headers=ADA).status_code == 404


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_a_stranger_sees_what_is_seen_of_nothing(app: Any, method: str) -> None:
    id_ = begin(app).json()["id"]
    answers = [
        ask(app, method, f"{AT}/{each}", headers=headers)
        for each in (id_, "0" * 32, "x", "a/b")
        for headers in ({"x-visitor": "eve"}, {})
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    assert ask(app, "GET", f"{AT}/{id_}", headers=ADA).status_code == 200


def test_nobody_may_not_begin(app: Any) -> None:
    assert ask(app, "POST", AT, json={"size": 1}).status_code == 403


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_another_site_s_page_may_not(app: Any, method: str) -> None:
    id_ = begin(app).json()["id"]
    headers = {**ADA, "origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    for path in (f"{AT}/{id_}", *([AT] if method == "POST" else [])):
        answer = ask(app, method, path, json={"size": 1}, headers=headers)
        assert answer.status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        b"", b"x", b"[]", b"{}", b'{"size": "1"}', b'{"size": -1}', b'{"size": true}',
        b'{"size": 1e3}', b'{"size": 1, "name": 1}', b'{"size": 1, "digest": 1}',
        b'{"size": 1, "digest": "x"}', b'{"size": 1, "name": "../x"}', b"[" * 16_000,
        b'{"size": 1, "name": "@/upload/x"}', b'{"size": 1, "name": "\\ud800"}', b" " * 20_000,
    ],
)  # fmt: skip
def test_a_malformed_beginning_is_refused(app: Any, body: bytes) -> None:
    answer = ask(app, "POST", AT, content=body, headers=ADA)
    assert (answer.status_code, set(answer.json())) == (400, {"error", "limit", "saved"})
    assert STAGED == {}


def test_one_over_a_limit_does_not_begin(app: Any) -> None:
    answer = begin(app, size=1001)
    assert (answer.status_code, answer.json()["limit"], STAGED) == (413, "max_file", {})


@pytest.mark.parametrize(("method", "path"), [("GET", AT), ("PUT", f"{AT}/x"), ("DELETE", AT)])
def test_other_methods_are_refused(app: Any, method: str, path: str) -> None:
    assert ask(app, method, path, headers=ADA).status_code == 405


def test_it_is_off_by_default(store: SessionStore) -> None:
    app = app_of(store)
    assert ask(app, "POST", AT, content=json.dumps({"size": 1}), headers=ADA).status_code == 404


def test_a_store_that_cannot_says_so_at_once() -> None:
    with (
        memory_store(FakeClock(), secret="s" * 40) as store,
        pytest.raises(SettingsError, match="tus"),
    ):
        app_of(store, signed_uploads=True)


def test_it_needs_a_visitor(store: SessionStore) -> None:
    with pytest.raises(ValueError, match="signed_uploads"):
        Files(store, signed_uploads=True)
