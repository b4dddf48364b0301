"""Tests of the optional abilities: inherit the class of each one that your backend has."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from typing import ClassVar, Final
from urllib.parse import urlsplit

import pytest

from sessionstore import backend
from sessionstore.errors import Corrupted, FileNotStored, UploadConflict
from sessionstore.model import Problem, Reference, Saved, Stored
from sessionstore.testing.contract.base import Rig
from sessionstore.testing.subject import ALICE, BOB, SPOOLED, Subject, some_bytes

SECRET_LENGTH: Final = 32
"""The length of a secret in bytes."""

AGE: Final = timedelta(hours=3)
"""The age of a restored file."""

LEAST_PART: Final = 5 << 20
"""The least bytes of a part that is not the last one, as S3 has it."""

MINUTE: Final = timedelta(minutes=1)

Damage = Callable[[Reference, bytes], None]
"""Replaces the content of a stored file with other bytes, as a bad disk would."""


class FreeSpace(Rig):
    """Tests of ``free()``, for backends that can fill up."""

    def test_there_is_room_for_a_file(self, subject: Subject) -> None:
        subject.put("a", some_bytes("space", SPOOLED))
        assert subject.able.free() > 0


class Secret(Rig):
    """Tests of ``secret()``, for backends that keep a secret."""

    def test_secret_has_32_bytes(self, subject: Subject) -> None:
        secret = subject.able.secret()
        assert len(secret) == SECRET_LENGTH
        assert len(set(secret)) > SECRET_LENGTH // 4  # random bytes seldom repeat

    def test_secret_is_the_place_s(self, subject: Subject) -> None:
        secret = subject.able.secret()
        assert subject.another().able.secret() == secret
        subject.reopen()
        assert subject.able.secret() == secret

    def test_secret_is_no_file(self, subject: Subject) -> None:
        subject.able.secret()
        subject.settle()
        assert subject.sids() == []
        assert subject.backend.stored().blobs == 0


class Forgotten(Rig):
    """Tests of ``forget()``, for backends where a look costs a request."""

    def test_forgetting_removes_exactly_these_versions(self, subject: Subject) -> None:
        reference = subject.put("a", b"forgotten").reference
        subject.put("b", b"kept")
        subject.able.forget(ALICE.sid, [reference])
        assert subject.names() == ["b"]
        older = subject.put("a", b"older").reference
        subject.put("a", b"newer")
        subject.able.forget(ALICE.sid, [older])
        assert subject.read("a") == b"newer"

    def test_a_session_need_not_outlive_what_is_forgotten(self, subject: Subject) -> None:
        subject.able.forget(ALICE.sid, [subject.put("a", b"forgotten").reference])
        subject.settle()
        assert (subject.names(), subject.backend.stored().blobs) == ([], 0)


class Recent(Rig):
    """Tests of ``since()``, for backends that list what was saved lately."""

    def test_the_saves_of_any_process_are_listed(self, subject: Subject) -> None:
        subject.put("a", b"older")
        mark, _ = subject.able.since(ALICE.sid, None)
        for number in range(3):
            replaced = subject.put("a", b"newer" * number).reference
            other = subject.another().put(f"{number}", b"another's").reference
            new, saved = subject.able.since(ALICE.sid, mark)
            assert {replaced, other} <= {*saved}
            mark = new

    def test_a_mark_hides_nothing_for_long(self, subject: Subject) -> None:
        subject.put("before", b"before")
        mark, _ = subject.able.since(ALICE.sid, None)
        for number in range(1000):
            subject.put("a", f"{number}".encode())
        saved = subject.able.since(ALICE.sid, mark)[1]
        assert saved is None or subject.backend.get(ALICE.sid, "a") in saved
        subject.backend.drop(ALICE.sid)
        subject.put("after", b"after")
        saved = subject.able.since(ALICE.sid, mark)[1]
        assert saved is None or subject.backend.get(ALICE.sid, "after") in saved


class Alone(Rig):
    """Tests of ``alone()``, for backends that detect other processes."""

    def test_a_closed_one_does_not_count(self, subject: Subject) -> None:
        assert subject.able.alone()
        subject.another().backend.close()
        assert subject.able.alone()


class LateReclaim(Rig):
    """Tests of ``referred()``, for backends that reclaim content late."""

    def test_what_files_refer_to_counts_once(self, subject: Subject) -> None:
        subject.put("a", some_bytes("shared", 1000))
        subject.put("b", some_bytes("shared", 1000), BOB)
        subject.put("c", some_bytes("own", SPOOLED), BOB)
        assert subject.able.referred() == Stored(2, 1000 + SPOOLED)

    def test_what_was_deleted_does_not_count(self, subject: Subject) -> None:
        subject.put("a", some_bytes("deleted", 1000))
        subject.put("b", some_bytes("dropped", 2000), BOB)
        subject.put("c", some_bytes("replaced", 3000))
        subject.put("c", some_bytes("kept", 4000))
        subject.backend.delete(ALICE.sid, ["a"])
        subject.backend.drop(BOB.sid)
        assert subject.able.referred() == Stored(1, 4000)


class Lease(Rig):
    """Tests of ``lease()`` and ``write_lease()``, for backends that keep this note."""

    def test_the_note_of_any_process_is_read(self, subject: Subject) -> None:
        other = subject.another()
        assert subject.able.lease() is None
        for note in (b"a long note", b"short"):
            subject.able.write_lease(note)
            assert other.able.lease() == note


class Surveyed(Rig):
    """Tests of ``survey()``, for backends in which one pass serves a whole sweep."""

    def test_a_pass_gives_the_sessions_and_keeps_their_files(self, subject: Subject) -> None:
        subject.put("a", b"kept")
        subject.put("b", b"kept too", BOB)
        for content in (True, False):
            survey = subject.able.survey(content=content)
            assert {record.sid for record in survey.sessions()} == {ALICE.sid, BOB.sid}
            survey.collect()
        assert (subject.contents(), subject.contents(BOB)) == ({"a": b"kept"}, {"b": b"kept too"})

    def test_a_pass_shows_the_files_of_watched_sessions(self, subject: Subject) -> None:
        tokens = {subject.put(name, name.encode()).reference.token for name in ("a", "b")}
        subject.put("c", b"another's", BOB)
        survey = subject.able.survey(content=False, watched=[ALICE.sid])
        assert len(list(survey.sessions())) == 2
        assert {sid: set(survey.tokens[sid]) for sid in survey.tokens} == {ALICE.sid: tokens}

    def test_a_pass_collects(self, subject: Subject) -> None:
        subject.put("a", b"gone")
        subject.backend.drop(ALICE.sid)
        subject.advance(self.reclaims_after.total_seconds())
        survey = subject.able.survey()
        assert list(survey.sessions()) == []
        survey.collect()
        assert subject.backend.stored() == Stored(0, 0)


class SignedUrls(Rig):
    """Tests of ``url()``, for backends that make presigned URLs."""

    def sign(self, subject: Subject, name: str, expires: timedelta = timedelta(minutes=1)) -> str:
        reference = subject.put(name, some_bytes(name, 100)).reference
        url: str = subject.able.url(
            ALICE.sid, reference, media_type="image/png", disposition="inline", expires=expires
        )
        return url

    def test_each_file_has_an_absolute_url_of_its_own(self, subject: Subject) -> None:
        url = self.sign(subject, "a")
        assert urlsplit(url).scheme in {"http", "https"}
        assert urlsplit(url).netloc
        assert self.sign(subject, "b") != url

    def test_a_url_is_not_for_ever(self, subject: Subject) -> None:
        with pytest.raises(ValueError, match="expires"):
            self.sign(subject, "a", timedelta(days=3650))


class SignedParts(Rig):
    """Tests of ``begin_parts()`` and what follows it, for backends that sign uploads.

    The URLs are used: override ``send`` if they are not those of a server.
    """

    sizes: ClassVar[tuple[int, ...]] = (LEAST_PART, 7)

    def send(self, url: str, data: bytes) -> None:
        """PUT ``data`` there."""
        kind = {"Content-Type": "application/octet-stream"}  # urllib's own is that of a form
        request = urllib.request.Request(url, data, kind, method="PUT")  # noqa: S310 - the backend's
        urllib.request.urlopen(request).close()  # noqa: S310 - likewise

    def begin(self, subject: Subject) -> str:
        upload: str = subject.able.begin_parts(ALICE.sid, subject.backend.now() + MINUTE)
        return upload

    def part(self, subject: Subject, upload: str, number: int) -> bytes:
        """Send a part, and return its bytes."""
        data = some_bytes(f"part {number}", self.sizes[number - 1])
        self.send(subject.able.part_url(upload, number, len(data), MINUTE), data)
        return data

    def joined(self, subject: Subject, upload: str) -> bytes:
        with closing(subject.able.join_parts(upload, self.sizes)) as stream:
            data: bytes = stream.read()
        return data

    def test_parts_are_joined_in_their_order(self, subject: Subject) -> None:
        upload = self.begin(subject)
        second, first = self.part(subject, upload, 2), self.part(subject, upload, 1)
        assert subject.able.part_sizes(upload) == dict(enumerate(self.sizes, start=1))
        for _ in range(2):
            assert self.joined(subject, upload) == first + second
        with pytest.raises(FileNotStored):
            subject.able.part_sizes(upload)

    def test_parts_are_no_file(self, subject: Subject) -> None:
        upload = self.begin(subject)
        for number in (1, 2):
            self.part(subject, upload, number)
        self.joined(subject, upload)
        assert (subject.sids(), subject.backend.stored().blobs) == ([], 0)

    def test_other_sizes_are_not_joined(self, subject: Subject) -> None:
        upload = self.begin(subject)
        first = self.part(subject, upload, 1)
        for sizes in (self.sizes, [len(first) - 1], [len(first) + 1], []):
            with pytest.raises(UploadConflict):
                subject.able.join_parts(upload, sizes)
        second = self.part(subject, upload, 2)
        assert self.joined(subject, upload) == first + second

    @pytest.mark.parametrize("joined", [False, True])
    def test_discarded_parts_are_gone(self, subject: Subject, *, joined: bool) -> None:
        upload = self.begin(subject)
        for number in (1, 2):
            self.part(subject, upload, number)
        if joined:
            self.joined(subject, upload)
        for _ in range(2):
            subject.able.discard_parts(upload)
        with pytest.raises(FileNotStored):
            subject.able.part_sizes(upload)
        with pytest.raises(FileNotStored):
            subject.able.join_parts(upload, self.sizes)

    @pytest.mark.parametrize("joined", [False, True])
    def test_what_expired_is_collected(self, subject: Subject, *, joined: bool) -> None:
        upload = self.begin(subject)
        data = [self.part(subject, upload, number) for number in (1, 2)]
        if joined:
            self.joined(subject, upload)
        subject.backend.collect()
        assert self.joined(subject, upload) == b"".join(data)
        if not joined:
            upload = self.begin(subject)
        subject.advance((MINUTE + self.reclaims_after).total_seconds())
        subject.backend.collect()
        with pytest.raises(FileNotStored):
            subject.able.join_parts(upload, [])


class DetectsDamage(Rig):
    """Tests that reading the whole of a damaged file raises Corrupted.

    Needs a fixture ``damage`` that returns a ``Damage``.
    """

    @pytest.mark.parametrize("size", [0, 999, 1000, 1001, SPOOLED])
    def test_damage_is_found(self, subject: Subject, damage: Damage, size: int) -> None:
        data = some_bytes("good", SPOOLED if size == SPOOLED else 1000)
        reference = subject.put("a", data).reference
        bad = some_bytes("good", SPOOLED)[:size]
        damage(reference, bad[:-1] + bytes([bad[-1] ^ 1]) if size == len(data) else bad)
        with pytest.raises(Corrupted):
            subject.read_version(reference)

    def test_wrong_bytes_are_not_handed_out_whole(self, subject: Subject, damage: Damage) -> None:
        data = some_bytes("good", SPOOLED)
        reference = subject.put("a", data).reference
        damage(reference, some_bytes("bad", SPOOLED))
        seen: list[int] = []
        with subject.backend.open(ALICE.sid, reference) as stream, pytest.raises(Corrupted):
            seen.extend(len(chunk) for chunk in iter(lambda: stream.read(1000), b""))
        assert sum(seen) < SPOOLED


class Restored(Rig):
    """Tests of ``restore()``, for backends that can keep a file's original time."""

    def restore(self, subject: Subject, data: bytes) -> Reference:
        """Restore the file "a", saved three hours ago; return its reference."""
        created = subject.backend.now() - AGE
        with subject.take(data) as content:
            saved: Saved = subject.able.restore(ALICE, "a", content, created=created)
        return saved.reference

    def test_a_file_keeps_the_time_it_was_saved_at(self, subject: Subject) -> None:
        reference = self.restore(subject, b"1")
        self.assert_same_time(reference.created, subject.backend.now() - AGE)
        assert subject.backend.get(ALICE.sid, "a") == reference
        assert subject.read("a") == b"1"

    def test_its_session_is_active_now_and_knows_its_age(self, subject: Subject) -> None:
        subject.put("b", b"2")
        reference = self.restore(subject, b"1")
        assert subject.record().oldest <= reference.created
        self.assert_same_time(subject.record().active, subject.backend.now())

    def test_it_replaces_and_is_replaced_as_any_file(self, subject: Subject) -> None:
        subject.put("a", b"0")
        self.restore(subject, b"1")
        assert subject.read("a") == b"1"
        subject.put("a", b"2")
        assert subject.read("a") == b"2"


def use(subject: Subject) -> None:
    """Make the calls that leave other things than files in the store."""
    subject.put("a", some_bytes("a", SPOOLED), ttl=60)
    subject.put("a", b"replaced")
    subject.put("b", b"replaced", BOB)
    subject.put("gone", b"gone", BOB)
    subject.backend.delete(BOB.sid, ["gone"])
    subject.backend.touch(ALICE.sid)
    subject.backend.end(BOB.sid)


class Omitted(Rig):
    """Tests of ``omitted()``, for backends that can hold things no listing shows."""

    @pytest.mark.parametrize("files", [True, False])
    def test_a_store_in_use_omits_nothing(self, subject: Subject, *, files: bool) -> None:
        use(subject)
        assert list(subject.able.omitted(files=files)) == []


class Inspected(Rig):
    """Tests of ``inspect()``, for backends that check their own files.

    Needs a fixture ``damage`` that returns a ``Damage``.
    """

    def problems(self, subject: Subject) -> list[Problem]:
        return list(subject.able.inspect())

    def test_a_store_in_use_has_no_problems(self, subject: Subject) -> None:
        use(subject)
        assert self.problems(subject) == []

    @pytest.mark.parametrize("size", [0, 999, 1000, 1001])
    def test_a_damaged_file_is_named_and_mending_it_lets_it_be_saved_again(
        self, subject: Subject, damage: Damage, size: int
    ) -> None:
        data = some_bytes("good", 1000)
        reference = subject.put("a", data).reference
        subject.put("b", b"other")
        damage(reference, some_bytes("bad", 2000)[:size])
        (problem,) = self.problems(subject)
        assert (problem.kind, problem.sid, problem.reference) == ("damaged", ALICE.sid, reference)
        assert self.problems(subject) == [problem]  # the inspection changed nothing
        assert problem.repair()
        assert (subject.names(), self.problems(subject)) == (["b"], [])
        subject.put("a", data)
        assert (subject.read("a"), self.problems(subject)) == (data, [])

    def test_mending_leaves_alone_what_was_replaced_meanwhile(
        self, subject: Subject, damage: Damage
    ) -> None:
        reference = subject.put("a", some_bytes("good", 1000)).reference
        damage(reference, b"bad")
        (problem,) = self.problems(subject)
        subject.put("a", b"new")
        assert not problem.repair()
        assert subject.read("a") == b"new"


ABILITIES: Final[dict[type, type[Rig]]] = {
    backend.Forgets: Forgotten,
    backend.HasFreeSpace: FreeSpace,
    backend.Inspects: Inspected,
    backend.KeepsLease: Lease,
    backend.KeepsSecret: Secret,
    backend.KnowsIfAlone: Alone,
    backend.ListsSince: Recent,
    backend.Omits: Omitted,
    backend.ReclaimsLate: LateReclaim,
    backend.Restores: Restored,
    backend.SignsUploads: SignedParts,
    backend.SignsUrls: SignedUrls,
    backend.Surveys: Surveyed,
}
"""The test class of each optional protocol. Its tests call the backend as ``Subject.able``."""
