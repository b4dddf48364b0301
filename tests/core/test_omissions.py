"""``copy_to``, ``verify`` and ``plan`` have a row or a count for everything that they leave out."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sessionstore import BackendUnavailable, Corrupted, FileNotStored, SessionStore
from sessionstore.audit import Audit
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.backends.objects import ObjectBackend, keys
from sessionstore.limits import Limits
from sessionstore.names import private_key
from sessionstore.session import Session
from sessionstore.testing import Call, FakeClock, Fault, FaultyBackend
from sessionstore.transfer import Copied, Damaged
from sessionstore.verification import Finding
from tests.support.cli_rig import run
from tests.support.local import blobs, spoil
from tests.support.object_client import FakeBucket, FakeObjectClient
from tests.support.stores import DAY, HOUR, MINUTE, local_store, memory_store, names

LONG = "Ä" * 120 + ".png"
"""A name whose stored form has a digest in its place."""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def target(clock: FakeClock) -> Iterator[SessionStore]:
    with memory_store(clock) as store:
        yield store


def places(findings: list[Finding] | tuple[Finding, ...]) -> list[tuple[str, str]]:
    return sorted((it.kind, it.place) for it in findings)


def held(store: SessionStore) -> list[str]:
    """The rows of a plan for what is no session."""
    return sorted(row.session_id for row in store.plan() if row.record is None)


class TestLocal:
    @pytest.fixture
    def store(self, tmp_path: Path, clock: FakeClock) -> Iterator[SessionStore]:
        with local_store(tmp_path, clock) as store:
            store.session("alice", "her").put("cat.png", b"cat")
            store.session("bob").put("dog.png", b"dog")
            yield store

    @pytest.fixture
    def alice(self, store: SessionStore, tmp_path: Path) -> Path:
        """Alice's folder."""
        return tmp_path / "sessions" / store.session("alice", "her").sid

    @pytest.mark.parametrize(
        "told",
        ["", '{"id": "ali', "[]", '{"id": 5, "owner": null}', '{"id": "mallory", "owner": null}'],
        ids=["empty", "torn", "strange", "a number", "another's"],
    )  # fmt: skip
    def test_a_session_that_does_not_say_whose_it_is_is_copied_with_a_row(
        self, store: SessionStore, target: SessionStore, alice: Path, told: str
    ) -> None:
        (alice / "id").write_text(told)
        copied = store.copy_to(target)
        assert (copied.files, places(copied.findings)) == (2, [("damaged", alice.name)])
        assert target.session("alice", "her").read("cat.png") == b"cat"

    def test_a_plan_says_that_a_session_does_not_say_whose_it_is(
        self, store: SessionStore, alice: Path, clock: FakeClock
    ) -> None:
        (alice / "id").write_text("")
        clock.advance(2 * DAY)
        said = {
            row.session_id: "its id and owner cannot be read" in row.reason for row in store.plan()
        }
        assert said == {alice.name: True, "bob": False}

    def test_one_without_files_is_a_finding_too(self, store: SessionStore, alice: Path) -> None:
        store.session("alice", "her").delete("cat.png")
        (alice / "id").write_text("")
        assert places(store.verify()) == [("damaged", alice.name)]

    @pytest.mark.parametrize("mark", ["id", "seen", "files"])
    def test_a_session_without_a_mark_has_a_row_everywhere(
        self, store: SessionStore, target: SessionStore, alice: Path, mark: str
    ) -> None:
        store.close()
        path = alice / mark
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        row = ("damaged", f"sessions/{alice.name}")
        with local_store(alice.parents[1], FakeClock()) as again:
            copied = again.copy_to(target)
            assert (row in places(copied.findings), row in places(again.verify())) == (True, True)
            assert held(again) == [alice.name]

    def test_what_is_called_like_a_session_and_is_none_has_a_row_everywhere(
        self, store: SessionStore, target: SessionStore, alice: Path
    ) -> None:
        shutil.rmtree(alice)
        alice.write_bytes(b"a file")
        row = ("unknown", f"sessions/{alice.name}")
        copied = store.copy_to(target)
        assert (copied.files, places(copied.findings)) == (1, [row])
        assert row in places(store.verify())
        assert held(store) == [f"sessions/{alice.name}"]

    def test_what_is_none_of_ours_among_the_sessions_has_a_row_everywhere(
        self, store: SessionStore, target: SessionStore, alice: Path
    ) -> None:
        (alice.parent / "stray").mkdir()
        row = ("unknown", "sessions/stray")
        assert places(store.copy_to(target).findings) == [row] == places(store.verify())
        assert held(store) == ["sessions/stray"]

    @pytest.mark.parametrize(
        "place", ["stray", "blobs/stray", "blobs/aa/stray", "tmp/stray", "{alice}/files/Stray",
                  "{alice}/stray"],
    )  # fmt: skip
    def test_what_is_none_of_ours_elsewhere_is_a_finding(
        self, store: SessionStore, target: SessionStore, tmp_path: Path, alice: Path, place: str
    ) -> None:
        place = place.format(alice=f"sessions/{alice.name}")
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(b"what is it?")
        row = ("unknown", place)
        assert places(store.copy_to(target).findings) == [row] == places(store.verify())

    def test_a_file_whose_name_is_lost_is_a_finding(
        self, store: SessionStore, target: SessionStore, alice: Path
    ) -> None:
        store.session("alice", "her").put(LONG, b"long")
        (alice / "journal").unlink()
        (lost,) = [path for path in (alice / "files").iterdir() if "!!" in path.name]
        row = ("damaged", f"sessions/{alice.name}/files/{lost.name}")
        copied = store.copy_to(target)
        assert (copied.files, places(copied.findings)) == (2, [row])
        assert places(store.verify()) == [row]

    def test_a_torn_file_is_a_finding(
        self, store: SessionStore, target: SessionStore, tmp_path: Path, alice: Path
    ) -> None:
        (blob,) = (path for path in blobs(tmp_path) if path.read_bytes() == b"cat")
        spoil(blob, b"")
        copied = store.copy_to(target)
        row = ("damaged", f"sessions/{alice.name}/files/cat.png")
        assert (copied.files, places(copied.findings)) == (1, [row])

    def test_a_name_of_no_encoding_is_a_finding(
        self, store: SessionStore, target: SessionStore, alice: Path
    ) -> None:
        for folder in (alice / "files", alice.parent):
            Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).mkdir()
        rows = [("unknown", f"sessions/{alice.name}/files/\udcff"), ("unknown", "sessions/\udcff")]
        assert places(store.copy_to(target).findings) == rows == places(store.verify())

    def test_an_adapter_s_own_sessions_are_copied(
        self, store: SessionStore, target: SessionStore
    ) -> None:
        own = private_key("gradio pinned")
        Session(store, own).put("logo.png", b"logo")
        assert store.copy_to(target) == Copied(files=3, bytes=10, skipped=0)
        assert Session(target, own).read("logo.png") == b"logo"

    def test_every_damaged_file_has_a_row(
        self, store: SessionStore, target: SessionStore, tmp_path: Path
    ) -> None:
        store.shared.put("sound", b"sound")
        for blob in blobs(tmp_path):
            if blob.read_bytes() != b"sound":
                spoil(blob, b"bad")
        with pytest.raises(Damaged, match="So are 1 more files") as caught:
            store.copy_to(target)
        found = {(it.kind, it.session_id, it.name) for it in caught.value.copied.findings}
        assert found == {("damaged", "alice", "cat.png"), ("damaged", "bob", "dog.png")}
        assert (caught.value.copied.files, isinstance(caught.value, Corrupted)) == (1, True)

    def test_a_sweep_looks_at_sessions_alone(self, store: SessionStore, alice: Path) -> None:
        (alice.parent / "stray").mkdir()
        assert store.sweep() == []

    def test_work_on_its_way_is_no_finding(self, store: SessionStore, target: SessionStore) -> None:
        with store.session("bob").open("half.bin", "wb") as half:
            half.write(b"half" * 1_000_000)
            copied = store.copy_to(target)
        assert copied == Copied(files=2, bytes=6, skipped=0)


class TestBucket:
    @pytest.fixture
    def bucket(self, clock: FakeClock) -> FakeBucket:
        return FakeBucket(clock.now)

    @pytest.fixture
    def store(self, bucket: FakeBucket, clock: FakeClock) -> Iterator[SessionStore]:
        with self.opened(bucket, clock) as store:
            store.session("alice", "her").put("cat.png", b"cat")
            store.session("bob").put("dog.png", b"dog")
        with self.opened(bucket, clock) as store:  # one that remembers nothing
            yield store

    def opened(self, bucket: FakeBucket, clock: FakeClock) -> SessionStore:
        backend = ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds)
        return SessionStore(backend, clock=clock)

    def key(self, bucket: FakeBucket, part: str) -> str:
        (key,) = (key for key in bucket.all_keys() if part in key)
        return key

    def test_a_session_that_does_not_say_whose_it_is_is_copied_with_a_row(
        self, store: SessionStore, target: SessionStore, bucket: FakeBucket
    ) -> None:
        bucket.put(self.key(bucket, "/f/cat.png/"), b"{")
        copied = store.copy_to(target)
        sid = store.session("alice", "her").sid
        assert (copied.files, places(copied.findings)) == (2, [("damaged", sid)])
        assert target.session("alice", "her").read("cat.png") == b"cat"

    def test_an_unknown_key_among_the_sessions_has_a_row_everywhere(
        self, store: SessionStore, target: SessionStore, bucket: FakeBucket
    ) -> None:
        for key in ("s/stray", f"s/{store.session('bob').sid}/stray"):
            bucket.put(key, b"what is it?")
        rows = [("unknown", "s/" + rest) for rest in (store.session("bob").sid + "/stray", "stray")]
        assert places(store.copy_to(target).findings) == rows == places(store.verify())
        assert held(store) == [place for _, place in rows]

    @pytest.mark.parametrize("key", ["stray", "b/aa/stray", "i/stray"])
    def test_an_unknown_key_elsewhere_is_a_finding(
        self, store: SessionStore, target: SessionStore, bucket: FakeBucket, key: str
    ) -> None:
        bucket.put(key, b"what is it?")
        row = ("unknown", key)
        assert places(store.copy_to(target).findings) == [row] == places(store.verify())

    def test_an_unknown_upload_is_a_finding(self, store: SessionStore, bucket: FakeBucket) -> None:
        FakeObjectClient(bucket).begin("stray")
        assert places(store.verify()) == [("unknown", "stray")]

    def test_a_file_whose_name_is_lost_is_a_finding(
        self, store: SessionStore, target: SessionStore, bucket: FakeBucket
    ) -> None:
        store.session("bob").put(LONG, b"long")
        key = self.key(bucket, "!!")
        bucket.put(key, b"{")
        copied = store.copy_to(target)
        assert (copied.files, places(copied.findings)) == (2, [("damaged", key)])

    @pytest.mark.parametrize("read_before", [False, True])
    def test_a_file_whose_content_is_missing_is_a_finding_and_not_gone(
        self, store: SessionStore, target: SessionStore, bucket: FakeBucket, *, read_before: bool
    ) -> None:
        for generation in [key for key in bucket.all_keys() if key.startswith(keys.BLOBS)]:
            if bytes(bucket.get(generation).data) == b"cat":
                bucket.delete([generation])
        if read_before:
            with pytest.raises(FileNotStored):
                store.session("alice", "her").read("cat.png")
        copied = store.copy_to(target)
        (finding,) = copied.findings
        assert (finding.kind, finding.session_id, finding.name) == ("missing", "alice", "cat.png")
        assert (copied.files, copied.gone) == (1, 0)


class Meanwhile:
    """A memory store in which something happens at a verb of its backend."""

    def __init__(self, clock: FakeClock) -> None:
        self.backend = FaultyBackend(MemoryBackend(Place(), clock))
        self.store = SessionStore(self.backend, clock=clock)
        self.session = self.store.session("alice")
        self.session.put("a", b"cat")

    def at(self, verb: str, happens: Callable[[MemoryBackend, str], Any]) -> None:
        def plan(call: Call) -> None:
            if call.verb == verb and call.number == 1:
                inner = self.backend.backend
                assert isinstance(inner, MemoryBackend)
                happens(inner, self.session.sid)

        self.backend.plan = plan


class TestGone:
    """A file that went meanwhile is counted, and is no finding."""

    @pytest.fixture
    def source(self, clock: FakeClock) -> Meanwhile:
        return Meanwhile(clock)

    def test_a_deleted_file(self, source: Meanwhile, target: SessionStore) -> None:
        source.at("open", lambda backend, sid: backend.delete(sid, ["a"]))
        assert source.store.copy_to(target) == Copied(0, 0, 0, gone=1)

    def test_a_dropped_session(self, source: Meanwhile, target: SessionStore) -> None:
        source.at("identify", lambda backend, sid: backend.drop(sid))
        assert source.store.copy_to(target) == Copied(0, 0, 0, gone=1)

    def test_a_file_over_its_time(
        self, source: Meanwhile, target: SessionStore, clock: FakeClock
    ) -> None:
        source.session.put("a", b"cat", ttl=MINUTE)
        clock.advance(HOUR)
        assert source.store.copy_to(target) == Copied(0, 0, 0, gone=1)


class TestAnyBackend:
    @pytest.fixture
    def store(self, clock: FakeClock) -> SessionStore:
        """A store that lists a file, and does not give its bytes."""
        backend = FaultyBackend(MemoryBackend(Place(), clock))
        store = SessionStore(backend, clock=clock)
        store.session("alice").put("a", b"cat")
        store.session("bob").put("b", b"dog")

        def plan(call: Call) -> Fault | None:
            lost = call.verb == "open" and call.arguments["reference"].name == "a"
            return Fault(lambda: FileNotStored("a")) if lost else None

        backend.plan = plan
        return store

    def test_a_copy_has_a_row_for_content_that_is_not_there(
        self, store: SessionStore, target: SessionStore
    ) -> None:
        copied = store.copy_to(target)
        assert [(it.kind, it.session_id, it.name) for it in copied.findings] == [
            ("missing", "alice", "a")
        ]
        assert (copied.files, copied.gone) == (1, 0)

    def test_verify_too(self, store: SessionStore) -> None:
        assert [(it.kind, it.session_id, it.name) for it in store.verify()] == [
            ("missing", "alice", "a")
        ]


def test_what_makes_room_is_audited_also_of_a_session_without_an_id(
    tmp_path: Path, clock: FakeClock
) -> None:
    log = tmp_path / "audit"
    with local_store(tmp_path / "store", clock, limits=Limits(max_store=10)) as store:
        store.audit = Audit(log)
        old = store.session("alice")
        old.put("a", b"0123456789")
        (tmp_path / "store" / "sessions" / old.sid / "id").write_text("")
        clock.advance(timedelta(hours=1))
        store.session("bob").put("b", b"0123456789")
    assert [json.loads(line)["name"] for line in log.read_text().splitlines()] == ["a"]


def unreadable(patch: pytest.MonkeyPatch, name: str) -> None:
    """Make folders of that name fail as a broken disk does."""
    real = os.scandir

    def scandir(path: Any) -> Any:
        if str(path).endswith(name):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return real(path)

    patch.setattr(os, "scandir", scandir)


def test_a_directory_that_cannot_be_read_whole_is_an_error(
    target: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = target.session("alice")
    with pytest.raises(BackendUnavailable), session.directory() as path:
        (path / "a").write_bytes(b"a")
        (path / "below").mkdir()
        unreadable(monkeypatch, "below")
    assert names(session) == []


class TestCommandLine:
    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    @pytest.fixture
    def nameless(self) -> str:
        """A store at ``here`` with a session that does not say whose it is; its stored name."""
        with SessionStore.open("here") as store:
            session = store.session("alice", "her")
            session.put("cat.png", b"cat")
        Path("here", "sessions", session.sid, "id").write_text("")
        return session.sid

    def test_copy_shows_the_rows_and_has_their_status(self, nameless: str) -> None:
        done = run("copy", "here", "there")
        assert done.status == 4
        assert done.out.startswith(f"damaged\t-\t{nameless}\tno\tThe id and owner of the session")
        assert "1 file copied, 3 B; 0 already there, 0 deleted during the copy; 1 finding." in (
            done.err
        )

    def test_copy_in_json_has_the_rows(self, nameless: str) -> None:
        done = run("copy", "here", "there", "--json")
        (row,) = done.value["findings"]
        assert (done.status, row["kind"], row["place"]) == (4, "damaged", nameless)

    def test_copy_of_damaged_files_shows_them_and_fails(self, nameless: str) -> None:
        (blob,) = blobs(Path("here"))
        spoil(blob, b"bad")
        done = run("copy", "here", "there")
        assert done.status == 1
        assert [line.split("\t")[:3] for line in done.out.splitlines()] == [
            ["damaged", "-", nameless], ["damaged", "-", "cat.png"],
        ]  # fmt: skip
        assert "They were not copied" in done.err

    @pytest.mark.parametrize("command", ["du", "sessions"])
    def test_listings_show_a_session_that_does_not_say_whose_it_is(
        self, nameless: str, command: str
    ) -> None:
        done = run(command, "-s", "here")
        assert nameless in done.out
        assert "1 session without a readable id" in done.err

    def test_ls_shows_its_files(self, nameless: str) -> None:
        (file,) = run("ls", "-s", "here", "--json").value
        assert (file["session"], file["stored_name"]) == (None, nameless)

    def test_its_files_are_fetched_by_its_stored_name(self, nameless: str) -> None:
        run("get", nameless, "--to", "got", "-s", "here")
        assert Path("got", "cat.png").read_bytes() == b"cat"

    def test_ls_shows_an_adapter_s_own_files(self) -> None:
        with SessionStore.open("here") as store:
            Session(store, private_key("gradio pinned")).put("logo.png", b"logo")
        (file,) = run("ls", "-s", "here", "--json").value
        assert (file["session"], file["name"]) == ("gradio pinned", "logo.png")

    def test_put_says_that_it_passes_over_links(self) -> None:
        Path("from", "below").mkdir(parents=True)
        Path("from", "a").write_bytes(b"a")
        Path("from", "link").symlink_to("a")
        Path("from", "folder").symlink_to("below")
        done = run("put", "alice", "from", "-s", "here")
        assert (done.status, "2 link or special files skipped." in done.err) == (0, True)

    def test_put_fails_at_a_folder_that_cannot_be_read(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("from", "below").mkdir(parents=True)
        Path("from", "a").write_bytes(b"a")
        unreadable(monkeypatch, "below")
        done = run("put", "alice", "from", "-s", "here")
        assert (done.status, "cannot be read" in done.err) == (1, True)

    def test_plan_shows_what_is_no_session(self, nameless: str) -> None:
        Path("here", "sessions", "stray").mkdir()
        assert run("plan", "-s", "here").out.startswith(
            "hold\tsessions/stray\t-\t-\t0 B\t'sessions/stray' does not belong to the store."
        )


def test_the_names_of_a_copied_session_are_its_visitor_s(
    clock: FakeClock, tmp_path: Path, target: SessionStore
) -> None:
    with local_store(tmp_path, clock) as store:
        session = store.session("alice")
        session.put("a", b"cat")
        (tmp_path / "sessions" / session.sid / "id").write_text("")
        store.copy_to(target)
    assert names(target.session("alice")) == ["a"]
    assert target.verify() != []  # it still does not say whose it is
