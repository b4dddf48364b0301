"""The checks at the end of a run: they must hold after every schedule."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import chain

from sessionstore.backend import SessionRecord
from sessionstore.backends.objects import ObjectBackend, keys
from tests.explorer.cast import SESSIONS, number_of, read_by_name
from tests.explorer.history import History, Kind, Op
from tests.explorer.world import GRACE, World

_DAY = timedelta(hours=25)
_STAYS = {keys.LAYOUT, keys.SWEEP, keys.SWEEPER}


def violations(world: World, backend: ObjectBackend) -> Iterator[str]:
    """Return each violation, in words. Empties the store.

    ``backend`` must have its own client, so that the scheduler does not disturb its requests.
    """
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
            yield f"{key.sid} does not exist"
    yield from _leftovers(world, backend)


def _looks(world: World) -> Iterator[str]:
    """Check I1, I2 and I5 for the reads during the run."""
    for look in world.history.ops:
        if look.kind == "look" and look.ended is not None:
            yield from _seen(world.history, look, "was read")


def _files(world: World, backend: ObjectBackend) -> Iterator[str]:
    """Check I1, I2 and I5 for reads now, after the run."""
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
    """Check that a drop spared each session that was active after its limit, or that came back."""
    for drop in history.ops:
        if drop.kind != "drop" or drop.unless is None or drop.ended is None:
            continue
        others = [op for op in history.of(drop.sid, "drop") if op is not drop]
        for act in _acts(history, drop.sid):
            since = act.at > drop.unless + timedelta(seconds=1)
            if since and act.is_before(drop) and all(other.is_before(act) for other in others):
                yield f"{drop.sid} was dropped although it was active since"
        ends = history.of(drop.sid, "end", "drop")
        for act in history.of(drop.sid, "resume") if drop.only_ended else ():
            came_back = act.ended is not None and act.is_before(drop)
            if came_back and all(end.is_before(act) for end in ends if end is not drop):
                yield f"{drop.sid} was dropped although its visitor came back"


def _activity(history: History, record: SessionRecord) -> Iterator[str]:
    """Check that an acknowledged save or touch counts as activity."""
    for act in _acts(history, record.sid):
        if record.active < act.at.replace(microsecond=0) and not _dropped_since(history, act):
            yield f"{record.sid} was active at {act.at}, not last at {record.active}"


def _acts(history: History, sid: str) -> list[Op]:
    """Return the acknowledged operations that count as activity."""
    acts = history.of(sid, "put", "touch", "resume", "end")
    return [op for op in acts if op.ended is not None]


def _ends(history: History, record: SessionRecord) -> Iterator[str]:
    """Check that only a resume or a drop takes an end back, and that a new session has not ended.

    A failed resume or drop takes back no later end, however late its requests arrive.
    """
    ends = history.of(record.sid, "end")
    undone: tuple[Kind, ...] = ("resume", "drop")
    undoings = history.of(record.sid, *undone)
    for end in ends:
        is_last = all(op.stopped < end.since for op in undoings) and end.ended is not None
        if record.ended is None and is_last and _existed(history, end):
            yield f"{record.sid} has not ended although its visitor left"
    if record.ended is not None and all(_is_over(history, end, undoings) for end in ends):
        yield f"{record.sid} has ended although its visitor came back, or is new"


def _is_over(history: History, end: Op, undoings: list[Op]) -> bool:
    """Return whether an end was certainly taken back, or no session existed to end."""
    taken_back = any(end.is_before(op) and op.ended is not None for op in undoings)
    return taken_back or all(end.is_before(save) for save in history.of(end.sid, "put"))


def _must_be_there(history: History, sid: str) -> bool:
    """Return whether a save was acknowledged that no drop can have undone."""
    return any(
        save.ended is not None and not _dropped_since(history, save)
        for save in history.of(sid, "put")
    )


def _existed(history: History, op: Op) -> bool:
    """Return whether the session certainly existed when an operation began."""
    return any(
        save.ended is not None
        and save.is_before(op)
        and all(drop.is_before(save) for drop in history.of(op.sid, "drop"))
        for save in history.of(op.sid, "put")
    )


def _dropped_since(history: History, op: Op) -> bool:
    return not all(drop.is_before(op) for drop in history.of(op.sid, "drop"))


def _leftovers(world: World, backend: ObjectBackend) -> Iterator[str]:
    """Check I6: after all sessions are dropped, two sweeps leave nothing."""
    world.pass_time(_DAY.total_seconds())
    for record in list(backend.sessions()):
        backend.drop(record.sid)
    backend.collect()
    world.pass_time(1.5 * GRACE.total_seconds())
    backend.collect()
    left = [key for key in world.bucket.all_keys() if key not in _STAYS]
    if left or world.bucket.uploads():
        yield f"left over: {', '.join(left)} {world.bucket.uploads() or ''}"
