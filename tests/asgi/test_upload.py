"""Uploads: into the visitor's own session, within the limits, as the bytes arrive."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request

from sessionstore import InvalidName, Limits, SessionStore
from sessionstore.adapters.asgi.app import Files, OwnerCookie, owner, same_origin
from sessionstore.backends.objects import ObjectBackend
from sessionstore.names import file_name
from sessionstore.testing import FakeClock, Fault, FaultyBackend, on
from sessionstore.testing.faulty import disk_full, unavailable
from tests.support.asgi_rig import Form, app_of, as_it_comes, ask, served, visitor_of
from tests.support.hostile import CLASSES
from tests.support.object_client import FakeBucket, FakeObjectClient
from tests.support.stores import PATIENCE, Heard, local_store, memory_store, names

ADA = {"x-visitor": "ada"}
MIB = 1 << 20


@pytest.fixture
def store() -> Iterator[SessionStore]:
    with memory_store(FakeClock(), base_url="/files") as made:
        yield made


def put(app: Any, name: str, content: Any, **headers: str) -> httpx.Response:
    path = f"/files/upload/{quote(name, '')}"
    return ask(app, "PUT", path, content=content, headers={**ADA, **headers})


def post(app: Any, form: Form, **headers: str) -> httpx.Response:
    return ask(
        app, "POST", "/files/upload", content=form.body, headers={**ADA, **form.headers, **headers}
    )


def test_a_body_is_saved_under_its_name(store: SessionStore) -> None:
    answer = put(app_of(store), "a b/é.png", b"bytes")
    assert answer.status_code == 201
    assert store.session("files", "ada").read("a b/é.png") == b"bytes"
    (described,) = answer.json()
    assert described["url"].startswith("/files/")
    assert described == {
        "name": "a b/é.png", "size": 5, "media_type": "image/png", "url": described["url"]
    }  # fmt: skip


def test_the_url_in_the_answer_serves_it(store: SessionStore) -> None:
    app = app_of(store)
    (described,) = put(app, "a.png", b"bytes").json()
    assert ask(app, "GET", described["url"]).content == b"bytes"


def test_without_a_base_url_it_is_below_the_mount() -> None:
    with memory_store(FakeClock()) as store:
        app = app_of(store)
        (described,) = post(app, Form(("50%%0A.png", b"bytes"))).json()
        assert described["name"] == "50%\n.png"
        assert ask(app, "GET", described["url"]).content == b"bytes"


def test_an_empty_body_is_an_empty_file(store: SessionStore) -> None:
    assert put(app_of(store), "a", b"").status_code == 201
    assert store.session("files", "ada").read("a") == b""


def test_a_form_is_saved_file_by_file(store: SessionStore) -> None:
    big = bytes(range(256)) * 8192
    form = Form(("a.txt", b"one"), ("d/b.txt", big), ("", b""), ("c.txt", b""), field="hello")
    answer = post(app_of(store), form)
    assert [each["name"] for each in answer.json()] == ["a.txt", "d/b.txt", "c.txt"]
    session = store.session("files", "ada")
    assert [session.read(name) for name in ("a.txt", "c.txt", "d/b.txt")] == [b"one", b"", big]


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 19, 64])
def test_a_form_may_arrive_in_any_pieces(
    store: SessionStore, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessionstore.adapters.asgi.upload.PIECE", 1)
    form = Form(("a.txt", b"one\r\n------a-boundar"), ("b.txt", b"\r\n--"))
    pieces = [form.body[at : at + cut] for at in range(0, len(form.body), cut)]
    answer = ask(
        app_of(store), "POST", "/files/upload", content=as_it_comes(pieces),
        headers={**ADA, **form.headers},
    )  # fmt: skip
    assert answer.status_code == 201
    assert store.session("files", "ada").read("a.txt") == b"one\r\n------a-boundar"
    assert store.session("files", "ada").read("b.txt") == b"\r\n--"


@pytest.mark.parametrize("names_of", CLASSES)
def test_a_hostile_name_is_kept_as_it_is_or_refused(store: SessionStore, names_of: str) -> None:
    app, session = app_of(store), store.session("files", "ada")
    for name in filter(a_form_can_say, CLASSES[names_of]):
        answer = post(app, Form((name, b"x")))
        assert answer.status_code == (201 if is_legal(name) else 400), name
        assert names(session) == ([name] if is_legal(name) else [])
        session.drop()


def a_form_can_say(name: str) -> bool:
    """Whether it stands in a form as it is, by what browsers and parsers agree on."""
    return bool(name) and name.isprintable() and not set(name) & set('"\\')


def is_legal(name: str) -> bool:
    try:
        return bool(file_name(name))
    except InvalidName:
        return False


@pytest.mark.parametrize(
    "path", ["/files/upload", "/files/upload/", "/files/upload/../x", "/files/upload//x"]
)
def test_a_body_without_a_right_name_is_a_400(store: SessionStore, path: str) -> None:
    with served(app_of(store)) as address:
        answer = raw(address, f"PUT {path} HTTP/1.1", "Content-Length: 1", body=b"x")
    assert answer.startswith(b"HTTP/1.1 400")
    assert not list(store.sessions())


def raw(address: str, line: str, *headers: str, body: bytes = b"") -> bytes:
    """What a server answers to bytes that no client library would send."""
    place = urlsplit(address)
    assert place.hostname
    assert place.port
    head = "\r\n".join([line, f"Host: {place.netloc}", "x-visitor: ada", *headers, "", ""])
    with socket.create_connection((place.hostname, place.port), PATIENCE) as connection:
        connection.sendall(head.encode() + body)
        answer = b""
        while b'"saved":[]}' not in answer and (more := connection.recv(65536)):
            answer += more
        return answer


# Who may


def test_nobody_may_where_no_visitor_is_asked_for(store: SessionStore) -> None:
    app = Starlette()
    app.mount("/files", Files(store))
    assert put(app, "a", b"x").status_code == 405


def test_whoever_is_nobody_may_not(store: SessionStore) -> None:
    answer = ask(app_of(store), "PUT", "/files/upload/a", content=b"x")
    assert (answer.status_code, answer.json()["saved"]) == (403, [])


def test_an_apps_own_refusal_is_answered_as_it_says(store: SessionStore) -> None:
    def visitor(_: Request) -> None:
        raise HTTPException(401, "Log in first.")

    app = Starlette()
    app.mount("/files", Files(store, visitor))
    answer = put(app, "a", b"x")
    assert (answer.status_code, answer.text) == (401, "Log in first.")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"sec-fetch-site": "same-origin"}, 201),
        ({"sec-fetch-site": "none"}, 201),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "http://test"}, 403),
        ({"origin": "http://test"}, 201),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://test:81"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "https://a.example", "x-forwarded-host": "a.example"}, 201),
    ],
)
def test_other_sites_may_not(store: SessionStore, headers: dict[str, str], status: int) -> None:
    assert put(app_of(store), "a", b"x", **headers).status_code == status


def test_each_visitor_has_files_of_their_own(store: SessionStore) -> None:
    app = app_of(store)
    put(app, "a", b"ada's")
    ask(app, "PUT", "/files/upload/a", content=b"bob's", headers={"x-visitor": "bob"})
    assert store.session("files", "ada").read("a") == b"ada's"
    assert store.session("files", "bob").read("a") == b"bob's"


# Limits


@pytest.mark.parametrize(
    ("limits", "status", "named"),
    [
        (Limits(max_file=3 * MIB), 413, "max_file"),
        (Limits(max_session=3 * MIB), 413, "max_session"),
        (Limits(max_session_files=0), 413, "max_session_files"),
        (Limits(max_store=3 * MIB), 507, "max_store"),
    ],
)
def test_over_a_limit_nothing_is_left(limits: Limits, status: int, named: str) -> None:
    with memory_store(FakeClock(), limits=limits) as store:
        heard = Heard(store, "limit_exceeded", "saved")
        answer = put(app_of(store), "a", as_it_comes([bytes(MIB)] * 4))
        assert answer.status_code == status
        assert answer.json()["limit"] == named
        assert (named in answer.json()["error"]) == (status == 413)
        assert names(store.session("files", "ada")) == []
        assert store.backend.stored().bytes == 0
        assert heard.kinds() == ["limit_exceeded"]


def test_over_a_limit_the_older_file_stays() -> None:
    with memory_store(FakeClock(), limits=Limits(max_file=10)) as store:
        app = app_of(store)
        put(app, "a", b"old")
        assert put(app, "a", as_it_comes([b"x" * 11])).status_code == 413
        assert store.session("files", "ada").read("a") == b"old"


def test_a_full_disk_is_a_507_and_says_no_limit() -> None:
    clock = FakeClock()
    backend = FaultyBackend(memory_store(clock).backend, on("put", Fault(disk_full)))
    answer = put(app_of(SessionStore(backend, clock=clock)), "a", b"x")
    assert (answer.status_code, answer.json()["limit"]) == (507, None)


@pytest.mark.parametrize(("code", "status"), [(errno.ENOSPC, 507), (errno.EROFS, 503)])
def test_a_folder_for_temporary_files_that_refuses_is_an_answer(
    monkeypatch: pytest.MonkeyPatch, code: int, status: int
) -> None:
    def refuse(**_: Any) -> None:
        raise OSError(code, os.strerror(code))

    bucket = FakeBucket(FakeClock().now)
    backend = ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds)
    with SessionStore(backend, secret="a secret for the tests") as store:
        app = app_of(store)
        put(app, "a", b"old")
        monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
        answers = [put(app, "a", bytes(2 * MIB)), post(app, Form(("a", bytes(2 * MIB))))]
        assert [it.status_code for it in answers] == [status, status]
        assert tempfile.gettempdir() not in answers[0].text
        assert store.session("files", "ada").read("a") == b"old"


def test_the_files_of_a_form_before_the_one_refused_stay_and_are_named() -> None:
    with memory_store(FakeClock(), limits=Limits(max_file=10)) as store:
        answer = post(app_of(store), Form(("a", b"1"), ("b", b"x" * 11), ("c", b"3")))
        assert (answer.status_code, answer.json()["saved"]) == (413, ["a"])
        assert names(store.session("files", "ada")) == ["a"]


def test_what_says_it_is_too_large_is_not_read() -> None:
    with memory_store(FakeClock(), limits=Limits(max_file=10)) as store:
        with served(app_of(store)) as address:
            answer = raw(
                address, "PUT /files/upload/a HTTP/1.1", "Content-Length: 11",
                "Expect: 100-continue",
            )  # fmt: skip
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"max_file=10" in answer


def test_a_length_that_lies_is_cut_at_the_limit(tmp_path: Path) -> None:
    """Chunked, so that no length is announced; the client goes on sending and gets its answer."""
    with local_store(tmp_path, FakeClock(), limits=Limits(max_file=2 * MIB)) as store:
        with served(app_of(store)) as address:
            answer = httpx.put(
                f"{address}/files/upload/a",
                content=iter([bytes(MIB)] * 64),
                headers=ADA,
                timeout=PATIENCE,
            )
        assert answer.status_code == 413
        assert answer.headers["connection"] == "close"
        store.sweep()
        left = [*tmp_path.glob("tmp/*/*"), *tmp_path.glob("blobs/*/*")]
        assert (left, names(store.session("files", "ada"))) == ([], [])


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    chunk = bytes(MIB)
    with local_store(tmp_path, FakeClock()) as store:
        app = app_of(store)
        put(app, "small", as_it_comes([chunk] * 4))
        tracemalloc.start()
        try:
            answer = put(app, "large", as_it_comes([chunk] * 128))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert answer.json()[0]["size"] == 128 * MIB
    assert peak < 12 * MIB


def test_a_refused_client_is_heard_to_the_end_after_its_answer() -> None:
    """Or the system resets the connection, and the answer with it."""
    with memory_store(FakeClock(), limits=Limits(max_file=10)) as store:
        scope = {
            "type": "http", "http_version": "1.1", "method": "PUT", "path": "/upload/a",
            "query_string": b"", "headers": [(b"x-visitor", b"ada")],
        }  # fmt: skip
        happened: list[str] = []

        async def receive() -> Any:
            happened.append("received")
            more = happened.count("received") < 5
            return {"type": "http.request", "body": bytes(MIB), "more_body": more}

        async def send(message: Any) -> None:
            happened.append("sent" if message.get("more_body", True) else "over")

        asyncio.run(Files(store, visitor_of(store))(scope, receive, send))
    assert happened == ["received", "sent", "sent", *["received"] * 4, "over"]


def test_a_client_that_leaves_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    with local_store(tmp_path, FakeClock()) as store:
        app = app_of(store)
        done = threading.Event()

        async def watched(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            finally:
                done.set()

        with served(watched) as address:
            place = urlsplit(address)
            with socket.create_connection((str(place.hostname), place.port or 0)) as connection:
                head = "PUT /files/upload/a HTTP/1.1\r\nHost: x\r\nx-visitor: ada\r\n"
                connection.sendall(f"{head}Content-Length: {8 * MIB}\r\n\r\n".encode())
                connection.sendall(bytes(4 * MIB))
            assert done.wait(PATIENCE)
        assert names(store.session("files", "ada")) == []
        store.sweep()
        assert [*tmp_path.glob("tmp/*/*")] == []


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"not a form", {}),
        (Form(("a", b"1")).body[:-10], {}),
        (Form(("a", b"1")).body, {"content-type": "multipart/form-data"}),
        (Form(("a", b"1")).body, {"content-type": "text/plain"}),
        (Form(("a", b"1")).body.replace(b'"a"', b'"\xff"'), {}),
        (Form(("a", b"1")).body.replace(b"Content-D", b"X: y\r\n" * 9999 + b"Content-D"), {}),
        (
            Form(("a", b"1")).body.replace(b"Content-D", b"X: " + b"y" * 99999 + b"\r\nContent-D"),
            {},
        ),
        (Form(("a", b"1")).body.replace(b'"a"', b'"' + b"a" * 9000 + b'"'), {}),
    ],
)
def test_what_is_no_form_is_a_400(
    store: SessionStore, body: bytes, headers: dict[str, str]
) -> None:
    answer = ask(
        app_of(store), "POST", "/files/upload", content=body,
        headers={**ADA, **Form.headers, **headers},
    )  # fmt: skip
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_a_form_of_too_many_files_is_cut_off(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessionstore.adapters.asgi.upload._MOST_FILES", 2)
    answer = post(app_of(store), Form(*((f"{n}", b"x") for n in range(4))))
    assert (answer.status_code, answer.json()["saved"]) == (400, ["0", "1"])


def test_a_backend_that_does_not_answer_is_a_503() -> None:
    clock = FakeClock()
    backend = FaultyBackend(memory_store(clock).backend, on("put", Fault(unavailable)))
    answer = put(app_of(SessionStore(backend, clock=clock)), "a", b"x")
    assert answer.status_code == 503
    assert "did not answer" not in answer.text


def test_every_byte_is_written_in_a_worker_thread(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    real = store.backend.put

    def seen(*args: Any, **options: Any) -> Any:
        threads.append(threading.current_thread())
        return real(*args, **options)

    monkeypatch.setattr(store.backend, "put", seen)
    put(app_of(store), "a", b"x")
    post(app_of(store), Form(("b", b"x")))
    assert len(threads) == 2
    assert threading.main_thread() not in threads


# The owner's cookie


def page(scope: Any) -> Any:
    from starlette.responses import HTMLResponse, PlainTextResponse

    if scope["path"] == "/text":
        return PlainTextResponse("x")
    return HTMLResponse("<p>", 404 if scope["path"] == "/missing" else 200)


async def pages(scope: Any, receive: Any, send: Any) -> None:
    await page(scope)(scope, receive, send)


def test_a_page_brings_a_cookie_once() -> None:
    app = OwnerCookie(pages)
    first = ask(app, "GET", "/")
    cookie = first.headers["set-cookie"]
    assert first.headers["cache-control"] == "private, no-cache"
    assert "HttpOnly" in cookie
    again = ask(app, "GET", "/", headers={"cookie": cookie.split(";")[0]})
    assert "set-cookie" not in again.headers


@pytest.mark.parametrize(("method", "path"), [("GET", "/text"), ("POST", "/"), ("GET", "/missing")])
def test_nothing_but_a_page_brings_one(method: str, path: str) -> None:
    assert "set-cookie" not in ask(OwnerCookie(pages), method, path).headers


def test_the_owner_is_a_digest_of_the_cookie() -> None:
    cookie = ask(OwnerCookie(pages), "GET", "/").headers["set-cookie"].split(";")[0]
    scope = {"type": "http", "scheme": "http", "headers": [(b"cookie", cookie.encode())]}
    found = owner(Request(scope))
    assert found is not None
    assert cookie.partition("=")[2] not in found
    assert owner(Request({**scope, "headers": []})) is None
    assert same_origin(Request(scope))


def test_all_of_it_runs_beside_other_requests() -> None:
    """A visitor function that blocks is in a thread: the loop goes on."""
    with memory_store(FakeClock()) as store:
        gate = threading.Event()

        def slow(_: Request) -> Any:
            gate.wait(PATIENCE)
            return store.session("a")

        files = Files(store, slow)

        async def both() -> tuple[int, int]:
            transport = httpx.ASGITransport(app=files)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                waiting = asyncio.create_task(client.put("/upload/a", content=b"x"))
                quick = await client.get("/x")
                gate.set()
                return quick.status_code, (await waiting).status_code

        assert asyncio.run(both()) == (404, 201)
