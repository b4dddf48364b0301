"""A power cut at any moment: a part of the campaign, drawn from a seed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sessionstore import SessionStore
from sessionstore.backends.local import save
from tests.campaigns.power_loss import run
from tests.campaigns.power_variants import BROKEN
from tests.campaigns.recorded import Recorder
from tests.support.local import spoil

MOST = 3000
"""States of each variant; as a rule one of the first eight shows it. When journals are compacted
depends on the digits of inodes, so that a seed may need some hundred more on another day."""


def test_no_state_of_the_disk_is_wrong() -> None:
    tally = run(80, seed=1, each=16)
    assert tally.wrong == []
    assert sum(tally.states.values()) == 80


@pytest.mark.parametrize("name", BROKEN)
def test_each_mend_taken_out_is_found(name: str) -> None:
    variant = BROKEN[name]
    with variant.broken():
        assert run(MOST, variant.seed, stop=1, cases=variant.cases).wrong != []


def test_a_repair_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box, rng = tmp_path / "box", random.Random(1)
    with SessionStore.open(box / "s", durable=True) as store:
        store.session("one").put("a", b"cat")
        with monkeypatch.context() as apart:  # another file of that content in its own inode
            apart.setattr(save.Save, "_link", lambda self, _: setattr(self, "stale", True))
            store.session("two").put("b", b"cat")
        place = box / "s" / "sessions" / store.session("one").sid / "files" / "a"
        spoil(place, b"dog")
        recorder = Recorder(box)
        with recorder.recording():
            assert [finding.repaired for finding in store.verify(repair=True)] == [True]
        for number in range(20):
            state = tmp_path / f"{number}"
            state.mkdir()
            recorder.state(recorder.now, "posix", rng).build(state, rng)
            with SessionStore.open(state / "s") as cut:
                assert cut.session("one").read("a") == b"cat"
        recorder.close()
