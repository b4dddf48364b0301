"""tus 1.0.0, request by request: https://tus.io/protocols/resumable-upload."""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import Iterator
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from sessionstore import Limits, SessionStore
from sessionstore.names import UPLOADS
from sessionstore.testing import FakeClock, Fault, FaultyBackend, on
from sessionstore.testing.faulty import unavailable
from sessionstore.upload_writer import UploadWriter
from tests.gradio.test_browser import eventually
from tests.support.asgi_rig import app_of, as_it_comes, ask, served
from tests.support.stores import PATIENCE, memory_store, names

TUS = {"tus-resumable": "1.0.0", "x-visitor": "ada"}
BODY = {"content-type": "application/offset+octet-stream"}
CREATE = "/files/tus"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> Iterator[SessionStore]:
    with memory_store(clock, base_url="/files") as made:
        yield made


@pytest.fixture
def app(store: SessionStore) -> Any:
    return app_of(store)


def named(name: str) -> str:
    return f"filename {base64.b64encode(name.encode()).decode()}"


def create(app: Any, size: int, name: str = "a.bin", **more: Any) -> str:
    """Begin an upload; its path."""
    headers = {**TUS, "upload-length": str(size), "upload-metadata": named(name)}
    answer = ask(app, "POST", CREATE, headers={**headers, **more})
    assert answer.status_code == 201, answer.text
    return str(answer.headers["location"])


def patch(app: Any, path: str, offset: int, content: Any, **more: str) -> httpx.Response:
    headers = {**TUS, **BODY, "upload-offset": str(offset), **more}
    return ask(app, "PATCH", path, content=content, headers=headers)


def head(app: Any, path: str, **more: str) -> httpx.Response:
    return ask(app, "HEAD", path, headers={**TUS, **more})


def test_options_say_what_there_is(app: Any) -> None:
    answer = ask(app, "OPTIONS", CREATE)
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert set(answer.headers["tus-extension"].split(",")) == {
        "creation", "creation-with-upload", "expiration", "checksum", "termination"
    }  # fmt: skip
    assert "sha1" in answer.headers["tus-checksum-algorithm"].split(",")
    assert "tus-max-size" not in answer.headers


def test_options_say_the_largest_file(clock: FakeClock) -> None:
    with memory_store(clock, limits=Limits(max_file=500)) as store:
        assert ask(app_of(store), "OPTIONS", CREATE).headers["tus-max-size"] == "500"


def test_an_upload_is_created_continued_and_saved(app: Any, store: SessionStore) -> None:
    path = create(app, 10, "ä/b.txt")
    first = patch(app, path, 0, b"01234")
    assert (first.status_code, first.headers["upload-offset"]) == (204, "5")
    state = head(app, path)
    assert (state.status_code, state.headers["upload-offset"]) == (200, "5")
    assert (state.headers["upload-length"], state.headers["cache-control"]) == ("10", "no-store")
    assert state.headers["upload-metadata"] == named("ä/b.txt")
    assert patch(app, path, 5, b"56789").headers["upload-offset"] == "10"

    assert store.session("files", "ada").read("ä/b.txt") == b"0123456789"
    assert head(app, path).headers["upload-offset"] == "10"
    for answer in (first, state):
        assert answer.headers["tus-resumable"] == "1.0.0"


def test_the_finished_file_is_described_as_by_put(app: Any) -> None:
    path = create(app, 5, "a.png")
    assert ask(app, "GET", path, headers=TUS).status_code == 404
    patch(app, path, 0, b"bytes")
    (described,) = ask(app, "GET", path, headers=TUS).json()

    assert (described["name"], described["size"]) == ("a.png", 5)
    assert ask(app, "GET", described["url"]).content == b"bytes"


def test_without_a_name_it_gets_one(app: Any, store: SessionStore) -> None:
    headers = {**TUS, "upload-length": "1"}
    path = ask(app, "POST", CREATE, headers=headers).headers["location"]
    patch(app, path, 0, b"x")

    assert len(names(store.session("files", "ada"))) == 1


def test_the_address_is_below_that_of_the_creation(app: Any) -> None:
    headers = {**TUS, "upload-length": "1"}
    for path in (CREATE, f"{CREATE}/"):
        assert ask(app, "POST", path, headers=headers).headers["location"].startswith("/files/tus/")


def test_an_empty_file_is_complete_at_once(app: Any, store: SessionStore) -> None:
    create(app, 0, "empty")
    assert store.session("files", "ada").read("empty") == b""


def test_the_creation_may_have_the_first_bytes(app: Any, store: SessionStore) -> None:
    headers = {**TUS, **BODY, "upload-length": "5", "upload-metadata": named("a")}
    part = ask(app, "POST", CREATE, content=b"012", headers=headers)
    assert (part.status_code, part.headers["upload-offset"]) == (201, "3")
    whole = ask(app, "POST", CREATE, content=b"01234", headers=headers)
    assert whole.headers["upload-offset"] == "5"
    assert store.session("files", "ada").read("a") == b"01234"


@pytest.mark.parametrize("method", ["POST", "HEAD", "PATCH", "DELETE"])
@pytest.mark.parametrize("version", [None, "0.2.2"])
def test_another_version_is_not_processed(app: Any, method: str, version: str | None) -> None:
    path = create(app, 5)
    headers = {**TUS, **BODY, "upload-length": "5", "upload-offset": "0"}
    del headers["tus-resumable"]
    if version:
        headers["tus-resumable"] = version
    answer = ask(app, method, CREATE if method == "POST" else path, content=b"x", headers=headers)

    assert (answer.status_code, answer.headers["tus-version"]) == (412, "1.0.0")
    assert head(app, path).headers["upload-offset"] == "0"


@pytest.mark.parametrize("offset", [1, 4, 6])
def test_another_offset_is_a_conflict(app: Any, offset: int) -> None:
    path = create(app, 10)
    patch(app, path, 0, b"01234")

    assert patch(app, path, offset, b"5").status_code == 409
    assert head(app, path).headers["upload-offset"] == "5"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "text/plain"}, 415),
        ({"upload-offset": "-1"}, 400),
        ({"upload-offset": ""}, 400),
        ({"upload-offset": "٣"}, 400),
        ({"upload-checksum": "crc32 AAAA"}, 400),
        ({"upload-checksum": "sha1 !"}, 400),
        ({"upload-checksum": "sha1"}, 460),
    ],
)
def test_a_malformed_patch_is_refused(app: Any, headers: dict[str, str], status: int) -> None:
    path = create(app, 10)
    encoded = {name: value.encode() for name, value in headers.items()}
    answer = patch(app, path, 0, b"0", **encoded)  # type: ignore[arg-type]  # httpx takes bytes too

    assert answer.status_code == status
    assert head(app, path).headers["upload-offset"] == "0"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),
        ({"upload-length": "x"}, 400),
        ({"upload-length": "9" * 40}, 400),
        ({"upload-defer-length": "1"}, 400),
        ({"upload-length": "1", "upload-metadata": "filename !"}, 400),
        ({"upload-length": "1", "upload-metadata": "filename /w=="}, 400),
        ({"upload-length": "1", "upload-metadata": named("../x")}, 400),
        ({"upload-length": "1", "upload-metadata": named("@/upload/x")}, 400),
    ],
)
def test_a_malformed_creation_is_refused(
    app: Any, store: SessionStore, headers: dict[str, str], status: int
) -> None:
    assert ask(app, "POST", CREATE, headers={**TUS, **headers}).status_code == status
    assert not list(store.sessions())


def test_more_than_announced_is_refused(app: Any) -> None:
    path = create(app, 5)
    assert patch(app, path, 0, b"012345").status_code == 413
    assert patch(app, path, 0, as_it_comes([b"012345"])).status_code == 409
    assert head(app, path).headers["upload-offset"] == "0"


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5"])
def test_a_checksum_is_compared(app: Any, store: SessionStore, algorithm: str) -> None:
    path = create(app, 5, "a")
    digest = hashlib.new(algorithm, b"01234", usedforsecurity=False).digest()
    checksum = f"{algorithm} {base64.b64encode(digest).decode()}"
    wrong = patch(app, path, 0, b"01235", **{"upload-checksum": checksum})
    assert wrong.status_code == 460
    assert head(app, path).headers["upload-offset"] == "0"
    right = patch(app, path, 0, b"01234", **{"upload-checksum": checksum})

    assert right.status_code == 204
    assert store.session("files", "ada").read("a") == b"01234"


def test_an_upload_expires(app: Any, store: SessionStore, clock: FakeClock) -> None:
    path = create(app, 10)
    answer = patch(app, path, 0, b"01234")
    expires = parsedate_to_datetime(answer.headers["upload-expires"])
    assert timedelta(0) < expires - store.now() <= timedelta(hours=24)
    clock.advance(timedelta(hours=24))
    assert head(app, path).status_code == 404
    store.sweep()

    assert store.usage().files == 0


def test_a_deleted_upload_is_gone(app: Any, store: SessionStore) -> None:
    path = create(app, 10)
    patch(app, path, 0, b"01234")
    assert ask(app, "DELETE", path, headers=TUS).status_code == 204
    assert head(app, path).status_code == 404
    assert patch(app, path, 5, b"5").status_code == 404
    session = store.session("files", "ada")

    assert not [each for each in store.backend.files(session.sid) if UPLOADS in each.name]


def test_a_method_may_be_overridden(app: Any) -> None:
    path = create(app, 10)
    headers = {**TUS, **BODY, "upload-offset": "0", "x-http-method-override": "PATCH"}

    assert ask(app, "POST", path, content=b"0", headers=headers).headers["upload-offset"] == "1"


@pytest.mark.parametrize("method", ["HEAD", "PATCH", "DELETE", "GET"])
def test_a_stranger_gets_the_404_of_nothing(app: Any, method: str) -> None:
    path = create(app, 10)
    headers = {**TUS, **BODY, "upload-offset": "0", "x-visitor": "eve"}
    found = ask(app, method, path, content=b"x", headers=headers)
    nothing = ask(app, method, f"/files/tus/{'0' * 32}", content=b"x", headers=headers)
    del headers["x-visitor"]
    nobody = ask(app, method, path, content=b"x", headers=headers)

    assert found.status_code == 404
    for other in (nothing, nobody):
        assert (other.status_code, other.headers, other.content) == (
            404, found.headers, found.content
        )  # fmt: skip
    assert head(app, path).headers["upload-offset"] == "0"


def test_nobody_begins_no_upload(app: Any, store: SessionStore) -> None:
    headers = {"tus-resumable": "1.0.0", "upload-length": "1"}
    assert ask(app, "POST", CREATE, headers=headers).status_code == 403
    assert not list(store.sessions())


@pytest.mark.parametrize("method", ["POST", "PATCH", "DELETE"])
def test_another_site_cannot_have_a_visitor_upload(app: Any, method: str) -> None:
    path = create(app, 10)
    headers = {**TUS, **BODY, "upload-offset": "0", "upload-length": "1"}
    headers["sec-fetch-site"] = "cross-site"
    answer = ask(app, method, CREATE if method == "POST" else path, content=b"x", headers=headers)

    assert answer.status_code == 403
    assert head(app, path).headers["upload-offset"] == "0"


def test_a_limit_is_met_at_the_creation_or_in_the_middle(clock: FakeClock) -> None:
    with memory_store(clock, limits=Limits(max_file=1000, max_session=1200)) as store:
        app = app_of(store)
        headers = {**TUS, "upload-length": "1001"}
        answer = ask(app, "POST", CREATE, headers=headers)
        assert (answer.status_code, answer.json()["limit"]) == (413, "max_file")
        path = create(app, 1000)
        store.session("files", "ada").put("b", bytes(500))
        answer = patch(app, path, 0, bytes(1000))
        assert (answer.status_code, answer.json()["limit"]) == (413, "max_session")
        assert "a.bin" in answer.json()["error"]


def test_a_failing_store_is_a_503_and_the_client_goes_on(app: Any, store: SessionStore) -> None:
    path = create(app, 10)
    before = store.backend
    store.wrap(lambda backend: FaultyBackend(backend, on("put", Fault(unavailable))))
    assert patch(app, path, 0, b"01234").status_code == 503
    store.wrap(lambda _: before)

    assert head(app, path).headers["upload-offset"] == "0"
    assert patch(app, path, 0, bytes(10)).status_code == 204


def test_an_upload_whose_finish_failed_is_finished_by_the_next_request(
    app: Any, store: SessionStore
) -> None:
    path = create(app, 10, "a")
    before = store.backend
    store.wrap(lambda backend: FaultyBackend(backend, on("put", Fault(unavailable), number=2)))
    assert patch(app, path, 0, bytes(10)).status_code == 503
    store.wrap(lambda _: before)
    assert head(app, path).headers["upload-offset"] == "10"

    assert store.session("files", "ada").read("a") == bytes(10)


@pytest.mark.parametrize("checksum", [False, True])
def test_what_came_before_a_cut_is_kept(app: Any, store: SessionStore, checksum: bool) -> None:
    """With a checksum it is not: it cannot be compared."""
    path = create(app, 3_000_000)
    more = "Upload-Checksum: sha1 AAAA\r\n" if checksum else ""
    with served(app) as address:
        place = urlsplit(address)
        with socket.create_connection((str(place.hostname), place.port or 0), PATIENCE) as cut:
            cut.sendall(
                f"PATCH {path} HTTP/1.1\r\nHost: {place.netloc}\r\nx-visitor: ada\r\n"
                "Tus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Length: 3000000\r\n"
                f"{more}Content-Type: application/offset+octet-stream\r\n\r\n".encode()
                + bytes(1_300_000)
            )
            eventually(PATIENCE, lambda: any(taken(each) for each in list(store.writers.values())))
        eventually(PATIENCE, lambda: not store.writers)
    kept = int(head(app, path).headers["upload-offset"])
    assert kept == 0 if checksum else 1_250_000 < kept <= 1_300_000


def taken(writer: object) -> int:
    """The bytes that a writer has in its piece."""
    assert isinstance(writer, UploadWriter)
    return writer._taken
