"""A state machine that runs a backend beside the memory backend and compares every result.

Add one line to a test file, beside the contract::

    TestRedisMachine = machine_for(new_place)

``new_place()`` is a context manager. It creates an empty place and yields the function that opens
it, such as::

    @contextmanager
    def new_place() -> Iterator[OpenBackend]:
        with TemporaryDirectory() as root:
            yield lambda clock: MyBackend.connect(Location(...), {}, clock)
"""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, ClassVar, Final

from hypothesis import settings as Settings  # noqa: N812 - an argument is named settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.content import CHUNK
from sessionstore.errors import FileNotStored
from sessionstore.model import Reference, Saved, SessionKey, SessionRecord
from sessionstore.testing.clock import FakeClock
from sessionstore.testing.contract.base import Compares
from sessionstore.testing.subject import ALICE, BOB, OpenBackend, Subject, some_bytes

NewPlace = Callable[[], AbstractContextManager[OpenBackend]]
"""Creates an empty place for one run, and removes it afterwards."""

KEYS: Final = (ALICE, BOB)
NAMES: Final = ("a", "A", "a/b", "\xe9.", "x" * 255)
CONTENTS: Final = ((0, 0), (1, 1), (2, 1), (3, 3000), (4, 3000), (5, CHUNK + 5))
"""Seeds and sizes. Hypothesis draws these and not bytes, so that a failure's report is readable."""

keys: Final = st.sampled_from(KEYS)
names: Final = st.sampled_from(NAMES)
contents: Final = st.sampled_from(CONTENTS)
pieces: Final = st.lists(contents, max_size=4)
lives: Final = st.none() | st.sampled_from((1.0, 60.0, 3600.0))
positions: Final = st.sampled_from((0, 1, 2999, 3000, 3001, CHUNK, CHUNK + 1, CHUNK + 6))
several_names: Final = st.lists(names, max_size=3)
times: Final = st.sampled_from((0.5, 1.0, 60.0, 5000.0))


Piece = tuple[int, int]
"""A seed and a size in bytes."""


@dataclass(frozen=True, slots=True)
class Version:
    """The references of one save in both backends."""

    key: SessionKey
    real: Reference
    model: Reference


class BackendMachine(Compares, RuleBasedStateMachine):
    """Calls every method of a backend in any order; compares each result with the memory backend's.

    ``machine_for`` makes the test class.
    """

    new_place: ClassVar[NewPlace]
    clock: ClassVar[Callable[[], FakeClock]] = FakeClock
    reclaims_after: ClassVar[timedelta] = timedelta(0)
    rechecks_after: ClassVar[timedelta] = timedelta(0)

    def __init__(self) -> None:
        super().__init__()
        self.resources: Final = ExitStack()
        clock = type(self).clock()
        self.real: Subject = Subject(
            self.resources.enter_context(type(self).new_place()), clock, self.reclaims_after
        )
        self.other: Subject = self.real.another()  # as in another process
        self.opened: Final = self.real
        place = Place()
        self.model: Final = Subject(lambda clock: MemoryBackend(place, clock), clock)
        self.versions: list[Version] = []

    def teardown(self) -> None:
        self.opened.close()
        self.resources.close()

    @rule(key=keys, name=names, content=contents, ttl=lives)
    def put(self, key: SessionKey, name: str, content: Piece, ttl: float | None) -> None:
        self._save(key, lambda subject: subject.put(name, _bytes(content), key, ttl=ttl))

    @rule(key=keys, name=names, several=pieces)
    def put_stream(self, key: SessionKey, name: str, several: list[Piece]) -> None:
        self._save(key, lambda subject: subject.put(name, map(_bytes, several), key))

    @rule(key=keys, content=contents)
    def put_fresh(self, key: SessionKey, content: Piece) -> None:
        name = f"fresh {len(self.versions)}"
        self._save(key, lambda subject: subject.put(name, _bytes(content), key, fresh=True))

    @rule(key=keys, name=names, start=positions, length=st.none() | positions)
    def read_range(self, key: SessionKey, name: str, start: int, length: int | None) -> None:
        def read(subject: Subject) -> bytes | None:
            try:
                return subject.read(name, key, start, length)
            except FileNotStored:
                return None

        assert read(self.real) == read(self.model)

    @rule(data=st.data())
    def read_version(self, data: st.DataObject) -> None:
        if not self.versions:
            return
        version = data.draw(st.sampled_from(self.versions))
        real = self.real.version_or_none(version.real, version.key)
        model = self.model.version_or_none(version.model, version.key)
        # A version that was saved again with equal bytes may still open: the bytes are the same.
        assert real == model or (model is None and self._is_same_content(version, real))

    @rule(key=keys, several=several_names)
    def delete(self, key: SessionKey, several: list[str]) -> None:
        self._same_files("delete", key.sid, several)

    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        if not self.versions:
            return
        some = data.draw(st.lists(st.sampled_from(self.versions), max_size=3, unique_by=id))
        for key in KEYS:
            own = [version for version in some if version.key == key]
            real = self.real.backend.discard(key.sid, [version.real for version in own])
            model = self.model.backend.discard(key.sid, [version.model for version in own])
            self.assert_same_files(real, model, tokens=False)

    @rule(key=keys, mark=st.sampled_from(("touch", "end", "resume")))
    def mark(self, key: SessionKey, mark: str) -> None:
        self._both(mark, key.sid)

    @rule(key=keys)
    def drop(self, key: SessionKey) -> None:
        self._same("drop", key.sid)

    @rule(key=keys, ago=st.sampled_from((0.0, 2.0, 100.0)))
    def drop_unless_active(self, key: SessionKey, ago: float) -> None:
        since = self.real.backend.now() - timedelta(seconds=ago)
        self._same("drop", key.sid, unless_active_after=since)

    @rule(seconds=times)
    def advance(self, seconds: float) -> None:
        self.real.advance(seconds)

    @rule()
    def collect(self) -> None:
        self.real.backend.collect()

    @rule()
    def reopen(self) -> None:
        self.real.reopen()

    @rule()
    def go_on_with_the_other_backend(self) -> None:
        self.real.advance(self.rechecks_after.total_seconds())
        self.real, self.other = self.other, self.real

    @invariant()
    def files_are_equal(self) -> None:
        for key in KEYS:
            for reference in self._same_files("files", key.sid):
                actual = self.real.backend.get(key.sid, reference.name)
                self.assert_same_files([actual], [reference], tokens=False)
                assert self.real.read_version(actual, key) == self.model.read(reference.name, key)

    @invariant()
    def missing_names_are_missing(self) -> None:
        for key in KEYS:
            for name in set(NAMES) - set(self.model.names(key)):
                assert not self.real.has(name, key)

    @invariant()
    def sessions_are_equal(self) -> None:
        assert self.real.sids() == self.model.sids()
        for key in KEYS:
            self._same("identify", key.sid)
            real, model = self._both("session", key.sid)
            assert (real is None) == (model is None)
            if real is not None and model is not None:
                self._assert_same_record(real, model, self.model.backend.files(key.sid))

    @invariant()
    def content_is_reclaimed(self) -> None:
        if not self.reclaims_after:
            self._same("stored")

    def _both(self, verb: str, *values: object, **options: object) -> tuple[Any, Any]:
        real, model = getattr(self.real.backend, verb), getattr(self.model.backend, verb)
        return real(*values, **options), model(*values, **options)

    def _same(self, verb: str, *values: object, **options: object) -> None:
        real, model = self._both(verb, *values, **options)
        assert real == model

    def _same_files(self, verb: str, *values: object) -> list[Reference]:
        real, model = map(list, self._both(verb, *values))
        self.assert_same_files(real, model, tokens=False)
        return model

    def _assert_same_record(
        self, real: SessionRecord, model: SessionRecord, files: Iterable[Reference]
    ) -> None:
        assert real.sid == model.sid
        self.assert_same_time(real.active, model.active)
        self.assert_same_time(real.ended, model.ended)
        for reference in files:  # the bounds may differ, but must hold for every file
            assert real.oldest <= reference.created + self.resolution
            if reference.expires is not None:
                assert real.expiring is not None
                assert real.expiring <= reference.expires + self.resolution

    def _save(self, key: SessionKey, save: Callable[[Subject], Saved]) -> None:
        real, model = save(self.real), save(self.model)
        self.assert_same_files([real.reference], [model.reference], tokens=False)
        replaced = [filter(None, [saved.replaced]) for saved in (real, model)]
        self.assert_same_files(*replaced, tokens=False)
        if not self.reclaims_after:
            assert real.deduplicated == model.deduplicated
        self.versions.append(Version(key, real.reference, model.reference))
        self.real.advance(1)  # two saves of equal bytes at the same time may be one version

    def _is_same_content(self, version: Version, seen: bytes | None) -> bool:
        name, key = version.model.name, version.key
        if not self.model.has(name, key):
            return False
        digest = self.model.backend.get(key.sid, name).digest
        return digest == version.model.digest and seen == self.model.read(name, key)


def machine_for(
    new_place: NewPlace,
    *,
    clock: Callable[[], FakeClock] = FakeClock,
    reclaims_after: timedelta = timedelta(0),
    rechecks_after: timedelta = timedelta(0),
    resolution: timedelta = timedelta(milliseconds=1),
    settings: Settings | None = None,
) -> type[unittest.TestCase]:
    """Return the test case that compares a backend with the model, for pytest or unittest.

    ``settings`` are hypothesis's. The other arguments are the attributes of the contract.
    """
    attributes = {
        "new_place": staticmethod(new_place),
        "clock": staticmethod(clock),
        "reclaims_after": reclaims_after,
        "rechecks_after": rechecks_after,
        "resolution": resolution,
    }
    case: type[unittest.TestCase] = type("Machine", (BackendMachine,), attributes).TestCase  # type: ignore[attr-defined]  # hypothesis makes it
    if settings is not None:
        case.settings = settings  # type: ignore[attr-defined]  # as in hypothesis's own manual
    return case


@cache
def _bytes(piece: Piece) -> bytes:
    return some_bytes(*piece)
