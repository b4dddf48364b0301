"""The contract for the local backend; what only it promises is tested in test_local_*.py."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings

from sessionstore.backend import Location, Reference
from sessionstore.backends.local import LocalBackend
from sessionstore.content import Content, TempSpool
from sessionstore.names import session_key
from sessionstore.testing import (
    Alone,
    BackendContract,
    DetectsDamage,
    FakeClock,
    FreeSpace,
    Inspected,
    Lease,
    Omitted,
    OpenBackend,
    Recent,
    Restored,
    Secret,
    machine_for,
)
from sessionstore.testing.contract.optional import Damage


def opener(root: Path) -> OpenBackend:
    location = Location(f"file://{root}", "file", "", str(root))
    return lambda clock: LocalBackend.connect(location, {}, clock)


@contextmanager
def new_place() -> Iterator[OpenBackend]:
    with TemporaryDirectory() as folder:
        yield opener(Path(folder) / "root")


class TestLocalBackend(
    BackendContract,
    Alone,
    DetectsDamage,
    FreeSpace,
    Inspected,
    Lease,
    Omitted,
    Recent,
    Restored,
    Secret,
):
    @pytest.fixture
    def open_backend(self, tmp_path: Path) -> OpenBackend:
        return opener(tmp_path / "root")

    @pytest.fixture
    def damage(self, tmp_path: Path) -> Damage:
        def damage(reference: Reference, data: bytes) -> None:
            (blob,) = (tmp_path / "root" / "blobs").glob(f"*/{reference.digest}")
            before = blob.stat()
            os.chmod(blob, 0o600)
            blob.write_bytes(data)
            os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))  # a bad disk leaves no mark

        return damage


TestLocalMachine = machine_for(new_place, settings=settings(max_examples=30))  # files, each step


def test_content_in_another_kind_of_spool_is_saved(tmp_path: Path) -> None:
    """An adapter may have one without bytes, which says so when it is read."""
    backend = opener(tmp_path / "root")(FakeClock())
    key = session_key("a")
    spool = TempSpool()
    spool.write(b"bytes")
    saved = backend.put(key, "a", Content(hashlib.sha256(b"bytes").hexdigest(), 5, spool=spool))

    with backend.open(key.sid, saved.reference) as stream:
        assert stream.read() == b"bytes"
    backend.close()
