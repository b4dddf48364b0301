"""A large file that a replica has not got is sent as it comes from the store, and is kept."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import threading
from collections import namedtuple
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, cast

import gradio as gr
import httpx
import pytest

from sessionstore._streams import ReadStream
from sessionstore.adapters.gradio import far_files, fetches
from sessionstore.content import CHUNK, verified
from sessionstore.errors import BackendUnavailable
from sessionstore.model import Reference
from tests.support.gradio_rig import (
    GRADIO_S_OWN,
    PATIENCE,
    MakeReplicas,
    Replica,
    Tab,
    replicas,
    until,
)

pytestmark = GRADIO_S_OWN

CONTENT = os.urandom(CHUNK) * 4 + b"the end"
CHUNKS = 5


def build() -> gr.Blocks:
    made: gr.Blocks
    with gr.Blocks() as made:
        gr.on(fn=lambda path: path, inputs=gr.File(), outputs=gr.DownloadButton(), api_name="echo")
    return made


class Gate:
    """Counts a replica's reads of the store. A whole file comes by chunks, as ``give`` permits."""

    def __init__(self, replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
        self.whole, self.ranges = 0, 0
        self.content: bytes | None = None
        """Other bytes than those in the store, as a damaged one would give."""
        self._permits = threading.Semaphore(0)
        self._real = replica.store.backend.open
        monkeypatch.setattr(replica.store.backend, "open", self._open)

    def _open(
        self, sid: str, reference: Reference, start: int = 0, length: int | None = None
    ) -> BinaryIO:
        if length is not None:
            self.ranges += 1
            return self._real(sid, reference, start, length)
        self.whole += 1
        stream = self._real(sid, reference)
        if self.content is not None:
            stream.close()
            stream = verified(io.BytesIO(self.content), reference, "sha256")
        return cast("BinaryIO", Gated(stream, self._permits))

    def give(self, chunks: int = 1000) -> None:
        self._permits.release(chunks)


class Gated(ReadStream):
    """A stream of which each read needs a permit."""

    def __init__(self, stream: BinaryIO, permits: threading.Semaphore) -> None:
        self._stream = stream
        self._permits = permits

    def _take(self, size: int) -> bytes:
        if not self._permits.acquire(timeout=PATIENCE):
            raise BackendUnavailable("The test gives no more chunks.")
        return bytes(self._stream.read(size))


class Far:
    """A visitor of a replica without the file, and the file's path on that replica's disk."""

    def __init__(self, make: MakeReplicas, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        self.a, self.b = make(build), make(build, options=options)
        first = self.a.tab().load()
        self.file = first.upload("film.mp4", CONTENT)
        self.a.lose_disk()
        self.path = Path(self.file["path"])
        self.tab: Tab = self.b.same(first)
        self.gate = Gate(self.b, monkeypatch)

    def get(self, **headers: str) -> httpx.Response:
        return self.tab.fetch(self.file, **headers)

    def begin(self) -> tuple[httpx.Response, Iterator[bytes]]:
        """A GET whose first chunk has arrived; the rest is not read."""
        url = self.tab.api(f"file={self.file['path']}")
        request = self.tab.client.build_request("GET", url)
        response = self.tab.client.send(request, stream=True)
        pieces = response.iter_raw()
        received = b""
        while len(received) < CHUNK:
            received += next(pieces)
        assert CONTENT.startswith(received)
        return response, pieces

    def settled(self) -> None:
        """Wait until no fetch is in progress."""
        for thread in threading.enumerate():
            if thread.name == fetches.FETCHING:
                thread.join(PATIENCE)

    def is_tidy(self) -> bool:
        """Whether the cache has only copies, and no file in it is open that is none."""
        cache, opened = str(self.b.cache), []
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # another thread closes it meanwhile
                opened.append(os.readlink(f"/proc/self/fd/{fd}"))
        temporary = [*self.b.cache.rglob(".*.new")]
        return not temporary and not any(it.startswith(cache) and ".new" in it for it in opened)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeReplicas]:
    with replicas(tmp_path) as make:
        yield make


@pytest.fixture
def far(make: MakeReplicas, monkeypatch: pytest.MonkeyPatch) -> Iterator[Far]:
    far = Far(make, monkeypatch)
    yield far
    far.gate.give()
    far.settled()


def test_a_file_begins_before_all_of_it_has_come_and_is_kept_on_the_way(far: Far) -> None:
    far.gate.give(1)
    response, pieces = far.begin()

    assert response.status_code == 200
    assert response.headers["content-length"] == str(len(CONTENT))
    assert not far.path.exists()

    far.gate.give()
    rest = b"".join(pieces)
    far.settled()

    assert rest == CONTENT[CHUNK:]
    assert far.path.read_bytes() == CONTENT
    assert far.get().content == CONTENT
    assert (far.gate.whole, far.gate.ranges) == (1, 0)
    until(far.is_tidy)


def test_the_headers_are_those_of_a_file_on_the_disk(far: Far) -> None:
    far.gate.give()
    first = far.get()
    far.settled()
    later = far.get()

    own = {"date", "server"}
    assert {*first.headers} - own == {*later.headers} - own
    assert all(first.headers[name] == later.headers[name] for name in {*first.headers} - own)


def test_sixteen_askers_share_one_fetch(far: Far) -> None:
    with ThreadPoolExecutor(16) as pool:
        far.gate.give(1)
        asked = [pool.submit(far.get) for _ in range(16)]
        far.gate.give()
        answers = [each.result() for each in asked]

    assert [answer.content == CONTENT for answer in answers] == [True] * 16
    assert (far.gate.whole, far.gate.ranges) == (1, 0)


def test_an_event_waits_for_the_same_fetch(far: Far) -> None:
    far.gate.give(1)
    response, pieces = far.begin()
    with ThreadPoolExecutor(1) as pool:
        event = pool.submit(far.tab.call, "echo", far.file)
        far.gate.give()
        assert event.result()["path"]
    b"".join(pieces)
    response.close()

    assert far.gate.whole == 1


def test_a_near_range_shares_the_fetch(far: Far) -> None:
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(far.get, range=wanted) for wanted in ("bytes=0-", "bytes=5-9")]
        far.gate.give()
        whole, part = (each.result() for each in asked)

    assert (whole.status_code, whole.content) == (206, CONTENT)
    assert (part.status_code, part.content) == (206, CONTENT[5:10])
    assert (far.gate.whole, far.gate.ranges) == (1, 0)


def test_ranges_far_behind_do_not_wait_for_the_whole_which_comes_once(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(far_files, "AHEAD", 0)

    starts = range(1000, 9000, 1000)
    with ThreadPoolExecutor(8) as pool:
        ask = lambda start: far.get(range=f"bytes={start}-{start + 99}")  # noqa: E731 - for map
        answers = list(pool.map(ask, starts))

    assert [answer.content for answer in answers] == [CONTENT[at : at + 100] for at in starts]
    assert {answer.status_code for answer in answers} == {206}
    until(lambda: (far.gate.whole, far.gate.ranges) == (1, 8))  # it has a thread of its own

    far.gate.give()
    far.settled()
    later = far.get(range="bytes=10-19")

    assert (later.status_code, later.content) == (206, CONTENT[10:20])
    assert (far.gate.whole, far.gate.ranges) == (1, 8)


@pytest.mark.parametrize("headers", [{"range": "bytes=999999999-"}, {"if-none-match": "*"}])
def test_a_response_without_bytes_reads_nothing(far: Far, headers: dict[str, str]) -> None:
    assert far.get(**headers).status_code in {304, 416}
    head = far.tab.client.head(far.tab.api(f"file={far.file['path']}"))

    assert head.headers["content-length"] == str(len(CONTENT))
    assert (far.gate.whole, far.gate.ranges) == (0, 0)


def test_a_stranger_and_a_visitor_whose_file_is_gone_are_refused_alike(
    far: Far, make: MakeReplicas
) -> None:
    stranger = make(build).tab().load()

    foreign = stranger.fetch(far.file)
    for record in list(far.a.store.backend.sessions()):
        far.a.store.backend.drop(record.sid)
    deleted = far.get()

    assert (foreign.status_code, deleted.status_code) == (403, 403)
    assert foreign.json() == deleted.json()
    assert (far.gate.whole, far.gate.ranges) == (0, 0)


@pytest.mark.parametrize("damaged", [CONTENT[:-1] + b"D", CONTENT[:-9], CONTENT + b"more"])
def test_damaged_bytes_are_never_a_complete_answer_and_not_kept(
    far: Far, damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    far.gate.content = damaged
    far.gate.give(2)
    response, pieces = far.begin()

    far.gate.give()
    received = CHUNK
    with pytest.raises(httpx.RemoteProtocolError):
        for piece in pieces:
            received += len(piece)
    far.settled()

    assert response.status_code == 200
    assert received < len(CONTENT)
    assert not far.path.exists()
    until(far.is_tidy)
    assert "The stored bytes of" in caplog.text

    far.gate.content = None
    assert far.get().content == CONTENT


def test_a_client_that_leaves_ends_nothing_and_leaves_nothing(far: Far) -> None:
    far.gate.give(1)
    leaves, _ = far.begin()
    stays, pieces = far.begin()

    leaves.close()
    far.gate.give(1)
    next(pieces)
    stays.close()
    far.gate.give()
    far.settled()

    assert far.path.read_bytes() == CONTENT
    assert far.get().content == CONTENT
    assert far.gate.whole == 1
    until(far.is_tidy)


def test_a_slow_client_stops_nobody(far: Far) -> None:
    far.gate.give(1)
    slow, pieces = far.begin()
    far.gate.give()

    others = [far.get().content for _ in range(2)]
    far.settled()

    assert others == [CONTENT, CONTENT]
    assert far.path.read_bytes() == CONTENT
    far.path.unlink()
    assert b"".join(pieces) == CONTENT[CHUNK:]
    slow.close()
    assert far.gate.whole == 1


def test_where_an_unfinished_file_cannot_be_read_each_response_reads_the_store(
    far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows."""
    monkeypatch.setattr(far_files, "CAN_FOLLOW", False)
    far.gate.give()

    answer = far.get()
    far.settled()

    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert far.path.read_bytes() == CONTENT
    assert far.gate.whole == 2


def no_local(_: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"keep_local": False}


def small_cache(_: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"cache_size": len(CONTENT) - 1}


def full_disk(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    usage = namedtuple("usage", "free")  # noqa: PYI024 - no type to give
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(len(CONTENT)))
    return {}


def many_fetches(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(fetches, "_MOST", 0)
    return {}


@pytest.mark.parametrize("without", [no_local, small_cache, full_disk, many_fetches])
def test_a_file_whose_copy_would_not_stay_is_sent_without_one(
    make: MakeReplicas, monkeypatch: pytest.MonkeyPatch, without: Any
) -> None:
    far = Far(make, monkeypatch, **without(monkeypatch))
    far.gate.give()

    whole, part = far.get(), far.get(range="bytes=-7")

    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert (part.status_code, part.content) == (206, b"the end")
    assert not far.path.exists()
    until(far.is_tidy)
