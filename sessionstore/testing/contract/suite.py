"""The contract of a backend, as one test class to inherit."""

from __future__ import annotations

from typing import Final

from sessionstore.backend import (
    HasFreeSpace,
    Inspects,
    KeepsSecret,
    KnowsIfAlone,
    Omits,
    ReclaimsLate,
    Restores,
    SignsUrls,
)
from sessionstore.testing.contract.activity import SessionsHaveActivity
from sessionstore.testing.contract.atomicity import ReplacesAtomically
from sessionstore.testing.contract.base import Rig
from sessionstore.testing.contract.collection import Collects
from sessionstore.testing.contract.deduplication import KeepsOnce
from sessionstore.testing.contract.deletion import ForgetsFiles
from sessionstore.testing.contract.dropping import DropsSessions
from sessionstore.testing.contract.durability import KeepsFiles
from sessionstore.testing.contract.failures import FailsCleanly
from sessionstore.testing.contract.isolation import KeepsApart
from sessionstore.testing.contract.memory import IsBounded
from sessionstore.testing.contract.optional import (
    Alone,
    FreeSpace,
    Inspected,
    LateReclaim,
    Omitted,
    Restored,
    Secret,
    SignedUrls,
)
from sessionstore.testing.contract.ranges import StreamsRanges
from sessionstore.testing.subject import Subject

ABILITIES: Final[dict[type, type[Rig]]] = {
    HasFreeSpace: FreeSpace,
    Inspects: Inspected,
    KeepsSecret: Secret,
    KnowsIfAlone: Alone,
    Omits: Omitted,
    ReclaimsLate: LateReclaim,
    Restores: Restored,
    SignsUrls: SignedUrls,
}
"""The test class of each optional protocol of ``sessionstore.backend``."""


class BackendContract(
    KeepsFiles,
    ReplacesAtomically,
    KeepsOnce,
    KeepsApart,
    ForgetsFiles,
    SessionsHaveActivity,
    DropsSessions,
    Collects,
    FailsCleanly,
    StreamsRanges,
    IsBounded,
):
    """Tests of every promise that all backends make.

    The test file of a backend is a class with one fixture. The fixture returns a function that
    opens a place (a directory, a bucket) made for this test::

        from sessionstore.backend import Location
        from sessionstore.testing import BackendContract, FreeSpace, OpenBackend

        class TestRedisBackend(BackendContract, FreeSpace):
            rechecks_after = timedelta(seconds=2)

            @pytest.fixture
            def open_backend(self, redis_server) -> OpenBackend:
                location = Location(redis_server.url, "redis", redis_server.host, "/0")
                return lambda clock: RedisBackend.connect(location, {}, clock)

    ``Rig`` lists the attributes that may be set. Each optional ability (``FreeSpace``, ``Secret``,
    ``Alone``, ``LateReclaim``, ``SignedUrls``, ``Restored``, ``Inspected``, ``DetectsDamage``) is a
    class to inherit beside this one. A test with the name of a test of the contract raises
    TypeError, unless ``overrides_contract`` gives a reason.
    """

    def test_every_ability_it_has_is_tested(self, subject: Subject) -> None:
        has = {
            tests for protocol, tests in ABILITIES.items() if isinstance(subject.backend, protocol)
        }
        tested = {tests for tests in ABILITIES.values() if isinstance(self, tests)}
        assert tested == has, "Inherit the test class of each optional ability, and no other."
