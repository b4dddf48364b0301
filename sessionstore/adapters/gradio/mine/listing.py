"""Everything that a store keeps of one owner, for the owner's own page.

The owner's sessions come from the owner's list (``store.owners``), so no other session is listed:
on a bucket it takes one request for the list and two for each session.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from sessionstore.adapters.gradio.paths import OURS
from sessionstore.adapters.gradio.recent_saves import KeptSession
from sessionstore.adapters.zips import Entry
from sessionstore.audit import acting, receipt
from sessionstore.model import Reference, SessionKey, SessionRecord
from sessionstore.names import HIDDEN, UPLOADS, encode, session_key
from sessionstore.plan import Going, going
from sessionstore.session import ASKED_FOR, Session

if TYPE_CHECKING:
    from sessionstore.adapters.gradio.cache_files import CacheFiles

_TOLD: Final = 1000
"""The most files that a receipt names."""

Place = Literal[
    "this page", "another page", "upload", "run history", "unfinished upload", "page state"
]

PARTS: Final[tuple[Place, ...]] = ("unfinished upload", "page state")
"""What is kept in several files that are none by themselves: they can be deleted only."""


@dataclass(slots=True)
class OwnFile:
    """One file of the owner. Gradio may keep it in several sessions, under one path.

    ``copies`` are its versions, each with the stored name of its session.
    """

    name: str
    copies: list[tuple[str, Reference]] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    goings: list[Going] = field(default_factory=list)

    @property
    def newest(self) -> Reference:
        """The newest version."""
        return max((reference for _, reference in self.copies), key=lambda each: each.created)

    @property
    def size(self) -> int:
        """The bytes of the file, or of all its parts."""
        if self.is_parts:
            return sum(reference.size for _, reference in self.copies)
        return self.newest.size

    @property
    def is_parts(self) -> bool:
        """True for what is no file by itself."""
        return self.places[0] in PARTS

    @property
    def which(self) -> str:
        """The file in a request of the page. It proves nothing: the owner is checked."""
        return json.dumps([self.copies[0][0], self.copies[0][1].name])


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was deleted. ``entries`` are those of the audit log; none if the app keeps none."""

    number: str
    at: datetime
    files: int
    bytes: int
    names: list[str]
    entries: list[dict[str, object]]

    def document(self) -> str:
        """Return the receipt as JSON, without what is no business of a visitor."""
        hidden = {"host", "pid", "session", "owner", "by"}
        entries = [
            {name: value for name, value in entry.items() if name not in hidden}
            for entry in self.entries
        ]
        about = {
            "receipt": self.number, "at": self.at.isoformat(), "files": self.files,
            "bytes": self.bytes, "names": self.names[:_TOLD], "audit_log": entries,
        }  # fmt: skip
        return json.dumps(about, indent=1)


class OwnFiles:
    """The files of one owner in the store of ``files``; ``session_id`` is that of the open page."""

    def __init__(self, files: CacheFiles, owner: str, session_id: str | None = None) -> None:
        self._files = files
        self._store = files.store
        self._owner = owner
        self._places: dict[str, Place] = {
            files.unclaimed(owner).sid: "upload", files.runs(owner).sid: "run history"
        }  # fmt: skip
        if session_id:
            self._places[session_key(session_id, owner).sid] = "this page"

    # Listing

    def listed(self) -> list[OwnFile]:
        """Return all files, the newest first."""
        sids = self._store.owners.sids(self._owner)
        found = self._files.together([partial(self._session, sid) for sid in sids])
        now, policy = self._store.now(), self._store.retention
        files: dict[tuple[str, str], OwnFile] = {}
        for sid, record, references in filter(None, found):
            for reference in references:
                if reference.expires is not None and reference.expires <= now:
                    continue
                same = self._same(sid, reference)
                named = self._part(reference.name) or shown(reference.name)
                file = files.setdefault(same, OwnFile(named))
                file.copies.append((sid, reference))
                if (place := self._place(sid, reference.name)) not in file.places:
                    file.places.append(place)
                goes = going(policy, record, reference, now)
                if place in {"upload", "run history"}:  # they do not end with a page
                    goes = goes._replace(with_page=False)
                file.goings.append(goes)
        return sorted(files.values(), key=lambda file: file.newest.created, reverse=True)

    def _session(self, sid: str) -> tuple[str, SessionRecord, list[Reference]] | None:
        record = self._store.backend.session(sid)
        return None if record is None else (sid, record, list(self._store.backend.files(sid)))

    def _same(self, sid: str, reference: Reference) -> tuple[str, str]:
        """Return what the copies of one file have in common.

        Gradio's paths have a hash in them; the path of a stored file has its session and name.
        """
        if not reference.name.startswith(HIDDEN):
            return sid, encode(reference.name)
        path = reference.name.removeprefix(HIDDEN)
        part = self._part(reference.name)
        if part is not None:
            return sid, part if part == "page state" else path.rpartition("/")[0]
        pointer = self._files.paths.pointer(path)
        return ("", path) if pointer is None else (pointer.sid, pointer.stored)

    def _part(self, name: str) -> Place | None:
        """Return what a file of the library's own belongs to, None for a visitor's file."""
        if name.startswith(UPLOADS):
            return "unfinished upload"
        path = name.removeprefix(HIDDEN)
        is_own = name.startswith(HIDDEN) and path.startswith(f"{OURS}/")
        return "page state" if is_own and self._files.paths.pointer(path) is None else None

    def _place(self, sid: str, name: str) -> Place:
        return self._part(name) or self._places.get(sid, "another page")

    def entries(self) -> Iterator[Entry]:
        """Yield the files for a zip, session by session; equal ones of Gradio's once."""
        seen: set[tuple[str, str]] = set()
        for sid in self._store.owners.sids(self._owner):
            for reference in sorted(self._store.backend.files(sid)):
                same, expires = self._same(sid, reference), reference.expires
                is_over = expires is not None and expires <= self._store.now()
                if same not in seen and not is_over and self._part(reference.name) is None:
                    seen.add(same)
                    opened = partial(self._store.backend.open, sid, reference)
                    yield Entry(shown(reference.name), reference.size, reference.created, opened)

    # Deleting

    def delete(self, which: str) -> Receipt | None:
        """Delete the file that the page named; None if the owner has no such file."""
        for file in self.listed():
            if hmac.compare_digest(file.which.encode(), which.encode(errors="replace")):
                return self._deleted([file], partial(self._delete, file))
        return None

    def _keys(self, sids: Iterable[str]) -> list[SessionKey]:
        """Return the keys of these sessions, for events and the audit log."""
        keys = self._files.together([partial(self._store.backend.identify, sid) for sid in sids])
        return [key for key in keys if key is not None and key.owner == self._owner]

    def _delete(self, file: OwnFile) -> None:
        keys = {key.sid: key for key in self._keys({sid for sid, _ in file.copies})}
        for sid, reference in file.copies:
            key = keys.get(sid)
            if key is None:
                continue
            if reference.name.startswith(HIDDEN):
                KeptSession(self._store, key).delete(reference.name.removeprefix(HIDDEN))
            else:
                Session(self._store, key).delete(reference.name)

    def delete_all(self) -> Receipt | None:
        """Drop all the owner's sessions, with uploads and run history; None if there is none."""
        files, keys = self.listed(), self._keys(self._store.owners.sids(self._owner))
        if not keys:
            return None
        drops = [partial(self._store.drop, key, ASKED_FOR) for key in keys]
        return self._deleted(files, partial(self._files.together, drops))

    def _deleted(self, files: list[OwnFile], delete: Callable[[], object]) -> Receipt:
        number, at = secrets.token_hex(4), self._store.now()
        with acting(f"the visitor, receipt {number}"), receipt() as entries:
            delete()
        size = sum(file.size for file in files)
        names = [file.name for file in files]
        return Receipt(number, at, len(files), size, names, entries)


def shown(name: str) -> str:
    """Return a file's name for its owner: of a path in Gradio's cache the last part."""
    return name.rpartition("/")[2] if name.startswith(HIDDEN) else name
