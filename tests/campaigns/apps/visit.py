"""All that is done with an app that is served: by pages, other clients and a later visitor."""

from __future__ import annotations

import time
from typing import Final

import httpx

from tests.campaigns.apps import others
from tests.campaigns.apps.notes import Notes
from tests.campaigns.apps.page import Files, Page
from tests.campaigns.apps.serve import Served
from tests.campaigns.apps.settings import Settings

GONE_AFTER: Final = 4.0
"""Seconds until the files of a visitor who left are deleted: the linger, and a sweep or two."""

_EVENTS: Final = 24


def visit(app: Served, settings: Settings, *, short: bool) -> Notes:
    """Use the app in every way that this campaign knows, and return the outcomes.

    With ``short`` no visitor comes after the others have left: that takes seconds of waiting.
    """
    notes = Notes(app.url, app.directory)
    files = Files(notes)
    first = Page("first", notes, settings, files)
    second = Page("second", notes, settings, files)
    try:
        if not first.open():
            return notes
        first.look()
        first.events(_EVENTS)
        first.calls()
        if second.open():
            second.events(_EVENTS // 2)
            second.calls()
        with httpx.Client(timeout=30) as reader:
            others.by_http(notes, settings, files, reader)
            if not short:
                others.by_client(notes, settings, files, reader)
            others.by_mcp(notes, files, reader)
        for number, url in enumerate(dict.fromkeys(first.given), 1):
            files.one(first.client, f"first: at the end, file {number}", url)
    finally:
        first.leave()
        second.leave()
    if not short:
        time.sleep(GONE_AFTER)  # for the server's own clock
        third = Page("later", notes, settings, files)
        try:
            if third.open():
                third.look()
                third.events(_EVENTS // 2)
        finally:
            third.leave()
    return notes
