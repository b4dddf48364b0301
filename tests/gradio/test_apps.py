"""Gradio apps are as good attached as they are plain (the whole corpus: ``make apps``)."""

from __future__ import annotations

import multiprocessing
import random
import signal
import socket
import time
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.campaigns.apps.__main__ import CORPUS, Driver, apps_in, run, stores
from tests.campaigns.apps.compare import Comparison, compared
from tests.campaigns.apps.notes import Outcome
from tests.campaigns.apps.serve import served
from tests.campaigns.apps.settings import Settings
from tests.support.gradio_rig import PATIENCE

SEED = 22
"""Of the sample of eight apps; another seed has others."""


def test_a_few_apps_are_not_worse() -> None:
    with stores("local") as new_store:
        counts = run(Driver(new_store, short=True), random.Random(SEED).sample(apps_in(CORPUS), 8))

    assert counts["worse"] == counts["does not start"] == 0
    assert counts["steps"] > 100


def test_a_defect_is_found() -> None:
    with stores("local") as new_store:
        driver = Driver(new_store, short=True, broken="refuses-files")

        assert run(driver, [CORPUS / "gallery_out.py"])["worse"] == 1


@pytest.mark.parametrize(
    ("plain", "attached", "worse"),
    [
        (Outcome(True, "200"), Outcome(True, "200"), False),
        (Outcome(True, "200"), Outcome(False, "403"), True),
        (Outcome(True, "200 a"), Outcome(True, "200 b"), True),
        (Outcome(False, "404"), Outcome(False, "403"), False),
        (Outcome(False, "404"), Outcome(True, "200"), False),
        (Outcome(True, "200"), None, True),
    ],
)
def test_what_is_worse(plain: Outcome, attached: Outcome | None, worse: bool) -> None:
    steps = {} if attached is None else {"a step": attached}

    assert bool(compared({"a step": plain}, steps, Settings()).worse) == worse


def test_a_mark_that_no_step_needs_is_found() -> None:
    assert Comparison(unused=["later"]).verdict == "unused mark"


def test_the_servers_of_a_killed_driver_end(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text("import gradio as gr\n\ngr.Interface(str, 'text', 'text').launch()\n")
    ours, theirs = multiprocessing.get_context("spawn").Pipe(duplex=False)
    driver = multiprocessing.get_context("spawn").Process(target=_drive, args=(app, theirs))
    driver.start()
    theirs.close()
    port = urlsplit(ours.recv()).port
    driver.kill()
    driver.join()

    deadline = time.monotonic() + PATIENCE
    while _answers(port):
        assert time.monotonic() < deadline, "the server goes on"
        time.sleep(0.05)  # it is another process: there is no event to wait for


def _answers(port: int | None) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _drive(app: Path, told: Connection) -> None:
    with served(app, None) as running:
        told.send(running.url)
        signal.pause()


def test_the_corpus_is_large() -> None:
    assert len(apps_in(CORPUS)) >= 60
