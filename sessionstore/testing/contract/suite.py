"""The contract of a backend, as one test class to inherit."""

from __future__ import annotations

from sessionstore.testing.contract.content import Collects, KeepsOnce
from sessionstore.testing.contract.deletion import DropsSessions, ForgetsFiles
from sessionstore.testing.contract.memory import IsBounded
from sessionstore.testing.contract.optional import ABILITIES
from sessionstore.testing.contract.reading import KeepsFiles, StreamsRanges
from sessionstore.testing.contract.saving import FailsCleanly, ReplacesAtomically
from sessionstore.testing.contract.sessions import KeepsApart, SessionsHaveActivity
from sessionstore.testing.subject import Subject


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
    ``Alone``, ``LateReclaim``, ``Lease``, ``Surveyed``, ``SignedUrls``, ``SignedParts``,
    ``Restored``, ``Inspected``, ``DetectsDamage``, ``Forgotten``, ``Recent``) is a class to inherit
    beside this one. A test with the name of a test of the contract raises TypeError, unless
    ``overrides_contract`` gives a reason.
    """

    def test_every_ability_it_has_is_tested(self, subject: Subject) -> None:
        has = {
            tests for protocol, tests in ABILITIES.items() if isinstance(subject.backend, protocol)
        }
        tested = {tests for tests in ABILITIES.values() if isinstance(self, tests)}
        assert tested == has, "Inherit the test class of each optional ability, and no other."
