"""Gradio's cache directory under its cap: the least recently used go, and no folder stays."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sessionstore.adapters.gradio.cache import _AT_ONCE, CacheDir, large_to_cache
from sessionstore.model import Reference

SIZE = 10
FIT = 3 * _AT_ONCE
SID = "alice-0123456789abcdef0123456789abcdef"


@pytest.fixture
def local(tmp_path: Path) -> Iterator[CacheDir]:
    local = CacheDir(tmp_path, FIT * SIZE)
    local.leases.hold()
    yield local
    local.clear()
    local.leases.go()


def make(local: CacheDir, number: int) -> str:
    data = f"{number:0{SIZE}}".encode()
    digest = hashlib.sha256(data).hexdigest()
    saved = Reference(
        f"@/{digest}", SIZE, digest, datetime(2026, 1, 1, tzinfo=UTC), None, f"{number}"
    )
    local.make(f"{digest}/file.txt", saved, SID, lambda: io.BytesIO(data))
    return f"{digest}/file.txt"


def test_the_least_recently_used_are_evicted_with_their_folders(local: CacheDir) -> None:
    names = [make(local, number) for number in range(FIT)]
    make(local, 0)  # used again
    assert local.pin(names[1])

    make(local, FIT)

    evicted = [name for name in names if not local.path(name).exists()]
    assert evicted == names[2 : 2 + len(evicted)]
    assert FIT // 10 < len(evicted) <= FIT // 10 + 2
    assert [name for name in evicted if local.path(name).parent.exists()] == []
    local.unpin(names[1])


def test_copies_that_are_all_pinned_stay(local: CacheDir) -> None:
    names = [make(local, number) for number in range(FIT)]
    assert all(local.pin(name) for name in names)

    make(local, FIT)

    assert all(local.path(name).exists() for name in names)
    for name in names:
        local.unpin(name)


def test_a_session_that_goes_leaves_no_folder(local: CacheDir) -> None:
    names = [make(local, number) for number in range(5)]

    local.release(SID)

    assert not any(local.path(name).parent.exists() for name in names)


def test_a_large_output_that_another_visitor_has_stays_when_that_one_leaves(
    tmp_path: Path,
) -> None:
    """Gradio has the file in its cache, and the event has not ended."""
    large, cache = tmp_path / "large.bin", tmp_path / "cache"
    large.write_bytes(b"large")
    path = Path(large_to_cache(str(large), str(cache)))
    name = path.relative_to(cache).as_posix()
    copies = CacheDir(cache, None)
    saved = Reference("@/large", 5, "digest", datetime(2026, 1, 1, tzinfo=UTC), None, "1")
    copies.note(name, saved, SID, copies.stamp(name) or (0, 0))

    again = large_to_cache(str(large), str(cache))
    copies.release(SID)

    assert Path(again).read_bytes() == b"large"
