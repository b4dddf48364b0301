"""The demo on a bucket, in a real browser: one line of configuration, and it cleans up as well."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests.gradio.test_browser import FLAGS, GONE, eventually, patient, served, visit
from tests.support import seaweed


def files_of(server: seaweed.Server, prefix: str, sid: str) -> list[str]:
    """The keys of a session's files; its notes (seen, saved, ended) go in a later sweep."""
    found = server.client().list_objects_v2(Bucket=seaweed.BUCKET, Prefix=f"{prefix}/s/{sid}/f/")
    return [each["Key"] for each in found.get("Contents", ())]


def directories(server: seaweed.Server, prefix: str) -> set[str]:
    """The stored names of the visitors' sessions; the adapter's own are called after Gradio."""
    found = server.client().list_objects_v2(Bucket=seaweed.BUCKET, Prefix=f"{prefix}/s/")
    names = {
        each["Key"].removeprefix(f"{prefix}/s/").split("/")[0] for each in found.get("Contents", ())
    }
    return {name for name in names if not name.startswith("gradio-")}


@pytest.mark.browser
@pytest.mark.server
def test_closing_a_tab_removes_the_visitor_s_files_from_the_bucket(
    seaweed_server: seaweed.Server, prefix: str, chromium_path: str, tmp_path: Path
) -> None:
    url = {
        "SESSIONSTORE_URL": seaweed_server.url(prefix),
        "SESSIONSTORE_SECRET": "the same for all replicas",
        **seaweed.ENVIRONMENT,
    }
    with (
        served(tmp_path, **url) as demo,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium_path, args=[*FLAGS]) as browser,
    ):
        listed = partial(directories, seaweed_server, prefix)
        patient(browser)
        leaves, stays = (visit(demo, browser.new_context().new_page(), listed) for _ in range(2))
        for each in (leaves, stays):
            each.generate()
        before = files_of(seaweed_server, prefix, leaves.directory)
        kept = files_of(seaweed_server, prefix, stays.directory)

        leaves.page.close()
        eventually(GONE, lambda: not files_of(seaweed_server, prefix, leaves.directory))

        assert len(before) == len(kept) == 2
        assert files_of(seaweed_server, prefix, stays.directory) == kept
        stays.generate()
