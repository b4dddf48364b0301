"""What an attached app sends: one range, its own validators, and nothing of the request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import httpx
import pytest

from sessionstore import LimitExceeded, Limits
from sessionstore.adapters.gradio import cache_files, file_routes
from tests.support.gradio_rig import GRADIO_S_OWN, SERVED, MakeReplicas, Replica, Tab, replicas

pytestmark = GRADIO_S_OWN

CONTENT = bytes(range(256)) * 40


@pytest.fixture(params=SERVED)
def make(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MakeReplicas]:
    with replicas(tmp_path) as make:
        yield lambda *args, **kwargs: make(*args, how=request.param, **kwargs)


@pytest.fixture
def served(
    make: MakeReplicas, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[Replica, Tab, dict[str, str]]:
    """A replica with an empty disk, a visitor, and a file that was uploaded elsewhere.

    A parameter "large" has it sent like a large one.
    """
    if getattr(request, "param", "") == "large":
        monkeypatch.setattr(cache_files, "LARGE", 0)
    a, b = make(build), make(build)
    tab = a.tab().load()
    file = tab.upload("sound.wav", CONTENT)
    a.lose_disk()
    return b, b.same(tab), file


def build() -> gr.Blocks:
    made: gr.Blocks
    with gr.Blocks() as made:
        gr.on(fn=lambda path: path, inputs=gr.File(), outputs=gr.DownloadButton(), api_name="echo")
    return made


Given = tuple[Replica, Tab, dict[str, str]]
SIZES = pytest.mark.parametrize("served", ["small", "large"], indirect=True)


@SIZES
@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-9", 0, 9),
        ("bytes=100-100", 100, 100),
        ("bytes=5000-", 5000, len(CONTENT) - 1),
        ("bytes=-7", len(CONTENT) - 7, len(CONTENT) - 1),
        ("bytes=10-999999", 10, len(CONTENT) - 1),
    ],
)
def test_one_range_is_sent_and_nothing_of_the_request(
    served: Given, asked: str, start: int, end: int
) -> None:
    _, tab, file = served

    answer = tab.fetch(file, range=asked, authorization="Bearer secret", **{"x-mine": "secret"})

    assert answer.status_code == 206
    assert answer.content == CONTENT[start : end + 1]
    assert answer.headers["content-range"] == f"bytes {start}-{end}/{len(CONTENT)}"
    assert answer.headers["accept-ranges"] == "bytes"
    assert "secret" not in str(answer.headers)
    assert not {"cookie", "authorization", "x-mine", "host", "user-agent"} & set(answer.headers)


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=0-1,4-5",
        "bytes=9-1",
        "bytes=-",
        "lines=1-2",
        "x",
        "",
        f"bytes={'9' * 5000}-{'9' * 5000}",
    ],
)
def test_what_is_no_single_range_is_answered_whole(served: Given, asked: str) -> None:
    _, tab, file = served

    answer = tab.fetch(file, range=asked)

    assert (answer.status_code, answer.content) == (200, CONTENT)


@SIZES
def test_a_range_past_the_end_is_refused_with_the_length(served: Given) -> None:
    _, tab, file = served

    answer = tab.fetch(file, range="bytes=999999-")

    assert answer.status_code == 416
    assert answer.headers["content-range"].endswith(f"*/{len(CONTENT)}")


def test_the_entity_tag_is_the_same_on_every_replica(make: MakeReplicas) -> None:
    a, b = make(build), make(build)
    tab = a.tab().load()
    file = tab.upload("sound.wav", CONTENT)

    tags = {each.same(tab).fetch(file).headers["etag"] for each in (a, b)}

    assert len(tags) == 1


@SIZES
def test_a_range_goes_on_at_another_replica_unless_the_file_is_another(served: Given) -> None:
    """What a video player does when it seeks: it asks for the rest of the very same file."""
    _, tab, file = served
    tag = tab.fetch(file).headers["etag"]

    same = tab.fetch(file, range="bytes=10-19", **{"if-range": tag})
    other = tab.fetch(file, range="bytes=10-19", **{"if-range": '"other"'})

    assert (same.status_code, same.content) == (206, CONTENT[10:20])
    assert (other.status_code, other.content) == (200, CONTENT)


def test_a_browser_may_keep_a_copy_but_has_to_ask(served: Given) -> None:
    _, tab, file = served
    first = tab.fetch(file)

    again = tab.fetch(file, **{"if-none-match": f'"x", {first.headers["etag"]}'})

    assert first.headers["cache-control"] == "private, no-cache"
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]


def test_nothing_that_is_sent_may_run_in_a_browser(served: Given) -> None:
    _, tab, file = served

    headers = tab.fetch(file).headers

    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "sandbox"


def test_a_head_request_fetches_nothing_to_the_client(served: Given) -> None:
    _, tab, file = served

    answer = tab.client.head(tab.api(f"file={file['path']}"))

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(CONTENT))


def test_a_file_of_a_hundred_megabytes_goes_up_and_comes_from_elsewhere(
    make: MakeReplicas, tmp_path: Path
) -> None:
    a, b = make(build), make(build)
    tab = a.tab().load()
    source = tmp_path / "large.bin"
    with source.open("wb") as to:
        for number in range(100):
            to.write(number.to_bytes(8, "big") * (1 << 17))
        to.write(b"the end")

    with source.open("rb") as stream:
        answer = tab.client.post(tab.api("upload"), files={"files": ("large.bin", stream)})
    file = {"path": answer.raise_for_status().json()[0]}
    a.lose_disk()
    end = b.same(tab).fetch(file, range="bytes=-7")

    assert end.content == b"the end"
    assert end.headers["content-range"].endswith(f"/{source.stat().st_size}")


def test_an_upload_s_progress_is_told(make: MakeReplicas) -> None:
    """The page asks for it beside the upload, by an id of its own choice."""
    tab = make(build).tab().load()

    tab.client.post(
        tab.api("upload"), params={"upload_id": "mine"}, files={"files": ("a.txt", b"a" * 5000)}
    ).raise_for_status()
    with tab.client.stream(
        "GET", tab.api("upload_progress"), params={"upload_id": "mine"}
    ) as answer:
        told = [line for line in answer.iter_lines() if line]

    assert any('"done"' in line for line in told)


def test_many_files_in_one_upload_are_all_kept(make: MakeReplicas) -> None:
    a, b = make(build), make(build)
    tab = a.tab().load()
    files = [("files", (f"{number}.txt", str(number).encode())) for number in range(20)]

    # A long answer, which Gradio would compress for a client that takes it.
    answer = tab.client.post(tab.api("upload"), files=files, headers={"accept-encoding": "br"})
    a.lose_disk()
    other = b.same(tab)
    contents = [other.fetch({"path": path}).text for path in answer.json()]

    assert contents == [str(number) for number in range(20)]


def test_an_upload_that_the_store_refuses_is_an_answer_in_words(make: MakeReplicas) -> None:
    site = make(build, limits=Limits(max_file=1000))
    tab = site.tab().load()

    answer: httpx.Response = tab.client.post(
        tab.api("upload"), files={"files": ("a.txt", b"a" * 1001)}
    )

    assert answer.status_code == 413
    assert "max_file" in answer.text


def test_a_full_disk_is_a_507_that_shows_no_path() -> None:
    answer = file_routes._failure(
        LimitExceeded("Could not write a file in /srv/app: the disk is full.")
    )

    assert answer.status_code == 507
    assert b"/srv/app" not in answer.body
