"""Tools for tests of backends and of apps: a contract, a state machine, faults, a fake clock.

* ``BackendContract``: inherit it to test every promise of a backend.
* ``machine_for``: a state machine that compares a backend with the memory backend.
* ``FaultyBackend``: a wrapper for any backend that injects faults by a plan.
* ``FakeClock``: a clock that a test moves; other threads wait by it.

Needs pytest and hypothesis: ``pip install pytest hypothesis``.
"""

from __future__ import annotations

from typing import Final

import pytest

_WITH_ASSERTS: Final = ("contract", "machine", "subject")

# pytest must know these modules before they are imported. It then rewrites their assert statements,
# so that a failed one shows its values as in a test file.
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _WITH_ASSERTS))

from sessionstore.testing.clock import FakeClock  # noqa: E402 - after the line above
from sessionstore.testing.contract.base import overrides_contract  # noqa: E402 - likewise
from sessionstore.testing.contract.optional import (  # noqa: E402 - likewise
    Alone,
    DetectsDamage,
    Forgotten,
    FreeSpace,
    Inspected,
    LateReclaim,
    Lease,
    Omitted,
    Recent,
    Restored,
    Secret,
    SignedParts,
    SignedUrls,
    Surveyed,
)
from sessionstore.testing.contract.suite import BackendContract  # noqa: E402 - likewise
from sessionstore.testing.faulty import (  # noqa: E402 - likewise
    Call,
    Fault,
    FaultyBackend,
    Plan,
    disk_full,
    either,
    no_faults,
    on,
    sometimes,
    unavailable,
)
from sessionstore.testing.machine import BackendMachine, machine_for  # noqa: E402 - likewise
from sessionstore.testing.subject import OpenBackend, Subject  # noqa: E402 - likewise

__all__ = [
    "Alone",
    "BackendContract",
    "BackendMachine",
    "Call",
    "DetectsDamage",
    "FakeClock",
    "Fault",
    "FaultyBackend",
    "Forgotten",
    "FreeSpace",
    "Inspected",
    "LateReclaim",
    "Lease",
    "Omitted",
    "OpenBackend",
    "Plan",
    "Recent",
    "Restored",
    "Secret",
    "SignedParts",
    "SignedUrls",
    "Subject",
    "Surveyed",
    "disk_full",
    "either",
    "machine_for",
    "no_faults",
    "on",
    "overrides_contract",
    "sometimes",
    "unavailable",
]
