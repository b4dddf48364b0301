"""A stored file: what it says of itself, ways of reading it, its copy on the disk, its URL."""

from __future__ import annotations

import gc
import hashlib
import io
import multiprocessing
import os
import pickle
import shutil
import stat
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, timedelta
from pathlib import Path

import pytest
from PIL import Image

from sessionstore import (
    BackendUnavailable,
    Corrupted,
    FileNotStored,
    LimitExceeded,
    Session,
    SessionStore,
    SettingsError,
    StoredFile,
    signing,
)
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.local_copies import LocalCopies
from sessionstore.parsers import LONGEST
from sessionstore.testing import FakeClock, Fault, FaultyBackend, on, unavailable
from tests.support.local import blobs
from tests.support.stores import (
    HOUR,
    MINUTE,
    SECOND,
    in_threads,
    local_store,
    memory_store,
    store_of,
)

DATA = bytes(range(256)) * 40


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "local"])
def session(request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path) -> Iterator[Session]:
    local = request.param == "local"
    with local_store(tmp_path / "root", clock) if local else memory_store(clock) as store:
        store.use_local_copies(LocalCopies(tmp_path / "copies"))
        yield store.session("alice", "alice@example.org")


@pytest.fixture
def file(session: Session) -> StoredFile:
    return session.put("data.bin", DATA)


def forget_by_delete(session: Session) -> None:
    session.delete("data.bin")


def forget_by_drop(session: Session) -> None:
    session.drop()


def forget_by_replacing(session: Session) -> None:
    session.put("data.bin", b"other")


WAYS_TO_GO = [forget_by_delete, forget_by_drop, forget_by_replacing]


class TestWhatItSays:
    def test_name_size_and_session(self, file: StoredFile) -> None:
        assert (file.name, file.size, file.session_id) == ("data.bin", len(DATA), "alice")

    def test_digest_is_lower_case_hex_of_sha256(self, file: StoredFile) -> None:
        assert file.digest == hashlib.sha256(DATA).hexdigest()

    def test_media_type_comes_from_the_name(self, session: Session) -> None:
        types = [session.put(name, b"%PDF").media_type for name in ("a.png", "b.WAV", "c")]
        assert types == ["image/png", "audio/wav", "application/octet-stream"]

    def test_created_is_when_it_was_saved_in_utc(self, session: Session, clock: FakeClock) -> None:
        clock.advance(HOUR)
        file = session.put("data.bin", DATA)
        assert (file.created, file.created.tzinfo) == (clock.now(), UTC)

    def test_expires_is_none_without_a_time_to_live(self, file: StoredFile) -> None:
        assert file.expires is None

    def test_repr_is_for_people(self, file: StoredFile) -> None:
        assert repr(file) == "<StoredFile 'data.bin' 10240 bytes>"

    def test_get_and_files_give_what_put_gave(self, session: Session, file: StoredFile) -> None:
        (listed,) = session.files()
        assert session.get("data.bin") == listed == file
        assert len({session.get("data.bin"), listed, file}) == 1

    def test_a_replaced_file_is_another(self, session: Session, file: StoredFile) -> None:
        assert session.put("data.bin", b"other") != file

    def test_is_equal_to_nothing_else(self, file: StoredFile) -> None:
        assert file != "data.bin"


class TestRead:
    @pytest.mark.parametrize(
        ("start", "length"),
        [
            (0, None), (0, 0), (0, 1), (0, len(DATA)), (0, len(DATA) + 1), (1, None), (1000, 24),
            (len(DATA) - 1, None), (len(DATA) - 1, 9), (len(DATA), None), (len(DATA) + 9, 9),
        ],
    )  # fmt: skip
    def test_gives_the_range_short_at_the_end(
        self, file: StoredFile, start: int, length: int | None
    ) -> None:
        stop = None if length is None else start + length
        assert file.read(start, length) == DATA[start:stop]

    @pytest.mark.parametrize(("start", "length"), [(-1, None), (0, -1)])
    def test_a_negative_bound_is_refused(
        self, file: StoredFile, start: int, length: int | None
    ) -> None:
        with pytest.raises(ValueError, match="must not be negative"):
            file.read(start, length)

    @pytest.mark.parametrize("forget", WAYS_TO_GO)
    def test_of_bytes_that_are_gone_raises(
        self, session: Session, file: StoredFile, forget: Callable[[Session], None]
    ) -> None:
        forget(session)
        with pytest.raises(FileNotStored):
            file.read()

    def test_damaged_bytes_are_refused(self, tmp_path: Path, clock: FakeClock) -> None:
        with local_store(tmp_path / "root", clock) as store:
            file = store.session("alice").put("data.bin", DATA)
            damage(tmp_path / "root")
            with pytest.raises(Corrupted, match=r"'data\.bin' are damaged.*Save the file again"):
                file.read()


class TestOpen:
    def test_seeks_like_a_file(self, file: StoredFile) -> None:
        with file.open() as stream:
            model = io.BytesIO(DATA)
            for offset, whence, count in (
                (100, 0, 7), (-3, 1, 5), (0, 2, 1), (-10, 2, 20), (5000, 0, -1), (0, 0, 300),
                (20_000, 0, 5),
            ):  # fmt: skip
                assert stream.seek(offset, whence) == model.seek(offset, whence)
                assert stream.read(count) == model.read(count)
                assert stream.tell() == model.tell()

    def test_seeking_before_the_beginning_is_refused(self, file: StoredFile) -> None:
        with (
            file.open() as stream,
            pytest.raises(ValueError, match="a position must be at least 0"),
        ):
            stream.seek(-len(DATA) - 1, io.SEEK_END)

    def test_is_for_reading_only(self, file: StoredFile) -> None:
        with file.open() as stream:
            assert (stream.readable(), stream.seekable(), stream.writable()) == (True, True, False)

    def test_pillow_opens_it(self, session: Session) -> None:
        image = Image.effect_noise((300, 200), 64)
        file = session.put("noise.png", image)
        with Image.open(file.open()) as opened:
            assert opened.tobytes() == image.tobytes()

    def test_zipfile_opens_it(self, session: Session) -> None:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("a.txt", "one")
            archive.writestr("b.txt", DATA)
        file = session.put("a.zip", packed.getvalue())
        with zipfile.ZipFile(file.open()) as archive:
            assert (archive.namelist(), archive.read("b.txt")) == (["a.txt", "b.txt"], DATA)

    @pytest.mark.parametrize("forget", WAYS_TO_GO)
    def test_of_bytes_that_are_gone_raises(
        self, session: Session, file: StoredFile, forget: Callable[[Session], None]
    ) -> None:
        forget(session)
        with pytest.raises(FileNotStored):
            file.open()

    @pytest.mark.parametrize("forget", WAYS_TO_GO)
    def test_a_file_that_goes_while_it_is_open_is_never_another(
        self, session: Session, file: StoredFile, forget: Callable[[Session], None]
    ) -> None:
        with file.open() as stream:
            forget(session)
            with pytest.raises(FileNotStored):
                stream.read()

    def test_reading_whole_checks_the_digest(self, tmp_path: Path, clock: FakeClock) -> None:
        with local_store(tmp_path / "root", clock) as store:
            file = store.session("alice").put("data.bin", DATA)
            damage(tmp_path / "root")
            with file.open() as stream, pytest.raises(Corrupted):
                stream.read()


def damage(root: Path) -> None:
    """Flip a bit of the only blob, as a disk would: nothing else changes."""
    (blob,) = blobs(root)
    times = blob.stat()
    blob.chmod(0o600)
    data = bytearray(blob.read_bytes())
    data[1000] ^= 1
    blob.write_bytes(data)
    os.utime(blob, ns=(times.st_atime_ns, times.st_mtime_ns))


class TestLocalPath:
    def test_is_a_file_with_these_bytes_and_this_name(self, file: StoredFile) -> None:
        path = file.local_path()
        assert (path.read_bytes(), path.name) == (DATA, "data.bin")

    def test_is_read_only_in_a_private_place(self, file: StoredFile, tmp_path: Path) -> None:
        path = file.local_path()
        private = tmp_path / "copies" / path.relative_to(tmp_path / "copies").parts[0]
        assert stat.S_IMODE(path.stat().st_mode) & 0o222 == 0
        assert stat.S_IMODE(private.stat().st_mode) == 0o700

    def test_is_no_link_to_what_is_stored(self, file: StoredFile, tmp_path: Path) -> None:
        path = file.local_path()
        stored = {each.stat().st_ino for each in (tmp_path / "root").rglob("*") if each.is_file()}
        assert path.stat().st_nlink == 1
        assert path.stat().st_ino not in stored

    def test_what_is_done_to_it_does_not_reach_the_stored_file(self, file: StoredFile) -> None:
        path = file.local_path()
        path.chmod(0o600)
        path.write_bytes(b"scribble")
        assert file.read() == DATA

    def test_is_the_same_each_time(self, file: StoredFile) -> None:
        assert file.local_path() == file.local_path()

    def test_many_threads_get_a_whole_file(self, session: Session) -> None:
        file = session.put("data.bin", DATA * 100)
        found: list[tuple[Path, bytes]] = []

        def copy(_: int) -> None:
            path = file.local_path()
            found.append((path, path.read_bytes()))

        in_threads(8, target=copy)
        assert set(found) == {(file.local_path(), DATA * 100)}

    def test_two_sessions_files_have_two_copies(self, session: Session) -> None:
        mine = session.put("a", DATA).local_path()
        other = store_of(session).session("bob").put("a", DATA).local_path()
        assert mine != other

    @pytest.mark.parametrize("forget", [forget_by_delete, forget_by_drop])
    def test_goes_with_its_file_and_session(
        self, session: Session, file: StoredFile, forget: Callable[[Session], None]
    ) -> None:
        path = file.local_path()
        forget(session)
        assert not path.exists()

    def test_of_a_replaced_file_stays_until_a_sweep(
        self, session: Session, file: StoredFile
    ) -> None:
        old = file.local_path()
        new = session.put("data.bin", b"other").local_path()
        store_of(session).sweep()
        assert (old.exists(), new.read_bytes()) == (False, b"other")

    def test_of_an_expired_file_goes_with_the_sweep(
        self, session: Session, clock: FakeClock
    ) -> None:
        path = session.put("data.bin", DATA, ttl=MINUTE).local_path()
        clock.advance(MINUTE)
        store_of(session).sweep()
        assert not path.exists()

    def test_goes_when_the_store_closes(self, file: StoredFile, tmp_path: Path) -> None:
        file.local_path()
        store_of(file._session).close()
        assert [path for path in (tmp_path / "copies").rglob("*") if path.is_file()] == []

    def test_what_another_process_deleted_goes_with_the_sweep(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        with (
            local_store(tmp_path / "root", clock) as one,
            local_store(tmp_path / "root", clock) as two,
        ):
            path = one.session("alice").put("a", DATA).local_path()
            kept = one.session("alice").put("b", DATA).local_path()
            two.session("alice").delete("a")
            one.sweep()
            assert (path.exists(), kept.exists()) == (False, True)

    @pytest.mark.parametrize("forget", WAYS_TO_GO)
    def test_of_bytes_that_are_gone_raises(
        self, session: Session, file: StoredFile, forget: Callable[[Session], None]
    ) -> None:
        forget(session)
        with pytest.raises(FileNotStored):
            file.local_path()

    def test_is_made_again_when_somebody_cleared_it_away(
        self, file: StoredFile, tmp_path: Path
    ) -> None:
        file.local_path()
        for folder in (tmp_path / "copies").glob("*/*"):
            shutil.rmtree(folder)
        assert file.local_path().read_bytes() == DATA

    def test_a_read_that_fails_leaves_no_half_copy(self, tmp_path: Path, clock: FakeClock) -> None:
        backend = FaultyBackend(MemoryBackend(Place(), clock))
        with SessionStore(backend, clock=clock) as store:
            store.use_local_copies(LocalCopies(tmp_path / "copies"))
            file = store.session("alice").put("data.bin", DATA)
            backend.plan = on("open", Fault(unavailable, at=1000), number=1)
            with pytest.raises(BackendUnavailable):
                file.local_path()
            left = [path for path in (tmp_path / "copies").rglob("*") if path.is_file()]
            assert [path.suffix for path in left] == [".lock"]
            assert file.local_path().read_bytes() == DATA

    def test_a_place_that_cannot_be_written_is_our_error(
        self, file: StoredFile, tmp_path: Path
    ) -> None:
        (tmp_path / "a file").write_bytes(b"")
        file._session.store.use_local_copies(LocalCopies(tmp_path / "a file"))
        with pytest.raises(
            (BackendUnavailable, LimitExceeded), match="Could not make a local copy"
        ):
            file.local_path()


class TestUrl:
    @pytest.fixture
    def file(self, clock: FakeClock) -> StoredFile:
        store = memory_store(clock, secret="a long random text", base_url="https://example.org/f/")
        return store.session("alice").put("frames/a b.png", DATA)

    def opens(self, file: StoredFile, url: str) -> tuple[str, str] | None:
        store = file._session.store
        assert url.startswith("https://example.org/f/")
        return signing.opens(
            store.secret(), url.removeprefix("https://example.org/f/"), store.now()
        )

    def test_stands_for_this_file_of_this_session(self, file: StoredFile) -> None:
        assert self.opens(file, file.url()) == (file._session.sid, "frames/a b.png")

    def test_shows_neither_id_nor_owner_nor_digest(self, clock: FakeClock) -> None:
        store = memory_store(clock, secret="a long random text", base_url="/f")
        file = store.session("s3cret_id!", "alice@example.org").put("a", DATA)
        url = file.url()
        assert not any(part in url for part in ("s3cret_id!", "alice", file.digest))

    def test_is_good_for_five_minutes_unless_told_otherwise(
        self, file: StoredFile, clock: FakeClock
    ) -> None:
        usual, longer = file.url(), file.url(expires=HOUR)
        clock.advance(timedelta(minutes=5) - SECOND)
        before = self.opens(file, usual)
        clock.advance(SECOND)
        assert before == self.opens(file, longer) == (file._session.sid, file.name)
        assert self.opens(file, usual) is None

    @pytest.mark.parametrize(
        ("expires", "why"),
        [
            (timedelta(0), "longer than zero"),
            (-SECOND, "longer than zero"),
            (timedelta.min, "longer than zero"),
            (LONGEST + SECOND, "at most a hundred years are allowed"),
            (timedelta.max, "at most a hundred years are allowed"),
        ],
    )
    def test_a_time_that_makes_no_date_is_refused(
        self, file: StoredFile, expires: timedelta, why: str
    ) -> None:
        with pytest.raises(ValueError, match=why):
            file.url(expires)

    def test_the_longest_time_is_good(self, file: StoredFile) -> None:
        assert self.opens(file, file.url(LONGEST)) is not None

    def test_of_a_file_that_is_gone_raises(self, file: StoredFile) -> None:
        file._session.store.drop(file._session.key, "asked for")
        with pytest.raises(FileNotStored):
            file.url()

    def test_without_base_url_says_what_to_set(self, clock: FakeClock) -> None:
        file = memory_store(clock).session("alice").put("a", DATA)
        with pytest.raises(SettingsError, match="base_url is not set"):
            file.url()

    def test_is_signed_with_the_secret_that_the_backend_keeps(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        with (
            local_store(tmp_path, clock, base_url="/f") as one,
            local_store(tmp_path, clock) as two,
        ):
            url = one.session("alice").put("a", DATA).url()
            opened = signing.opens(two.secret(), url.removeprefix("/f/"), clock.now())
            assert opened == (one.session("alice").sid, "a")

    def test_without_any_secret_says_what_to_set(self, clock: FakeClock) -> None:
        class Forgetful(MemoryBackend):
            secret = None  # type: ignore[assignment]  # as a backend that cannot keep one

        store = SessionStore(Forgetful(Place(), clock), clock=clock, base_url="/f")
        with pytest.raises(SettingsError, match="secret is not set"):
            store.session("alice").put("a", DATA).url()

    @pytest.mark.parametrize("kept", [b"", b"x" * 31])
    def test_a_short_secret_of_a_backend_signs_nothing(self, clock: FakeClock, kept: bytes) -> None:
        class Careless(MemoryBackend):
            def secret(self) -> bytes:
                return kept

        store = SessionStore(Careless(Place(), clock), clock=clock, base_url="/f")
        with pytest.raises(SettingsError, match=f"has {len(kept)} bytes, but must .* at least 32"):
            store.session("alice").put("a", DATA).url()

    def test_a_short_secret_is_refused_by_the_constructor_too(self, clock: FakeClock) -> None:
        with pytest.raises(SettingsError, match="at least 16 characters"):
            SessionStore(MemoryBackend(Place(), clock), clock=clock, secret="")


def saved_in_another_process(url: str) -> StoredFile:
    return SessionStore.open(url).session("k3j9x", "ada").put("note.txt", b"kept")


def test_a_file_comes_back_from_a_process_pool(tmp_path: Path) -> None:
    url = (tmp_path / "store").as_uri()
    with SessionStore.open(url) as store:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            file = pool.apply(saved_in_another_process, (url,))

        assert file.session.store is store
        assert file == store.session("k3j9x", "ada").get("note.txt")
        assert file.read() == b"kept"


def test_a_pickled_file_opens_in_its_own_store_first(tmp_path: Path) -> None:
    url = (tmp_path / "store").as_uri()
    with SessionStore.open(url), SessionStore.open(url) as store:
        file = store.session("k3j9x").put("note.txt", b"kept")

        assert pickle.loads(pickle.dumps(file)).session.store is store


def test_a_pickled_file_needs_its_store() -> None:
    with SessionStore.open("memory://") as store:
        pickled = pickle.dumps(store.session("k3j9x").put("note.txt", b"kept"))
    del store
    gc.collect()

    with pytest.raises(SettingsError, match="memory://"):
        pickle.loads(pickled)
