"""Every system call of every operation fails once, and the process dies once at every one of them.

Systematic, not random: the calls of an operation are counted in a first run, and then each is made
to fail in turn. After each, every other file is what it was, the one that was worked on is the old
one or the new one, and a sweep leaves nothing that does not belong.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sessionstore import (
    BackendUnavailable,
    FileNotStored,
    LimitExceeded,
    Session,
    SessionStore,
    SettingsError,
)
from sessionstore.clock import SystemClock
from tests.local import backend_of, everything

OURS = (BackendUnavailable, LimitExceeded, SettingsError)
"""What a failing system call may become. Anything else fails the test."""

CALLS = ("open", "stat", "mkdir", "link", "rename", "unlink", "utime", "scandir", "write", "fstat")
BIG = bytes(range(256)) * 4200
OLD, NEW, OTHER = b"old", b"new" + BIG, b"other"


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
        real = {name: getattr(os, name) for name in CALLS}

        def wrapped(name: str) -> Callable[..., object]:
            def call(*args: object, **keywords: object) -> object:
                self.count += 1
                if self.count == self.at:
                    self.action()
                return real[name](*args, **keywords)

            return call

        fakes = {name: wrapped(name) for name in CALLS}
        # What asks "is this function in os.supports_fd" must still be told the truth.
        sets = {name: set(getattr(os, name)) for name in ("supports_fd", "supports_dir_fd")}
        try:
            for name, fake in fakes.items():
                setattr(os, name, fake)
                for known in ("supports_fd", "supports_dir_fd"):
                    if real[name] in sets[known]:
                        getattr(os, known).add(fake)
            yield
        finally:
            for name, function in real.items():
                setattr(os, name, function)
            for known, members in sets.items():
                getattr(os, known).clear()
                getattr(os, known).update(members)


def put_new(session: Session) -> None:
    session.put("target", NEW, ttl=timedelta(days=1))


def put_known(session: Session) -> None:
    session.put("target", OTHER)


def put_in_new_session(session: Session) -> None:
    session.store.session("brand new").put("target", NEW)


def delete(session: Session) -> None:
    session.delete("target")


def drop(session: Session) -> None:
    session.drop()


def end_and_resume(session: Session) -> None:
    session.end()
    session.resume()


def sweep(session: Session) -> None:
    with SessionStore.open(backend_of(session.store)._root, clock=LaterClock()) as later:
        later.sweep()


Operation = Callable[[Session], None]
OPERATIONS: tuple[Operation, ...] = (
    put_new,
    put_known,
    put_in_new_session,
    delete,
    drop,
    end_and_resume,
    sweep,
)
MAY_BE: dict[Operation, tuple[bytes | None, ...]] = {
    put_new: (OLD, NEW),
    put_known: (OLD, OTHER),
    put_in_new_session: (OLD,),
    delete: (OLD, None),
    drop: (OLD, None),
    end_and_resume: (OLD,),
    sweep: (OLD, None),
}


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


def check(root: Path, operation: Operation) -> None:
    """What must hold after an operation that failed, in a process that opens the store anew."""
    with SessionStore.open(root) as store:
        assert content(store, "one", "target") in MAY_BE[operation]
        if operation is not sweep:
            assert content(store, "bystander", "same") == OLD
            assert content(store, "bystander", "other") == OTHER
        assert content(store, "brand new", "target") in (None, NEW)
        assert store.verify() == []
        store.session("one").put("target", NEW)
        assert store.session("one").read("target") == NEW
    with SessionStore.open(root, clock=LaterClock()) as store:
        store.sweep()
    assert everything(root) == set()
    assert list((root / "tmp").iterdir()) == []


def calls_of(operation: Operation, root: Path) -> int:
    fault = Fault(0, lambda: None)
    with prepared(root) as store, fault.armed():
        operation(store.session("one"))
    return fault.count


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda it: it.__name__)
def test_every_call_fails_in_turn(operation: Operation, code: int, tmp_path: Path) -> None:
    def refuse() -> None:
        raise OSError(code, os.strerror(code))

    total = calls_of(operation, tmp_path / "count")
    assert total > 5
    for number in range(1, total + 1):
        root = tmp_path / f"{number}"
        with prepared(root) as store, Fault(number, refuse).armed(), suppress(*OURS):
            operation(store.session("one"))
        check(root, operation)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda it: it.__name__)
def test_the_process_dies_at_every_call(operation: Operation, tmp_path: Path) -> None:
    total = calls_of(operation, tmp_path / "count")
    for number in range(1, total + 1):
        root = tmp_path / f"{number}"
        with prepared(root):
            pass
        pid = os.fork()
        if pid == 0:
            store = SessionStore.open(root)
            with Fault(number, lambda: os._exit(9)).armed():
                operation(store.session("one"))
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (0, 9)
        check(root, operation)
