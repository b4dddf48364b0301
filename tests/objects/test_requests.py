"""How many requests each operation takes: what it costs on a store that bills by the request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from sessionstore import SessionStore
from sessionstore.backends.objects import ObjectBackend
from sessionstore.backends.objects.client import BATCH
from sessionstore.testing import FakeClock, Subject
from sessionstore.testing.subject import ALICE, BOB, some_bytes
from tests.support.object_client import FakeBucket, FakeObjectClient

GRACE = timedelta(hours=1)

Counted = Callable[[], dict[str, int]]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def bucket(clock: FakeClock) -> FakeBucket:
    return FakeBucket(clock.now)


@pytest.fixture
def subject(bucket: FakeBucket, clock: FakeClock) -> Iterator[Subject]:
    subject = Subject(lambda _: backend_on(bucket), clock)
    yield subject
    subject.close()


def backend_on(bucket: FakeBucket) -> ObjectBackend:
    return ObjectBackend(FakeObjectClient(bucket), elapsed=bucket.seconds)


@contextmanager
def counting(subject: Subject) -> Iterator[Counted]:
    """Gives a function for the requests of the block, by verb."""
    requests = subject.backend.client.requests  # type: ignore[attr-defined]  # a FakeObjectClient
    requests.clear()
    yield lambda: dict(requests)


def test_new_content_under_a_fresh_name_takes_three(subject: Subject) -> None:
    with counting(subject) as requests:
        subject.put("a", b"new", fresh=True)
    assert requests() == {"LIST": 1, "PUT": 2}


def test_a_name_that_may_be_taken_costs_a_look(subject: Subject) -> None:
    with counting(subject) as requests:
        subject.put("a", b"new")
    assert requests() == {"LIST": 2, "PUT": 2}


def test_a_session_s_first_save_takes_no_more_than_others(subject: Subject) -> None:
    subject.put("a", b"new", ALICE)
    with counting(subject) as requests:
        subject.put("a", b"other", BOB, fresh=True)
    assert requests() == {"LIST": 1, "PUT": 2}


def test_content_that_the_store_knows_takes_two(subject: Subject) -> None:
    subject.another().put("a", b"known", BOB)
    with counting(subject) as requests:
        subject.put("a", b"known", fresh=True)
    assert requests() == {"LIST": 1, "PUT": 1}


def test_content_that_this_process_knows_takes_one(subject: Subject) -> None:
    subject.put("a", b"known")
    with counting(subject) as requests:
        subject.put("b", b"known", fresh=True)
    assert requests() == {"PUT": 1}


def test_content_is_known_for_half_of_the_grace(subject: Subject) -> None:
    subject.put("a", b"known")
    subject.advance(GRACE.total_seconds() / 2 + 2)
    with counting(subject) as requests:
        subject.put("b", b"known", fresh=True)
    assert requests() == {"LIST": 1, "PUT": 2}


def test_the_same_save_again_is_a_save_of_known_content(subject: Subject) -> None:
    first = subject.put("a", b"same").reference
    with counting(subject) as requests:
        again = subject.put("a", b"same")
    assert requests() == {"LIST": 1, "PUT": 1, "DELETE": 1}
    assert again.reference.token != first.token
    assert again.replaced is not None
    assert again.replaced.token == first.token
    assert again.deduplicated


@pytest.mark.parametrize("between", ["delete", "discard", "drop"])
def test_what_this_process_deleted_is_saved_anew(subject: Subject, between: str) -> None:
    reference = subject.put("a", b"same").reference
    if between == "delete":
        subject.backend.delete(ALICE.sid, ["a"])
    elif between == "discard":
        subject.backend.discard(ALICE.sid, [reference])
    else:
        subject.backend.drop(ALICE.sid)
    subject.put("a", b"same")
    assert subject.another().contents() == {"a": b"same"}


def test_another_time_to_live_is_another_save(subject: Subject) -> None:
    subject.put("a", b"same")
    assert subject.put("a", b"same", ttl=60).reference.expires is not None
    assert subject.another().backend.get(ALICE.sid, "a").expires is not None


def test_replacing_costs_a_look_and_a_delete(subject: Subject) -> None:
    subject.put("a", b"old")
    with counting(subject) as requests:
        subject.put("a", b"new")
    assert requests() == {"LIST": 2, "PUT": 2, "DELETE": 1}


def test_reading_by_name_takes_two(subject: Subject) -> None:
    subject.another().put("a", b"read")
    with counting(subject) as requests:
        subject.read("a")
    assert requests() == {"LIST": 1, "GET": 1}


def test_reading_a_version_takes_one_within_two_seconds_of_a_look(subject: Subject) -> None:
    reference = subject.put("a", b"read").reference
    for wait, expected in ((0, {"GET": 1}), (1.9, {"GET": 1}), (2, {"LIST": 1, "GET": 1})):
        subject.advance(wait)
        with counting(subject) as requests:
            subject.read_version(reference)
        assert requests() == expected


def test_an_empty_file_is_read_without_asking_for_its_bytes(subject: Subject) -> None:
    reference = subject.put("a", b"").reference
    with counting(subject) as requests:
        assert subject.read_version(reference) == b""
    assert requests() == {}


def test_listing_files_takes_one_request_a_page(subject: Subject) -> None:
    for number in range(BATCH + 1):
        subject.put(f"{number}", b"", fresh=True)
    with counting(subject) as requests:
        subject.names()
    assert requests() == {"LIST": 2}


def test_a_drop_takes_one_look_and_one_delete_a_thousand(subject: Subject) -> None:
    for number in range(2 * BATCH + 1):
        subject.put(f"{number}", b"", fresh=True)
    with counting(subject) as requests:
        subject.backend.drop(ALICE.sid)
    assert requests() == {"LIST": 3, "DELETE": 3}


def test_a_delete_notes_when_the_file_was_saved(subject: Subject) -> None:
    subject.put("a", b"1")
    with counting(subject) as requests:
        subject.backend.delete(ALICE.sid, ["a"])
    assert requests() == {"LIST": 1, "PUT": 1, "DELETE": 1}


def test_marks_take_few_requests(subject: Subject) -> None:
    subject.put("a", b"1")
    wanted = {
        "touch": {"PUT": 1},
        "end": {"PUT": 1, "LIST": 1},
        "resume": {"PUT": 1, "LIST": 1, "DELETE": 1},
    }
    for mark, expected in wanted.items():
        with counting(subject) as requests:
            getattr(subject.backend, mark)(ALICE.sid)
        assert requests() == expected


def test_a_visitor_without_files_leaves_with_one_look(subject: Subject) -> None:
    with counting(subject) as requests:
        subject.backend.end(ALICE.sid)
    assert requests() == {"LIST": 1}


def test_a_sweep_lists_everything_once_and_takes_three_more(subject: Subject) -> None:
    for number in range(5):
        subject.put(f"{number}", some_bytes(number, 10))
    with counting(subject) as requests:
        subject.backend.collect()
    listings = 3  # content, intents, references
    assert requests() == {"LIST": listings + 1, "GET": 1, "PUT": 1}  # uploads, the last count, this


@pytest.mark.parametrize(("sessions", "pages"), [(50, 1), (10_000, 20)])
def test_a_sweep_asks_for_nothing_about_sessions_that_linger(
    bucket: FakeBucket, clock: FakeClock, sessions: int, pages: int
) -> None:
    backend = backend_on(bucket)
    with SessionStore(backend, clock=clock) as store:
        for number in range(sessions):
            store.session(f"{number}").add(b"cat")
            backend.end(store.session(f"{number}").sid)  # no timer
        requests = backend.client.requests  # type: ignore[attr-defined]  # a FakeObjectClient
        requests.clear()
        assert store.sweep() == []
        # The pages of the sessions; content, intents, uploads.
        assert requests == {"LIST": pages + 3, "GET": 1, "PUT": 1}


def test_a_sweep_asks_for_nothing_about_sessions_with_local_copies(
    bucket: FakeBucket, clock: FakeClock, tmp_path: Path
) -> None:
    with (
        SessionStore(backend_on(bucket), clock=clock, cache_dir=tmp_path) as store,
        SessionStore(backend_on(bucket), clock=clock, cache_dir=tmp_path) as other,
    ):
        files = [store.session("1").put(name, name.encode()) for name in ("kept", "gone", "new")]
        paths = [file.local_path() for file in files]
        store.session("2").add(b"a").local_path()
        other.session("1").delete("gone")
        replaced = other.session("1").put("new", b"newer")
        requests = store.backend.client.requests  # type: ignore[attr-defined]  # a FakeObjectClient
        requests.clear()
        store.sweep()
        assert requests == {"LIST": 4, "GET": 1, "PUT": 1}
        assert [path.exists() for path in paths] == [True, False, False]
        assert replaced.read() == b"newer"


def test_a_copy_made_during_a_sweep_stays(
    bucket: FakeBucket, clock: FakeClock, tmp_path: Path
) -> None:
    with SessionStore(backend_on(bucket), clock=clock, cache_dir=tmp_path) as store:
        store.session("1").put("first", b"first").local_path()
        made: list[Path] = []
        store.on(
            "sweep_started",
            lambda _: made.append(store.session("1").put("second", b"second").local_path()),
        )
        store.sweep()
        assert made[0].exists()


def test_a_plan_for_people_tells_of_sessions_that_linger(
    bucket: FakeBucket, clock: FakeClock
) -> None:
    with SessionStore(backend_on(bucket), clock=clock) as store:
        store.session("1").put("a", b"cat")
        store.session("1").end()
        planned = store.plan()
    assert [(row.action, row.size, row.session_id) for row in planned] == [("hold", 3, "1")]


def test_a_sweep_that_counts_what_the_last_one_did_notes_nothing(subject: Subject) -> None:
    subject.put("a", b"1")
    subject.backend.collect()
    with counting(subject) as requests:
        subject.backend.collect()
    assert "PUT" not in requests()


def test_all_sessions_take_one_listing(subject: Subject) -> None:
    subject.put("a", b"1", ALICE)
    subject.put("b", b"2", BOB)
    with counting(subject) as requests:
        subject.sids()
    assert requests() == {"LIST": 1}


def test_opening_a_store_takes_one(bucket: FakeBucket) -> None:
    backend_on(bucket)
    client = FakeObjectClient(bucket)
    ObjectBackend(client, elapsed=bucket.seconds)
    assert client.requests == {"GET": 1}
