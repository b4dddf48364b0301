"""What ``make gradio-suite`` concludes from the two runs; the runs themselves take it minutes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.gradio_suite.__main__ import (
    DELIBERATE,
    FILES,
    READ_BACKS,
    RERUNS,
    Run,
    Suite,
    compare,
)

TEST = "test/test_a.py::test_it"
FILE = "test/test_state_holder.py"
PASSED = "passed"
FAILED = "failed"
ENOUGH = READ_BACKS + 1


class Scripted(Suite):
    """Runs nothing: ``alone`` has the outcomes of the test's reruns, in order, by side."""

    whole: Mapping[bool, dict[str, str]]
    alone: Mapping[bool, list[str]]
    read_backs: int

    def run(self, what: str, *, attached: bool) -> Run:
        if what == TEST:
            return Run({TEST: self.alone[attached].pop(0)})
        assert what == FILE
        counts = {"read-backs": self.read_backs} if attached else {}
        return Run(self.whole[attached], Counter(counts))


def same(
    plain: dict[str, str],
    attached: dict[str, str],
    alone: tuple[list[str], list[str]] = ([], []),
    read_backs: int = ENOUGH,
) -> bool:
    suite = Scripted(Path("/nowhere"), Path("/nothing"))
    scripted = {
        "whole": {False: plain, True: attached},
        "alone": dict(zip((False, True), alone, strict=True)),
        "read_backs": read_backs,
    }
    vars(suite).update(scripted)
    return compare(suite, FILES[:1])


def test_the_same_failures_are_fine() -> None:
    assert same({TEST: FAILED, "other": PASSED}, {TEST: FAILED, "other": PASSED})


def test_a_failure_that_only_an_attached_demo_has_is_not() -> None:
    passes, fails = [PASSED] * RERUNS, [FAILED] * RERUNS

    assert not same({TEST: PASSED}, {TEST: FAILED}, (passes, fails))


def test_failing_once_alone_is_a_failure_too() -> None:
    once = [PASSED, FAILED, PASSED]

    assert not same({TEST: PASSED}, {TEST: FAILED}, ([PASSED] * RERUNS, once))


def test_a_test_that_passes_alone_on_both_sides_is_fine() -> None:
    assert same({TEST: PASSED}, {TEST: FAILED}, ([PASSED] * RERUNS, [PASSED] * RERUNS))


def test_a_test_that_fails_alone_on_both_sides_is_fine() -> None:
    at_times = [FAILED, PASSED, PASSED]

    assert same({TEST: FAILED}, {TEST: PASSED}, ([*at_times], [*at_times]))


def test_a_test_that_one_side_never_ran_is_a_difference() -> None:
    alone = ([PASSED] * RERUNS, ["missing"] * RERUNS)

    assert not same({TEST: PASSED}, {}, alone)


def test_what_is_changed_on_purpose_has_to_fail() -> None:
    changed = next(iter(DELIBERATE))

    assert same({changed: PASSED}, {changed: FAILED})
    assert not same({changed: PASSED}, {changed: PASSED})


def test_too_few_files_read_back_prove_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert not same({TEST: PASSED}, {TEST: PASSED}, read_backs=READ_BACKS)
    assert "Too few files were read back" in capsys.readouterr().out
