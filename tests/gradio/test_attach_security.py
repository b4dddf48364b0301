"""What a stranger can do to the files of an attached app: read none, delete none, be served none.

A session id, a path in Gradio's cache and a stored file's path are all to be taken as known to
everybody: they stand in URLs, logs and pages. What nobody else has is a visitor's cookie or login.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
import httpx
import pytest

from sessionstore.adapters.gradio import session
from sessionstore.adapters.gradio.presence import Visitor
from tests.support.gradio_rig import GRADIO_S_OWN, LINGER, MakeReplicas, Replica, Tab, replicas

pytestmark = GRADIO_S_OWN

AUTH = [("anna", "a"), ("boris", "b")]
SECRET = b"the victim's file"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeReplicas]:
    with replicas(tmp_path) as make:
        yield make


@pytest.fixture
def site(make: MakeReplicas) -> Replica:
    return make(build)


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    """One for the tests that change nothing for one another."""
    with replicas(tmp_path_factory.mktemp("standing")) as make:
        yield make(build)


def read(path: str) -> str:
    return Path(path).read_text()


def stored(text: str, request: gr.Request) -> Any:
    return session(request).put("stored.txt", text.encode())


def read_message(message: dict[str, Any]) -> str:
    return " ".join(Path(path).read_text() for path in message["files"])


def build() -> gr.Blocks:
    made: gr.Blocks
    with gr.Blocks() as made:
        text, file = gr.Textbox(), gr.File()
        gr.on(fn=read, inputs=file, outputs=text, api_name="read")
        gr.on(fn=lambda path: path, inputs=file, outputs=gr.File(), api_name="echo")
        gr.on(fn=stored, inputs=text, outputs=gr.File(), api_name="stored")
        gr.on(fn=len, inputs=gr.Gallery(), outputs=text, api_name="look")
        gr.on(fn=read_message, inputs=gr.MultimodalTextbox(), outputs=text, api_name="message")
    return made


def victim_of(site: Replica, **options: Any) -> tuple[Tab, list[dict[str, Any]]]:
    """A visitor with an upload that is not used yet, one that is, and a stored file."""
    tab = site.tab(**options).load()
    return tab, files_of(tab)


def files_of(tab: Tab) -> list[dict[str, Any]]:
    unused, used = tab.upload("unused.txt", SECRET), tab.upload("used.txt", SECRET)
    tab.call("read", used)
    result = tab.call("stored", SECRET.decode())
    return [unused, used, {**result, "meta": {"_type": "gradio.FileData"}}]


def intact(tab: Tab, files: list[dict[str, Any]]) -> bool:
    return [tab.fetch(file).content for file in files] == [SECRET] * len(files)


def all_told(site: Replica) -> None:
    """Return when the store has been told all that there is to tell; then let time pass."""
    site.attachment.service.presences.stop()
    site.clock.advance(2 * LINGER)
    site.store.sweep()
    site.look_again()


# Sessions


def test_the_id_of_a_session_opens_none_of_its_files(site: Replica) -> None:
    tab, files = victim_of(site)
    forger = site.tab(session_hash=tab.session_hash).load()

    assert [forger.fetch(file).status_code for file in files] == [403] * 3
    for file in files:
        with pytest.raises(RuntimeError):
            forger.call("read", file)
    assert intact(tab, files)


def test_a_foreign_heartbeat_ends_nothing(site: Replica) -> None:
    tab, files = victim_of(site)
    for forger in (site.tab(session_hash=tab.session_hash), site.tab()):
        forger.session_hash = tab.session_hash
        forger.load()
        forger.close()

    all_told(site)

    assert intact(tab, files)


def test_a_heartbeat_without_login_ends_nothing_on_an_app_with_one(make: MakeReplicas) -> None:
    site = make(build, auth=AUTH)
    tab = site.tab().log_in("anna", "a").load()
    files = files_of(tab)
    stranger = site.tab(session_hash=tab.session_hash)

    stranger.beat().close()
    all_told(site)

    assert intact(tab, files)
    assert [stranger.fetch(file).status_code for file in files] == [401] * 3
    other = site.tab(session_hash=tab.session_hash).log_in("boris", "b")
    assert [other.fetch(file).status_code for file in files] == [403] * 3


def test_a_thousand_forged_unloads_delete_nothing_and_cost_a_handful_of_calls(
    site: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab, files = victim_of(site)
    presences = site.attachment.service.presences
    calls: list[str] = []
    for verb in ("end", "resume", "touch"):
        real = getattr(site.store.backend, verb)

        def counting(sid: str, real: Any = real) -> None:
            calls.append(sid)
            real(sid)

        monkeypatch.setattr(site.store.backend, verb, counting)

    for number in range(1000):
        forged = Visitor(tab.session_hash if number % 2 else f"forged-{number}", None)
        presences.opened(forged)
        presences.closed(forged, left=True)
    all_told(site)

    assert intact(tab, files)
    assert len(calls) < 200


# Paths


@pytest.mark.parametrize("api_name", ["read", "echo"])
def test_another_visitor_s_path_is_no_input(site: Replica, api_name: str) -> None:
    """Also when the file lies on this replica's disk, where Gradio itself would take it."""
    tab, files = victim_of(site)
    stranger = site.tab().load()

    for file in files:
        assert Path(file["path"]).is_file()
        with pytest.raises(RuntimeError):
            stranger.call(api_name, file)

    assert intact(tab, files)


def test_another_visitor_s_path_is_no_input_deep_inside_one(site: Replica) -> None:
    _, files = victim_of(site)
    stranger = site.tab().load()

    for file in files:
        with pytest.raises(RuntimeError):
            stranger.call("message", {"text": "", "files": [file]})
        with pytest.raises(RuntimeError):
            stranger.call("look", [{"image": file, "caption": None}])


@pytest.mark.parametrize("alias", ["/{path}", "/proc/self/root{path}", "{link}/{below}"])
def test_another_visitor_s_file_is_not_there_by_another_way_either(
    site: Replica, tmp_path: Path, alias: str
) -> None:
    """Gradio follows links, and two leading slashes, before it looks whether a path is allowed."""
    tab, files = victim_of(site)
    stranger = site.tab().load()
    link = tmp_path / "link"
    link.symlink_to(site.cache)

    for file in files:
        below = Path(file["path"]).relative_to(site.cache)
        path = alias.format(path=file["path"], link=link, below=below)
        assert Path(path).read_bytes() == SECRET  # as a handler and Gradio would

        assert stranger.fetch({"path": path}).status_code == 403
        with pytest.raises(RuntimeError):
            stranger.call("read", {**file, "path": path})

    assert intact(tab, files)


def test_a_stored_file_s_path_cannot_be_made_up(site: Replica) -> None:
    tab, files = victim_of(site)
    path = files[2]["path"]
    head, proof, name = path.rsplit("/", 2)
    forged = [
        f"{head}/{'0' * 32}/{name}",
        f"{head}/{proof[::-1]}/{name}",
        f"{head}x/{proof}/{name}",
        f"{head}/{proof}",
        f"{head}/../{Path(head).name}/{proof}x/{name}",
        f"{Path(head).parent}/%2e%2e/{proof}/{name}",
    ]

    assert [tab.fetch({"path": each}).status_code for each in forged] == [403] * len(forged)


def test_a_path_says_nothing_about_what_is_there(site: Replica) -> None:
    """Foreign, missing and impossible paths get the same answer."""
    _, files = victim_of(site)
    stranger = site.tab().load()
    paths = [
        *(file["path"] for file in files),
        f"{site.cache}/{'0' * 64}/missing.txt",
        f"{site.cache}/{'0' * 64}/{'x' * 400}",
        f"{site.cache}/tmpabcd1234",
    ]

    answers = [stranger.fetch({"path": path}) for path in paths]

    assert {each.status_code for each in answers} == {403}
    told = {
        str(each.json()).replace(path, "PATH") for each, path in zip(answers, paths, strict=True)
    }
    assert len(told) == 1
    headers = [{k: v for k, v in each.headers.items() if k != "date"} for each in answers]
    assert all(set(each) == set(headers[0]) for each in headers)


@pytest.mark.parametrize(
    "way",
    ["{c}/../store/secret", "{c}/..%2fstore/secret", "{c}/%2e%2e/store/secret", "/etc/passwd",
     "{c}/{h}/../../store/secret", "{c}\\..\\store\\secret", "{c}/./../store/layout",
     "{c}//../store/secret", "../store/secret", "{c}/\x00/secret", "file://{c}/../store/secret"],
)  # fmt: skip
def test_no_way_leads_out_of_the_cache(standing: Replica, way: str) -> None:
    tab, _ = victim_of(standing)
    path = way.format(c=standing.cache, h="a" * 64)

    for form in (path, quote(path), quote(quote(path))):
        request = httpx.Request("GET", tab.url, cookies=tab.cookies)
        request.url = request.url.copy_with(raw_path=f"/gradio_api/file={quote(form)}".encode())
        answer = tab.client.send(request)

        assert answer.status_code in (403, 404)
        assert SECRET not in answer.content


def test_what_gradio_is_still_writing_is_not_served(site: Replica) -> None:
    """A path below the cache is no permission, whatever lies there."""
    tab = site.tab().load()
    staging = site.cache / "tmpabcd1234"
    staging.parent.mkdir(exist_ok=True)
    staging.write_bytes(SECRET)

    assert tab.fetch({"path": str(staging)}).status_code == 403


def test_allowed_paths_above_the_cache_do_not_open_it(make: MakeReplicas, tmp_path: Path) -> None:
    site = make(build, allowed_paths=[str(tmp_path), "/"])
    tab, files = victim_of(site)

    assert [site.tab().fetch(file).status_code for file in files] == [403] * 3
    assert intact(tab, files)


def test_allowed_paths_below_the_cache_need_not_be_there_yet(
    make: MakeReplicas, tmp_path: Path
) -> None:
    site = make(build, allowed_paths=[str(tmp_path / "cache" / "later")])
    tab, files = victim_of(site)

    assert intact(tab, files)


# Content and names


@pytest.mark.parametrize("name", ["page.html", "image.svg", "page.xhtml", "code.js", "x.htm"])
def test_what_a_browser_would_run_is_a_download_without_a_type(
    standing: Replica, name: str
) -> None:
    tab = standing.tab().load()
    file = tab.upload(name, b"<script>alert(1)</script>")

    headers = tab.fetch(file).headers

    assert headers["content-disposition"].startswith("attachment")
    assert headers["content-type"] == "application/octet-stream"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "sandbox"


def test_html_under_another_name_is_not_taken_for_html(standing: Replica) -> None:
    tab = standing.tab().load()

    headers = tab.fetch(tab.upload("cat.png", b"<script>alert(1)</script>")).headers

    assert headers["content-type"] == "image/png"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "name",
    ["a\r\nSet-Cookie: x=1.txt", "a\nX-Evil: 1.txt", 'a"; filename="b.html', "a;b.txt",
     "ä\u202egnp.txt", "a%0d%0aX-Evil: 1.txt", "'.txt", "a\tb.txt", "\u2028.txt"],
)  # fmt: skip
def test_no_name_splits_a_header(standing: Replica, name: str) -> None:
    tab = standing.tab().load()
    file = tab.upload(name, SECRET)
    answer = tab.fetch({"path": quote(file["path"])})

    assert answer.status_code == 200
    assert answer.content == SECRET
    assert "x-evil" not in answer.headers
    assert "set-cookie" not in answer.headers
    assert not re.search(r"[\r\n]", answer.headers["content-disposition"])
