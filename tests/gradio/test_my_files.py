"""``my_files``: what visitors see, fetch and delete of their own, and others do not."""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from starlette.requests import HTTPConnection

from sessionstore import Limits, Retention, SessionStore, SettingsError
from sessionstore.adapters import cookies
from sessionstore.adapters.gradio import attach, my_files, session
from sessionstore.adapters.gradio.compat import ZIP
from sessionstore.adapters.gradio.mine import page as module
from sessionstore.adapters.gradio.mine.listing import OwnFiles
from sessionstore.adapters.gradio.mine.route import offer
from sessionstore.adapters.gradio.recent_saves import KeptSession
from sessionstore.audit import Audit
from sessionstore.plan import UNLESS_USED, Going, going
from sessionstore.testing import FakeClock
from tests.gradio.test_browser import FLAGS, patient
from tests.support.gradio_rig import (
    MakeReplicas,
    Replica,
    Tab,
    closed_loops,
    launched,
    replicas,
    until,
)

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
HOSTILE = "\u202egnp.<script>alert(1)</script>{{7*7}}${x}'\".exe"


def save(name: str, request: gr.Request) -> Any:
    return session(request).put(name, name.encode())


def build() -> gr.Blocks:
    made = gr.Blocks()
    with made:
        gr.on(fn=lambda path: path, inputs=gr.File(), outputs=gr.File(), api_name="echo")
        gr.on(fn=save, inputs=gr.Textbox(), outputs=gr.File(), api_name="save")
    return made


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeReplicas]:
    with replicas(tmp_path) as make:
        yield make


@pytest.fixture
def site(make: MakeReplicas) -> Replica:
    site = make(build)
    offer(site.store)
    return site


def owner_of(tab: Tab) -> str:
    """Return the owner of a tab whose page was loaded, as the server sees its cookie."""
    pairs = "; ".join(f"{each.name}={each.value}" for each in tab.client.cookies.jar)
    scope = {"type": "http", "scheme": "http", "headers": [(b"cookie", pairs.encode())]}
    owner = cookies.owner(HTTPConnection(scope))
    assert owner is not None
    return owner


def of(site: Replica, tab: Tab) -> OwnFiles:
    return OwnFiles(site.attachment.service.files, owner_of(tab), tab.session_hash)


def listed(site: Replica, tab: Tab) -> dict[str, list[str]]:
    return {file.name: [*file.places] for file in of(site, tab).listed()}


def zip_of(tab: Tab) -> dict[str, bytes]:
    answer = tab.get(ZIP)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "private, no-store"
    bundle = zipfile.ZipFile(io.BytesIO(answer.content))
    return {name: bundle.read(name) for name in bundle.namelist()}


class TestListing:
    def test_has_the_files_of_all_pages_with_uploads_and_none_of_others(
        self, site: Replica
    ) -> None:
        one, other = site.tab().load(), site.tab().load()
        two = site.tab(cookies=one.cookies).load()
        one.call("save", "notes/a.txt")
        two.call("echo", two.upload("used.txt", b"used"))
        one.upload("unused.txt", b"unused")
        other.call("save", "theirs.txt")

        assert listed(site, one) == {
            "notes/a.txt": ["this page"], "used.txt": ["another page"], "unused.txt": ["upload"],
        }  # fmt: skip
        assert listed(site, other) == {"theirs.txt": ["this page"]}

    def test_a_file_in_the_run_history_is_one_with_that_of_the_page(
        self, make: MakeReplicas
    ) -> None:
        site = make(build, options={"history": HOUR})
        offer(site.store)
        tab = site.tab().load()
        output = tab.call("save", "a.txt")
        files = site.attachment.service.files
        files.keep_run(owner_of(tab), [files.paths.relative(output["path"]) or ""])

        assert set(listed(site, tab)["a.txt"]) == {"this page", "run history"}
        (file,) = of(site, tab).listed()
        assert len(file.copies) == 2
        assert zip_of(tab) == {"a.txt": b"a.txt"}

        receipt = of(site, tab).delete(file.which)
        site.look_again()
        assert receipt is not None
        assert tab.fetch(output).status_code == 403

    def test_an_expired_file_is_gone(self, site: Replica) -> None:
        tab = site.tab().load()
        store = site.store
        tab.call("save", "kept.txt")
        store.session(tab.session_hash, owner_of(tab)).put("short.txt", b"x", ttl=MINUTE)
        site.clock.advance(2 * MINUTE)
        assert [*listed(site, tab)] == ["kept.txt"]
        assert [*zip_of(tab)] == ["kept.txt"]

    def test_what_is_no_file_by_itself_is_one_row_that_can_be_deleted(self, site: Replica) -> None:
        tab = site.tab().load()
        mine = site.store.session(tab.session_hash, owner_of(tab))
        mine.put("whole.txt", b"whole")
        mine.begin_upload("half.bin", 20).write(0, b"ten bytes.")
        KeptSession(site.store, mine.key).put("sessionstore/state/1/2", b"pickled")

        rows = {file.name: file.size for file in of(site, tab).listed()}
        assert set(rows) == {"whole.txt", "unfinished upload", "page state"}
        assert rows["page state"] == 7
        assert rows["unfinished upload"] >= 10
        assert [*zip_of(tab)] == ["whole.txt"]

        for file in of(site, tab).listed():
            assert of(site, tab).delete(file.which) is not None
        assert list(site.store.backend.files(mine.sid)) == []

    def test_only_the_owner_s_sessions_are_looked_at(
        self, site: Replica, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tab = site.tab().load()
        tab.call("save", "a.txt")
        monkeypatch.setattr(type(site.store.backend), "sessions", None)
        assert [*listed(site, tab)] == ["a.txt"]


class TestZip:
    def test_has_every_file_once_by_its_name(self, site: Replica) -> None:
        tab = site.tab().load()
        twin = site.tab(cookies=tab.cookies).load()
        for each in (tab, twin):
            each.call("save", "same.txt")
        tab.call("save", "../../up.txt".replace("../", "..\\"))
        tab.upload("unused.txt", b"unused")
        assert zip_of(twin) == {
            "same.txt": b"same.txt", "same (2).txt": b"same.txt",
            "_._.._up.txt": b"..\\..\\up.txt", "unused.txt": b"unused",
        }  # fmt: skip

    def test_is_nothing_for_a_stranger_another_owner_and_a_client_without_a_cookie(
        self, site: Replica
    ) -> None:
        tab, other = site.tab().load(), site.tab().load()
        tab.call("save", "a.txt")
        nobody = site.tab(session_hash=tab.session_hash)
        for each in (other, nobody):
            answer = each.get(ZIP)
            assert (answer.status_code, answer.text) == (404, "Nothing of yours is kept here.")
        assert nobody.get(ZIP + "?session_hash=" + tab.session_hash).status_code == 404

    def test_an_app_without_the_page_has_no_such_route(self, make: MakeReplicas) -> None:
        site = make(build)
        tab = site.tab().load()
        tab.call("save", "a.txt")
        assert tab.get(ZIP).status_code == 404
        assert "Nothing" not in tab.get(ZIP).text

    def test_needs_the_login_of_an_app_with_one(self, make: MakeReplicas) -> None:
        site = make(build, auth=[("ada", "secret"), ("bob", "secret")])
        offer(site.store)
        ada = site.tab().log_in("ada", "secret").load()
        ada.call("save", "a.txt")
        bob = site.tab().log_in("bob", "secret").load()
        assert [*zip_of(ada)] == ["a.txt"]
        assert bob.get(ZIP).status_code == 404
        assert site.tab().get(ZIP).status_code == 404


class TestDeleting:
    def test_one_file_goes_and_the_others_stay(self, site: Replica) -> None:
        tab = site.tab().load()
        first, second = tab.call("save", "first.txt"), tab.call("save", "second.txt")
        (which,) = (file.which for file in of(site, tab).listed() if file.name == "first.txt")
        receipt = of(site, tab).delete(which)
        assert receipt is not None
        assert (receipt.files, receipt.bytes, receipt.names) == (1, 9, ["first.txt"])
        site.look_again()
        assert tab.fetch(first).status_code == 403
        assert tab.fetch(second).status_code == 200

    @pytest.mark.parametrize("which", ["", "[]", "null", '["x", "y"]', "\udcff", "[" * 10_000])
    def test_what_names_no_file_of_the_owner_deletes_nothing(
        self, site: Replica, which: str
    ) -> None:
        tab = site.tab().load()
        tab.call("save", "a.txt")
        assert of(site, tab).delete(which) is None
        assert [*listed(site, tab)] == ["a.txt"]

    def test_the_name_of_another_owner_s_file_deletes_nothing(self, site: Replica) -> None:
        tab, other = site.tab().load(), site.tab().load()
        tab.call("save", "a.txt")
        (file,) = of(site, tab).listed()
        assert of(site, other).delete(file.which) is None
        assert of(site, other).delete_all() is None
        assert [*listed(site, tab)] == ["a.txt"]

    def test_all_goes_on_every_replica_within_what_a_look_is_believed(
        self, make: MakeReplicas
    ) -> None:
        a, b = (make(build, options={"history": HOUR}) for _ in "ab")
        for replica in (a, b):
            offer(replica.store)
        tab, other = a.tab().load(), a.tab().load()
        twin = b.tab(cookies=tab.cookies).load()
        kept = [tab.call("save", "a.txt"), twin.call("echo", twin.upload("b.txt", b"b"))]
        kept.append(tab.upload("c.txt", b"c"))
        theirs = other.call("save", "theirs.txt")
        for each in (tab, twin):
            assert [each.fetch(file).status_code for file in kept] == [200] * 3

        if hasattr(gr, "history"):  # a run's files are kept for it after the answer
            until(lambda: sum("run history" in it.places for it in of(a, tab).listed()) == 2)
        b.rest()  # so is the used upload deleted

        receipt = of(a, tab).delete_all()

        for replica in (a, b):
            replica.look_again()
        for each in (tab, twin):
            assert [each.fetch(file).status_code for file in kept] == [403] * 3
        assert receipt is not None
        assert (receipt.files, sorted(receipt.names)) == (3, ["a.txt", "b.txt", "c.txt"])
        assert of(b, twin).listed() == []
        assert other.fetch(theirs).status_code == 200

    def test_after_it_a_page_goes_on(self, site: Replica) -> None:
        tab = site.tab().load()
        tab.call("save", "a.txt")
        of(site, tab).delete_all()
        tab.call("save", "b.txt")
        assert [*listed(site, tab)] == ["b.txt"]


def test_a_receipt_is_what_the_audit_log_has(tmp_path: Path, make: MakeReplicas) -> None:
    site = make(build, url=(tmp_path / "store").as_uri())
    site.store.audit = Audit(tmp_path / "audit.jsonl")
    offer(site.store)
    tab = site.tab().load()
    tab.call("save", "a.txt")
    (file,) = of(site, tab).listed()
    receipt = of(site, tab).delete(file.which)
    assert receipt is not None

    log = [*map(json.loads, (tmp_path / "audit.jsonl").read_text().splitlines())]
    (logged,) = [each for each in log if each["action"] != "swept"]  # the first sweep may be late
    assert logged["by"] == f"the visitor, receipt {receipt.number}"
    document = json.loads(receipt.document())
    assert document["receipt"] == receipt.number
    (entry,) = document["audit_log"]
    assert (entry["action"], entry["name"], entry["bytes"]) == ("deleted", "a.txt", 5)
    assert not {"host", "pid", "session", "owner"} & set(entry)


class TestWords:
    NOW = FakeClock().now()

    @pytest.mark.parametrize(
        ("goings", "words"),
        [
            ([Going(None, "", with_page=False)], "only by you"),
            ([Going(NOW + 90 * MINUTE, "its page was closed", with_page=False)], "in 1h 30m"),
            ([Going(NOW, "its page was closed", with_page=False)], "in a moment"),
            ([Going(NOW + HOUR, UNLESS_USED, with_page=True)], "5m after you leave"),
            ([Going(None, "", with_page=True)], "5m after you leave"),
            (
                [Going(NOW + HOUR, "its time to live ends", with_page=True)],
                "5m after you leave, in 1h at the latest",
            ),
            (
                [
                    Going(NOW + HOUR, UNLESS_USED, with_page=True),
                    Going(NOW + 2 * HOUR, "its time to live ends", with_page=False),
                ],
                "5m after you leave, in 2h at the earliest",
            ),
        ],
    )
    def test_the_time_is_that_of_the_last_copy(self, goings: list[Going], words: str) -> None:
        assert module._goes(goings, 5 * MINUTE, self.NOW) == words

    def test_they_follow_the_rules_of_a_sweep(self) -> None:
        clock = FakeClock()
        policy = Retention(idle=6 * HOUR, linger=5 * MINUTE, max_age=3 * HOUR)
        with SessionStore.open("memory://", clock=clock, retention=policy) as store:
            mine = store.session("one", "ada")
            file = mine.put("a", b"x", ttl=8 * HOUR)

            def now() -> Going:
                record = store.backend.session(mine.sid)
                assert record is not None
                return going(policy, record, file.reference, store.now())

            saved = store.now()
            assert now() == Going(saved + 6 * HOUR, UNLESS_USED, with_page=True)
            clock.advance(HOUR)
            assert now() == Going(saved + 3 * HOUR, "no file is kept longer", with_page=False)
            mine.end()
            assert now() == Going(saved + HOUR + 5 * MINUTE, "its page was closed", with_page=False)


def test_nothing_in_a_name_is_html_or_a_template(site: Replica) -> None:
    tab = site.tab().load()
    tab.call("save", HOSTILE)
    (file,) = of(site, tab).listed()
    service = site.attachment.service
    row = module._row(file, service, owner_of(tab), "")
    html = module._piece(
        "files", rows=[row], total=1, size=1, used=1, most=None, now=site.store.now(), zip=ZIP
    )
    assert "<script>" not in html
    assert not set(html) & set("{}$`")
    assert "\u202e" not in html
    assert "\\u202egnp.<script>" in unescape(html)


def test_an_app_without_the_store_is_told_so(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "store") as store:
        handlers = module._Handlers(store, 1)
        with pytest.raises(SettingsError, match="not attached"):
            handlers.refresh(gr.Request())


def test_rows_below_one_are_refused(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "store") as store, pytest.raises(ValueError, match="rows=0"):
        my_files(store, rows=0)


# In a browser


@pytest.fixture(scope="module")
def browser(chromium_path: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=[*FLAGS])
        yield patient(browser)
        browser.close()


def several(request: gr.Request) -> None:
    for number in range(12):
        session(request).put(f"{number}.txt", f"text {number}".encode())
    session(request).put(HOSTILE, b"hostile")


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, SessionStore]]:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    limits = Limits(max_owner=10**6)
    store = SessionStore.open(tmp_path / "store", limits=limits, audit=tmp_path / "audit.jsonl")
    with closed_loops(), store:
        with gr.Blocks(analytics_enabled=False) as app:
            with gr.Tab("App"):
                gr.Button("Make").click(several)
            with gr.Tab("My files"):
                my_files(store)
        attachment = attach(app, store)
        with launched(app) as url:
            yield url, store
        attachment.detach()


@pytest.mark.browser
@pytest.mark.parametrize("width", [1440, 390])
def test_a_visitor_looks_fetches_and_deletes(
    served: tuple[str, SessionStore], browser: Browser, width: int
) -> None:
    url, store = served
    with browser.new_context(viewport={"width": width, "height": 800}) as context:
        page = context.new_page()
        page.goto(url)
        page.get_by_role("tab", name="My files").click()
        page.get_by_text("Nothing of yours is kept here.").wait_for()
        page.get_by_role("tab", name="App").click()
        page.get_by_role("button", name="Make").click()
        shows(page, store, 13)

        fits = "width => document.documentElement.scrollWidth <= width"
        page.wait_for_function(fits, arg=width)  # it may still be laid out again
        view_a_text(page)
        fetch_all(page)
        delete_one(page)
        receipt = delete_everything(page, Path(store.audit.path) if store.audit else Path())
        assert receipt["files"] == 12
    assert [each for each in store.sessions() if each.files()] == []


@pytest.mark.browser
def test_in_the_first_tab_the_list_is_there_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, browser: Browser
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    with closed_loops(), SessionStore.open(tmp_path / "store") as store:
        with gr.Blocks(analytics_enabled=False) as app:
            with gr.Tab("My files"):
                my_files(store)
            with gr.Tab("App"):
                gr.Markdown("The app.")
        attachment = attach(app, store)
        with launched(app) as url, browser.new_context() as context:
            page = context.new_page()
            page.goto(url)
            page.get_by_text("Nothing of yours is kept here.").wait_for()
        attachment.detach()


def shows(page: Page, store: SessionStore, count: int) -> None:
    """Open the tab until it has the event's files."""
    while sum(len(each.files()) for each in store.sessions()) < count:
        page.wait_for_timeout(50)
    page.get_by_role("tab", name="My files").click()
    page.get_by_text(f"{count} files").wait_for()


def view_a_text(page: Page) -> None:
    row = page.locator("tr:visible", has_text=".txt").first
    name = row.locator("bdi").inner_text()
    row.get_by_role("button", name="View").click()
    shown = page.locator("dialog[open] pre")
    shown.get_by_text(f"text {name.removesuffix('.txt')}", exact=True).wait_for()
    page.keyboard.press("Escape")
    page.locator("dialog[open]").wait_for(state="hidden")


def fetch_all(page: Page) -> None:
    with page.expect_download() as download:
        page.get_by_text("Download all (zip)").click()
    with zipfile.ZipFile(download.value.path()) as bundle:
        assert bundle.read("7.txt") == b"text 7"
        assert len(bundle.namelist()) == 13


def delete_one(page: Page) -> None:
    row = page.locator("tr:visible", has_text=".txt").first
    row.get_by_role("button", name=re.compile("^Delete ")).first.click()
    row.get_by_role("button", name="Keep").click()
    row.get_by_role("button", name=re.compile("^Delete ")).first.click()
    row.get_by_role("button", name="Delete now").click()
    page.get_by_text("Deleted 1 file").wait_for()
    page.get_by_text("12 files").wait_for()


def delete_everything(page: Page, log: Path) -> dict[str, Any]:
    page.get_by_role("button", name="Delete all", exact=True).click()
    page.get_by_role("button", name="Delete all now").click()
    page.get_by_text("Deleted 12 files").wait_for()
    page.get_by_text("Nothing of yours is kept here.").wait_for()
    link = page.get_by_text("Download receipt").get_attribute("href") or ""
    receipt: dict[str, Any] = json.loads(base64.b64decode(link.partition(",")[2]))
    assert receipt["receipt"] in log.read_text()
    return receipt
