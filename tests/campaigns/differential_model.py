"""The model of the differential campaign: operations, and the answers that a right store gives.

A plain dictionary for each session. It shares no code with the library but the rules for names and
the encoder of images, so that a fault in the accounts or in the sweep is not in both.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from sessionstore import InvalidName, images
from sessionstore.names import own_name, session_key
from tests.support.hostile import HOSTILE

MAX_FILE, MAX_SESSION, MAX_FILES = 150_000, 200_000, 6
"""The limits of the sessions that have some."""

MORTAL, EARLY, LATE = 3.0, 2.0, 3.0
"""A short time to live in seconds, and how much earlier or later a file may be seen to go.

Times in a bucket are whole seconds of another clock.
"""

LONG = 3600.0

SIZES = (
    0, 1, 20, 3000, 65_535, 65_536, 131_071, 131_072, 131_073,
    (1 << 20) - 1, 1 << 20, (1 << 20) + 1,
)  # fmt: skip
"""Around each threshold: a buffer, the largest file written in its place, the memory of a save."""

PART_SIZE = 5 << 20
"""The size of the parts in which a bucket gets what is larger."""

LARGE = PART_SIZE + 7

KINDS = ("bytes", "bytearray", "memoryview", "path", "file", "pieces", "list", "written", "image")

ODD = (
    "a", "A", "a/b", "\xe9", "e\u0301", "\u0130.png", "\xdf", "SS", "\ufb01le", "\u202egnp.exe",
    "\U0001f468\u200d\U0001f469", "\u200b", "x" * 255, "\uffff", "\U0010ffff", "a b+c%20&?#=;",
    "\u1100\u1161", "\uac00",
)  # fmt: skip

TURNS = {
    "put": 36, "add": 5, "burst": 8, "read": 12, "range": 4, "contains": 2, "marks": 2, "whose": 1,
    "files": 6, "usage": 2, "delete": 10, "drop": 3, "touch": 2, "end": 3, "resume": 2,
    "illegal": 2, "reopen": 2, "sweep": 1, "verify": 1,
}  # fmt: skip
"""How often there is which operation."""

Key = tuple[str, str | None]
Answer = tuple[Any, ...]


def _is_legal(name: str) -> bool:
    try:
        own_name(name)
    except InvalidName:
        return False
    return True


NAMES = tuple(name for name in (*ODD, *HOSTILE) if _is_legal(name))
ILLEGAL = tuple(name for name in HOSTILE if not _is_legal(name))


def _is_id(text: str) -> bool:
    try:
        session_key(text, None)
    except InvalidName:
        return False
    return True


IDS = tuple(text for text in (*ODD, *HOSTILE) if _is_id(text))


@dataclass(frozen=True, slots=True)
class Op:
    """One operation. ``piece`` is the seed and size of a content, ``several`` a burst's."""

    verb: str
    key: Key = ("", None)
    limited: bool = False
    name: str = ""
    names: tuple[str, ...] = ()
    piece: tuple[int, int] = (0, 0)
    kind: str = "bytes"
    ttl: float | None = None
    start: int = 0
    length: int | None = None
    how: str = "plain"
    several: tuple[Op, ...] = ()

    def __str__(self) -> str:
        names = ("name", "names", "ttl", "limited")
        told = [f"{name}={value!r}" for name in names if (value := getattr(self, name))]
        if self.verb in {"put", "add"}:
            told.append(f"{self.kind} {self.piece}")
        if self.verb == "range":
            told.append(f"{self.start}:{self.length}")
        if self.several:
            told += [f"{it.verb} {it.name or it.names} {it.piece}" for it in self.several]
        about = [str(self.key)] if self.key[0] else []
        return " ".join((self.verb, *about, *(it[:80] for it in told), f"({self.how})"))


def some_bytes(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


@cache
def picture(seed: int) -> Any:
    """A numpy image."""
    import numpy as np

    return np.frombuffer(some_bytes(seed, 8 * 9 * 3), np.uint8).reshape(8, 9, 3)


def bytes_of(op: Op) -> bytes:
    """The bytes that a save of that content leaves."""
    if op.kind == "image":
        from pathlib import PurePath

        return images.encode(picture(op.piece[0]), PurePath(own_name(op.name)).suffix)
    return some_bytes(*op.piece)


@cache
def _is_picture(name: str) -> bool:
    """Whether the name is one for an image."""
    try:
        bytes_of(Op("put", name=name, kind="image"))
    except ValueError:
        return False
    return True


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@cache
def _summary(op: Op) -> tuple[int, str]:
    data = bytes_of(op)
    return len(data), digest(data)


@dataclass(frozen=True, slots=True)
class Kept:
    """A file. ``goes`` is when it may be seen to be gone, and when it must be; None: never."""

    size: int
    digest: str
    content: Op
    lives: bool = False
    goes: tuple[float, float] | None = None


@dataclass(slots=True)
class Box:
    """A session."""

    files: dict[str, Kept] = field(default_factory=dict)
    ended: bool = False


class Model:
    """The sessions of a store."""

    def __init__(self) -> None:
        self.boxes: dict[Key, Box] = {}

    def files(self, key: Key) -> dict[str, Kept]:
        box = self.boxes.get(key)
        return {} if box is None else box.files

    def copied(self) -> Model:
        """Return the model of a copy. Sessions without files are not in it."""
        copy = Model()
        copy.boxes = {key: box for key, box in self.boxes.items() if box.files}
        return copy

    def purge(self, now: float) -> None:
        """Take out the files that are over their time for certain."""
        for box in self.boxes.values():
            for name in [name for name, it in box.files.items() if it.goes and it.goes[1] < now]:
                del box.files[name]

    def is_sure(self, key: Key | None, now: float, then: float) -> bool:
        """Whether no file of that session, or of any, may go between these times."""
        boxes = self.boxes.values() if key is None else [self.boxes.get(key, Box())]
        goes = [it.goes for box in boxes for it in box.files.values() if it.goes]
        return not any(low < then and high > now for low, high in goes)

    def expected(self, op: Op, sent: float, got: float) -> Answer:
        """Carry an operation out, and return the right answer."""
        verb = getattr(self, f"_{op.verb}", None)
        if verb is None:
            return ("done",)
        answer: Answer = verb(op, sent, got)
        return answer

    # Saving

    def _put(self, op: Op, sent: float, got: float) -> Answer:
        return self._save(op, own_name(op.name), sent, got)

    def _add(self, op: Op, *_: float) -> Answer:
        return ("saved", "anything") if self.accepts(op, "") else ("refused",)

    def save_added(self, op: Op, name: str, sent: float, got: float) -> Answer:
        """The answer to ``add``, which the store has given that name."""
        return self._save(op, name, sent, got)

    def accepts(self, op: Op, name: str) -> bool:
        """Whether a save is within the limits."""
        size, _ = _summary(op)
        there = self.files(op.key)
        old = there.get(name)
        if not op.limited:
            return True
        if size > MAX_FILE or (old is None and len(there) >= MAX_FILES):
            return False
        total = sum(it.size for it in there.values())
        growth = size - (old.size if old else 0)
        return growth <= 0 or total + growth <= MAX_SESSION

    def _save(self, op: Op, name: str, sent: float, got: float) -> Answer:
        if not self.accepts(op, name):
            return ("refused",)
        size, its_digest = _summary(op)
        goes = (sent + op.ttl - EARLY, got + op.ttl + LATE) if op.ttl == MORTAL else None
        kept = Kept(size, its_digest, replace(op, name=name), op.ttl is not None, goes)
        self.boxes.setdefault(op.key, Box()).files[name] = kept
        return ("saved", size, its_digest)

    # Reading

    def _read(self, op: Op, *_: float) -> Answer:
        there = self.files(op.key).get(own_name(op.name))
        return ("missing",) if there is None else ("read", there.size, there.digest)

    def _range(self, op: Op, *_: float) -> Answer:
        there = self.files(op.key).get(own_name(op.name))
        if there is None:
            return ("missing",)
        data = bytes_of(there.content)
        stop = None if op.length is None else op.start + op.length
        return ("read", len(data[op.start : stop]), digest(data[op.start : stop]))

    def _files(self, op: Op, *_: float) -> Answer:
        there = self.files(op.key)
        return ("files", *((n, it.size, it.digest, it.lives) for n, it in sorted(there.items())))

    def _contains(self, op: Op, *_: float) -> Answer:
        return ("contains", own_name(op.name) in self.files(op.key))

    def _usage(self, op: Op, *_: float) -> Answer:
        there = self.files(op.key).values()
        unique = {it.digest: it.size for it in there}
        total = sum(it.size for it in there)
        return ("usage", len(there), total, sum(unique.values()), int(bool(there)))

    def _marks(self, op: Op, *_: float) -> Answer:
        box = self.boxes.get(op.key)
        return ("marks", box is not None, box is not None and box.ended)

    def _whose(self, op: Op, *_: float) -> Answer:
        return ("whose", *(op.key if op.key in self.boxes else (None, None)))

    def _illegal(self, *_: object) -> Answer:
        return ("invalid",)

    # Forgetting, and the visitor

    def _delete(self, op: Op, *_: float) -> Answer:
        for name in op.names:
            self.files(op.key).pop(own_name(name), None)
        return ("done",)

    def _drop(self, op: Op, *_: float) -> Answer:
        self.boxes.pop(op.key, None)
        return ("done",)

    def _end(self, op: Op, *_: float) -> Answer:
        if op.key in self.boxes:
            self.boxes[op.key].ended = True
        return ("done",)

    def _resume(self, op: Op, *_: float) -> Answer:
        if op.key in self.boxes:
            self.boxes[op.key].ended = False
        return ("done",)

    # The store

    def _sessions(self, *_: object) -> Answer:
        return ("sessions", *sorted(self.boxes, key=_by_text))

    def _total(self, *_: object) -> Answer:
        files = [it for box in self.boxes.values() for it in box.files.values()]
        return ("total", len(files), sum(it.size for it in files), len(self.boxes))

    def _verify(self, *_: object) -> Answer:
        return ("verified",)

    # A burst

    def adopt(self, op: Op, answer: Answer) -> str | None:
        """Take over what a burst left; what is wrong with it."""
        if answer[0] != "burst":
            return "it is no burst's answer"
        _, outcomes, listing, exists, ended, exact = answer
        before = dict(self.files(op.key))
        wrong = self._problem(op, outcomes, before, listing)
        if not exact:
            wrong = wrong or "after it the session takes more than its limits let it, or less"
        contents = {_summary(each): each for each in op.several if each.verb == "put"}
        contents |= {(it.size, it.digest): it.content for it in before.values()}
        files = {}
        for name, size, its_digest, lives in listing:
            content = contents.get((size, its_digest))
            if content is None:
                return f"{name!r} has bytes that nobody saved"
            files[name] = Kept(size, its_digest, replace(content, name=name), lives)
        if exists:
            self.boxes[op.key] = Box(files, ended)
        else:
            self.boxes.pop(op.key, None)
        return wrong

    def _problem(
        self, op: Op, outcomes: list[Answer], before: dict[str, Kept], listing: Iterable[Any]
    ) -> str | None:
        there = {name: (size, its_digest) for name, size, its_digest, _ in listing}
        total = sum(size for size, _ in there.values())
        if op.limited and (total > MAX_SESSION or len(there) > MAX_FILES):
            return f"{len(there)} files of {total} bytes are over the limits"
        errors = [it for it in outcomes if it[0] not in {"saved", "refused", "done"}]
        if errors:
            return f"an operation said {errors[0]}"
        if any(each.verb == "drop" for each in op.several):
            return None
        gone = {name for each in op.several for name in each.names}
        for name in {*before, *(each.name for each in op.several if each.verb == "put")} - gone:
            old = before.get(name)
            saved: list[tuple[int, str] | None] = [
                _summary(each)
                for each, outcome in zip(op.several, outcomes, strict=True)
                if each.verb == "put" and each.name == name and outcome[0] == "saved"
            ]
            allowed = saved or [None if old is None else (old.size, old.digest)]
            if there.get(name) not in allowed:
                return f"{name!r} is {there.get(name)}, expected one of {allowed}"
        return None


def _by_text(key: Key) -> tuple[str, str]:
    return key[0], key[1] or ""


class Author:
    """Writes the operations of one engine, by a seed and what the model has."""

    def __init__(self, model: Model, seed: int, processes: int, *, large: bool) -> None:
        self.rng = random.Random(seed)
        self.model = model
        self._large = large
        self._chains: list[deque[tuple[int, Op]]] = []
        ids = self.rng.sample(IDS, 4)
        owners = [None, *self.rng.sample(IDS, 2)]
        self.names = self.rng.sample(NAMES, 8)
        self.free = list(
            dict.fromkeys((self.rng.choice(ids), self.rng.choice(owners)) for _ in "1234567")
        )
        self.bound = [
            [(f"bound {process} {n}", None) for n in "ab"] for process in range(processes)
        ]

    def step(self, processes: int, now: float) -> dict[int, Op]:
        """One operation for each process, each in a session of its own."""
        if self.rng.random() < 0.04:
            return {self.rng.randrange(processes): Op(self.rng.choice(("sessions", "total")))}
        step = self._linked()
        taken = {op.key for op in step.values()}
        keys = self.rng.sample(self.free, len(self.free))
        for process in {*range(processes)} - {*step}:
            limited = self.rng.random() < 0.4
            key = self.rng.choice(self.bound[process]) if limited else keys.pop()
            op = self._op(key, limited=limited)
            if key not in taken and self.model.is_sure(key, now - 1, now + 1):
                step[process] = op
                if not limited and op.verb == "put" and op.ttl is None:
                    self._go_on(process, op, processes)
        return step

    def _linked(self) -> dict[int, Op]:
        """The next operation of each chain, as far as their processes and sessions are free."""
        step: dict[int, Op] = {}
        for chain in self._chains:
            process, op = chain[0]
            if process not in step and op.key not in {it.key for it in step.values()}:
                step[process] = op
                chain.popleft()
        self._chains = [chain for chain in self._chains if chain]
        return step

    def _go_on(self, process: int, saved: Op, processes: int) -> None:
        """Sometimes have another process delete or replace a file, and the first save it again.

        That comes by chance too seldom, and a process remembers for two seconds what it saved.
        """
        if self.rng.random() < 0.2:
            other = (process + 1) % processes
            deletion = Op("delete", saved.key, names=(saved.name,))
            replacement = replace(saved, kind="bytes", piece=(4, 20))
            look = Op("read", saved.key, name=saved.name)
            between = self.rng.choice((deletion, replacement))
            self._chains.append(deque([(other, between), (process, saved), (other, look)]))

    def _op(self, key: Key, *, limited: bool) -> Op:
        verb = self.rng.choices(list(TURNS), list(TURNS.values()))[0]
        if verb == "burst" and not limited:
            verb = "put"
        how = self.rng.choices(("plain", "thread", "async"), (4, 1, 1))[0]
        op = Op(verb, key, limited, how=how)
        finish = getattr(self, f"_{verb}", None)
        finished: Op = op if finish is None else finish(op)
        return finished

    def _put(self, op: Op) -> Op:
        kind, name = self.rng.choice(KINDS), self._name(op.key)
        if kind == "image" and not _is_picture(name):
            kind = "path"
        ttl = None if kind == "written" else self._ttl(op)
        return replace(op, name=name, kind=kind, ttl=ttl, piece=self._piece(op))

    def _add(self, op: Op) -> Op:
        return replace(op, ttl=self._ttl(op), piece=self._piece(op))

    def _ttl(self, op: Op) -> float | None:
        return self.rng.choices((None, LONG, MORTAL), (8, 1, 0 if op.limited else 1))[0]

    def _read(self, op: Op) -> Op:
        return replace(op, name=self._name(op.key))

    _contains = _read

    def _range(self, op: Op) -> Op:
        start = self.rng.choice((0, 1, 65_535, 131_072))
        length = self.rng.choice((None, 0, 1, 70_000))
        return replace(op, name=self._name(op.key), start=start, length=length)

    def _delete(self, op: Op) -> Op:
        count = self.rng.choice((1, 1, 2, 3))
        return replace(op, names=tuple(self._name(op.key) for _ in range(count)))

    def _illegal(self, op: Op) -> Op:
        return replace(op, name=self.rng.choice(ILLEGAL))

    def _burst(self, op: Op) -> Op:
        names = [*self.rng.sample("pqrstuvw", 3), *list(self.model.files(op.key))[:2]]
        return replace(op, how="threads", several=tuple(self._turns(op, names)))

    def _name(self, key: Key) -> str:
        there = list(self.model.files(key))
        return self.rng.choice(there if there and self.rng.random() < 0.6 else self.names)

    def _piece(self, op: Op) -> tuple[int, int]:
        """Few contents, so that many sessions have the same; around a limit where one is."""
        seed = self.rng.choice((1, 1, 2, 3, self.rng.randrange(1 << 30)))
        if op.limited:
            there = self.model.files(op.key).values()
            left = MAX_SESSION - sum(it.size for it in there)
            near = (left, left + 1, left - 1, MAX_FILE, MAX_FILE + 1)
            size = self.rng.choice((*near, 1, 20_000, 40_000, 70_000))
            return seed, max(size, 0)
        if self._large and self.rng.random() < 0.004:
            return seed, LARGE
        weights = [3 if size < 100_000 else 1 for size in SIZES]
        return seed, self.rng.choices(SIZES, weights)[0]

    def _turns(self, op: Op, names: list[str]) -> Iterable[Op]:
        for _ in range(20):
            turn, name = self.rng.random(), self.rng.choice(names)
            if turn < 0.65:
                size = self.rng.choice((1, 30_000, 60_000, 100_000))
                kind = self.rng.choice(("bytes", "list"))
                seed = self.rng.randrange(1 << 30)
                yield Op("put", op.key, limited=True, name=name, piece=(seed, size), kind=kind)
            elif turn < 0.9:
                yield Op("delete", op.key, limited=True, names=(name,))
            else:
                yield Op("drop", op.key, limited=True)
