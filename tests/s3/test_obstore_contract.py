"""The contract, the state machine and the explorer with obstore as the engine, on SeaweedFS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sessionstore.backends.objects import ObjectBackend
from tests.campaigns.explore_engines import buckets
from tests.explorer.__main__ import explore, explore_variant
from tests.explorer.variants import VARIANTS
from tests.s3.place import Bucket
from tests.s3.test_contract import S3Contract, _place, machine


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

FIRST = 20261125


@pytest.mark.server
def test_the_explorer_with_a_real_engine(obstore_bucket: Bucket) -> None:
    """The short form of tests/campaigns/explore_engines.py."""
    make = buckets("obstore", obstore_bucket.endpoint)
    report = explore(ObjectBackend, range(FIRST, FIRST + 15), make_bucket=make)
    assert report.runs == 15
    assert [(run.seed, run.wrong) for run in report.failed] == []


@pytest.mark.server
def test_the_explorer_catches_a_broken_variant_with_a_real_engine(obstore_bucket: Bucket) -> None:
    """The first seed that fails in memory fails here too, by the same steps."""
    (run,) = explore_variant("put-cancels-end", range(1, 10_001), stop=True).failed
    assert run.seed is not None
    make = buckets("obstore", obstore_bucket.endpoint)
    again = explore(VARIANTS["put-cancels-end"], [run.seed], make_bucket=make)
    assert [each.wrong for each in again.failed] == [run.wrong]
