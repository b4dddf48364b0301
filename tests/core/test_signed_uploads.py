"""Uploads straight to the backend: checked before the file counts, bounded, and never left."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, BinaryIO

import pytest

from sessionstore import (
    BackendUnavailable,
    FileNotStored,
    InvalidName,
    LimitExceeded,
    Limits,
    Session,
    SessionStore,
    SettingsError,
    SignedUpload,
    UploadConflict,
)
from sessionstore.backends.memory import Place
from sessionstore.content import Content
from sessionstore.model import Saved, SessionKey
from sessionstore.names import UPLOADS
from sessionstore.testing import FakeClock
from tests.support.signed import STAGED, Refused, SignedMemory, send, small_parts
from tests.support.stores import HOUR, Heard, in_threads, memory_store, names

DATA = random.Random(1).randbytes(250)


@pytest.fixture(autouse=True)
def _small_parts() -> Iterator[None]:
    with small_parts(100):
        yield


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def place() -> Place:
    return Place()


def store_at(place: Place, clock: FakeClock, **policy: Any) -> SessionStore:
    return SessionStore(SignedMemory(place, clock), clock=clock, **policy)


@pytest.fixture
def store(place: Place, clock: FakeClock) -> Iterator[SessionStore]:
    with store_at(place, clock) as made:
        yield made


@pytest.fixture
def session(store: SessionStore) -> Session:
    return store.session("tab", "ada")


def fill(upload: SignedUpload, data: bytes = DATA) -> None:
    """Send all parts."""
    size = upload.part_size
    for number, url in upload.urls(range(1, upload.parts + 1)).items():
        send(url, data[: upload.size][(number - 1) * size : number * size])


def hidden(session: Session) -> list[str]:
    """What is kept of uploads, without ids."""
    kept = (each.name for each in session.store.backend.files(session.sid))
    return [name.rpartition("/")[2] for name in kept if name.startswith(UPLOADS)]


def test_parts_become_one_file(session: Session) -> None:
    upload = session.begin_signed_upload("a.bin", 250, metadata="of mine", ttl=HOUR)
    assert (upload.name, upload.size, upload.metadata) == ("a.bin", 250, "of mine")
    assert (upload.part_size, upload.parts, upload.missing()) == (100, 3, [1, 2, 3])
    assert not upload.finished
    fill(upload)
    assert upload.missing() == []
    assert names(session) == []

    file = upload.finish()

    assert (session.read("a.bin"), file.expires) == (DATA, file.created + HOUR)
    assert (upload.finished, hidden(session), STAGED) == (True, ["done.250"], {})
    assert upload.finish() == file


def test_an_equal_file_is_stored_once(session: Session) -> None:
    file = session.put("b", DATA)
    heard = Heard(session.store, "saved", "deduplicated")
    upload = session.begin_signed_upload("a", 250)
    fill(upload)

    assert upload.finish().digest == file.digest
    assert [event.kind for event in heard.all()] == ["saved", "deduplicated"]


def test_an_empty_file_has_one_empty_part(session: Session) -> None:
    upload = session.begin_signed_upload("empty", 0)
    fill(upload)
    assert (upload.parts, upload.finish().read()) == (1, b"")


def test_a_large_file_has_larger_parts(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sessionstore.signed_uploads.MOST_PARTS", 2)
    upload = session.begin_signed_upload("a", 250)
    assert (upload.part_size, upload.parts) == (125, 2)


def test_any_process_goes_on(session: Session, place: Place, clock: FakeClock) -> None:
    id_ = session.begin_signed_upload("a", 250).id
    with store_at(place, clock) as other:
        upload = other.session("tab", "ada").signed_upload(id_)
        send(upload.urls([2])[2], DATA[100:200])
        assert upload.missing() == [1, 3]
        assert session.signed_upload(id_).missing() == [1, 3]


@pytest.mark.parametrize("id_", ["", "x", "0" * 32, "../x", None])
def test_what_no_one_has_begun_is_nothing(session: Session, id_: Any) -> None:
    with pytest.raises(FileNotStored):
        session.signed_upload(id_)


def test_another_s_upload_is_nothing(store: SessionStore, session: Session) -> None:
    upload = session.begin_signed_upload("a", 250)
    for stranger in (store.session("tab", "eve"), store.session("tab2", "ada")):
        with pytest.raises(FileNotStored):
            stranger.signed_upload(upload.id)


def test_neither_kind_of_upload_is_the_other(session: Session) -> None:
    with pytest.raises(FileNotStored):
        session.upload(session.begin_signed_upload("a", 250).id)
    with pytest.raises(FileNotStored):
        session.signed_upload(session.begin_upload("a", 250).id)


def test_a_backend_that_cannot_says_what_to_do(clock: FakeClock) -> None:
    with memory_store(clock) as store, pytest.raises(SettingsError, match="tus"):
        store.session("tab").begin_signed_upload("a", 1)


@pytest.mark.parametrize("size", [-1, 1.0, None, True, 1 << 60])
def test_other_sizes_are_refused(session: Session, size: Any) -> None:
    with pytest.raises(ValueError, match="size"):
        session.begin_signed_upload("a", size)
    assert STAGED == {}


@pytest.mark.parametrize("digest", ["", "x", "A" * 64, "0" * 63])
def test_other_digests_are_refused(session: Session, digest: str) -> None:
    with pytest.raises(ValueError, match="digest"):
        session.begin_signed_upload("a", 1, digest=digest)


def test_hidden_names_are_refused(session: Session) -> None:
    with pytest.raises(InvalidName):
        session.begin_signed_upload("@/upload/x", 1)


@pytest.mark.parametrize("number", [0, 4, -1])
def test_there_are_no_urls_for_other_parts(session: Session, number: int) -> None:
    upload = session.begin_signed_upload("a", 250)
    with pytest.raises(ValueError, match="1 to 3"):
        upload.urls([1, number])


def test_a_finished_upload_has_no_urls(session: Session) -> None:
    upload = session.begin_signed_upload("a", 250)
    fill(upload)
    upload.finish()
    with pytest.raises(UploadConflict):
        upload.urls([1])
    assert upload.missing() == []


def test_too_few_parts_are_refused_until_they_are_there(session: Session) -> None:
    upload = session.begin_signed_upload("a", 250)
    urls = upload.urls([1, 2, 3])
    for number in (1, 3):
        send(urls[number], DATA[(number - 1) * 100 : number * 100])
    with pytest.raises(UploadConflict):
        upload.finish()
    assert names(session) == []
    send(urls[2], DATA[100:200])
    assert upload.finish().read() == DATA


@pytest.mark.parametrize("parts", [{2: b"x" * 99}, {2: b"x" * 101}, {4: b"x"}])
def test_a_store_that_let_wrong_parts_in_joins_nothing(
    session: Session, parts: dict[int, bytes]
) -> None:
    upload = session.begin_signed_upload("a", 250)
    fill(upload)
    (staged,) = STAGED.values()
    staged.parts.update(parts)
    with pytest.raises(UploadConflict):
        upload.finish()
    assert (names(session), staged.joined) == ([], None)


def test_a_digest_is_compared(session: Session) -> None:
    digest = hashlib.sha256(DATA).hexdigest()
    right = session.begin_signed_upload("right", 250, digest=digest)
    wrong = session.begin_signed_upload("wrong", 250, digest=digest)
    fill(right)
    fill(wrong, bytes(250))
    with pytest.raises(UploadConflict, match="digest"):
        wrong.finish()

    assert right.finish().read() == DATA
    assert (names(session), hidden(session), STAGED) == (["right"], ["done.250"], {})


def test_an_aborted_one_leaves_nothing(session: Session) -> None:
    upload = session.begin_signed_upload("a", 250)
    url = upload.urls([1])[1]
    upload.abort()

    assert (hidden(session), STAGED) == ([], {})
    with pytest.raises(Refused):
        send(url, DATA[:100])
    with pytest.raises(FileNotStored):
        upload.abort()


@pytest.mark.parametrize("sent", [False, True])
def test_an_abandoned_one_goes_when_its_time_is_over(
    session: Session, clock: FakeClock, *, sent: bool
) -> None:
    upload = session.begin_signed_upload("a", 250, within=HOUR)
    if sent:
        fill(upload)
    session.store.backend.collect()
    assert len(STAGED) == 1
    clock.advance(HOUR + timedelta(seconds=2))
    with pytest.raises(FileNotStored):
        upload.finish()
    assert isinstance(session.store, SessionStore)
    session.store.sweep()

    assert (hidden(session), STAGED) == ([], {})


class Died(BaseException):
    """No code handles it."""


class Dying(SignedMemory):
    """A backend whose process dies at one of the calls of ``finish``."""

    dies_at: str | None = None

    def _die(self, at: str) -> None:
        if at == self.dies_at:
            raise Died

    def join_parts(self, upload: str, sizes: Sequence[int]) -> BinaryIO:
        stream = super().join_parts(upload, sizes)
        self._die("joined")
        return stream

    def put(self, key: SessionKey, name: str, content: Content, **how: Any) -> Saved:
        saved = super().put(key, name, content, **how)
        self._die("saved" if name == "a" else "noted" if "/done." in name else "")
        return saved

    def discard_parts(self, upload: str) -> None:
        self._die("removed")
        super().discard_parts(upload)


@pytest.mark.parametrize("at", ["joined", "saved", "noted", "removed"])
@pytest.mark.parametrize("again", [False, True])
def test_a_death_while_it_is_saved_loses_and_leaves_nothing(
    place: Place, clock: FakeClock, at: str, *, again: bool
) -> None:
    backend = Dying(place, clock)
    session = SessionStore(backend, clock=clock).session("tab", "ada")
    upload = session.begin_signed_upload("a", 250)
    fill(upload)
    backend.dies_at = at
    with pytest.raises(Died):
        upload.finish()

    with store_at(place, clock) as store:
        other = store.session("tab", "ada")
        if again:
            assert other.signed_upload(upload.id).missing() == []
            assert other.signed_upload(upload.id).finish().read() == DATA
        assert names(other) == (["a"] if again or at != "joined" else [])
        clock.advance(timedelta(hours=24, seconds=2))
        other.touch()
        store.sweep()
        assert (hidden(other), STAGED) == ([], {})
        assert names(other) == (["a"] if again or at != "joined" else [])


def test_two_that_finish_at_once_make_one_file(
    session: Session, place: Place, clock: FakeClock
) -> None:
    upload = session.begin_signed_upload("a", 250)
    fill(upload)
    with store_at(place, clock) as other:
        handles = [
            each.signed_upload(upload.id)
            for each in (session, session, other.session("tab", "ada"), other.session("tab", "ada"))
        ]
        in_threads(4, target=lambda number: handles[number].finish())

    assert (session.read("a"), names(session)) == (DATA, ["a"])
    assert (hidden(session), STAGED) == (["done.250"], {})


class Overtaken(SignedMemory):
    """Another process finishes the upload while this one reads it."""

    before: Any = None

    def join_parts(self, upload: str, sizes: Sequence[int]) -> BinaryIO:
        self.before, before = None, self.before
        if before is not None:
            before()
            raise BackendUnavailable("The connection was cut.")
        return super().join_parts(upload, sizes)


def test_one_that_was_overtaken_returns_the_file(place: Place, clock: FakeClock) -> None:
    backend = Overtaken(place, clock)
    session = SessionStore(backend, clock=clock).session("tab", "ada")
    upload = session.begin_signed_upload("a", 250)
    fill(upload)
    with store_at(place, clock) as store:
        theirs = store.session("tab", "ada").signed_upload(upload.id)
        backend.before = theirs._save  # without the lock, which another process has not
        assert upload.finish().read() == DATA


def test_a_note_that_cannot_be_kept_leaves_no_upload(place: Place, clock: FakeClock) -> None:
    class Full(SignedMemory):
        def put(self, *_: Any, **__: Any) -> Saved:
            raise LimitExceeded("full")

    session = SessionStore(Full(place, clock), clock=clock).session("tab", "ada")
    with pytest.raises(LimitExceeded):
        session.begin_signed_upload("a", 250)
    assert STAGED == {}


@pytest.mark.parametrize("limit", ["max_file", "max_session", "max_owner", "max_store"])
def test_one_that_can_never_fit_does_not_begin(place: Place, clock: FakeClock, limit: str) -> None:
    with store_at(place, clock, limits=Limits(**{limit: 249})) as store:
        heard = Heard(store, "limit_exceeded")
        with pytest.raises(LimitExceeded) as raised:
            store.session("tab", "ada").begin_signed_upload("a", 250)
        assert (raised.value.limit, STAGED) == (limit, {})
        assert [(event.name, event.limit) for event in heard.all()] == [("a", limit)]


@pytest.mark.parametrize("limit", ["max_session", "max_owner"])
def test_its_bytes_count_from_its_beginning_to_its_end(
    place: Place, clock: FakeClock, limit: str
) -> None:
    limits = Limits(**{limit: 400})
    with store_at(place, clock, limits=limits) as store, store_at(place, clock, limits=limits) as b:
        session, other = store.session("tab", "ada"), b.session("tab", "ada")
        upload = session.begin_signed_upload("a", 250)
        for each in (session, other):
            with pytest.raises(LimitExceeded):
                each.put("b", bytes(151))
        session.put("b", bytes(150))
        fill(upload)
        upload.finish()
        with pytest.raises(LimitExceeded):
            session.put("c", b"x")


@pytest.mark.parametrize("limit", ["max_session", "max_owner"])
def test_an_aborted_one_counts_no_longer(place: Place, clock: FakeClock, limit: str) -> None:
    with store_at(place, clock, limits=Limits(**{limit: 400})) as store:
        session = store.session("tab", "ada")
        session.begin_signed_upload("a", 250).abort()
        session.put("c", bytes(400))


def test_max_store_is_checked_when_it_is_finished(place: Place, clock: FakeClock) -> None:
    with store_at(place, clock, limits=Limits(max_store=400)) as store:
        session = store.session("tab", "ada")
        upload = session.begin_signed_upload("a", 250)
        fill(upload)
        session.put("b", random.Random(2).randbytes(200))
        session.touch()
        with pytest.raises(LimitExceeded):
            upload.finish()
        session.delete("b")
        store.sweep()
        assert upload.finish().read() == DATA


def test_an_upload_is_no_file_for_the_limits(place: Place, clock: FakeClock) -> None:
    with store_at(place, clock, limits=Limits(max_session_files=1)) as store:
        session = store.session("tab", "ada")
        upload = session.begin_signed_upload("a", 250)
        fill(upload)
        session.put("b", b"1")
        with pytest.raises(LimitExceeded):
            upload.finish()
        with pytest.raises(LimitExceeded):
            session.begin_signed_upload("c", 1)


def test_uploads_of_a_session_are_limited(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessionstore.upload_state._MOST_OPEN", 2)
    session.begin_signed_upload("a", 1)
    session.begin_upload("b", 1)
    with pytest.raises(LimitExceeded):
        session.begin_signed_upload("c", 1)


async def _all_async(session: Session) -> bytes:
    upload = await session.begin_signed_upload_async("a", 250)
    await session.signed_upload_async(upload.id)
    fill(upload)
    assert await upload.missing_async() == []
    assert len(await upload.urls_async([1, 2])) == 2
    await upload.refresh_async()
    other = await session.begin_signed_upload_async("b", 1)
    await other.abort_async()
    return (await upload.finish_async()).read()


def test_every_verb_has_a_twin(session: Session) -> None:
    import asyncio

    assert asyncio.run(_all_async(session)) == DATA
