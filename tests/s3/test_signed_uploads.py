"""Uploads by presigned URLs: on SeaweedFS, which checks signatures, and on moto, which does not."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from sessionstore import FileNotStored, Session, SessionStore, SignedUpload, UploadConflict
from sessionstore.backend import SignsUploads
from sessionstore.backends.s3 import S3Backend
from sessionstore.testing import FakeClock
from tests.s3.place import Bucket
from tests.support import seaweed
from tests.support.stores import HOUR, PATIENCE, store_of

PART = 5 << 20
SIZE = 2 * PART + 7
DATA = random.Random(1).randbytes(SIZE)
SEAWEED = pytest.mark.server

KILLED = """
import os, signal, sys
from sessionstore import SessionStore, signed_uploads
signed_uploads.pump = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
with SessionStore.open(sys.argv[1], settings=False) as store:
    store.session("tab", "ada").signed_upload(sys.argv[2]).finish()
"""

FINISHES = """
import sys
from sessionstore import SessionStore
with SessionStore.open(sys.argv[1], settings=False) as store:
    upload = store.session("tab", "ada").signed_upload(sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    print(upload.finish().digest)
"""


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessionstore.signed_uploads.PART", PART)


@pytest.fixture(
    params=[
        "moto_bucket",
        pytest.param("seaweed_bucket", marks=SEAWEED),
        pytest.param("obstore_bucket", marks=SEAWEED),
    ]
)
def bucket(request: pytest.FixtureRequest) -> Bucket:
    made: Bucket = request.getfixturevalue(request.param)
    return made


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(bucket: Bucket, prefix: str, clock: FakeClock) -> Iterator[SessionStore]:
    backend = bucket.opener(prefix)(clock)
    with SessionStore(backend, clock=clock) as made:
        yield made


@pytest.fixture
def session(store: SessionStore) -> Session:
    return store.session("tab", "ada")


def part(number: int) -> bytes:
    return DATA[(number - 1) * PART : number * PART]


def put(upload: SignedUpload, number: int, data: bytes) -> httpx.Response:
    return httpx.put(upload.urls([number])[number], content=data)


def fill(upload: SignedUpload) -> None:
    for number in upload.missing():
        assert put(upload, number, part(number)).status_code == 200


def left(bucket: Bucket, prefix: str) -> list[str]:
    """What is in the bucket of signed uploads, joined or not."""
    client = bucket.boto3_client(prefix)
    unfinished = [upload.key for upload in client.uploads("")]
    return unfinished + [key for key in bucket.keys(prefix) if key.startswith("b/0/")]


def test_the_file_is_that_of_any_save(
    session: Session, store: SessionStore, bucket: Bucket, prefix: str
) -> None:
    session.put("same", DATA)
    upload = session.begin_signed_upload("a.bin", SIZE)
    assert put(upload, 3, part(3)).status_code == 200
    assert session.signed_upload(upload.id).missing() == [1, 2]
    fill(upload)
    file = upload.finish()

    assert (file.read(), upload.finish()) == (DATA, file)
    assert store.backend.stored().bytes < SIZE + 1000  # with the note about it
    assert left(bucket, prefix) == []


def test_an_empty_file(session: Session) -> None:
    upload = session.begin_signed_upload("empty", 0)
    assert put(upload, 1, b"").status_code == 200
    assert upload.finish().read() == b""


def test_too_few_parts_and_wrong_ones_are_no_file(session: Session) -> None:
    upload = session.begin_signed_upload("a", SIZE)
    with pytest.raises(UploadConflict):
        upload.finish()
    for number in (1, 2, 3):
        put(upload, number, part(number)[:-1] + b"xy")  # one byte too many
    assert upload.missing() == [1, 2, 3]
    with pytest.raises(UploadConflict):
        upload.finish()
    fill(upload)
    assert upload.finish().read() == DATA


def test_an_aborted_one_leaves_nothing(session: Session, bucket: Bucket, prefix: str) -> None:
    upload = session.begin_signed_upload("a", SIZE)
    url = upload.urls([1])[1]
    assert put(upload, 1, part(1)).status_code == 200
    assert len(left(bucket, prefix)) == 1
    upload.abort()

    assert httpx.put(url, content=part(1)).status_code in {404, 500}  # moto has the second
    assert left(bucket, prefix) == []


@pytest.mark.parametrize("sent", [0, 1, 3])
def test_an_abandoned_one_is_swept_with_the_content(
    session: Session, bucket: Bucket, prefix: str, clock: FakeClock, sent: int
) -> None:
    upload, store = session.begin_signed_upload("a", SIZE, within=HOUR), store_of(session)
    for number in range(1, sent + 1):
        assert put(upload, number, part(number)).status_code == 200
    store.sweep()
    assert len(left(bucket, prefix)) == 1
    clock.advance(HOUR + timedelta(minutes=1))
    store.sweep()

    assert left(bucket, prefix) == []
    with pytest.raises(FileNotStored):
        session.signed_upload(upload.id)


def test_verify_has_nothing_to_say_about_one(session: Session, store: SessionStore) -> None:
    upload, backend = session.begin_signed_upload("a", 3), store.backend
    assert store.verify(repair=True) == []
    put(upload, 1, b"abc")
    assert isinstance(backend, SignsUploads)
    with backend.join_parts(upload._parts, [3]):  # as a crash leaves it
        assert store.verify(repair=True) == []
    assert upload.finish().read() == b"abc"


def test_a_dropped_session_s_upload_is_over(session: Session) -> None:
    upload = session.begin_signed_upload("a", 3)
    put(upload, 1, b"abc")
    session.drop()
    with pytest.raises(FileNotStored):
        upload.finish()


@SEAWEED
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("partNumber=1", "partNumber=2"),
        ("uploadId=", "uploadId=0"),
        ("X-Amz-Expires=900", "X-Amz-Expires=9000"),
        ("/b/0/", "/b/1/"),
        ("content-length%3Bhost", "host"),
    ],
)
def test_a_url_that_was_changed_takes_nothing(
    seaweed_bucket: Bucket, prefix: str, old: str, new: str
) -> None:
    store = SessionStore(S3Backend(seaweed_bucket.client(prefix)), clock=FakeClock())
    url = store.session("tab").begin_signed_upload("a", 3).urls([1])[1]
    assert old in url
    assert httpx.put(url.replace(old, new), content=b"abc").status_code in {403, 404}
    for data in (b"abcd", b"ab", b""):
        assert httpx.put(url, content=data).status_code == 403
    assert httpx.get(url).status_code == 403
    assert httpx.put(url, content=b"abc").status_code == 200


@SEAWEED
def test_a_kill_before_the_save_loses_and_leaves_nothing(
    seaweed_server: seaweed.Server, prefix: str
) -> None:
    url = seaweed_server.url(prefix)
    with SessionStore.open(url, settings=False) as store:
        session = store.session("tab", "ada")
        upload = session.begin_signed_upload("a", SIZE)
        fill(upload)
        child = subprocess.run([sys.executable, "-c", KILLED, url, upload.id], check=False)
        assert child.returncode == -signal.SIGKILL
        client = seaweed_server.client()

        def joined() -> Any:
            return client.list_objects_v2(Bucket=seaweed.BUCKET, Prefix=f"{prefix}/b/0/")

        assert joined()["KeyCount"] == 1
        assert upload.missing() == []
        assert upload.finish().read() == DATA
        assert joined()["KeyCount"] == 0


@SEAWEED
def test_processes_that_finish_at_once_make_one_file(
    seaweed_server: seaweed.Server, prefix: str
) -> None:
    url, pipe = seaweed_server.url(prefix), subprocess.PIPE
    with SessionStore.open(url, settings=False) as store:
        session = store.session("tab", "ada")
        upload = session.begin_signed_upload("a", SIZE)
        fill(upload)
        command = [sys.executable, "-c", FINISHES, url, upload.id]
        children = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        said = {child.communicate(timeout=PATIENCE)[0] for child in children}

        assert said == {f"{session.get('a').digest}\n"}
        assert session.read("a") == DATA
        listed = seaweed_server.client().list_objects_v2(
            Bucket=seaweed.BUCKET, Prefix=f"{prefix}/b/0/"
        )
        assert listed["KeyCount"] == 0


@SEAWEED
def test_more_parts_than_a_page_of_them(seaweed_bucket: Bucket, prefix: str) -> None:
    client = seaweed_bucket.boto3_client(prefix)
    upload = client.begin("b/many")
    with httpx.Client() as http:
        for number in range(1, 1003):
            url = client.sign_part("b/many", upload, number, 1, timedelta(minutes=1))
            assert http.put(url, content=b"x").status_code == 200
    assert [part.number for part, _ in client.parts("b/many", upload)] == [*range(1, 1003)]
    client.abort("b/many", upload)
