"""``gr.State`` on two replicas: what an event sets on one is what the next gets on the other."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import gradio as gr
import pytest

from sessionstore import SessionStore, StoredFile
from sessionstore.adapters.gradio import session
from sessionstore.adapters.gradio.recent_saves import KeptSession
from sessionstore.adapters.gradio.signed_pickles import HEADER, Place, Refused, SignedPickles
from sessionstore.adapters.gradio.state import name_of, place_of, places_in
from sessionstore.names import session_key
from tests.support.gradio_rig import (
    GRADIO_S_OWN,
    LINGER,
    PATIENCE,
    Heard,
    MakeReplicas,
    Replica,
    Tab,
    replicas,
    until,
)

pytestmark = GRADIO_S_OWN

KEPT = {"state": True}


def remember(said: str, before: list[str]) -> tuple[str, list[str]]:
    """What was said before, and this."""
    return " ".join([*before, said]), [*before, said]


def append(said: str, before: list[str]) -> str:
    """Gradio lets a handler change a value in place."""
    before.append(said)
    return " ".join(before)


def fail(said: str, before: list[str]) -> str:
    before.append(said)
    raise gr.Error("failed after the change")


def each(said: str, before: list[str]) -> Iterator[tuple[str, list[str]]]:
    for word in said.split():
        before = [*before, word]
        yield " ".join(before), before


def save(said: str, files: list[StoredFile], request: gr.Request) -> tuple[str, list[StoredFile]]:
    """The contents of all files so far, which the state has as stored files."""
    files = [*files, session(request).add(said.encode(), ".txt")]
    return " ".join(file.read().decode() for file in files), files


def build() -> gr.Blocks:
    demo: gr.Blocks
    with gr.Blocks() as demo:
        text, words, files = gr.Textbox(), gr.State([]), gr.State([])
        number = gr.State(threading.get_native_id)
        setting: list[Callable[..., Any]] = [remember, each]
        for fn in setting:
            gr.on(fn=fn, inputs=[text, words], outputs=[text, words], api_name=fn.__name__)
        for fn in (append, fail):
            gr.on(fn=fn, inputs=[text, words], outputs=text, api_name=fn.__name__)
        gr.on(fn=save, inputs=[text, files], outputs=[text, files], api_name="save")
        gr.on(fn=lambda number: number, inputs=number, outputs=text, api_name="number")
    return demo


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeReplicas]:
    with replicas(tmp_path) as make:
        yield make


@pytest.fixture
def pair(make: MakeReplicas) -> tuple[Replica, Replica]:
    return make(build, options=KEPT), make(build, options=KEPT)


@pytest.fixture
def tabs(pair: tuple[Replica, Replica]) -> tuple[Tab, Tab]:
    """One page, whose events either replica gets."""
    a, b = pair
    mine = a.tab().load()
    return mine, b.same(mine)


def test_an_event_gets_what_one_on_another_replica_has_set(tabs: tuple[Tab, Tab]) -> None:
    said = [tabs[turn % 2].call("remember", f"{turn}", None) for turn in range(6)]

    assert said[-1] == "0 1 2 3 4 5"


def test_without_state_each_replica_has_its_own(make: MakeReplicas) -> None:
    a, b = make(build), make(build)
    mine = a.tab().load()
    mine.call("remember", "one", None)

    assert b.same(mine).call("remember", "two", None) == "two"
    assert not [f for s in a.store.sessions() for f in a.store.backend.files(s.sid)]


def test_a_value_that_is_changed_in_place_is_kept(tabs: tuple[Tab, Tab]) -> None:
    here, there = tabs
    here.call("append", "one", None)

    assert there.call("append", "two", None) == "one two"


def test_a_value_that_a_failing_event_changed_is_kept(tabs: tuple[Tab, Tab]) -> None:
    here, there = tabs
    here.call("append", "one", None)
    with pytest.raises(RuntimeError):
        here.call("fail", "two", None)

    assert there.call("append", "three", None) == "one two three"


def test_a_generator_s_value_is_kept_when_it_ends(tabs: tuple[Tab, Tab]) -> None:
    here, there = tabs
    here.call("each", "one two", None)

    assert there.call("append", "three", None) == "one two three"


def test_what_a_function_begins_with_is_the_same_on_all(tabs: tuple[Tab, Tab]) -> None:
    here, there = tabs

    assert here.call("number", None) == there.call("number", None)


def test_stored_files_stay_stored_files(tabs: tuple[Tab, Tab]) -> None:
    here, there = tabs
    here.call("save", "one", None)

    assert there.call("save", "two", None) == "one two"


def test_a_value_that_is_not_changed_is_written_once(
    pair: tuple[Replica, Replica], tabs: tuple[Tab, Tab]
) -> None:
    here, there = tabs
    here.call("save", "one", None)
    versions = [_tokens(pair[0], here)]
    for tab in (there, here, there):
        with pytest.raises(RuntimeError):
            tab.call("save", None, None)  # it fails before it changes anything
        versions.append(_tokens(pair[0], here))

    assert len({*versions}) == 1


def _tokens(at: Replica, tab: Tab) -> tuple[str, ...]:
    return tuple(reference.token for _, reference in _values(at, tab))


def _values(at: Replica, tab: Tab) -> list[tuple[Place, Any]]:
    (mine,) = (each for each in at.store.sessions() if each.id == tab.session_hash)
    return list(places_in(mine.sid, at.store.backend.files(mine.sid)))


def test_another_owner_of_the_same_id_gets_nothing_and_changes_nothing(
    pair: tuple[Replica, Replica],
) -> None:
    a, b = pair
    mine = a.tab().load()
    mine.call("remember", "secret", None)
    for replica in pair:  # on b before its owner comes there
        thief = replica.tab(session_hash=mine.session_hash).load()
        assert thief.call("remember", "hello", None) == "hello"
        assert thief.call("remember", "again", None) == "hello again"

    assert b.same(mine).call("append", "mine", None) == "secret mine"
    assert mine.call("append", "too", None) == "secret mine too"


def test_another_owner_of_the_same_id_gets_nothing_that_is_in_memory_alone(
    make: MakeReplicas,
) -> None:
    a = make(odd_demo, options=KEPT)
    mine = a.tab().load()
    mine.call("keep_lock", "x", None)
    thief = a.tab(session_hash=mine.session_hash).load()

    assert (thief.call("is_set", None), mine.call("is_set", None)) == ("not set", "set")


def test_a_session_that_was_dropped_begins_again(
    pair: tuple[Replica, Replica], tabs: tuple[Tab, Tab]
) -> None:
    here, there = tabs
    here.call("remember", "one", None)
    there.call("remember", "two", None)
    for each in pair[0].store.sessions():
        each.drop()

    assert there.call("remember", "three", None) == "three"
    assert here.call("remember", "four", None) == "three four"


def test_values_are_no_files_of_the_app_and_of_no_route(
    pair: tuple[Replica, Replica], tabs: tuple[Tab, Tab]
) -> None:
    here, _ = tabs
    here.call("remember", "one", None)
    ((place, _),) = _values(pair[0], here)
    (mine,) = (each for each in pair[0].store.sessions() if each.id == here.session_hash)

    assert mine.files() == []
    inside = name_of(place).removeprefix("@/")
    assert here.fetch({"path": str(pair[0].cache / inside)}).status_code == 403


def test_a_session_with_values_alone_is_in_the_list_of_its_owner(
    pair: tuple[Replica, Replica], tabs: tuple[Tab, Tab]
) -> None:
    here, _ = tabs
    here.call("remember", "one", None)
    (mine,) = (each for each in pair[0].store.sessions() if each.id == here.session_hash)

    assert pair[1].store.owners.newest(str(mine.owner)) == [mine.sid]


# What is refused


class Hostile:
    """Unpickling it runs code."""

    ran: ClassVar[list[str]] = []

    def __reduce__(self) -> Any:
        return Hostile.ran.append, ("ran",)


Damage = Callable[[Replica, Place, bytes], bytes]


def tampered(_: Replica, __: Place, data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


def truncated(_: Replica, __: Place, data: bytes) -> bytes:
    return data[:-1]


def empty(_: Replica, __: Place, ___: bytes) -> bytes:
    return b""


def old_version(_: Replica, __: Place, data: bytes) -> bytes:
    return data.replace(b"state 1", b"state 0", 1)


def hostile(_: Replica, __: Place, data: bytes) -> bytes:
    """With the signature of another value."""
    return data[: len(HEADER) + 32] + pickle.dumps(Hostile())


def hostile_unsigned(_: Replica, __: Place, ___: bytes) -> bytes:
    return pickle.dumps(Hostile())


def other_secret(at: Replica, place: Place, _: bytes) -> bytes:
    pickles = SignedPickles(at.store, b"another secret")
    return pickles.signed(place, pickles.pickled(["no"], place.sid))


def foreign_session(at: Replica, place: Place, _: bytes) -> bytes:
    pickles = at.attachment.service.states.pickles
    return pickles.signed(place._replace(sid="foreign"), pickles.pickled(["no"], place.sid))


def swapped_number(at: Replica, place: Place, _: bytes) -> bytes:
    pickles = at.attachment.service.states.pickles
    return pickles.signed(place._replace(number=1), pickles.pickled(["no"], place.sid))


def other_app(at: Replica, place: Place, _: bytes) -> bytes:
    pickles = at.attachment.service.states.pickles
    return pickles.signed(place._replace(app="0"), pickles.pickled(["no"], place.sid))


def unknown_code(at: Replica, place: Place, _: bytes) -> bytes:
    """Of a version of the app that had a class which this one has not."""
    return at.attachment.service.states.pickles.signed(place, b"cgone\nGone\n.")


def too_large(at: Replica, place: Place, _: bytes) -> bytes:
    pickles = at.attachment.service.states.pickles
    return pickles.signed(place, pickles.pickled(b"no" * (9 << 20), place.sid))


@pytest.mark.parametrize(
    "damage",
    [tampered, truncated, empty, old_version, hostile, hostile_unsigned, other_secret,
     foreign_session, swapped_number, other_app, unknown_code, too_large],
)  # fmt: skip
def test_what_is_no_value_of_this_place_is_refused_and_told(
    damage: Damage, pair: tuple[Replica, Replica], tabs: tuple[Tab, Tab],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    a, (here, there) = pair[0], tabs
    here.call("remember", "one", None)
    ((place, reference),) = _values(a, here)
    data = a.store.backend.open(place.sid, reference).read()
    (mine,) = (each for each in a.store.sessions() if each.id == here.session_hash)
    name = name_of(place).removeprefix("@/")
    KeptSession(a.store, mine.key).put(name, damage(a, place, data))
    Hostile.ran.clear()
    caplog.clear()

    assert there.call("remember", "two", None) == "two"
    assert Hostile.ran == []
    (told,) = (r.getMessage() for r in caplog.records if "was refused" in r.getMessage())
    assert place.sid in told
    assert here.call("remember", "three", None) == "two three"


def test_nothing_is_unpickled_before_it_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SessionStore.open(tmp_path) as store:
        pickles = SignedPickles(store, b"secret")
        key = session_key("visitor")
        place = Place(key.sid, "app", 0)
        data = pickles.signed(place, pickles.pickled("value", key.sid))
        assert pickles.opened(place, data, key, {}) == "value"
        monkeypatch.setattr(pickle, "loads", pytest.fail)
        for wrong in (data[:-1], data[1:], b"", data + b"x", data[: len(HEADER)]):
            with pytest.raises(Refused):
                pickles.opened(place, wrong, key, {})


def test_names_of_values_are_read_back() -> None:
    place = Place("sid", "a1", 12)

    assert place_of("sid", name_of(place)) == place
    for other in ("@/x/y", "@/sessionstore/state/a1/x", "file.txt", "@/sessionstore/state/a1"):
        assert place_of("sid", other) is None


# What cannot be kept


def keep_lock(said: str, _: Any) -> tuple[str, Any]:
    return said, threading.Lock()


def keep_large(said: str, _: Any) -> tuple[str, Any]:
    return said, said * 1000


def is_set(value: Any) -> str:
    return "set" if value else "not set"


def odd_demo() -> gr.Blocks:
    demo: gr.Blocks
    with gr.Blocks() as demo:
        text, odd = gr.Textbox(), gr.State()
        for fn in (keep_lock, keep_large):
            gr.on(fn=fn, inputs=[text, odd], outputs=[text, odd], api_name=fn.__name__)
        gr.on(fn=is_set, inputs=odd, outputs=text, api_name="is_set")
    return demo


@pytest.mark.parametrize("kind", ["keep_lock", "keep_large"])
def test_what_cannot_be_kept_stays_in_memory_and_is_told_once(
    kind: str, make: MakeReplicas, caplog: pytest.LogCaptureFixture
) -> None:
    options = {**KEPT, "state_size": 1000}
    a, b = make(odd_demo, options=options), make(odd_demo, options=options)
    here = a.tab().load()
    there = b.same(here)
    for _ in range(3):
        here.call(kind, "x", None)

    assert (here.call("is_set", None), there.call("is_set", None)) == ("set", "not set")
    (told,) = (r.getMessage() for r in caplog.records if "stays in the memory" in r.getMessage())
    assert "no. 1 (used by 'keep_lock', 'keep_large', 'is_set')" in told


def test_a_value_that_can_no_longer_be_kept_leaves_no_older_one(make: MakeReplicas) -> None:
    options = {**KEPT, "state_size": 5000}
    a, b = make(odd_demo, options=options), make(odd_demo, options=options)
    here = a.tab().load()
    there = b.same(here)
    here.call("keep_large", "x", None)
    assert there.call("is_set", None) == "set"

    here.call("keep_lock", "x", None)

    assert (here.call("is_set", None), there.call("is_set", None)) == ("set", "not set")


# When a value ends


class Ends:
    """A demo whose values are told when they are deleted."""

    def __init__(self) -> None:
        self.deleted: list[str] = []
        self.raises = False
        self._told = threading.Semaphore(0)

    def wait(self, count: int = 1) -> None:
        """Wait until so many were deleted."""
        while len(self.deleted) < count:
            assert self._told.acquire(timeout=PATIENCE)

    def delete(self, value: str) -> None:
        self.deleted.append(value)
        self._told.release()
        if self.raises:
            raise ZeroDivisionError

    def demo(self, **options: Any) -> Callable[[], gr.Blocks]:
        def make() -> gr.Blocks:
            demo: gr.Blocks
            with gr.Blocks() as demo:
                text = gr.Textbox()
                value = gr.State("", delete_callback=self.delete, **options)
                gr.on(fn=lambda said: (said, said), inputs=text, outputs=[text, value],
                      api_name="set")  # fmt: skip
                gr.on(fn=lambda value: value, inputs=value, outputs=text, api_name="get")
            return demo

        return make


def expire(replica: Replica) -> None:
    """What Gradio does each second."""
    holder = replica.attachment._demo().app.state_holder  # type: ignore[union-attr]
    replica.attachment.service.states.expire(holder)
    replica.attachment.service.states.drain()


def memory_of(replica: Replica, tab: Tab) -> Any:
    holder = replica.attachment._demo().app.state_holder  # type: ignore[union-attr]
    return holder.session_data[tab.session_hash]


def age(replica: Replica, tab: Tab, by: timedelta) -> None:
    """Let the values be set longer ago."""
    ttl = memory_of(replica, tab)._state_ttl
    for number, (life, since) in list(ttl.items()):
        ttl[number] = life, since - by


def ended(replica: Replica, tab: Tab) -> None:
    """Close the page, and return when the store knows."""
    replica.rest()
    heard = Heard(replica.store, "ended")
    tab.close()
    heard.next()


def test_the_callback_is_called_once_after_close_and_linger(make: MakeReplicas) -> None:
    ends = Ends()
    a, b = (make(ends.demo(), options=KEPT) for _ in range(2))
    here = a.tab().load()
    here.call("set", "first", None)
    b.same(here).call("set", "last", None)
    b.rest()  # what it does after its answer would keep the session
    ended(a, here)
    a.clock.advance(LINGER - timedelta(seconds=1))
    b.store.sweep()
    early = list(ends.deleted)
    a.clock.advance(timedelta(seconds=1))
    ends.wait()
    for replica in (a, b):
        replica.store.sweep()
        age(replica, here, timedelta(hours=2)) if replica is b else None
        expire(replica)

    assert (early, ends.deleted) == ([], ["last"])


def test_the_callback_is_called_once_when_the_time_to_live_is_over(make: MakeReplicas) -> None:
    """By the process that set the value; the copy of another goes without a word."""
    ends = Ends()
    a, b = (make(ends.demo(time_to_live=60), options=KEPT) for _ in range(2))
    here = a.tab().load()
    there = b.same(here)
    here.call("set", "value", None)
    assert there.call("get", None) == "value"
    for replica in (b, a):
        age(replica, here, timedelta(seconds=30))  # real seconds pass too
        expire(replica)
    early = list(ends.deleted)
    for replica in (b, a, b):
        if memory_of(replica, here)._state_ttl:
            age(replica, here, timedelta(seconds=31))
        expire(replica)
    ends.wait()  # Gradio's own look, each second, may have been first

    assert (early, ends.deleted) == ([], ["value"])
    assert (here.call("get", None), there.call("get", None)) == ("", "")


def test_the_time_to_live_begins_with_the_last_change_wherever_it_was(make: MakeReplicas) -> None:
    ends = Ends()
    a, b = (make(ends.demo(time_to_live=60), options=KEPT) for _ in range(2))
    here = a.tab().load()
    there = b.same(here)
    here.call("set", "value", None)
    a.clock.advance(timedelta(seconds=50))
    there.call("set", "value", None)  # the same value, set again
    age(a, here, timedelta(seconds=61))
    expire(a)
    a.clock.advance(timedelta(seconds=50))

    assert (ends.deleted, here.call("get", None)) == ([], "value")
    a.clock.advance(timedelta(seconds=20))
    assert make(ends.demo(time_to_live=60), options=KEPT).same(here).call("get", None) == ""


@pytest.mark.parametrize("options", [{}, KEPT])
def test_a_reconnect_resets_the_hour_which_begins_at_the_close(
    options: dict[str, Any], make: MakeReplicas
) -> None:
    """With the values in memory alone too, where Gradio counts from the last change."""
    ends = Ends()
    a = make(ends.demo(), options=options, retention={"linger": timedelta(hours=3)})
    here = a.tab().load()
    here.call("set", "value", None)
    age(a, here, timedelta(hours=2))
    memory, states = memory_of(a, here), a.attachment.service.states

    def pass_by(time: timedelta) -> None:
        expire(a)
        for state in list(states._closed):
            states._closed[state] -= time
        expire(a)

    here.close()
    pass_by(timedelta(minutes=59))
    closed = here.session_hash, list(ends.deleted), bool(memory.state_data)
    here.beat()
    pass_by(timedelta(hours=2))
    opened = list(ends.deleted), bool(memory.state_data)
    here.close()
    pass_by(timedelta(minutes=59))
    closed_again = list(ends.deleted), bool(memory.state_data)
    pass_by(timedelta(minutes=2))

    if not options:
        ends.wait()  # Gradio's own look, each second, may have been first
    assert closed_again == ([], True)
    assert closed == (here.session_hash, [], True)
    assert opened == ([], True)
    until(lambda: not memory.state_data)
    assert ends.deleted == ([] if options else ["value"])  # the store still has it


@pytest.mark.parametrize("options", [{}, KEPT])
def test_a_callback_that_raises_stops_nothing(
    options: dict[str, Any], make: MakeReplicas, caplog: pytest.LogCaptureFixture
) -> None:
    ends = Ends()
    ends.raises = True
    a = make(ends.demo(time_to_live=60), options=options)
    tabs = [a.tab().load() for _ in range(3)]
    for tab in tabs:
        tab.call("set", tab.session_hash, None)
        age(a, tab, timedelta(seconds=61))
    expire(a)
    ends.wait(3)

    assert sorted(ends.deleted) == sorted(tab.session_hash for tab in tabs)
    until(lambda: len([r for r in caplog.records if r.levelno == logging.ERROR]) == 3)
    tabs[0].call("set", "again", None)
    if options:
        ended(a, tabs[0])
        a.clock.advance(LINGER)
        ends.wait(4)
        assert ends.deleted[-1] == "again"


def test_what_is_in_memory_alone_is_deleted_with_the_session(make: MakeReplicas) -> None:
    ends = Ends()

    def build_odd() -> gr.Blocks:
        demo: gr.Blocks
        with gr.Blocks() as demo:
            text, odd = gr.Textbox(), gr.State(delete_callback=ends.delete)
            words = gr.State([])
            gr.on(fn=keep_lock, inputs=[text, odd], outputs=[text, odd], api_name="keep_lock")
            gr.on(fn=remember, inputs=[text, words], outputs=[text, words], api_name="remember")
        return demo

    a = make(build_odd, options=KEPT)
    here = a.tab().load()
    here.call("keep_lock", "x", None)
    here.call("remember", "x", None)
    ended(a, here)
    a.clock.advance(LINGER)
    ends.wait()

    assert len(ends.deleted) == 1
