"""What a client can do to other visitors' files with what it can know or guess: nothing.

A session id is chosen by the client, travels in URLs and is to be taken as known to everybody.
Each attack below deletes or shows files in an app that goes by the session id alone, as Gradio's
own clean-up guide does.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request

from sessionstore import InvalidName
from sessionstore.adapters import cookies
from tests.support.gradio_rig import GRADIO_S_OWN, LINGER, SERVED, MakeSite, Site, Tab, sites
from tests.support.hostile import HOSTILE

pytestmark = GRADIO_S_OWN

AUTH = [("anna", "a"), ("boris", "b")]


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[MakeSite]:
    with sites(tmp_path / "cache") as make:
        yield make


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    return make_site()


def all_told(site: Site) -> None:
    """Return when the store has been told all that there is to tell; then let time pass."""
    site.attach().detach()
    site.clock.advance(2 * LINGER)
    site.store.sweep()


def forge(site: Site, victim: Tab, **options: object) -> Tab:
    """A client that knows the victim's session id, and nothing else."""
    return site.tab(victim.url, session_hash=victim.session_hash, **options)


# Unloads


@pytest.mark.parametrize("how", SERVED)
@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("has_cookie", [False, True])
def test_a_forged_unload_deletes_nothing(
    site: Site, how: str, *, has_cookie: bool, is_open: bool
) -> None:
    victim = site.tab(site.serve(how))
    victim.get("/")
    if is_open:
        victim.beat()
    victim.call("save", "file")
    forger = forge(site, victim)
    if has_cookie:
        forger.get("/")

    for _ in range(3):
        forger.beat().close()
    all_told(site)

    assert site.files() == {victim.session_hash: ["file"]}


def test_a_forger_gets_nowhere_by_saving_first(site: Site) -> None:
    """Having a session of the victim's id is no step towards the victim's session."""
    victim = site.tab(site.serve()).load()
    victim.call("save", "file")
    forger = forge(site, victim).load()

    forger.call("save", "forged")
    forger.close()
    all_told(site)

    assert site.files() == {victim.session_hash: ["file"]}


def test_nobody_reads_or_overwrites_by_the_id(site: Site) -> None:
    victim = site.tab(site.serve()).load()
    victim.call("save", "file")
    forger = forge(site, victim).load()

    seen = forger.call("names")
    forger.call("save", "file")
    file = next(each for each in site.store.sessions() if each.files()).get("file")

    assert seen == ""
    assert victim.call("names") == "file"
    assert file.read() == b"file"


def test_a_forged_heartbeat_does_not_keep_a_session_alive(make_site: MakeSite) -> None:
    site = make_site()
    victim = site.tab(site.serve()).load()
    victim.call("save", "file")
    forge(site, victim).beat()

    victim.close()
    all_told(site)

    assert site.files() == {}


@pytest.mark.parametrize("id_", ["CON", "%252e%252e", "nobody", "..%255c", "a b", "🎈"])
def test_an_unload_of_an_id_that_nobody_used_does_nothing(site: Site, id_: str) -> None:
    victim = site.tab(site.serve()).load()
    victim.call("save", "file")

    site.tab(victim.url, session_hash=id_).beat().close()
    all_told(site)

    assert site.files() == {victim.session_hash: ["file"]}


# Apps with a login


def test_with_a_login_the_owner_is_the_login_name(site: Site) -> None:
    anna = site.tab(site.serve(auth=AUTH)).log_in("anna", "a").load()

    anna.call("save", "file")

    assert [each.owner for each in site.store.sessions()] == ["anna"]
    assert len(anna.client.cookies) == 2  # both of them Gradio's


@pytest.mark.parametrize("how", SERVED)
@pytest.mark.parametrize("log_in", [None, ("boris", "b")])
def test_with_a_login_a_forged_unload_deletes_nothing(
    site: Site, how: str, log_in: tuple[str, str] | None
) -> None:
    """Gradio's heartbeat route answers, and runs ``unload``, without any login."""
    url = site.serve(how, auth=AUTH)
    anna = site.tab(url).log_in("anna", "a").load()
    anna.call("save", "file")
    forger = forge(site, anna, cookies=httpx.Cookies({"sessionstore": "A" * 43}))
    if log_in is not None:
        forger.log_in(*log_in)

    forger.beat().close()
    all_told(site)

    assert site.files() == {anna.session_hash: ["file"]}


def test_with_a_login_a_heartbeat_without_it_counts_for_nothing(site: Site) -> None:
    url = site.serve(auth=AUTH)
    presences = site.attach().service.presences

    site.tab(url, cookies=httpx.Cookies({"sessionstore": "A" * 43})).beat()

    assert not presences._visitors


def test_with_a_login_a_page_that_closes_still_ends_its_session(site: Site) -> None:
    anna = site.tab(site.serve(auth=AUTH)).log_in("anna", "a").load()
    anna.call("save", "file")

    anna.close()
    all_told(site)

    assert site.files() == {}


def test_an_owner_by_cookie_is_never_an_owner_by_login() -> None:
    by_cookie = cookies.owner(a_request(cookie=f"sessionstore={'A' * 43}"))
    assert by_cookie is not None

    logins = ["anna", by_cookie, cookies.of_login(by_cookie), "login-anna", "visitor-", "login-"]
    owners = [cookies.of_login(name) for name in logins]

    assert by_cookie not in owners
    assert len(set(owners)) == len(logins)


# The cookie


def a_request(cookie: str = "", scheme: str = "http", forwarded: str = "") -> Request:
    headers = {"cookie": cookie, "x-forwarded-proto": forwarded}
    raw = [(name.encode(), value.encode()) for name, value in headers.items() if value]
    return Request({"type": "http", "scheme": scheme, "headers": raw})


def test_the_page_brings_a_random_owner_that_scripts_cannot_read(site: Site) -> None:
    url = site.serve()

    cookies = [site.tab(url).get(path).headers["set-cookie"] for path in ("/", "/", "/config")]

    assert len(set(cookies)) == 3
    form = re.compile(r"sessionstore=[\w-]{43}~?; Path=/; HttpOnly; SameSite=Lax")
    assert all(form.fullmatch(cookie) for cookie in cookies)


def test_a_page_with_an_owner_in_it_is_not_for_shared_caches(site: Site) -> None:
    assert "private" in site.tab(site.serve()).get("/").headers["cache-control"]


def test_https_has_a_cookie_that_works_in_a_frame_and_that_no_sibling_can_plant(
    site: Site,
) -> None:
    tab = site.tab(site.serve(), headers={"x-forwarded-proto": "https,http"})

    cookie = tab.get("/").headers["set-cookie"]

    assert re.fullmatch(
        r"__Host-sessionstore=[\w-]{43}; Path=/; HttpOnly; Secure; SameSite=None; Partitioned",
        cookie,
    )


def test_a_cookie_counts_only_when_the_request_brought_it(site: Site) -> None:
    """The request that is given a cookie has no owner yet: the next one has."""
    tab = site.tab(site.serve())

    first, again = tab.get("/"), tab.get("/")

    assert "set-cookie" in first.headers
    assert "set-cookie" not in again.headers


@pytest.mark.parametrize("path", ["/theme.css", "/gradio_api/info", "/no-such-page"])
def test_only_pages_bring_a_cookie(site: Site, path: str) -> None:
    """A cookie that came later would split a visitor's session in two."""
    assert "set-cookie" not in site.tab(site.serve()).get(path).headers


@pytest.mark.parametrize(
    ("scheme", "forwarded", "cookie"),
    [
        ("https", "", f"sessionstore={'A' * 43}"),
        ("http", "https", f"sessionstore={'A' * 43}"),
        ("http", "", f"__Host-sessionstore={'A' * 43}"),
        ("http", "", "sessionstore="),
        ("http", "", "sessionstore=anna"),
        ("http", "", f"sessionstore={'A' * 44}"),
        ("http", "", f"sessionstore={'A' * 42}\u00e4"),
        ("http", "", f"other={'A' * 43}"),
        ("http", "", ""),
    ],
)
def test_other_cookies_are_no_owner(scheme: str, forwarded: str, cookie: str) -> None:
    assert cookies.owner(a_request(cookie, scheme, forwarded)) is None


def test_what_is_stored_of_a_cookie_does_not_open_anything(site: Site) -> None:
    """A listing, an event or a backup shows owners; none of them is the cookie."""
    tab = site.tab(site.serve()).load()
    tab.call("save", "file")

    (stored,) = (each.owner for each in site.store.sessions())

    assert stored is not None
    assert tab.client.cookies["sessionstore"] not in stored


# Ids


def test_hostile_ids_are_refused_or_stay_inside_the_store(
    make_site: MakeSite, tmp_path: Path
) -> None:
    root = tmp_path / "store"
    site = make_site(root.as_uri())
    url = site.serve()
    kept = []

    for id_ in HOSTILE[::12]:
        with contextlib.suppress(InvalidName):
            site.store.session(id_, None)
            site.tab(url, session_hash=id_).call("save", "file")
            kept.append(id_)

    sessions = root / "sessions"
    assert sorted(site.files()) == sorted(kept)
    assert len(list(sessions.iterdir())) == len(kept) + 1  # which cache directory there is
    assert {path.name for path in tmp_path.iterdir()} == {"store", "cache"}


def test_an_impossible_id_is_an_error_of_its_own_event_only(site: Site) -> None:
    url = site.serve(show_error=True)

    with pytest.raises(RuntimeError, match="session id"):
        site.tab(url, session_hash="x" * 5000).call("save", "file")
    neighbour = site.tab(url).load()
    neighbour.call("save", "file")

    assert site.files() == {neighbour.session_hash: ["file"]}


def test_an_id_is_not_logged(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="sessionstore")
    tab = site.tab(site.serve()).load()

    tab.call("save", "file")
    tab.close()
    all_told(site)

    assert tab.session_hash not in caplog.text
