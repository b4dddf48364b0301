"""A generator on a bucket goes on while the files of its values are saved."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from sessionstore import LimitExceeded
from sessionstore.adapters.gradio.frames import MOST
from tests.support.gradio_rig import GRADIO_S_OWN, PATIENCE, MakeReplicas, Replica, Tab, replicas

pytestmark = GRADIO_S_OWN

MANY = 6


class Saves:
    """The saves of a site's values, each of which calls ``wait`` with its number first."""

    def __init__(self, site: Replica, wait: Callable[[int], object]) -> None:
        self._wait = wait
        self._changed = threading.Condition()
        self.begun: set[int] = set()
        self.done: set[int] = set()
        self.most = 0
        backend: Any = site.store.backend
        self._put = backend.put
        backend.put, backend.at_once = self._met, 2 * MOST

    def _met(self, key: Any, name: str, content: Any, **kwargs: Any) -> Any:
        if not name.endswith(".txt"):
            return self._put(key, name, content, **kwargs)
        number = int(Path(name).stem)
        with self._changed:
            self.begun.add(number)
            self.most = max(self.most, len(self.begun - self.done))
            self._changed.notify_all()
        try:
            self._wait(number)
            return self._put(key, name, content, **kwargs)
        finally:
            with self._changed:
                self.done.add(number)
                self._changed.notify_all()

    def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until that is so."""
        with self._changed:
            assert self._changed.wait_for(is_so, PATIENCE)


def values(count: float) -> Iterator[str]:
    """Yield as many files, each with its number as its name."""
    for number in range(int(count)):
        made.append(number)
        path = Path(tempfile.mkdtemp(), f"{number}.txt")
        path.write_text(f"value {number}")
        yield str(path)


made: list[int] = []
"""The values that the generator has yielded."""


def build() -> gr.Blocks:
    demo: gr.Blocks
    with gr.Blocks() as demo:
        count = gr.Number()
        gr.on(fn=values, inputs=count, outputs=gr.File(), api_name="values")
    return demo


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeReplicas]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made.clear()
    with replicas(tmp_path) as make:
        yield make


def shown(tab: Tab, then: Callable[[int], object] = lambda _: None) -> list[int]:
    """The numbers of the values that the page is sent, until an error ends the event, or its end.

    ``then`` is called with each when it arrives.
    """
    numbers: list[int] = []
    with tab.client.stream(
        "GET", tab.api("queue/data"), params={"session_hash": tab.session_hash}
    ) as response:
        for line in response.iter_lines():
            message = json.loads(line.removeprefix("data:")) if line else {}
            if message.get("msg") == "process_completed":
                assert message["success"] or "free space" in message["output"]["error"]
                return numbers
            if message.get("msg") == "process_generating":
                path = next(it for it in _texts(message["output"]["data"]) if it.endswith(".txt"))
                number = int(Path(path).stem)
                then(number)
                numbers.append(number)
    raise AssertionError("The server closed the queue without a result.")


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict | list):
        for each in data.values() if isinstance(data, dict) else data:
            yield from _texts(each)


def test_the_files_of_the_values_are_saved_at_the_same_time(make: MakeReplicas) -> None:
    site = make(build, url="memory://")
    tab = site.tab().load()
    together = threading.Barrier(MANY)
    saves = Saves(site, lambda _: together.wait(PATIENCE))

    tab.join("values", MANY)

    assert shown(tab) == list(range(MANY))
    assert saves.done == set(range(MANY))


def test_each_value_is_shown_when_it_is_saved_and_in_its_turn(make: MakeReplicas) -> None:
    site = make(build, url="memory://")
    tab = site.tab().load()

    def after_the_next(number: int) -> None:
        if number + 1 < MANY:
            saves.until(lambda: number + 1 in saves.done)

    saves = Saves(site, after_the_next)
    early: list[int] = []
    tab.join("values", MANY)

    numbers = shown(tab, lambda number: None if number in saves.done else early.append(number))
    assert (numbers, early) == (list(range(MANY)), [])


def test_the_first_value_is_shown_while_the_second_is_saved(make: MakeReplicas) -> None:
    site = make(build, url="memory://")
    tab = site.tab().load()
    arrived = threading.Event()
    saves = Saves(site, lambda number: number and arrived.wait(PATIENCE))
    tab.join("values", 2)

    assert shown(tab, lambda _: arrived.set()) == [0, 1]
    assert saves.done == {0, 1}


def test_a_refused_value_ends_the_event_and_the_generator(make: MakeReplicas) -> None:
    site = make(build, url="memory://")
    tab = site.tab().load()

    def refuse_the_third(number: int) -> None:
        if number == 2:
            raise LimitExceeded("the store is full", limit="max_store")

    Saves(site, refuse_the_third)
    tab.join("values", 1000)

    assert shown(tab) == [0, 1]
    assert len(made) < 1000


def test_a_refused_last_value_is_not_lost_on_the_page(make: MakeReplicas) -> None:
    site = make(build, url="memory://")
    tab = site.tab().load()

    def refuse_the_last(number: int) -> None:
        if number == MANY - 1:
            saves.until(lambda: len(saves.done) == MANY - 1)
            raise LimitExceeded("the store is full", limit="max_store")

    saves = Saves(site, refuse_the_last)
    tab.join("values", MANY)

    with pytest.raises(RuntimeError, match="free space"):
        tab.result()


def test_few_values_are_saved_at_the_same_time(make: MakeReplicas) -> None:
    site = make(build, url="memory://")
    tab = site.tab().load()
    saves = Saves(site, lambda _: saves.until(lambda: len(saves.begun) > MOST))
    tab.join("values", 3 * MOST)

    assert shown(tab) == list(range(3 * MOST))
    assert saves.most == MOST + 1


def test_no_copy_stays_pinned(make: MakeReplicas) -> None:
    site = make(build, url="memory://")
    tab = site.tab().load()
    Saves(site, lambda _: None)
    tab.join("values", MANY)

    assert shown(tab) == list(range(MANY))
    copies = site.attachment.service.files.local._copies
    assert [name for name, copy in copies.items() if copy.pins] == []
    assert sorted(Path(name).name for name in copies) == [f"{n}.txt" for n in range(MANY)]


def test_another_replica_has_each_value_when_it_is_shown(
    make: MakeReplicas, tmp_path: Path
) -> None:
    site = make(build, url="memory://values-of-a-generator")
    other = make(build, url="memory://values-of-a-generator")
    tab = site.tab().load()
    saves = Saves(site, lambda _: None)
    tab.join("values", MANY)
    there = other.same(tab)
    answers: list[int] = []

    def fetch(number: int) -> None:
        place = next((tmp_path / "cache").glob(f"*/{number}.txt"))
        answers.append(there.fetch({"path": str(place)}).status_code)

    shown(tab, fetch)
    assert (answers, len(saves.done)) == ([200] * MANY, MANY)
