"""The outcome of each step of a visit, in words that are equal for equal results."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

_RANDOM: Final = (
    (re.compile(r"tmp[a-z0-9_]{8}"), "tmp*"),
    (re.compile(r"[0-9a-f]{64}"), "<hash>"),
    (re.compile(r"\b[0-9a-f]{32}\b|\b[0-9a-f-]{36}\b"), "<id>"),
    (re.compile(r"workflow_[0-9a-f]{16}"), "workflow_<id>"),
)
_link: Final = re.compile(r"(?:/gradio_api)?/file=([^\s\"'<>()\\]+)")
_LONGEST: Final = 600


@dataclass(frozen=True)
class Outcome:
    """The result of one step: whether it worked, and its output."""

    ok: bool
    detail: str


@dataclass
class Notes:
    """The outcomes of a visit by step, in order; ``url`` and ``directory`` are the app's."""

    url: str
    directory: Path
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def add(self, step: str, ok: bool, detail: Any = "") -> bool:
        """Note the outcome of ``step``, under another name when there is one of that name."""
        name, again = step, 1
        while name in self.outcomes:
            again += 1
            name = f"{step} ({again})"
        text = detail if isinstance(detail, str) else json.dumps(self.plain(detail), sort_keys=True)
        self.outcomes[name] = Outcome(ok, self.words(text)[:_LONGEST])
        return ok

    def words(self, text: str) -> str:
        """Return ``text`` without the ports, folders and hashes of this server."""
        for url in {self.url, self.url.replace("127.0.0.1", "localhost")}:
            text = text.replace(url, "")
        below = re.escape(str(self.directory / "tmp/gradio")) + r"/[^\s\"'<>()\\?#]*"
        text = re.sub(below, lambda found: "CACHE/" + Path(unquote(found[0])).name, text)
        text = text.replace(quote(str(self.directory)), "DIR").replace(str(self.directory), "DIR")
        for pattern, word in _RANDOM:
            text = pattern.sub(word, text)
        return text

    def plain(self, value: Any) -> Any:
        """Return ``value`` with only the names and types of its files."""
        if is_file(value):
            name = Path(unquote(value.get("path") or value.get("url") or "")).name
            return {"file": name, "orig_name": value.get("orig_name"), "size": value.get("size")}
        if isinstance(value, dict):
            return {key: self.plain(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.plain(each) for each in value]
        return self.words(value) if isinstance(value, str) else value


def is_file(value: Any) -> bool:
    """Return whether a value of Gradio's protocol is a file."""
    if not isinstance(value, dict) or not (value.get("path") or value.get("url")):
        return False
    meta = value.get("meta")
    return isinstance(meta, dict) and meta.get("_type") == "gradio.FileData"


def urls_in(value: Any) -> Iterator[str]:
    """Yield the URL of each file in ``value``, and each path that a text links to."""
    if is_file(value):
        url = value.get("url") or f"/gradio_api/file={value['path']}"
        if not url.startswith("data:"):  # its content is in the URL
            yield url
    elif isinstance(value, dict):
        for each in value.values():
            yield from urls_in(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from urls_in(each)
    elif isinstance(value, str):
        for found in _link.finditer(value):
            yield f"/gradio_api/file={found[1]}"


def digest(content: bytes) -> str:
    """Return a short digest of a file's bytes."""
    return hashlib.sha256(content).hexdigest()[:12]
