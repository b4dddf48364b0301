"""What happens to the visitors of a site, as outcomes that are counted.

Every scene goes on when something fails, because the app without a store fails often, and that is
what it is compared with. ``Outcome.errors`` has the reasons.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from playwright.sync_api import Browser

from sessionstore.local_copies import RECHECK
from tests.gradio.test_browser import GONE
from tests.replicas import browser as chromium
from tests.replicas import cases, media, visitor
from tests.replicas.app import SWEEP_EVERY
from tests.replicas.browser import Guest
from tests.replicas.site import Replica, Site, eventually
from tests.replicas.visitor import Kept, Visitor


@dataclass
class Outcome:
    """How often something was tried, how often it went as it should, and why not."""

    what: str
    tried: int = 0
    good: int = 0
    errors: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def all_good(self) -> bool:
        return self.tried > 0 and self.good == self.tried

    def attempt(self, act: Callable[..., None], *args: Any) -> None:
        """Do it once; what it raises is a failure."""
        self.tried += 1
        try:
            act(*args)
        except Exception as error:  # noqa: BLE001 - any failure of the app counts, none ends it
            self.errors.append(f"{type(error).__name__}: {error}".splitlines()[0])
        else:
            self.good += 1


def by_http(site: Site, times: int) -> Iterator[Outcome]:
    """Each kind of file, each time by a new visitor."""
    for name, case in cases.CASES.items():
        outcome = Outcome(f"{name} (HTTP)")
        for _ in range(times):
            outcome.attempt(_with_visitor, site, case)
        yield outcome


def _with_visitor(site: Site, case: cases.Case) -> None:
    with arrived(site) as someone:
        case(someone)


@contextmanager
def arrived(site: Site) -> Iterator[Visitor]:
    """A visitor who comes with one request more or less, so that turns do not fall in step."""
    site.shift()
    someone = visitor.visit(site)
    try:
        yield someone
    finally:
        someone.leave()


def in_chromium(site: Site, browser: Browser, times: int) -> Iterator[Outcome]:
    """Each kind of file, each time in a new page."""
    for name, case in chromium.CASES.items():
        outcome = Outcome(f"{name} (Chromium)")
        for _ in range(times):
            outcome.attempt(_with_guest, site, browser, case)
        yield outcome


def _with_guest(site: Site, browser: Browser, case: Callable[[Guest], None]) -> None:
    guest = chromium.visit(site, browser)
    try:
        case(guest)
    finally:
        guest.close()


def round_trips(site: Site, times: int) -> Iterator[Outcome]:
    """Upload, event, both downloads; then who did what, by nginx's log."""
    before = len(site.requests())
    outcome = Outcome("full round trip: upload, event, download of both files")
    for _ in range(times):
        outcome.attempt(_with_visitor, site, _round_trip)
    yield outcome
    yield from took_part(site, before)


def _round_trip(someone: Visitor) -> None:
    content = media.text()
    sent = someone.upload("in.txt", content)
    answer = someone.call("file", sent)
    assert someone.given(answer) == content[::-1]
    assert someone.given(sent) == content


ROLES = {
    "uploads": "/gradio_api/upload",
    "events": "/gradio_api/queue/join",
    "downloads": "/gradio_api/file=",
}


def took_part(site: Site, since: int) -> Iterator[Outcome]:
    """Whether each replica did each kind of work."""
    requests = site.requests(since)
    for role, start in ROLES.items():
        outcome = Outcome(f"each replica took {role}")
        counts = [
            sum(each.uri.startswith(start) and each.replica == address for each in requests)
            for address in (replica.address for replica in site.replicas)
        ]
        outcome.note = " and ".join(map(str, counts))
        for count in counts:
            outcome.attempt(_did_some, count)
        yield outcome


def _did_some(count: int) -> None:
    assert count > 0, "it did none"


def a_crash(site: Site, browser: Browser) -> Iterator[Outcome]:
    """One replica is killed, and comes back on an empty disk, while two visitors are there.

    It is the one that does not have the page's heartbeat: a page that loses it opens no other, so
    its visitor would be here until the session is idle.
    """
    with arrived(site) as someone:
        guest = chromium.visit(site, browser)
        made = Outcome("two visitors with files of every kind")
        for case in cases.CASES.values():
            made.attempt(case, someone)
        for page_case in chromium.CASES.values():
            made.attempt(page_case, guest)
        yield made
        yield from _killed_and_restarted(site, someone, guest)
        after = Outcome("restarted: the same two go on")
        for case in cases.CASES.values():
            after.attempt(case, someone)
        for page_case in chromium.CASES.values():
            if page_case is not chromium.chat_with_files:  # gr.State may have died with the process
                after.attempt(page_case, guest)
        yield after
        guest.close()


def _killed_and_restarted(site: Site, someone: Visitor, guest: Guest) -> Iterator[Outcome]:
    victim = site.other(guest.heartbeat_at)
    survivor = site.other(victim.address)
    theirs: list[tuple[Visitor | Guest, Kept]] = [(someone, kept) for kept in someone.kept]
    theirs += [(guest, kept) for kept in guest.kept(site)]

    victim.kill()
    yield still_there("one replica killed: files from the other", theirs, survivor)
    yield old_inputs("one replica killed", someone)

    victim.start()
    site.begin()
    yield still_there("restarted, empty disk: files from it", theirs, victim)
    yield still_there("restarted: files from the other", theirs, survivor)
    yield old_inputs("restarted", someone)


def still_there(what: str, theirs: Iterable[tuple[Visitor | Guest, Kept]], at: Replica) -> Outcome:
    """Whether the replica serves each of them each file that they have had."""
    outcome = Outcome(what)
    for who, kept in theirs:
        outcome.attempt(who.check, kept, at)
    return outcome


def old_inputs(when: str, someone: Visitor) -> Outcome:
    """Whether each file is read again by an event, on whichever replica it runs."""
    outcome = Outcome(f"{when}: an event reads each file again")
    for kept in someone.kept:
        outcome.attempt(someone.reads_again, kept)
    return outcome


def a_tab_closes(site: Site, browser: Browser) -> Iterator[Outcome]:
    """One of two visitors leaves. Some files are of both: same bytes, same name, same path."""
    common = media.text()
    leaves, stays = (chromium.visit(site, browser) for _ in range(2))
    made = Outcome("two visitors with files of their own, and one of both")
    for guest in (leaves, stays):
        for act in (chromium.preloaded, chromium.image, chromium.gallery, chromium.file):
            made.attempt(act, guest)
        made.attempt(chromium.digest, guest, common)
    yield made
    remain = stays.kept(site)
    shared = {kept.path for kept in remain}
    own = [kept for kept in leaves.kept(site) if kept.path not in shared]
    there = Outcome("before: each file served by each replica")
    for kept, replica in product(own, site.replicas):
        there.attempt(leaves.check, kept, replica)
    there.attempt(_refers_to, site, own)
    yield there

    leaves.page.close()
    gone = Outcome("tab closed: its files served by no replica, in no session")
    gone.attempt(gone_in_the_end, leaves, own, site, gone, remain)
    yield gone
    copies = Outcome("tab closed: no copies of them on any disk after the next sweep")
    copies.attempt(swept, own, site, copies)
    yield copies
    still = Outcome("tab closed: what the other visitor has is served by each")
    for kept, replica in product(remain, site.replicas):
        still.attempt(stays.check, kept, replica)
    still.attempt(_has_content, remain, common)
    still.attempt(chromium.run_digest, stays, common)
    yield still
    for guest in (leaves, stays):
        guest.close()


def everything_deleted(site: Site, browser: Browser) -> Iterator[Outcome]:
    """A visitor with two pages deletes all on "My files". Another has some of the same bytes."""
    common = media.text()
    deletes, stays = (chromium.visit(site, browser) for _ in range(2))
    made = Outcome("two visitors with files, one of them with two pages and an unused upload")
    for guest in (deletes, stays):
        for act in (chromium.preloaded, chromium.image, chromium.file):
            made.attempt(act, guest)
        made.attempt(chromium.digest, guest, common)
    second = chromium.another_page(site, deletes)
    made.attempt(chromium.digest, second, media.text())
    made.attempt(second.send, "file-in", ("unused.txt", "text/plain", media.text()))
    yield made
    remain = stays.kept(site)
    shared = {kept.path for kept in remain}
    kept = [*deletes.kept(site), *second.kept(site)]
    own = [each for each in kept if each.path not in shared]
    there = Outcome("before: each file served by each replica")
    for each, replica in product(own, site.replicas):
        there.attempt(deletes.check, each, replica)
    yield there

    deleted = Outcome("delete all: the page has a receipt, and nothing is listed")
    deleted.attempt(chromium.delete_all, deletes)
    yield deleted
    gone = Outcome(f"delete all: each file refused by each replica, promised in {RECHECK:.0f} s")
    gone.attempt(gone_in_the_end, deletes, own, site, gone, remain)
    yield gone
    still = Outcome("delete all: what the other visitor has is served by each")
    for each, replica in product(remain, site.replicas):
        still.attempt(stays.check, each, replica)
    yield still
    for guest in (deletes, stays):
        guest.close()


def _refers_to(site: Site, own: Iterable[Kept]) -> None:
    assert site.references({cases.sha(kept.content) for kept in own}), "not in the store"


def _has_content(files: Iterable[Kept], content: bytes) -> None:
    assert content in [kept.content for kept in files], "the file of both is nobody's"


def gone_in_the_end(
    guest: Guest, own: list[Kept], site: Site, outcome: Outcome, remain: Iterable[Kept] = ()
) -> None:
    """Wait until no replica serves any of the files, and the store has none in any session.

    The store keeps the contents of the files that ``remain``, perhaps under other paths.
    """
    digests = {cases.sha(kept.content) for kept in own}
    digests -= {cases.sha(kept.content) for kept in remain}
    assert digests
    left: list[str] = []
    begun, last = time.monotonic(), 0.0

    def gone() -> bool:
        nonlocal last
        left.clear()
        for kept, at in product(own, site.replicas):
            asked = time.monotonic() - begun
            if guest.read(kept.path, at) is not None:
                left.append(f"{kept.path} at replica {at.number}")
                last = asked
        left.extend(site.references(digests))
        return not left

    try:
        eventually(GONE, gone)
    except AssertionError as error:
        raise AssertionError(f"{error}: {left}") from error
    outcome.note = f"{len(own)} files, last served after {last:.1f} s"


def swept(own: list[Kept], site: Site, outcome: Outcome) -> None:
    """Wait until no replica has any of the files on its disk."""

    def gone() -> bool:
        return not any(at.holds(kept.path) for kept, at in product(own, site.replicas))

    outcome.note = f"{eventually(SWEEP_EVERY.total_seconds() + GONE, gone):.1f} s"


def all_scenes(site: Site, browser: Browser, times: int, pages: int) -> Iterator[Outcome]:
    """Everything; ``times`` by HTTP and ``pages`` in Chromium for each kind of file."""
    yield from by_http(site, times)
    yield from in_chromium(site, browser, pages)
    yield from round_trips(site, times)
    yield from a_crash(site, browser)
    yield from a_tab_closes(site, browser)
    yield from everything_deleted(site, browser)
