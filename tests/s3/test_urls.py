"""Signed URLs, on a server that checks the signature."""

from __future__ import annotations

import urllib.error
import urllib.request
from datetime import timedelta
from http.client import HTTPMessage
from urllib.parse import parse_qs, urlsplit

import pytest

from sessionstore import SessionStore
from sessionstore.backend import SignsUrls
from sessionstore.backends.s3 import S3Backend
from sessionstore.media import disposition
from sessionstore.testing import FakeClock, Subject
from sessionstore.testing.subject import ALICE
from tests.s3.place import Bucket
from tests.support import seaweed

MINUTE = timedelta(minutes=1)

pytestmark = pytest.mark.server


@pytest.fixture
def subject(seaweed_bucket: Bucket, prefix: str) -> Subject:
    return Subject(lambda _: S3Backend(seaweed_bucket.client(prefix)), FakeClock())


def fetch(url: str) -> tuple[bytes, HTTPMessage]:
    with urllib.request.urlopen(url) as answer:
        return answer.read(), answer.headers


def url_of(subject: Subject, name: str, media_type: str, *, expires: timedelta = MINUTE) -> str:
    reference = subject.put(name, b"content of " + name.encode()).reference
    assert isinstance(subject.backend, SignsUrls)
    return subject.backend.url(
        ALICE.sid,
        reference,
        media_type=media_type,
        disposition=disposition(name, media_type),
        expires=expires,
    )


@pytest.mark.parametrize(
    ("name", "media_type", "expected"),
    [
        ("cat.png", "image/png", 'inline; filename="cat.png"'),
        ("page.html", "text/html", 'attachment; filename="page.html"'),
        ("é.txt", "text/plain", "inline; filename=\"_.txt\"; filename*=UTF-8''%C3%A9.txt"),
    ],
)
def test_url_gives_the_file_its_type_and_its_name(
    subject: Subject, name: str, media_type: str, expected: str
) -> None:
    body, headers = fetch(url_of(subject, name, media_type))
    assert body == b"content of " + name.encode()
    assert headers["Content-Type"] == media_type
    assert headers["Content-Disposition"] == expected


def test_a_stored_file_is_served_by_the_bucket(seaweed_server: seaweed.Server, prefix: str) -> None:
    with SessionStore.open(seaweed_server.url(prefix), redirect=True) as store:
        file = store.session("visitor").put("cat.png", b"cat")
        body, headers = fetch(file.url())
    assert body == b"cat"
    assert headers["Content-Type"] == "image/png"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("text%2Fhtml", "image%2Fpng"),
        ("attachment", "inline"),
        ("X-Amz-Expires=60", "X-Amz-Expires=600"),
        ("/b/", "/s/"),
    ],
)
def test_a_url_that_was_changed_gives_nothing(subject: Subject, old: str, new: str) -> None:
    url = url_of(subject, "page.html", "text/html")
    assert old in url
    with pytest.raises(urllib.error.HTTPError) as raised:
        fetch(url.replace(old, new))
    with raised.value as error:
        assert error.code in {403, 404}


def test_url_is_signed_for_the_time_asked_for(subject: Subject) -> None:
    url = url_of(subject, "cat.png", "image/png", expires=timedelta(minutes=5))
    query = parse_qs(urlsplit(url).query)
    assert query["X-Amz-Expires"] == ["300"]
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]


@pytest.mark.parametrize("seconds", [-1, 0, 0.5, 300.1, 3600])
def test_other_times_are_refused(subject: Subject, seconds: float) -> None:
    with pytest.raises(ValueError, match="expires must be from 1 second to 5 minutes"):
        url_of(subject, "cat.png", "image/png", expires=timedelta(seconds=seconds))
