"""Measure ten Gradio apps attached to a store on a local disk, beside the same apps without.

    python -m benchmarks.apps [--rounds 21] [--apps NAME ...]

The apps are of the corpus of ``make apps``, each in two processes that are used in turn by a
visitor with a page and a cookie. An event gets files that were never there before, if it takes any.
The store has files of others, as one in use: the first save into an empty store also makes its
folders. All is on a journalled disk of its own (``benchmarks.disks`` has the reason).
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks import disks
from benchmarks.report import machine
from sessionstore import SessionStore
from tests.campaigns.apps.__main__ import CORPUS
from tests.campaigns.apps.notes import Notes
from tests.campaigns.apps.page import Files, Page
from tests.campaigns.apps.page import client as new_client
from tests.campaigns.apps.samples import SAMPLES
from tests.campaigns.apps.serve import Served, served
from tests.campaigns.apps.settings import Settings

APPS: Final = (
    "image_pil", "image_file", "image_numpy", "gallery_out", "file_one",
    "file_many", "zip_output", "chatbot_files", "image_editor", "dataframe",
)  # fmt: skip
SIDES: Final = ("plain", "attached")
OPERATIONS: Final = ("event", "page", "upload")


OTHERS: Final = 2000
"""Files of others that the store has at the beginning."""


def used_store(root: Path) -> str:
    """Return the URL of a store that has files already."""
    with SessionStore.open(root) as store:
        for number in range(OTHERS):
            store.shared.add(number.to_bytes(8, "big"))
    return root.as_uri()


class Visitor:
    """A visitor with an open page of one app."""

    def __init__(self, app: Served) -> None:
        notes, settings = Notes(app.url, app.directory), Settings()
        self.page = Page("visitor", notes, settings, Files(notes))
        self.page.open()
        if not self.page.client.cookies:  # as of ours: Python's client takes time for it
            self.page.client.cookies.set("visitor", secrets.token_urlsafe(32))
        self.page.upload = self.upload  # type: ignore[method-assign]  # other content each time
        self.event = next(
            each for each in self.page.dependencies
            if each.get("backend_fn") and each["targets"] and each["targets"][0][1] != "load"
        )  # fmt: skip

    def upload(self, name: str) -> dict[str, Any]:
        """Upload a sample with bytes at its end that make it another."""
        content = SAMPLES[name] + secrets.token_hex(8).encode()
        answer = self.page.client.post(self.page.api("upload"), files={"files": (name, content)})
        path = answer.raise_for_status().json()[0]
        meta = {"_type": "gradio.FileData"}
        return {"path": path, "orig_name": name, "size": len(content), "meta": meta}

    def seconds(self, operation: str) -> float:
        """Return the time of one operation."""
        if operation == "event":
            inputs = [self.page._input(each) for each in self.event["inputs"]]  # noqa: SLF001 - the page of the same campaign
            return _timed(lambda: self.page._sent(self.event, inputs))  # noqa: SLF001 - as above
        if operation == "upload":
            return _timed(lambda: self.upload("cat.png"))
        url = self.page.notes.url
        with new_client() as stranger:
            return _timed(lambda: [stranger.get(f"{url}{path}") for path in ("/", "/config")])


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measured(name: str, rounds: int, root: Path) -> dict[str, dict[str, float]]:
    """Return the median times of each operation of an app, in milliseconds, by side."""
    app = CORPUS / f"{name}.py"
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with contextlib.ExitStack() as stack:
        visitors = {}
        for side, store in zip(SIDES, (None, used_store(root / name)), strict=True):
            visitors[side] = Visitor(stack.enter_context(served(app, store, sweep_every=None)))
            stack.callback(visitors[side].page.leave)
        for number in range(rounds + 2):  # two to warm up
            for operation in OPERATIONS:
                for side in SIDES if number % 2 else reversed(SIDES):
                    seconds = visitors[side].seconds(operation)
                    if number > 1:
                        times[operation][side].append(seconds * 1000)
    return {
        operation: {side: statistics.median(values) for side, values in sides.items()}
        for operation, sides in times.items()
    }


def main() -> None:
    """Measure the apps and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--apps", nargs="+", default=APPS)
    asked = parser.parse_args()
    every: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with disks.journalled() as disk:
        tempfile.tempdir = str(disk.path)  # the apps too
        _say(f"{machine()}; {disk.name}\n")
        _say("| app, ms plain / attached | event | page | upload |\n|---|---:|---:|---:|")
        for name in asked.apps:
            found = measured(name, asked.rounds, disk.path)
            pairs = {each: (found[each]["plain"], found[each]["attached"]) for each in OPERATIONS}
            for operation, pair in pairs.items():
                every[operation].append(pair)
            cells = " | ".join(f"{plain:.1f} / {ours:.1f}" for plain, ours in pairs.values())
            _say(f"| {name} | {cells} |")
    more = {each: [ours - plain for plain, ours in every[each]] for each in OPERATIONS}
    times = {each: [ours / plain for plain, ours in every[each]] for each in OPERATIONS}
    cells = " | ".join(
        f"{statistics.median(more[each]):+.1f} ms, {statistics.median(times[each]):.2f}"
        for each in OPERATIONS
    )
    _say(f"| median | {cells} |")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
