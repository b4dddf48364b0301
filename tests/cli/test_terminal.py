"""The command line on a real terminal, and names that would speak to it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionstore import SessionStore
from sessionstore.cli.output import columns, document, documents, name, plain, short
from tests.support.cli_rig import on_a_terminal, run

TITLE = "\x1b]0;pwned\x07\x1b[2Jevil.png"
MARKUP = "[red]markup[/red] :smile:.txt"
TURNED = "photo\u202egnp.exe"

_own = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Colours and cursor moves, which our own progress and headings are made of."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with SessionStore.open(tmp_path / "store") as store:
        session = store.session("s\x1b[31m")
        for each in (TITLE, MARKUP, TURNED, "日本語.png"):
            session.put(each, b"1")
        session.put("text.txt", "red \x1b[31m and \u202e\tturned\r\nend\n".encode())
        session.put("raw", b"\xff\x00")
    return tmp_path / "store"


def sid(root: Path) -> str:
    (path,) = (root / "sessions").iterdir()
    return path.name


def test_a_table_has_a_heading_aligned_columns_and_no_ones_escapes_but_ours(root: Path) -> None:
    status, shown = on_a_terminal("ls", sid(root), "-s", str(root))
    lines = _own.sub("", shown).replace("\r", "").strip().split("\n")
    assert status == 0
    assert re.split(r"\s+", lines[-7].strip()) == ["SIZE", "SAVED", "EXPIRES", "NAME"]
    assert [line.split("  ")[-1].strip() for line in lines[-6:]] == [
        r"\x1b]0;pwned\x07\x1b[2Jevil.png", MARKUP, r"photo\u202egnp.exe", "raw", "text.txt",
        "日本語.png",
    ]  # fmt: skip
    assert "\x1b]" not in shown
    assert "\x07" not in shown
    assert "\u202e" not in shown


def test_ids_and_owners_are_escaped_in_every_table(root: Path) -> None:
    for command in ("sessions", "du", "plan", "verify"):
        _, shown = on_a_terminal(command, "-s", str(root))
        assert "\x1b[31m" not in shown, command
    assert r"s\x1b[31m" in run("sessions", "-s", root).out


def test_text_is_shown_and_what_is_in_it_says_nothing_to_the_terminal(root: Path) -> None:
    status, shown = on_a_terminal("cat", sid(root), "text.txt", "-s", str(root))
    assert status == 0
    assert shown == "red \\x1b[31m and \\u202e    turned\\r\r\nend\r\n"


def test_bytes_are_not_shown(root: Path) -> None:
    status, shown = on_a_terminal("cat", sid(root), "raw", "-s", str(root))
    assert status == 1
    assert "not text" in shown


def test_a_sweep_asks(root: Path) -> None:
    for typed, done in ((b"n\n", "Nothing was deleted."), (b"y\n", "held.")):
        status, shown = on_a_terminal("sweep", "-s", str(root), typed=typed)
        assert status == 0
        assert "Sweep? [y/N]" in shown
        assert done in shown.rpartition("Sweep?")[2]


def test_long_work_has_a_bar_that_leaves_no_trace(root: Path, tmp_path: Path) -> None:
    big = tmp_path / "big.bin"
    big.write_bytes(bytes(8_000_000))
    status, shown = on_a_terminal("put", "x", str(big), "-s", str(root))
    assert status == 0
    assert "Saving" in shown
    assert "8.0" in shown
    assert _own.sub("", shown.split("\x1b[2K")[-1]).strip().startswith("1 file, 7.6 MiB")


def test_settings_are_wrapped_in_their_column(root: Path) -> None:
    status, shown = on_a_terminal("config", "-s", str(root), width=60)
    lines = _own.sub("", shown).replace("\r", "").split("\n")
    assert status == 0
    assert max(map(len, lines)) <= 60
    assert lines[0].split() == ["SETTING", "VALUE", "FROM"]


# Text


@settings(max_examples=50)
@given(st.text())
def test_no_text_speaks_to_a_terminal(text: str) -> None:
    assert plain(text).isprintable()
    assert name(text).isprintable()


@given(st.text(), st.text())
def test_no_two_names_look_alike(one: str, other: str) -> None:
    assert (name(one) == name(other)) == (one == other)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("plain.txt", "plain.txt"), ("a\\n", "a\\\\n"), ("a\nb", "a\\nb"), ("\x1b", "\\x1b"),
        ("\u202e", "\\u202e"), ("\U000e0001", "\\U000e0001"), ("\xa0", "\\xa0"), ("é", "é"),
        ("'\"", "'\""), ("\ud800", "\\ud800"),
    ],
)  # fmt: skip
def test_how_a_name_is_written(text: str, written: str) -> None:
    assert name(text) == written


def test_a_long_name_is_cut_in_the_middle() -> None:
    assert short("a" * 30 + "b" * 30) == "a" * 23 + "…" + "b" * 23
    assert short(None) == "-"


def test_columns_are_as_wide_as_a_terminal_shows_them() -> None:
    assert list(columns(["A", "B"], [("日本", "1"), ("x", "22")], "lr")) == [
        "A      B", "日本   1", "x     22"
    ]  # fmt: skip


def test_json_is_ascii_and_streams() -> None:
    assert document({"a": "\u202e\x1b"}) == r'{"a": "\u202e\u001b"}'
    assert "".join(documents(iter([]))) == "[]\n"
    assert "".join(documents(iter([1, "é"]))) == '[\n  1,\n  "\\u00e9"\n]\n'
