"""A linger of zero on a server that dates in whole seconds."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from sessionstore import Retention, SessionStore
from tests.support import seaweed

pytestmark = pytest.mark.server


@pytest.mark.parametrize("engine", ["boto3", "obstore"])
def test_the_files_are_gone_when_end_returns(
    seaweed_server: seaweed.Server, prefix: str, engine: str
) -> None:
    retention = Retention(linger=timedelta(0))
    url = f"{seaweed_server.url(prefix)}&engine={engine}"
    left = []
    with SessionStore.open(url, retention=retention) as store:
        for number in range(10):
            threading.Event().wait(0.11)  # so that ends fall on every part of a second
            session = store.session(f"visitor-{number}")
            session.put("cat.png", b"cat")
            session.end()
            left += [file.name for file in session.files()]
    assert left == []
