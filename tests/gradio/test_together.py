"""The files of one event, and of one upload, are saved at the same time."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from PIL import Image

from sessionstore import LimitExceeded, _threads
from sessionstore.adapters.gradio import compat
from tests.support.gradio_rig import GRADIO_S_OWN, PATIENCE, MakeReplicas, Replica, Tab, replicas

pytestmark = GRADIO_S_OWN

MANY = 6


class Meeting:
    """Saves of files that the app makes, each of which waits until ``MANY`` are in progress.

    ``refused`` is the number of the save, by its arrival, that fails; then the others go on.
    """

    def __init__(self, refused: int | None = None) -> None:
        self._together = threading.Barrier(MANY)
        self._lock = threading.Lock()
        self._refused = refused
        self.begun = self.ended = 0

    def watch(self, site: Replica) -> None:
        backend: Any = site.store.backend
        put = backend.put

        def met(key: Any, name: str, content: Any, **kwargs: Any) -> Any:
            if not name.endswith((".webp", ".txt")):
                return put(key, name, content, **kwargs)
            with self._lock:
                number, self.begun = self.begun, self.begun + 1
            try:
                self._together.wait(PATIENCE)
                if number == self._refused:
                    raise LimitExceeded("the store is full", limit="max_store")
                return put(key, name, content, **kwargs)
            finally:
                self.ended += 1

        backend.put, backend.at_once = met, MANY


def pictures() -> list[Any]:
    """Return pictures that no other event made."""
    return [Image.frombytes("RGB", (2, 2), secrets.token_bytes(12)) for _ in range(MANY)]


def sizes(paths: list[str]) -> str:
    return str([Path(path).stat().st_size for path in paths])


def build() -> gr.Blocks:
    demo: gr.Blocks
    with gr.Blocks() as demo:
        files = gr.File(file_count="multiple")
        gr.on(fn=pictures, outputs=gr.Gallery(), api_name="gallery")
        gr.on(fn=pictures, outputs=[gr.Image() for _ in range(MANY)], api_name="images")
        gr.on(fn=sizes, inputs=files, outputs=gr.Textbox(), api_name="sizes")
    return demo


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeReplicas]:
    with replicas(tmp_path) as make:
        yield make


def uploaded(tab: Tab) -> list[dict[str, Any]]:
    """Upload files in one request."""
    files = [("files", (f"{number}.txt", b"." * number)) for number in range(MANY)]
    paths = tab.client.post(tab.api("upload"), files=files).raise_for_status().json()
    return [{"path": path, "meta": {"_type": "gradio.FileData"}} for path in paths]


@pytest.mark.parametrize(
    ("name", "headers"),
    [("gallery", {}), ("images", {}), ("gallery", {"x-gradio-user": "api"})],
    ids=["one output", "several outputs", "links"],
)
def test_the_files_of_a_result_are_saved_at_the_same_time(
    make: MakeReplicas, name: str, headers: dict[str, str]
) -> None:
    site = make(build, url="memory://")
    tab = site.tab(headers=headers).load()
    meeting = Meeting()
    meeting.watch(site)

    tab.call(name)

    assert (meeting.begun, meeting.ended) == (MANY, MANY)  # the answer came after all of them


def test_an_error_of_one_is_the_visitor_s_and_the_others_have_ended_by_then(
    make: MakeReplicas,
) -> None:
    site = make(build, url="memory://")
    tab = site.tab().load()
    meeting = Meeting(refused=MANY - 2)
    meeting.watch(site)

    with pytest.raises(RuntimeError, match="free space"):
        tab.call("gallery")

    assert (meeting.begun, meeting.ended) == (MANY, MANY)


def test_the_files_of_an_upload_are_saved_and_claimed_at_the_same_time(make: MakeReplicas) -> None:
    site = make(build, url="memory://")
    tab = site.tab().load()
    meeting = Meeting()
    meeting.watch(site)

    files = uploaded(tab)
    assert (meeting.begun, meeting.ended) == (MANY, MANY)

    assert tab.call("sizes", files) == str(list(range(MANY)))
    assert (meeting.begun, meeting.ended) == (2 * MANY, 2 * MANY)


def test_a_refused_file_of_an_upload_refuses_it_when_the_others_have_ended(
    make: MakeReplicas,
) -> None:
    site = make(build, url="memory://")
    tab = site.tab().load()
    meeting = Meeting(refused=1)
    meeting.watch(site)

    with pytest.raises(httpx.HTTPStatusError):
        uploaded(tab)

    assert (meeting.begun, meeting.ended) == (MANY, MANY)


def test_the_first_files_of_a_tab_record_it_once(make: MakeReplicas) -> None:
    site = make(build, url="memory://")
    tab = site.tab().load()
    backend: Any = site.store.backend
    put, saved = backend.put, []

    def noted(key: Any, name: str, content: Any, **kwargs: Any) -> Any:
        saved.append(name)
        return put(key, name, content, **kwargs)

    backend.put, backend.at_once = noted, MANY
    tab.call("gallery")

    assert len([name for name in saved if not name.endswith(".webp")]) == 1


def test_another_replica_asks_for_a_file_in_three_round_trips(make: MakeReplicas) -> None:
    """It asks for the upload and for the list of sessions at once, then the sessions together."""
    site, other = (make(build, url="memory://asked") for _ in range(2))
    pages = [site.tab().load()]
    pages += [site.tab(cookies=pages[0].cookies).load() for _ in range(2)]
    results = [page.call("images") for page in pages]
    backend: Any = other.store.backend
    get, files = backend.get, backend.files
    first, second = threading.Barrier(2), threading.Barrier(4)  # three pages, and pinned files

    def got(sid: str, name: str) -> Any:
        barrier = first if "unclaimed" in sid else second
        barrier.wait(PATIENCE)
        return get(sid, name)

    def listed(sid: str) -> Any:
        first.wait(PATIENCE)
        return files(sid)

    backend.get, backend.files, backend.at_once = got, listed, MANY
    assert other.same(pages[0]).fetch(results[0]).status_code == 200


def test_another_replica_finds_an_upload_that_an_event_takes_meanwhile(make: MakeReplicas) -> None:
    site, other = (make(build, url="memory://taken") for _ in range(2))
    tab = site.tab().load()
    (file, *_) = uploaded(tab)
    backend: Any = other.store.backend
    get, files = backend.get, backend.files
    is_listed = threading.Event()

    def got(sid: str, name: str) -> Any:
        if not is_taken:
            assert is_listed.wait(PATIENCE)
            tab.call("sizes", [file])
            is_taken.append(True)
        return get(sid, name)

    def listed(sid: str) -> Any:
        found = list(files(sid))
        is_listed.set()
        return found

    is_taken: list[bool] = []
    backend.get, backend.files, backend.at_once = got, listed, MANY
    assert other.same(tab).fetch(file).status_code == 200
    assert is_taken == [True]


def _part(name: str) -> bytes:
    head = f'Content-Disposition: form-data; name="files"; filename="{name}"'
    return f"--b\r\n{head}\r\n\r\n".encode()


def test_a_file_of_an_upload_is_saved_while_the_next_one_arrives(make: MakeReplicas) -> None:
    site = make(build)
    tab = site.tab().load()
    saved = threading.Event()
    backend: Any = site.store.backend
    put = backend.put

    def told(*args: Any, **kwargs: Any) -> Any:
        result = put(*args, **kwargs)
        saved.set()
        return result

    backend.put = told

    def body() -> Iterator[bytes]:
        yield _part("first.txt") + b"one\r\n" + _part("second.txt") + b"tw"
        assert saved.wait(PATIENCE)
        yield b"o\r\n--b--\r\n"

    answer = tab.client.post(
        tab.api("upload"),
        content=body(),
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )

    paths = [Path(path) for path in answer.raise_for_status().json()]
    assert [(path.name, path.read_text()) for path in paths] == [
        ("first.txt", "one"),
        ("second.txt", "two"),
    ]


def test_a_file_that_gradio_names_otherwise_is_saved_under_that_name(
    make: MakeReplicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make(build)
    tab = site.tab().load()
    monkeypatch.setattr(compat, "cache_name", lambda path: f"other {path}")

    file = tab.upload("mine.txt", b"one")

    site.look_again()
    assert file["path"].endswith("/mine.txt")
    assert tab.fetch(file).content == b"one"


def test_a_file_beside_a_refused_one_expires_as_an_unused_upload(make: MakeReplicas) -> None:
    site = make(build)
    tab = site.tab().load()
    files = [("files", ("first.txt", b"one")), ("files", ("..", b"two"))]

    answer = tab.client.post(tab.api("upload"), files=files)

    assert answer.status_code == 400
    left = [
        file
        for session in site.store.backend.sessions()
        for file in site.store.backend.files(session.sid)
        if file.name.endswith(".txt")
    ]
    assert [file.name.rpartition("/")[2] for file in left] == ["first.txt"]
    assert left[0].expires is not None


def test_the_threads_of_events_are_started_before_the_first_visitor(
    make: MakeReplicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop would wait for the start of each."""
    monkeypatch.setattr(_threads, "_made", {})

    make(build, url="memory://")
    for thread in threading.enumerate():
        if thread.name == "sessionstore-start":
            thread.join(PATIENCE)

    executor: Any = _threads._made["sessionstore-events"]
    assert len(executor._threads) == _threads.WAITS
    executor.shutdown()
