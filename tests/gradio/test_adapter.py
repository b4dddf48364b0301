"""Gradio, really served: each visitor's files are theirs while they are here, and gone after."""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio.routes import App

from sessionstore import Session, SettingsError, _threads
from sessionstore.adapters.gradio import attach, session
from tests.support.gradio_rig import (
    GRADIO_S_OWN,
    LINGER,
    PATIENCE,
    SERVED,
    Heard,
    MakeSite,
    Site,
    app_with,
    launched,
    mounted,
    running,
    sites,
    until,
)

pytestmark = GRADIO_S_OWN


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[MakeSite]:
    with sites(tmp_path / "cache") as make:
        yield make


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    return make_site()


def in_cache(cache: Path) -> list[str]:
    """The contents of files in Gradio's cache, each once, as digests; without locks and leases."""
    found = set()
    for folder, _, names in os.walk(cache):  # ``rglob`` raises an error for one that goes meanwhile
        for path in (Path(folder, name) for name in names):
            if path.suffix != ".lock" and "processes" not in path.parts:
                with contextlib.suppress(FileNotFoundError):
                    found.add(hashlib.sha256(path.read_bytes()).hexdigest())
    return sorted(found)


# A visitor comes and goes


@pytest.mark.parametrize("how", SERVED)
def test_a_visitor_s_files_go_when_the_page_has_been_closed_for_the_linger(
    site: Site, how: str
) -> None:
    url = site.serve(how)
    heard = Heard(site.store, "ended", "dropped")
    stays, leaves = site.tab(url).load(), site.tab(url).load()
    stays.call("save", "mine")
    leaves.call("save", "yours")

    leaves.close()
    ended = heard.next()
    site.clock.advance(LINGER)
    dropped = heard.next()

    assert (ended.kind, dropped.kind) == ("ended", "dropped")
    assert ended.session_id == dropped.session_id == leaves.session_hash
    assert site.files() == {stays.session_hash: ["mine"]}


def test_a_closed_page_keeps_its_files_for_the_linger(site: Site) -> None:
    tab = site.tab(site.serve()).load()
    heard = Heard(site.store, "ended", "dropped")
    tab.call("save", "file")

    tab.close()
    heard.next()
    site.clock.advance(LINGER - timedelta(seconds=1))
    site.store.sweep()

    assert site.files() == {tab.session_hash: ["file"]}


def test_a_page_that_comes_back_within_the_linger_keeps_its_files(site: Site) -> None:
    tab = site.tab(site.serve()).load()
    heard = Heard(site.store, "ended", "resumed", "dropped")
    tab.call("save", "file")

    tab.close()
    ended = heard.next()
    tab.beat()
    resumed = heard.next()
    site.clock.advance(2 * LINGER)
    site.store.sweep()

    assert (ended.kind, resumed.kind) == ("ended", "resumed")
    assert site.files() == {tab.session_hash: ["file"]}


def test_an_event_after_the_page_seemed_closed_cancels_the_end(site: Site) -> None:
    """A proxy cut the heartbeat: Gradio's page never opens another, but its buttons still work."""
    tab = site.tab(site.serve()).load()
    heard = Heard(site.store, "ended", "resumed")
    tab.call("save", "file")

    tab.close()
    heard.next()
    tab.call("save", "another")
    resumed = heard.next().kind  # by a thread for which no event waits
    site.clock.advance(2 * LINGER)
    site.store.sweep()

    assert resumed == "resumed"
    assert site.files() == {tab.session_hash: ["another", "file"]}


def test_a_session_with_a_running_event_does_not_end(site: Site) -> None:
    """The visitor left during a slow handler: what it saves goes too, but when it is over."""
    tab = site.tab(site.serve()).load()
    heard = Heard(site.store, "saved", "ended", "resumed", "dropped")
    tab.call("save", "file")
    tab.join("save_slowly", "late")
    assert site.begun.wait(PATIENCE)

    tab.close()
    site.clock.advance(2 * LINGER)
    site.store.sweep()
    before, kept = [event.kind for event in heard.all()], site.files()
    site.go_on.set()
    after = [heard.next().kind, heard.next().kind]
    site.clock.advance(LINGER)

    assert (before, kept) == (["saved"], {tab.session_hash: ["file"]})
    assert after == ["saved", "ended"]
    assert heard.next().kind == "dropped"
    assert site.files() == {}


def test_a_first_save_after_the_page_closed_is_not_left_behind(site: Site) -> None:
    """When the visitor left there was no session yet that could have ended."""
    tab = site.tab(site.serve()).load()
    heard = Heard(site.store, "saved", "ended", "dropped")
    tab.join("save_slowly", "late")
    assert site.begun.wait(PATIENCE)

    tab.close()
    site.go_on.set()
    kinds = [heard.next().kind, heard.next().kind]
    site.clock.advance(LINGER)

    assert kinds == ["saved", "ended"]
    assert heard.next().kind == "dropped"
    assert site.files() == {}


def test_a_session_ends_with_its_last_heartbeat_only(site: Site) -> None:
    tab = site.tab(site.serve()).load().beat()
    heard = Heard(site.store, "ended")
    tab.call("save", "file")

    tab.close()
    tab.call("save", "another")
    while_one_was_open = heard.all()
    tab.close()

    assert while_one_was_open == []
    assert heard.next().session_id == tab.session_hash


def test_two_tabs_of_one_visitor_are_two_sessions(site: Site) -> None:
    url = site.serve()
    heard = Heard(site.store, "ended", "dropped")
    first = site.tab(url).load()
    second = site.tab(url, cookies=first.cookies).load()
    first.call("save", "first")
    second.call("save", "second")
    owners = {each.owner for each in site.store.sessions()}

    first.close()
    heard.next()
    site.clock.advance(LINGER)
    heard.next()

    assert len(owners) == 1
    assert site.files() == {second.session_hash: ["second"]}


def test_an_open_page_is_touched_and_outlives_the_idle_time(
    make_site: MakeSite,
) -> None:
    site = make_site(idle=timedelta(seconds=90))
    backend = site.store.backend
    active: queue.Queue[tuple[str, datetime]] = queue.Queue()

    def noting(verb: Callable[[str], object]) -> Callable[[str], None]:
        def note(sid: str) -> None:
            at = site.clock.now()
            verb(sid)
            active.put((sid, at))

        return note

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "touch", noting(backend.touch))
        patch.setattr(backend, "resume", noting(backend.resume))  # what was to be touched then
        tab = site.tab(site.serve()).load()
        tab.call("save", "file")
        (sid,) = (each.sid for each in site.store.sessions())
        for _ in range(3):
            site.clock.settle(2)  # the sweeper and the one that touches
            site.clock.advance(site.store.live_interval)
            while active.get(timeout=PATIENCE) != (sid, site.clock.now()):
                pass  # of an event, or a list of the adapter's own

    site.store.sweep()

    assert site.files() == {tab.session_hash: ["file"]}


@pytest.mark.parametrize("name", ["save_async", "save_each", "save_each_async"])
def test_every_kind_of_handler_has_the_visitor_s_session(site: Site, name: str) -> None:
    tab = site.tab(site.serve()).load()

    tab.call(name, "one")

    assert site.files() == {tab.session_hash: ["one"]}


# What Gradio serves


def test_a_working_copy_is_served_in_place_and_gone_with_its_session(site: Site) -> None:
    tab = site.tab(site.serve()).load()
    heard = Heard(site.store, "ended", "dropped")

    file = tab.call("save", "file.txt")
    served = tab.fetch(file).content
    copies = in_cache(site.cache)
    tab.close()
    heard.next()
    site.clock.advance(LINGER)
    heard.next()

    assert served == b"file.txt"
    assert copies == [hashlib.sha256(b"file.txt").hexdigest()]
    until(lambda: in_cache(site.cache) == [])  # its answer may have been on the way


@pytest.mark.parametrize("name", ["picture", "pictures"])
def test_pictures_are_served_in_place_too(site: Site, name: str) -> None:
    """``gr.Image`` and ``gr.Gallery`` pass a path in the cache on as it is."""
    tab = site.tab(site.serve()).load()

    output = tab.call(name, "red")
    file = output if name == "picture" else output[0]["image"]
    (stored,) = next(iter(site.store.sessions())).files()

    assert tab.fetch(file).content == stored.read()
    assert in_cache(site.cache) == [stored.digest]


# Which store, which demo


def test_each_demo_in_a_process_has_its_own_store(make_site: MakeSite) -> None:
    one, two = make_site(), make_site()
    first, second = one.tab(one.serve()).load(), two.tab(two.serve()).load()

    first.call("save", "first")
    second.call("save", "second")

    assert one.files() == {first.session_hash: ["first"]}
    assert two.files() == {second.session_hash: ["second"]}


def test_a_demo_that_is_not_attached_is_left_alone(make_site: MakeSite) -> None:
    attached, bystander = make_site(), make_site()
    attached.attach()
    url = bystander.stack.enter_context(launched(bystander.demo, show_error=True))
    tab = bystander.tab(url)

    page = tab.get("/")
    with pytest.raises(RuntimeError, match=r"not attached to a store: call attach\(demo, store\)"):
        tab.call("save", "file")

    assert "set-cookie" not in page.headers
    assert tab.get("/config").json()["connect_heartbeat"] is False


def test_a_store_can_be_said_where_none_is_attached(site: Site) -> None:
    def save(request: gr.Request) -> str:
        return session(request, site.store).put("file", b"").name

    with gr.Blocks() as demo:
        gr.on(fn=save, outputs=gr.Textbox(), api_name="save")
    tab = site.tab(site.stack.enter_context(launched(demo)))

    tab.call("save")

    assert site.files() == {tab.session_hash: ["file"]}


def test_attach_comes_before_the_app_is_made(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    app = app_with(site.demo)
    site.attach()
    url = site.stack.enter_context(running(app))

    with pytest.raises(RuntimeError, match="Storage is temporarily unavailable"):
        site.tab(url).call("save", "file")

    assert "call attach(demo, store) before mount_gradio_app" in caplog.text


def test_attach_is_refused_while_the_demo_runs(site: Site) -> None:
    with launched(site.demo), pytest.raises(SettingsError, match=r"before launch\(\)"):
        attach(site.demo, site.store)


def test_attaching_twice_is_attaching_once(site: Site) -> None:
    assert site.attach() is site.attach()


def test_a_demo_has_one_store(make_site: MakeSite) -> None:
    site, other = make_site(), make_site()
    site.attach()

    with pytest.raises(SettingsError, match="attached to another store"):
        attach(site.demo, other.store)


def test_a_frequency_must_be_positive(site: Site) -> None:
    with pytest.raises(ValueError, match="longer than zero"):
        attach(site.demo, site.store, sweep_every=timedelta(0))


@pytest.mark.parametrize("longest", [10**18, 4 * 10**9])
def test_a_delete_cache_that_is_no_time_is_refused(make_site: MakeSite, longest: int) -> None:
    site = make_site()
    site.demo.delete_cache = (longest, longest)

    with pytest.raises(ValueError, match="at most a hundred years are allowed"):
        attach(site.demo, site.store)


def test_an_unknown_gradio_is_refused_with_the_name_of_what_is_missing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(App, "create_app")

    with pytest.raises(SettingsError, match=r"no App\.create_app"):
        attach(site.demo, site.store)


@pytest.mark.parametrize("request_", [None, gr.Request()])
def test_there_is_no_session_outside_an_event(site: Site, request_: Any) -> None:
    with pytest.raises(SettingsError, match=r"store\.shared"):
        session(request_, site.store)


def test_detach_puts_everything_back(site: Site) -> None:
    create_app, directory = App.create_app, site.store.local_copies.directory
    threads = set(threading.enumerate())

    attachment = site.attach()
    with mounted(site.demo) as url:
        site.tab(url).load().leave()
        attached = site.demo.config["connect_heartbeat"]
        attachment.detach()
        attachment.detach()
        page = site.tab(url).get("/")
        detached = site.demo.config["connect_heartbeat"]

    assert (attached, detached) == (True, False)
    assert App.create_app is create_app
    assert site.store.local_copies.directory == directory
    assert "get_config_file" not in vars(site.demo)
    assert "set-cookie" not in page.headers
    pools = tuple(_threads._made)  # they are the process's, and grow with the load

    def left() -> list[str]:
        names = {thread.name for thread in set(threading.enumerate()) - threads}
        return [it for it in names if it.startswith("sessionstore") and not it.startswith(pools)]

    until(lambda: not left())  # a thread that starts those of a pool may not have ended


# The server


def test_apps_that_share_a_store_share_one_sweeper(make_site: MakeSite) -> None:
    site = make_site()
    other = Site(site.store, site.clock, site.cache, site.stack, site.over)

    def sweepers() -> int:
        ours = ("sessionstore-sweep", "sessionstore-heartbeat")
        return sum(each.name in ours for each in threading.enumerate())

    before = sweepers()
    with launched(site.demo):
        unattached = sweepers()
    site.attach()
    other.attach()
    attached = sweepers()
    with launched(site.demo):
        one = sweepers()
        with launched(other.demo):
            two = sweepers()
        left = sweepers()

    # One thread sweeps and one touches, however many apps there are.
    assert (before, unattached, attached) == (0, 0, 0)
    assert (one, two, left, sweepers()) == (2, 2, 2, 0)


def test_an_app_that_no_lifespan_reaches_is_swept_from_its_first_request_on(site: Site) -> None:
    heard = Heard(site.store, "sweep_finished")
    site.attach()
    url = site.stack.enter_context(running(app_with(site.demo), lifespan="off"))

    before = heard.all()
    site.tab(url).get("/")

    assert before == []
    assert heard.next().kind == "sweep_finished"


@pytest.mark.parametrize("how", ["closed by Gradio", "cancelled by uvicorn"])
def test_a_server_that_stops_ends_no_session(site: Site, how: str) -> None:
    """Its visitors did not leave: they may come back to the next one."""
    heard = Heard(site.store, "ended")
    attachment = site.attach()
    serving = (
        launched(site.demo)
        if how == "closed by Gradio"
        else running(app_with(site.demo), timeout_graceful_shutdown=1)
    )
    with serving as url:
        tab = site.tab(url).load()
        tab.call("save", "file")
    attachment.detach()  # after this nothing is told any more

    assert heard.all() == []
    assert site.files() == {tab.session_hash: ["file"]}


def test_a_backend_that_fails_stops_neither_handler_nor_server(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(_: Session) -> None:
        raise OSError("the disk is on fire")

    monkeypatch.setattr(Session, "resume", failing)
    tab = site.tab(site.serve())

    tab.call("save", "file")

    assert site.files() == {tab.session_hash: ["file"]}
    assert "Could not resume a visitor's session" in caplog.text
    assert tab.session_hash not in caplog.messages[0]
