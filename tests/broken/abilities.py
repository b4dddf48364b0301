"""Backends whose optional abilities are broken."""

from __future__ import annotations

import secrets
from typing import Any, ClassVar

from sessionstore import names
from sessionstore.backend import Reference, Saved, Stored
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.clock import Clock
from sessionstore.content import Content
from tests.broken.table import caught_by


@caught_by("there_is_room_for_a_file")
class NeverHasRoom(MemoryBackend):
    def free(self) -> int:
        return 0


@caught_by("secret_has_32_bytes")
class HasNoRealSecret(MemoryBackend):
    def secret(self) -> bytes:
        return bytes(32)


@caught_by("secret_is_the_place_s")
class MakesASecretEachTime(MemoryBackend):
    def secret(self) -> bytes:
        return secrets.token_bytes(32)


@caught_by("secret_is_no_file")
class KeepsItsSecretAsAFile(MemoryBackend):
    def secret(self) -> bytes:
        secret = super().secret()
        self.put(names.shared_key(), "secret", Content("digest", 32, memoryview(secret)))
        return secret


@caught_by("what_files_refer_to_counts_once")
class CountsEachReference(MemoryBackend):
    def referred(self) -> Stored:
        sizes = [file.size for it in self.sessions() for file in self.files(it.sid)]
        return Stored(len(sizes), sum(sizes))


@caught_by("what_was_deleted_does_not_count")
class CountsWhatWasDeleted(MemoryBackend):
    _most = Stored(0, 0)

    def put(self, *args: Any, **keywords: Any) -> Saved:
        saved = super().put(*args, **keywords)
        self._most = max(self._most, self.stored(), key=lambda it: it.bytes)
        return saved

    def referred(self) -> Stored:
        return self._most


class SignsUrls(MemoryBackend):
    def url(self, sid: str, reference: Reference, **_: object) -> str:
        return f"https://example.org/{sid}/{reference.token}"


@caught_by("a_url_is_absolute")
class SignsPaths(SignsUrls):
    def url(self, sid: str, reference: Reference, **_: object) -> str:
        return f"/{sid}/{reference.token}"


@caught_by("each_file_has_its_own_url")
class SignsSessions(SignsUrls):
    def url(self, sid: str, reference: Reference, **_: object) -> str:
        return f"https://example.org/{sid}/{reference.size}"


@caught_by("a_url_is_not_for_ever")
class SignsForEver(SignsUrls):
    pass


@caught_by("the_only_backend_is_alone")
class IsNeverAlone(MemoryBackend):
    def alone(self) -> bool:
        return False


@caught_by("a_closed_one_does_not_count")
class CountsClosedBackends(MemoryBackend):
    _opened: ClassVar[dict[int, int]] = {}

    def __init__(self, place: Place, clock: Clock) -> None:
        super().__init__(place, clock)
        self._opened[id(place)] = self._opened.get(id(place), 0) + 1

    def alone(self) -> bool:
        return self._opened[id(self._place)] == 1


@caught_by(
    "changed_bytes_are_found",
    "another_length_is_found",
    "wrong_bytes_are_not_handed_out_whole",
)
class TrustsItsMedium(MemoryBackend):
    """As the memory backend itself does, whose bytes nobody can change behind its back."""
