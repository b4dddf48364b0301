"""The long form: everything with the store on SeaweedFS, then without one, as a table.

    python -m tests.replicas [--trips 20] [--pages 3] [--write FILE]

Exit status 1 says that something failed with the store. What fails without it is the comparison.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

from tests.replicas import browser, scenes
from tests.replicas.app import SWEEP_EVERY
from tests.replicas.scenes import Outcome
from tests.replicas.site import LINGER, REPLICAS, Site, namespaces, serving
from tests.support import seaweed

_ABOUT = """\
# One Gradio app on {replicas} replicas, with `attach` and without

Written by `make replicas`, on {date}, with Gradio {gradio} and SeaweedFS.

{replicas} replicas of one app (`tests/replicas/app.py`) run as processes of their own, each in a
mount namespace of its own: the same paths, different disks, as in containers. nginx distributes the
requests round robin. Only events are bound to a replica, by their session (sticky sessions): POST
`queue/join`, GET `queue/data`, and the events without a queue. The store is a bucket of SeaweedFS.
Without `attach` the same app is plain Gradio, with one hash seed for all replicas.

A row counts the attempts and the successes: by HTTP {trips} attempts for each kind of file, each
with a new visitor; in Chromium {pages} attempts, each with a new page. Contents are random, and
compared byte by byte unless Gradio converts them. The linger is {linger:g} s,
and the store is swept every {sweep:g} s.

| what | with `attach` | without |
|---|---|---|
{rows}

In the crash test a replica is killed (SIGKILL) while two visitors have files of every kind, one by
HTTP and one in Chromium. The replica is then started again on an empty disk. It is the replica
without the page's heartbeat: Gradio's page never opens a second one. If a heartbeat dies with its
replica, the store therefore drops the visitor's session only when it has been idle. The content of
`gr.State`, such as the history of a `gr.ChatInterface`, is lost with the process: the app of this
comparison is attached without [`state=True`](gradio-state.md).

Failures without `attach`, as the client saw them (`RuntimeError: None` is Gradio's empty error of
an event that did not find its file):

{failures}
"""


def main() -> int:
    options = _options()
    missing = _missing()
    if missing:
        sys.stderr.write(f"replicas: {missing}\n")
        return 1
    begun = time.monotonic()
    attached, plain = (_run(attached, options) for attached in (True, False))
    text = _report(attached, plain, options)
    sys.stdout.write(text)
    sys.stdout.write(f"\n{time.monotonic() - begun:.0f} s\n")
    if options.write:
        options.write.write_text(text)
    return 0 if all(outcome.all_good for outcome in attached) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trips", type=int, default=20, help="of each kind by HTTP")
    parser.add_argument("--pages", type=int, default=3, help="of each kind in Chromium")
    parser.add_argument("--write", type=Path, help="also write the report to this file")
    return parser.parse_args()


def _missing() -> str | None:
    """What this machine lacks, in words."""
    if namespaces() is None:
        return "mount namespaces are not permitted here (run it as root)"
    programs = {"nginx": _nginx(), "chromium": _chromium(), "weed": seaweed.program()}
    lacking = [name for name, path in programs.items() if path is None]
    return f"not installed: {', '.join(lacking)}" if lacking else None


def _nginx() -> str | None:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin")


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("google-chrome")


def _run(attached: bool, options: argparse.Namespace) -> list[Outcome]:
    """All scenes, told while they go on."""
    outcomes = []
    with _site(attached) as site, browser.launched(_chromium() or "") as chromium:
        for outcome in scenes.all_scenes(site, chromium, options.trips, options.pages):
            side = "with attach" if attached else "without"
            sys.stderr.write(f"{side}: {outcome.what}: {_counted(outcome)}\n")
            sys.stderr.writelines(f"    {each}\n" for each in {*map(_plain, outcome.errors)})
            outcomes.append(outcome)
    return outcomes


@contextmanager
def _site(attached: bool) -> Iterator[Site]:
    """The app on its replicas; the store's bucket is started with it."""
    with (
        tempfile.TemporaryDirectory(prefix="replicas-") as place,
        seaweed.serving(seaweed.program() or "") if attached else nullcontext() as bucket,
        serving(Path(place), bucket, _nginx() or "") as site,
    ):
        yield site


def _report(attached: list[Outcome], plain: list[Outcome], options: argparse.Namespace) -> str:
    without = {each.what: each for each in plain}
    return _ABOUT.format(
        replicas=REPLICAS,
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        gradio=importlib.metadata.version("gradio"),
        trips=options.trips,
        pages=options.pages,
        linger=LINGER,
        sweep=SWEEP_EVERY.total_seconds(),
        rows="\n".join(_row(each, without.get(each.what)) for each in attached),
        failures="\n".join(_failures(plain)),
    )


def _row(attached: Outcome, plain: Outcome | None) -> str:
    cells = (attached.what, _counted(attached), "" if plain is None else _counted(plain))
    return f"| {' | '.join(cells)} |"


def _counted(outcome: Outcome) -> str:
    note = f" ({outcome.note})" if outcome.note else ""
    return f"{outcome.good} of {outcome.tried}{note}"


def _failures(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """What the failures said, the most frequent first."""
    counts = Counter(_plain(error) for outcome in outcomes for error in outcome.errors)
    for error, count in counts.most_common():
        yield f"- {count} times `{error}`"


def _plain(error: str) -> str:
    """An error without what makes it one of a kind: paths, ports, digests, numbers."""
    return re.sub(r"'?(http|/)\S+|\b[0-9a-f]{32,}\b", "...", error)[:160].strip(": ")


if __name__ == "__main__":
    sys.exit(main())
