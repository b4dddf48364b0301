"""A stream whose object goes while it is read, by a client that asks for bytes piece by piece."""

from __future__ import annotations

import io

import pytest

from sessionstore.backends.objects import ObjectBackend
from sessionstore.backends.objects.client import Download
from sessionstore.errors import BackendUnavailable, FileNotStored
from sessionstore.testing import FakeClock, Subject
from sessionstore.testing.subject import ALICE, some_bytes
from tests.support.object_client import FakeBucket, FakeObjectClient


class Breaking(FakeObjectClient):
    """Gives 10 bytes of content, then an error."""

    def get(self, key: str, start: int = 0, length: int | None = None) -> Download:
        download = super().get(key, start, length)
        if not key.startswith("b/"):
            return download
        return download._replace(stream=_Pieces(download.stream.read(10)))


class _Pieces(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if not data:
            raise BackendUnavailable("The object is not there any more.")
        return data


def test_a_file_that_goes_while_it_is_read_is_gone_and_not_damaged() -> None:
    clock = FakeClock()
    bucket = FakeBucket(clock.now)
    backend = ObjectBackend(Breaking(bucket), elapsed=bucket.seconds)
    subject = Subject(lambda _: backend, clock)
    reference = subject.put("a", some_bytes("large", 3000)).reference
    with backend.open(ALICE.sid, reference) as stream:
        for key in [it for it in bucket.all_keys() if it.startswith("b/")]:
            bucket.delete([key])
        with pytest.raises(FileNotStored):
            stream.read()
