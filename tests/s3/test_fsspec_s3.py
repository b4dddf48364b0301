"""The fsspec backend by s3fs: what it sends, what it must not believe, and what a fork does.

The whole contract by s3fs takes minutes and is tests/campaigns/contract_s3fs.py; the state machine
here is its short form.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from sessionstore import BackendUnavailable, SessionStore, SettingsError
from sessionstore.backend import ReclaimsLate
from sessionstore.backends.fsspec.backend import FsspecClient
from sessionstore.backends.fsspec.filesystems import WHOLE
from sessionstore.backends.fsspec.protocols import Where
from sessionstore.backends.objects.client import BATCH, NotFound, Payload
from sessionstore.model import Stored
from sessionstore.testing import OpenBackend, machine_for
from tests.fsspec.test_contract import _numbers, opener
from tests.objects.test_backend import TwoSecondClock
from tests.s3.place import Bucket
from tests.s3.scripted import Reply, ScriptedServer, listing, refusal
from tests.support import seaweed
from tests.support.object_contract import RECHECKS_AFTER, RECLAIMS_AFTER

ROOT = Path(__file__).parents[2]


def where_at(endpoint: str, prefix: str) -> Where:
    """A prefix of the bucket, asked by s3fs."""
    place = f"{seaweed.BUCKET}/{prefix}"
    options = {
        "key": seaweed.ACCESS_KEY,
        "secret": seaweed.SECRET_KEY,
        "endpoint_url": endpoint,
        "client_kwargs": {"region_name": seaweed.REGION},
    }
    return Where(f"fsspec+s3://{place}", "s3", f"s3://{place}", options)


def client_at(endpoint: str, prefix: str) -> FsspecClient:
    """A client of a place that is open already."""
    client = FsspecClient(where_at(endpoint, prefix))
    client.opening = False
    return client


@pytest.fixture(params=["moto", pytest.param("seaweed", marks=pytest.mark.server)])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    bucket: Bucket = request.getfixturevalue(f"{request.param}_bucket")
    return bucket


@pytest.fixture
def client(bucket: Bucket, prefix: str) -> FsspecClient:
    """A client of a place with a store's marker."""
    client = FsspecClient(where_at(bucket.endpoint, prefix))
    client.put("layout", Payload.of(b'{"version": 1}'))
    client.opening = False
    return client


def keys(client: FsspecClient, prefix: str = "") -> list[str]:
    return [entry.key for page in client.list(prefix) for entry in page.entries]


def test_listings_are_those_of_boto3(client: FsspecClient, bucket: Bucket, prefix: str) -> None:
    other = bucket.boto3_client(prefix)
    for name in ("a/1", "a/1.x", "a/10", "a/2/3", "b/1", "s/x/seen.1", "s/x/ended.1", "s/x/f/a/1"):
        client.put(name, Payload.of(name.encode()))
    for start in ("", "a/", "a/1", "a/2", "b/", "layout", "s/", "s/x/", "s/x/seen.", "nothing/"):
        expected = [(it.key, it.size) for page in other.list(start) for it in page.entries]
        found = [(it.key, it.size) for page in client.list(start) for it in page.entries]
        assert found == sorted(expected)


def test_times_are_the_store_s(client: FsspecClient, bucket: Bucket, prefix: str) -> None:
    client.put("a", Payload.of(b""))
    (theirs,) = next(bucket.boto3_client(prefix).list("a")).entries
    (ours,) = next(client.list("a")).entries
    assert ours.modified == theirs.modified.replace(microsecond=0)


def test_what_another_process_writes_is_seen_at_once(
    client: FsspecClient, bucket: Bucket, prefix: str
) -> None:
    other = bucket.boto3_client(prefix)
    for number in range(3):
        assert len(keys(client, "s/")) == number
        other.put(f"s/{number}", Payload.of(b""))
    other.delete(["s/0", "s/1", "s/2"])
    assert keys(client, "s/") == []


@pytest.mark.server
def test_more_than_one_page_of_the_server(seaweed_bucket: Bucket, prefix: str) -> None:
    fast = Bucket(seaweed_bucket.endpoint, engine="obstore").client(prefix)
    names = [f"s/{number:05}" for number in range(BATCH + 5)]
    for name in ["layout", *names]:
        fast.put(name, Payload.of(b'{"version": 1}'))
    client = FsspecClient(where_at(seaweed_bucket.endpoint, prefix))
    assert keys(client, "s/") == names
    fast.delete(names[:BATCH])
    client.delete([*names[BATCH:], "s/never-there"])
    assert keys(client, "s/") == []


@pytest.mark.parametrize("size", [WHOLE, 2 * WHOLE + 17])
def test_large_objects_go_and_come_back(client: FsspecClient, size: int) -> None:
    data = os.urandom(size)
    client.put("large", Payload(io.BytesIO(b"--" + data + b"--"), 2, size))
    with client.get("large").stream as stream:
        assert stream.read() == data
    with client.get("large", size - 10, 5).stream as stream:
        assert stream.read() == data[-10:-5]
    with pytest.raises(NotFound):
        client.get("larger")


def test_a_save_that_breaks_off_leaves_nothing(
    client: FsspecClient, bucket: Bucket, prefix: str
) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 2 * WHOLE:
                raise OSError(5, "Input/output error")
            return super().read(size)

    with pytest.raises(BackendUnavailable, match="Input/output error"):
        client.put("large", Payload(Failing(bytes(3 * WHOLE)), 0, 3 * WHOLE))
    assert bucket.keys(prefix) == ["layout"]
    assert list(bucket.boto3_client(prefix).uploads("")) == []


def after_opening(client: FsspecClient, act: Callable[[], object]) -> None:
    """Have something happen between the next opening of a file and the first read of it."""
    files = client.connection.client
    real = files.open

    def opened(*arguments: Any) -> Any:
        files.open = real
        file = real(*arguments)
        act()
        return file

    files.open = opened


def test_a_note_that_is_written_anew_between_opening_and_reading_is_read(
    client: FsspecClient, bucket: Bucket, prefix: str
) -> None:
    client.put("sweep", Payload.of(b"before"))
    place = {"Bucket": seaweed.BUCKET, "Key": f"{prefix}/sweep"}
    after_opening(client, lambda: bucket.boto.put_object(**place, Body=b"later"))
    with client.get("sweep").stream as stream:
        assert stream.read() == b"later"


def test_an_object_that_goes_between_opening_and_reading_is_not_found(
    client: FsspecClient, bucket: Bucket, prefix: str
) -> None:
    client.put("sweep", Payload.of(b"before"))
    place = {"Bucket": seaweed.BUCKET, "Key": f"{prefix}/sweep"}
    after_opening(client, lambda: bucket.boto.delete_object(**place))
    with pytest.raises(NotFound):
        client.get("sweep")


# What it must not believe


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    with server.serving():
        yield server


@pytest.fixture
def scripted(server: ScriptedServer) -> FsspecClient:
    return client_at(server.endpoint, "app")


@pytest.mark.parametrize("prefix", ["b/", "s/", "i/", "s/x/", "b/ab/cd"])
def test_a_bucket_that_is_gone_is_no_empty_listing(
    server: ScriptedServer, scripted: FsspecClient, prefix: str
) -> None:
    server.replies = [refusal(404, "NoSuchBucket")]
    with pytest.raises(BackendUnavailable, match="'layout' is not there either"):
        keys(scripted, prefix)


def test_one_no_is_no_empty_listing_for_a_sweep(
    server: ScriptedServer, scripted: FsspecClient
) -> None:
    server.replies = [refusal(404, "NoSuchBucket"), listing("app/s/x/f/a")]
    assert keys(scripted, "s/") == ["s/x/f/a"]


def test_a_web_page_is_no_empty_listing(server: ScriptedServer, scripted: FsspecClient) -> None:
    server.replies = [Reply(body=b"<html><body>Please log in</body></html>")]
    with pytest.raises(BackendUnavailable):
        keys(scripted, "s/")


def test_a_second_page_that_fails_ends_the_listing(
    server: ScriptedServer, scripted: FsspecClient
) -> None:
    first = listing("app/s/1", IsTruncated="true", NextContinuationToken="2")
    server.replies = [first, refusal(403, "AccessDenied")]
    with pytest.raises(BackendUnavailable):
        keys(scripted, "s/")


def test_a_delete_that_is_refused_is_an_error(
    server: ScriptedServer, scripted: FsspecClient
) -> None:
    """s3fs's own request for many passes over it."""
    server.replies = [refusal(403, "AccessDenied")]
    with pytest.raises(BackendUnavailable, match="may list, read, write and delete there"):
        scripted.delete(["s/1", "s/2"])


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (403, "AccessDenied", SettingsError, "may list, read, write and delete there"),
        (403, "InvalidAccessKeyId", SettingsError, "no valid credentials were found"),
        (404, "NoSuchBucket", SettingsError, "there is no such bucket"),
        (412, "PreconditionFailed", BackendUnavailable, "was changed while it was read or written"),
    ],
)
def test_an_answer_that_says_no_is_ours(
    server: ScriptedServer, status: int, code: str, kind: type[Exception], words: str
) -> None:
    server.replies = [refusal(status, code, "no")]
    client = FsspecClient(where_at(server.endpoint, "app"))
    with pytest.raises(kind) as raised:
        client.put("k", Payload.of(b"x"))
    assert words in str(raised.value)


# After a fork

FORKED = """
import json, os, signal, sys, warnings
warnings.simplefilter("ignore")  # Python's own, about forks beside threads
from sessionstore import SessionStore
store = SessionStore.open(sys.argv[1], storage_options=json.loads(sys.argv[2]))
store.session("a").put("mine", b"parent")
pid = os.fork()
if pid == 0:
    signal.alarm(240)  # its end, should it wait for a loop that does not run here
    assert store.session("a").read("mine") == b"parent"
    store.session("a").put("theirs", b"child")
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert store.session("a").read("theirs") == b"child"
store.close()
"""


@pytest.mark.server
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_has_a_file_system_of_its_own(seaweed_bucket: Bucket, prefix: str) -> None:
    where = where_at(seaweed_bucket.endpoint, prefix)
    command = [sys.executable, "-c", FORKED, where.url, json.dumps(where.storage_options)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr


# A store


@pytest.mark.server
def test_a_store_of_both_backends_is_one(
    seaweed_server: seaweed.Server, seaweed_bucket: Bucket, prefix: str
) -> None:
    where = where_at(seaweed_bucket.endpoint, prefix)
    with (
        SessionStore.open(where.url, storage_options=where.storage_options) as by_s3fs,
        SessionStore.open(seaweed_server.url(prefix)) as by_boto3,
        SessionStore.open(seaweed_server.url(prefix), engine="obstore") as by_obstore,
    ):
        stores = (by_s3fs, by_boto3, by_obstore)
        for number, store in enumerate(stores):
            store.session("a").put(f"{number}", b"same bytes")
            # The oldest copy is adopted, and the server tells ages in whole seconds.
            threading.Event().wait(1.1)
        for store in stores:
            assert [file.name for file in store.session("a").files()] == ["0", "1", "2"]
            assert {file.read() for file in store.session("a").files()} == {b"same bytes"}
            # Copies that were uploaded beside a listing, in vain, are left to the sweep.
            assert isinstance(store.backend, ReclaimsLate)
            assert store.backend.referred() == Stored(blobs=1, bytes=10)


_place: list[str] = []


@pytest.fixture
def on_moto(moto_bucket: Bucket) -> Iterator[None]:
    _place[:] = [moto_bucket.endpoint]
    yield
    _place.clear()


@contextmanager
def new_place() -> Iterator[OpenBackend]:
    (endpoint,) = _place
    yield opener(where_at(endpoint, f"s3fs-{next(_numbers)}"))


TestMachineByS3fs = pytest.mark.usefixtures("on_moto")(
    machine_for(
        new_place,
        clock=TwoSecondClock,
        reclaims_after=RECLAIMS_AFTER,
        rechecks_after=RECHECKS_AFTER,
        resolution=timedelta(seconds=1),
        settings=settings(max_examples=1, stateful_step_count=12),
    )
)
