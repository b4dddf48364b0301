"""Uploads that are refused, or break off: the disk is as it was, and nothing goes uncounted."""

from __future__ import annotations

import asyncio
import contextlib
import glob
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any
from unittest.mock import AsyncMock, Mock
from urllib.parse import urlsplit

import gradio as gr
import pytest
from gradio.route_utils import GradioUploadFile

from sessionstore import BackendUnavailable, LimitExceeded, Limits, SessionStore
from sessionstore.adapters.gradio.cache import CacheDir
from sessionstore.adapters.gradio.cache_files import SMALL, CacheFiles
from sessionstore.adapters.gradio.paths import CachePaths
from sessionstore.adapters.gradio.uploads_in_progress import Upload, arriving
from tests.support.gradio_rig import (
    GRADIO_S_OWN,
    MakeReplicas,
    Replica,
    Tab,
    replicas,
    until,
)

pytestmark = GRADIO_S_OWN

PATIENCE = 60.0
"""Seconds for a thread."""

LARGE = 300_000
"""More bytes than come in one piece."""


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeReplicas]:
    with replicas(tmp_path) as make:
        yield make


def build() -> gr.Blocks:
    made: gr.Blocks
    with gr.Blocks() as made:
        gr.on(fn=lambda path: path, inputs=gr.File(), outputs=gr.File(), api_name="echo")
    return made


def there(site: Replica) -> dict[str, int]:
    """Everything in the cache directory, with its size, but the signs of who uses it."""
    leases = site.attachment.service.files.local.leases.directory
    found = {}
    for path in map(Path, glob.iglob(f"{site.cache}/**", recursive=True, include_hidden=True)):
        with contextlib.suppress(FileNotFoundError):  # it goes while we look
            if leases not in (path, *path.parents):
                size = 0 if path.is_dir() else path.stat().st_size
                found[str(path.relative_to(site.cache))] = size
    return found


def post(tab: Tab, *files: tuple[str, tuple[str, bytes]]) -> int:
    return tab.client.post(tab.api("upload"), files=files).status_code


def large(number: int = 0, field: str = "files") -> tuple[str, tuple[str, bytes]]:
    return field, (f"{number}.bin", number.to_bytes(4, "big") * (LARGE // 4))


@pytest.mark.parametrize(
    ("limits", "status"),
    [
        (Limits(max_file=LARGE - 1), 413),
        (Limits(max_session=LARGE - 1), 413),
        (Limits(max_owner=LARGE - 1), 413),
        (Limits(max_store=LARGE - 1), 507),
        (Limits(min_free=1 << 60), 507),
    ],
)
def test_a_hundred_uploads_over_a_limit_leave_the_disk_as_it_was(
    make: MakeReplicas, limits: Limits, status: int
) -> None:
    site = make(build, limits=Limits())
    tab = site.tab().load()
    assert post(tab, ("files", ("small.txt", b"small"))) == 200
    before = there(site)
    site.store.ledger.__init__(  # type: ignore[misc]  # as the app is after a restart with limits
        limits, site.store.backend, lambda *_: None, site.store.owners
    )

    answers = {post(tab, large(number)) for number in range(100)}

    assert answers == {status}
    assert there(site) == before


def test_what_the_session_has_already_counts_when_the_file_is_saved(make: MakeReplicas) -> None:
    site = make(build, limits=Limits(max_session=LARGE))
    tab = site.tab().load()
    assert post(tab, large()) == 200
    before = there(site)

    answers = [post(tab, large(number)) for number in (1, 2, 0)]

    assert answers == [413, 413, 200]  # the last one replaces itself
    assert there(site) == before


def test_the_tabs_of_a_visitor_have_one_limit_together(make: MakeReplicas) -> None:
    """An upload that an event uses moves to the visitor's session: it needs no room twice."""
    site = make(build, limits=Limits(max_owner=LARGE + 100, max_owner_files=2))
    one = site.tab().load()
    two, other = site.tab(cookies=one.cookies).load(), site.tab().load()
    file = one.upload(*large(1)[1])
    assert one.call("echo", file)

    assert post(two, large(2)) == 413
    assert post(two, ("files", ("small.txt", b"small"))) == 200
    assert post(two, ("files", ("third.txt", b"third"))) == 413
    assert post(other, large(2)) == 200


def test_a_store_that_fails_leaves_the_disk_as_it_was(
    make: MakeReplicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make(build)
    tab = site.tab().load()
    before = there(site)
    failing = Mock(side_effect=BackendUnavailable("It does not answer."))
    monkeypatch.setattr(type(site.store.backend), "put", failing)

    answers = {post(tab, large(number)) for number in range(10)}

    assert answers == {503}
    assert there(site) == before


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ([large(1), ("files", ("..", b"dots"))], 400),
        ([large(1), large(2, "other")], 200),
        ([large(2, "other")], 200),
    ],
)
def test_what_gradio_leaves_of_odd_forms_is_gone(
    make: MakeReplicas, files: list[tuple[str, tuple[str, bytes]]], status: int
) -> None:
    site = make(build)
    tab = site.tab().load()
    before = there(site)

    assert post(tab, *files) == status

    kept = site.attachment.service.files.local
    new = {name for name in set(there(site)) - set(before) if "/" in name}
    assert {name for name in new if not kept.has(name)} == set()
    assert [name for name in there(site) if name.startswith("tmp")] == []


def test_an_upload_that_breaks_off_leaves_the_disk_as_it_was(make: MakeReplicas) -> None:
    site = make(build)
    tab = site.tab().load()
    before = there(site)
    address = urlsplit(tab.api("upload"))
    head = (
        f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 10000000\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="files"; filename="a.bin"\r\n\r\n'
    )
    files = site.attachment.service.files

    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head.encode() + bytes(LARGE))
        until(lambda: any(part.file.size for each in arriving(files) for part in each._parts))
    until(lambda: not arriving(files))

    until(lambda: there(site) == before)  # what it wrote goes a moment later


def test_an_upload_that_another_one_has_too_stays(make: MakeReplicas) -> None:
    """A visitor is over a limit with a file that another visitor just uploads, or has."""
    site = make(build, limits=Limits(max_session=LARGE + 100))
    full, other = site.tab().load(), site.tab().load()
    assert post(full, ("files", ("other.bin", bytes(200)))) == 200
    file = other.upload(*large()[1])

    assert post(full, large()) == 413
    site.look_again()

    assert other.fetch(file).content == large()[1][1]
    assert other.call("echo", file)


# One upload, without a server


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Callable[[Limits], CacheFiles]]:
    opened: list[SessionStore] = []

    def make(limits: Limits) -> CacheFiles:
        store = SessionStore.open(tmp_path / "store", limits=limits)
        opened.append(store)
        local = CacheDir(tmp_path / "cache", None)
        local.root.mkdir()
        return CacheFiles(store, CachePaths(local.root, b"secret"), local)

    yield make
    for store in opened:
        store.close()


async def anna() -> str:
    return "anna"


def incoming(files: CacheFiles, *names: str) -> tuple[Upload, list[Any]]:
    upload = Upload(files, anna)
    made = []
    for name in names:
        temporary = (files.local.root / f"tmp{name}").open("w+b")
        made.append(GradioUploadFile(file=temporary, filename=name))
        upload.began(made[-1])
    return upload, made


def write(upload: Upload, file: Any, data: bytes) -> None:
    asyncio.run(upload.write(file, data, GradioUploadFile.write))


def test_uploads_on_their_way_count_together(files: Callable[[Limits], CacheFiles]) -> None:
    made = files(Limits(max_session=10, max_session_files=3))
    first, (one, two) = incoming(made, "one", "same")
    second, (three, four) = incoming(made, "same", "four")
    for upload, file in ((first, one), (first, two), (second, three)):
        write(upload, file, b"123")
    with pytest.raises(LimitExceeded, match="max_session_files"):
        write(second, four, b"")
    with pytest.raises(LimitExceeded, match="max_session="):
        write(second, three, b"45")
    for upload in (first, second):
        asyncio.run(upload.settle())
        upload.over()

    third, (five,) = incoming(made, "five")
    write(third, five, b"1234567890")
    asyncio.run(third.settle())
    third.over()
    assert list(made.local.root.iterdir()) == []
    assert arriving(made) == []


def test_the_disk_of_the_cache_keeps_its_free_space(
    files: Callable[[Limits], CacheFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = files(Limits(min_free=100))
    upload, (file,) = incoming(made, "one")
    usage = "sessionstore.adapters.gradio.uploads_in_progress.shutil.disk_usage"
    monkeypatch.setattr(usage, Mock(return_value=Mock(free=103)))
    monkeypatch.setattr(type(made.store.backend), "free", lambda _: 1 << 60)  # another disk
    write(upload, file, b"123")
    with pytest.raises(LimitExceeded, match=r"min_free=100.*GRADIO_TEMP_DIR"):
        write(upload, file, b"1234")
    asyncio.run(upload.settle())
    upload.over()


def test_a_full_disk_of_the_cache_is_an_error_of_ours(
    files: Callable[[Limits], CacheFiles],
) -> None:
    made = files(Limits())
    upload, (file,) = incoming(made, "one")

    async def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(LimitExceeded):
        asyncio.run(upload.write(file, b"1", full))
    upload.over()


def test_only_the_bytes_after_the_first_wait_for_a_thread(
    files: Callable[[Limits], CacheFiles],
) -> None:
    upload, (file,) = incoming(files(Limits()), "one")
    file.size = 0
    in_thread = AsyncMock()
    for data in (b"first", bytes(SMALL - 5), b"more"):
        asyncio.run(upload.write(file, data, in_thread))
    in_thread.assert_awaited_once_with(file, b"more")
    assert (file.size, file.file.tell()) == (SMALL, SMALL)
    upload.over()


def test_the_save_of_a_cancelled_upload_reads_no_other_file(
    files: Callable[[Limits], CacheFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request closes Gradio's file, and the next one gets its number."""
    made = files(Limits())
    upload, (file,) = incoming(made, "one")
    file.size = 0
    write(upload, file, b"of anna")
    begun, go_on, saved = threading.Event(), threading.Event(), Queue[Any]()

    def wait_and_save(self: Upload, *rest: Any) -> Any:
        begun.set()
        assert go_on.wait(PATIENCE)
        saved.put(save(self, *rest))

    save = Upload._saved
    monkeypatch.setattr(Upload, "_saved", wait_and_save)

    async def cancelled() -> None:
        task = asyncio.create_task(upload.complete(file, lambda: file.file.seek(0)))
        await asyncio.to_thread(begun.wait, PATIENCE)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    number = file.file.fileno()
    asyncio.run(cancelled())
    file.file.close()
    upload.over()
    with open(tmp_path / "another", "w+b") as another:
        assert another.fileno() == number
        another.write(b"of somebody else")
        another.seek(0)
        go_on.set()
        reference, _ = saved.get(timeout=PATIENCE)
        assert another.read() == b"of somebody else"
    with made.store.backend.open(made.unclaimed("anna").sid, reference) as stream:
        assert stream.read() == b"of anna"


def test_a_full_disk_of_the_cache_is_an_error_of_ours_from_the_first_byte_on(
    files: Callable[[Limits], CacheFiles],
) -> None:
    upload, (file,) = incoming(files(Limits()), "one")
    file.size = 0
    file.file = Mock(wraps=file.file, write=Mock(side_effect=OSError(28, "No space left")))
    with pytest.raises(LimitExceeded):
        write(upload, file, b"1")
    upload.over()


def test_two_that_upload_the_same_and_are_refused_leave_nothing(
    files: Callable[[Limits], CacheFiles],
) -> None:
    made = files(Limits())
    uploads = []
    for name in ("one", "two"):
        upload, (file,) = incoming(made, name)
        write(upload, file, b"same")
        file.sha.update(b"same")
        uploads.append((upload, file))
    for _, file in uploads:  # as Gradio does at the end of each request
        place = made.local.root / file.sha.hexdigest() / "same.bin"
        place.parent.mkdir(exist_ok=True)
        Path(file.file.name).rename(place)
    uploads[0][0].over()
    while_the_other_is_there = place.exists()
    uploads[1][0].over()

    assert while_the_other_is_there
    assert list(made.local.root.iterdir()) == []
