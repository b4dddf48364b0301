"""Opening a store in a bucket: the marker, and the terms that all its processes agree on."""

from __future__ import annotations

import contextlib
import hashlib
import io
from datetime import timedelta

import pytest

from sessionstore.backend import Location
from sessionstore.backends.objects import ObjectBackend
from sessionstore.backends.objects.client import Download, Payload
from sessionstore.clock import SystemClock
from sessionstore.content import Content
from sessionstore.errors import BackendUnavailable, SettingsError
from sessionstore.testing import FakeClock
from sessionstore.testing.subject import ALICE
from tests.support.object_client import DatelessObjectClient, FakeBucket, FakeObjectClient

HOUR = timedelta(hours=1)


@pytest.fixture
def bucket() -> FakeBucket:
    return FakeBucket(FakeClock().now)


def opened(bucket: FakeBucket, **terms: object) -> ObjectBackend:
    return ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds, **terms)  # type: ignore[arg-type]  # checked where it is called


def test_a_new_store_has_the_usual_terms(bucket: FakeBucket) -> None:
    assert opened(bucket).terms.grace == HOUR
    assert opened(bucket).digest == "sha256"
    assert bucket.all_keys() == ["layout"]


def test_terms_are_the_store_s_when_none_are_given(bucket: FakeBucket) -> None:
    opened(bucket, grace=2 * HOUR, digest="blake3")
    again = opened(bucket)
    assert (again.terms.grace, again.digest) == (2 * HOUR, "blake3")


def test_another_grace_is_refused(bucket: FakeBucket) -> None:
    opened(bucket, grace=2 * HOUR)
    with pytest.raises(SettingsError, match=r"invalid grace=1h: .* made with 2h"):
        opened(bucket, grace=HOUR)


def test_another_digest_is_refused(bucket: FakeBucket) -> None:
    opened(bucket)
    with pytest.raises(SettingsError, match=r"invalid digest='blake3': .* made with 'sha256'"):
        opened(bucket, digest="blake3")


def test_a_later_layout_is_refused(bucket: FakeBucket) -> None:
    bucket.put("layout", b'{"version": 2, "digest": "sha256", "grace": 3600}')
    with pytest.raises(SettingsError, match="layout version 2"):
        opened(bucket)


@pytest.mark.parametrize("data", [b"", b"[]", b"hello", b'{"version": 1}', b"\xff"])
def test_somebody_else_s_layout_is_refused(bucket: FakeBucket, data: bytes) -> None:
    bucket.put("layout", data)
    with pytest.raises(SettingsError, match="another program"):
        opened(bucket)
    assert bucket.get("layout").data == data


def test_a_grace_that_makes_no_date_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 100 years"):
        ObjectBackend.options["grace"]("99999999d")


@pytest.mark.parametrize(
    ("text", "allowed"), [("10m", True), ("1h", True), ("9m59s", False), ("10s", False)]
)
def test_a_short_grace_is_refused(
    text: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SESSIONSTORE_TEST_GRACE", raising=False)
    if allowed:
        assert isinstance(ObjectBackend.options["grace"](text), timedelta)
    else:
        with pytest.raises(ValueError, match="at least 10m"):
            ObjectBackend.options["grace"](text)


@pytest.mark.parametrize(("text", "allowed"), [("10s", True), ("9s", False), ("0s", False)])
def test_tests_may_have_a_shorter_one(
    text: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSIONSTORE_TEST_GRACE", "1")
    if allowed:
        assert ObjectBackend.options["grace"](text) == timedelta(seconds=10)
    else:
        with pytest.raises(ValueError, match="at least 10s"):
            ObjectBackend.options["grace"](text)


def test_connect_hands_the_settings_on(bucket: FakeBucket) -> None:
    client = FakeObjectClient(bucket)

    class Engine(ObjectBackend):
        @classmethod
        def open_client(cls, *_: object) -> FakeObjectClient:
            return client

    location = Location("s3://bucket/prefix", "s3", "bucket", "/prefix")
    backend = Engine.connect(location, {"grace": 3 * HOUR, "digest": "blake3"}, SystemClock())
    assert (backend.terms.grace, backend.digest) == (3 * HOUR, "blake3")
    with pytest.raises(SettingsError):
        Engine.connect(location, {"grace": HOUR}, SystemClock())
    assert client.closed


def test_a_bucket_that_is_not_consistent_is_refused(bucket: FakeBucket) -> None:
    class Forgetful(DatelessObjectClient):
        def put(self, key: str, payload: Payload) -> None:
            if key == "layout":
                super().put(key, payload)

    with pytest.raises(BackendUnavailable, match="not strongly consistent"):
        ObjectBackend(Forgetful(bucket), elapsed=bucket.seconds)


class Garbling(FakeObjectClient):
    """A client whose next downloads of a small object come cut in half."""

    cut = 0

    def get(self, key: str, start: int = 0, length: int | None = None) -> Download:
        download = super().get(key, start, length)
        if not self.cut:
            return download
        self.cut -= 1
        return download._replace(stream=io.BytesIO(download.stream.read()[:5]))


@pytest.mark.parametrize(("cut", "opens"), [(2, True), (3, False)])
def test_a_layout_that_came_cut_is_asked_for_again(
    bucket: FakeBucket, cut: int, opens: bool
) -> None:
    ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds)
    client = Garbling(bucket)
    client.cut = cut
    with contextlib.nullcontext() if opens else pytest.raises(SettingsError):
        ObjectBackend(client, elapsed=bucket.seconds)


def test_a_name_that_came_cut_is_asked_for_again(bucket: FakeBucket) -> None:
    client = Garbling(bucket)
    backend = ObjectBackend(client, elapsed=bucket.seconds)
    data = memoryview(b"cat")
    content = Content(hashlib.sha256(data).hexdigest(), 3, data=data)
    backend.put(ALICE, "Ü" * 120, content)
    client.cut = 2
    assert [it.name for it in backend.files(ALICE.sid)] == ["Ü" * 120]
