"""The short form of ``make explore``: the object protocol under a seeded scheduler."""

from __future__ import annotations

import pytest

from sessionstore.backends.objects import ObjectBackend
from tests.explorer.__main__ import Explorer, explore, explore_variant, main
from tests.explorer.variants import NAMED

SCHEDULES = 1500
FIRST = 20261122

NEAR = {
    "skewed-sweeper": 725,
    "fixed-keys": 135,
    "no-fallback": 2675,
    "from-memory": 550,
    "drop-takes-intents": 395,
    "shared-references": 2345,
    "drops-the-resumed": 740,
}
"""Seeds shortly before one that catches a variant.

After a change of the protocol or of the explorer it may be a later one, which the test looks for:
then it is slower, and no less strict. ``make explore`` begins at 1.
"""


def test_the_protocol_survives_every_schedule_tried() -> None:
    report = explore(ObjectBackend, range(FIRST, FIRST + SCHEDULES))
    assert report.runs == SCHEDULES
    assert [(run.seed, run.wrong) for run in report.failed] == []


@pytest.mark.parametrize("variant", NAMED)
def test_a_broken_variant_is_caught(variant: str) -> None:
    near = NEAR.get(variant, 1)
    report = explore_variant(variant, range(near, near + 10_000), stop=True)
    assert len(report.failed) == 1


def test_the_command_fails_when_a_variant_is_not_caught(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--catch", "--schedules", "5"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert "delete-by-name: caught after 3 schedules" in told
    assert "fixed-keys: NOT CAUGHT in 5 schedules" in told
    assert len(told) == len(NAMED)


def test_a_run_can_be_had_again_by_its_choices() -> None:
    (run,) = explore_variant("put-cancels-end", range(1, 10_001), stop=True).failed
    assert run.seed is not None
    assert Explorer().run(run.seed).wrong == ()
    again = explore_variant("put-cancels-end", [run.seed])
    assert again.failed[0].choices == run.choices
    assert again.failed[0].wrong == run.wrong
