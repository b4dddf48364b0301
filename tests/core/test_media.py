"""Media types: from our own table, whatever the machine says."""

from __future__ import annotations

import mimetypes
import re

import pytest

from sessionstore.media import TYPES, UNKNOWN, media_type


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
