"""System calls of every operation fail in turn, and the process dies once at every one of them.

Systematic, not random: the calls of an operation are counted in a first run. Each is made to fail
with EIO and with ENOSPC; with the errors of ``tests.campaigns.faults_local`` a part of them, drawn
from a seed, since all of them take the minutes of a campaign.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sessionstore import SessionStore
from tests.campaigns.faults_local import (
    OPERATIONS,
    Fault,
    Operation,
    calls_of,
    check,
    one_case,
    prepared,
    run,
)

REPAIR = pytest.mark.parametrize("repair", [True, False], ids=["repaired", "saved over"])


@REPAIR
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda it: it.__name__)
def test_every_call_fails_in_turn(
    operation: Operation, code: int, repair: bool, tmp_path: Path
) -> None:
    total = calls_of(operation, tmp_path / "count")
    assert total > 5
    for number in range(1, total + 1):
        one_case(operation, number, code, tmp_path / f"{number}", repair=repair)


def test_some_calls_fail_with_every_error(tmp_path: Path) -> None:
    tally = run(tmp_path, every=20, seed=1)
    assert tally.wrong == []
    assert tally.cases > tally.failed > 60


@REPAIR
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda it: it.__name__)
def test_the_process_dies_at_every_call(operation: Operation, repair: bool, tmp_path: Path) -> None:
    total = calls_of(operation, tmp_path / "count")
    for number in range(1, total + 1):
        root = tmp_path / f"{number}"
        with prepared(root):
            pass
        pid = os.fork()
        if pid == 0:
            store = SessionStore.open(root)
            with Fault(number, lambda: os._exit(9)).armed():
                operation(store.session("one"))
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (0, 9)
        check(root, operation, repair=repair)
