"""The dashboard: what a look costs and says, who may see it, and a browser that uses it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from sessionstore import Limits, Retention, SessionStore
from sessionstore.adapters.gradio import dashboard
from sessionstore.adapters.gradio.admin import page as board
from sessionstore.adapters.gradio.admin.snapshot import ORDERS, SAMPLES, take_snapshot, watch
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.backends.objects import ObjectBackend
from sessionstore.content import Ingest, ingest
from sessionstore.errors import BackendUnavailable
from sessionstore.names import private_key
from sessionstore.testing import FakeClock, Fault, FaultyBackend, on, unavailable
from tests.gradio.test_browser import FLAGS, PATIENTLY, ROOT, START, eventually, patient
from tests.gradio.test_browser import answers as answers_at
from tests.support.gradio_rig import GRADIO_S_OWN, closed_loops, launched
from tests.support.object_client import FakeBucket, FakeObjectClient
from tests.support.ports import free_port

pytestmark = GRADIO_S_OWN

expect.set_options(timeout=60_000)
MINUTE = timedelta(minutes=1)
HOSTILE = "<img src=x onerror=\"document.title='mine'\">{{constructor}}${document.title='mine'}`"
KIB = 1024
PASSWORD = "let-me-in"


def request(username: str | None = None) -> Any:
    return SimpleNamespace(username=username)


def show(page: gr.Blocks) -> None:
    page.render()  # type: ignore[no-untyped-call]  # Gradio's


def answers(page: gr.Blocks, asked: Any) -> dict[str, Any]:
    """What each handler of the page returns, by its name."""
    found = {}
    for each in page.fns.values():
        if each.fn is None:
            continue  # it runs in the browser
        view = ["recent", False] if each.inputs else []
        found[each.fn.__name__] = each.fn(asked, *view)
    return found


@pytest.fixture(autouse=True)
def gradio_s_loops() -> Iterator[None]:
    with closed_loops():
        yield


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> Iterator[SessionStore]:
    retention = Retention(idle=timedelta(hours=2), linger=5 * MINUTE)
    limits = Limits(max_store=KIB * KIB)
    with SessionStore.open("memory://", clock=clock, retention=retention, limits=limits) as store:
        yield store


def fill(store: SessionStore, clock: FakeClock) -> None:
    """Three sessions: one idle for too long, one of two equal files, one large, small and open."""
    store.session("old", "ada").put("a.txt", b"a" * KIB)
    clock.advance(timedelta(hours=3))
    store.session("twins").put("one.txt", b"b" * KIB)
    store.session("twins").put("two.txt", b"b" * KIB)
    clock.advance(10 * MINUTE)
    store.session("large").put("c.txt", b"c" * 9 * KIB)


def test_a_look_counts_all_that_there_is(store: SessionStore, clock: FakeClock) -> None:
    fill(store, clock)
    found = take_snapshot(store, "recent", 10)

    assert (found.sessions, found.live, found.whole) == (3, 1, True)
    assert (found.files, found.bytes, found.stored.bytes) == (4, 12 * KIB, 11 * KIB)
    states = {row.key.id: row.state for row in found.rows}
    assert states == {"old": "idle", "twins": "idle", "large": "live"}


def test_what_is_no_visitor_s_is_told_apart(store: SessionStore, clock: FakeClock) -> None:
    fill(store, clock)
    store.shared.put("logo.png", b"e")
    adapters = private_key("unclaimed " + 1100 * "x")  # no id leads to it, nor is so long
    into = Ingest(store.backend.digest, store.backend.spool, lambda _: None)
    with ingest(b"f", into) as content:
        store.backend.put(adapters, "upload", content)
    found = take_snapshot(store, "recent", 10)

    states = {row.key.id: row.state for row in found.rows}
    assert (states["shared"], states[adapters.id]) == ("shared", "adapter")
    assert (found.sessions, found.own, found.live) == (5, 2, 1)
    shown = board.sessions(found, 10)
    assert "Showing all 3 sessions + 2 internal." in shown
    assert "shared files" not in shown
    assert "shared files" in board.sessions(found, 10, internal=True)


def test_a_session_that_does_not_say_whose_it_is_is_shown_as_such(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.session("lost").put("a", b"a")
    monkeypatch.setattr(store.backend, "identify", lambda _: None)
    snapshot = take_snapshot(store, "recent", 10)
    (row,) = snapshot.rows
    assert (row.key.id, row.state) == (store.session("lost").sid, "nameless")
    assert "it has no readable id" in board.sessions(snapshot, 10)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("recent", ["large", "twins", "old"]),
        ("idle", ["old", "twins", "large"]),
        ("oldest", ["old", "twins", "large"]),
        ("largest", ["large", "twins", "old"]),
        ("files", ["twins", "large", "old"]),
        ("no such order", ["large", "twins", "old"]),
    ],
)
def test_rows_come_in_the_order_asked_for(
    store: SessionStore, clock: FakeClock, order: str, expected: list[str]
) -> None:
    fill(store, clock)

    assert [row.key.id for row in take_snapshot(store, order, 10).rows] == expected


def test_a_page_is_chosen_from_all_sessions_and_reads_the_files_of_its_own_alone(
    clock: FakeClock,
) -> None:
    backend = FaultyBackend(MemoryBackend(Place(), clock))
    with SessionStore(backend, clock=clock) as store:
        for number in range(20):
            store.session(f"s{number}").put("a", b"a")
            clock.advance(MINUTE)
        before = backend.calls["files"]
        found = take_snapshot(store, "idle", 3)

        assert [row.key.id for row in found.rows] == ["s0", "s1", "s2"]
        assert backend.calls["files"] - before == 3
        assert (found.sessions, found.whole) == (20, False)
        assert "Showing 3 of 20 sessions, longest idle first." in board.sessions(found, 3)


def object_store(client: FakeObjectClient, clock: FakeClock) -> SessionStore:
    return SessionStore(ObjectBackend(client, elapsed=client.bucket.seconds), clock=clock)


def test_on_an_object_store_a_look_takes_three_requests_a_row(clock: FakeClock) -> None:
    bucket = FakeBucket(clock.now)
    client = FakeObjectClient(bucket)
    with object_store(FakeObjectClient(bucket), clock) as writing:
        for number in range(20):
            writing.session(f"s{number}").add(b"a")
    with object_store(client, clock) as store:
        client.requests.clear()
        take_snapshot(store, "recent", 5)

    listings = 2  # sessions, content
    assert client.requests == {"LIST": listings + 5 + 5, "GET": 5}


def test_without_all_sessions_it_says_what_this_process_saved(
    store: SessionStore, clock: FakeClock
) -> None:
    watch(store)
    fill(store, clock)
    shown = board.overview(take_snapshot(store, "recent", 1), watch(store), store, exposed=False)

    assert "<strong>1 KiB</strong>" in shown
    assert "1 of 4 saves in this process" in shown


def test_with_all_sessions_it_says_what_equal_bytes_would_take(
    store: SessionStore, clock: FakeClock
) -> None:
    fill(store, clock)
    shown = board.overview(take_snapshot(store, "recent", 9), watch(store), store, exposed=False)

    assert "8 % of 12 KiB" in shown


def test_the_chart_spans_all_time_in_bounded_memory(store: SessionStore, clock: FakeClock) -> None:
    seen = watch(store)
    began = store.now()
    for number in range(5 * SAMPLES):
        seen.add_sample(store.now(), number)
        clock.advance(MINUTE)

    assert len(seen.samples) <= SAMPLES + 1
    assert seen.samples[0] == (began, 0)
    assert seen.samples[-1].bytes == 5 * SAMPLES - 1


def test_a_sweep_of_this_process_is_measured_and_told(
    store: SessionStore, clock: FakeClock
) -> None:
    seen = watch(store)
    fill(store, clock)
    store.sweep()

    assert [sample.bytes for sample in seen.samples] == [10 * KIB]
    found = board.overview(take_snapshot(store, "recent", 9), seen, store, exposed=False)
    assert "finished now: 1 deleted" in found


def test_a_sweep_that_held_back_stays_on_show_although_it_finished(store: SessionStore) -> None:
    seen = watch(store)
    store.emit("sweep_held", reason="nine tenths of the references are gone")
    store.emit("sweep_finished", reason="0 deleted")

    shown = board.overview(take_snapshot(store, "recent", 9), seen, store, exposed=False)
    assert "held back now: nine tenths" in shown


def test_the_head_names_the_url_without_its_query_or_else_the_backend() -> None:
    with SessionStore.open("memory://apart?digest=sha256") as opened:
        shown = board.head(take_snapshot(opened, "recent", 1), opened)
    with SessionStore(MemoryBackend(Place(), FakeClock())) as made:
        bare = board.head(take_snapshot(made, "recent", 1), made)

    assert "memory://apart · sha256" in shown
    assert "Memory store · sha256" in bare


def test_the_newest_deletions_are_shown_with_their_reasons(
    store: SessionStore, clock: FakeClock
) -> None:
    seen = watch(store)
    assert "Nothing yet in this process" in board.deletions(seen, store.now())
    fill(store, clock)
    store.sweep()
    store.session("large").delete("c.txt")
    clock.advance(MINUTE)

    shown = board.deletions(seen, store.now())
    first, second = re.findall(r"<tr>.*?</tr>", shown.partition("<tbody>")[2], re.DOTALL)
    assert all(text in first for text in ("1m ago", "large", "c.txt", "9 KiB"))
    assert all(text in second for text in ("old", "1 file", "idle for 3h10m"))


def test_of_the_owner_by_a_cookie_eight_digits_are_shown(store: SessionStore) -> None:
    store.session("one", "visitor-" + "0123456789abcdef" * 2).put("a", b"a")
    store.session("two", "visitor-of-my-own").put("a", b"a")

    shown = board.sessions(take_snapshot(store, "recent", 9), 9)
    assert ">visitor-01234567…<" in shown
    assert ">visitor-of-my-own<" in shown


def test_the_chart_names_the_present_value_and_the_peak(
    store: SessionStore, clock: FakeClock
) -> None:
    fill(store, clock)
    take_snapshot(store, "recent", 9)
    store.session("large").drop()
    found = take_snapshot(store, "recent", 9)

    shown = board.overview(found, watch(store), store, exposed=False)
    assert "now <b>2 KiB</b> · peak 11 KiB" in shown


def test_the_head_says_how_often_the_page_refreshes(store: SessionStore) -> None:
    found = take_snapshot(store, "recent", 1)

    assert "refreshes every 5s" in board.head(found, store, timedelta(seconds=5))
    assert "refreshes" not in board.head(found, store)


def test_nobody_who_is_not_allowed_gets_an_answer(store: SessionStore, clock: FakeClock) -> None:
    fill(store, clock)
    asked = request("mallory")
    page = dashboard(store, allow=lambda each: each.username == "ada", every=MINUTE)
    said = answers(page, asked)

    assert set(said) == {"refresh", "snapshot", "plan", "sweep"}
    assert not any("large" in str(each) or "twins" in str(each) for each in said.values())
    assert len(list(store.sessions())) == 3
    assert "large" in answers(page, request("ada"))["snapshot"][2]


def test_it_says_when_nothing_protects_it(store: SessionStore) -> None:
    warned = "This page is not protected"
    anybody = dashboard(store)

    assert warned in answers(anybody, request())["snapshot"][1]
    assert warned not in answers(anybody, request("ada"))["snapshot"][1]
    assert warned not in answers(dashboard(store, allow=lambda _: True), request())["snapshot"][1]


def test_a_store_that_does_not_answer_is_said_to(clock: FakeClock) -> None:
    backend = FaultyBackend(MemoryBackend(Place(), clock))
    with SessionStore(backend, clock=clock) as store:
        backend.plan = on("sessions", Fault(unavailable))
        said = answers(dashboard(store), request())

    assert "The backend did not answer." in said["snapshot"][1]
    assert "The backend did not answer." in said["plan"]
    assert "The backend did not answer." in said["sweep"][3]


@pytest.mark.parametrize("bad", [{"rows": 0}, {"every": timedelta(0)}, {"every": timedelta.max}])
def test_a_page_without_rows_or_time_is_refused(store: SessionStore, bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        dashboard(store, **bad)


def test_each_heading_that_sorts_leads_to_another_order(
    store: SessionStore, clock: FakeClock
) -> None:
    fill(store, clock)
    for name in ORDERS:
        shown = board.sessions(take_snapshot(store, name, 9), 9)
        offered = re.findall(r'<button type="button" value="(\w+)"', shown)
        assert set(offered) <= set(ORDERS)
        assert shown.count('aria-sort="descending"') == 1


def pieces(text: str) -> Iterator[str]:
    """Every piece of the page with ``text`` wherever a visitor or a backend can write."""
    clock = FakeClock()
    with SessionStore.open("memory://", clock=clock) as store:
        store.session(text, text).put(text, b"a", ttl=MINUTE)
        clock.advance(2 * MINUTE)
        watch(store)
        store.emit("sweep_failed", reason=text)
        found = replace(take_snapshot(store, "recent", 1), seconds=0.0)
        yield board.sessions(found, 1)
        yield board.overview(found, watch(store), store, exposed=True)
        yield board.plan([replace(row, reason=text) for row in store.plan()], 1)
        store.session(text, text).delete(text)
        yield board.deletions(watch(store), store.now())
        yield board.failure(BackendUnavailable(text))


def test_nothing_in_a_text_is_html_or_a_template() -> None:
    for plain, hostile in zip(pieces("~"), pieces(HOSTILE), strict=True):
        assert "~" in plain
        written = re.fullmatch("(.*)".join(map(re.escape, plain.split("~"))), hostile, re.DOTALL)
        assert written is not None
        for text in written.groups():
            assert not set("<>\"'{}$`") & set(text)
            assert unescape(text) == HOSTILE


# In a browser


@pytest.fixture(scope="module")
def browser(chromium_path: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=[*FLAGS])
        yield patient(browser)
        browser.close()


@pytest.fixture
def served(
    store: SessionStore, clock: FakeClock, browser: Browser
) -> Iterator[tuple[Page, SessionStore]]:
    """The page of an app with the dashboard in a tab of it, just opened."""
    fill(store, clock)
    clock.advance(MINUTE)
    store.session(HOSTILE, HOSTILE).put("<b>.txt", b"d", ttl=MINUTE)
    clock.advance(2 * MINUTE)
    with gr.Blocks(title="theirs", analytics_enabled=False) as app:
        with gr.Tab("App"):
            gr.Markdown("The app itself.")
        with gr.Tab("Files"):
            show(dashboard(store))
    with launched(app) as url, browser.new_context() as context:
        page = context.new_page()
        page.goto(url)
        page.get_by_role("tab", name="Files").click()
        page.get_by_text("Showing all 4 sessions.").wait_for()
        yield page, store


def shows(page: Page, *ids: str, **cards: str) -> None:
    """Wait until the page has these sessions, in this order, and these numbers on its cards."""
    expect(page.locator("table.sessions tbody th")).to_have_text([*ids], use_inner_text=True)
    for label, number in cards.items():
        card = page.locator(".ssd .card", has_text=label.replace("_", " "))
        expect(card.locator("strong")).to_have_text(number)


def test_inside_an_app_it_is_there_once_made_there_or_brought_there(store: SessionStore) -> None:
    outside = dashboard(store)
    with gr.Blocks(analytics_enabled=False) as app:
        with gr.Tab("one"):
            show(dashboard(store))
        with gr.Tab("two"):
            dashboard(store)
        with gr.Tab("three"):
            show(outside)
    buttons = [each for each in app.blocks.values() if isinstance(each, gr.Button)]
    children = [child for tab in app.children for each in tab.children for child in each.children]

    assert sum(each.value == "Sweep now" for each in buttons) == 3
    assert len(children) == len(set(children))
    assert sum(each.targets[0][1] == "load" for each in app.fns.values()) == 3


@pytest.mark.browser
def test_an_administrator_sorts_plans_and_sweeps(served: tuple[Page, SessionStore]) -> None:
    page, store = served
    shows(page, HOSTILE, "large", "twins", "old", Sessions="4", Storage_used="11 KiB")

    page.get_by_role("button", name="Size").click()
    page.locator("th[aria-sort] button", has_text="Size").wait_for()
    shows(page, "large", "twins", "old", HOSTILE)
    page.get_by_label("Longest idle").click()
    page.locator("th[aria-sort] button", has_text="Last active").wait_for()
    expect(page.locator("table.sessions tbody th").first).to_have_text("old")

    planned = page.locator("table.plan tbody tr")
    expect(planned).to_have_count(2)
    expect(planned.filter(has_text="old").filter(has_text="idle for 3h13m")).to_have_count(1)
    over = planned.filter(has_text="<b>.txt").filter(has_text="its time to live was over")
    expect(over).to_have_count(1)
    assert len(list(store.sessions())) == 4  # so far it was only looked at

    page.get_by_role("button", name="Sweep now").click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Delete now").wait_for(state="hidden")
    assert len(list(store.sessions())) == 4  # it asks before it deletes
    page.get_by_role("button", name="Sweep now").click()
    page.get_by_role("button", name="Delete now").click()
    page.get_by_text("Sweep finished: deleted 1 session and 1 file").wait_for()
    shows(page, "twins", "large", HOSTILE, Sessions="3", Storage_used="10 KiB")
    assert "old" not in {each.id for each in store.sessions()}

    page.get_by_role("button", name="Refresh plan").click()
    page.get_by_text("Nothing to delete.").wait_for()


@pytest.mark.browser
def test_a_long_table_has_pages(served: tuple[Page, SessionStore]) -> None:
    page, store = served
    for number in range(21):  # with the four of before 25, three pages
        store.session(f"more-{number}").put("a.txt", b"a")
    page.get_by_role("button", name="Refresh", exact=True).click()
    page.get_by_text(re.compile("1.10 of 25")).wait_for()

    visible = page.locator("table.sessions tbody tr:visible")
    expect(visible).to_have_count(10)
    for shown in ("11.20 of 25", "21.25 of 25"):
        page.get_by_role("button", name="Next").click()
        page.get_by_text(re.compile(shown)).wait_for()
    expect(visible).to_have_count(5)
    page.get_by_role("button", name="Previous").click()
    page.get_by_text(re.compile("11.20 of 25")).wait_for()
    store.shared.put("logo.png", b"e")
    page.get_by_label("Show internal sessions").check()
    page.get_by_text(re.compile("1.10 of 26")).wait_for()


@pytest.mark.browser
def test_the_example_shows_what_its_demo_keeps_to_who_can_log_in(
    browser: Browser, tmp_path: Path
) -> None:
    with example(tmp_path) as url, browser.new_context() as context:
        visitor, admin = context.new_page(), context.new_page()
        wrong: list[object] = []

        def remember(error: object) -> None:  # playwright calls no builtin
            wrong.append(error)

        admin.on("pageerror", remember)
        visitor.goto(url)
        visitor.get_by_text("(you)").wait_for()
        admin.goto(f"{url}/admin/")
        admin.get_by_label("username").fill("admin")
        admin.get_by_label("password").fill(PASSWORD)
        admin.get_by_role("button", name="Login").click()
        admin.get_by_text("Showing all 1 session").wait_for()
        assert admin.get_by_text("This page is not protected").count() == 0

        visitor.close()
        gone = admin.get_by_text("No sessions yet.").or_(
            admin.get_by_text("Showing all 0 sessions")
        )
        gone.wait_for()  # it looks by itself
        assert wrong == []


@contextmanager
def example(place: Path) -> Iterator[str]:
    port = free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SESSIONSTORE_URL": (place / "store").as_uri(),
        "SESSIONSTORE_LINGER": "1s",
        "GRADIO_TEMP_DIR": str(place / "cache"),
        "GRADIO_SERVER_PORT": str(port),
        "DASHBOARD_PASSWORD": PASSWORD,
    }
    program = [*PATIENTLY, str(ROOT / "examples" / "dashboard.py")]
    with subprocess.Popen(program, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            eventually(START, lambda: answers_at(f"http://127.0.0.1:{port}"))
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


@pytest.mark.browser
def test_what_visitors_wrote_is_shown_and_not_run(served: tuple[Page, SessionStore]) -> None:
    page, _ = served

    expect(page.locator("table.sessions tbody th", has_text=HOSTILE)).to_have_count(1)
    assert page.title() == "theirs"
    assert page.locator(".ssd img").count() == 0


@pytest.mark.browser
def test_nothing_is_wider_than_the_window(served: tuple[Page, SessionStore]) -> None:
    page, _ = served
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 900})

        page.wait_for_function(  # a page may still be laid out again
            """width => document.documentElement.scrollWidth <= width
            && [...document.querySelectorAll('.ssd :is(table, .card, .panel, .box)')]
                .every(it => it.getBoundingClientRect().right <= innerWidth)""",
            arg=width,
        )


def test_the_owner_nearest_to_a_limit_is_shown(clock: FakeClock) -> None:
    limits = Limits(max_owner=1000, max_owner_files=4)
    with SessionStore.open("memory://", clock=clock, limits=limits) as store:
        seen = watch(store)
        found = take_snapshot(store, "recent", 9)
        assert "Owner quota" not in board.overview(found, seen, store, exposed=False)
        store.session("one", "ada").put("a", bytes(500))
        for name in "abc":
            store.session("two", "<boris>").put(name, b"")

        shown = board.overview(found, seen, store, exposed=False)

        assert "fullest: 75 % of 4 files" in " ".join(shown.split())
        assert "&lt;boris&gt;" in shown
