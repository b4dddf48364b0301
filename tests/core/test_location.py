"""Where a store is: every way to write a place, and what each means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionstore.backend import Location
from sessionstore.settings.location import parse_url, redacted

CWD = Path("/srv/app")


def path_of(url: object) -> str:
    location, options = parse_url(url, CWD)
    assert (location.scheme, location.netloc, options) == ("file", "", {})
    return location.path


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("data", "/srv/app/data"),
        ("./data", "/srv/app/data"),
        ("../data", "/srv/app/../data"),
        ("/data", "/data"),
        (Path("data"), "/srv/app/data"),
        (Path("/data"), "/data"),
        ("file:data", "/srv/app/data"),
        ("file:./data", "/srv/app/data"),
        ("file:/data", "/data"),
        ("file:///data", "/data"),
        ("FILE:///data", "/data"),
        ("file://localhost/data", "/data"),
        ("file:///a%20b%23c%3Fd%25", "/a b#c?d%"),
        ("file:///caf%C3%A9", "/café"),
        ("a%20b?x=1#y", "/srv/app/a%20b?x=1#y"),
        (Path("s3:bucket"), "/srv/app/s3:bucket"),
        (Path("~/data"), "/srv/app/~/data"),
        ("./~/data", "/srv/app/~/data"),
        (r"C:\data", r"/srv/app/C:\data"),
    ],
)
def test_a_local_directory(written: object, path: str) -> None:
    assert path_of(written) == path


def test_a_tilde_in_text_is_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")

    assert path_of("~/data") == "/home/someone/data"


def test_bytes_that_are_no_utf8_are_kept() -> None:
    assert os.fsencode(path_of("file:///%FF")) == b"/\xff"


def test_the_url_of_a_directory_is_whole() -> None:
    assert parse_url("a b", CWD)[0].url == "file:///srv/app/a%20b"


@pytest.mark.skipif(os.name == "nt", reason="as_uri() and paths of Windows are other ones")
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_a_path_and_its_file_url_are_the_same_place(text: str) -> None:
    path = Path("/") / text

    assert parse_url(path.as_uri(), CWD) == parse_url(path, CWD)


def test_any_other_url_is_taken_apart() -> None:
    location, options = parse_url(
        "S3://key:pass@bucket/a%20b/c?endpoint=http%3A%2F%2Fx%3A1&n=+1", CWD
    )

    assert location == Location("S3://***@bucket/a%20b/c", "s3", "key:pass@bucket", "/a b/c")
    assert options == {"endpoint": "http://x:1", "n": " 1"}


def test_a_file_url_may_have_options() -> None:
    location, options = parse_url("file:data?durable=true", CWD)

    assert (location.path, options) == ("/srv/app/data", {"durable": "true"})


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ("", "it is empty"),
        (" ", "it is empty"),
        (" data", "without surrounding blanks"),
        ("da\nta", "control characters"),
        ("da\0ta", "control characters"),
        (Path("da\0ta"), "NUL"),
        ("file:///a%00b", "NUL"),
        (5, "give a URL as text, or a path"),
        (b"data", "give a URL as text, or a path"),
        ("file:", "name a directory"),
        ("file://", "name a directory"),
        ("file:?a=1", "name a directory"),
        ("file://data/app", "file:///data/app, or none before a relative one, file:data/app"),
        ("s3:bucket", "s3://..."),
        ("memory:", "memory://..."),
        ("s3://bucket/#1", "write # as %23"),
        ("file:///a#1", "write # as %23"),
        ("s3://[bucket", "Invalid IPv6 URL"),
        ("s3://bucket?a", "option=value"),
        ("s3://bucket?a=%FF", "option=value"),
        ("s3://bucket?a=1&a=2", "each option stands once"),
    ],
)
def test_what_is_refused_comes_with_what_would_be_right(written: object, remedy: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_url(written, CWD)

    assert remedy in str(caught.value)


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1))
def test_a_password_is_never_shown(password: str) -> None:
    """However it is written: people paste them without percent-encoding."""
    url = f"s3://user:{password}@bucket/prefix"

    assert redacted(url) in {"s3://***@bucket/prefix", "s3://***"}


@pytest.mark.parametrize("url", ["s3://bucket/a@b", "file:///a:b@c", "s3://bucket/a:b@c"])
def test_an_at_sign_in_the_path_is_shown(url: str) -> None:
    assert redacted(url) == url
