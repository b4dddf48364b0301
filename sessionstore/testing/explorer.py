"""Explores schedules of the object protocol: its real code, on a store where everything may happen.

A run is a few processes (writers, sweepers, a replacing writer, visitors who leave, drops, a
multipart upload) on one store in memory. A scheduler seeded with a number lets them go on one
request at a time, kills them anywhere, loses answers, delivers requests late, and moves the store's
clock around the protocol's limits. At the end nothing acknowledged may be lost, nothing deleted may
be served, and two sweeps must leave nothing.

    python -m sessionstore.testing.explorer --schedules 100000 --jobs 2
    python -m sessionstore.testing.explorer --variant fixed-keys       # a broken one, to be caught
    python -m sessionstore.testing.explorer --catch                    # each of the nine, at once
    python -m sessionstore.testing.explorer --seed 4711 --schedules 1  # one again

The author of an engine or of a change to the protocol runs it on a subclass of ``ObjectBackend``:
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
from sessionstore.testing.explorer_cast import Stage
from sessionstore.testing.explorer_checks import violations
from sessionstore.testing.explorer_choices import Choices
from sessionstore.testing.explorer_variants import NAMED, VARIANTS
from sessionstore.testing.explorer_world import Crew, MakeBucket, World
from sessionstore.testing.objectclient import FakeBucket, FakeObjectClient

_CHUNK = 250
_PATIENCE = 3000
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Run:
    """One run: what was chosen, what is wrong (nothing, as a rule), and what happened."""

    choices: Sequence[int]
    wrong: Sequence[str]
    trace: Sequence[str] = ()
    seed: int | None = None


@dataclass(slots=True)
class Report:
    """What some runs came to."""

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
        """The run of a seed."""
        return self._run(Choices(seed), seed=seed, tracing=False)

    def replay(self, choices: Sequence[int], seed: int | None = None) -> Run:
        """A run again, or one like it, with all that happens in it."""
        return self._run(Choices(recorded=choices), seed=seed, tracing=True)

    def shortest(self, run: Run, patience: int = _PATIENCE) -> Run:
        """A run that fails like this one with as little as possible happening in it.

        ``patience`` is the most runs that are tried for it.
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
    """The choices with a piece of that size cut out, or made simple; from the end on."""
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
    """Run every seed, or up to the first that fails if ``stop``."""
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
    """``explore`` of a variant by its name; "" is the protocol itself."""
    return explore(VARIANTS[name] if name else ObjectBackend, seeds, stop=stop)


def explore_parallel(name: str, seeds: range, jobs: int) -> Report:
    """``explore_variant`` in several processes at once."""
    pieces = [seeds[start : start + _CHUNK] for start in range(0, len(seeds), _CHUNK)]
    began = time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        reports = list(pool.map(explore_variant, [name] * len(pieces), pieces))
    failed = chain.from_iterable(report.failed for report in reports)
    runs = sum(report.runs for report in reports)
    return Report(runs, list(failed), time.monotonic() - began)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 when a run failed, or with ``--catch`` when a broken one was not caught."""
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
        print(told(options.variant, report.failed))  # noqa: T201 - as above
    return int(bool(report.failed))


def _catch(name: str, seeds: range) -> bool:
    """Whether a broken variant is caught, and after how many schedules: printed."""
    report = explore_variant(name, seeds, stop=True)
    outcome = "caught after" if report.failed else "NOT CAUGHT in"
    print(f"{name}: {outcome} {report.runs} schedules")  # noqa: T201 - a command prints
    return bool(report.failed)


def told(variant: str, failed: Sequence[Run]) -> str:
    """Failed runs in words: their seeds, what was wrong, and the shortest run like one of them."""
    explorer = Explorer(VARIANTS[variant] if variant else ObjectBackend)
    short = explorer.shortest(min(failed, key=lambda run: len(run.choices)))
    lines = [
        *(f"seed {run.seed}: {run.wrong[0]}" for run in failed[:_SHOWN]),
        f"the shortest run found like it ({len(short.trace)} steps): {short.wrong[0]}",
        *(f"    {line}" for line in short.trace),
        f"choices: {list(short.choices)}",
    ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--schedules", type=int, default=10_000, help="how many to run")
    parser.add_argument("--seed", type=int, default=1, help="the seed of the first")
    parser.add_argument("--jobs", type=int, default=2, help="processes to run them in")
    parser.add_argument("--stop", action="store_true", help="stop at the first that fails")
    parser.add_argument("--catch", action="store_true", help="see each broken one caught")
    parser.add_argument("--variant", default="", choices=["", *VARIANTS], help="a broken one")
    return parser


if __name__ == "__main__":
    sys.exit(main())
