"""Files by their signed URLs: who gets them, which bytes, and in which headers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request

from sessionstore import InvalidName, SessionStore, SettingsError, StoredFile
from sessionstore.adapters.asgi.app import Files
from sessionstore.backends.objects import ObjectBackend
from sessionstore.names import session_key
from sessionstore.signing import sign
from sessionstore.testing import FakeClock, Fault, FaultyBackend, on
from sessionstore.testing.faulty import unavailable
from tests.support.asgi_rig import app_of, ask, served, visitor_of
from tests.support.hostile import CLASSES
from tests.support.object_client import FakeBucket, FakeObjectClient
from tests.support.stores import HOUR, MINUTE, SECOND, local_store, memory_store

BYTES = bytes(range(256)) * 40


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def objects_store(clock: FakeClock) -> SessionStore:
    """A store in a bucket, which keeps no secret of its own."""
    bucket = FakeBucket(clock.now)
    backend = ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds)
    return SessionStore(backend, clock=clock, base_url="/files", secret="a secret for the tests")


@pytest.fixture(params=["memory", "local", "objects"])
def store(
    request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path
) -> Iterator[SessionStore]:
    makers = {
        "memory": lambda: memory_store(clock, base_url="/files"),
        "local": lambda: local_store(tmp_path / "store", clock, base_url="/files"),
        "objects": lambda: objects_store(clock),
    }
    with makers[request.param]() as made:
        yield made


@pytest.fixture
def app(store: SessionStore) -> Starlette:
    return app_of(store)


def saved(store: SessionStore, name: str = "cat.png", data: bytes = BYTES) -> StoredFile:
    return store.session("files", "ada").put(name, data)


def test_a_signed_url_serves_the_file(store: SessionStore, app: Starlette) -> None:
    file = saved(store)
    answer = ask(app, "GET", file.url())
    assert (answer.status_code, answer.content) == (200, BYTES)
    assert dict(answer.headers) == {
        "accept-ranges": "bytes",
        "cache-control": "private, no-store",
        "content-disposition": 'inline; filename="cat.png"',
        "content-length": str(len(BYTES)),
        "content-security-policy": "sandbox; default-src 'none'",
        "content-type": "image/png",
        "cross-origin-resource-policy": "same-origin",
        "etag": f'"{file.digest}"',
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }


def test_head_says_what_get_says_without_the_bytes(store: SessionStore, app: Starlette) -> None:
    url = saved(store).url()
    got, headed = ask(app, "GET", url), ask(app, "HEAD", url)
    assert (headed.status_code, headed.content) == (200, b"")
    assert headed.headers == got.headers


def test_head_passes_over_a_range(store: SessionStore, app: Starlette) -> None:
    answer = ask(app, "HEAD", saved(store).url(), headers={"range": "bytes=0-1"})
    assert (answer.status_code, answer.headers["content-length"]) == (200, str(len(BYTES)))


def test_an_empty_file_is_served(store: SessionStore, app: Starlette) -> None:
    answer = ask(app, "GET", saved(store, data=b"").url())
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "0"


def test_a_file_of_many_pieces_is_served_whole(store: SessionStore, app: Starlette) -> None:
    data = BYTES * 100
    assert ask(app, "GET", saved(store, data=data).url()).content == data


# Types and names


@pytest.mark.parametrize(
    "name",
    ["a.html", "a.svg", "a.xhtml", "a.xml", "a.js", "a.mjs", "a.pdf", "a.css", "a", "a.zip"],
)
def test_what_could_run_is_saved_as_bytes(store: SessionStore, app: Starlette, name: str) -> None:
    headers = ask(app, "GET", saved(store, name).url()).headers
    assert headers["content-disposition"].startswith("attachment;")
    assert headers["content-type"] == "application/octet-stream"
    assert headers["x-frame-options"] == "DENY"


def test_text_is_shown_as_text(store: SessionStore, app: Starlette) -> None:
    answer = ask(app, "GET", saved(store, "a.txt", b"<script>").url())
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-disposition"].startswith("inline;")


@pytest.mark.parametrize("names_of", CLASSES)
def test_every_legal_name_is_served(names_of: str) -> None:
    with memory_store(FakeClock(), base_url="/files") as store:
        app, session = app_of(store), store.session("files", "ada")
        for name in CLASSES[names_of]:
            with contextlib.suppress(InvalidName):
                answer = ask(app, "GET", session.put(name, BYTES).url())
                assert answer.content == BYTES
                (value,) = answer.headers.get_list("content-disposition")
                assert value.isprintable()


def test_names_that_routers_do_not_match_are_served_behind_a_real_server() -> None:
    names = ["a\nb.png", "\n", "50%.png", "a%0Ab.png", "a%2Fb.png", "é €/\u202egnp.png", "a;b?c#d"]
    with memory_store(FakeClock(), base_url="/files") as store, served(app_of(store)) as address:
        for name in names:
            file = saved(store, name)
            assert httpx.get(address + file.url()).content == BYTES, name


# The one 404


def answer_of(response: httpx.Response) -> tuple[int, dict[str, str], bytes]:
    return response.status_code, dict(response.headers), response.content


def test_all_that_is_not_there_looks_the_same(
    store: SessionStore, app: Starlette, clock: FakeClock
) -> None:
    file, gone = saved(store), saved(store, "gone.png")
    alive, theirs = file.url(), gone.url()
    store.session("files", "ada").delete("gone.png")
    other = session_key("files", "bob").sid
    replaced = store.session("files", "ada").put("short.png", b"1", ttl=MINUTE).url(HOUR)
    expired = file.url(SECOND)
    clock.advance(2 * MINUTE)
    secret = store.secret()
    until = store.now() + HOUR
    asked = {
        "deleted": theirs,
        "never there": "/files/" + sign(secret, file._session.sid, "no.png", until),
        "foreign": "/files/" + sign(secret, other, "cat.png", until),
        "its session changed": alive.replace(file._session.sid, other),
        "signed by another": "/files/" + sign(b"another", file._session.sid, "cat.png", until),
        "an expired signature": expired,
        "an expired file": replaced,
        "malformed": "/files/a",
        "empty": "/files/",
        "a fake token": "/files/1.x.y/cat.png",
        "another name": alive.replace("cat.png", "dog.png"),
        "a name that is none": "/files/" + sign(secret, other, "a//b", until),
        "the upload": "/files/upload",
    }
    answers = {why: answer_of(ask(app, "GET", url)) for why, url in asked.items()}
    assert ask(app, "GET", alive).status_code == 200
    assert answers["malformed"][0] == 404
    assert {why for why, answer in answers.items() if answer != answers["malformed"]} == set()
    for url in asked.values():
        assert ask(app, "HEAD", url).status_code == 404


@pytest.mark.parametrize("paths_of", CLASSES)
def test_hostile_paths_are_that_404_too(paths_of: str) -> None:
    with memory_store(FakeClock()) as store:
        app = Files(store)
        for path in CLASSES[paths_of]:
            written = [
                quote(path, errors="surrogatepass"),
                "x/" + quote(path, "", errors="replace"),
            ]
            for each in written:
                answer = ask(app, "GET", "/" + each.lstrip("/")[:60_000])  # as long as httpx sends
                assert (answer.status_code, answer.content) == (404, b"Not Found")


def test_a_malformed_url_asks_the_backend_nothing() -> None:
    clock = FakeClock()
    with memory_store(clock) as made:
        backend = FaultyBackend(made.backend)
        app = app_of(SessionStore(backend, clock=clock))
        backend.calls.clear()
        assert ask(app, "GET", "/files/1.a-00000000000000000000000000000000.b/c").status_code == 404
        assert not +backend.calls


def test_a_private_url_serves_its_visitor_alone(store: SessionStore) -> None:
    app = app_of(store, private=True)
    url = saved(store).url()
    answers = [
        answer_of(ask(app, "GET", url, headers=headers))
        for headers in ({}, {"x-visitor": "bob"}, {"x-visitor": "ada"})
    ]
    malformed = answer_of(ask(app, "GET", "/files/x"))
    assert answers[2][0] == 200
    assert answers[0] == answers[1] == malformed


def test_an_apps_refusal_is_that_404_too(store: SessionStore) -> None:
    def visitor(_: Request) -> None:
        raise HTTPException(401)

    app = Starlette()
    app.mount("/files", Files(store, visitor, private=True))
    answers = [answer_of(ask(app, "GET", url)) for url in (saved(store).url(), "/files/x")]
    assert answers[0] == answers[1] == answer_of(ask(app_of(store), "GET", "/files/x"))


def test_private_without_a_visitor_is_refused() -> None:
    with memory_store(FakeClock()) as store, pytest.raises(ValueError, match="needs a visitor"):
        Files(store, private=True)


def test_a_store_that_keeps_no_secret_is_refused_when_the_app_is_made() -> None:
    with memory_store(FakeClock()) as made:
        backend = FaultyBackend(made.backend)
        del backend.secret
        with pytest.raises(SettingsError, match="secret is not set"):
            Files(SessionStore(backend))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_refused_alike_for_what_is_there_and_what_is_not(
    store: SessionStore, method: str
) -> None:
    app = Starlette()
    app.mount("/files", Files(store))
    answers = [ask(app, method, url) for url in (saved(store).url(), "/files/x")]
    assert answer_of(answers[0]) == answer_of(answers[1])
    assert (answers[0].status_code, answers[0].headers["allow"]) == (405, "GET, HEAD")


# Ranges and validators


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, 10_240),
        ("bytes=0-", 0, 10_240),
        ("bytes=-1", 10_239, 10_240),
        ("bytes=-99999", 0, 10_240),
        ("bytes=10239-99999", 10_239, 10_240),
        ("bytes= 5-6 ", 5, 7),
    ],
)
def test_one_range(store: SessionStore, app: Starlette, asked: str, start: int, stop: int) -> None:
    answer = ask(app, "GET", saved(store).url(), headers={"range": asked})
    assert (answer.status_code, answer.content) == (206, BYTES[start:stop])
    assert answer.headers["content-length"] == str(stop - start)
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(BYTES)}"


@pytest.mark.parametrize("asked", ["bytes=10240-", "bytes=99999-", "bytes=9-1", "bytes=-0"])
def test_a_range_with_no_byte_is_unsatisfiable(
    store: SessionStore, app: Starlette, asked: str
) -> None:
    answer = ask(app, "GET", saved(store).url(), headers={"range": asked})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */10240")


@pytest.mark.parametrize("asked", ["bytes=0-", "bytes=0-0", "bytes=-3"])
def test_no_range_of_an_empty_file_is_satisfiable(
    store: SessionStore, app: Starlette, asked: str
) -> None:
    answer = ask(app, "GET", saved(store, data=b"").url(), headers={"range": asked})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */0")


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=0-0,2-3", "bytes=0-0," * 50, "items=0-1", "bytes=a-b", "bytes=-", "bytes", "0-1",
        "bytes=0-1" + " " * 300, "bytes=\u0661-\u0662", "bytes=0x1-2", "bytes=--1",
    ],
)  # fmt: skip
def test_any_other_range_is_passed_over(store: SessionStore, app: Starlette, asked: str) -> None:
    answer = ask(app, "GET", saved(store).url(), headers={"range": asked.encode()})
    assert (answer.status_code, answer.content) == (200, BYTES)


def test_ten_thousand_ranges_are_one_whole_file(store: SessionStore) -> None:
    """The header is passed over by its length; a server may refuse it before that."""
    asked = "bytes=" + ",".join(f"{n}-{n}" for n in range(10_000))
    answer = ask(app_of(store), "GET", saved(store).url(), headers={"range": asked})
    assert answer.content == BYTES


@pytest.mark.parametrize(
    "tags", ['"{}"', 'W/"{}"', '"x", "{}"', "*", '"x,y", W/"{}" , "z"', '"{}",']
)
def test_known_bytes_are_not_sent(store: SessionStore, app: Starlette, tags: str) -> None:
    file = saved(store)
    headers = {"if-none-match": tags.format(file.digest), "range": "bytes=0-1"}
    for method in ("GET", "HEAD"):
        answer = ask(app, method, file.url(), headers=headers)
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == f'"{file.digest}"'
        assert answer.headers["cache-control"] == "private, no-store"


@pytest.mark.parametrize("tags", ['"x"', "{}", '"{}x"', "", '"*"'])
def test_other_bytes_are_sent(store: SessionStore, app: Starlette, tags: str) -> None:
    file = saved(store)
    headers = {"if-none-match": tags.format(file.digest)}
    assert ask(app, "GET", file.url(), headers=headers).status_code == 200


def test_an_if_none_match_does_not_tell_what_is_there(app: Starlette) -> None:
    answer = ask(app, "GET", "/files/x/y", headers={"if-none-match": "*"})
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("if_range", "status"),
    [('"{}"', 206), ('W/"{}"', 200), ('"x"', 200), ("Wed, 21 Oct 2015 07:28:00 GMT", 200)],
)
def test_a_range_of_other_bytes_is_the_whole_file(
    store: SessionStore, app: Starlette, if_range: str, status: int
) -> None:
    file = saved(store)
    headers = {"range": "bytes=0-1", "if-range": if_range.format(file.digest)}
    assert ask(app, "GET", file.url(), headers=headers).status_code == status


# When something goes wrong


def faulty(*plan: Any, data: bytes = BYTES) -> tuple[Any, str]:
    """An app whose backend fails, and the URL of a file."""
    clock = FakeClock()
    backend = FaultyBackend(memory_store(clock).backend)
    store = SessionStore(backend, clock=clock, base_url="/files")
    url = saved(store, data=data).url(timedelta(days=1))
    app = app_of(store)
    backend.plan = on(*plan)
    return app, url


def test_a_backend_that_does_not_answer_is_a_503() -> None:
    app, url = faulty("get", Fault(unavailable))
    answer = ask(app, "GET", url)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"


def test_a_stream_that_fails_at_once_is_a_503() -> None:
    app, url = faulty("open", Fault(unavailable, at=0))
    assert ask(app, "GET", url).status_code == 503


def test_damaged_bytes_are_a_500(tmp_path: Path) -> None:
    with local_store(tmp_path, FakeClock(), base_url="/files") as store:
        url = saved(store).url()
        (path,) = tmp_path.glob("sessions/*/files/*")
        path.chmod(0o644)
        path.write_bytes(BYTES[::-1])
        answer = ask(app_of(store), "GET", url)
    assert answer.status_code == 500
    assert BYTES[:100] not in answer.content


def test_a_stream_that_fails_later_breaks_the_connection_off() -> None:
    app, url = faulty("open", Fault(unavailable, at=2_000_000), data=BYTES * 300)
    with served(app) as address, pytest.raises(httpx.RemoteProtocolError):
        httpx.get(address + url)


def test_every_byte_is_read_in_a_worker_thread(
    store: SessionStore, app: Starlette, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[str] = set()
    real = store.backend.open

    def seen(*args: Any, **options: Any) -> Any:
        threads.add(threading.current_thread().name)
        return real(*args, **options)

    monkeypatch.setattr(store.backend, "open", seen)
    url = saved(store).url()
    ask(app, "GET", url)
    assert threads
    assert threading.main_thread().name not in threads


def test_a_client_that_leaves_closes_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = threading.Event()
    with memory_store(FakeClock(), base_url="/files") as store:
        real = store.backend.open

        def watched(*args: Any, **options: Any) -> Any:
            stream = real(*args, **options)
            shut = stream.close

            def close() -> None:
                shut()
                closed.set()

            monkeypatch.setattr(stream, "close", close, raising=False)
            return stream

        url = saved(store, data=bytes(64 << 20)).url()
        monkeypatch.setattr(store.backend, "open", watched)
        with served(app_of(store)) as address, httpx.stream("GET", address + url) as answer:
            next(answer.iter_raw())
            answer.close()
            assert closed.wait(60)


def test_the_visitor_may_be_asked_by_a_coroutine() -> None:
    with memory_store(FakeClock(), base_url="/files") as store:
        plain = visitor_of(store)

        async def visitor(request: Any) -> Any:
            return plain(request)

        app = Starlette()
        app.mount("/files", Files(store, visitor, private=True))
        url = saved(store).url()
        assert ask(app, "GET", url, headers={"x-visitor": "ada"}).status_code == 200
        assert ask(app, "GET", url, headers={"x-visitor": "bob"}).status_code == 404
