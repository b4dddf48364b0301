"""The functions that a put of five bytes runs through on a local disk: ``pytest -s`` prints them.

A reader who wants to follow a put must open them all. ``MOST`` has the present numbers: lower them
when the path gets shorter.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from sessionstore import SessionStore

pytestmark = pytest.mark.skipif(
    not hasattr(os, "O_TMPFILE"), reason="only where files can be made without a name"
)

ROOT = Path(__file__).resolve().parents[2]

NEW, KNOWN, REPLACED = "new content", "known content", "a replaced file"

MOST = {NEW: (41, 10), KNOWN: (43, 10), REPLACED: (67, 11)}
"""By kind of put: the most functions, and the most files that have them."""


def path_of(call: Callable[[], object]) -> list[tuple[str, str]]:
    """Return the file and name of each function of the product that ``call`` runs through."""
    seen: dict[tuple[str, str], None] = {}

    def note(frame: FrameType, event: str, _arg: object) -> None:
        code = frame.f_code
        file = Path(os.path.realpath(code.co_filename)) if event == "call" else Path()
        if file.is_relative_to(ROOT / "sessionstore") or file.is_relative_to(ROOT / "backends"):
            seen[str(file.relative_to(ROOT)), code.co_qualname] = None

    before = sys.getprofile()
    gc.disable()  # a finalizer of another object would be counted
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
        gc.enable()
    return list(seen)


@pytest.mark.parametrize("kind", MOST)
def test_a_put_runs_through_few_functions_of_few_files(kind: str, tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "store") as store:
        session = store.session("alice")
        session.put("first.txt", b"hello")
        name = "first.txt" if kind == REPLACED else "second.txt"
        content = b"hello" if kind == KNOWN else b"other"

        path = path_of(lambda: session.put(name, content))

        assert session.read(name) == content
    files = {file for file, _ in path}
    sys.stdout.write(f"\n{kind}: {len(path)} functions in {len(files)} files\n")
    sys.stdout.writelines(f"    {file:40} {function}\n" for file, function in path)
    functions_allowed, files_allowed = MOST[kind]
    assert len(path) <= functions_allowed
    assert len(files) <= files_allowed


def test_a_longer_path_is_seen() -> None:
    path = path_of(lambda: SessionStore.open("memory://").close())

    assert ("sessionstore/store.py", "SessionStore.open") in path
    assert ("backends/memory.py", "MemoryBackend.close") in path


def test_the_bytes_of_a_spool_can_be_read_more_than_once(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path / "s") as store:
        spool = store.backend.spool()
        try:
            spool.write(b"one")
            spool.write(b"two")
            assert [b"".join(spool.chunks()) for _ in range(2)] == [b"onetwo"] * 2
        finally:
            spool.close()
