"""A visitor comes back with a new page, which gets what the newest session of the owner has."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from sessionstore import Limits, Session, SessionStore, StoredFile
from sessionstore.adapters.gradio import attach, attachment, resumed, session
from sessionstore.adapters.gradio.resume import Resuming
from sessionstore.adapters.gradio.signed_pickles import Place, SignedPickles
from sessionstore.adapters.gradio.state import TAKEN
from sessionstore.backends.objects import ObjectBackend
from tests.gradio.test_state import Ends
from tests.support.gradio_rig import (
    GRADIO_S_OWN,
    LINGER,
    Heard,
    MakeReplicas,
    Replica,
    Tab,
    closed_loops,
    launched,
    replicas,
    sites,
)
from tests.support.object_client import FakeBucket, FakeObjectClient

pytestmark = GRADIO_S_OWN

ROOT = Path(__file__).parents[2]

HOURS = timedelta(hours=6)
BACK = {"state": True, "resume": HOURS}


def build(title: str = "Notes") -> gr.Blocks:
    """An app with notes: words, stored files, and paths of files that the page has."""
    demo: gr.Blocks

    def note(word: str, words: list[str]) -> tuple[str, list[str]]:
        return " ".join([*words, word]), [*words, word]

    def write(word: str, files: list[StoredFile], request: gr.Request) -> Any:
        file = session(request).add(word.encode(), ".txt")
        return file, [*files, file]

    def remember(path: str, paths: list[str]) -> tuple[str, list[str]]:
        return "", [*paths, f"See {path} there", path]

    def contents(files: list[StoredFile], paths: list[str]) -> str:
        read = [file.read().decode() for file in files]
        return " ".join([*read, *(Path(path).read_text() for path in paths[1::2])])

    def back(request: gr.Request) -> str:
        before = resumed(request)
        return "nothing" if before is None else " ".join(before.value(words, ["no words"]))

    with gr.Blocks(title=title) as demo:
        text, file = gr.Textbox(), gr.File()
        words, files, paths = gr.State([]), gr.State([]), gr.State([])
        gr.on(fn=note, inputs=[text, words], outputs=[text, words], api_name="note")
        gr.on(fn=write, inputs=[text, files], outputs=[file, files], api_name="write")
        gr.on(fn=remember, inputs=[file, paths], outputs=[text, paths], api_name="remember")
        gr.on(fn=contents, inputs=[files, paths], outputs=text, api_name="contents")
        gr.on(fn=back, outputs=text, api_name="back")
    return demo


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeReplicas]:
    with replicas(tmp_path) as make:
        yield make


@pytest.fixture
def pair(make: MakeReplicas) -> tuple[Replica, Replica]:
    return make(build, options=BACK), make(build, options=BACK)


def settled(*all_replicas: Replica) -> None:
    """Wait until the sessions of saves are marked."""
    for replica in all_replicas:
        resuming = replica.attachment.service.resuming
        assert resuming is not None
        resuming.drain()


def sessions(at: Replica) -> list[str]:
    return [each.id for each in at.store.sessions()]


def leave(at: Replica, tab: Tab) -> None:
    settled(at)
    heard = Heard(at.store, "ended")
    tab.close()
    heard.next()


def test_a_new_page_gets_the_files_and_the_values_on_another_replica(
    pair: tuple[Replica, Replica],
) -> None:
    a, b = pair
    before = a.tab().load()
    before.call("note", "hello", None)
    written = before.call("write", "stored", None)
    before.call("remember", written, None)
    before.call("remember", before.upload("up.txt", b"uploaded"), None)
    settled(a)
    leave(a, before)
    after = b.tab(cookies=before.cookies).load()

    assert after.call("back") == "hello"
    assert after.call("back") == "hello"  # another event of the page
    assert sessions(a) == [after.session_hash]  # the older session is dropped: its page is closed
    b.look_again()
    b.lose_disk()
    assert after.call("note", "again", None) == "hello again"
    assert after.call("contents", None, None) == "stored stored uploaded"
    assert a.same(after).call("contents", None, None) == "stored stored uploaded"


def test_a_refresh_of_a_refresh_goes_on(pair: tuple[Replica, Replica]) -> None:
    a, _ = pair
    tab = a.tab().load()
    tab.call("write", "stored", None)
    for number in range(4):
        tab.call("note", f"{number}", None)
        leave(pair[number % 2], tab)
        tab = pair[(number + 1) % 2].tab(cookies=tab.cookies).load()
        tab.call("back")

    assert tab.call("note", "end", None) == "0 1 2 3 end"
    assert tab.call("contents", None, None) == "stored"
    assert sessions(a) == [tab.session_hash]


def test_after_a_crash_the_session_that_never_ended_is_taken_over(make: MakeReplicas) -> None:
    a, b = make(build, options=BACK), make(build, options=BACK)
    before = a.tab()
    before.get("/")
    before.call("note", "hello", None)  # no heartbeat of this page will ever close
    settled(a)
    after = b.tab(cookies=before.cookies).load()

    assert after.call("back") == "hello"


def test_a_tab_that_is_still_open_goes_on_for_itself(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    first = a.tab().load()
    first.call("note", "one", None)
    settled(a)
    second = b.tab(cookies=first.cookies).load()

    assert second.call("back") == "one"
    a.clock.advance(timedelta(seconds=1))
    assert first.call("note", "two", None) == "one two"
    assert second.call("note", "three", None) == "one three"
    leave(a, first)
    _beat(b)
    assert sorted(sessions(a)) == sorted([first.session_hash, second.session_hash])


def test_the_older_session_goes_when_its_page_is_closed_later(
    pair: tuple[Replica, Replica],
) -> None:
    """The server may learn after the new page has come that the old one is gone."""
    a, b = pair
    first = a.tab().load()
    first.call("note", "one", None)
    settled(a)
    second = b.tab(cookies=first.cookies).load()
    second.call("back")
    leave(a, first)
    _beat(b)

    assert sessions(a) == [second.session_hash]


def _beat(replica: Replica) -> None:
    resuming = replica.attachment.service.resuming
    assert resuming is not None
    resuming.drop_left()


def test_nobody_else_gets_anything(pair: tuple[Replica, Replica]) -> None:
    a, b = pair
    before = a.tab().load()
    before.call("note", "secret", None)
    leave(a, before)
    stranger = b.tab().load()
    ownerless = b.tab(session_hash=before.session_hash)
    known = b.tab(session_hash=before.session_hash).load()

    assert [each.call("back") for each in (stranger, ownerless, known)] == ["nothing"] * 3


def test_it_is_this_app_s_session(make: MakeReplicas) -> None:
    a, other = make(build, options=BACK), make(lambda: build("Other"), options=BACK)
    before = a.tab().load()
    before.call("note", "hello", None)
    settled(a, other)
    leave(a, before)
    elsewhere = other.tab(cookies=before.cookies).load()

    assert elsewhere.call("back") == "nothing"
    elsewhere.call("note", "elsewhere", None)
    settled(other)
    assert a.tab(cookies=before.cookies).load().call("back") == "hello"


def test_it_is_the_newest_session_and_not_too_old(make: MakeReplicas) -> None:
    a = make(build, options=BACK, retention={"idle": timedelta(days=9)})
    first = a.tab().load()
    for word in ("old", "new"):
        tab = a.tab(cookies=first.cookies).load()
        tab.call("note", word, None)
        settled(a)
        a.clock.advance(timedelta(minutes=1))

    assert a.tab(cookies=first.cookies).load().call("back") == "new"
    a.clock.advance(HOURS + timedelta(minutes=1))
    assert a.tab(cookies=first.cookies).load().call("back") == "nothing"


def test_a_session_with_files_alone_is_resumed_without_state(make: MakeReplicas) -> None:
    a = make(build, options={"resume": HOURS})
    before = a.tab().load()
    file = before.call("write", "stored", None)
    settled(a)
    leave(a, before)
    after = a.tab(cookies=before.cookies).load()

    assert after.call("back") == "no words"
    (mine,) = a.store.sessions()
    assert [each.read() for each in mine.files()] == [b"stored"]
    assert file["path"]


def test_a_page_that_has_something_takes_nothing_over(pair: tuple[Replica, Replica]) -> None:
    a, _ = pair
    before = a.tab().load()
    before.call("note", "hello", None)
    leave(a, before)
    after = a.tab(cookies=before.cookies).load()
    after.call("note", "new", None)

    assert after.call("back") == "nothing"
    assert after.call("note", "page", None) == "new page"


def test_without_the_option_it_says_what_to_do(
    make: MakeReplicas, caplog: pytest.LogCaptureFixture
) -> None:
    a = make(build, options={"state": True})
    with pytest.raises(RuntimeError):
        a.tab().load().call("back")

    assert "needs attach(demo, store, resume=" in caplog.text


def test_the_linger_is_as_long_and_is_put_back(make: MakeReplicas) -> None:
    a = make(build, options=BACK)
    during = a.store.retention.linger
    a.attachment.detach()

    assert (during, a.store.retention.linger) == (HOURS, LINGER)


def test_references_are_taken_and_not_bytes(
    pair: tuple[Replica, Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    before = a.tab().load()
    for word in ("one", "two"):
        before.call("write", word, None)
    settled(a)
    leave(a, before)
    after = b.tab(cookies=before.cookies).load()
    opened: list[str] = []
    backend: Any = b.store.backend
    original = backend.open

    def noted(sid: str, file: Any, *bounds: Any) -> Any:
        opened.append(file.name)
        return original(sid, file, *bounds)

    monkeypatch.setattr(backend, "open", noted)
    stored = b.store.usage().stored_bytes
    after.call("back")

    assert [name for name in opened if not name.startswith("@/sessionstore/state/")] == []
    assert b.store.usage().stored_bytes - stored < 1000


def test_a_limit_of_the_owner_counts_the_files_once(make: MakeReplicas) -> None:
    limits = Limits(max_owner=3500)
    a = make(build, options=BACK, limits=limits)
    before = a.tab().load()
    before.call("write", "x" * 2000, None)
    leave(a, before)
    after = a.tab(cookies=before.cookies).load()

    assert after.call("back") == "no words"
    assert after.call("contents", None, None) == "x" * 2000


def test_beyond_a_limit_nothing_is_taken(
    make: MakeReplicas, caplog: pytest.LogCaptureFixture
) -> None:
    a = make(build, options=BACK)
    before = a.tab().load()
    for word in ("one", "two"):
        before.call("write", word, None)
    settled(a)
    leave(a, before)
    after = a.tab(cookies=before.cookies).load()
    b = make(build, options=BACK, limits=Limits(max_session_files=2))

    assert b.same(after).call("back") == "nothing"
    assert "because of a limit" in caplog.text
    names = {each.id: [file.name for file in each.files()] for each in a.store.sessions()}
    assert names.get(after.session_hash, []) == []
    assert len(names[before.session_hash]) == 2


def test_a_path_with_a_wrong_proof_is_not_made_right(pair: tuple[Replica, Replica]) -> None:
    """A text may be the visitor's own: it would give what no handler has given."""
    a, b = pair
    before = a.tab().load()
    written = before.call("write", "stored", None)
    path = written["path"]
    proof = path.split("/")[-2]
    forged = path.replace(proof, "0" * 32)
    before.call("note", forged, None)
    before.call("note", path, None)
    leave(a, before)
    after = b.tab(cookies=before.cookies).load()
    unchanged, moved = after.call("back").split()

    assert unchanged == forged
    assert moved != path
    assert after.fetch({"path": moved}).content == b"stored"
    assert after.fetch({"path": unchanged}).status_code == 403


# delete_callback


def test_a_value_that_lives_on_is_deleted_once_at_its_end(make: MakeReplicas) -> None:
    ends = Ends()

    def back(request: gr.Request) -> str:
        return str(resumed(request) is not None)

    def noted() -> gr.Blocks:
        demo = ends.demo()()
        with demo:
            gr.on(fn=back, outputs=gr.Textbox(), api_name="back")
        return demo

    a, b = make(noted, options=BACK), make(noted, options=BACK)
    before = a.tab().load()
    before.call("set", "value", None)
    leave(a, before)
    after = b.tab(cookies=before.cookies).load()
    assert after.call("back") == "True"
    assert sessions(a) == [after.session_hash]
    while_it_lives = list(ends.deleted)
    leave(b, after)
    b.clock.advance(HOURS)
    ends.wait()

    assert (while_it_lives, ends.deleted) == ([], ["value"])


def test_the_example_is_served_and_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONSTORE_URL", (tmp_path / "store").as_uri())
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    with closed_loops():
        chat = runpy.run_path(str(ROOT / "examples" / "chat.py"))["chat"]
        try:
            with launched(chat) as url:
                tab = Tab(url)
                tab.get("/").raise_for_status()
                assert tab.call("back") == []
                tab.leave()
        finally:
            attachment._attachments[chat].detach()


# On a bucket


def test_old_content_is_stored_again_by_the_birth_rule(tmp_path: Path) -> None:
    """A sweep may delete what is older than grace and was listed without the new reference."""
    with sites(tmp_path / "cache") as make:
        site = make()
        bucket = FakeBucket(site.clock.now)
        backend = ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds)
        site.store = SessionStore(
            backend, clock=site.clock, secret="for all replicas, long enough here"
        )
        site.stack.enter_context(site.store)
        site.demo = build()
        attached = attach(site.demo, site.store, state=True, resume=HOURS)
        site.stack.callback(attached.detach)
        url = site.stack.enter_context(launched(site.demo))
        before = site.tab(url).load()
        before.call("write", "stored", None)
        site.clock.advance(timedelta(hours=2))  # twice the grace
        before.call("note", "hello", None)
        resuming = attached.service.resuming
        assert isinstance(resuming, Resuming)
        resuming.drain()
        heard = Heard(site.store, "ended")
        before.close()
        heard.next()
        after = site.tab(url, cookies=before.cookies).load()

        assert after.call("back") == "hello"
        assert [each.id for each in site.store.sessions()] == [after.session_hash]
        for _ in range(3):
            site.clock.advance(timedelta(hours=1, minutes=1))
            site.store.sweep()
        assert after.call("contents", None, None) == "stored"


def test_values_of_a_session_are_read_for_another_one(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path) as store:
        pickles = SignedPickles(store, b"secret")
        older, newer = store.session("older"), store.session("newer")
        file = older.put("a.txt", b"a")
        mine = newer.put("a.txt", b"a")
        value = {"file": file, "session": Session(store, older.key), "text": "in older"}
        data = pickles.pickled(value, older.sid)
        place = Place(older.sid, "app", 0)
        signed = pickles.signed(place, data)
        read = pickles.opened(place, signed, newer.key, {"a.txt": mine.reference})

        assert read["file"] == mine
        assert read["session"] == newer
        changed: Callable[[str], str] = lambda text: text.replace("older", "newer")  # noqa: E731
        assert pickles.with_texts(read, newer.key, changed)["text"] == "in newer"
        assert TAKEN.startswith("@/")
