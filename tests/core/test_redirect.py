"""URLs that the backend signs itself, for stores that are told to hand them out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from sessionstore import SessionStore, SettingsError
from sessionstore.backend import Location
from sessionstore.backends.memory import MemoryBackend
from sessionstore.clock import SystemClock


class Signing(MemoryBackend):
    """A backend that hands out files by itself."""

    asked: dict[str, Any]

    def url(self, sid: str, _: object, **asked: object) -> str:
        self.asked = asked
        return f"https://bucket.example.org/{sid}"


def signing() -> Signing:
    return Signing.connect(Location("memory://", "memory", "", ""), {}, SystemClock())


def test_the_url_is_the_backends_own() -> None:
    backend = signing()
    with SessionStore(backend, redirect=True) as store:
        file = store.session("a").put("cat é.png", b"meow")
        assert file.url(timedelta(minutes=1)) == f"https://bucket.example.org/{file._session.sid}"
        assert backend.asked == {
            "media_type": "image/png",
            "disposition": "inline; filename=\"cat _.png\"; filename*=UTF-8''cat%20%C3%A9.png",
            "expires": timedelta(minutes=1),
        }


def test_what_could_run_in_a_page_is_an_attachment_without_a_type() -> None:
    backend = signing()
    with SessionStore(backend, redirect=True) as store:
        store.session("a").put("page.html", b"<script>").url()
        assert backend.asked["disposition"].startswith("attachment;")
        assert backend.asked["media_type"] == "application/octet-stream"


def test_without_the_setting_the_app_serves() -> None:
    with SessionStore(signing(), base_url="/files", secret="x" * 16) as store:
        assert store.session("a").put("a.png", b"").url().startswith("/files/")


def test_without_the_setting_nothing_is_presigned() -> None:
    with SessionStore(signing()) as store:
        file = store.session("a").put("a.png", b"")
        with pytest.raises(SettingsError, match="redirect is not set"):
            store.presigned(file.session.sid, file.reference, timedelta(minutes=1))


def test_a_backend_that_signs_nothing_is_refused() -> None:
    with pytest.raises(SettingsError, match="invalid redirect=true: this backend signs no"):
        SessionStore.open("memory://", redirect=True)
