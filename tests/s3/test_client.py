"""What the client sends, how many clients there are, and who shares them."""

from __future__ import annotations

import base64
import contextlib
import gc
import hashlib
import io
import os
import signal
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from botocore.utils import parse_timestamp
from urllib3 import HTTPConnectionPool

from sessionstore import BackendUnavailable
from sessionstore.backends.objects import connection
from sessionstore.backends.objects.client import BATCH, Payload
from sessionstore.backends.objects.connection import Connection
from sessionstore.backends.s3 import boto3_session
from sessionstore.backends.s3.boto3_client import S3Client
from sessionstore.backends.s3.options import Options
from sessionstore.testing.subject import PATIENCE, race
from tests.s3.place import Bucket
from tests.s3.scripted import Asked, Reply, ScriptedServer, listing, refusal

MINUTE = timedelta(minutes=1)

LARGE = 200_000
"""Bytes that are streamed."""


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    with server.serving():
        yield server


def client_of(server: ScriptedServer, **more: Any) -> S3Client:
    credentials = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
    options = {"endpoint_url": server.endpoint, **credentials, **more}
    return S3Client(Options("s3://sessions/app", "sessions", "app/", **options))


def asked_by(server: ScriptedServer, payload: Payload, **options: Any) -> Asked:
    with closing(client_of(server, **options)) as client:
        client.put("k", payload)
    (asked,) = server.asked
    return asked


# What is sent


@pytest.mark.parametrize("size", [0, 10, LARGE])
def test_the_store_is_given_the_digest_to_check(server: ScriptedServer, size: int) -> None:
    data = b"x" * size
    digest = hashlib.sha256(data)
    asked = asked_by(server, Payload(data, 0, size, digest.hexdigest()))
    assert asked.body == data
    assert asked.headers["x-amz-checksum-sha256"] == base64.b64encode(digest.digest()).decode()
    assert "x-amz-checksum-sha256" in asked.headers["Authorization"]  # signed


def test_small_bodies_without_a_digest_get_one(server: ScriptedServer) -> None:
    asked = asked_by(server, Payload.of(b"{}"))
    digest = base64.b64encode(hashlib.sha256(b"{}").digest()).decode()
    assert asked.headers["x-amz-checksum-sha256"] == digest


def test_large_bodies_are_read_once(server: ScriptedServer) -> None:
    class Counting(io.BytesIO):
        taken = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.taken += len(data)
            return data

    source = Counting(b"x" * LARGE)
    asked = asked_by(server, Payload(source, 0, LARGE, hashlib.sha256(b"x" * LARGE).hexdigest()))
    assert asked.headers["X-Amz-Content-SHA256"] == "UNSIGNED-PAYLOAD"
    assert asked.headers.get("Content-Encoding", "") == ""  # no aws-chunked trailer
    assert source.taken == LARGE


def test_a_part_of_a_file_is_sent_and_nothing_else(server: ScriptedServer) -> None:
    source = io.BytesIO(bytes(range(256)) * 1000)
    asked = asked_by(server, Payload(source, 1000, LARGE))
    assert asked.body == source.getvalue()[1000 : 1000 + LARGE]
    assert not [name for name in asked.headers if "crc" in name.lower()]


@pytest.mark.parametrize("size", [10, LARGE])
@pytest.mark.parametrize("prompt", [boto3_session.PROMPT, 9])
def test_a_body_does_not_wait_for_a_permission_up_to_a_size(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, size: int, prompt: int
) -> None:
    monkeypatch.setattr(boto3_session, "PROMPT", prompt)
    server.replies = [Reply(headers={"ETag": "e"})]
    with closing(client_of(server)) as client:
        client.put("k", Payload(b"x" * size, 0, size))
        client.upload_part("k", "u", 1, Payload(io.BytesIO(b"x" * size), 0, size))
    waits = ["100-continue"] * 2 if size > prompt else [None, None]
    assert [asked.headers.get("Expect") for asked in server.asked] == waits


def test_encryption_and_more_go_with_every_object(server: ScriptedServer) -> None:
    more = {"sse": "aws:kms", "kms_key_id": "k1", "put_args": {"StorageClass": "STANDARD_IA"}}
    asked = asked_by(server, Payload.of(b"x"), **more)
    assert asked.headers["x-amz-server-side-encryption"] == "aws:kms"
    assert asked.headers["x-amz-server-side-encryption-aws-kms-key-id"] == "k1"
    assert asked.headers["x-amz-storage-class"] == "STANDARD_IA"


def test_encryption_and_more_go_with_every_upload(server: ScriptedServer) -> None:
    server.replies = [Reply(body=b"<X><UploadId>u</UploadId></X>")]
    with closing(client_of(server, sse="AES256")) as client:
        assert client.begin("k") == "u"
    assert server.asked[0].headers["x-amz-server-side-encryption"] == "AES256"


@pytest.mark.parametrize(
    ("addressing", "path"), [(None, "/sessions/app/k"), ("path", "/sessions/app/k")]
)
def test_a_server_is_addressed_by_path(
    server: ScriptedServer, addressing: str | None, path: str
) -> None:
    assert asked_by(server, Payload.of(b""), addressing=addressing).path == path


def test_virtual_addressing_puts_the_bucket_into_the_host(server: ScriptedServer) -> None:
    endpoint = server.endpoint.replace("127.0.0.1", "localhost")
    more = {"endpoint_url": endpoint, "addressing": "virtual"}
    with closing(client_of(server, **more)) as client:
        url = client.sign("k", media_type="a/b", disposition="inline", expires=MINUTE)
    assert url.startswith(endpoint.replace("localhost", "sessions.localhost") + "/app/k?")


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [(0, None, None), (5, None, "bytes=5-"), (0, 5, "bytes=0-4"), (5, 1, "bytes=5-5")],
)
def test_ranges(
    server: ScriptedServer, start: int, length: int | None, expected: str | None
) -> None:
    server.replies = [Reply(206, b"x", {"Content-Range": f"bytes {start}-{start}/10"})]
    with closing(client_of(server)) as client:
        client.get("k", start, length).stream.close()
    assert server.asked[0].headers.get("Range") == expected


def test_another_part_than_was_asked_for_is_refused(server: ScriptedServer) -> None:
    server.replies = [Reply(206, b"x", {"Content-Range": "bytes 0-0/10"})]
    with (
        closing(client_of(server)) as client,
        pytest.raises(BackendUnavailable, match=r"bytes from 5, the response has 'bytes 0-0/10'"),
    ):
        client.get("k", 5, 1)


def test_a_request_that_failed_is_sent_again(server: ScriptedServer) -> None:
    server.replies = [refusal(503, "SlowDown"), listing("app/a")]
    with closing(client_of(server)) as client:
        (page,) = client.list("")
    assert [entry.key for entry in page.entries] == ["a"]
    assert len(server.asked) == 2


def test_the_date_of_the_answer_is_told(server: ScriptedServer) -> None:
    server.replies = [Reply(headers={"Date": "Sun, 22 Nov 2026 18:35:30 GMT"})]
    with closing(client_of(server)) as client:
        date = client.put("k", Payload.of(b""))
    assert date is not None
    assert date.isoformat() == "2026-11-22T18:35:30+00:00"


def test_a_bucket_without_uploads_may_say_so_by_an_error(server: ScriptedServer) -> None:
    server.replies = [refusal(404, "NoSuchUpload")]  # as rclone does
    with closing(client_of(server)) as client:
        assert list(client.uploads("")) == []


# Against a server


@pytest.fixture(params=["moto", pytest.param("seaweed", marks=pytest.mark.server)])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    bucket: Bucket = request.getfixturevalue(f"{request.param}_bucket")
    return bucket


def put(client: S3Client, *keys: str) -> None:
    for key in keys:
        client.put(key, Payload.of(key.encode()))


def test_listing_page_by_page(bucket: Bucket, prefix: str) -> None:
    client = bucket.boto3_client(prefix)
    put(client, "a/1", "a/2", "a/3", "b/1", "a-1", "a")
    pages = [[it.key for it in page.entries] for page in client.list("a/", page_size=2)]
    assert pages == [["a/1", "a/2"], ["a/3"]]
    after = [it.key for page in client.list("a/", start_after="a/1") for it in page.entries]
    assert after == ["a/2", "a/3"]


def test_an_empty_listing_is_one_page(bucket: Bucket, prefix: str) -> None:
    (page,) = bucket.boto3_client(prefix).list("nothing/")
    assert list(page.entries) == []
    assert page.date is not None


def test_entries_tell_size_and_time(bucket: Bucket, prefix: str) -> None:
    client = bucket.boto3_client(prefix)
    put(client, "abc")
    (page,) = client.list("")
    (entry,) = page.entries
    assert entry.size == 3
    assert page.date is not None
    assert abs((page.date - entry.modified).total_seconds()) <= 60


def test_deleting_a_full_batch(bucket: Bucket, prefix: str) -> None:
    client = bucket.boto3_client(prefix)
    put(client, "a", "b", "kept")
    client.delete(["a", "b", *(f"missing-{number}" for number in range(BATCH - 2))])
    client.delete(["missing"])
    assert bucket.keys(prefix) == ["kept"]


def test_multipart_upload(bucket: Bucket, prefix: str) -> None:
    client = bucket.boto3_client(prefix)
    data = os.urandom((5 << 20) + 1000)
    whole = Payload(io.BytesIO(data), 0, len(data))
    upload = client.begin("large")
    assert [(it.key, it.id) for it in client.uploads("")] == [("large", upload)]
    parts = [
        client.upload_part("large", upload, 1, whole.part(0, 5 << 20)),
        client.upload_part("large", upload, 2, whole.part(5 << 20, 1000)),
    ]
    client.complete("large", upload, parts)
    with client.get("large").stream as stream:
        assert stream.read() == data
    assert list(client.uploads("")) == []


def test_an_upload_that_was_aborted_is_gone(bucket: Bucket, prefix: str) -> None:
    client = bucket.boto3_client(prefix)
    upload = client.begin("large")
    client.abort("large", upload)
    client.abort("large", upload)
    assert list(client.uploads("")) == []


@pytest.mark.server
def test_requests_leave_no_memory(seaweed_bucket: Bucket, prefix: str) -> None:
    client = seaweed_bucket.boto3_client(prefix)
    data = b"x" * 10_000  # much more than what other threads of the tests allocate meanwhile

    def use(count: int) -> int:
        for number in range(count):
            client.put(f"{number}", Payload.of(data))
            client.get(f"{number}").stream.close()
            list(client.list(f"{number}"))
            client.delete([f"{number}"])
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = use(60)
        assert use(60) - before < 60 * len(data) / 2
    finally:
        tracemalloc.stop()


# Connections


class Made(list[object]):
    """Stands for clients that were made."""

    def one_more(self) -> object:
        self.append(object())
        return self[-1]


class Gate:
    """A lock that nobody gets before so many threads want it."""

    def __init__(self, threads: int) -> None:
        self._lock = threading.Lock()
        self._barrier = threading.Barrier(threads)

    def __enter__(self) -> None:
        self._barrier.wait(PATIENCE)
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_a_client_is_made_once_and_late(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made()
    connection = Connection(made.one_more)
    assert made == []
    monkeypatch.setattr(connection, "_lock", Gate(16))
    assert len(set(race(*[lambda: connection.client] * 16))) == 1
    assert len(made) == 1


def test_enough_connections_for_many_threads(server: ScriptedServer) -> None:
    with closing(client_of(server)) as client:
        assert client.connection.client.meta.config.max_pool_connections >= 32


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
# Idle connections


class Listener:
    """A server that accepts connections, and says nothing."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.accepted: list[socket.socket] = []

    def pool(self) -> HTTPConnectionPool:
        return HTTPConnectionPool("127.0.0.1", self._socket.getsockname()[1], maxsize=10)

    def accept(self, expected: int, meanwhile: Callable[[], object] = lambda: None) -> int:
        """Accept what is waiting; give the number of all connections so far.

        Some time later if there are fewer than ``expected``: the system may be late with them.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            meanwhile()
            with contextlib.suppress(BlockingIOError):
                while True:
                    self.accepted.append(self._socket.accept()[0])
            if len(self.accepted) >= expected or time.monotonic() > deadline:
                return len(self.accepted)
            time.sleep(0.01)  # the system tells nobody

    def close(self) -> None:
        for each in (self._socket, *self.accepted):
            each.close()


def test_idle_connections_that_the_store_closed_are_opened_again() -> None:
    with closing(Listener()) as listener, closing(listener.pool()) as pool:
        boto3_session.reopen(pool)
        assert listener.accept(boto3_session.WARM) == boto3_session.WARM
        boto3_session.reopen(pool)
        assert listener.accept(boto3_session.WARM) == boto3_session.WARM
        for each in listener.accepted[:2]:
            each.close()
        opened = listener.accept(boto3_session.WARM + 2, lambda: boto3_session.reopen(pool))
        assert opened == boto3_session.WARM + 2
        assert pool.pool is not None
        assert pool.pool.qsize() == 10


def test_a_request_takes_a_connection_that_was_opened_again() -> None:
    with closing(Listener()) as listener, closing(listener.pool()) as pool:
        boto3_session.reopen(pool)
        taken = [pool._get_conn() for _ in range(boto3_session.WARM)]
        assert all(each.is_connected for each in taken)
        for each in taken:
            each.close()


def test_a_pool_that_was_closed_gets_no_connection() -> None:
    with closing(Listener()) as listener:
        pool = listener.pool()
        pool.close()
        with pytest.raises(AttributeError):  # the thread ignores it
            boto3_session.reopen(pool)
        assert listener.accept(0) == 0


def test_the_thread_ends_with_the_client(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boto3_session, "TICK", 0.01)
    others = set(threading.enumerate())  # one of another client may be about to end
    with closing(client_of(server)) as client:
        client.put("k", Payload.of(b""))
        started = set(threading.enumerate()) - others
        (thread,) = [it for it in started if isinstance(it, boto3_session.Warmer)]
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_fork_has_a_client_of_its_own() -> None:
    made = Made()
    connection = Connection(made.one_more)
    mine = connection.client
    with connection._lock:  # as another thread would hold it at the fork
        child = _fork(lambda: connection.client is not mine and len(made) == 2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert connection.client is mine


def _fork(check: Any) -> int:
    """A child process that ends with 0 when the check holds there."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(int(PATIENCE))  # its end, should it wait for a lock that nobody holds
        os._exit(0 if check() else 1)
    return pid


def test_forgotten_connections_do_not_pile_up() -> None:
    gc.collect()
    before = len(connection._connections)
    connections = [Connection(object) for _ in range(10)]
    assert len(connection._connections) == before + 10
    del connections
    gc.collect()
    assert len(connection._connections) == before


def test_a_stream_left_early_gives_its_connection_back(bucket: Bucket, prefix: str) -> None:
    client = bucket.boto3_client(prefix)
    client.put("k", Payload.of(b"x" * 100_000))
    for _ in range(2 * boto3_session.CONNECTIONS):
        stream = client.get("k").stream
        assert stream.read(1) == b"x"
        stream.close()
        stream.close()
    assert threading.active_count() < 1000
    with client.get("k").stream as stream:
        assert len(stream.read()) == 100_000


# Times in answers


@pytest.mark.parametrize(
    "written",
    [
        "2026-11-25T16:04:58.000Z",
        "2026-11-25T16:04:58Z",
        "2026-11-25T16:04:58.123456789Z",
        "2026-11-25T17:04:58+01:00",
        "Wed, 25 Nov 2026 16:04:58 GMT",
        "Wednesday, 25-Nov-26 16:04:58 GMT",
        "1795622698",
        1795622698.5,
    ],
)
def test_a_time_is_what_botocore_takes_it_for(written: Any) -> None:
    assert boto3_session.timestamp(written) == parse_timestamp(written)


@pytest.mark.parametrize("written", ["soonZ", "soon GMT", ""])
def test_what_is_no_time_is_refused_as_botocore_does(written: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - dateutil's own words
        boto3_session.timestamp(written)


def test_nothing_is_guessed_at_in_s3_s_own_forms(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def guess(value: object) -> None:
        raise AssertionError(f"{value} is put to a parser that takes two thirds of the time")

    monkeypatch.setattr(boto3_session, "parse_timestamp", guess)
    server.replies = [listing("app/a")]
    with closing(client_of(server)) as client:
        (page,) = client.list("")
    assert [entry.key for entry in page.entries] == ["a"]
