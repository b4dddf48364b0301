"""The whole contract by s3fs, on moto's server and on SeaweedFS: minutes of it.

    python -m pytest tests/campaigns/contract_s3fs.py

tests/s3/test_fsspec_s3.py is what every run of the tests tries.
"""

from __future__ import annotations

import pytest

from sessionstore.backends.fsspec.protocols import Where
from sessionstore.testing import Subject, overrides_contract
from sessionstore.testing.contract import memory
from tests.fsspec.test_contract import FsspecContract
from tests.s3.conftest import _no_aws, moto_bucket, prefix, seaweed_bucket, seaweed_server
from tests.s3.place import Bucket
from tests.s3.test_fsspec_s3 import where_at

__all__ = ["_no_aws", "moto_bucket", "prefix", "seaweed_bucket", "seaweed_server"]


class TestS3fsOnMoto(FsspecContract):
    @pytest.fixture
    def where(self, moto_bucket: Bucket, prefix: str) -> Where:
        return where_at(moto_bucket.endpoint, prefix)

    @pytest.fixture(autouse=True)
    def _has_memory_of_its_own(self, request: pytest.FixtureRequest) -> None:
        if request.function.__name__.endswith(("takes_little_memory", "take_no_memory")):
            pytest.skip("moto's server is in this process; TestS3fsOnSeaweed looks at memory")


@pytest.mark.server
class TestS3fsOnSeaweed(FsspecContract):
    @pytest.fixture
    def where(self, seaweed_bucket: Bucket, prefix: str) -> Where:
        return where_at(seaweed_bucket.endpoint, prefix)

    @overrides_contract("s3fs holds a part of 5 MiB three times while it sends it.")
    def test_saving_a_large_file_takes_little_memory(self, subject: Subject) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(memory, "ALLOWANCE", 20 << 20)
            super().test_saving_a_large_file_takes_little_memory(subject)
