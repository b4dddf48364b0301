"""The whole contract of a backend, as one class to inherit."""

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
from sessionstore.testing.apart import KeepsApart
from sessionstore.testing.bounded import IsBounded
from sessionstore.testing.collects import Collects
from sessionstore.testing.drops import DropsSessions
from sessionstore.testing.fails import FailsCleanly
from sessionstore.testing.forgets import ForgetsFiles
from sessionstore.testing.keeps import KeepsFiles
from sessionstore.testing.once import KeepsOnce
from sessionstore.testing.optional import (
    Alone,
    FreeSpace,
    Inspected,
    LateReclaim,
    Omitted,
    Restored,
    Secret,
    SignedUrls,
)
from sessionstore.testing.ranges import StreamsRanges
from sessionstore.testing.replaces import ReplacesAtomically
from sessionstore.testing.rig import Rig
from sessionstore.testing.sessions import SessionsHaveActivity
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
"""Each optional protocol of ``sessionstore.backend``, and the tests for it."""


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
    """What every backend promises, as tests.

    A test file for a backend is a class with one fixture, which gives a function that opens a
    place made for this test::

        from sessionstore.backend import Location
        from sessionstore.testing import BackendContract, FreeSpace, OpenBackend

        class TestRedisBackend(BackendContract, FreeSpace):
            rechecks_after = timedelta(seconds=2)

            @pytest.fixture
            def open_backend(self, redis_server) -> OpenBackend:
                location = Location(redis_server.url, "redis", redis_server.host, "/0")
                return lambda clock: RedisBackend.connect(location, {}, clock)

    ``Rig`` has what may be set. Optional abilities (``FreeSpace``, ``Secret``, ``Alone``,
    ``LateReclaim``, ``SignedUrls``, ``Restored``, ``Inspected``, ``DetectsDamage``) are classes of
    their own to inherit beside this one. A test of the same name as one of the contract's is
    refused, unless ``overrides_contract`` gives a reason.
    """

    def test_every_ability_it_has_is_tested(self, subject: Subject) -> None:
        has = {
            tests for protocol, tests in ABILITIES.items() if isinstance(subject.backend, protocol)
        }
        tested = {tests for tests in ABILITIES.values() if isinstance(self, tests)}
        assert tested == has, "Inherit the test class of each optional ability, and no other."
