"""What an adapter keeps in a store beside the app's own: apart from it, hidden, and swept alike."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sessionstore import InvalidName, Retention, Session
from sessionstore.adapters.gradio.recent_saves import KeptSession
from sessionstore.names import HIDDEN, is_private, own_name, private_key, session_key, shared_key
from sessionstore.testing import FakeClock
from tests.support.stores import DAY, Heard, memory_store

NAMES = [f"{HIDDEN}a", f"{HIDDEN}a/b.txt", HIDDEN + "x" * 200]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.mark.parametrize("name", NAMES)
def test_an_app_can_neither_make_nor_reach_an_adapter_s_name(clock: FakeClock, name: str) -> None:
    store = memory_store(clock)
    session = store.session("anna")
    KeptSession(store, session.key).put(name.removeprefix(HIDDEN), b"kept")

    for verb in (session.get, session.read, session.delete, own_name):
        with pytest.raises(InvalidName, match="adapter"):
            verb(name)
    with pytest.raises(InvalidName, match="adapter"):
        session.put(name, b"forged")
    with pytest.raises(InvalidName, match="adapter"):
        session.open(name, "wb")
    assert name not in session


def test_an_adapter_s_files_are_not_listed_and_do_count(clock: FakeClock) -> None:
    store = memory_store(clock)
    session = store.session("anna")
    kept = KeptSession(store, session.key)

    session.put("mine", b"12")
    kept.put("theirs", b"345")

    assert [file.name for file in session.files()] == ["mine"]
    assert (session.usage().files, session.usage().bytes) == (2, 5)
    assert kept.read("theirs") == b"345"


def test_they_go_with_the_session(clock: FakeClock) -> None:
    store = memory_store(clock)
    kept = KeptSession(store, session_key("anna"))
    kept.put("theirs", b"345")

    store.session("anna").drop()

    assert "theirs" not in kept


def test_no_id_and_owner_name_a_private_session() -> None:
    private = private_key("gradio unclaimed", "anna")
    texts = ["gradio unclaimed", "private", "anna"]

    others = [session_key(id_, owner) for id_ in texts for owner in (*texts, None)]

    assert private.sid not in {each.sid for each in others}
    assert private.sid != private_key("gradio unclaimed").sid != shared_key().sid
    assert is_private(private)
    assert not any(is_private(each) for each in (*others, shared_key()))


def test_a_private_session_is_not_spoken_of(clock: FakeClock) -> None:
    store = memory_store(clock)
    heard = Heard(store)
    private = Session(store, private_key("gradio pinned"))

    private.put("file", b"pinned")
    private.delete("file")
    private.drop()
    store.session("anna").put("file", b"")

    assert heard.kinds() == ["saved"]
    assert [each.id for each in store.sessions()] == ["anna"]


def test_a_private_session_is_swept_like_others(clock: FakeClock) -> None:
    store = memory_store(clock, retention=Retention(idle=DAY))
    private = Session(store, private_key("gradio tabs", "anna"))
    private.put("tab", b"")

    clock.advance(DAY + timedelta(seconds=1))
    store.sweep()

    assert store.usage().sessions == 0
