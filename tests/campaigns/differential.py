"""Random operations on every kind of store, each answer compared with a model's.

    python -m tests.campaigns.differential --steps 600 --seeds 1 2 3 [--engines local boto3]
        [--endpoint URL] [--hurry] [--catch]

The stores: memory, a local disk, the same with ``durable``, and one SeaweedFS by boto3, obstore
and s3fs. Three processes, each in a time zone of its own, work on each, and a fourth sweeps and
repairs all the time. At each step each process does one operation in a session that no other is at:
sessions go from process to process, many have the same contents, names are odd, sizes lie around
every threshold, contents are of every kind, calls are plain, from another thread or asynchronous.
Some sessions have limits. Each of those is one process's own, and sometimes four of its threads
save, delete and drop in it at once; after that the limits must hold, and a save that fits must be
accepted.

At the end everything is read once more, each store is copied to the next one (of another engine),
compared there, and expired: no session and no content may be left. The model is a dictionary
(``differential_model``). A seed says which operations there are. Exit status 1 says that an answer
was another one; the operations before it in that session are printed with it.

``--catch`` runs stores that are broken on purpose, each of which must be found: one after another
until the first difference, for each seed.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from tests.campaigns.differential_model import Answer, Author, Model, Op
from tests.campaigns.differential_work import BROKEN, Stores, sweeper, worker
from tests.campaigns.kill_s3 import GRACE, url_of
from tests.support import seaweed

PROCESSES = 3
BUCKETS = ("boto3", "obstore", "s3fs")
ENGINES = ("memory", "local", "durable", *BUCKETS)
COPIED = " copied"
"""The end of the name of the store that a store of the engine before it is copied to."""

PATIENCE = 600.0
"""Seconds for one step, after which a process counts as hanging."""

_SHOWN = 8
"""Operations of a session's history that are printed with a difference."""


@dataclass
class Trial:
    """One store and its model, and what was different."""

    engine: str
    model: Model
    operations: int = 0
    differences: list[str] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    left: str = "not looked at"

    def judge(self, op: Op, process: int, answer: Answer, sent: float, got: float) -> None:
        """Compare the answer to an operation with the model's."""
        self.operations += 1
        self.history.append(f"process {process}: {op} -> {_short(answer, 100)}")
        everywhere = op.verb in {"sessions", "total"}
        sure = self.model.is_sure(None if everywhere else op.key, sent, got)
        if op.verb == "burst":
            wrong = self.model.adopt(op, answer)
        elif op.verb == "add" and answer[0] == "saved":
            expected = self.model.save_added(op, answer[-1], sent, got)
            wrong = _difference(answer[:-1], expected)
        else:
            wrong = _difference(answer, self.model.expected(op, sent, got))
        if wrong is not None and sure:
            self.differ(op, wrong)

    def differ(self, op: Op, wrong: str) -> None:
        about = [it for it in self.history if f" {op.key} " in it][-_SHOWN:]
        self.differences.append("\n    ".join((f"{self.engine}: {op}: {wrong}", *about)))


def _difference(answer: Answer, expected: Answer) -> str | None:
    return None if answer == expected else f"said {_short(answer)}, expected {_short(expected)}"


def _short(answer: Answer, most: int = 400) -> str:
    if answer[0] == "error" and most == 400:
        return f"an error\n{answer[1]}"
    text = str(answer)
    return text if len(text) < most else f"{text[:most]}..."


class Crew:
    """The processes of a run."""

    def __init__(self, urls: Stores, broken: str) -> None:
        spawn = multiprocessing.get_context(
            "spawn"
        )  # what a fork copies of a server's client is no use
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._lines: list[Connection] = []
        lasting = {name: url for name, url in urls.items() if not url.startswith("memory:")}
        for number in range(PROCESSES + 1):
            here, there = spawn.Pipe()
            process = spawn.Process(
                target=worker if number < PROCESSES else sweeper,
                args=(there, urls if number < PROCESSES else lasting, number, broken),
                daemon=True,
            )
            process.start()
            there.close()
            self._processes.append(process)
            self._lines.append(here)

    def do(self, jobs: Iterable[tuple[str, int, Op]]) -> list[Answer]:
        """Have the processes carry operations out at once; the answers in the same order."""
        jobs = list(jobs)
        homes = [0 if engine.startswith("memory") else process for engine, process, _ in jobs]
        for home in set(homes):
            self._lines[home].send([it for it, its in zip(jobs, homes, strict=True) if its == home])
        answers = {home: iter(self._received(home)) for home in set(homes)}
        return [next(answers[home]) for home in homes]

    def _received(self, number: int) -> list[Answer]:
        if not self._lines[number].poll(PATIENCE):
            raise TimeoutError(f"Process {number} has not answered for {PATIENCE:.0f} seconds.")
        answers: list[Answer] = self._lines[number].recv()
        return answers

    def stop_sweeping(self) -> tuple[int, list[str]]:
        """End the sweeper; how many rounds it made, and what it said that it should not."""
        self._lines[-1].send(None)
        rounds, problems = self._received(len(self._lines) - 1)
        return int(rounds), list(problems)  # type: ignore[call-overload]  # the sweeper's answer is these two

    def close(self) -> None:
        for line in self._lines[:-1]:
            with contextlib.suppress(OSError):
                line.send(None)
        for process in self._processes:
            process.join(30)
            process.kill()
            process.join()


@dataclass
class Result:
    """What a run saw."""

    seed: int
    trials: list[Trial]
    rounds: int = 0
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def differences(self) -> list[str]:
        return [*self.problems, *(each for trial in self.trials for each in trial.differences)]

    def lines(self) -> Iterator[str]:
        for trial in self.trials:
            yield (
                f"seed {self.seed}, {trial.engine}: {trial.operations} operations, "
                f"{len(trial.differences)} differences; left after expiry: {trial.left}"
            )
        yield f"seed {self.seed}: {self.rounds} rounds of the sweeper, {self.seconds:.0f} s"


class Run:
    """One run of all engines by one seed."""

    def __init__(self, urls: Stores, seed: int, *, broken: str = "", large: bool = True) -> None:
        self._urls = {**urls, **{name + COPIED: _beside(url) for name, url in urls.items()}}
        self._wait = 2.5 if not set(urls) & {*BUCKETS} else 1.3 * GRACE.total_seconds()
        trials = [Trial(engine, Model()) for engine in urls]
        self._authors = [Author(it.model, seed, PROCESSES, large=large) for it in trials]
        self.result = Result(seed, trials)
        self._crew = Crew(self._urls, broken)

    def run(self, steps: int, *, wait: bool = True) -> Result:
        """Run so many steps and the end. Without ``wait`` contents in buckets are not looked at."""
        began = time.monotonic()
        try:
            for _ in range(steps):
                self._step()
                if self.result.differences:
                    break
            self._end(wait=wait)
        finally:
            self._crew.close()
        self.result.seconds = time.monotonic() - began
        return self.result

    def _step(self) -> None:
        now = time.time()
        jobs: list[tuple[Trial, int, Op]] = []
        for trial, author in zip(self.result.trials, self._authors, strict=True):
            trial.model.purge(now)
            jobs += [(trial, *it) for it in author.step(PROCESSES, now).items()]
        self._judge(jobs)

    def _judge(self, jobs: list[tuple[Trial, int, Op]], of: str = "") -> None:
        """Have operations carried out, on the stores or on those with that in their name."""
        sent = time.time()
        answers = self._crew.do((trial.engine + of, process, op) for trial, process, op in jobs)
        got = time.time()
        for (trial, process, op), answer in zip(jobs, answers, strict=True):
            trial.judge(op, process, answer, sent, got)

    def _end(self, *, wait: bool) -> None:
        self.result.rounds, self.result.problems = self._crew.stop_sweeping()
        if not self.result.differences:
            self._settle()
            for trial in self.result.trials:
                self._look(trial)
            self._copy()
            self._expire(wait=wait)

    def _settle(self) -> None:
        """Wait until no file is about to go, so that a copy has just what the model has."""
        goes = [
            it.goes[1]
            for trial in self.result.trials
            for box in trial.model.boxes.values()
            for it in box.files.values()
            if it.goes
        ]
        time.sleep(max(0.0, max(goes, default=0.0) - time.time()) + 0.01)
        for trial in self.result.trials:
            trial.model.purge(time.time())

    def _look(self, trial: Trial, of: str = "") -> None:
        """Look at everything: each session by several processes."""
        processes = itertools.cycle(range(PROCESSES))
        ops = [Op(verb) for verb in ("sessions", "total", "verify")]
        for key in trial.model.boxes:
            ops += [Op(verb, key) for verb in ("files", "marks", "whose")]
            ops += [Op("read", key, name=name) for name in trial.model.files(key)]
        for start in range(0, len(ops), PROCESSES):
            some = ops[start : start + PROCESSES]
            self._judge([(trial, next(processes), op) for op in some], of)

    def _copy(self) -> None:
        """Copy each store to a new one of the next engine, and look at that."""
        trials = self.result.trials
        for trial, target in zip(trials, [*trials[1:], trials[0]], strict=True):
            self._judge([(trial, 0, Op("copy", name=f"{target.engine}{COPIED}"))])
            copy = Trial(target.engine, trial.model.copied())
            self._look(copy, COPIED)
            trial.operations += copy.operations
            trial.differences += [f"copied from {trial.engine}: {it}" for it in copy.differences]

    def _expire(self, *, wait: bool) -> None:
        time.sleep(self._wait if wait else 2.5)  # the store's clock is a real one
        for trial in self.result.trials:
            for of in ("", COPIED):
                (answer,) = self._crew.do([(trial.engine + of, 0, Op("expire"))])
                if answer[0] != "left":
                    trial.differences.append(f"{trial.engine}{of}: expiry said {answer}")
                    continue
                _, sessions, blobs = answer
                looked = wait or trial.engine not in BUCKETS
                trial.left = f"{sessions} sessions" + (f", {blobs} blobs" if looked else "")
                if sessions or (blobs and looked):
                    trial.differences.append(f"{trial.engine}{of}: {trial.left} are left")


def _beside(url: str) -> str:
    """The URL of another store of the same engine."""
    place, mark, query = url.partition("?")
    return f"{place}-copy{mark}{query}"


def urls_of(engines: Iterable[str], endpoint: str, root: Path, name: str) -> Stores:
    """A store of its own for each engine."""
    urls = {
        "memory": f"memory://{name}",
        "local": (root / "local").as_uri(),
        "durable": f"{(root / 'durable').as_uri()}?durable=true",
    }
    for engine in BUCKETS:
        real = "fsspec" if engine == "s3fs" else engine
        urls[engine] = url_of(real, endpoint, f"{name}-{engine}")
    return {engine: urls[engine] for engine in engines}


def run(
    engines: Iterable[str], endpoint: str, seed: int, steps: int, *,
    broken: str = "", wait: bool = True, large: bool = True,
) -> Result:  # fmt: skip
    """One run on stores of its own."""
    with tempfile.TemporaryDirectory() as root:
        urls = urls_of(engines, endpoint, Path(root), f"differential-{os.getpid()}-{seed}")
        return Run(urls, seed, broken=broken, large=large).run(steps, wait=wait)


def catches(name: str, endpoint: str, seeds: Iterable[int], steps: int) -> str | None:
    """Run a broken store until it is found; the first difference."""
    for seed in seeds:
        result = run([BROKEN[name][0]], endpoint, seed, steps, broken=name, wait=False, large=False)
        if result.differences:
            return f"seed {seed}: {result.differences[0]}"
    return None


def _catch(names: Iterable[str], endpoint: str, seeds: Iterable[int], steps: int) -> int:
    missed = 0
    for name in names:
        found = catches(name, endpoint, seeds, steps)
        missed += found is None
        sys.stdout.write(f"{name}: {'NOT FOUND' if found is None else found}\n")
        sys.stdout.flush()
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--endpoint", help="a SeaweedFS that tests.support.seaweed started")
    parser.add_argument("--hurry", action="store_true", help="do not wait for buckets' collection")
    parser.add_argument(
        "--catch", nargs="*", choices=BROKEN, help="run these broken stores, or all of them"
    )
    options = parser.parse_args()
    bad = 0
    with contextlib.ExitStack() as resources:
        catch = None if options.catch is None else (options.catch or [*BROKEN])
        engines = options.engines if catch is None else [BROKEN[name][0] for name in catch]
        needed = {*engines} & {*BUCKETS}
        endpoint = options.endpoint or (seaweed.endpoint(resources) if needed else "")
        if catch is not None:
            return int(bool(_catch(catch, endpoint, options.seeds, options.steps)))
        for seed in options.seeds:
            wait = not options.hurry
            result = run(engines, endpoint, seed, options.steps, wait=wait, large=wait)
            for line in (*result.lines(), *result.differences):
                sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
            bad += len(result.differences)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
