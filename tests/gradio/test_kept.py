"""How long an attached app's files are kept, in the store and on the local disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio import processing_utils
from gradio.routes import App
from gradio_client import Client, handle_file  # type: ignore[import-untyped]  # it has no types
from PIL import Image

from sessionstore import SessionStore, SettingsError
from sessionstore.adapters.gradio import attach
from sessionstore.adapters.gradio.cache import LEASE, MARK, CacheDir, large_to_cache
from sessionstore.adapters.gradio.cache_files import UNCLAIMED
from sessionstore.backends.objects import ObjectBackend
from sessionstore.testing import FakeClock
from tests.support.gradio_rig import (
    GRADIO_S_OWN,
    LINGER,
    PATIENCE,
    Heard,
    MakeReplicas,
    Replica,
    Tab,
    closed_loops,
    replicas,
    until,
)
from tests.support.object_client import FakeBucket, FakeObjectClient

pytestmark = GRADIO_S_OWN

PICTURE = "default.png"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeReplicas]:
    Image.new("RGB", (3, 3), "blue").save(tmp_path / PICTURE)
    with replicas(tmp_path) as make, pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        yield make


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Gradio's cache directory, for demos that are not served."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    with closed_loops():
        yield tmp_path / "cache"


def read(path: str) -> str:
    return Path(path).read_text()


def echo(path: str) -> str:
    return path


def read_slowly(path: str) -> Iterator[str]:
    for _ in range(3):
        yield Path(path).read_text()


async def read_slowly_async(path: str) -> AsyncIterator[str]:
    for _ in range(3):
        yield read(path)


def read_batch(paths: list[str]) -> list[list[str]]:
    return [[Path(path).read_text() for path in paths]]


def build() -> gr.Blocks:
    made: gr.Blocks
    with gr.Blocks() as made:
        file, text = gr.File(), gr.Textbox()
        for fn in (read, read_slowly, read_slowly_async):
            gr.on(fn=fn, inputs=file, outputs=text, api_name=fn.__name__)
        gr.on(fn=read_batch, inputs=file, outputs=text, batch=True, api_name="read_batch")
        gr.on(fn=echo, inputs=file, outputs=gr.File(), api_name="echo")
    return made


def size(path: str) -> str:
    with Image.open(path) as picture:
        return str(picture.size)


def where(path: str) -> str:
    return path


def with_another_format() -> gr.Blocks:
    """An input that reaches its handler as another file, as pictures and sound can."""
    made: gr.Blocks
    with gr.Blocks() as made:
        file = gr.File()
        gr.on(fn=where, inputs=file, outputs=gr.Textbox(), api_name="where")

    def preprocess(_: Any) -> str:
        path = Path(file.GRADIO_CACHE, "e" * 64, "converted.txt")
        path.parent.mkdir(exist_ok=True)
        path.write_text("converted")
        return str(path)

    file.preprocess = preprocess  # type: ignore[method-assign, assignment]  # a component of the test's own
    return made


def with_a_default() -> gr.Blocks:
    made: gr.Blocks
    with gr.Blocks() as made:
        picture = gr.File(PICTURE)
        gr.Examples([[PICTURE]], picture)
        gr.on(fn=size, inputs=picture, outputs=gr.Textbox(), api_name="size")
    return made


def local(site: Replica) -> list[Path]:
    """The files on the local disk, without the leases."""
    leases = site.attachment.service.files.local.leases.directory
    # ``rglob`` raises an error for a directory that is removed while it looks.
    walked = ((Path(folder), names) for folder, _, names in os.walk(site.cache))
    return [folder / name for folder, names in walked if folder != leases for name in names]


def with_bytes(site: Replica) -> dict[Path, int]:
    """Those that are not empty; Gradio makes an empty one for each file that is an input."""
    sizes = {}
    for path in local(site):
        with contextlib.suppress(FileNotFoundError):  # it goes while we look
            sizes[path] = path.stat().st_size
    return {path: size for path, size in sizes.items() if size}


def size_of_local(site: Replica) -> int:
    return sum(with_bytes(site).values())


def gone(site: Replica, tab: Tab) -> None:
    """Return when the visitor has left and the session is dropped."""
    site.rest()
    heard = Heard(site.store, "ended", "dropped")
    tab.close()
    heard.next()
    site.clock.advance(LINGER)
    heard.next()


# Uploads and sessions


def test_an_upload_belongs_to_the_session_that_uses_it(make: MakeReplicas) -> None:
    site = make(build)
    tab = site.tab().load()
    used, unused = tab.upload("used.txt", b"used"), tab.upload("unused.txt", b"unused")
    tab.call("read", used)

    gone(site, tab)
    site.look_again()

    assert tab.fetch(used).status_code == 403
    assert tab.fetch(unused).text == "unused"


def test_an_upload_that_nobody_uses_goes_by_its_own_age(make: MakeReplicas) -> None:
    site = make(build)
    tab = site.tab().load()
    used, unused = tab.upload("used.txt", b"used"), tab.upload("unused.txt", b"unused")
    tab.call("read", used)

    site.clock.advance(UNCLAIMED)
    site.look_again()
    site.store.sweep()

    assert tab.fetch(unused).status_code == 403
    assert tab.fetch(used).text == "used"


def test_equal_files_of_two_visitors_are_two_files(make: MakeReplicas) -> None:
    """They have one path in Gradio's cache, and one content in the store."""
    site = make(build)
    stays, leaves = site.tab().load(), site.tab().load()
    files = [tab.upload("same.txt", b"same") for tab in (stays, leaves)]
    for tab, file in zip((stays, leaves), files, strict=True):
        tab.call("read", file)
    stored = site.store.backend.stored().blobs

    gone(site, leaves)
    site.look_again()

    assert files[0] == files[1]
    assert stored == 3  # this one, the empty list entries, and the cache directory's path
    assert leaves.fetch(files[1]).status_code == 403
    assert stays.fetch(files[0]).text == "same"
    assert stays.call("read", files[0]) == "same"


def test_a_file_that_goes_from_tab_to_tab_is_in_both(make: MakeReplicas) -> None:
    site = make(build)
    first = site.tab().load()
    second = site.tab(cookies=first.cookies).load()
    file = first.upload("note.txt", b"note")
    first.call("read", file)

    second.call("read", file)
    gone(site, first)
    site.look_again()

    assert second.fetch(file).text == "note"


def test_what_another_replica_deleted_is_kept_again_when_it_is_made_again(
    make: MakeReplicas, tmp_path: Path
) -> None:
    """This one has it on its disk still, and believes for a moment only that the store has."""

    def made(text: str) -> str:
        (tmp_path / "made.txt").write_text(text)
        return str(tmp_path / "made.txt")

    def demo() -> gr.Blocks:
        built: gr.Blocks
        with gr.Blocks() as built:
            gr.on(fn=made, inputs=gr.Textbox(), outputs=gr.File(), api_name="made")
        return built

    a, b = make(demo), make(demo)
    tab = a.tab().load()
    assert tab.fetch(tab.call("made", "note")).content == b"note"
    for each in b.store.sessions():
        each.drop()
    a.look_again()

    assert tab.fetch(tab.call("made", "note")).content == b"note"


def test_what_another_replica_deleted_is_no_input(make: MakeReplicas) -> None:
    a, b = make(build), make(build)
    tab = a.tab().load()
    file = tab.upload("note.txt", b"note")
    assert tab.call("read", file) == "note"
    a.attachment.service.files.drain()  # it deletes the used upload a little later
    for each in b.store.sessions():
        each.drop()
    a.look_again()

    with pytest.raises(RuntimeError):
        tab.call("read", file)


def test_a_client_without_cookies_is_served_and_goes_by_idleness(make: MakeReplicas) -> None:
    a, b = make(build), make(build)
    plain = a.tab()
    plain.client.event_hooks = {"response": [lambda _: plain.client.cookies.clear()]}
    answer = plain.call("echo", plain.upload("note.txt", b"note"))
    elsewhere = b.tab(session_hash=plain.session_hash)

    while_it_is_new = elsewhere.fetch(answer).status_code
    a.rest()
    a.clock.advance(timedelta(hours=25))
    a.store.sweep()
    b.look_again()

    assert while_it_is_new == 200
    assert elsewhere.fetch(answer).status_code == 403


def test_a_call_without_a_session_is_kept_for_a_while(make: MakeReplicas) -> None:
    a, b = make(build), make(build)
    tab = a.tab()
    file = tab.upload("note.txt", b"note")

    answer = tab.client.post(tab.api("run/echo"), json={"data": [file]}).raise_for_status().json()
    a.lose_disk()

    assert b.same(tab).fetch(answer["data"][0]).text == "note"


def test_the_python_client_uploads_calls_and_downloads(make: MakeReplicas, tmp_path: Path) -> None:
    site = make(build)
    note = tmp_path / "note.txt"
    note.write_text("note")

    client = Client(site.url, verbose=False, download_files=str(tmp_path / "downloads"))
    try:
        text = client.predict(handle_file(note), api_name="/read")
        path = client.predict(handle_file(note), api_name="/echo")
    finally:
        client.close()

    assert text == "note"
    assert Path(path).read_text() == "note"


def test_with_a_login_files_are_the_login_s(make: MakeReplicas) -> None:
    site = make(build, auth=[("anna", "a"), ("boris", "b")])
    anna = site.tab().log_in("anna", "a").load()
    boris = site.tab(session_hash=anna.session_hash).log_in("boris", "b").load()
    file = anna.upload("note.txt", b"note")
    answer = anna.call("echo", file)

    assert anna.fetch(answer).text == "note"
    assert boris.fetch(answer).status_code == 403
    assert site.tab().fetch(answer).status_code == 401


def test_a_batch_gives_each_visitor_its_own(make: MakeReplicas) -> None:
    site = make(build)
    tabs = [site.tab().load() for _ in range(2)]
    files = [tab.upload("note.txt", f"of {n}".encode()) for n, tab in enumerate(tabs)]

    for tab, file in zip(tabs, files, strict=True):
        tab.join("read_batch", file)
    answers = [tab.result() for tab in tabs]

    assert answers == ["of 0", "of 1"]
    tabs[1].join("read_batch", files[0])
    with pytest.raises(RuntimeError):
        tabs[1].result()


# What the app brings along


def test_defaults_and_examples_are_served_by_any_replica_to_anybody(make: MakeReplicas) -> None:
    a, b = make(with_a_default), make(with_a_default)
    config = a.tab().get("/config").json()
    default = next(
        each["props"]["value"] for each in config["components"] if each["type"] == "file"
    )
    a.lose_disk()
    tab = b.tab().load()

    assert tab.fetch(default).headers["content-type"] == "image/png"
    assert tab.call("size", default) == "(3, 3)"


def test_a_default_outlasts_a_visitor_who_used_it_and_uploaded_the_same(
    make: MakeReplicas,
) -> None:
    site = make(with_a_default)
    content = Path(PICTURE).read_bytes()
    (name,) = site.attachment.service.files._pinned
    default = {"path": str(site.cache / name), "meta": {"_type": "gradio.FileData"}}
    tab = site.tab().load()
    for file in (default, tab.upload(PICTURE, content)):
        tab.call("size", file)

    gone(site, tab)
    site.look_again()
    site.lose_disk()

    assert site.tab().fetch(default).content == content


def test_defaults_are_kept_while_the_app_is_attached_and_not_for_ever(make: MakeReplicas) -> None:
    retention = {"max_age": timedelta(minutes=30), "sweep_live": True}
    site = make(with_a_default, retention=retention)
    service = site.attachment.service
    (name,) = service.files._pinned

    for _ in range(10):
        site.clock.advance(timedelta(minutes=11))
        service._beat()
        site.store.sweep()
    while_attached = site.tab().fetch({"path": str(site.cache / name)}).status_code
    site.attachment.detach()
    site.clock.advance(timedelta(hours=1))
    site.store.sweep()

    assert while_attached == 200
    assert [it.name for it in site.store.backend.files(service.files._pins.sid)] == []


# The local disk


def until_gone(site: Replica) -> None:
    """The answer is there a moment before the server is done with the copy."""
    until(lambda: not with_bytes(site))


@pytest.mark.parametrize("name", ["read", "read_slowly", "read_slowly_async"])
def test_a_local_copy_goes_as_soon_as_nobody_uses_it(make: MakeReplicas, name: str) -> None:
    """And not before: a generator has its input until it ends."""
    site = make(build, options={"keep_local": False})
    tab = site.tab().load()

    file = tab.upload("note.txt", b"note")
    uploaded = with_bytes(site)
    answer = tab.call(name, file)
    until_gone(site)
    served = tab.fetch(file).text
    until_gone(site)

    assert (answer or "note", served) == ("note", "note")
    assert uploaded == {}


def test_a_generator_that_is_never_finished_lets_go_in_the_end(make: MakeReplicas) -> None:
    site = make(build, options={"keep_local": False})
    tab = site.tab().load()
    file = tab.upload("note.txt", b"note")
    pins = site.attachment.service.files.local

    tab.call("read_slowly", file)

    assert all(not copy.pins for copy in pins._copies.values())


def test_the_local_disk_has_the_last_used_files_alone(make: MakeReplicas) -> None:
    site = make(build, options={"cache_size": 10_000})
    tab = site.tab().load()

    files = [tab.upload(f"{number}.bin", bytes([number]) * 3000) for number in range(10)]
    sizes = size_of_local(site)
    served = [tab.fetch(file).content for file in files]

    assert sizes <= 10_000
    assert served == [bytes([number]) * 3000 for number in range(10)]
    until(lambda: size_of_local(site) <= 12_000)  # and the one being served


def test_a_changed_local_copy_is_not_served(make: MakeReplicas) -> None:
    """A handler may write to what it was given; other visitors may have the same file."""
    site = make(build)
    tab = site.tab().load()
    file = tab.upload("note.txt", b"note")

    Path(file["path"]).write_bytes(b"changed")

    assert tab.fetch(file).text == "note"


def test_what_a_session_had_on_the_disk_goes_with_it(make: MakeReplicas) -> None:
    a, b = make(build), make(build)
    tab = a.tab().load()
    file = tab.upload("note.txt", b"note")
    tab.call("read", file)
    a.lose_disk()
    b.same(tab).fetch(file)
    before = local(b)

    heard = Heard(a.store, "ended")
    tab.close()
    heard.next()
    a.clock.advance(2 * LINGER)
    for site in (a, b):
        site.store.sweep()

    assert [path.name for path in before] == ["note.txt"]
    until(lambda: local(b) == [])  # its answer may have been on the way


def test_what_gradio_and_killed_processes_leave_is_cleaned(make: MakeReplicas) -> None:
    site = make(build)
    site.cache.mkdir(exist_ok=True)
    old = time.time() - 2 * LEASE
    directory = site.cache / ("a" * 64)

    def left(path: Path, content: bytes = b"", *, mark: bool = False, age: float = old) -> Path:
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(content)
        path.chmod(path.stat().st_mode | (MARK if mark else 0))
        os.utime(path, (age, age))
        return path

    doomed = [
        left(site.cache / "tmpabcd1234"),
        left(site.cache / "tmpbroken0f", b"an upload that was broken off"),
        left(site.cache / "tmpstream01.ts", b"joined"),
        left(site.cache / "tmpsubti123.vtt", b"subtitles", mark=True),
        left(directory / "orphan.txt", b"of a killed process", mark=True),
        left(directory / ".half.new", b"being written when it was killed"),
    ]
    spared = [
        left(site.cache / "tmpabcd5678", age=time.time()),
        left(site.cache / "tmpsubti456.vtt", b"of an app that is not attached"),
        left(site.cache / ("b" * 64) / "file.txt", b"of an app that is not attached"),
        left(site.cache / ("c" * 64) / "file.txt", b"of a living process", mark=True,
             age=time.time()),
        left(site.cache / "notes.txt", b"whatever that is"),
    ]  # fmt: skip
    empty = site.cache / ("d" * 64)
    empty.mkdir()
    os.utime(empty, (old, old))
    os.utime(directory, (old, old))
    tab = site.tab().load()
    kept = tab.upload("note.txt", b"in use for long")
    stamp = Path(kept["path"])
    os.utime(stamp, (old, old))

    site.attachment.service.files.local.clean()

    assert [path for path in doomed if path.exists()] == []
    assert [path for path in spared if not path.exists()] == []
    assert not empty.exists()
    assert not directory.exists()
    assert stamp.exists()


def test_what_gradio_makes_of_an_input_is_cleaned_an_hour_after_the_event(
    make: MakeReplicas,
) -> None:
    site = make(with_another_format)
    tab = site.tab().load()
    upload = tab.upload("note.txt", b"note")
    copies = site.attachment.service.files.local

    made = Path(tab.call("where", upload))
    copies.clean()
    in_use = made.exists()
    for path in (made, Path(upload["path"])):
        os.utime(path, (time.time() - 2 * LEASE,) * 2)
    copies.clean()

    assert in_use
    assert not made.exists()
    assert Path(upload["path"]).exists()


def test_what_a_killed_process_left_goes_at_once_when_nobody_else_is_there(tmp_path: Path) -> None:
    def left(name: str) -> Path:
        path = tmp_path / ("a" * 64) / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"of a killed process")
        path.chmod(0o600 | MARK)
        os.utime(path, (time.time() - 60,) * 2)
        return path

    other, mine = CacheDir(tmp_path, None), CacheDir(tmp_path, None)
    orphan = left("orphan.txt")
    for copies in (other, mine):
        copies.leases.hold()

    mine.clean()
    while_another_lives = orphan.exists()
    os.close(other.leases._alive)  # what the system does for a process that is killed
    mine.clean()

    assert while_another_lives
    assert not orphan.exists()
    assert len(list(mine.leases.directory.iterdir())) == 1
    mine.leases.go()
    assert list((tmp_path / "sessionstore").iterdir()) == []


def test_a_living_process_renews_what_it_has(make: MakeReplicas) -> None:
    site = make(build)
    tab = site.tab().load()
    path = Path(tab.upload("note.txt", b"note")["path"])
    copies = site.attachment.service.files.local
    name = copies.path(str(path)).relative_to(site.cache).as_posix()
    old = time.time() - LEASE / 2
    os.utime(path, (old, old))
    copies._copies[name].stamp = copies.stamp(name) or (0, 0)

    copies.renew()

    assert time.time() - path.stat().st_mtime < LEASE / 3
    assert copies._copies[name].stamp == copies.stamp(name)


def test_a_large_file_has_the_path_that_gradio_gives_it(cache: Path, tmp_path: Path) -> None:
    large = tmp_path / "large;*.bin"
    large.write_bytes(os.urandom(5 << 20))

    ours = large_to_cache(str(large), str(cache))
    content = Path(ours).read_bytes()
    shutil.rmtree(cache)

    assert ours == processing_utils.save_file_to_cache(str(large), str(cache))
    assert content == large.read_bytes()


def test_nothing_heavy_runs_on_the_event_loop(
    make: MakeReplicas, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site = make(build)
    outside = tmp_path / "outside.txt"
    outside.write_text("outside")
    where: list[tuple[str, str]] = []
    save, put = processing_utils.save_file_to_cache, type(site.store.backend).put

    def saving(*args: Any, **kwargs: Any) -> Any:
        where.append(("hash and copy", threading.current_thread().name))
        return save(*args, **kwargs)

    def putting(*args: Any, **kwargs: Any) -> Any:
        where.append(("put", threading.current_thread().name))
        return put(*args, **kwargs)

    with gr.Blocks() as other:
        gr.on(fn=lambda: str(outside), outputs=gr.File(), api_name="outside")
    second = make(lambda: other)
    monkeypatch.setattr(processing_utils, "save_file_to_cache", saving)
    monkeypatch.setattr(type(site.store.backend), "put", putting)
    second.tab().load().call("outside")

    assert {what for what, _ in where} == {"hash and copy", "put"}
    assert {thread for _, thread in where} <= {
        name for _, name in where if "worker" in name or "sessionstore" in name
    }


# What attach replaces


def a_demo(**options: Any) -> gr.Blocks:
    made: gr.Blocks
    with gr.Blocks(**options) as made:
        gr.File()
    return made


@pytest.mark.usefixtures("cache")
def test_delete_cache_is_honoured_as_retention_and_gradio_s_own_is_off() -> None:
    demo = a_demo(delete_cache=(7, 3600))
    with SessionStore.open("memory://") as store:
        attachment = attach(demo, store)
        attached = (demo.delete_cache, store.retention.max_age)
        every = attachment.service._sweeping._every
        attachment.detach()

        assert attached == (None, timedelta(hours=1))
        assert every == 7
        assert (demo.delete_cache, store.retention.max_age) == ((7, 3600), None)


@pytest.mark.usefixtures("cache")
def test_another_cache_directory_is_refused_while_the_first_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def demo_with(cache: str) -> gr.Blocks:
        monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / cache))
        return a_demo()

    with (
        SessionStore.open(tmp_path / "store") as store,
        SessionStore.open(tmp_path / "store") as other,
    ):
        attachment = attach(demo_with("one"), store)
        with pytest.raises(SettingsError, match=r"one.*GRADIO_TEMP_DIR"):
            attach(demo_with("two"), other)
        attach(demo_with("one"), other).detach()
        attachment.detach()


@pytest.mark.usefixtures("cache")
def test_a_bucket_needs_a_secret_and_a_refused_attach_changes_nothing() -> None:
    clock, demo = FakeClock(), a_demo(delete_cache=(7, 3600))
    bucket = FakeBucket(clock.now)
    create_app, launch = App.create_app, demo.launch
    backend = ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds)
    with SessionStore(backend) as store, pytest.raises(SettingsError, match="secret"):
        attach(demo, store)

    assert App.create_app is create_app
    assert (demo.delete_cache, demo.launch) == ((7, 3600), launch)


@pytest.mark.usefixtures("cache")
def test_paths_are_the_same_wherever_the_secret_is() -> None:
    """Gradio has a seed of its own for each installation."""
    seeds = []
    before = processing_utils.hash_seed
    for secret in ("one" * 8, "one" * 8, "two" * 8):
        with SessionStore.open("memory://", secret=secret) as store:
            attachment = attach(a_demo(), store)
            seeds.append(processing_utils.hash_seed)
            attachment.detach()

    assert seeds[0] == seeds[1] != seeds[2]
    assert processing_utils.hash_seed is before


def test_a_wait_for_the_store_is_not_a_wait_for_the_page(
    make: MakeReplicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload's answer waits until it is kept; another visitor's request does not."""
    site = make(build)
    tab, other = site.tab().load(), site.tab()
    begun, go_on = threading.Event(), threading.Event()
    put = type(site.store.backend).put

    def slow(*args: Any, **kwargs: Any) -> Any:
        begun.set()
        assert go_on.wait(PATIENCE)
        return put(*args, **kwargs)

    monkeypatch.setattr(type(site.store.backend), "put", slow)
    done: list[Any] = []
    upload = threading.Thread(target=lambda: done.append(tab.upload("note.txt", b"note")))
    upload.start()
    assert begun.wait(PATIENCE)
    meanwhile = other.get("/config").status_code
    kept_back = not done
    go_on.set()
    upload.join(PATIENCE)

    assert meanwhile == 200
    assert kept_back
    assert done
