"""What has to hold at the end of a run, whatever happened in it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import chain

from sessionstore.backend import SessionRecord
from sessionstore.backends import objects_keys as keys
from sessionstore.backends.objects import ObjectBackend
from sessionstore.testing.explorer_cast import SESSIONS, number_of, read_by_name
from sessionstore.testing.explorer_history import History, Kind, Op
from sessionstore.testing.explorer_world import GRACE, World

_DAY = timedelta(hours=25)
_STAYS = {keys.LAYOUT, keys.SWEEP}


def violations(world: World, backend: ObjectBackend) -> Iterator[str]:
    """What is wrong, in words. ``backend`` is one that nobody disturbs. Empties the store."""
    yield from world.errors
    yield from chain(_looks(world), _files(world, backend), _drops(world.history))
    for key in SESSIONS:
        record = backend.session(key.sid)
        if record is not None:
            yield from _activity(world.history, record)
            yield from _ends(world.history, record)
            if backend.identify(key.sid) != key:
                yield f"{key.sid} is identified as {backend.identify(key.sid)}"
        elif _must_be_there(world.history, key.sid):
            yield f"{key.sid} is not there"
    yield from _leftovers(world, backend)


def _looks(world: World) -> Iterator[str]:
    """I1, I2, I5 as seen while it ran."""
    for look in world.history.ops:
        if look.kind == "look" and look.ended is not None:
            yield from _seen(world.history, look, "was read")


def _files(world: World, backend: ObjectBackend) -> Iterator[str]:
    """I1, I2, I5 as seen now."""
    history = world.history
    saves = [op for op in history.ops if op.kind == "put"]
    for sid, name in sorted({(op.sid, op.name or "") for op in saves}):
        look = history.begin("look", sid, name, world.now)
        look.value = number_of(read_by_name(backend, sid, name))
        history.end(look)
        yield from _seen(history, look, "reads")


def _seen(history: History, look: Op, verb: str) -> Iterator[str]:
    possible = history.possible(look)
    if look.value not in possible:
        yield f"{look.sid}/{look.name} {verb} {look.value}, not one of {possible}"


def _drops(history: History) -> Iterator[str]:
    """A session that was active after the time that a drop was given is spared."""
    for drop in history.ops:
        if drop.kind != "drop" or drop.unless is None or drop.ended is None:
            continue
        others = [op for op in history.of(drop.sid, "drop") if op is not drop]
        for act in _acts(history, drop.sid):
            since = act.at > drop.unless + timedelta(seconds=1)
            if since and act.is_before(drop) and all(it.is_before(act) for it in others):
                yield f"{drop.sid} was dropped although it was active since"


def _activity(history: History, record: SessionRecord) -> Iterator[str]:
    """A save or a touch that was answered is not forgotten."""
    for act in _acts(history, record.sid):
        if record.active < act.at.replace(microsecond=0) and not _dropped_since(history, act):
            yield f"{record.sid} was active at {act.at}, not last at {record.active}"


def _acts(history: History, sid: str) -> list[Op]:
    """What was answered and counts as activity."""
    acts = history.of(sid, "put", "touch", "resume", "end")
    return [op for op in acts if op.ended is not None]


def _ends(history: History, record: SessionRecord) -> Iterator[str]:
    """Only a resume or a drop takes an end back, and a new session has not ended.

    One that failed takes no end back that came after it, however late its requests arrive.
    """
    ends = history.of(record.sid, "end")
    undone: tuple[Kind, ...] = ("resume", "drop")
    undoings = history.of(record.sid, *undone)
    for end in ends:
        stands = all(op.stopped < end.since for op in undoings) and end.ended is not None
        if record.ended is None and stands and _was_there(history, end):
            yield f"{record.sid} has not ended although its visitor left"
    if record.ended is not None and all(_is_over(history, end, undoings) for end in ends):
        yield f"{record.sid} has ended although its visitor came back, or is new"


def _is_over(history: History, end: Op, undoings: list[Op]) -> bool:
    """Whether an end was surely taken back, or there was no session to end."""
    taken_back = any(end.is_before(op) and op.ended is not None for op in undoings)
    return taken_back or all(end.is_before(save) for save in history.of(end.sid, "put"))


def _must_be_there(history: History, sid: str) -> bool:
    """Whether a save was answered that no drop can have undone."""
    return any(
        save.ended is not None and not _dropped_since(history, save)
        for save in history.of(sid, "put")
    )


def _was_there(history: History, op: Op) -> bool:
    """Whether the session surely was there when an operation began."""
    return any(
        save.ended is not None
        and save.is_before(op)
        and all(drop.is_before(save) for drop in history.of(op.sid, "drop"))
        for save in history.of(op.sid, "put")
    )


def _dropped_since(history: History, op: Op) -> bool:
    return not all(drop.is_before(op) for drop in history.of(op.sid, "drop"))


def _leftovers(world: World, backend: ObjectBackend) -> Iterator[str]:
    """I6: when all sessions are over, two sweeps leave nothing."""
    world.pass_time(_DAY.total_seconds())
    for record in list(backend.sessions()):
        backend.drop(record.sid)
    backend.collect()
    world.pass_time(1.5 * GRACE.total_seconds())
    backend.collect()
    left = [key for key in world.bucket.all_keys() if key not in _STAYS]
    if left or world.bucket.uploads():
        yield f"left over: {', '.join(left)} {world.bucket.uploads() or ''}"
