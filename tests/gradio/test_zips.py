"""The zip of a visitor's files: its names, and that it is made while it is sent."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionstore import Corrupted, FileNotStored
from sessionstore.adapters.zips import Entry, Names, zipped
from tests.support.hostile import HOSTILE

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
MIB = 1 << 20


def entry(name: str, data: bytes = b"bytes") -> Entry:
    return Entry(name, len(data), NOW, lambda: io.BytesIO(data))


def unpacked(*entries: Entry) -> zipfile.ZipFile:
    bundle = zipfile.ZipFile(io.BytesIO(b"".join(zipped(entries))))
    assert bundle.testzip() is None
    return bundle


NAMES = st.lists(
    st.one_of(
        st.sampled_from(["a", "a/b", "A", "a/b/c", "a (2)", "x.", "x", "con.txt", "é", "é"]),
        st.text(min_size=1, max_size=30),
    ),
    max_size=30,
)


@given(NAMES)
def test_no_two_paths_are_one_file_or_a_file_and_a_folder_on_any_system(names: list[str]) -> None:
    made = Names()
    paths = [made.path(name) for name in names]
    files = {path.casefold() for path in paths}
    folders = {
        "/".join(path.split("/")[:n]) for path in files for n in range(1, path.count("/") + 1)
    }
    assert len(files) == len(paths)
    assert not files & folders


@given(st.one_of(st.sampled_from(HOSTILE), st.text(min_size=1, max_size=300)))
def test_a_path_stays_below_the_folder_and_is_one_on_windows_too(name: str) -> None:
    path = Names().path(name)
    assert not path.startswith("/")
    for part in path.split("/"):
        assert part
        assert not set(part) & set('<>:"|?*\\\0')
        assert not part.startswith(".")
        assert not part.endswith((".", " "))
        assert len(part) <= 130


@pytest.mark.parametrize("name", ["../../up", "..\\..\\up", "/etc/passwd", "C:\\x", "a/../../b"])
def test_an_unpacked_zip_has_no_file_outside_its_folder(name: str, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    unpacked(entry(name)).extractall(inside)
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(found) == 1
    assert found[0].is_relative_to(inside)


def test_equal_names_get_numbers_before_their_suffix() -> None:
    names = unpacked(*(entry("cat.png") for _ in range(3))).namelist()
    assert names == ["cat.png", "cat (2).png", "cat (3).png"]


def test_ten_thousand_equal_names_take_no_time() -> None:
    made = Names()
    assert [made.path("a") for _ in range(10_000)][-1] == "a (10000)"


def test_a_file_that_is_gone_is_left_out() -> None:
    def gone() -> BinaryIO:
        raise FileNotStored("a")

    bundle = unpacked(Entry("a", 5, NOW, gone), entry("b"))
    assert bundle.namelist() == ["b"]


def test_after_an_error_in_the_middle_it_is_no_whole_zip() -> None:
    class Bad(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise Corrupted("Other bytes.")

    sent: list[bytes] = []
    with pytest.raises(Corrupted):
        sent.extend(zipped([entry("a"), Entry("b", 5, NOW, Bad)]))
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(b"".join(sent)))


def test_sizes_beyond_four_gigabytes_have_their_fields() -> None:
    large = Entry("large", 5 << 30, NOW, lambda: io.BytesIO(b"fewer bytes than it says"))
    assert unpacked(large).read("large") == b"fewer bytes than it says"


def test_the_memory_is_that_of_a_chunk() -> None:
    class Zeros(io.RawIOBase):
        left = 64 * MIB

        def read(self, size: int = -1) -> bytes:
            size = min(size, self.left)
            self.left -= size
            return bytes(size)

    tracemalloc.start()
    total = sum(map(len, zipped([Entry("zeros", 64 * MIB, NOW, Zeros)])))  # type: ignore[arg-type]  # as a stream
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total > 64 * MIB
    assert peak < 4 * MIB


def test_times_before_those_of_a_zip_are_its_first() -> None:
    old = Entry("old", 1, datetime(1970, 1, 1, tzinfo=UTC), lambda: io.BytesIO(b"x"))
    assert unpacked(old).infolist()[0].date_time == (1980, 1, 1, 0, 0, 0)
