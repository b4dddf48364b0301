"""Small saves take turns, and nobody waits long for that."""

from __future__ import annotations

import os
import selectors
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from sessionstore.backends.local import save
from sessionstore.backends.local.save import SaveLock
from tests.support.stores import PATIENCE

LONG = 1000.0


def beside_another(turns: SaveLock, patience: float = PATIENCE) -> bool:
    """Whether a save goes ahead while another, which waits for it so long, has the turn."""
    began, done = threading.Event(), threading.Event()

    def first() -> bool:
        began.set()
        return done.wait(patience)

    with ThreadPoolExecutor(1) as pool:
        having = pool.submit(turns.run, first)
        assert began.wait(PATIENCE)
        turns.run(done.set)
        return having.result()


def test_one_at_a_time() -> None:
    assert not beside_another(SaveLock(patience=LONG), 0.1)


def test_who_is_kept_waiting_goes_ahead() -> None:
    assert beside_another(SaveLock(patience=0.001))


def test_nobody_waits_where_many_have_waited_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(save, "PAUSE", LONG)
    turns = SaveLock(patience=0.001)
    assert all(beside_another(turns) for _ in range(save.IN_VAIN))
    turns._patience = LONG
    assert beside_another(turns)


def test_who_gets_a_turn_shows_that_the_disk_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(save, "PAUSE", LONG)
    turns = SaveLock(patience=0.001)
    for _ in range(save.IN_VAIN):
        assert beside_another(turns)
        turns._patience = LONG
        assert not beside_another(turns, 0.01)
        turns._patience = 0.001
    turns._patience = LONG
    assert not beside_another(turns, 0.1)


class Busy:
    """A lock that others have, who save so much while somebody waits for it."""

    def __init__(self, turns: SaveLock, saves: int, free_at: int) -> None:
        self.turns = turns
        self.saves = saves
        self.free_at = free_at
        self.waits = 0
        self.released = 0

    def acquire(self, *, blocking: bool = True, timeout: float = -1) -> bool:
        if not blocking:
            return False
        assert timeout == save.PATIENCE
        self.waits += 1
        self.turns._done += self.saves
        return self.waits == self.free_at

    def release(self) -> None:
        self.released += 1


@pytest.mark.parametrize(
    ("saves", "free_at", "waits"),
    [
        (save.QUICK, 3, 3),  # others get on, and it is its turn in the end
        (save.QUICK, 0, save.WAITS),  # but it does not wait for ever
        (save.QUICK - 1, 3, 1),  # the disk keeps them all waiting
    ],
)
def test_a_save_waits_as_long_as_others_get_on(saves: int, free_at: int, waits: int) -> None:
    turns = SaveLock()
    turns._lock = busy = Busy(turns, saves, free_at)  # type: ignore[assignment]  # it stands for one
    assert turns.run(lambda: "saved") == "saved"
    assert busy.waits == waits
    assert busy.released == (waits == free_at)


def test_what_a_save_returns_and_raises_passes_through() -> None:
    turns = SaveLock(patience=LONG)

    def fail() -> None:
        raise ZeroDivisionError

    for _ in range(2):  # the turn is given back
        assert raised(lambda: turns.run(fail)) is ZeroDivisionError
    assert turns.run(lambda: 5) == 5


def raised(call: Callable[[], object]) -> type[Exception] | None:
    try:
        call()
    except ZeroDivisionError as error:
        return type(error)
    return None


def test_a_forked_child_does_not_wait_for_its_parent_s_thread() -> None:
    turns = SaveLock(patience=LONG)
    began, done = threading.Event(), threading.Event()

    def keep() -> None:
        began.set()
        done.wait(PATIENCE)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(turns.run, keep)
        assert began.wait(PATIENCE)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            turns.run(lambda: os.write(writing, b"saved"))
            os._exit(0)
        os.close(writing)
        try:
            os.set_blocking(reading, False)
            with selectors.DefaultSelector() as selector:
                selector.register(reading, selectors.EVENT_READ)
                assert selector.select(PATIENCE)
            assert os.read(reading, 5) == b"saved"
        finally:
            done.set()
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(reading)
