"""The obstore engine: who gets it, what it sends and refuses, and what becomes of a fork."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest

from sessionstore import BackendUnavailable, LimitExceeded, SessionStoreError, SettingsError
from sessionstore.backends.objects.client import BATCH, Entry, Multipart, NotFound, Page, Payload
from sessionstore.backends.s3 import S3Backend, obstore_client, obstore_store
from sessionstore.backends.s3.obstore_client import PIECE, WHOLE, ObstoreClient
from sessionstore.backends.s3.obstore_store import make_store
from sessionstore.backends.s3.options import Options
from sessionstore.settings.resolver import resolve
from tests.s3.place import Bucket
from tests.s3.scripted import Asked, Reply, ScriptedServer, listing, refusal
from tests.support import seaweed

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    monkeypatch.setattr(obstore_store, "RETRIES", 0)
    server = ScriptedServer()
    server.replies = [Reply(headers={"ETag": '"e"'})]
    with server.serving():
        yield server


def options_for(endpoint: str, **more: Any) -> Options:
    credentials = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
    settings = {"endpoint_url": endpoint, **credentials, **more}
    return Options("s3://sessions/app", "sessions", "app/", **settings)


def client_of(server: ScriptedServer, **more: Any) -> ObstoreClient:
    return ObstoreClient(options_for(server.endpoint, **more))


def asked_by(server: ScriptedServer, payload: Payload, **options: Any) -> Asked:
    with closing(client_of(server, **options)) as client:
        client.put("k", payload)
    (asked,) = server.asked
    return asked


# Who gets it


def test_without_obstore_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sessionstore.backends.s3.obstore_client", None)
    found = resolve("s3://sessions/app?engine=obstore", {}, {}, Path())
    with pytest.raises(SettingsError, match=r"engine=obstore needs .*'sessionstore\[s3\]'"):
        S3Backend.open_client(found.location, found.backend_options)


def test_opening_a_store_with_obstore_does_not_import_boto3() -> None:
    code = (
        "import sys; from sessionstore.backends.s3 import S3Backend; "
        "import sessionstore.backends.s3.obstore_client; "
        "assert not {'boto3', 'botocore'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# What it refuses

REFUSED = [
    ({"put_args": {"ACL": "private"}}, "engine=obstore cannot send ACL, only BucketKeyEnabled, "),
    ({"put_args": {"ExpectedBucketOwner": "1"}}, "engine=obstore cannot send ExpectedBucketOwner"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_what_it_cannot_do_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as raised:
        ObstoreClient(Options("s3://sessions/app", "sessions", "app/", **settings))
    assert message in str(raised.value)


@pytest.mark.parametrize("character", [*'%~#*?[]{}|^<>`\\"'])
def test_a_prefix_that_it_would_write_otherwise_is_refused(character: str) -> None:
    with pytest.raises(SettingsError, match="in a key; use another prefix"):
        ObstoreClient(Options("s3://b", "b", f"a{character}b/"))


# What it sends


def test_the_store_is_given_the_digest_to_check(server: ScriptedServer) -> None:
    asked = asked_by(server, Payload.of(b"hello"))
    assert asked.body == b"hello"
    assert asked.headers["x-amz-content-sha256"] == hashlib.sha256(b"hello").hexdigest()
    assert "x-amz-content-sha256" in asked.headers["authorization"]


def test_encryption_and_more_go_with_every_object(server: ScriptedServer) -> None:
    put_args = {
        "StorageClass": "STANDARD_IA",
        "CacheControl": "no-store",
        "Metadata": {"app": "demo"},
        "Tagging": "team=web",
        "BucketKeyEnabled": True,
    }
    more = {"sse": "aws:kms", "kms_key_id": "k1", "put_args": put_args}
    headers = asked_by(server, Payload.of(b"x"), **more).headers
    assert headers["x-amz-server-side-encryption"] == "aws:kms"
    assert headers["x-amz-server-side-encryption-aws-kms-key-id"] == "k1"
    assert headers["x-amz-server-side-encryption-bucket-key-enabled"] == "true"
    assert headers["x-amz-storage-class"] == "STANDARD_IA"
    assert headers["cache-control"] == "no-store"
    assert headers["x-amz-meta-app"] == "demo"
    assert headers["x-amz-tagging"] == "team=web"


@pytest.mark.parametrize("addressing", [None, "auto", "path"])
def test_a_server_is_addressed_by_path(server: ScriptedServer, addressing: str | None) -> None:
    asked = asked_by(server, Payload.of(b""), addressing=addressing)
    assert asked.path == "/sessions/app/k"


@pytest.mark.parametrize(
    ("endpoint", "addressing", "bucket", "expected"),
    [
        ("https://s3.example.org", "virtual", "sessions", "https://sessions.s3.example.org"),
        (None, None, "sessions", "true"),
        (None, "path", "sessions", "false"),
        (None, None, "dotted.name", "false"),
    ],
)
def test_the_bucket_in_the_host(
    endpoint: str | None, addressing: str | None, bucket: str, expected: Any
) -> None:
    options = Options("s3://x", bucket, "", endpoint_url=endpoint, addressing=addressing)
    config: Any = make_store(options).config
    assert str(config.get("endpoint") or config["virtual_hosted_style_request"]) == expected


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [(0, None, None), (5, None, "bytes=5-"), (0, 5, "bytes=0-4"), (5, 1, "bytes=5-5")],
)
def test_ranges(
    server: ScriptedServer, start: int, length: int | None, expected: str | None
) -> None:
    last = 9 if length is None else start + length - 1
    date = {"Last-Modified": "Sun, 22 Nov 2026 18:35:30 GMT", "ETag": '"e"'}
    told = {**date, "Content-Range": f"bytes {start}-{last}/10"} if expected else date
    server.replies = [Reply(206 if expected else 200, b"x" * (last - start + 1), told)]
    with closing(client_of(server)) as client, client.get("k", start, length).stream as stream:
        assert len(stream.read()) == last - start + 1
    assert server.asked[0].headers.get("range") == expected


def test_a_store_that_ignores_ranges_gives_the_right_bytes(server: ScriptedServer) -> None:
    headers = {"Last-Modified": "Sun, 22 Nov 2026 18:35:30 GMT", "ETag": '"e"'}
    server.replies = [Reply(body=b"0123456789", headers=headers)]
    with closing(client_of(server)) as client, client.get("k", 3, 4).stream as stream:
        assert stream.read() == b"3456"


# What fails

FAILURES = [
    (403, "AccessDenied", SettingsError, "lack the permission s3:PutObject; grant it"),
    (403, "SignatureDoesNotMatch", SettingsError, "the secret key does not match the access key"),
    (403, "InvalidAccessKeyId", SettingsError, "does not know the access key"),
    (400, "ExpiredToken", SettingsError, "the credentials have expired"),
    (404, "NoSuchBucket", SettingsError, "there is no bucket 'sessions'"),
    (301, "PermanentRedirect", SettingsError, "set region to that"),
    (400, "InvalidStorageClass", SettingsError, "check sse, kms_key_id and put_args"),
    (503, "SlowDown", BackendUnavailable, "the store is overloaded (SlowDown)"),
    (500, "InternalError", BackendUnavailable, "the store failed (InternalError: it broke)"),
    (507, "XMinioStorageFull", LimitExceeded, "the store has no space left"),
    (418, "Teapot", BackendUnavailable, "the store answered Teapot: it broke"),
]


@pytest.mark.parametrize(("status", "code", "kind", "words"), FAILURES)
def test_an_answer_that_says_no_is_ours(
    server: ScriptedServer, status: int, code: str, kind: type[Exception], words: str
) -> None:
    server.replies = [refusal(status, code, "it broke")]
    with closing(client_of(server)) as client:
        with pytest.raises(kind) as raised:
            client.put("k", Payload.of(b"x"))
        assert words in str(raised.value)
        assert raised.value.__cause__ is not None
        client.opening = False
        with pytest.raises(SessionStoreError) as raised_later:
            client.put("k", Payload.of(b"x"))
    assert not isinstance(raised_later.value, SettingsError)


def test_a_missing_object_is_not_found(server: ScriptedServer) -> None:
    server.replies = [refusal(404, "NoSuchKey")]
    with closing(client_of(server)) as client, pytest.raises(NotFound):
        client.get("k")


def test_nobody_answers() -> None:
    client = ObstoreClient(options_for("http://127.0.0.1:1"))
    with pytest.raises(BackendUnavailable, match=r"nothing answers at http://127\.0\.0\.1:1"):
        client.put("k", Payload.of(b"x"))
    client.close()


def test_bytes_that_break_off_are_an_error(server: ScriptedServer) -> None:
    told = {"Last-Modified": "Sun, 22 Nov 2026 18:35:30 GMT", "ETag": '"e"'}
    server.replies = [Reply(200, b"short", told, length=10)]
    with closing(client_of(server)) as client:
        client.opening = False
        with client.get("k").stream as stream, pytest.raises(BackendUnavailable):
            stream.read()


@pytest.mark.parametrize("size", [5, PIECE + 1])
def test_a_response_has_its_etag_also_when_its_bytes_are_read(
    server: ScriptedServer, size: int
) -> None:
    server.replies = [Reply(200, b"x" * size, TOLD)]
    with closing(client_of(server)) as client:
        stream, etag, _ = client.get("k")
        with stream:
            assert stream.read() == b"x" * size
        assert etag() == '"e"'


PAGE = b"<html><body>Please log in</body></html>"
TOLD = {"Last-Modified": "Sun, 22 Nov 2026 18:35:30 GMT", "ETag": '"e"'}


@pytest.mark.parametrize("opening", [True, False])
@pytest.mark.parametrize("prefix", ["b/", "s/", "i/", "s/x/", "b/ab/cd", "layout"])
def test_a_web_page_is_no_empty_listing(server: ScriptedServer, prefix: str, opening: bool) -> None:
    server.replies = [Reply(body=PAGE, headers=TOLD)]
    with closing(client_of(server)) as client:
        client.opening = opening
        with pytest.raises(BackendUnavailable, match="see what answers at this URL"):
            list(client.list(prefix))


def test_an_empty_listing_counts_where_the_marker_is(server: ScriptedServer) -> None:
    marker = Reply(body=b'{"version": 1}', headers=TOLD)
    server.replies = [listing(), marker, listing(), listing(), listing(), marker]
    with closing(client_of(server)) as client:
        client.opening = False
        assert [list(page.entries) for page in client.list("s/x/")] == [[]]
        assert [list(page.entries) for page in client.list("b/ab/cd/")] == [[]]
        assert len(server.asked) == 3  # the marker was there just now, and nothing hangs on it
        assert [list(page.entries) for page in client.list("s/")] == [[]]
    assert len(server.asked) == 6


def keys_of(pages: Iterable[Page]) -> list[str]:
    return [entry.key for page in pages for entry in page.entries]


def test_a_listing_that_a_sweep_relies_on_is_not_believed_to_be_empty(
    server: ScriptedServer,
) -> None:
    """An error that comes with 200 looks like the end of a listing."""
    broken = Reply(body=refusal(200, "InternalError").body)
    server.replies = [broken, listing("app/s/x/f/a"), listing()]
    with closing(client_of(server)) as client:
        assert keys_of(client.list("s/")) == ["s/x/f/a"]


@pytest.mark.parametrize("size", [BATCH, 7])  # a store may send shorter pages
def test_nor_to_end_where_a_page_ends(server: ScriptedServer, size: int) -> None:
    keys = [f"app/s/x/{number:04}" for number in range(size + 1)]
    first = listing(*keys[:size], IsTruncated="true", NextContinuationToken="more")
    broken = Reply(body=refusal(200, "InternalError").body)
    server.replies = [first, broken, listing(keys[size]), listing()]
    with closing(client_of(server)) as client:
        assert len(keys_of(client.list("s/"))) == size + 1


def test_a_store_that_lost_its_marker_lists_nothing(server: ScriptedServer) -> None:
    server.replies = [listing(), listing(), refusal(404, "NoSuchKey")]
    with closing(client_of(server)) as client:
        assert [list(page.entries) for page in client.list("s/")] == [[]]  # it may be a new one
        client.opening = False
        server.asked.clear()
        with pytest.raises(BackendUnavailable, match="'layout' is not there either"):
            list(client.list("s/"))


def test_a_closed_client_says_so(server: ScriptedServer) -> None:
    client = client_of(server)
    client.close()
    with pytest.raises(BackendUnavailable, match="the store is closed"):
        client.put("k", Payload.of(b"x"))
    assert server.asked == []


# Listing


def test_a_listing_without_order_is_refused(server: ScriptedServer) -> None:
    server.replies = [listing("app/s/b", "app/s/a")]
    client = client_of(server)
    with pytest.raises(
        BackendUnavailable, match="does not list them in order, which engine=obstore needs"
    ):
        list(client.list("s/a"))
    client.close()


def test_a_store_that_gives_the_same_page_for_ever_is_refused(server: ScriptedServer) -> None:
    server.replies = [listing("app/s/a/1", "app/s/b/1")]
    with (
        closing(client_of(server)) as client,
        pytest.raises(BackendUnavailable, match="does not list them in order"),
    ):
        list(client.list("s/"))


def test_nor_are_pages_in_turns_taken_for_ever(server: ScriptedServer) -> None:
    one, other, end = listing("app/s/a/1"), listing("app/s/b/1"), listing()
    server.replies = [one, other, one, other, one, end]
    with (
        closing(client_of(server)) as client,
        pytest.raises(BackendUnavailable, match="does not list them in order"),
    ):
        list(client.list("s/"))


def test_the_end_is_looked_for_where_the_store_s_order_ends(server: ScriptedServer) -> None:
    """SeaweedFS sorts the names of each directory: what comes last need not be the greatest."""
    keys = ["s/x/f/a/1", "s/x/f/a!b/1"]
    server.replies = [listing(*(f"app/{key}" for key in keys)), listing()]
    with closing(client_of(server)) as client:
        assert keys_of(client.list("s/")) == keys
    (_, again) = server.asked
    assert parse_qs(urlsplit(again.path).query)["start-after"] == [f"app/{keys[-1]}"]


@pytest.mark.parametrize("prefix", ["seen.", "s/x/ended.", "b/ab/cd!", "i/a-", "layout", "a/b/c0"])
def test_a_key_that_nothing_stands_before(prefix: str) -> None:
    before = obstore_client._just_before(prefix).replace("~", "%7E")
    assert before < prefix
    assert not prefix.startswith(before)


@pytest.mark.server
def test_listings_are_those_of_boto3(obstore_bucket: Bucket, prefix: str) -> None:
    client, other = obstore_bucket.client(prefix), obstore_bucket.boto3_client(prefix)
    names = ["a", "a-1", "a.b", "a/1", "a/1.x", "a/10", "a/2", "a/2/3", "b/1", "layout"]
    names += ["s/x/f/a/1", "s/x/f/a!b/1"]  # as SeaweedFS sorts them
    for name in names:
        client.put(name, Payload.of(b'"version"'))
    for start, after in itertools.product(
        ["", "a/", "a", "a/1", "a/1.", "a/2", "b/", "s/", "z", "layout", "nothing/"],
        ["", "a/1", "a/10", "a-"],
    ):
        found, expected = (
            [list(page.entries) for page in each.list(start, start_after=after)]
            for each in (client, other)
        )
        flat = [entry for page in found for entry in page]
        assert [it._replace(modified=_second(it)) for it in flat] == [
            it._replace(modified=_second(it)) for page in expected for it in page
        ]
        assert len(found) >= 1


def _second(entry: Entry) -> datetime:
    return entry.modified.astimezone(UTC).replace(microsecond=0)


@pytest.mark.server
def test_more_than_one_page(obstore_bucket: Bucket, prefix: str) -> None:
    client = obstore_bucket.client(prefix)
    for number in range(BATCH + 5):
        client.put(f"s/{number:05}", Payload.of(b""))
    pages = [len(page.entries) for page in client.list("s/")]
    assert pages == [BATCH, 5]
    client.delete([f"s/{number:05}" for number in range(BATCH)])
    assert len(obstore_bucket.keys(prefix)) == 5


# Large objects


@pytest.mark.server
@pytest.mark.parametrize("size", [WHOLE, WHOLE + 1, 3 * WHOLE + 17])
def test_large_objects_go_and_come_back(obstore_bucket: Bucket, prefix: str, size: int) -> None:
    client, data = obstore_bucket.client(prefix), os.urandom(size)
    assert not isinstance(client, Multipart)
    client.put("large", Payload(io.BytesIO(b"--" + data + b"--"), 2, size))
    with client.get("large").stream as stream:
        assert stream.read() == data
    with client.get("large", size - 10).stream as stream:
        assert stream.read() == data[-10:]
    assert list(client.uploads("")) == []


@pytest.mark.server
@pytest.mark.parametrize("step", [1000, PIECE - 1, PIECE, PIECE + 1])
def test_an_object_is_read_in_steps_of_any_size(
    obstore_bucket: Bucket, prefix: str, step: int
) -> None:
    client, data = obstore_bucket.client(prefix), os.urandom(2 * PIECE + 17)
    client.put("k", Payload(data, 0, len(data)))
    with client.get("k", 5).stream as stream:
        assert b"".join(iter(lambda: stream.read(step), b"")) == data[5:]
    with io.BufferedReader(cast("io.RawIOBase", client.get("k").stream), step) as buffered:
        assert buffered.read() == data


@pytest.mark.server
def test_an_upload_whose_source_fails_leaves_nothing(obstore_bucket: Bucket, prefix: str) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 2 * WHOLE:
                raise OSError(5, "Input/output error")
            return super().read(size)

    client = obstore_bucket.client(prefix)
    with pytest.raises(BackendUnavailable, match="Input/output error"):
        client.put("large", Payload(Failing(bytes(3 * WHOLE)), 0, 3 * WHOLE))
    assert obstore_bucket.keys(prefix) == []
    assert list(client.uploads("")) == []


@pytest.mark.server
def test_uploads_of_others_are_found_and_aborted(obstore_bucket: Bucket, prefix: str) -> None:
    client, other = obstore_bucket.client(prefix), obstore_bucket.boto3_client(prefix)
    upload = other.begin("large")
    assert [(it.key, it.id) for it in client.uploads("")] == [("large", upload)]
    client.abort("large", upload)
    assert list(client.uploads("")) == []


def test_without_boto3_uploads_are_nobody_s(server: ScriptedServer) -> None:
    with closing(client_of(server)) as client:
        client.sees_uploads = False
        assert list(client.uploads("")) == []
        with pytest.raises(SettingsError, match=r"pip install 'sessionstore\[s3\]'"):
            client.sign("k", media_type="a/b", disposition="inline", expires=timedelta(minutes=1))


# After a fork

FORKED = """
import logging, os, signal, sys, warnings
warnings.simplefilter("ignore")  # Python's own, about forks beside threads
from sessionstore import SessionStore
logging.basicConfig(stream=sys.stderr)
store = SessionStore.open(sys.argv[1] + "&engine=obstore")
store.session("a").put("mine", b"parent")
pid = os.fork()
if pid == 0:
    signal.alarm(240)  # its end, should it wait for threads that are not there
    assert store.session("a").read("mine") == b"parent"
    store.session("a").put("theirs", b"child")
    with SessionStore.open(sys.argv[1] + "&engine=obstore") as another:
        assert another.session("a").read("theirs") == b"child"
    sys.stderr.flush()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
for number in range(50):
    store.session("a").put(f"{number}", b"x" * number)
assert store.session("a").read("theirs") == b"child"
store.close()
"""


@pytest.mark.server
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_goes_on_with_boto3_and_leaves_the_parent_alone(
    seaweed_server: seaweed.Server, prefix: str
) -> None:
    command = [sys.executable, "-c", FORKED, seaweed_server.url(prefix)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert "boto3 makes the requests to" in done.stderr
    assert "here. Open the store after the fork." in done.stderr


def test_without_boto3_a_fork_is_told_what_to_do(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(client_of(server)) as client:
        monkeypatch.setattr(obstore_client._process, "lost", True)
        client.sees_uploads = False
        with pytest.raises(BackendUnavailable, match="Open the store after the fork, or install"):
            client.put("k", Payload.of(b"x"))
