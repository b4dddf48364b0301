"""Every system call of every operation on the local disk fails once, with each error there is.

    python -m tests.campaigns.faults_local [--every 1] [--seed 1]

Systematic, not random: the calls of an operation are counted in a first run, and then each is made
to fail in turn: the disk or the quota is full, the disk is broken, read-only or forbidden, there
are too many open files or links, the name is too long. After each, the operation has succeeded or
raised an error of ours, every other file is what it was, the one that was worked on is the old one
or the new one, ``verify`` finds no damage, the store can be written to, and a sweep past the age
leaves nothing. A save that was refused for want of room has left everything as it was. ``--every``
takes only each so-manieth case, drawn from the seed. Exit status 1 says it was not so.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import random
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sessionstore import (
    BackendUnavailable,
    FileNotStored,
    LimitExceeded,
    Session,
    SessionStore,
    SettingsError,
)
from sessionstore.backends.local.directory import is_unfinished
from sessionstore.clock import SystemClock
from tests.support.local import backend_of, everything
from tests.support.stores import store_of

OURS = (BackendUnavailable, LimitExceeded, SettingsError)
"""What a failing system call may become. Anything else fails."""

CODES = {
    name: getattr(errno, name)
    for name in (
        "ENOSPC", "EDQUOT", "EIO", "EROFS", "EACCES", "EMFILE", "ENAMETOOLONG", "EMLINK",
    )
    if hasattr(errno, name)  # Windows lacks some
}  # fmt: skip

CALLS = (
    "open", "stat", "lstat", "mkdir", "link", "rename", "unlink", "rmdir", "utime", "scandir",
    "read", "pread", "write", "fstat", "fchmod", "ftruncate", "lseek",
)  # fmt: skip
BIG = bytes(range(256)) * 4200
OLD, NEW, OTHER, SMALL = b"old", b"new" + BIG, b"other", b"small"


class LaterClock(SystemClock):
    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(days=2)


class Fault:
    """Counts the system calls on the store's root, and does something at the n-th."""

    def __init__(self, at: int, action: Callable[[], object]) -> None:
        self.at = at
        self.count = 0
        self.action = action

    @contextmanager
    def armed(self) -> Iterator[None]:
        real = {name: getattr(os, name) for name in CALLS if hasattr(os, name)}

        def wrapped(name: str) -> Callable[..., object]:
            def call(*args: object, **keywords: object) -> object:
                self.count += 1
                if self.count == self.at:
                    self.action()
                return real[name](*args, **keywords)

            return call

        fakes = {name: wrapped(name) for name in real}
        # What asks "is this function in os.supports_fd" must still be told the truth.
        known = ("supports_fd", "supports_dir_fd", "supports_follow_symlinks")
        sets = {name: set(getattr(os, name)) for name in known}
        try:
            for name, fake in fakes.items():
                setattr(os, name, fake)
                for each in known:
                    if real[name] in sets[each]:
                        getattr(os, each).add(fake)
            yield
        finally:
            for name, function in real.items():
                setattr(os, name, function)
            for each, members in sets.items():
                getattr(os, each).clear()
                getattr(os, each).update(members)


def refuse(code: int) -> Callable[[], None]:
    def action() -> None:
        raise OSError(code, os.strerror(code))

    return action


def put_new(session: Session) -> None:
    session.put("target", NEW, ttl=timedelta(days=1))


def put_small(session: Session) -> None:
    session.put("small", SMALL)


def put_known(session: Session) -> None:
    session.put("target", OTHER)


def put_known_as_new(session: Session) -> None:
    session.put("small", OTHER)


def put_small_over(session: Session) -> None:
    session.put("target", SMALL)


def put_small_in_new_session(session: Session) -> None:
    store_of(session).session("brand new").put("target", SMALL)


def put_in_new_session(session: Session) -> None:
    store_of(session).session("brand new").put("target", NEW)


def delete(session: Session) -> None:
    session.delete("target")


def drop(session: Session) -> None:
    session.drop()


def end_and_resume(session: Session) -> None:
    session.end()
    session.resume()


def sweep(session: Session) -> None:
    with SessionStore.open(backend_of(session.store)._where, clock=LaterClock()) as later:
        later.sweep()


Operation = Callable[[Session], None]
OPERATIONS: tuple[Operation, ...] = (
    put_new,
    put_small,
    put_known,
    put_known_as_new,
    put_small_over,
    put_small_in_new_session,
    put_in_new_session,
    delete,
    drop,
    end_and_resume,
    sweep,
)
MAY_BE: dict[Operation, tuple[bytes | None, ...]] = {
    put_new: (OLD, NEW),
    put_small: (OLD,),
    put_known: (OLD, OTHER),
    put_known_as_new: (OLD,),
    put_small_over: (OLD, SMALL),
    put_small_in_new_session: (OLD,),
    put_in_new_session: (OLD,),
    delete: (OLD, None),
    drop: (OLD, None),
    end_and_resume: (OLD,),
    sweep: (OLD, None),
}


SAVES = [it for it in OPERATIONS if it.__name__.startswith("put_")]
PREPARED = {
    ("bystander", "other"): OTHER,
    ("bystander", "same"): OLD,
    ("bystander", None): None,
    ("one", "target"): OLD,
    ("one", None): None,
}


def visible(store: SessionStore) -> dict[tuple[str, str | None], bytes | None]:
    """Every file, and every session, that can be seen."""
    seen: dict[tuple[str, str | None], bytes | None] = {}
    for session in store.sessions():
        seen[session.id, None] = None
        seen |= {(session.id, file.name): file.read() for file in session.files()}
    return seen


@contextmanager
def prepared(root: Path) -> Iterator[SessionStore]:
    """A store with a file to work on, and one of another session with the same and other bytes."""
    with SessionStore.open(root) as store:
        store.session("bystander").put("same", OLD)
        store.session("bystander").put("other", OTHER)
        store.session("one").put("target", OLD)
        yield store


def content(store: SessionStore, session: str, name: str) -> bytes | None:
    try:
        return store.session(session).read(name)
    except FileNotStored:
        return None


def check(root: Path, operation: Operation, *, repair: bool) -> None:
    """What must hold after an operation that failed, in a process that opens the store anew.

    What was left is repaired first, or else saved over and left to the sweep.
    """
    with SessionStore.open(root) as store:
        assert content(store, "one", "target") in MAY_BE[operation]
        if operation is not sweep:
            assert content(store, "bystander", "same") == OLD
            assert content(store, "bystander", "other") == OTHER
        assert content(store, "brand new", "target") in (None, NEW, SMALL)
        assert content(store, "one", "small") in (None, SMALL, OTHER)
        assert [it for it in store.verify(repair=repair) if it.kind != "leftover"] == []
        if repair:
            assert store.verify() == []
        store.session("one").put("small", SMALL)
        assert store.session("one").read("small") == SMALL
        store.session("one").put("target", NEW)
        assert store.session("one").read("target") == NEW
    with SessionStore.open(root, clock=LaterClock()) as store:
        store.sweep()
    assert everything(root) == set()
    assert list((root / "tmp").iterdir()) == []


def calls_of(operation: Operation, root: Path) -> int:
    """How many system calls an operation makes when nothing goes wrong."""
    fault = Fault(0, lambda: None)
    with prepared(root) as store, fault.armed():
        operation(store.session("one"))
    return fault.count


def one_case(operation: Operation, number: int, code: int, root: Path, *, repair: bool) -> bool:
    """Make that call fail; whether the operation did. Raises for whatever is not as it must be."""
    failed = full = False
    with prepared(root) as store, warnings.catch_warnings():
        # A sweeper whose probe for hard links fails takes it that there are none, and says so.
        warnings.filterwarnings("ignore", "The file system of .* has no hard links")
        try:
            with Fault(number, refuse(code)).armed():
                operation(store.session("one"))
        except OURS as error:
            failed, full = True, isinstance(error, LimitExceeded)
        if full and operation in SAVES:
            assert visible(store) == PREPARED, "a save that was refused for want of room left this"
    unfinished = [path for path in root.rglob("files/*") if is_unfinished(path.stat())]
    assert unfinished == [], "only a death leaves what is being written"
    check(root, operation, repair=repair)
    return failed


@dataclass
class Tally:
    """What a run saw."""

    cases: int = 0
    failed: int = 0
    wrong: list[str] = field(default_factory=list)


def run(parent: Path, every: int, seed: int) -> Tally:
    tally, rng = Tally(), random.Random(seed)
    for operation in OPERATIONS:
        total = calls_of(operation, parent / f"{operation.__name__}")
        for name, code in CODES.items():
            for number in range(1, total + 1):
                if rng.randrange(every):
                    continue
                tally.cases += 1
                try:
                    with tempfile.TemporaryDirectory(dir=parent) as root:
                        place, repair = Path(root, "store"), number % 2 == 0
                        tally.failed += one_case(operation, number, code, place, repair=repair)
                except Exception:  # noqa: BLE001 - it is reported
                    case = f"{operation.__name__}, call {number} of {total}: {name}"
                    tally.wrong.append(f"{case}\n{traceback.format_exc()}")
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="one case in so many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=20, help="so many of what was wrong")
    options = parser.parse_args()
    warnings.simplefilter("error")
    logging.getLogger("sessionstore").setLevel(logging.CRITICAL)  # sweeps that fail are expected
    with tempfile.TemporaryDirectory() as parent:
        tally = run(Path(parent), options.every, options.seed)
    sys.stdout.write(
        f"local disk, seed {options.seed}: {tally.cases} system calls failed, {tally.failed} of "
        f"the operations with an error of ours and the others unharmed, {len(tally.wrong)} wrong\n"
    )
    for each in tally.wrong[: options.show]:
        sys.stdout.write(f"  {each}\n")
    return 0 if not tally.wrong else 1


if __name__ == "__main__":
    sys.exit(main())
