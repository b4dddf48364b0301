"""Uploads in pieces: kept as they arrive, continued anywhere, counted, never mixed."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from sessionstore import (
    BackendUnavailable,
    Corrupted,
    FileNotStored,
    InvalidName,
    LimitExceeded,
    Limits,
    Retention,
    Session,
    SessionStore,
    Upload,
    UploadConflict,
)
from sessionstore.backends.memory import Place
from sessionstore.names import UPLOADS
from sessionstore.schedule import Schedule
from sessionstore.testing import FakeClock, Fault, FaultyBackend, on
from sessionstore.testing.faulty import unavailable
from sessionstore.upload_running import IDLE
from sessionstore.upload_writer import UploadWriter
from sessionstore.uploads import continued
from tests.support.local import opened
from tests.support.stores import HOUR, Heard, in_threads, local_store, memory_store, names, store_of

PIECE = 100


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Upload.writing, "__defaults__", (PIECE,))


no_looks = pytest.mark.usefixtures("one_look")


@pytest.fixture
def one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer with a rival looks once: in a test of one thread the rival can do nothing."""
    monkeypatch.setattr("sessionstore.upload_state._LOOKS", ())


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def place() -> Place:
    return Place()


@pytest.fixture
def store(clock: FakeClock, place: Place) -> Iterator[SessionStore]:
    with memory_store(clock, place) as made:
        yield made


@pytest.fixture
def session(store: SessionStore) -> Session:
    return store.session("tab", "ada")


def hidden(session: Session) -> list[str]:
    """The names of what is kept of uploads."""
    references = session.store.backend.files(session.sid)
    return [each.name for each in references if each.name.startswith(UPLOADS)]


def test_pieces_become_one_file(session: Session) -> None:
    data = random.Random(1).randbytes(1234)
    upload = session.begin_upload("a.bin", len(data), metadata="of mine", ttl=HOUR)
    assert upload.write(0, data[:250]) == 250
    assert upload.write(250, iter([data[250:300], data[300:]])) == 1234

    file = upload.finish()

    assert session.read("a.bin") == data
    assert (file.name, file.size, upload.metadata) == ("a.bin", 1234, "of mine")
    assert file.expires == file.created + HOUR


def test_the_bytes_of_a_finished_upload_are_those_of_any_save(session: Session) -> None:
    data = bytes(range(256)) * 5
    digest = session.put("b", data).digest
    upload = session.begin_upload("a", len(data))
    upload.write(0, data)

    assert upload.finish().digest == digest
    assert session.usage().stored_bytes < 2 * len(data)


def test_another_process_continues_from_what_is_kept(
    session: Session, clock: FakeClock, place: Place
) -> None:
    first = session.begin_upload("a", 500)
    first.write(0, bytes(250))
    with memory_store(clock, place) as other:
        second = other.session("tab", "ada").upload(first.id)
        assert (second.name, second.size, second.offset) == ("a", 500, 250)
        second.write(250, b"x" * 250)
        second.finish()

    assert session.read("a") == bytes(250) + b"x" * 250


def test_what_is_written_is_kept_before_the_rest_arrives(session: Session) -> None:
    upload = session.begin_upload("a", 1000)

    def content() -> Iterator[bytes]:
        yield bytes(2 * PIECE + 1)
        assert session.upload(upload.id).offset == 2 * PIECE
        yield bytes(PIECE)

    upload.write(0, content())


def test_a_cut_loses_nothing_that_arrived(session: Session) -> None:
    def cut() -> Iterator[bytes]:
        yield bytes(PIECE + 7)
        raise ConnectionResetError

    upload = session.begin_upload("a", 1000)
    with pytest.raises(ConnectionResetError):
        upload.write(0, cut())

    assert session.upload(upload.id).offset == PIECE + 7


def test_a_failed_piece_leaves_those_before_it(clock: FakeClock) -> None:
    with memory_store(clock) as store:
        session = store.session("tab")
        upload = session.begin_upload("a", 1000)
        third = on("put", Fault(unavailable), number=3)
        store.wrap(lambda backend: FaultyBackend(backend, third))
        with pytest.raises(BackendUnavailable):
            upload.write(0, bytes(450))
        assert session.upload(upload.id).offset == 2 * PIECE


@pytest.mark.parametrize("offset", [0, 249, 251])
def test_only_the_next_offset_is_taken(session: Session, offset: int) -> None:
    upload = session.begin_upload("a", 1000)
    upload.write(0, bytes(250))

    with pytest.raises(UploadConflict, match="offset 250"):
        upload.write(offset, b"x")


def test_more_bytes_than_announced_are_refused(session: Session) -> None:
    upload = session.begin_upload("a", 250)
    with pytest.raises(UploadConflict, match="250"):
        upload.write(0, [bytes(200), bytes(51)])

    assert upload.offset == 200


def test_it_is_finished_only_when_it_is_complete(session: Session) -> None:
    upload = session.begin_upload("a", 250)
    upload.write(0, bytes(249))
    with pytest.raises(UploadConflict, match="249 of 250"):
        upload.finish()

    assert "a" not in session


def test_without_a_size_it_is_complete_when_the_caller_says_so(session: Session) -> None:
    upload = session.begin_upload("a")
    upload.write(0, b"abc")

    assert upload.finish().read() == b"abc"


def test_an_empty_file_needs_no_piece(session: Session) -> None:
    assert session.begin_upload("a", 0).finish().read() == b""


def test_finishing_twice_returns_the_file_again(session: Session) -> None:
    upload = session.begin_upload("a", 3)
    upload.write(0, b"abc")
    first = upload.finish()

    assert upload.finish() == first
    assert session.upload(upload.id).finish() == first
    assert session.upload(upload.id).offset == 3


def test_a_finished_upload_takes_no_more(session: Session) -> None:
    upload = session.begin_upload("a")
    upload.write(0, b"abc")
    upload.finish()

    with pytest.raises(UploadConflict):
        upload.write(3, b"d")


def test_two_that_finish_it_make_one_file(session: Session, store: SessionStore) -> None:
    upload = session.begin_upload("a", 1000)
    upload.write(0, bytes(1000))
    heard = Heard(store, "saved")

    in_threads(4, target=lambda _: session.upload(upload.id).finish())

    assert session.read("a") == bytes(1000)
    assert heard.kinds() == ["saved"]


def test_only_its_own_session_finds_it(session: Session, store: SessionStore) -> None:
    upload = session.begin_upload("a", 3)
    for stranger in (store.session("tab"), store.session("tab", "eve"), store.session("x", "ada")):
        with pytest.raises(FileNotStored):
            stranger.upload(upload.id)


@pytest.mark.parametrize("id_", ["", "0" * 32, "../x", "\0", "A" * 32, 7])
def test_a_malformed_id_is_no_upload(session: Session, id_: str) -> None:
    session.begin_upload("a", 3)
    with pytest.raises(FileNotStored):
        session.upload(id_)


def test_pieces_are_no_files_of_the_session(session: Session, store: SessionStore) -> None:
    heard = Heard(store)
    upload = session.begin_upload("a", 1000)
    upload.write(0, bytes(500))
    assert names(session) == []
    upload.write(500, bytes(500))
    upload.finish()

    assert names(session) == ["a"]
    assert [(event.kind, event.name) for event in heard.all()] == [("saved", "a")]


def test_it_goes_with_its_session(session: Session) -> None:
    upload = session.begin_upload("a", 1000)
    upload.write(0, bytes(500))
    session.drop()

    assert hidden(session) == []
    with pytest.raises(FileNotStored):
        session.upload(upload.id)


def test_aborting_removes_all_of_it(session: Session) -> None:
    upload = session.begin_upload("a", 1000)
    upload.write(0, bytes(500))
    upload.abort()

    assert hidden(session) == []


def test_finishing_removes_the_pieces(session: Session) -> None:
    upload = session.begin_upload("a", 500)
    upload.write(0, bytes(500))
    upload.finish()

    assert [name.rpartition("/")[2] for name in hidden(session)] == ["done.500"]


@pytest.mark.parametrize("finished", [False, True])
def test_nothing_of_it_is_left_after_its_age(
    session: Session, store: SessionStore, clock: FakeClock, finished: bool
) -> None:
    upload = session.begin_upload("a", 500, within=HOUR)
    upload.write(0, bytes(500))
    if finished:
        upload.finish()
    clock.advance(HOUR)
    with pytest.raises(FileNotStored):
        session.upload(upload.id)
    session.touch()
    store.sweep()

    assert hidden(session) == []
    assert names(session) == (["a"] if finished else [])


def test_a_damaged_piece_becomes_no_file(tmp_path: Path, clock: FakeClock) -> None:
    with local_store(tmp_path, clock) as store:
        session = store.session("tab")
        upload = session.begin_upload("a", 250)
        upload.write(0, random.Random(2).randbytes(250))
    damage_pieces(tmp_path)
    with local_store(tmp_path, clock) as store:
        session = store.session("tab")
        with pytest.raises(Corrupted):
            session.upload(upload.id).finish()
        assert "a" not in session


# The content that is made while the pieces arrive: without it a damaged piece is noticed


DATA = random.Random(3).randbytes(1030)
LARGE_PIECE = 1 << 30


def damage_pieces(root: Path) -> None:
    for blob in root.glob("blobs/*/*"):
        if blob.stat().st_size == PIECE:
            blob.chmod(0o600)
            blob.write_bytes(bytes(PIECE))


@pytest.fixture
def local(tmp_path: Path, clock: FakeClock) -> Iterator[Session]:
    with local_store(tmp_path, clock) as made:
        yield made.session("tab")


def test_who_received_all_of_it_reads_no_piece_again(local: Session, tmp_path: Path) -> None:
    id_ = local.begin_upload("a", len(DATA)).id
    for start in range(0, len(DATA), 250):
        local.upload(id_).write(start, DATA[start : start + 250])
    damage_pieces(tmp_path)

    assert local.upload(id_).finish().read() == DATA
    assert hidden(local)[0].endswith("/done.1030")


def test_who_goes_on_with_it_lists_nothing(local: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    id_ = local.begin_upload("a", len(DATA)).id
    local.upload(id_).write(0, DATA[:200])
    with monkeypatch.context() as patch:
        patch.setattr(type(local.store.backend), "files", lambda *_: pytest.fail("listed"))
        for start in range(200, len(DATA), 250):
            continued(local, id_, start).write(start, DATA[start : start + 250])
            local.put("beside", DATA)

    upload = local.upload(id_)
    assert continued(local, id_, len(DATA)).chain == upload.chain
    assert upload.finish().read() == DATA


@pytest.mark.parametrize("how", ["offset", "abort", "finish", "age", "another process"])
def test_an_upload_is_listed_again_when_it_may_have_changed(
    local: Session, tmp_path: Path, clock: FakeClock, how: str
) -> None:
    id_ = local.begin_upload("a", len(DATA), within=HOUR).id
    local.upload(id_).write(0, DATA[:200])
    if how == "offset":
        assert continued(local, id_, 100).offset == 200
        return
    if how == "another process":
        with local_store(tmp_path, clock) as other:
            other.session("tab").upload(id_).write(200, DATA[200:])
        with pytest.raises(UploadConflict):
            continued(local, id_, 200).write(200, b"x" * 830)
        assert local.upload(id_).finish().read() == DATA
        return
    with local_store(tmp_path, clock) as other:
        there = other.session("tab").upload(id_)
        if how == "abort":
            there.abort()
        elif how == "finish":
            there.write(200, DATA[200:])
            there.finish()
    clock.advance(HOUR if how == "age" else timedelta(0))
    if how == "finish":
        assert continued(local, id_, 200).finished
    else:
        with pytest.raises(FileNotStored):
            continued(local, id_, 200)


def test_a_cut_does_not_end_that(local: Session, tmp_path: Path) -> None:
    def cut() -> Iterator[bytes]:
        yield DATA[:130]
        raise ConnectionResetError

    upload = local.begin_upload("a", len(DATA))
    with pytest.raises(ConnectionResetError):
        upload.write(0, cut())
    upload.write(130, DATA[130:])
    damage_pieces(tmp_path)

    assert upload.finish().read() == DATA


@pytest.mark.parametrize("ends", [130, 200])
def test_a_discarded_piece_does(local: Session, tmp_path: Path, ends: int) -> None:
    upload = local.begin_upload("a", len(DATA))
    with upload.writing(0) as writer:
        writer.write(DATA[:ends])
        writer.discard()
    upload.write(upload.offset, DATA[upload.offset :])
    if ends == 130:
        damage_pieces(tmp_path)
        with pytest.raises(Corrupted):
            upload.finish()
    else:
        assert upload.finish().read() == DATA


def test_bytes_that_another_process_received_are_read(
    local: Session, tmp_path: Path, clock: FakeClock
) -> None:
    upload = local.begin_upload("a", len(DATA))
    upload.write(0, DATA[:200])
    with local_store(tmp_path, clock) as other:
        other.session("tab").upload(upload.id).write(200, DATA[200:700])
    upload.refresh()
    upload.write(700, DATA[700:])

    assert upload.finish().read() == DATA


def test_without_room_on_the_disk_the_pieces_are_read(
    local: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(local.store.backend), "free", lambda _: 3 * len(DATA) - 1)
    upload = local.begin_upload("a", len(DATA))
    upload.write(0, DATA)
    damage_pieces(tmp_path)
    with pytest.raises(Corrupted):
        upload.finish()


def test_an_upload_that_no_one_goes_on_with_takes_no_room_for_long(
    local: Session, clock: FakeClock, tmp_path: Path
) -> None:
    upload = local.begin_upload("a", 10 << 20)
    with upload.writing(0, LARGE_PIECE) as writer:
        writer.write(DATA * 2000)
    assert unnamed(tmp_path)
    clock.advance(IDLE + timedelta(seconds=1))
    store = store_of(local)
    Schedule(store, store._planner, None).turn()

    assert not unnamed(tmp_path)


def test_its_files_are_closed_with_the_store(tmp_path: Path, clock: FakeClock) -> None:
    with local_store(tmp_path, clock) as store:
        upload = store.session("tab").begin_upload("a", 10 << 20)
        with upload.writing(0, LARGE_PIECE) as writer:
            writer.write(DATA * 2000)
        assert unnamed(tmp_path)

    assert not unnamed(tmp_path)


def unnamed(root: Path) -> list[str]:
    """The files without a name that this process has open there."""
    return [file for file in opened(root) if file.endswith(" (deleted)")]


# Limits


def limited(clock: FakeClock, **limits: int) -> SessionStore:
    return memory_store(clock, limits=Limits(**limits), retention=Retention())


@pytest.mark.parametrize("limit", ["max_file", "max_session", "max_owner", "max_store"])
def test_a_size_over_a_limit_is_refused_at_the_beginning(clock: FakeClock, limit: str) -> None:
    with limited(clock, **{limit: 500}) as store:
        session = store.session("tab", "ada")
        with pytest.raises(LimitExceeded) as refused:
            session.begin_upload("a", 501)
        assert refused.value.limit == limit
        assert hidden(session) == []


@pytest.mark.parametrize("limit", ["max_file", "max_session", "max_owner", "max_store"])
def test_a_limit_is_met_in_the_middle(clock: FakeClock, limit: str) -> None:
    with limited(clock, **{limit: 550}) as store:
        session, taken = store.session("tab", "ada"), 0
        upload = session.begin_upload("cat.png")

        def content() -> Iterator[bytes]:
            nonlocal taken
            for _ in range(100):
                taken += 10
                yield bytes([taken % 251]) * 10

        with pytest.raises(LimitExceeded, match=r"'cat\.png'") as refused:
            upload.write(0, content())
        assert refused.value.limit == limit
        assert taken <= 560
        clock.advance(25 * HOUR)
        store.sweep()
        assert hidden(session) == []
        assert store.usage().bytes == 0


def test_pieces_count_for_other_saves_of_the_session(clock: FakeClock) -> None:
    with limited(clock, max_session=1000) as store:
        session = store.session("tab", "ada")
        session.begin_upload("a", 800).write(0, bytes(700))
        with pytest.raises(LimitExceeded):
            session.put("b", bytes(300))
        session.put("b", bytes(100))


def test_a_file_of_the_whole_limit_can_be_finished(clock: FakeClock) -> None:
    data = random.Random(3).randbytes(950)
    with limited(clock, max_file=950, max_session=1100, max_store=1100) as store:
        session = store.session("tab", "ada")
        upload = session.begin_upload("a", 950)
        upload.write(0, data)
        upload.finish()
        assert session.read("a") == data
        with pytest.raises(LimitExceeded):
            session.put("b", bytes(400))
        session.put("b", bytes(40))


def test_pieces_do_not_count_as_files(clock: FakeClock) -> None:
    with limited(clock, max_session_files=1) as store:
        session = store.session("tab", "ada")
        upload = session.begin_upload("a", 1000)
        upload.write(0, bytes(1000))
        upload.finish()
        with pytest.raises(LimitExceeded):
            session.put("b", b"")
        with pytest.raises(LimitExceeded):
            session.begin_upload("b", 1)


def test_unfinished_uploads_are_limited(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessionstore.upload_state._MOST_OPEN", 2)
    session.begin_upload("a")
    session.begin_upload("b").finish()
    session.begin_upload("c")

    with pytest.raises(LimitExceeded):
        session.begin_upload("d")


def test_the_pieces_of_an_upload_are_limited(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessionstore.upload_writer._MOST_PIECES", 3)
    upload = session.begin_upload("a")
    with pytest.raises(LimitExceeded, match="3 pieces"):
        upload.write(0, bytes(4 * PIECE))


# Two writers


def test_the_newer_of_two_writers_in_a_process_wins(session: Session) -> None:
    id_ = session.begin_upload("a", 200).id
    old, new = session.upload(id_).writing(0), session.upload(id_).writing(0)
    old.write(b"o" * 50)
    with new:
        new.write(b"n" * 70)
    with pytest.raises(UploadConflict), old:
        pass

    assert session.upload(id_).offset == 70


def test_the_first_of_two_processes_wins(session: Session, clock: FakeClock, place: Place) -> None:
    upload = session.begin_upload("a", 200)
    with memory_store(clock, place) as other:
        late = other.session("tab", "ada").upload(upload.id).writing(0)
        late.write(b"l" * 50)
        upload.write(0, b"f" * 200)
        with pytest.raises(UploadConflict), late:
            pass

    assert session.upload(upload.id).finish().read() == b"f" * 200


def test_a_cut_connection_adds_nothing_to_an_upload_that_went_on_elsewhere(
    session: Session, clock: FakeClock, place: Place
) -> None:
    upload = session.begin_upload("a", 300)
    with memory_store(clock, place) as other:
        with pytest.raises(ConnectionResetError), upload.writing(0) as stale:
            stale.write(b"s" * 130)
            there = other.session("tab", "ada").upload(upload.id)
            there.write(100, b"t" * 200)
            raise ConnectionResetError
        assert there.finish().read() == b"s" * 100 + b"t" * 200


@pytest.fixture(params=["memory", "disk"])
def replicas(
    request: pytest.FixtureRequest, clock: FakeClock, place: Place, tmp_path: Path
) -> Iterator[list[Session]]:
    """One session at three replicas."""
    with ExitStack() as stack:
        stores = [
            memory_store(clock, place)
            if request.param == "memory"
            else local_store(tmp_path, clock)
            for _ in range(3)
        ]
        yield [stack.enter_context(store).session("tab", "ada") for store in stores]


def rivals(sessions: list[Session], id_: str) -> list[UploadWriter]:
    """Return two writers at the beginning of the upload; by its number the first is older."""
    writers = [session.upload(id_).writing(0) for session in sessions[:2]]
    for writer, number in zip(writers, "ab", strict=True):
        writer._number = number * 16
    return writers


def keep(writer: UploadWriter, data: bytes) -> None:
    """Keep a piece. The writer has not looked for a rival yet."""
    writer.write(data)
    writer._keep()


def end(writer: UploadWriter) -> None:
    writer.__exit__(None, None, None)


def test_a_writer_waits_until_its_rival_has_gone(replicas: list[Session]) -> None:
    id_ = replicas[0].begin_upload("a", 70).id
    first, second = rivals(replicas, id_)
    keep(first, b"1" * 70)
    keep(second, b"2" * 50)
    looks: list[None] = []

    def refresh() -> None:
        looks.append(None)
        if len(looks) == 2:
            with pytest.raises(UploadConflict):
                end(second)
        type(first._upload).refresh(first._upload)

    first._upload.refresh = refresh  # type: ignore[method-assign]  # the other one, meanwhile
    end(first)
    assert replicas[1].upload(id_).finish().read() == b"1" * 70


@no_looks
def test_what_was_acknowledged_stays_when_an_older_rival_comes(
    replicas: list[Session],
) -> None:
    """By a clock of whole seconds the one that came later may be the older one."""
    id_ = replicas[0].begin_upload("a", 70).id
    late, first = rivals(replicas, id_)
    keep(first, b"2" * 70)
    end(first)
    keep(late, b"1" * 50)
    with pytest.raises(UploadConflict):
        end(late)
    assert replicas[0].upload(id_).finish().read() == b"2" * 70


@no_looks
def test_a_writer_that_was_replaced_removes_its_rival_piece_too(replicas: list[Session]) -> None:
    id_ = replicas[0].begin_upload("a", 70).id
    late, first = rivals(replicas, id_)
    keep(first, b"2" * 70)
    end(first)
    keep(late, b"1" * 50)
    late.write(b"1" * 10)
    replicas[0].upload(id_).writing(50)
    with pytest.raises(UploadConflict):
        end(late)
    assert replicas[0].upload(id_).finish().read() == b"2" * 70


@no_looks
def test_nothing_is_acknowledged_on_a_piece_with_a_rival(
    replicas: list[Session], clock: FakeClock
) -> None:
    """Nor removed: another may continue it. A process that died leaves its rival for ever."""
    id_ = replicas[0].begin_upload("a", 70).id
    first, second = rivals(replicas, id_)
    keep(first, b"1" * 50)
    keep(second, b"2" * 40)
    upload = replicas[2].upload(id_)
    with pytest.raises(UploadConflict):
        upload.write(50, b"3" * 10)
    assert upload.offset == 60
    clock.advance(timedelta(seconds=7))
    assert upload.write(60, b"4" * 10) == 70
    assert upload.finish().read() == b"1" * 50 + b"3" * 10 + b"4" * 10


@no_looks
def test_a_piece_that_another_writer_continues_is_not_removed(replicas: list[Session]) -> None:
    id_ = replicas[0].begin_upload("a", 70).id
    late, second = rivals(replicas, id_)
    keep(second, b"2" * 40)
    assert replicas[2].upload(id_).write(40, b"3" * 30) == 70
    keep(late, b"1" * 40)
    for writer in (second, late):
        with pytest.raises(UploadConflict):
            end(writer)
    assert replicas[0].upload(id_).finish().read() == b"2" * 40 + b"3" * 30


def test_no_piece_is_acknowledged_when_the_one_before_is_gone(
    replicas: list[Session],
) -> None:
    id_ = replicas[0].begin_upload("a", 70).id
    first = replicas[0].upload(id_)
    first.write(0, b"1" * 50)
    second = replicas[1].upload(id_)
    with pytest.raises(UploadConflict), second.writing(50) as writer:
        writer.write(b"2" * 20)
        first.remove([first.chain[0].reference], "its writer had a rival")
    assert second.offset == 0


def test_finish_waits_until_an_older_rival_has_gone(replicas: list[Session]) -> None:
    id_ = replicas[0].begin_upload("a").id
    late, first = rivals(replicas, id_)
    keep(first, b"2" * 70)
    end(first)
    keep(late, b"1" * 50)

    def remove() -> None:
        with pytest.raises(UploadConflict):
            end(late)

    removing = threading.Thread(target=remove)
    removing.start()
    assert replicas[1].upload(id_).finish().read() == b"2" * 70
    removing.join()


@no_looks
@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize("seed", range(100))
def test_two_that_write_other_bytes_are_never_mixed(
    seed: int, where: str, clock: FakeClock, tmp_path: Path
) -> None:
    """What was acknowledged is in the file, whoever wrote beside it on another replica."""
    rng, place = random.Random(seed), Place()

    def opened() -> SessionStore:
        return memory_store(clock, place) if where == "memory" else local_store(tmp_path, clock)

    with opened() as one, opened() as two:
        sessions = [store.session("tab", "ada") for store in (one, two)]
        id_ = sessions[0].begin_upload("a").id
        accepted = bytearray()
        open_: list[tuple[UploadWriter, int, bytes]] = []
        for step in range(30):
            if rng.random() < 0.5 and len(open_) < 3:
                session = sessions[rng.randrange(2)]
                upload = continued(session, id_, len(accepted))
                data = bytes([step]) * rng.randrange(1, 350)
                open_.append((upload.writing(upload.offset), upload.offset, data))
            elif open_:
                writer, offset, data = open_.pop(rng.randrange(len(open_)))
                sent = data[: rng.randrange(1, len(data) + 1)]
                try:
                    with writer:
                        writer.write(sent)
                except UploadConflict:
                    continue
                assert offset == len(accepted)
                accepted += sent
            clock.advance(timedelta(seconds=rng.randrange(2)))
        assert sessions[0].upload(id_).finish().read() == accepted


# Arguments


def test_bad_arguments_are_refused_before_anything_is_kept(session: Session) -> None:
    with pytest.raises(InvalidName):
        session.begin_upload("../a")
    with pytest.raises(InvalidName):
        session.begin_upload(f"{UPLOADS}a")
    for options in ({"size": -1}, {"size": 1.5}, {"metadata": "x" * 9000}):
        with pytest.raises(ValueError, match="give"):
            session.begin_upload("a", **options)
    with pytest.raises(ValueError, match="within"):
        session.begin_upload("a", within=timedelta(0))
    with pytest.raises(TypeError, match="encode"):
        session.begin_upload("a").write(0, "text")  # type: ignore[arg-type]  # that is the test
    assert not list(session.store.backend.files(session.sid))[1:]
