"""How many requests an attached app's files take on a store that bills by the request."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sessionstore import Corrupted, FileNotStored, Limits, SessionStore
from sessionstore.adapters.gradio import cache_files
from sessionstore.adapters.gradio import recent_saves as module
from sessionstore.adapters.gradio.admin.snapshot import watch
from sessionstore.adapters.gradio.attached_store import OwnedCopies
from sessionstore.adapters.gradio.cache import CacheDir
from sessionstore.adapters.gradio.cache_files import CacheFiles
from sessionstore.adapters.gradio.mine.listing import OwnFiles
from sessionstore.adapters.gradio.owner_lists import tidy
from sessionstore.adapters.gradio.paths import CachePaths
from sessionstore.adapters.gradio.presence import Visitor
from sessionstore.adapters.gradio.recent_saves import KeptSession, VisitorSession
from sessionstore.backends.objects import ObjectBackend
from sessionstore.backends.objects.client import Payload
from sessionstore.names import session_key
from sessionstore.testing import FakeClock
from tests.support.gradio_rig import PATIENCE
from tests.support.object_client import FakeBucket, FakeObjectClient

ANNA = Visitor("anna-s-tab", "anna")
NAME = "a" * 64 + "/note.txt"
OTHER = "b" * 64 + "/other.txt"


class Process:
    """One replica: a client of the bucket, and a disk."""

    def __init__(self, bucket: FakeBucket, clock: FakeClock, disk: Path) -> None:
        self.client = FakeObjectClient(bucket)
        backend = ObjectBackend(self.client, elapsed=bucket.seconds)
        self.store = SessionStore(backend, clock=clock)
        self.seconds = bucket.seconds
        paths = CachePaths(disk, b"secret")
        self.files = CacheFiles(self.store, paths, CacheDir(disk, None), bucket.seconds)

    def makes(self, name: str, content: bytes) -> None:
        """What Gradio does: it writes the file."""
        path = self.files.local.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def serves(self, name: str, owner: str | None = "anna") -> bytes | None:
        found = self.files.obtain(owner, name)
        return None if found is None else self.files.local.path(name).read_bytes()

    @contextmanager
    def counting(self) -> Iterator[Callable[[], dict[str, int]]]:
        self.client.requests.clear()
        yield lambda: dict(self.client.requests)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def pair(clock: FakeClock, tmp_path: Path) -> tuple[Process, Process]:
    bucket = FakeBucket(clock.now)
    return Process(bucket, clock, tmp_path / "a"), Process(bucket, clock, tmp_path / "b")


@pytest.fixture
def a(pair: tuple[Process, Process]) -> Process:
    return pair[0]


@pytest.fixture
def b(pair: tuple[Process, Process]) -> Process:
    return pair[1]


def test_a_first_file_of_a_tab(a: Process) -> None:
    a.makes(NAME, b"note")
    with a.counting() as requests:
        a.files.keep(ANNA, "anna", NAME)
    assert requests() == {"LIST": 3, "PUT": 4}  # the save: 2 and 2; the list of tabs: 1 and 2


def test_another_file_of_it(a: Process) -> None:
    a.makes(NAME, b"note")
    a.makes(OTHER, b"other")
    a.files.keep(ANNA, "anna", NAME)
    with a.counting() as requests:
        a.files.keep(ANNA, "anna", OTHER)
    assert requests() == {"LIST": 2, "PUT": 2}


def test_a_first_file_of_another_tab(a: Process) -> None:
    a.makes(NAME, b"note")
    a.makes(OTHER, b"other")
    a.files.keep(ANNA, "anna", NAME)
    with a.counting() as requests:
        a.files.keep(Visitor("another", "anna"), "anna", OTHER)
    assert requests() == {"LIST": 2, "PUT": 3}  # an entry without bytes is known: one PUT


def test_the_same_file_again(a: Process) -> None:
    a.makes(NAME, b"note")
    a.files.keep(ANNA, "anna", NAME)
    with a.counting() as requests:
        a.files.keep(ANNA, "anna", NAME)
        a.files.keep(ANNA, "anna", NAME)
    assert requests() == {}


def test_an_upload_and_its_first_use(a: Process) -> None:
    a.makes(NAME, b"note")
    with a.counting() as requests:
        a.files.keep_upload("anna", NAME)
    assert requests() == {"LIST": 2, "PUT": 2}
    with a.counting() as requests:
        a.files.claim(ANNA, "anna", NAME)
        a.files.drain()
    # A save of known bytes, the first entry in a list of tabs, and a delete.
    assert requests() == {"LIST": 2, "PUT": 3, "DELETE": 1}


def test_a_file_that_is_served_where_it_was_made(a: Process, clock: FakeClock) -> None:
    a.makes(NAME, b"note")
    a.files.keep(ANNA, "anna", NAME)
    with a.counting() as requests:
        assert a.serves(NAME) == b"note"
    assert requests() == {}
    clock.advance(timedelta(seconds=3))
    with a.counting() as requests:
        assert a.serves(NAME) == b"note"
    assert requests() == {"LIST": 1}


def test_a_file_that_is_served_elsewhere(a: Process, b: Process, clock: FakeClock) -> None:
    a.makes(NAME, b"note")
    a.files.keep(ANNA, "anna", NAME)
    with b.counting() as requests:
        assert b.serves(NAME) == b"note"
    assert requests() == {"LIST": 3, "GET": 1}  # not unclaimed; the tabs; the file
    clock.advance(timedelta(seconds=3))
    with b.counting() as requests:
        assert b.serves(NAME) == b"note"
    assert requests() == {"LIST": 1}


def test_a_large_file_that_is_served_elsewhere(a: Process, b: Process) -> None:
    content = bytes(cache_files.LARGE + 1)
    a.makes(NAME, content)
    a.files.keep(ANNA, "anna", NAME)
    with b.counting() as requests:
        assert b.serves(NAME) == content
    assert requests() == {"LIST": 3, "GET": 1}


def test_a_large_file_is_read_twice_before_it_counts_as_damaged(a: Process, b: Process) -> None:
    a.makes(NAME, bytes(cache_files.LARGE + 1))
    kept = a.files.keep(ANNA, "anna", NAME)
    assert kept is not None
    (blob,) = (
        key
        for key in a.client.bucket.all_keys()
        if key.startswith("b/") and kept.reference.digest in key
    )
    a.client.put(blob, Payload.of(bytes(cache_files.LARGE) + b"!"))
    with b.counting() as requests, pytest.raises(Corrupted):
        b.serves(NAME)
    assert requests()["GET"] == 2
    assert not list(b.files.local.root.rglob("*note*"))


def test_a_file_of_one_tab_of_three(a: Process, b: Process, clock: FakeClock) -> None:
    a.makes(NAME, b"note")
    a.makes(OTHER, b"other")
    a.files.keep(ANNA, "anna", NAME)
    for tab in ("second", "third"):
        clock.advance(timedelta(seconds=3))
        a.files.keep(Visitor(tab, "anna"), "anna", OTHER)
    with b.counting() as requests:
        assert b.serves(NAME) == b"note"
    assert requests() == {"LIST": 5, "GET": 1}


def test_a_file_that_is_nobody_s(b: Process) -> None:
    with b.counting() as requests:
        assert b.serves(NAME) is None
    assert requests() == {"LIST": 3}


def test_a_stored_file_that_is_served_elsewhere(a: Process, b: Process) -> None:
    file = a.store.session(*ANNA).put("stored.txt", b"stored")
    with a.counting() as requests:
        name = a.files.give(file.session.sid, file.reference, "anna").name
    assert requests() == {}
    with b.counting() as requests:
        assert b.serves(name) == b"stored"
    assert requests() == {"LIST": 1, "GET": 1}
    with b.counting() as requests:
        assert b.serves(name, owner="boris") is None
    assert requests() == {"LIST": 1}


def test_a_client_without_a_cookie_is_served_elsewhere_without_a_listing_of_all(
    a: Process, b: Process
) -> None:
    for number in range(20):
        other = f"{number:064x}/other.txt"
        a.makes(other, b"other")
        a.files.keep(Visitor(f"tab-{number}", None), None, other)
    a.makes(NAME, b"note")
    with a.counting() as requests:
        kept = a.files.keep(Visitor("mine", None), None, NAME)
        assert kept is not None
        link = a.files.give(kept.sid, kept.reference, None, link=True).name
    assert requests() == {"LIST": 2, "PUT": 2}
    with b.counting() as requests:
        assert b.serves(link, owner=None) == b"note"
    assert requests() == {"LIST": 1, "GET": 1}


def test_what_is_gone_is_served_elsewhere_for_two_seconds_at_most(
    a: Process, b: Process, clock: FakeClock
) -> None:
    a.makes(NAME, b"note")
    a.files.keep(ANNA, "anna", NAME)
    file = a.store.session(*ANNA).put("stored.txt", b"stored")
    given = a.files.give(file.session.sid, file.reference, "anna").name
    assert (b.serves(NAME), b.serves(given)) == (b"note", b"stored")

    a.store.session(*ANNA).drop()
    believed = b.serves(NAME)
    clock.advance(timedelta(seconds=2))

    assert believed == b"note"
    assert (b.serves(NAME), b.serves(given)) == (None, None)
    assert not b.files.local.path(NAME).exists()
    assert not b.files.local.path(given).exists()


def test_a_file_that_is_uploaded_again_is_in_its_session_alone(
    a: Process, b: Process, clock: FakeClock
) -> None:
    """Wherever it came in: it goes with the session, and does not wait for an event once more."""
    unclaimed = a.files.unclaimed("anna").sid
    for uploader in (a, a, b):
        uploader.makes(NAME, b"note")
        uploader.files.keep_upload("anna", NAME)
        assert len(list(a.store.backend.files(unclaimed))) == 1
        if a.files.settled(ANNA, "anna", NAME) is None:  # as an event asks
            assert a.files.claim(ANNA, "anna", NAME)
        a.files.drain()

        assert list(a.store.backend.files(unclaimed)) == []
        clock.advance(timedelta(seconds=3))
    with a.counting() as requests:
        a.files.claim(ANNA, "anna", NAME)

    assert requests() == {"LIST": 2}  # the session's file, and whether it was uploaded again
    a.store.session(*ANNA).drop()
    clock.advance(timedelta(seconds=3))
    assert (a.serves(NAME), b.serves(NAME)) == (None, None)


def test_a_pinned_file_is_found_again_when_another_replica_has_saved_it_anew(
    a: Process, b: Process, clock: FakeClock
) -> None:
    for each in (a, b):
        each.makes(NAME, b"default")
        each.files.pin([NAME])  # b's is a newer version
        clock.advance(timedelta(seconds=3))
    a.files.local.path(NAME).unlink()  # somebody who cleans temporary files

    assert a.serves(NAME, "boris") == b"default"
    with a.counting() as requests:
        assert a.serves(NAME, "boris") == b"default"
    assert requests() == {}


def test_a_pinned_file_is_renewed_when_another_replica_has_saved_it_anew(
    a: Process, b: Process, clock: FakeClock
) -> None:
    for each in (a, b):
        each.makes(NAME, b"default")
        each.files.pin([NAME])
    a.files.local.path(NAME).unlink()
    clock.advance(timedelta(hours=16))
    a.files.renew_pins()
    clock.advance(timedelta(hours=16))
    a.store.sweep()

    assert [it.name for it in a.store.backend.files(a.files._pins.sid)] == [f"@/{NAME}"]


def test_a_pinned_file_that_is_gone_is_served_to_nobody(a: Process) -> None:
    a.makes(NAME, b"default")
    a.files.pin([NAME])
    a.files.local.path(NAME).unlink()
    a.files._pins.delete(NAME)

    assert a.serves(NAME, "boris") is None


def test_the_lists_of_a_visitor_go_when_two_replicas_drop_the_last_two_tabs(
    a: Process, b: Process, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each still sees the entry of the other when it looks."""
    for tab in ("one", "two"):
        for replica in (a, b):
            replica.files.lists.record("anna", tab)
    clock.advance(timedelta(minutes=10))
    nothing = a.files.unclaimed("anna").key
    delete = KeptSession.delete
    others: list[Any] = []

    def deleting(session: Any, *names: str) -> None:
        if not others:
            others.append(session)
            tidy(b.store, "anna", "two", nothing)
        delete(session, *names)

    monkeypatch.setattr("sessionstore.session.Session.delete", deleting)
    tidy(a.store, "anna", "one", nothing)
    assert others
    clock.advance(timedelta(seconds=3))
    assert list(a.store.backend.sessions()) == []


def test_a_sweep_of_an_attached_replica_lists_each_object_once(
    a: Process, clock: FakeClock
) -> None:
    """With local copies, a limit and an open dashboard too."""
    backend = ObjectBackend(FakeObjectClient(a.client.bucket, page_size=10), elapsed=a.seconds)
    store = SessionStore(backend, clock=clock, limits=Limits(max_store=1 << 30))
    a.files.store = store
    store.use_local_copies(OwnedCopies(a.files.paths.root / "ours", None, a.files))
    a.makes(NAME, b"note")
    a.files.keep(ANNA, "anna", NAME)
    other = Visitor("another", "anna")
    a.makes(OTHER, b"other")
    a.files.keep(other, "anna", OTHER)
    for number in range(100):
        store.session(f"{number}").add(b"%d" % number)
    watch(store)
    a.store.session(*other).drop()
    requests = backend.client.requests  # type: ignore[attr-defined]  # a FakeObjectClient
    requests.clear()
    store.sweep()
    content, sessions, intents, uploads = 103, 103, 1, 1
    assert requests["LIST"] == -(-content // 10) + -(-sessions // 10) + intents + uploads
    assert (a.files.local.has(NAME), a.files.local.has(OTHER)) == (True, False)
    assert watch(store).samples[-1].bytes == store.backend.stored().bytes


def test_nothing_stays_of_an_upload_that_expired(a: Process, clock: FakeClock) -> None:
    a.makes(NAME, b"note")
    a.files.keep_upload("anna", NAME)
    clock.advance(cache_files.UNCLAIMED)
    assert [row.action for row in a.store.sweep()] == ["drop"]
    assert list(a.store.backend.sessions()) == []


def test_no_event_waits_for_the_deletion_of_an_upload_that_it_used(
    a: Process, b: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deletion is of that upload: one that the visitor sends meanwhile stays."""
    backend: Any = a.store.backend
    monkeypatch.setattr(type(backend), "at_once", 4)
    forget, go_on = backend.forget, threading.Event()
    asked: list[Any] = []

    def slow(sid: str, doomed: Any) -> Any:
        asked.append(doomed)
        assert go_on.wait(PATIENCE)
        return forget(sid, doomed)

    backend.forget = slow
    for replica in (a, b):
        replica.makes(NAME, b"note")
    a.files.keep_upload("anna", NAME)
    unclaimed = a.files.unclaimed("anna").sid

    claimed = a.files.claim(ANNA, "anna", NAME)
    b.files.keep_upload("anna", NAME)
    go_on.set()
    a.files.drain()

    assert claimed is not None
    assert claimed.sid == a.files.home(ANNA, "anna").sid
    assert len(asked) == 1
    assert len(list(b.store.backend.files(unclaimed))) == 1


def test_a_limit_counts_an_upload_that_an_event_used_no_longer(
    a: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a limit the event waits for the deletion."""
    monkeypatch.setattr(type(a.store.backend), "at_once", 4)
    monkeypatch.setattr(a.store.ledger, "limited", True)
    a.makes(NAME, b"note")
    a.files.keep_upload("anna", NAME)
    later: list[Any] = []
    monkeypatch.setattr(a.files._deferred, "call", later.append)

    a.files.claim(ANNA, "anna", NAME)

    assert not later
    assert list(a.store.backend.files(a.files.unclaimed("anna").sid)) == []


@pytest.mark.parametrize("source", ["bytes", "path"])
def test_a_file_that_was_just_saved_here_is_not_fetched(
    a: Process, tmp_path: Path, source: str
) -> None:
    session = VisitorSession(a.store, session_key(*ANNA), a.files.recent)
    path = tmp_path / "own.bin"
    path.write_bytes(b"own")
    file = session.add(b"own" if source == "bytes" else path, ".bin")
    found = a.files.give(session.sid, file.reference, "anna")

    with a.counting() as requests:
        assert a.files.fetch(found).read_bytes() == b"own"

    assert requests() == {}


def test_a_file_that_was_changed_after_its_save_is_fetched(a: Process, tmp_path: Path) -> None:
    session = VisitorSession(a.store, session_key(*ANNA), a.files.recent)
    path = tmp_path / "own.bin"
    path.write_bytes(b"own")
    file = session.add(path)
    path.write_bytes(b"new")

    found = a.files.give(session.sid, file.reference, "anna")

    assert a.files.fetch(found).read_bytes() == b"own"


def test_a_file_that_was_deleted_after_its_save_is_not_given(a: Process) -> None:
    session = VisitorSession(a.store, session_key(*ANNA), a.files.recent)
    file = session.put("own.bin", b"own")
    session.delete("own.bin")
    a.files.forget_file(session.sid, "own.bin")  # as an attached store has it called

    found = a.files.give(session.sid, file.reference, "anna")

    with pytest.raises(FileNotStored):
        a.files.fetch(found)


def test_the_bytes_of_files_just_saved_are_remembered_up_to_a_size(
    a: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SOURCES", 5)
    session = VisitorSession(a.store, session_key(*ANNA), a.files.recent)
    for name in ("one", "two"):
        session.put(name, b"1234")

    assert [name for _, name in a.files.recent._sources] == ["two"]


def test_a_file_of_a_visitor_can_be_pickled(a: Process) -> None:
    file = VisitorSession(a.store, session_key(*ANNA), a.files.recent).put("own.bin", b"own")

    assert pickle.loads(pickle.dumps(file)) == file


@pytest.mark.parametrize("hours", [0, 5], ids=["in the store", "too old to be adopted"])
def test_the_bytes_of_a_large_upload_are_not_read_again(
    a: Process, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    monkeypatch.setattr(type(a.store.backend), "at_once", 4)
    data = bytes((1 << 20) + 1)
    a.makes(NAME, data)
    a.files.keep_upload("anna", NAME)
    clock.advance(timedelta(hours=hours))
    puts: list[str] = []
    put = KeptSession.put

    def noted(self: KeptSession, name: str, *args: Any, **options: Any) -> Any:
        puts.append(name)
        return put(self, name, *args, **options)

    monkeypatch.setattr(KeptSession, "put", noted)
    claimed = a.files.claim(ANNA, "anna", NAME)
    a.files.drain()

    assert claimed is not None
    assert claimed.sid == a.files.home(ANNA, "anna").sid
    assert a.files.home(ANNA, "anna").read(NAME) == data
    assert puts == ([NAME] if hours else [])


def test_my_files_asks_for_the_sessions_of_the_owner_alone(a: Process, b: Process) -> None:
    a.store.owners.complete = True
    for tab in ("one", "two"):
        a.store.session(tab, "anna").add(tab.encode())
    for number in range(20):
        a.store.session(f"{number}", "boris").add(b"%d" % number)
    with a.counting() as requests:
        assert len(OwnFiles(a.files, "anna").listed()) == 2
    assert requests() == {"LIST": 1 + 2 + 2 * 2}  # the list; uploads and history; each session
    with b.counting() as requests:
        assert len(OwnFiles(b.files, "anna").listed()) == 2
    assert requests() == {"LIST": 1 + 2 + 2 * 2}


def test_with_my_files_a_first_save_notes_its_session(a: Process) -> None:
    a.store.owners.complete = True
    a.store.session("one", "anna").add(b"first")
    with a.counting() as requests:
        a.store.session("two", "anna").add(b"another tab")
    assert requests() == {"LIST": 1, "PUT": 3}
    with a.counting() as requests:
        a.store.session("two", "anna").add(b"again")
    assert requests() == {"LIST": 1, "PUT": 2}
