"""Bytes that are damaged on their way to a real server, over http, are not taken for saved."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sessionstore import BackendUnavailable, SessionStore
from sessionstore.backends.s3 import S3Backend
from tests.campaigns.proxy import Proxy, Request
from tests.support import seaweed

PART = 5 << 20
SIZES = {"small": 100, "streamed": 1 << 20, "in parts": PART + 1000}


@pytest.fixture
def proxy(seaweed_server: seaweed.Server) -> Iterator[Proxy]:
    with Proxy(seaweed_server.endpoint, lambda _: None, lateness=(0, 0)) as proxy:
        yield proxy


@pytest.fixture(params=["sha256", "blake3"])
def digest(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["boto3", "obstore"])
def store(
    request: pytest.FixtureRequest, proxy: Proxy, prefix: str, digest: str
) -> Iterator[SessionStore]:
    url = f"s3://{seaweed.BUCKET}/{prefix}?endpoint_url={proxy.endpoint}"
    with SessionStore.open(url, digest=digest, engine=request.param) as store:
        assert isinstance(store.backend, S3Backend)
        store.backend.writer.multipart_above = store.backend.writer.part_size = PART
        yield store


def is_content(request: Request) -> bool:
    return request.method == "PUT" and "/b/" in request.path


@pytest.mark.server
@pytest.mark.parametrize("size", SIZES)
def test_content_that_was_damaged_on_its_way_is_not_saved(
    proxy: Proxy, store: SessionStore, size: str
) -> None:
    proxy.plan = lambda request: "flipped" if is_content(request) else None
    session = store.session("visitor")
    with pytest.raises(BackendUnavailable):
        session.put("a", bytes(SIZES[size]))
    assert proxy.faults["flipped"] >= 1
    proxy.plan = lambda _: None
    assert session.files() == []
    session.put("a", bytes(SIZES[size]))
    assert session.read("a") == bytes(SIZES[size])
