"""Files that an app remembers longer than their visitor is here, and the lists of a visitor."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from sessionstore import StoredFile
from sessionstore.adapters.gradio import cache_files, session
from sessionstore.adapters.gradio.attached_store import Service
from sessionstore.names import private_key
from tests.support.gradio_rig import (
    GRADIO_S_OWN,
    LINGER,
    PATIENCE,
    Heard,
    MakeReplicas,
    Replica,
    Tab,
    replicas,
)

pytestmark = GRADIO_S_OWN

with_history = pytest.mark.skipif(
    not hasattr(gr, "history"), reason="Gradio has a run history from 6.27 on"
)
cached = pytest.mark.skipif(not hasattr(gr, "cache"), reason="Gradio has gr.cache from 6.12 on")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeReplicas]:
    with replicas(tmp_path) as make:
        yield make


def demo_of(*handlers: Callable[..., Any]) -> Callable[[], gr.Blocks]:
    """Return a maker of a demo with an event from a text to a file for each handler."""

    def demo() -> gr.Blocks:
        blocks = gr.Blocks()
        with blocks:
            text, file = gr.Textbox(), gr.File()
            for handler in handlers:
                gr.on(fn=handler, inputs=text, outputs=file, api_name=handler.__name__)
        return blocks

    return demo


def leaves(replica: Replica, tab: Tab, *others: Replica) -> None:
    """The visitor closes the page, and the linger passes. Any replica may drop the session."""
    heard = Heard(replica.store, "ended", "dropped")
    for each in others:
        heard.listen(each.store, "ended", "dropped")
    replica.rest()
    tab.close()
    assert heard.next().kind == "ended"
    replica.clock.advance(LINGER)
    assert heard.next().kind == "dropped"
    replica.look_again()


def stored(text: str, request: gr.Request) -> StoredFile:
    return session(request).put("note.txt", text.encode())


def copied(text: str, request: gr.Request) -> str:
    return str(stored(text, request).local_path())


def below_the_cache(text: str) -> str:
    path = Path(gr.utils.get_upload_folder(), "made", f"{text}.txt")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


async def stored_async(text: str, request: gr.Request) -> StoredFile:
    return await session(request).put_async("note.txt", text.encode())


def yielded(text: str, request: gr.Request) -> Iterator[StoredFile]:
    for number in range(2):
        yield session(request).put(f"{number}.txt", text.encode())


HANDLERS = [stored, copied, below_the_cache, stored_async, yielded]


def cached_by_text(handler: Callable[..., Any], max_size: int = 128) -> Callable[..., Any]:
    """Cache the results of a handler by its text alone, in a cache without results."""
    wrapped: Any = gr.cache(
        handler, key=lambda arguments: str(arguments["text"]), max_size=max_size
    )
    wrapped.cache.clear()
    return wrapped  # type: ignore[no-any-return]  # Gradio has no types for it


@cached
@pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: handler.__name__)
def test_a_cached_result_serves_everyone_whoever_made_it(
    make: MakeReplicas, handler: Callable[..., Any]
) -> None:
    replica = make(demo_of(cached_by_text(handler)))
    anna, boris = replica.tab().load(), replica.tab().load()
    first = anna.fetch(anna.call(handler.__name__, "note")).text
    leaves(replica, anna)

    assert first == "note"
    assert boris.fetch(boris.call(handler.__name__, "note")).text == "note"


@cached
def test_a_handler_can_read_the_cached_result_of_a_helper(make: MakeReplicas) -> None:
    helper = cached_by_text(stored)

    def read(text: str, request: gr.Request) -> StoredFile:
        return session(request).put("read.txt", helper(text, request).read())

    replica = make(demo_of(read))
    anna, boris = replica.tab().load(), replica.tab().load()
    anna.call("read", "note")
    leaves(replica, anna)

    assert boris.fetch(boris.call("read", "note")).text == "note"


@cached
def test_what_the_cache_forgot_is_deleted(make: MakeReplicas) -> None:
    handler = cached_by_text(stored, max_size=1)
    replica = make(demo_of(handler))
    tab = replica.tab().load()
    tab.call("stored", "one")
    tab.call("stored", "other")
    leaves(replica, tab)
    cached = replica.attachment.service.cached
    cached.renew(again=True)

    assert len(list(replica.store.backend.files(cached._session.sid))) == 1


def test_an_event_can_open_a_remembered_path_while_its_owner_has_the_file(
    make: MakeReplicas,
) -> None:
    remembered: list[str] = []

    def remember(file: str) -> str:
        remembered.append(file)
        return file

    def read(text: str, request: gr.Request) -> StoredFile:
        return session(request).put("read.txt", Path(remembered[0]).read_bytes() + text.encode())

    def demo() -> gr.Blocks:
        blocks = demo_of(read)()
        with blocks:
            file = gr.File()
            gr.on(fn=remember, inputs=file, outputs=file, api_name="remember")
        return blocks

    replica = make(demo)
    one = replica.tab().load()
    other = replica.tab(cookies=one.cookies).load()
    upload = one.upload("note.txt", b"note")
    one.call("remember", upload)
    replica.lose_disk()

    assert other.fetch(other.call("read", "!")).text == "note!"


def test_a_remembered_path_of_a_visitor_who_left_is_logged_once(
    make: MakeReplicas, caplog: pytest.LogCaptureFixture
) -> None:
    remembered: list[str] = []

    def again(text: str) -> str:
        if not remembered:
            remembered.append(below_the_cache(text))
        return remembered[0]

    def read(text: str) -> str:
        Path(remembered[0]).read_text()
        return text

    replica = make(demo_of(again, read))
    anna, boris = replica.tab().load(), replica.tab().load()
    anna.call("again", "note")
    leaves(replica, anna)
    with caplog.at_level(logging.WARNING, "sessionstore"):
        for name in ("again", "again", "read", "read"):
            with pytest.raises(RuntimeError):
                boris.call(name, "note")

    said = [each.getMessage() for each in caplog.records if each.name == "sessionstore"]
    assert [name for line in said for name in ("'again'", "'read'") if name in line] == [
        "'again'",
        "'read'",
    ]
    assert all(remembered[0] in line and "StoredFile" in line for line in said)


def test_nothing_is_left_of_a_visitor_who_left(make: MakeReplicas) -> None:
    def demo() -> gr.Blocks:
        blocks = gr.Blocks()
        with blocks:
            gr.on(fn=lambda path: path, inputs=gr.File(), outputs=gr.File(), api_name="used")
        return blocks

    replica = make(demo)
    one = replica.tab().load()
    other = replica.tab(cookies=one.cookies).load()
    for tab in (one, other):
        tab.call("used", tab.upload("note.txt", b"note"))
    for tab in (one, other):
        leaves(replica, tab)

    left = [replica.store.backend.identify(each.sid) for each in replica.store.backend.sessions()]
    assert [each for each in left if each is not None and each.owner is not None] == []


def test_the_list_of_an_owner_stays_as_long_as_a_session(make: MakeReplicas) -> None:
    a, b = make(demo_of(below_the_cache)), make(demo_of(below_the_cache))
    one = a.tab().load()
    other = a.tab(cookies=one.cookies).load()
    one.call("below_the_cache", "one")
    answer = other.call("below_the_cache", "other")
    leaves(a, one, b)
    a.lose_disk()

    assert b.same(other).fetch(answer).text == "other"


def test_all_replicas_and_restarts_of_an_app_have_one_id(make: MakeReplicas) -> None:
    replicas = [make(demo_of(stored)), make(demo_of(stored)), make(demo_of(stored, copied))]
    ids = [replica.tab().get("/config").json()["app_id"] for replica in replicas]
    for replica in replicas[:2]:
        replica.attachment.detach()

    assert ids[0] == ids[1] != ids[2]
    assert make(demo_of(stored)).tab().get("/config").json()["app_id"] == ids[0]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> queue.Queue[str]:
    """A queue with the owner of each run whose files are kept."""
    kept: queue.Queue[str] = queue.Queue()
    original = Service.keep_run

    def keep_run(self: Service, owner: str, run: Any) -> None:
        original(self, owner, run)
        kept.put(owner)

    monkeypatch.setattr(Service, "keep_run", keep_run)
    return kept


@with_history
def test_the_run_history_can_show_files_of_a_session_that_is_gone(
    make: MakeReplicas, runs: queue.Queue[str]
) -> None:
    day = timedelta(hours=20)
    replica = make(demo_of(below_the_cache, stored), options={"history": day})
    one = replica.tab(headers={"x-gradio-user": "app"}).load()
    stranger = replica.tab().load()
    answers = [one.call(name, "note") for name in ("below_the_cache", "stored")]
    for _ in answers:
        runs.get(timeout=PATIENCE)
    leaves(replica, one)
    again = replica.tab(cookies=one.cookies)

    assert [again.fetch(answer).text for answer in answers] == ["note", "note"]
    assert {stranger.fetch(answer).status_code for answer in answers} == {403}
    replica.clock.advance(day)
    replica.look_again()
    assert {again.fetch(answer).status_code for answer in answers} == {403}


@with_history
def test_the_files_of_the_run_history_are_bounded(
    make: MakeReplicas, runs: queue.Queue[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_files, "HISTORY_SIZE", 8)
    replica = make(demo_of(below_the_cache), options={"history": timedelta(hours=20)})
    tab = replica.tab().load()
    for text in ("one!", "two!", "more"):
        tab.call("below_the_cache", text)
        runs.get(timeout=PATIENCE)
        replica.clock.advance(timedelta(seconds=1))
    (owner,) = {each.owner for each in replica.store.sessions()}
    kept = replica.store.backend.files(private_key("gradio history", owner).sid)

    assert sorted(Path(file.name).name for file in kept) == ["more.txt", "two!.txt"]


@with_history
def test_a_run_is_saved_in_a_bucket_of_the_visitor_without_local_copies_too(
    make: MakeReplicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: queue.Queue[list[bytes]] = queue.Queue()

    def save(_target: Any, _record: Any, assets: dict[str, Any]) -> None:
        saved.put([Path(each.local_path).read_bytes() for each in assets.values()])

    monkeypatch.setattr(gr.history, "resolve_target", lambda *_, **__: object())
    monkeypatch.setattr(gr.history, "save_record", save)
    replica = make(demo_of(below_the_cache, stored), options={"keep_local": False})
    tab = replica.tab().load()
    for name in ("below_the_cache", "stored"):
        tab.call(name, "note")

    assert [saved.get(timeout=PATIENCE) for _ in range(2)] == [[b"note"], [b"note"]]
