"""The limits of a session are exact beside drops, deletes, replacements and listings.

Each test but the last holds one call of the backend at the moment at which a careless account would
go wrong: after the backend did its work, and before the ledger has heard of it.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sessionstore import LimitExceeded, Limits, Session, SessionStore
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.content import ingest
from sessionstore.owners import list_key
from sessionstore.testing import FakeClock, Fault, FaultyBackend, on, unavailable
from sessionstore.wrapping import Call, wrap_methods
from tests.support.stores import (
    MINUTE,
    PATIENCE,
    SECOND,
    in_threads,
    local_store,
    memory_store,
    names,
)

SIZE, FILES = 100, 10
LIMITS = Limits(max_session=SIZE, max_session_files=FILES)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> SessionStore:
    return memory_store(clock, limits=LIMITS)


@pytest.fixture
def session(store: SessionStore) -> Session:
    return store.session("alice")


@contextlib.contextmanager
def held(store: SessionStore, verb: str, call: Callable[[], object]) -> Iterator[None]:
    """Within the block ``call`` is under way, and the backend has done its ``verb``."""
    reached, go_on = threading.Event(), threading.Event()
    thread = threading.Thread(target=call)

    def hold(real: Call) -> Call:
        def run(*args: Any, **keywords: Any) -> Any:
            answer = real(*args, **keywords)
            if threading.current_thread() is thread:
                reached.set()
                go_on.wait(PATIENCE)
            return answer

        return run

    store.wrap(lambda backend: wrap_methods(backend, {verb: hold}))
    thread.start()
    assert reached.wait(PATIENCE)
    try:
        yield
    finally:
        go_on.set()
        thread.join(PATIENCE)


def is_exact(session: Session) -> bool:
    """Whether a save that just fits is accepted, and one byte more refused."""
    left = SIZE - session.usage().bytes
    try:
        session.put("fills", bytes(left))
        session.put("more", b"x")
    except LimitExceeded:
        return session.usage().bytes == SIZE
    return False


class TestAHeldCall:
    def test_a_file_that_was_saved_after_a_drop_counts(
        self, store: SessionStore, session: Session
    ) -> None:
        session.put("a", bytes(30))
        with held(store, "drop", session.drop):
            session.put("b", bytes(60))
        with pytest.raises(LimitExceeded):
            session.put("c", bytes(60))
        assert is_exact(session)

    def test_files_that_were_saved_after_a_drop_count(self, clock: FakeClock) -> None:
        store = memory_store(clock, limits=Limits(max_session_files=1))
        session = store.session("alice")
        session.put("a", b"1")
        session.delete("a")
        with held(store, "drop", session.drop):
            session.put("b", b"2")
        with pytest.raises(LimitExceeded):
            session.put("c", b"3")
        assert session.usage().files == 1

    @pytest.mark.parametrize("known", [True, False], ids=["old", "first"])
    def test_a_deleted_file_is_not_taken_off_a_listing_without_it(
        self, clock: FakeClock, *, known: bool
    ) -> None:
        place = Place()
        memory_store(clock, place).session("alice").put("a", bytes(30))
        store = memory_store(clock, place, limits=LIMITS)
        session = store.session("alice")
        if known:
            session.put("z", b"")
        with held(store, "delete", lambda: session.delete("a")):
            clock.advance(MINUTE + SECOND)
            session.put("b", bytes(60))
        with pytest.raises(LimitExceeded):
            session.put("c", bytes(60))
        assert is_exact(session)

    def test_a_dropped_session_is_not_taken_off_a_listing_without_it(
        self, clock: FakeClock, store: SessionStore, session: Session
    ) -> None:
        session.put("a", bytes(30))
        with held(store, "drop", session.drop):
            clock.advance(MINUTE + SECOND)
            session.put("b", bytes(60))
        with pytest.raises(LimitExceeded):
            session.put("c", bytes(60))
        assert is_exact(session)

    @pytest.mark.parametrize("forget", ["delete", "drop"])
    def test_a_file_that_went_before_its_save_ended_counts_no_more(
        self, store: SessionStore, session: Session, forget: str
    ) -> None:
        with held(store, "put", lambda: session.put("a", bytes(SIZE))):
            getattr(session, forget)(*(["a"] if forget == "delete" else []))
        assert session.put("b", bytes(SIZE)).size == SIZE
        assert is_exact(session)

    def test_a_replacement_counts_before_the_save_that_it_replaced_has_ended(
        self, store: SessionStore, session: Session
    ) -> None:
        with held(store, "put", lambda: session.put("a", bytes(10))):
            session.put("a", bytes(90))
            with pytest.raises(LimitExceeded):
                session.put("b", bytes(20))
        assert is_exact(session)

    def test_a_replacement_grows_from_what_the_sums_have(
        self, store: SessionStore, session: Session
    ) -> None:
        """And not from the size of a file whose save has not ended."""
        session.put("a", bytes(30))
        with (
            held(store, "put", lambda: session.put("a", bytes(60))),
            session.open("a", "wb") as file,
        ):
            file.write(bytes(90))
            file.flush()
            with pytest.raises(LimitExceeded):
                session.put("b", bytes(40))
        assert is_exact(session)

    def test_a_name_that_is_deleted_and_saved_at_once_counts_once(
        self, store: SessionStore, session: Session
    ) -> None:
        session.put("a", bytes(40))
        with held(store, "delete", lambda: session.delete("a")):
            session.put("a", bytes(50))
        with pytest.raises(LimitExceeded):
            session.put("b", bytes(60))
        assert is_exact(session)

    @pytest.mark.parametrize("forget", ["delete", "drop"])
    def test_a_name_that_is_saved_again_while_it_goes_counts_once(
        self, store: SessionStore, session: Session, forget: str
    ) -> None:
        session.put("a", bytes(40))
        gone = session.drop if forget == "drop" else lambda: session.delete("a")
        with contextlib.ExitStack() as saving, held(store, forget, gone):
            saving.enter_context(session.open("a", "wb")).write(bytes(50))
        assert is_exact(session)

    def test_a_file_that_the_sums_do_not_have_is_not_taken_off_them(
        self, store: SessionStore, session: Session
    ) -> None:
        """The sums are uncertain, and no listing makes them anew while ``other`` is saved."""
        session.put("kept", bytes(30))
        with held(store, "put", lambda: session.put("other", bytes(1))):
            with held(store, "put", lambda: session.put("a", bytes(60))):
                session.put("a", bytes(60))  # which of the two is the last one is unknown
            session.delete("a")
            session.put("a", bytes(60))
            with pytest.raises(LimitExceeded):
                session.put("b", bytes(30))
        assert is_exact(session)

    def test_a_save_goes_on_when_uncertain_sums_were_replaced(
        self, store: SessionStore, session: Session
    ) -> None:
        with session.open("slow", "wb") as file:
            with held(store, "put", lambda: session.put("a", bytes(60))):
                session.delete("a")
            file.write(bytes(SIZE))
        assert session.get("slow").size == SIZE

    def test_sums_are_made_anew_once_for_all_that_was_uncertain(
        self, store: SessionStore, session: Session
    ) -> None:
        with held(store, "put", lambda: session.put("a", bytes(60))):
            session.delete("a")
        listings: list[object] = []
        store.wrap(lambda it: wrap_methods(it, {"files": lambda real: _noting(real, listings)}))
        for name in "bcd":
            session.put(name, bytes(30))
        assert len(listings) == 1


def _noting(real: Call, calls: list[object]) -> Call:
    def run(*args: Any) -> Any:
        calls.append(args)
        return real(*args)

    return run


class TestAFailure:
    def test_a_save_that_failed_with_its_file_there_counts(self, clock: FakeClock) -> None:
        backend = FaultyBackend(MemoryBackend(Place(), clock))
        session = SessionStore(backend, limits=LIMITS, clock=clock).session("alice")
        session.put("a", b"")
        backend.plan = on("put", Fault(unavailable, at="after"), number=2)
        with pytest.raises(OSError, match="did not answer"):
            session.put("b", bytes(60))
        with pytest.raises(LimitExceeded):
            session.put("c", bytes(60))
        assert is_exact(session)

    @pytest.mark.parametrize("at", ["before", "after"])
    @pytest.mark.parametrize("verb", ["delete", "drop"])
    def test_a_removal_that_failed_is_looked_at(self, clock: FakeClock, verb: str, at: Any) -> None:
        backend = FaultyBackend(MemoryBackend(Place(), clock))
        session = SessionStore(backend, limits=LIMITS, clock=clock).session("alice")
        session.put("a", bytes(60))
        backend.plan = on(verb, Fault(unavailable, at=at))
        with pytest.raises(OSError, match="did not answer"):
            getattr(session, verb)(*(["a"] if verb == "delete" else []))
        assert is_exact(session)

    def test_a_file_counts_though_its_save_s_block_raised(self, session: Session) -> None:
        session.put("a", b"")
        with (
            pytest.raises(ZeroDivisionError),
            session.pending_save("b", None, fresh=False) as receiving,
        ):
            receiving.keep(ingest(bytes(60), receiving.ingest))
            raise ZeroDivisionError
        with pytest.raises(LimitExceeded):
            session.put("c", bytes(60))
        assert is_exact(session)


class Watched(MemoryBackend):
    """Knows at each moment whether the sessions of an owner, or one, hold more than they may."""

    over: int = 0

    def put(self, key: Any, *args: Any, **keywords: Any) -> Any:
        with self._place.lock:
            saved = super().put(key, *args, **keywords)
            sids = {record.sid for record in self.sessions()} - {list_key("anna").sid}
            files = [self._place.files(sid).values() for sid in sids]
            sizes = [reference.size for each in files for reference in each]
            self.over += sum(sizes) > SIZE or len(sizes) > FILES
        return saved


class Churn:
    """Threads that do everything at once in some sessions, as a seed has it."""

    def __init__(
        self, store: SessionStore, clock: FakeClock, seed: int, *sessions: Session
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._clock = clock
        self._seed = seed
        verbs = ("put", "get", "files", "delete", "discard", "drop")
        store.wrap(lambda backend: wrap_methods(backend, dict.fromkeys(verbs, self._late)))

    def _late(self, real: Call) -> Call:
        rng = random.Random(self._seed)

        def run(*args: Any, **keywords: Any) -> Any:
            answer = real(*args, **keywords)
            if rng.random() < 0.3:
                time.sleep(0.0002)  # lets others in before the answer is heard of
            return answer

        return run

    def thread(self, number: int) -> None:
        rng = random.Random(self._seed * 100 + number)
        for _ in range(12):
            with contextlib.suppress(LimitExceeded, ZeroDivisionError):
                self._turn(rng)

    def _turn(self, rng: random.Random) -> None:
        name, size, turn = f"{rng.randrange(12)}", rng.choice([1, 10, 30, 60]), rng.random()
        session = rng.choice(self._sessions)
        if turn < 0.4:
            session.put(name, [bytes(size)])
        elif turn < 0.5:
            session.add(bytes(size), ttl=rng.choice([None, SECOND]))
        elif turn < 0.6:
            with session.open(name, "wb") as file:
                file.write(bytes(size))
                if rng.random() < 0.3:
                    raise ZeroDivisionError
        elif turn < 0.8:
            session.delete(name, f"{rng.randrange(12)}")
        elif turn < 0.9:
            session.drop()
        elif turn < 0.95:
            self._clock.advance(MINUTE + SECOND)
        else:
            self._store.sweep()


@pytest.mark.parametrize("tabs", [1, 3])
@pytest.mark.parametrize("place", ["memory", "local"])
@pytest.mark.parametrize("seed", range(30))
def test_threads_stay_within_the_limits_and_reach_them(
    seed: int, place: str, tabs: int, clock: FakeClock, tmp_path: Path
) -> None:
    """In one session, or in three of an owner that have the limits together."""
    limits = LIMITS if tabs == 1 else Limits(max_owner=SIZE, max_owner_files=FILES)
    watched = Watched(Place(), clock)
    store = (
        SessionStore(watched, limits=limits, clock=clock)
        if place == "memory"
        else local_store(tmp_path, clock, limits=limits)
    )
    sessions = [store.session(f"{tab}", "anna") for tab in range(tabs)]
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        churn = Churn(store, clock, seed, *sessions)
        over = []
        for _ in range(3):
            in_threads(6, target=churn.thread)
            usage = store.usage(owner="anna")
            over += [usage] if usage.bytes > SIZE or usage.files > FILES else []
    finally:
        sys.setswitchinterval(switch)
    assert (over, watched.over) == ([], 0)
    store.sweep()  # files over their time count until then
    for other in sessions[1:]:
        other.drop()
    sessions[0].delete(*names(sessions[0])[FILES - 2 :])  # there has to be room for two files
    assert is_exact(sessions[0])
    store.close()


def test_a_save_of_a_store_without_limits_reserves_nothing(clock: FakeClock) -> None:
    session = memory_store(clock).session("alice")
    with session.pending_save("a", None, fresh=False) as save:
        assert save.reservation is None
        save.ingest.write(b"cat")
        save.keep(save.ingest.finish())
    assert session.read("a") == b"cat"
