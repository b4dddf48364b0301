"""The Content-Disposition of a file."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionstore.disposition import INLINE, disposition
from sessionstore.media import TYPES, media_type


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
def test_value(name: str, value: str) -> None:
    assert disposition(name, media_type(name)) == value


@given(st.text(min_size=1))
def test_any_name_makes_a_header_that_says_it(name: str) -> None:
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
