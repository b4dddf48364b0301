"""Abilities that not every backend has: inherit the class for each that yours has."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

import pytest

from sessionstore.backend import (
    HasFreeSpace,
    KeepsSecret,
    KnowsIfAlone,
    ReclaimsLate,
    Reference,
    SignsUrls,
    Stored,
)
from sessionstore.errors import Corrupted
from sessionstore.testing.rig import Rig
from sessionstore.testing.subject import ALICE, BOB, SPOOLED, Subject, some_bytes

SECRET_LENGTH: Final = 32
"""Bytes."""

Damage = Callable[[Reference, bytes], None]
"""Puts other bytes in the place of a stored file's content, as a bad disk would."""


class FreeSpace(Rig):
    """``free()``: for backends that can fill up (``HasFreeSpace``)."""

    def test_there_is_room_for_a_file(self, subject: Subject) -> None:
        assert isinstance(subject.backend, HasFreeSpace)
        subject.put("a", some_bytes("space", SPOOLED))
        assert subject.backend.free() > 0


class Secret(Rig):
    """``secret()``: for backends that keep one (``KeepsSecret``)."""

    def test_secret_has_32_bytes(self, subject: Subject) -> None:
        assert isinstance(subject.backend, KeepsSecret)
        secret = subject.backend.secret()
        assert len(secret) == SECRET_LENGTH
        assert len(set(secret)) > SECRET_LENGTH // 4  # random bytes seldom repeat

    def test_secret_is_the_place_s(self, subject: Subject) -> None:
        assert isinstance(subject.backend, KeepsSecret)
        secret, other = subject.backend.secret(), subject.another().backend
        assert isinstance(other, KeepsSecret)
        assert other.secret() == secret
        subject.reopen()
        assert subject.backend.secret() == secret

    def test_secret_is_no_file(self, subject: Subject) -> None:
        assert isinstance(subject.backend, KeepsSecret)
        subject.backend.secret()
        subject.settle()
        assert subject.sids() == []
        assert subject.backend.stored().blobs == 0


class Alone(Rig):
    """``alone()``: for backends that know of other processes (``KnowsIfAlone``)."""

    def test_the_only_backend_is_alone(self, subject: Subject) -> None:
        assert isinstance(subject.backend, KnowsIfAlone)
        assert subject.backend.alone()

    def test_a_closed_one_does_not_count(self, subject: Subject) -> None:
        subject.another().backend.close()
        assert isinstance(subject.backend, KnowsIfAlone)
        assert subject.backend.alone()


class LateReclaim(Rig):
    """``referred()``: for backends that reclaim some time after a deletion (``ReclaimsLate``)."""

    def test_what_files_refer_to_counts_once(self, subject: Subject) -> None:
        subject.put("a", some_bytes("shared", 1000))
        subject.put("b", some_bytes("shared", 1000), BOB)
        subject.put("c", some_bytes("own", SPOOLED), BOB)
        assert self.referred(subject) == Stored(2, 1000 + SPOOLED)

    def test_what_was_deleted_does_not_count(self, subject: Subject) -> None:
        subject.put("a", some_bytes("deleted", 1000))
        subject.put("b", some_bytes("dropped", 2000), BOB)
        subject.put("c", some_bytes("replaced", 3000))
        subject.put("c", some_bytes("kept", 4000))
        subject.backend.delete(ALICE.sid, ["a"])
        subject.backend.drop(BOB.sid)
        assert self.referred(subject) == Stored(1, 4000)

    def referred(self, subject: Subject) -> Stored:
        assert isinstance(subject.backend, ReclaimsLate)
        return subject.backend.referred()


class SignedUrls(Rig):
    """``url()``: for backends that hand files out by themselves (``SignsUrls``)."""

    def sign(self, subject: Subject, name: str, expires: timedelta = timedelta(minutes=1)) -> str:
        assert isinstance(subject.backend, SignsUrls)
        reference = subject.put(name, some_bytes(name, 100)).reference
        return subject.backend.url(
            ALICE.sid, reference, media_type="image/png", disposition="inline", expires=expires
        )

    def test_a_url_is_absolute(self, subject: Subject) -> None:
        parts = urlsplit(self.sign(subject, "a"))
        assert parts.scheme in {"http", "https"}
        assert parts.netloc

    def test_each_file_has_its_own_url(self, subject: Subject) -> None:
        assert self.sign(subject, "a") != self.sign(subject, "b")

    def test_a_url_is_not_for_ever(self, subject: Subject) -> None:
        with pytest.raises(ValueError, match="expires"):
            self.sign(subject, "a", timedelta(days=3650))


class DetectsDamage(Rig):
    """Reading a damaged file whole raises Corrupted. Needs a fixture ``damage``."""

    @pytest.mark.parametrize("size", [1000, SPOOLED])
    def test_changed_bytes_are_found(self, subject: Subject, damage: Damage, size: int) -> None:
        data = some_bytes("good", size)
        reference = subject.put("a", data).reference
        damage(reference, data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(Corrupted):
            subject.read_version(reference)

    @pytest.mark.parametrize("size", [0, 999, 1001])
    def test_another_length_is_found(self, subject: Subject, damage: Damage, size: int) -> None:
        reference = subject.put("a", some_bytes("good", 1000)).reference
        damage(reference, some_bytes("good", 2000)[:size])
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
