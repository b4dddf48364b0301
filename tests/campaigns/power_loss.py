"""Cut the power of a local store at any moment, and look at what is left.

    python -m tests.campaigns.power_loss [--states 5000] [--seed 1]
    python -m tests.campaigns.power_loss --ext4 100 [--seed 1]
    python -m tests.campaigns.power_loss --catch

A real writer makes a store and saves, replaces, deletes, drops, ends and compacts in it, with
``durable`` or without; every change it makes to the disk is recorded. From that are drawn the
states that an ordered journalling file system and plain POSIX may leave after a cut at any moment
(``tests.campaigns.recorded``). A store is opened on each:

* With ``durable`` every acknowledged file is there, listed, whole, with its time to live and its
  blob, in a session that says whose it is, was active and has ended as acknowledged; what was
  deleted or dropped is not.
* Without it no file has other bytes than some that were saved under its name, and what had come to
  the disk and was not touched since is as in the first case.
* The layout and the secret are whole, and the secret is the one that was given out. A torn file is
  none: ``verify`` names it and the first sweep removes it. Saving again works and says whose the
  session is. Two sweeps past all ages leave nothing.

``--ext4`` does the same with a real ext4 image: the writer is stopped, the file system shut down
without a flush, the image copied and mounted elsewhere, which replays its journal. It needs root
and loop devices. ``--catch`` takes each mend out again and sees that states find it. Exit status 1
says that something was wrong, or not caught.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sessionstore import Corrupted, FileNotStored, Session, SessionStore
from sessionstore.backend import SessionKey
from sessionstore.backends.local import journal, session_dir
from sessionstore.backends.local.directory import is_unfinished
from sessionstore.backends.local.layout import _is_torn_layout, _is_torn_secret
from sessionstore.clock import SystemClock
from sessionstore.content import Content, Ingest
from sessionstore.names import encode, session_key
from tests.campaigns.recorded import Kind, Recorder
from tests.support.local import backend_of, everything

LOOSE = "loose"
"""The visitor whose files are saved without ``durable`` also where others' are not."""
VISITORS = ("ada", "bob", "eve", LOOSE)
NAMES = ("a.txt", "b.bin", "c/d.txt")
HOT = b"the same for all "
TTL = timedelta(hours=1)
FEW = (1 << 9, 1 << 11)
"""Bytes of a journal beyond which it is compacted while a writer is recorded: one of these."""

File = tuple[str, str]
"""A visitor and a name."""

Times = tuple[datetime, datetime | None]


class LaterClock(SystemClock):
    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(days=3)


def key_of(visitor: str) -> SessionKey:
    return session_key(visitor, f"owner of {visitor}")


@dataclass
class Step:
    """One operation: when it began and was acknowledged, and what is so after it."""

    begun: int
    when: datetime
    durable: bool
    files: dict[File, bytes | None] = field(default_factory=dict)
    times: Times | None = None
    """When the file was made and when it expires."""
    ended: dict[str, bool] = field(default_factory=dict)
    active: str | None = None
    secret: bytes | None = None
    opened: bool = False
    done: int = sys.maxsize


@dataclass
class Expected:
    """What must be so in a state."""

    files: dict[File, list[bytes | None]] = field(default_factory=dict)
    """The contents that a file may have, None for no file."""
    times: dict[File, Times | None] = field(default_factory=dict)
    ended: dict[str, bool] = field(default_factory=dict)
    active: dict[str, datetime] = field(default_factory=dict)
    secret: bytes | None = None
    opened: bool = False
    forced: bool = True
    """Whether the writer forces layout and secret, as versions before this one did not."""

    def must_be(self, file: File) -> bool:
        """Whether that file must be there."""
        return None not in self.files[file]


class Ticks:
    """Moments that are counted and not recorded: two for each step, with a byte in a log."""

    def __init__(self, log: int | None = None) -> None:
        self.now = 0
        self.synced = [0]
        self.log = log

    def mark(self) -> int:
        self.now += 1
        if self.log is not None:
            os.write(self.log, b".")
        return self.now

    def sync(self) -> None:
        if self.log is not None:
            os.sync()
        self.synced.append(self.now)


@dataclass
class History:
    """All that a writer did. ``recorder`` says which moment it is, and which were of a sync."""

    recorder: Recorder | Ticks
    forced: bool
    steps: list[Step] = field(default_factory=list)

    @contextlib.contextmanager
    def step(self, *, durable: bool) -> Iterator[Step]:
        step = Step(self.recorder.mark(), datetime.now(UTC), durable)
        self.steps.append(step)
        yield step
        step.done = self.recorder.mark()

    def expected(self, cut: int) -> Expected:
        """What must be so after a cut at that moment."""
        result = Expected(forced=self.forced)
        begun = [step for step in self.steps if step.begun <= cut]
        synced = max(at for at in self.recorder.synced if at <= cut)
        for file in ((visitor, name) for visitor in VISITORS for name in NAMES):
            self._file(file, cut, synced, [it for it in begun if file in it.files], result)
        for step in begun:
            acknowledged = step.done <= cut and step.durable
            result.opened = result.opened or (step.opened and step.done <= cut)
            if step.secret is not None and step.done <= cut:
                result.secret = step.secret
            if step.active is not None and acknowledged:
                result.active[step.active] = step.when
            for visitor, ended in step.ended.items():
                if step.done > cut or not step.durable:
                    result.ended.pop(visitor, None)  # it may be so or not
                else:
                    result.ended[visitor] = ended
        return result

    def _file(self, file: File, cut: int, synced: int, steps: list[Step], result: Expected) -> None:
        sure: Step | None = None
        allowed: list[bytes | None] = [None]
        for step in steps:
            if step.done <= cut and (step.durable or step.done <= synced):
                sure, allowed = step, [step.files[file]]
            else:
                allowed.append(step.files[file])
                if step.done <= cut or not step.durable:
                    allowed.append(None)
        if any(not step.durable for step in steps) and len(allowed) > 1:
            allowed += [step.files[file] for step in steps]
        result.files[file] = allowed
        if sure is not None and len(allowed) == 1:
            result.times[file] = sure.times


class Writer:
    """Works in a store at random, as two processes do that have it open."""

    def __init__(self, root: Path, history: History, rng: random.Random, *, durable: bool) -> None:
        self.root = root
        self.history = history
        self.rng = rng
        self.durable = durable
        self.count = 0
        self.busy = rng.choice([None, *VISITORS])
        """Somebody who does most: so that journals get long."""
        with history.step(durable=durable) as step:
            step.opened = True
            self.store = SessionStore.open(root, durable=durable)
        self.other = SessionStore.open(root, durable=durable)
        self.loose = SessionStore.open(root, durable=False)

    def close(self) -> None:
        for store in (self.store, self.other, self.loose):
            store.close()

    def work(self, steps: int) -> None:
        verbs = (
            [self.put] * 12 + [self.delete] * 3 + [self.end, self.resume] * 2
            + [self.discard, self.drop, self.touch, self.restore, self.secret, self.settle]
            + [self.reopen, self.half_made]
        )  # fmt: skip
        for _ in range(steps):
            self.rng.choice(verbs)()

    def someone(self) -> str:
        if self.busy is not None and self.rng.random() < 0.7:
            return self.busy
        return self.rng.choice(VISITORS)

    def place(self, visitor: str) -> SessionStore:
        return self.loose if visitor == LOOSE else self.rng.choice([self.store, self.other])

    def is_durable(self, visitor: str) -> bool:
        return self.durable and visitor != LOOSE

    def data(self) -> bytes:
        self.count += 1
        if self.rng.random() < 0.35:
            return HOT * self.rng.choice([1, 300])
        size = self.rng.choice([1, 20, 5000]) if self.rng.random() < 0.97 else 9000
        return f"{self.count:03} ".encode() * size

    def step(self, visitor: str) -> contextlib.AbstractContextManager[Step]:
        return self.history.step(durable=self.is_durable(visitor))

    def put(self) -> None:
        visitor, name, data = self.someone(), self.rng.choice(NAMES), self.data()
        ttl = TTL if self.rng.random() < 0.3 else None
        store = self.place(visitor)
        with self.step(visitor) as step:
            step.files[visitor, name] = data
            step.active = visitor
            file = store.session(visitor, f"owner of {visitor}").put(name, data, ttl=ttl)
            step.times = file.created, file.expires

    def restore(self) -> None:
        visitor, name, data = self.someone(), self.rng.choice(NAMES), self.data()
        backend = backend_of(self.place(visitor))
        with self.step(visitor) as step:
            step.files[visitor, name] = data
            step.active = visitor
            created = backend.now() - timedelta(hours=2)
            with self.content(backend.digest, data) as content:
                backend.restore(key_of(visitor), name, content, created=created)
            step.times = created, None

    def content(self, digest: str, data: bytes) -> Content:
        return Ingest(digest, self.loose.backend.spool, lambda _: None).whole(data)

    def delete(self) -> None:
        visitor, name = self.someone(), self.rng.choice(NAMES)
        store = self.place(visitor)
        with self.step(visitor) as step:
            step.files[visitor, name] = None
            store.session(visitor, f"owner of {visitor}").delete(name)

    def discard(self) -> None:
        visitor, name = self.someone(), self.rng.choice(NAMES)
        backend, sid = self.place(visitor).backend, key_of(visitor).sid
        with contextlib.suppress(FileNotStored):
            reference = backend.get(sid, name)
            with self.step(visitor) as step:
                step.files[visitor, name] = None
                backend.discard(sid, [reference])

    def drop(self) -> None:
        visitor = self.someone()
        store = self.place(visitor)
        with self.step(visitor) as step:
            step.files.update({(visitor, name): None for name in NAMES})
            step.ended[visitor] = False
            store.session(visitor, f"owner of {visitor}").drop()

    def end(self) -> None:
        self.mark(ended=True)

    def resume(self) -> None:
        self.mark(ended=False)

    def mark(self, *, ended: bool) -> None:
        visitor = self.someone()
        backend, sid = self.place(visitor).backend, key_of(visitor).sid
        if backend.session(sid) is None:
            return
        with self.step(visitor) as step:
            step.ended[visitor] = ended
            step.active = visitor
            (backend.end if ended else backend.resume)(sid)

    def touch(self) -> None:
        visitor = self.someone()
        with self.step(visitor) as step:
            step.active = visitor
            self.place(visitor).backend.touch(key_of(visitor).sid)

    def secret(self) -> None:
        store = self.place(self.someone())
        with self.history.step(durable=True) as step:
            step.secret = store.secret()

    def settle(self) -> None:
        """Some seconds go by, in which the system writes everything to the disk."""
        self.history.recorder.sync()

    def reopen(self) -> None:
        self.store.close()
        self.store = SessionStore.open(self.root, durable=self.durable)

    def half_made(self) -> None:
        """A process makes a session, for a save, and is killed."""
        visitor = self.someone()
        backend = backend_of(self.loose)
        if backend.session(key_of(visitor).sid) is None:
            work, key = backend._disk.work(), key_of(visitor)
            folder = session_dir.make(work, "half", key, backend.now(), backend._disk)
            assert folder is not None
            work.rename("half", backend._sessions, key.sid)
            folder.close()


@contextlib.contextmanager
def written(
    box: Path, rng: random.Random, steps: int, *, durable: bool, forced: bool
) -> Iterator[tuple[Recorder, History]]:
    """Record a writer from its first start on."""
    from tests.campaigns.power_variants import BROKEN

    recorder = Recorder(box)
    history = History(recorder, forced)
    older = contextlib.nullcontext() if forced else BROKEN["root unforced"].broken()
    try:
        with few_lines(rng.choice(FEW)), recorder.recording(), older:
            writer = Writer(box / "s", history, rng, durable=durable)
            writer.work(steps)
        yield recorder, history
        writer.close()
    finally:
        recorder.close()


@contextlib.contextmanager
def few_lines(size: int) -> Iterator[None]:
    """Let journals be compacted beyond that size."""
    small, journal.SMALL = journal.SMALL, size
    try:
        yield
    finally:
        journal.SMALL = small


def cut_of(history: History, rng: random.Random) -> int:
    """A moment to cut at: often just after something was acknowledged, or at the first start."""
    drawn = rng.random()
    if drawn < 0.12:
        return rng.randint(0, history.steps[0].done + 3)
    if drawn < 0.6:
        return rng.choice(history.steps).done
    return rng.randint(0, history.recorder.now)


# Judging


def judge(root: Path, expected: Expected, again: tuple[str, ...] = VISITORS) -> list[str]:
    """What is not as it must be in the store at ``root``. The store is used up.

    The visitors ``again`` save there once more; the others' sessions are left to their age.
    """
    try:
        with contextlib.ExitStack() as stack:
            return list(_judged(root, expected, again, stack))
    except Exception:  # noqa: BLE001 - it is reported
        return [traceback.format_exc()]


def _judged(
    root: Path, expected: Expected, again: tuple[str, ...], stack: contextlib.ExitStack
) -> Iterator[str]:
    if expected.forced:
        yield from _root_files(root, expected)
    died = any(path.is_dir() for path in root.glob("tmp/*"))  # so a sweep sees it by that
    store = stack.enter_context(SessionStore.open(root))
    secret = store.secret()
    if len(secret) < 32 or not any(secret):
        yield f"the secret is {secret!r}"
    if expected.forced and expected.secret not in (None, secret):
        yield "another secret than the one given out"
    for visitor in VISITORS:
        yield from _visitor(store, root, visitor, expected)
    yield from _torn_are_named(store, root)
    store.sweep()
    if died:
        yield from (f"a sweep leaves the torn {it}" for it in _torn(store, root))
    for visitor in again:
        session = store.session(visitor, f"owner of {visitor}")
        session.put("again", f"again {visitor}".encode() + HOT)
        if session.read("again") != f"again {visitor}".encode() + HOT:
            yield f"{visitor} cannot save"
        if store.backend.identify(session.sid) != key_of(visitor):
            yield f"a save did not say that the session is {visitor}'s"
    with SessionStore.open(root, clock=LaterClock()) as later:
        later.sweep()
        later.sweep()
    left = sorted(everything(root)) + [str(it) for it in (root / "sessions").iterdir()]
    if left:
        yield f"two sweeps leave {left[:5]}"


def _root_files(root: Path, expected: Expected) -> Iterator[str]:
    layout, secret = root / "layout", root / "secret"
    if layout.exists():
        if _is_torn_layout(layout.read_bytes()):
            yield f"the layout is {layout.read_bytes()!r}"
    elif expected.opened:
        yield "the layout is not there"
    if secret.exists() and _is_torn_secret(secret.read_bytes()):
        yield f"the secret on the disk is {secret.read_bytes()!r}"


def _visitor(store: SessionStore, root: Path, visitor: str, expected: Expected) -> Iterator[str]:
    session = store.session(visitor, f"owner of {visitor}")
    listed = {file.name for file in session.files()}
    for name in NAMES:
        allowed = expected.files[visitor, name]
        try:
            data = session.read(name)
        except FileNotStored:
            data = None
        except Corrupted as error:
            yield f"{visitor}'s {name} is there and damaged: {error}"
            continue
        if data not in allowed:
            what = "gone" if data is None else f"{data[:20]!r}, {len(data)} bytes"
            yield f"{visitor}'s {name} is {what}, not one of {[it and it[:20] for it in allowed]}"
        elif (data is None) == (name in listed):
            yield f"{visitor}'s {name} is listed and not there, or there and not listed"
    must_be = [name for name in NAMES if expected.must_be((visitor, name)) and name in listed]
    if must_be:
        yield from _session(session, root, must_be, expected)


def _session(session: Session, root: Path, must_be: list[str], expected: Expected) -> Iterator[str]:
    """Look at what describes a session and those of its files that must be there."""
    visitor, backend = session.id, backend_of(session.store)
    record = backend.session(session.sid)
    if record is None or backend.identify(session.sid) != key_of(visitor):
        yield f"{visitor}'s session is not listed, or has no owner"
        return
    if visitor in expected.ended and (record.ended is not None) != expected.ended[visitor]:
        yield f"{visitor}'s session has ended, or not, other than acknowledged"
    if visitor in expected.active and record.active < expected.active[visitor]:
        yield f"{visitor}'s session was last active {record.active}"
    for file in map(session.get, must_be):
        times = file.created, file.expires
        if (expected.times.get((visitor, file.name)) or times) != times:
            yield f"{visitor}'s {file.name} was made and expires {times}"
        if file.expires and (record.expiring is None or record.expiring > file.expires):
            yield f"{visitor}'s session is not known to expire with {file.name}"
        if file.created < record.oldest:
            yield f"{visitor}'s {file.name} is older than its session's bound"
        blob = root / "blobs" / file.digest[:2] / file.digest
        # A removal under way takes the blob's name first, and known content may be another's.
        settled = len(expected.files[visitor, file.name]) == 1 and visitor != LOOSE
        if settled and not file.read().startswith(HOT) and not blob.exists():
            yield f"{visitor}'s {file.name} has lost its blob"


def _torn(store: SessionStore, root: Path) -> list[str]:
    """The places of links that are no file of their session."""
    found = []
    for folder in root.glob("sessions/*"):
        known = {encode(it.name) for it in store.backend.files(folder.name)}
        links = [path for path in folder.glob("files/*") if path.name not in known]
        found += [str(path.relative_to(root)) for path in links if not is_unfinished(path.stat())]
    return found


def _torn_are_named(store: SessionStore, root: Path) -> Iterator[str]:
    torn = _torn(store, root)
    if torn:
        named = {finding.place for finding in store.verify()}
        yield from (f"verify does not name {it}" for it in torn if it not in named)


# Runs


@dataclass
class Tally:
    """What a run saw."""

    states: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def count(self, kind: str) -> None:
        self.states[kind] = self.states.get(kind, 0) + 1


def run(
    states: int, seed: int, *, steps: int = 60, each: int = 50, stop: int = sys.maxsize,
    cases: tuple[str, ...] = ("durable", "loose", "durable", "loose", "older"),
) -> Tally:  # fmt: skip
    """Judge so many states; ``each`` of one writer, who is seeded by ``seed`` and its number."""
    tally = Tally()
    for number in range(-(-states // each)):
        case = cases[number % len(cases)]
        rng = random.Random(f"{seed}.{number}")
        with tempfile.TemporaryDirectory(dir=_memory()) as folder:
            box = Path(folder, "writer")
            box.mkdir()
            with written(box, rng, steps, durable=case == "durable", forced=case != "older") as (
                recorder,
                history,
            ):
                for draw in range(min(each, states - number * each)):
                    kind: Kind = "journal" if draw % 2 else "posix"
                    cut = cut_of(history, rng)
                    there = Path(folder, "state")
                    there.mkdir()
                    state = recorder.state(cut, kind, rng)
                    state.build(there, random.Random(cut))
                    (there / "s").mkdir(exist_ok=True)
                    tally.count(f"{case}, {kind}")
                    again = VISITORS[: draw % 3]
                    for each_wrong in judge(there / "s", history.expected(cut), again):
                        where = f"seed {seed}, writer {number}, state {draw} ({case}, {kind})"
                        tally.wrong.append(f"{where}, cut at {cut}: {each_wrong}")
                    shutil.rmtree(there)
                    if len(tally.wrong) >= stop:
                        return tally
    return tally


def _memory() -> str | None:
    """A directory in memory where there is one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def catch(seed: int, most: int = 1500) -> list[str]:
    """Take each mend out, and return those that no state found."""
    from tests.campaigns.power_variants import BROKEN

    missed = []
    for name, variant in BROKEN.items():
        with variant.broken():
            tally = run(most, seed + variant.seed - 1, stop=1, cases=variant.cases)
        found = sum(tally.states.values())
        if not tally.wrong:
            missed.append(name)
        said = tally.wrong[0].strip().splitlines()[-1][-150:] if tally.wrong else "NOT CAUGHT"
        sys.stdout.write(f"  {name}: after {found} states: {said}\n")
        sys.stdout.flush()
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--states", type=int, default=5000)
    parser.add_argument("--ext4", type=int, default=0, help="so many cuts of a real ext4 image")
    parser.add_argument("--catch", action="store_true", help="see each mend taken out caught")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=20, help="so many of what was wrong")
    options = parser.parse_args()
    logging.getLogger("sessionstore").setLevel(logging.CRITICAL)  # torn secrets are expected
    if options.catch:
        return 1 if catch(options.seed) else 0
    if options.ext4:
        from tests.campaigns.power_ext4 import run_ext4

        tally = run_ext4(options.ext4, options.seed)
    else:
        tally = run(options.states, options.seed)
    sys.stdout.write(f"seed {options.seed}: {len(tally.wrong)} wrong\n")
    for kind, count in sorted(tally.states.items()):
        sys.stdout.write(f"  {kind}: {count} states\n")
    for each in tally.wrong[: options.show]:
        sys.stdout.write(f"  {each}\n")
    return 0 if not tally.wrong else 1


if __name__ == "__main__":
    sys.exit(main())
