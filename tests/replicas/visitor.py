"""A visitor without a browser: what Gradio's page does, but for showing it."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.replicas.site import SERVED_BY, Replica, Site
from tests.support.gradio_rig import Tab

ENOUGH = 1000
"""More heartbeats than a visitor closes; that servers see them end is not waited for."""


@dataclass(frozen=True)
class Kept:
    """A file that the app has handed out, and what must be in it."""

    path: str
    content: bytes


@dataclass
class Visitor(Tab):
    """A tab. It remembers each file that it was given."""

    over: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(ENOUGH))
    kept: list[Kept] = field(default_factory=list)
    heartbeat_at: str = ""
    """The address of the replica that has the page's heartbeat."""

    def beat(self) -> Visitor:
        super().beat()
        self.heartbeat_at = self._heartbeats[-1][0].headers[SERVED_BY]
        return self

    def upload(self, name: str, content: bytes) -> dict[str, Any]:
        """Send a file; gives what a function takes for it."""
        answer = self.client.post(self.api("upload"), files={"files": (name, content)})
        (path,) = answer.raise_for_status().json()
        self.kept.append(Kept(path, content))
        return as_input(path, name, len(content))

    def given(self, output: Any) -> bytes:
        """The content of a file that a function returned."""
        answer = self.fetch(output).raise_for_status()
        self.kept.append(Kept(output["path"], answer.content))
        return answer.content

    def check(self, kept: Kept, at: Replica) -> None:
        """Raise unless the replica serves the file, whole."""
        answer = self.client.get(f"{at.url}/gradio_api/file={kept.path}").raise_for_status()
        assert answer.content == kept.content, "other bytes"

    def reads_again(self, kept: Kept) -> None:
        """Raise unless an event gets the file, on whichever replica it runs."""
        digest = self.call("digest", as_input(kept.path, Path(kept.path).name))
        assert digest == hashlib.sha256(kept.content).hexdigest(), "other bytes"


def visit(site: Site) -> Visitor:
    """A new visitor with the page open."""
    visitor = Visitor(site.url)
    visitor.load()
    return visitor


def as_input(path: str, name: str, size: int | None = None) -> dict[str, Any]:
    meta = {"_type": "gradio.FileData"}
    return {"path": path, "orig_name": name, "size": size, "meta": meta}
