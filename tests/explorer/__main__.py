"""Explores schedules of the object protocol: the real code, on a store with every kind of fault.

A run is a few processes (writers, sweepers, a replacing writer, visitors who leave, drops, a
multipart upload) on one store in memory. A scheduler with a seed runs them one request at a time.
It kills them anywhere, loses responses, delivers requests late, and moves the store's clock around
the protocol's limits. At the end no acknowledged file may be lost, no deleted file may be served,
and two sweeps must leave nothing.

    python -m tests.explorer --schedules 100000 --jobs 2
    python -m tests.explorer --variant fixed-keys       # a broken one, to be caught
    python -m tests.explorer --catch                    # the main broken ones
    python -m tests.explorer --seed 4711 --schedules 1  # repeat one schedule

To test an engine or a change to the protocol, run it on your subclass of ``ObjectBackend``:
``explore(MyBackend, range(1000))``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import chain

from sessionstore.backends.objects import ObjectBackend
from tests.explorer.cast import Stage
from tests.explorer.checks import violations
from tests.explorer.choices import Choices
from tests.explorer.variants import NAMED, VARIANTS
from tests.explorer.world import Crew, MakeBucket, World
from tests.support.object_client import FakeBucket, FakeObjectClient

_CHUNK = 250
_PATIENCE = 3000
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Run:
    """One run: its choices, its violations (usually none), and its trace."""

    choices: Sequence[int]
    wrong: Sequence[str]
    trace: Sequence[str] = ()
    seed: int | None = None


@dataclass(slots=True)
class Report:
    """The result of several runs."""

    runs: int = 0
    failed: list[Run] = field(default_factory=list)
    seconds: float = 0.0


class Explorer:
    """Runs schedules of one backend class in this process."""

    def __init__(
        self,
        backend_type: type[ObjectBackend] = ObjectBackend,
        make_bucket: MakeBucket = FakeBucket,
    ) -> None:
        self._backend_type = backend_type
        self._make_bucket = make_bucket
        self._crew = Crew()

    def run(self, seed: int) -> Run:
        """Run the schedule of a seed."""
        return self._run(Choices(seed), seed=seed, tracing=False)

    def replay(self, choices: Sequence[int], seed: int | None = None) -> Run:
        """Run recorded choices, or a variation of them, with a trace."""
        return self._run(Choices(recorded=choices), seed=seed, tracing=True)

    def shortest(self, run: Run, patience: int = _PATIENCE) -> Run:
        """Shrink a failed run: return one that also fails, with as few steps as possible.

        ``patience`` is the most runs to try.
        """
        best, left = self.replay(run.choices, run.seed), patience
        size = max(len(best.choices) // 2, 1)
        while size and left > 0:
            improved = False
            for shorter in _shortened(best.choices, size):
                left -= 1
                tried = self.replay(shorter, run.seed)
                if tried.wrong and _weight(tried) < _weight(best):
                    best, improved = tried, True
                    break
                if left <= 0:
                    break
            size = size if improved else size // 2
        return best

    def _run(self, choices: Choices, *, seed: int | None, tracing: bool) -> Run:
        world = World(choices, tracing=tracing, make_bucket=self._make_bucket)
        stage = Stage(world, self._backend_type)
        stage.prepare()
        stage.cast()
        world.run(self._crew)
        stage.afterwards(self._crew)
        trace = tuple(world.trace)
        wrong = tuple(violations(world, stage.backend(FakeObjectClient(world.bucket))))
        return Run(choices.made, wrong, trace, seed)


def _shortened(choices: Sequence[int], size: int) -> Iterator[list[int]]:
    """Return the choices with a piece of ``size`` cut out, or set to 0; last pieces first."""
    for start in range(len(choices) - size, -1, -size):
        yield [*choices[:start], *choices[start + size :]]
        if any(choices[start : start + size]):
            yield [*choices[:start], *[0] * size, *choices[start + size :]]


def _weight(run: Run) -> tuple[int, int, int]:
    return len(run.trace), len(run.choices), sum(run.choices)


def explore(
    backend_type: type[ObjectBackend],
    seeds: Iterable[int],
    *,
    stop: bool = False,
    make_bucket: MakeBucket = FakeBucket,
) -> Report:
    """Run every seed; with ``stop``, end at the first that fails."""
    explorer, report, began = Explorer(backend_type, make_bucket), Report(), time.monotonic()
    for seed in seeds:
        run = explorer.run(seed)
        report.runs += 1
        if run.wrong:
            report.failed.append(run)
            if stop:
                break
    report.seconds = time.monotonic() - began
    return report


def explore_variant(name: str, seeds: Sequence[int], *, stop: bool = False) -> Report:
    """Explore a variant by its name; "" is the protocol itself."""
    return explore(VARIANTS[name] if name else ObjectBackend, seeds, stop=stop)


def explore_parallel(name: str, seeds: range, jobs: int) -> Report:
    """Explore a variant in ``jobs`` processes at the same time."""
    pieces = [seeds[start : start + _CHUNK] for start in range(0, len(seeds), _CHUNK)]
    began = time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        reports = list(pool.map(explore_variant, [name] * len(pieces), pieces))
    failed = chain.from_iterable(report.failed for report in reports)
    runs = sum(report.runs for report in reports)
    return Report(runs, list(failed), time.monotonic() - began)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 1 if a run failed, or if ``--catch`` missed a variant."""
    options = _parser().parse_args(arguments)
    seeds = range(options.seed, options.seed + options.schedules)
    if options.catch:
        missed = [name for name in NAMED if not _catch(name, seeds)]
        return int(bool(missed))
    if options.stop:
        report = explore_variant(options.variant, seeds, stop=True)
    else:
        report = explore_parallel(options.variant, seeds, options.jobs)
    rate = report.runs / max(report.seconds, 0.001)
    print(  # noqa: T201 - a command prints
        f"{options.variant or 'the protocol'}: {report.runs} schedules from seed {options.seed} in "
        f"{report.seconds:.0f} s ({rate:.0f}/s), {len(report.failed)} failed"
    )
    if report.failed:
        print(described(options.variant, report.failed))  # noqa: T201 - as above
    return int(bool(report.failed))


def _catch(name: str, seeds: range) -> bool:
    """Explore a broken variant, print the result, and return whether it was caught."""
    report = explore_variant(name, seeds, stop=True)
    outcome = "caught after" if report.failed else "NOT CAUGHT in"
    print(f"{name}: {outcome} {report.runs} schedules")  # noqa: T201 - a command prints
    return bool(report.failed)


def described(variant: str, failed: Sequence[Run]) -> str:
    """Describe failed runs: their seeds and violations, and the trace of a shrunk one."""
    explorer = Explorer(VARIANTS[variant] if variant else ObjectBackend)
    short = explorer.shortest(min(failed, key=lambda run: len(run.choices)))
    lines = [
        *(f"seed {run.seed}: {run.wrong[0]}" for run in failed[:_SHOWN]),
        f"the shortest failing run found ({len(short.trace)} steps): {short.wrong[0]}",
        *(f"    {line}" for line in short.trace),
        f"choices: {list(short.choices)}",
    ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--schedules", type=int, default=10_000, help="number of schedules")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first schedule")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes")
    parser.add_argument("--stop", action="store_true", help="stop at the first failure")
    parser.add_argument(
        "--catch", action="store_true", help="check that each main broken variant is caught"
    )
    parser.add_argument("--variant", default="", choices=["", *VARIANTS], help="a broken variant")
    return parser


if __name__ == "__main__":
    sys.exit(main())
