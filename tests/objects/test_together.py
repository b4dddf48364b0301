"""Requests that have no order between them are sent together, and some are not waited for."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import pytest

from sessionstore import BackendUnavailable, FileNotStored, SessionStore
from sessionstore._threads import PENDING, WAITS, Deferred, run_together
from sessionstore.backends.objects import ObjectBackend
from sessionstore.backends.objects import bucket as bucket_module
from sessionstore.testing import FakeClock, Subject
from sessionstore.testing.subject import ALICE, BOB
from tests.support.object_client import Answer, FakeBucket, FakeObjectClient, Request
from tests.support.stores import PATIENCE

T = TypeVar("T")


class Network(FakeObjectClient):
    """A client whose requests wait for each other where a test says so.

    ``meet`` requests with one of the ``verbs`` are carried out when all of them were sent.
    """

    at_once = 2

    def __init__(self, bucket: FakeBucket) -> None:
        super().__init__(bucket)
        self.verbs: Sequence[str] = ()
        self.meeting = threading.Barrier(1)
        self.hold: Callable[[Request[object]], object] = lambda _: None

    def expect(self, *verbs: str) -> None:
        self.verbs, self.meeting = verbs, threading.Barrier(len(verbs))

    def send(self, request: Request[T]) -> Answer[T]:
        self.hold(request)  # type: ignore[arg-type]  # it only looks
        if request.verb in self.verbs and not self.meeting.broken:
            self.meeting.wait(PATIENCE)  # raises when the others are not sent
            self.verbs = ()
        return super().send(request)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def bucket(clock: FakeClock) -> FakeBucket:
    return FakeBucket(clock.now)


@pytest.fixture
def network(bucket: FakeBucket) -> Network:
    return Network(bucket)


@pytest.fixture
def backend(network: Network, bucket: FakeBucket) -> ObjectBackend:
    return ObjectBackend(network, elapsed=bucket.seconds)


@pytest.fixture
def subject(backend: ObjectBackend, clock: FakeClock) -> Iterator[Subject]:
    subject = Subject(lambda _: backend, clock)
    yield subject
    subject.close()


def held(verb: str) -> tuple[Callable[[Request[object]], object], threading.Event, threading.Event]:
    """Returns a ``hold`` for requests of a verb: one event tells that it came, one lets it go."""
    came, go = threading.Event(), threading.Event()

    def hold(request: Request[object]) -> None:
        if request.verb == verb:
            came.set()
            assert go.wait(PATIENCE)

    return hold, came, go


def test_a_save_sends_both_listings_and_the_content_together(
    subject: Subject, network: Network
) -> None:
    network.expect("LIST", "LIST", "PUT")
    subject.put("a", b"new")
    assert subject.read("a") == b"new"


def test_a_read_of_a_version_seen_before_fetches_while_it_checks(
    subject: Subject, network: Network
) -> None:
    reference = subject.put("a", b"bytes").reference
    subject.advance(2)
    network.expect("LIST", "GET")
    assert subject.read_version(reference) == b"bytes"


def test_bytes_that_were_fetched_are_not_returned_when_the_file_is_gone(
    subject: Subject, bucket: FakeBucket, network: Network
) -> None:
    reference = subject.put("a", b"bytes").reference
    subject.advance(2)
    ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds).delete(ALICE.sid, ["a"])
    network.expect("LIST", "GET")
    with pytest.raises(FileNotStored):
        subject.read_version(reference)


def test_a_delete_writes_its_note_while_it_lists(subject: Subject, network: Network) -> None:
    subject.put("a", b"1")
    network.expect("LIST", "PUT")
    assert subject.backend.delete(ALICE.sid, ["a"])
    assert subject.backend.session(ALICE.sid) is not None


def test_a_delete_of_a_file_that_is_gone_leaves_no_session(
    subject: Subject, bucket: FakeBucket
) -> None:
    subject.put("a", b"1")
    ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds).drop(ALICE.sid)
    assert subject.backend.delete(ALICE.sid, ["a"]) == []
    assert subject.backend.session(ALICE.sid) is None


def test_many_names_are_listed_together(subject: Subject, network: Network) -> None:
    for name in "abc":
        subject.put(name, b"1")
    network.expect("LIST", "LIST", "LIST")
    assert len(subject.backend.delete(ALICE.sid, "abc")) == 3


def test_replaced_versions_are_deleted_without_a_wait(
    subject: Subject, backend: ObjectBackend, bucket: FakeBucket, network: Network
) -> None:
    subject.put("a", b"old")
    network.hold, came, go = held("DELETE")
    subject.put("a", b"new")  # returns, although the delete does not
    assert came.wait(PATIENCE)
    assert len([key for key in bucket.all_keys() if "/f/a/" in key]) == 2
    assert subject.read("a") == b"new"
    go.set()
    backend.drain()
    assert len([key for key in bucket.all_keys() if "/f/a/" in key]) == 1


def test_a_late_delete_takes_nothing_newer(
    subject: Subject, backend: ObjectBackend, network: Network
) -> None:
    subject.put("a", b"1")
    network.hold, came, go = held("DELETE")
    subject.put("a", b"2")
    assert came.wait(PATIENCE)
    network.hold = lambda _: None
    subject.put("a", b"3")
    go.set()
    backend.drain()
    assert subject.another().read("a") == b"3"


def test_close_waits_for_deletes(backend: ObjectBackend, bucket: FakeBucket) -> None:
    store = SessionStore(backend)
    session = store.session("a")
    for number in range(20):
        session.put("a", str(number).encode())
    store.close()
    assert len([key for key in bucket.all_keys() if "/f/a/" in key]) == 1


def test_a_delete_that_fails_later_is_left_to_a_sweep(
    subject: Subject, backend: ObjectBackend, bucket: FakeBucket, network: Network
) -> None:
    def fail(request: Request[object]) -> None:
        if request.verb == "DELETE":
            raise BackendUnavailable("no")

    subject.put("a", b"old")
    network.hold = fail
    subject.put("a", b"new")
    backend.drain()
    network.hold = lambda _: None
    backend.collect()
    assert len([key for key in bucket.all_keys() if "/f/a/" in key]) == 1
    assert subject.read("a") == b"new"


@pytest.mark.parametrize("verb", ["LIST", "PUT"])
def test_a_save_rests_on_the_slowest_of_its_requests(
    subject: Subject, network: Network, verb: str
) -> None:
    """The last of them fails when the others are done."""
    others, lock = threading.Semaphore(0), threading.Lock()
    first: list[str] = []

    def fail(request: Request[object]) -> None:
        with lock:
            is_first = request.verb == verb and not first
            first.extend([verb] if is_first else [])
        if is_first:
            for _ in range(2):
                assert others.acquire(timeout=PATIENCE)
            raise BackendUnavailable("the last one")
        others.release()

    network.hold = fail
    with pytest.raises(BackendUnavailable, match="the last one"):
        subject.put("a", b"new")
    network.hold = lambda _: None
    with pytest.raises(FileNotStored):
        subject.read("a")


def test_the_files_of_a_directory_are_saved_together(
    backend: ObjectBackend, network: Network
) -> None:
    with SessionStore(backend) as store:
        session = store.session("a")
        with session.directory() as path:
            for number in range(3):
                (path / f"{number}").write_bytes(b"%d" % number)
            network.expect(*["LIST"] * 6, *["PUT"] * 3)
        assert [file.read() for file in session.files()] == [b"0", b"1", b"2"]


def test_more_deletes_than_may_wait_are_made_by_their_caller() -> None:
    deferred, go = Deferred(), threading.Event()
    for _ in range(PENDING):
        deferred.call(lambda: go.wait(PATIENCE))
    threads: list[int] = []
    deferred.call(lambda: threads.append(threading.get_ident()))
    assert threads == [threading.get_ident()]
    go.set()
    deferred.drain()


def test_the_deletes_of_a_moment_are_one_request(
    subject: Subject, backend: ObjectBackend, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "SOON", PATIENCE)  # until the drain
    for number in range(5):
        subject.put("a", b"%d" % number)
    backend.drain()
    assert network.requests["DELETE"] == 1
    assert len([key for key in network.bucket.all_keys() if "/f/a/" in key]) == 1


def test_deletes_that_a_child_of_a_fork_inherited_do_not_collect(
    subject: Subject, backend: ObjectBackend, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_module, "BATCH", 3)
    monkeypatch.setattr(backend._bucket, "_doomed", {"b/inherited": None})
    for number in range(3):
        subject.put("a", b"%d" % number)
    backend.drain()
    assert network.requests["DELETE"] == 1


def test_a_call_that_fails_leaves_its_thread_to_others(caplog: pytest.LogCaptureFixture) -> None:
    deferred = Deferred()
    for _ in range(WAITS + 1):
        deferred.call(lambda: 1 / 0)
        deferred.drain()
    assert caplog.messages[:1] == ["A call in the background failed."]
    assert run_together([int, int]) == [0, 0]


def test_an_error_of_a_task_is_raised_when_the_others_have_ended() -> None:
    begun, ended = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        ended.wait(0.1)
        ended.set()

    def fail() -> None:
        assert begun.wait(PATIENCE)
        raise ZeroDivisionError

    for tasks in ([slow, fail], [fail, slow]):
        begun.clear()
        ended.clear()
        with pytest.raises(ZeroDivisionError):
            run_together(tasks)
        assert ended.is_set()


def test_a_program_that_ends_waits_for_its_calls() -> None:
    program = """
import time
from sessionstore._threads import Deferred

def call():
    time.sleep(0.3)  # longer than a program takes to end
    print("made", flush=True)

Deferred().call(call)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=60, check=True
    )
    assert ran.stdout.strip() == b"made"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_waits_for_no_delete_of_its_parent() -> None:
    deferred, go = Deferred(), threading.Event()
    deferred.call(lambda: go.wait(PATIENCE))
    pid = os.fork()
    if pid == 0:
        deferred.drain()
        done: list[int] = []
        deferred.call(lambda: done.append(1))
        deferred.drain()
        os._exit(0 if done else 1)
    go.set()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_an_end_knows_the_session_from_a_save(subject: Subject, network: Network) -> None:
    subject.put("a", b"1")
    network.requests.clear()
    record = subject.backend.end(ALICE.sid)
    assert record is not None
    assert record.ended is not None
    assert network.requests == {"PUT": 1, "LIST": 1}
    assert subject.backend.end(BOB.sid) is None


def test_all_threads_of_the_executor_may_drain() -> None:
    """Deferred calls that no thread has begun are made by those who wait for them."""
    deferred, ready = Deferred(), threading.Barrier(WAITS + 1, timeout=PATIENCE)
    made: list[int] = []

    def work() -> None:
        ready.wait()  # no thread is left for the deferred calls
        for number in range(3):
            deferred.call(partial(made.append, number))
        deferred.drain()

    run_together([work] * (WAITS + 1), WAITS + 1)  # one in the calling thread

    assert sorted(made) == sorted([0, 1, 2] * (WAITS + 1))


def test_replaced_content_is_not_referred_to_before_its_version_is_deleted(
    subject: Subject, network: Network
) -> None:
    late = threading.Event()

    def hold(request: Request[object]) -> None:
        if request.verb == "DELETE":
            late.wait(0.2)  # the answer to ``referred`` comes after it

    subject.put("a", b"replaced")
    network.hold = hold
    subject.put("a", b"kept")
    assert subject.able.referred().bytes == len(b"kept")
