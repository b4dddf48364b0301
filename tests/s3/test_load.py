"""The short form of ``benchmarks.load``: an app in a process of its own, and visitors at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.load import STEPS, measure
from tests.support.seaweed import Server

VISITORS = 5


@pytest.mark.server
@pytest.mark.parametrize("backend", ["local", "obstore"])
def test_visitors_at_once_meet_no_error(
    backend: str, tmp_path: Path, seaweed_server: Server
) -> None:
    load = measure(backend, VISITORS, tmp_path, seaweed_server.url("load/"))

    assert load.errors == {}
    assert load.dropped == VISITORS
    assert {step: len(load.seconds[step]) for step in STEPS} == dict.fromkeys(STEPS, VISITORS)
    if backend == "obstore":
        # Deletes of a moment are one request. Who is slow is touched; there may be a sweep in it.
        assert 10 < load.requests < 40
