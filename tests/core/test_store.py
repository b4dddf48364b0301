"""The store: opening and closing, sessions and owners, hostile strings, restarts, what there is."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sessionstore import (
    BackendUnavailable,
    InvalidName,
    LimitExceeded,
    Limits,
    Retention,
    SessionStore,
    SettingsError,
)
from sessionstore.backends.local import LocalBackend
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.clock import SystemClock
from sessionstore.local_copies import LocalCopies
from sessionstore.names import file_name, session_key
from sessionstore.session import Usage
from sessionstore.testing import FakeClock, Fault, FaultyBackend, on, unavailable
from tests.support.hostile import HOSTILE, label
from tests.support.stores import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Heard,
    ids,
    local_store,
    memory_store,
    names,
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> Iterator[SessionStore]:
    with memory_store(clock) as store:
        yield store


class TestOpen:
    def test_without_settings_only_the_arguments_and_the_url_count(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "sessionstore.toml").write_text('min_free = "1000000TiB"\nno_such = 1')
        monkeypatch.setenv("SESSIONSTORE_MAX_FILE", "1")

        with SessionStore.open("memory://?cap=3", settings=False) as store:
            store.session("alice").put("a", b"cat")
            with pytest.raises(LimitExceeded, match="cap"):
                store.session("alice").put("b", b"dog")
        with pytest.raises(SettingsError, match="url is not set"):
            SessionStore.open(settings=False)

    def test_a_url_says_where(self, tmp_path: Path) -> None:
        with SessionStore.open(f"file://{tmp_path}/root") as store:
            store.session("alice").put("a", b"cat")
        assert (tmp_path / "root" / "layout").exists()

    def test_a_path_is_a_local_directory(self, tmp_path: Path) -> None:
        with SessionStore.open(tmp_path / "root") as store:
            assert isinstance(store.backend, LocalBackend)

    def test_memory_is_a_url_too(self) -> None:
        with SessionStore.open("memory://") as store:
            assert isinstance(store.backend, MemoryBackend)

    def test_files_are_there_when_it_is_opened_again(self, tmp_path: Path) -> None:
        with SessionStore.open(tmp_path) as store:
            store.session("alice", "owner").put("a", b"cat")
        with SessionStore.open(tmp_path) as store:
            assert store.session("alice", "owner").read("a") == b"cat"

    def test_policy_is_the_default_or_what_was_given(self) -> None:
        given = {"retention": Retention(idle=HOUR), "limits": Limits(max_file=7)}
        plain, told = SessionStore.open("memory://"), SessionStore.open("memory://", **given)  # type: ignore[arg-type]
        assert (plain.retention, plain.ledger.limits) == (Retention(), Limits())
        assert (told.retention, told.ledger.limits) == (Retention(idle=HOUR), Limits(max_file=7))

    def test_the_clock_is_the_machine_s_or_what_was_given(self, clock: FakeClock) -> None:
        plain, told = SessionStore.open("memory://"), SessionStore.open("memory://", clock=clock)
        assert isinstance(plain.clock, SystemClock)
        assert told.now() == clock.now()

    def test_options_are_the_backend_s(self, tmp_path: Path) -> None:
        with SessionStore.open(tmp_path, digest="blake3") as store:
            assert store.backend.digest == "blake3"

    @pytest.mark.parametrize("wrong", [{"ilde": "1h"}, {"idle": "1h"}, {"digest": "md5"}])
    def test_a_wrong_keyword_is_a_settings_error(self, wrong: dict[str, Any]) -> None:
        (name,) = wrong
        with pytest.raises(SettingsError, match=f"^invalid {name}"):
            SessionStore.open("memory://", **wrong)

    def test_without_any_url_it_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SettingsError, match="url is not set"):
            SessionStore.open()

    def test_the_environment_and_a_file_are_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("SESSIONSTORE_URL", "memory://")
        (tmp_path / "sessionstore.toml").write_text('idle = "2h"\nmax_file = "1MB"\n')
        store = SessionStore.open()
        assert (store.retention.idle, store.ledger.limits.max_file) == (2 * HOUR, 1_000_000)

    def test_a_backend_whose_store_cannot_be_made_is_closed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        closed: list[str] = []

        class Bucket(MemoryBackend):
            free = None  # type: ignore[assignment]  # as a bucket, which never fills up

            def close(self) -> None:
                closed.append("closed")

        monkeypatch.setattr(MemoryBackend, "connect", lambda *_: Bucket(Place(), FakeClock()))
        with pytest.raises(SettingsError, match="min_free"):
            SessionStore.open("memory://", limits=Limits(min_free=1))
        assert closed == ["closed"]


class TestClose:
    def test_files_stay_and_twice_is_no_error(self, clock: FakeClock) -> None:
        place = Place()
        store = memory_store(clock, place)
        store.session("alice").put("a", b"cat")
        store.close()
        store.close()
        assert memory_store(clock, place).session("alice").read("a") == b"cat"

    def test_a_with_closes_it(self, tmp_path: Path, clock: FakeClock) -> None:
        with local_store(tmp_path, clock) as store:
            session = store.session("alice")
        with pytest.raises(BackendUnavailable, match="the store is closed"):
            session.put("a", b"cat")

    def test_threads_and_copies_go(self, clock: FakeClock, tmp_path: Path) -> None:
        before = set(threading.enumerate())
        store = memory_store(clock)
        store.use_local_copies(LocalCopies(tmp_path))
        path = store.session("alice").put("a", b"cat").local_path()
        store.session("alice").end()
        sweeping = store.sweeping()
        sweeping.start()
        started = set(threading.enumerate()) - before
        store.close()
        assert len(started) == 2
        assert (set(threading.enumerate()) - before, path.exists()) == (set(), False)


class TestSessions:
    def test_are_all_of_them_owned_ones_too(self, store: SessionStore) -> None:
        keys = [("a", None), ("a", "x"), ("a", "y"), ("b", "x")]
        for id_, owner in keys:
            store.session(id_, owner).put("a", b"cat")
        found = sorted(((it.id, it.owner) for it in store.sessions()), key=str)
        assert found == sorted(keys, key=str)

    def test_are_handles_that_work(self, store: SessionStore) -> None:
        store.session("a", "x").put("a", b"cat")
        (session,) = store.sessions()
        assert session == store.session("a", "x")
        assert session.read("a") == b"cat"

    def test_the_app_s_own_is_not_among_them(self, store: SessionStore) -> None:
        store.shared.put("logo", b"logo")
        assert list(store.sessions()) == []

    def test_one_without_saves_is_not_among_them(self, store: SessionStore) -> None:
        store.session("a").touch()
        assert list(store.sessions()) == []

    @pytest.mark.parametrize(("id_", "owner"), [("", None), ("a", ""), ("\ud800", None)])
    def test_a_bad_id_or_owner_is_refused_at_once(
        self, clock: FakeClock, id_: str, owner: str | None
    ) -> None:
        backend = FaultyBackend(MemoryBackend(Place(), clock))
        store = SessionStore(backend, clock=clock)
        with pytest.raises(InvalidName):
            store.session(id_, owner)
        assert not backend.calls

    def test_asking_does_no_io(self, clock: FakeClock) -> None:
        backend = FaultyBackend(MemoryBackend(Place(), clock))
        store = SessionStore(backend, clock=clock)
        store.session("alice", "owner")
        assert store.shared.id
        assert not backend.calls


class TestApart:
    """Another owner names another, empty session: there is nothing to guess."""

    def test_the_id_alone_opens_nothing_of_an_owner_s(self, store: SessionStore) -> None:
        store.session("alice", "her").put("a", b"cat")
        for owner in (None, "him", "HER", "her ", "her\0"):
            other = store.session("alice", owner)
            other.delete("a")
            other.end()
            other.drop()
        assert store.session("alice", "her").read("a") == b"cat"

    def test_a_forged_end_reaches_only_the_forger_s_own(
        self, store: SessionStore, clock: FakeClock
    ) -> None:
        store.session("alice", "her").put("a", b"cat")
        store.session("alice", "him").end()
        clock.advance(HOUR)
        assert store.plan() == []

    @pytest.mark.parametrize(
        ("one", "two"),
        [(("ab", "c"), ("a", "bc")), (("a", None), ("a", "None")), (("a", "b"), ("b", "a"))],
    )
    def test_no_two_pairs_meet(
        self, store: SessionStore, one: tuple[str, str | None], two: tuple[str, str | None]
    ) -> None:
        store.session(*one).put("a", b"cat")
        assert store.session(*two).files() == []


@pytest.mark.parametrize("backend", ["memory", "local"])
class TestHostileStrings:
    """Through the real store: each is refused before any I/O, or it is a name like any other."""

    @pytest.fixture
    def store(self, backend: str, clock: FakeClock, tmp_path: Path) -> Iterator[SessionStore]:
        root = tmp_path / "around" / "root"
        with local_store(root, clock) if backend == "local" else memory_store(clock) as store:
            yield store

    def legal(self, make: Any) -> list[str]:
        def accepted(text: str) -> bool:
            try:
                make(text)
            except InvalidName:
                return False
            return True

        return [text for text in HOSTILE if accepted(text)]

    def test_as_ids_and_owners(self, store: SessionStore, tmp_path: Path) -> None:
        legal = self.legal(session_key)
        for number, text in enumerate(legal):
            store.session(text).put("a", b"id %d" % number)
            store.session("app", text).put("a", b"owner %d" % number)
        assert [store.session(text).read("a") for text in legal] == [
            b"id %d" % number for number in range(len(legal))
        ]
        assert [store.session("app", text).read("a") for text in legal] == [
            b"owner %d" % number for number in range(len(legal))
        ]
        found = {(session.id, session.owner) for session in store.sessions()}
        assert found == {(text, None) for text in legal} | {("app", text) for text in legal}
        self.assert_nothing_outside(tmp_path)

    def test_as_file_names(self, store: SessionStore, tmp_path: Path) -> None:
        legal, session = self.legal(file_name), store.session("alice")
        for number, name in enumerate(legal):
            session.put(name, b"%d" % number)
        assert {file.name: file.read() for file in session.files()} == {
            name: b"%d" % number for number, name in enumerate(legal)
        }
        session.delete(*legal[::2])
        assert set(names(session)) == set(legal[1::2])
        self.assert_nothing_outside(tmp_path)

    def test_no_string_is_another_session_s_file(self, store: SessionStore) -> None:
        secret = store.session("victim", "her").put("a", b"secret")
        sid, digest = store.session("victim", "her").sid, secret.digest
        attempts = [sid, digest, f"../{sid}/files/a", f"{sid}/files/a", f"../../blobs/{digest}"]
        for text in [*HOSTILE, *attempts]:
            for key in ((text, None), ("victim", text), (text, text)):
                try:
                    assert "a" not in store.session(*key)
                except InvalidName:
                    continue
            assert text not in store.session("attacker")

    def assert_nothing_outside(self, tmp_path: Path) -> None:
        if (around := tmp_path / "around").exists():
            assert [path.name for path in around.iterdir()] == ["root"]
            tops = {path.name for path in (around / "root").iterdir()}
            assert tops == {"layout", "blobs", "sessions", "tmp"}


def refusal(attempt: Callable[[], object]) -> str:
    """What a call is refused with, empty when it is not."""
    try:
        attempt()
    except InvalidName as error:
        return str(error)
    return ""


@pytest.mark.parametrize("text", HOSTILE, ids=label)
def test_what_is_refused_is_refused_in_a_sentence(store: SessionStore, text: str) -> None:
    as_id = refusal(lambda: store.session(text))
    as_name = refusal(lambda: store.session("a").put(text, b""))
    for sentence in filter(None, (as_id, as_name)):
        assert sentence.endswith(".")
        assert sentence.isprintable()
        assert len(sentence) < 200


LEAVE = """
import os, sys
from sessionstore import SessionStore
store = SessionStore.open(sys.argv[1])
store.session("killed").put("a", b"cat")
store.shared.put("logo", b"logo")
os.kill(os.getpid(), 9)
"""


class TestRestart:
    def killed(self, root: Path) -> None:
        """A process that saved into a session and was killed."""
        subprocess.run([sys.executable, "-c", LEAVE, str(root)], check=False)

    def test_keep_is_the_default(self, tmp_path: Path) -> None:
        self.killed(tmp_path)
        with SessionStore.open(tmp_path) as store:
            assert ids(store) == ["killed"]

    def test_keep_can_be_said(self, tmp_path: Path) -> None:
        self.killed(tmp_path)
        with SessionStore.open(tmp_path, restart="keep") as store:
            assert ids(store) == ["killed"]

    def test_drop_drops_what_dead_processes_left_live_or_not(self, tmp_path: Path) -> None:
        self.killed(tmp_path)
        with SessionStore.open(tmp_path, restart="drop") as store:
            assert ids(store) == []
            assert store.backend.stored().blobs == 1

    def test_drop_keeps_the_app_s_own_files(self, tmp_path: Path) -> None:
        self.killed(tmp_path)
        with SessionStore.open(tmp_path, restart="drop") as store:
            assert store.shared.read("logo") == b"logo"

    def test_drop_beside_a_living_process_spares_live_sessions(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        with local_store(tmp_path, clock) as living:
            living.session("gone").put("a", b"cat")
            living.session("ended").put("a", b"cat")
            clock.advance(HOUR)
            living.session("ended").put("b", b"cat")
            living.session("ended").end()
            living.session("live").put("a", b"cat")
            with local_store(tmp_path, clock, restart="drop") as store:
                assert ids(store) == ["live"]

    def test_drop_after_the_other_closed_drops_all(self, tmp_path: Path, clock: FakeClock) -> None:
        with local_store(tmp_path, clock) as other:
            other.session("live").put("a", b"cat")
        with local_store(tmp_path, clock, restart="drop") as store:
            assert ids(store) == []

    def test_drop_on_a_new_store_is_nothing_special(self, tmp_path: Path) -> None:
        with SessionStore.open(tmp_path, restart="drop") as store:
            assert store.usage() == Usage(0, 0, 0, 0)

    def test_drop_where_nobody_can_tell_spares_live_sessions(self, clock: FakeClock) -> None:
        url = f"memory://restart-{os.getpid()}"
        before = SessionStore.open(url, clock=clock)
        before.session("gone").put("a", b"cat")
        clock.advance(HOUR)
        before.session("live").put("a", b"cat")
        assert ids(SessionStore.open(url, clock=clock, restart="drop")) == ["live"]

    def test_it_comes_from_the_environment_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.killed(tmp_path)
        monkeypatch.setenv("SESSIONSTORE_RESTART", "drop")
        with SessionStore.open(tmp_path) as store:
            assert ids(store) == []

    def test_another_word_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"restart='maybe'.*choose keep or drop"):
            SessionStore.open(tmp_path, restart="maybe")

    def test_a_failure_leaves_no_store_open(
        self, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend = FaultyBackend(MemoryBackend(Place(), clock), on("sessions", Fault(unavailable)))
        monkeypatch.setattr(MemoryBackend, "connect", lambda *_: backend)
        with pytest.raises(BackendUnavailable):
            SessionStore.open("memory://", restart="drop", clock=clock)
        assert backend.calls["close"] == 1


class TestUsage:
    def test_counts_files_bytes_content_once_and_sessions(self, store: SessionStore) -> None:
        store.session("a").put("1", b"cat")
        store.session("a").put("2", b"cat")
        store.session("b").put("1", b"goldfish")
        assert store.usage() == Usage(files=3, bytes=14, stored_bytes=11, sessions=2)

    def test_of_an_empty_store_is_nothing(self, store: SessionStore) -> None:
        assert store.usage() == Usage(0, 0, 0, 0)

    def test_counts_the_app_s_own_files(self, store: SessionStore) -> None:
        store.shared.put("logo", b"logo")
        assert store.usage()[:3] == (1, 4, 4)


class TestShared:
    def test_holds_files_for_everyone(self, store: SessionStore) -> None:
        file = store.shared.put("logo.png", b"logo")
        assert store.shared.read("logo.png") == file.read() == b"logo"

    def test_is_the_same_in_every_store_of_the_place(self, clock: FakeClock) -> None:
        place = Place()
        memory_store(clock, place).shared.put("logo", b"logo")
        assert memory_store(clock, place).shared.read("logo") == b"logo"

    def test_does_not_end(self, store: SessionStore, clock: FakeClock) -> None:
        store.shared.put("logo", b"logo")
        heard = Heard(store)
        store.shared.end()
        clock.advance(1000 * DAY)
        assert (heard.kinds(), store._timers._threads) == ([], set())
        assert names(store.shared) == ["logo"]

    def test_can_be_dropped_when_asked_for(self, store: SessionStore) -> None:
        store.shared.put("logo", b"logo")
        store.shared.drop()
        assert store.shared.files() == []


def test_touching_as_often_as_told_keeps_a_session_live(clock: FakeClock) -> None:
    store = memory_store(clock, retention=Retention(linger=30 * SECOND, max_age=MINUTE))
    session = store.session("alice")
    session.put("a", b"cat")
    for _ in range(60):
        clock.advance(store.live_interval)
        session.touch()
        assert store.sweep() == []
    assert names(session) == ["a"]
