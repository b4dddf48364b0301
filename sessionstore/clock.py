"""The source of time. Policy code never reads a clock of its own."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """A source of time, and a way to wait that a test can move.

    ``sessionstore.testing.FakeClock`` is the one for tests.
    """

    def now(self) -> datetime:
        """Return the time as an aware UTC datetime."""
        ...

    def wait(self, condition: threading.Condition, seconds: float) -> None:
        """Wait on ``condition``, which the caller holds, for at most ``seconds``."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def wait(self, condition: threading.Condition, seconds: float) -> None:
        condition.wait(seconds)
