"""Media types, from our own table whatever the machine says, and the Content-Disposition."""

from __future__ import annotations

import mimetypes
import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionstore.media import INLINE, TYPES, UNKNOWN, disposition, media_type


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat.png", "image/png"), ("cat.PNG", "image/png"), ("cat.jpeg", "image/jpeg"),
        ("cat.webp", "image/webp"), ("a.wav", "audio/wav"), ("a.mp4", "video/mp4"),
        ("a.json", "application/json"), ("a.txt", "text/plain"), ("a.tar.gz", "application/gzip"),
        ("frames/0001.png", "image/png"), (".png", "image/png"), ("a.svg", "image/svg+xml"),
    ],
)  # fmt: skip
def test_the_last_extension_decides(name: str, expected: str) -> None:
    assert media_type(name) == expected


@pytest.mark.parametrize(
    "name", ["cat", "cat.", "cat.unknown", "v1.0/cat", "png", "a.png/b", "a.png ", "a.pn\u0261"]
)
def test_anything_else_is_just_bytes(name: str) -> None:
    assert media_type(name) == UNKNOWN == "application/octet-stream"


def test_the_machine_s_table_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mimetypes, "guess_type", lambda *_: ("text/evil", None))
    assert media_type("a.cat") == UNKNOWN


def test_the_table_is_in_order_and_well_formed() -> None:
    assert list(TYPES) == sorted(TYPES)
    assert all(re.fullmatch(r"[a-z0-9]+", extension) for extension in TYPES)
    assert all(re.fullmatch(r"[a-z]+/[a-z0-9.+-]+", each) for each in TYPES.values())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cat.png", 'inline; filename="cat.png"'),
        ("a/b/cat.png", 'inline; filename="cat.png"'),
        ("notes.txt", 'inline; filename="notes.txt"'),
        ("page.html", 'attachment; filename="page.html"'),
        ("drawing.svg", 'attachment; filename="drawing.svg"'),
        ("letter.pdf", 'attachment; filename="letter.pdf"'),
        ("data", 'attachment; filename="data"'),
        ("é €.png", "inline; filename=\"_ _.png\"; filename*=UTF-8''%C3%A9%20%E2%82%AC.png"),
        ('a"b\\c.png', "inline; filename=\"a_b_c.png\"; filename*=UTF-8''a%22b%5Cc.png"),
        ("50%.png", "inline; filename=\"50_.png\"; filename*=UTF-8''50%25.png"),
        ("a\r\nB: c", "attachment; filename=\"a__B: c\"; filename*=UTF-8''a%0D%0AB%3A%20c"),
    ],
)
def test_disposition(name: str, value: str) -> None:
    assert disposition(name, media_type(name)) == value


@given(st.text(min_size=1))
def test_any_name_makes_a_disposition_that_says_it(name: str) -> None:
    value = disposition(name, "image/png")
    plain, extended = r"[ !#$&-\[\]-~]*", r"[A-Za-z0-9!#$&+.^_`|~%-]+"
    match = re.fullmatch(
        f"inline; filename=\"({plain})\"(?:; filename\\*=UTF-8''({extended}))?", value
    )
    assert match is not None
    said = match[1] if match[2] is None else unquote(match[2], errors="strict")
    assert said == name.rpartition("/")[2].encode(errors="replace").decode()


def test_nothing_that_scripts_run_in_is_shown() -> None:
    assert set(TYPES.values()) >= INLINE
    assert not [it for it in INLINE if re.search("html|xml|svg|script|pdf|octet", it)]
