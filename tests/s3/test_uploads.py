"""Uploads in pieces in a real bucket, continued by another process."""

from __future__ import annotations

import random

import pytest

from sessionstore import FileNotStored, SessionStore, UploadConflict
from tests.support import seaweed

pytestmark = pytest.mark.server

MIB = 1 << 20


@pytest.mark.parametrize("engine", ["boto3", "obstore"])
def test_replicas_take_turns(seaweed_server: seaweed.Server, prefix: str, engine: str) -> None:
    data = random.Random(1).randbytes(20 * MIB + 7)
    url = f"{seaweed_server.url(prefix)}&engine={engine}"

    def opened() -> SessionStore:
        return SessionStore.open(url, settings=False, secret="s" * 40)

    with opened() as one, opened() as two:
        sessions = [store.session("tab", "ada") for store in (one, two)]
        id_ = sessions[0].begin_upload("a.bin", len(data)).id
        for turn, (start, stop) in enumerate([(0, 9 * MIB), (9 * MIB, 9 * MIB + 5)]):
            upload = sessions[turn % 2].upload(id_)
            assert upload.write(start, data[start:stop]) == stop
        with pytest.raises(UploadConflict):
            sessions[0].upload(id_).write(9 * MIB, b"x")
        stale = sessions[0].upload(id_).writing(9 * MIB + 5)
        stale.write(b"x")
        sessions[1].upload(id_).write(9 * MIB + 5, b"y")
        with pytest.raises(UploadConflict), stale:
            pass
        id_ = sessions[1].begin_upload("b.bin", len(data)).id
        sessions[0].upload(id_).write(0, data)
        assert sessions[1].upload(id_).finish().read() == data
        with pytest.raises(FileNotStored):
            one.session("tab", "eve").upload(id_)
        left = [each.name for each in one.backend.files(sessions[0].sid)]
        assert [name for name in left if id_ in name] == [f"@/upload/{id_}/done.{len(data)}"]
