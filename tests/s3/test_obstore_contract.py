"""The contract and the state machine with obstore as the engine, on SeaweedFS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.s3.place import Bucket
from tests.s3.test_s3_contract import S3Contract, _place, machine


@pytest.mark.server
class TestObstoreOnSeaweed(S3Contract):
    @pytest.fixture
    def bucket(self, obstore_bucket: Bucket) -> Bucket:
        return obstore_bucket


@pytest.fixture
def with_obstore(obstore_bucket: Bucket) -> Iterator[None]:
    _place[:] = [obstore_bucket]
    yield
    _place.clear()


TestMachineWithObstore = pytest.mark.server(pytest.mark.usefixtures("with_obstore")(machine(4)))
