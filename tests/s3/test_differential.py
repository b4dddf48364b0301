"""The differential campaign, in short, and the proof that it finds stores that are broken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import seaweed

ROOT = Path(__file__).parents[2]


def run(server: seaweed.Server, *options: str) -> str:
    command = [sys.executable, "-m", "tests.campaigns.differential", *options]
    done = subprocess.run(
        [*command, "--endpoint", server.endpoint],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.server
def test_every_store_answers_as_the_model(seaweed_server: seaweed.Server) -> None:
    report = run(seaweed_server, "--hurry", "--steps", "12", "--seeds", "1")
    assert report.count(", 0 differences") == 6, report


@pytest.mark.server
@pytest.mark.parametrize(
    "broken",
    [
        "acknowledges from memory",
        "counts overlapping changes as they are answered",
        "knows no owner",
        "LosesTimeToLive",
    ],
)
def test_a_broken_store_is_found(seaweed_server: seaweed.Server, broken: str) -> None:
    seeds = [str(seed) for seed in range(1, 33)]  # the first that finds it is the last
    assert ": seed " in run(seaweed_server, "--catch", broken, "--steps", "60", "--seeds", *seeds)
