"""The processes of a run: writers, sweepers, a replacing writer, visitors who leave, and more.

There are few sessions, names and contents, so that the processes conflict often.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from sessionstore import names
from sessionstore.backend import Reference, SessionKey, SessionRecord
from sessionstore.backends.objects import ObjectBackend
from sessionstore.backends.objects.bucket import Waits
from sessionstore.content import Content, hasher
from sessionstore.errors import BackendUnavailable, FileNotStored
from sessionstore.schedule import LEASE, Lease
from tests.explorer.history import Kind, Op
from tests.explorer.world import (
    GRACE,
    LONG_STEPS,
    STEPS,
    Crew,
    Manners,
    Process,
    ProcessClient,
    Threads,
    World,
)
from tests.support.object_client import FakeObjectClient

T = TypeVar("T")

OLD: Final = names.session_key("old")
A: Final = names.session_key("a")
B: Final = names.session_key("b", owner="somebody")
SESSIONS: Final = (A, B, OLD)
_KEYS: Final = {key.sid: key for key in SESSIONS}
NAMES: Final = ("x", "y")

CONTENTS: Final = (b"first", b"second", b"third", b"a long content is uploaded in parts")
LARGE: Final = 3
"""The number of the content that needs a multipart upload."""

_NUMBERS: Final = {content: number for number, content in enumerate(CONTENTS)}


@dataclass(slots=True)
class Actor:
    """A process with its own backend; its methods record their results in the history."""

    world: World
    process: Process
    backend: ObjectBackend

    # Verbs

    def put(self, key: SessionKey, name: str, number: int, *, fresh: bool = False) -> bool:
        """Save a content; return whether the save was acknowledged."""
        data = CONTENTS[number]
        content = Content(_digest(data), len(data), data=memoryview(data))
        with self._op("put", key.sid, name, number) as op:
            self.backend.put(key, name, content, fresh=fresh)
        return op.ended is not None

    def read(self, key: SessionKey, name: str) -> None:
        """Look a file up and read it, as ``Session.read`` does."""
        with self._op("look", key.sid, name) as op:
            op.value = number_of(read_by_name(self.backend, key.sid, name))

    def find(self, key: SessionKey, name: str) -> Reference | None:
        """Return the file's reference, or None."""
        try:
            return self.backend.get(key.sid, name)
        except (FileNotStored, BackendUnavailable):
            return None

    def read_version(self, key: SessionKey, reference: Reference) -> None:
        """Read a file that was looked up some time ago. FileNotStored is no observation."""
        try:
            with self._op("look", key.sid, reference.name) as op:
                op.value = number_of(_read(self.backend, key.sid, reference))
        except FileNotStored:
            op.kind = "spared"

    def delete(self, key: SessionKey, name: str) -> None:
        with self._op("delete", key.sid, name):
            self.backend.delete(key.sid, [name])

    def discard(self, key: SessionKey, reference: Reference) -> None:
        with self._op("delete", key.sid, reference.name) as op:
            if not self.backend.discard(key.sid, [reference]):
                op.kind = "spared"

    def drop(self, key: SessionKey) -> None:
        with self._op("drop", key.sid, None) as op:
            if self.backend.drop(key.sid) is None:
                op.kind = "spared"

    def drop_as_judged(self, key: SessionKey) -> None:
        """Drop a session as a sweep does: unless it was active or resumed after its record."""
        try:
            record = self.backend.session(key.sid)
            self.backend.identify(key.sid)
        except BackendUnavailable:
            return
        if record is not None:
            self._drop_judged(key, record)

    def _drop_judged(self, key: SessionKey, record: SessionRecord) -> None:
        ended = record.ended is not None
        with self._op("drop", key.sid, None) as op:
            op.unless, op.only_ended = record.active, ended
            dropped = self.backend.drop(
                key.sid, unless_active_after=record.active, only_ended=ended
            )
            if dropped is None:
                op.kind = "spared"

    def mark(self, kind: Kind, key: SessionKey) -> None:
        """Touch, end or resume a session."""
        with self._op(kind, key.sid, None):
            getattr(self.backend, kind)(key.sid)

    def collect(self) -> None:
        with suppress(BackendUnavailable):
            self.backend.collect()

    def sweep(self, *, content: bool) -> None:
        """Sweep as a store does: plan from the listings, carry out the plan, then collect."""
        with suppress(BackendUnavailable):
            survey = self.backend.survey(content=content)
            for record in list(survey.sessions()):
                if record.ended is not None:
                    self._drop_judged(_KEYS[record.sid], record)
            survey.collect()

    def is_elected(self) -> bool:
        """Return whether this process is the one that sweeps, as far as it knows."""
        with suppress(BackendUnavailable):
            lease, name = Lease.parse(self.backend.lease()), self.process.name
            if lease is not None and lease.left(name, self.world.now, LEASE):
                return False
            now = self.world.now
            self.backend.write_lease(Lease(name, now, now + GRACE).note())
        return True

    @contextmanager
    def _op(self, kind: Kind, sid: str, name: str | None, value: int | None = None) -> Iterator[Op]:
        history, before = self.world.history, self._listings()
        op = self.process.op = history.begin(kind, sid, name, self.world.now, value)
        self.world.note(self.process.name, f"{kind} {_shown(op)}")
        try:
            yield op
        except BackendUnavailable:
            history.fail(op)
            self.world.note(self.process.name, f"{kind} failed")
            return
        if kind == "look" and before == self._listings():
            history.from_memory(op)
        history.end(op)
        self.world.note(self.process.name, f"{kind} done{'' if name is None else f': {op.value}'}")

    def _listings(self) -> int:
        """Return the number of listings so far, which find a file's current version."""
        return int(self.backend.client.requests["LIST"])  # type: ignore[attr-defined]  # a FakeObjectClient


def read_by_name(backend: ObjectBackend, sid: str, name: str) -> bytes | None:
    """Return the bytes of a file, or None if it does not exist, as ``Session.read`` does."""
    missing: Reference | None = None
    try:
        while True:
            reference = backend.get(sid, name)
            try:
                return _read(backend, sid, reference)
            except FileNotStored:
                if reference == missing:
                    raise
                missing = reference
    except FileNotStored:
        return None


def number_of(data: bytes | None) -> int | None:
    """Return the number of a content; -1 for unknown bytes, None for no file."""
    return None if data is None else _NUMBERS.get(data, -1)


def _read(backend: ObjectBackend, sid: str, reference: Reference) -> bytes:
    with closing(backend.open(sid, reference)) as stream:
        return stream.read()


def _digest(data: bytes) -> str:
    digest = hasher("sha256")
    digest.update(data)
    return digest.hexdigest()


def _shown(op: Op) -> str:
    path = op.sid if op.name is None else f"{op.sid}/{op.name}"
    return path if op.value is None else f"{path} = {op.value}"


# Scripts


def writer(actor: Actor) -> None:
    """Save files, under shared names or its own, and save some of them again."""
    choices = actor.world.choices
    for number in range(1 + choices.below(2)):
        key, name, content = choices.pick((A, B)), choices.pick(NAMES), choices.below(LARGE)
        fresh = choices.chance(0.3)
        if fresh:
            name = f"{actor.process.name}-{number}"
        actor.put(key, name, content, fresh=fresh)
        if choices.chance(0.4):
            actor.put(key, name, content)
        if choices.chance(0.3):
            actor.read(key, name)


def replacer(actor: Actor) -> None:
    """Save under one name several times."""
    choices = actor.world.choices
    for _ in range(2 + choices.below(2)):
        actor.put(A, "x", choices.below(LARGE))


def twin(actor: Actor) -> None:
    """Save the same content under the same name as the others, and see that it stays."""
    actor.put(A, "x", 0)
    for _ in range(3):
        actor.read(A, "x")


def uploader(actor: Actor) -> None:
    """Save a content that needs a multipart upload."""
    actor.put(A, actor.world.choices.pick(NAMES), LARGE)


def visitor(actor: Actor) -> None:
    """Leave, come back, and stay for a while."""
    choices = actor.world.choices
    for _ in range(1 + choices.below(3)):
        actor.mark(choices.pick(("end", "touch", "resume", "end")), choices.pick((A, B)))


def returner(actor: Actor) -> None:
    """Leave, and come back at once."""
    actor.put(A, "x", 0)
    actor.mark("end", A)
    actor.mark("resume", A)


def timer(actor: Actor) -> None:
    """Drop a session when its linger is over."""
    for _ in range(6):
        actor.drop_as_judged(A)


def dropper(actor: Actor) -> None:
    """Drop the old session; then drop a session in use, or delete a file of it."""
    choices, key = actor.world.choices, actor.world.choices.pick((B, A))
    if choices.chance(0.8):
        actor.drop(OLD)
    todo = choices.pick(("", "drop", "drop", "drop unless active", "delete", "discard"))
    if todo == "drop":
        actor.drop(key)
    elif todo == "drop unless active":
        actor.drop_as_judged(key)
    elif todo == "delete":
        actor.delete(key, "x")
    elif todo == "discard" and (reference := actor.find(key, "x")) is not None:
        actor.discard(key, reference)


def deleter(actor: Actor) -> None:
    """Save a file and delete it, several times."""
    choices = actor.world.choices
    for _ in range(2 + choices.below(2)):
        name = choices.pick(NAMES)
        actor.put(A, name, choices.below(LARGE))
        if choices.chance(0.3):
            actor.read(A, name)
        actor.delete(A, name)


def closer(actor: Actor) -> None:
    """Drop a session that is in use."""
    actor.drop(A)


def sweeper(actor: Actor) -> None:
    """Garbage-collect, or sweep; perhaps only with the lease."""
    choices = actor.world.choices
    leased = choices.chance(0.3)
    for _ in range(1 + choices.below(2)):
        if leased and not actor.is_elected():
            continue
        if choices.chance(0.5):
            actor.collect()
        else:
            actor.sweep(content=choices.chance(0.8))


def keeper(actor: Actor) -> None:
    """Garbage-collect all the time."""
    for _ in range(6):
        actor.collect()


def reader(actor: Actor) -> None:
    """Read by name, and by a reference that was looked up before."""
    key = actor.world.choices.pick((A, B))
    reference = actor.find(key, "x")
    for _ in range(2):
        actor.read(key, "x")
        if reference is not None:
            actor.read_version(key, reference)


CAST: Final[tuple[tuple[str, Callable[[Actor], None]], ...]] = (
    ("writer0", writer),
    ("writer1", writer),
    ("writer2", writer),
    ("sweeper0", sweeper),
    ("sweeper1", sweeper),
    ("replacer", replacer),
    ("dropper", dropper),
    ("closer", closer),
    ("visitor", visitor),
    ("uploader", uploader),
    ("reader", reader),
    ("keeper", keeper),
    ("deleter", deleter),
    ("twin0", twin),
    ("twin1", twin),
    ("twin2", twin),
    ("returner", returner),
    ("timer", timer),
)

THEMES: Final[tuple[tuple[float, tuple[str, ...]], ...]] = (
    (0.3, ()),
    (0.5, ()),
    (1.0, ()),
    (0.1, ("replacer", "writer0", "sweeper0")),
    (0.0, ("uploader", "sweeper0", "closer")),
    (0.0, ("uploader", "keeper", "closer")),
    (0.0, ("uploader", "keeper", "closer")),
    (0.2, ("uploader", "sweeper0", "closer")),
    (0.1, ("visitor", "dropper", "writer0")),
    (0.1, ("deleter", "closer")),
    (0.1, ("visitor", "sweeper0", "writer0")),
    (0.0, ("twin0", "twin1", "twin2")),
    (0.1, ("returner", "timer")),
)
"""The processes of a run: the probability that each one takes part, and the names of those that
always do. With few processes a seed range covers more of their orders; with all processes it covers
unexpected combinations."""


RARE: Final = ("keeper", "deleter", "twin0", "twin1", "twin2", "returner", "timer")
"""The processes that take part a third as often as the others."""


# The stage


class Stage:
    """Sets up a run: the backends, the stored files at the start, and the processes."""

    def __init__(self, world: World, backend_type: type[ObjectBackend]) -> None:
        self._world = world
        self._backend_type = backend_type
        self._nonces = 0

    def backend(self, client: FakeObjectClient, waits: Waits | None = None) -> ObjectBackend:
        """Open a backend for one more process."""
        backend = self._backend_type(
            client, grace=GRACE, elapsed=self._world.bucket.seconds, nonce=self._nonce, waits=waits
        )
        backend.writer.multipart_above, backend.writer.part_size = 20, 16
        return backend

    def prepare(self) -> None:
        """Store the state at the start: two files of an old session, and perhaps one of another."""
        world = self._world
        process = Process("before", lambda: None)
        actor = Actor(world, process, self.backend(FakeObjectClient(world.bucket)))
        for number, name in enumerate(NAMES):
            actor.put(OLD, name, number)
            if world.choices.chance(0.5):
                world.pass_time(world.choices.pick(STEPS))
        if world.choices.chance(0.5):
            actor.put(A, "x", world.choices.below(LARGE))
        world.pass_time(world.choices.pick(STEPS))

    def cast(self) -> None:
        """Choose the processes and the probabilities of the scheduler."""
        choices = self._world.choices
        common, leading = choices.pick(THEMES)
        for name, script in CAST:
            if choices.chance(1.0 if name in leading else common / 3 if name in RARE else common):
                self._add(name, script)
        long = choices.chance(0.15)
        # Others can harm these at few moments, so there they run more often.
        busy = not {"uploader", "twin0", "timer"}.isdisjoint(leading)
        self._world.manners = Manners(
            switch=choices.pick((0.1, 0.3) if busy else (0.0, 0.02, 0.05, 0.1, 0.3)),
            time=choices.pick((0.1, 0.25) if busy else (0.0, 0.03, 0.1, 0.25)),
            steps=LONG_STEPS if long else STEPS,
            fault=choices.pick((0.01, 0.05, 0.15)),
            faults=choices.below(4),
            slow=choices.pick((0.3, 0.1) if busy else (0.0, 0.05)),
            splits=choices.chance(0.3),
        )

    def afterwards(self, crew: Crew) -> None:
        """Deliver all late requests, in half of the runs after one more sweep some time later."""
        world = self._world
        if world.choices.chance(0.5):
            world.pass_time(world.choices.pick(STEPS))
            world.processes.clear()
            self._add("sweeper2", Actor.collect)
            world.run(crew)
        world.deliver_all()

    def _add(self, name: str, script: Callable[[Actor], None]) -> None:
        world = self._world
        process = Process(name, lambda: script(actor))
        client = ProcessClient(world, world.choices.pick((1000, 3, 2)))
        waits = None if world.choices.chance(0.3) else Threads(world)  # None: one request at a time
        actor = Actor(world, process, self._born(client, waits))
        if world.choices.chance(0.3):  # list in slices: those that can have a key here
            collector = actor.backend._sweeper
            collector.sliced_from, collector.session_slices = 0, "abo"
            collector.blob_slices = "".join(sorted({_digest(data)[0] for data in CONTENTS}))
        world.processes.append(process)

    def _born(self, client: ProcessClient, waits: Waits | None) -> ObjectBackend:
        """Open a backend without giving other processes a turn.

        Opening reads only objects that are never written again, so the order does not matter.
        """
        client.asleep = True
        backend = self.backend(client, waits)
        client.asleep = False
        return backend

    def _nonce(self, size: int) -> str:
        self._nonces += 1
        return hashlib.sha256(self._nonces.to_bytes(8, "big")).hexdigest()[: 2 * size]
