"""Signed URLs: what opens them, and that nothing else does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionstore.errors import InvalidName
from sessionstore.names import file_name, session_key
from sessionstore.signing import opens, sign
from tests.support.hostile import HOSTILE, label

SECRET = b"correct horse battery staple"
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
SOON = NOW + timedelta(minutes=5)
SID = session_key("alice", "alice@example.org").sid
OTHER = session_key("bob").sid


def test_opens_what_was_signed() -> None:
    assert opens(SECRET, sign(SECRET, SID, "frames/1.png", SOON), NOW) == (SID, "frames/1.png")


def test_is_a_plain_relative_path() -> None:
    path = sign(SECRET, SID, "a b/ü.png", SOON)
    assert path.endswith("/a%20b/%C3%BC.png")
    assert path.isascii()


@pytest.mark.parametrize("name", HOSTILE, ids=label)
def test_every_legal_name_opens_as_itself(name: str) -> None:
    try:
        name = file_name(name)
    except InvalidName:
        return
    path = sign(SECRET, SID, name, SOON)
    assert opens(SECRET, path, NOW) == (SID, name)
    assert not set(path) & set('?#\\"<> \n\r\t')


@pytest.mark.parametrize("left", [timedelta(0), timedelta(microseconds=1), timedelta(days=1000)])
def test_opens_until_its_time_and_not_after(left: timedelta) -> None:
    path = sign(SECRET, SID, "a", SOON)
    moment = SOON - left
    assert opens(SECRET, path, moment) == ((SID, "a") if left else None)
    assert opens(SECRET, path, SOON + left) is None


def test_a_fraction_of_a_second_is_not_cut_off() -> None:
    path = sign(SECRET, SID, "a", NOW + timedelta(milliseconds=500))
    assert opens(SECRET, path, NOW + timedelta(milliseconds=499)) == (SID, "a")


def test_another_secret_does_not_open_it() -> None:
    assert opens(b"another secret", sign(SECRET, SID, "a", SOON), NOW) is None


def test_the_signature_binds_session_name_and_time() -> None:
    until, sid, signature = sign(SECRET, SID, "a", SOON).removesuffix("/a").split(".")
    later = f"{int(until, 16) + 1:x}"
    forged = [
        f"{until}.{sid}.{signature}/b",
        f"{until}.{sid}.{signature}/a/",
        f"{until}.{sid}.{signature}/",
        f"{until}.{OTHER}.{signature}/a",
        f"{later}.{sid}.{signature}/a",
        f"0{until}.{sid}.{signature}/a",
        f"{until}.{sid}.{signature[:-1]}/a",
        f"{until}.{sid}.{signature}0/a",
        f"{until}.{sid}.{signature.upper()}/a",
        f"{until}.{sid}./a",
        f"{until}.{sid}/a",
        f"{until}.{sid}.{signature}.x/a",
    ]
    assert [path for path in forged if opens(SECRET, path, NOW)] == []


@given(st.data())
def test_no_changed_character_opens(data: st.DataObject) -> None:
    path = sign(SECRET, SID, "frames/1.png", SOON)
    at = data.draw(st.integers(0, len(path) - 1))
    char = data.draw(st.characters().filter(lambda char: char != path[at]))
    assert opens(SECRET, path[:at] + char + path[at + 1 :], NOW) is None


@given(st.text(st.characters(exclude_categories=[])))
def test_nothing_else_opens_or_fails(path: str) -> None:
    assert opens(SECRET, path, NOW) is None


@pytest.mark.parametrize("path", HOSTILE, ids=label)
def test_hostile_paths_open_nothing(path: str) -> None:
    token = sign(SECRET, SID, "a", SOON).removesuffix("/a")
    for attempt in (path, quote(path, errors="surrogatepass"), f"{token}/{path}", f"{path}/a"):
        assert opens(SECRET, attempt, NOW) in {None, (SID, "a")}
        assert path == "a" or opens(SECRET, attempt, NOW) is None


def test_lone_surrogates_open_nothing() -> None:
    token, sid = sign(SECRET, SID, "a", SOON).split("/")[0], SID
    paths = [f"{token}/\udcff", f"{token}/\ud800", f"1.{sid}.\ud800/a", "\ud800.x.y/a"]
    assert [opens(SECRET, path, NOW) for path in paths] == [None] * 4


def test_the_token_has_no_digest_of_content() -> None:
    once, again = (sign(SECRET, SID, "a", SOON) for _ in range(2))
    assert once == again
