"""The local disk with one of its mends against power cuts taken out, for each of them.

``tests.campaigns.power_loss --catch`` has to find every one.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sessionstore import names
from sessionstore._os.workspace import Workspace
from sessionstore.backend import Dropped, Reference, SessionRecord
from sessionstore.backends.local import LocalBackend, journal, layout, session_dir
from sessionstore.backends.local.directory import Blobs, Directory
from sessionstore.backends.local.journal import moment, nanoseconds
from sessionstore.backends.local.session_dir import SessionDir
from sessionstore.content import hasher


@dataclass(frozen=True)
class Variant:
    """``broken()`` takes the mend out for a block; ``cases`` are the writers that show it.

    ``seed`` is one that shows it soon.
    """

    broken: Callable[[], AbstractContextManager[None]]
    cases: tuple[str, ...]
    seed: int


BROKEN: dict[str, Variant] = {}


def variant(
    name: str, *cases: str, seed: int = 1
) -> Callable[[Callable[[], dict[Any, dict[str, Any]]]], None]:
    """Register a function that says what to put in the place of which attributes."""

    def register(function: Callable[[], dict[Any, dict[str, Any]]]) -> None:
        @contextlib.contextmanager
        def broken() -> Iterator[None]:
            with contextlib.ExitStack() as stack:
                for owner, attributes in function().items():
                    for attribute, value in attributes.items():
                        stack.callback(setattr, owner, attribute, owner.__dict__[attribute])
                        setattr(owner, attribute, value)
                yield

        BROKEN[name] = Variant(broken, cases, seed)

    return register


def nothing(*_: object, **__: object) -> None:
    """Do nothing."""


@variant("root unforced", "loose", "durable")
def _root() -> dict[Any, dict[str, Any]]:
    def write(path: Path, data: bytes, workspace: Workspace, place: Callable[..., object]) -> None:
        new = workspace.path / secrets.token_hex(8)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "wb") as file:
            file.write(data)
        place(new, path)
        os.unlink(new)

    return {layout: {"_write": write}}


@variant("names in the root unforced", "durable", "loose")
def _root_names() -> dict[Any, dict[str, Any]]:
    return {layout: {"_force_names": nothing}}


@variant("names above the root unforced", "durable", seed=4)
def _above_root() -> dict[Any, dict[str, Any]]:
    return {layout: {"_force_above": nothing}}


@variant("a torn layout refused", "older", seed=4)
def _torn_layout() -> dict[Any, dict[str, Any]]:
    return {layout: {"_is_torn_layout": lambda _: False}}


@variant("a torn secret used", "older")
def _torn_secret() -> dict[Any, dict[str, Any]]:
    return {layout: {"_is_torn_secret": lambda _: False}}


@variant("what leads to the files unforced", "durable")
def _above() -> dict[Any, dict[str, Any]]:
    return {SessionDir: {"_force_above": nothing}}


@variant("links and removals unforced", "durable")
def _settle() -> dict[Any, dict[str, Any]]:
    return {SessionDir: {"settle": nothing}}


@variant("the time of activity unforced", "durable")
def _activity() -> dict[Any, dict[str, Any]]:
    def settle(self: SessionDir) -> None:
        if self._disk.durable:
            self.files.fsync()

    return {SessionDir: {"settle": settle}}


@variant("marks unforced", "durable", seed=2)
def _marks() -> dict[Any, dict[str, Any]]:
    def mark(self: SessionDir, name: str, time: datetime) -> None:
        os.close(self.dir.open(name, os.O_WRONLY | os.O_CREAT))
        self.dir.utime(name, nanoseconds(time))

    return {SessionDir: {"mark": mark}}


@variant("a resume unforced", "durable", seed=4)
def _unmark() -> dict[Any, dict[str, Any]]:
    return {SessionDir: {"unmark": lambda self, name: self.dir.unlink(name)}}


@variant("a drop unforced", "durable")
def _drop() -> dict[Any, dict[str, Any]]:
    real = LocalBackend.drop

    def drop(self: LocalBackend, *args: Any, **keywords: Any) -> Dropped | None:
        durable, self._disk.durable = self._disk.durable, False
        try:
            return real(self, *args, **keywords)
        finally:
            self._disk.durable = durable

    return {LocalBackend: {"drop": drop}}


@variant("the bound of a session unforced", "durable")
def _bound() -> dict[Any, dict[str, Any]]:
    def has_older(self: SessionDir, created: datetime) -> None:
        if moment(self.dir.stat("id").st_mtime_ns) > created:
            self.dir.utime("id", nanoseconds(created))

    return {SessionDir: {"has_older": has_older}}


@variant("a compacted journal unforced", "durable", "loose", seed=2)
def _compact() -> dict[Any, dict[str, Any]]:
    def compact(folder: Directory, keep: list[journal.Line]) -> None:
        new = journal.NAME + ".new"
        folder.unlink(new)
        fd = folder.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        with open(fd, "wb") as file:
            file.writelines(journal.encode(*line) for line in keep)
        folder.rename(new, folder, journal.NAME)

    return {journal: {"compact": compact}}


@variant("the name of a compacted journal unforced", "durable", seed=4)
def _compacted_name() -> dict[Any, dict[str, Any]]:
    real = SessionDir._compact

    def compact(self: SessionDir, keep: list[journal.Line]) -> None:
        forced = self._forced
        real(self, keep)
        self._forced = forced

    return {SessionDir: {"_compact": compact}}


@variant("known content unforced", "durable", seed=4)
def _known() -> dict[Any, dict[str, Any]]:
    return {Blobs: {"_force_bytes": nothing}}


@variant("the blob's name unforced", "durable")
def _blob_name() -> dict[Any, dict[str, Any]]:
    return {Blobs: {"_force_name": nothing}}


@variant("the name of a blob's directory unforced", "durable")
def _fan() -> dict[Any, dict[str, Any]]:
    def force_name(self: Blobs, digest: str) -> None:
        with self._root.sub(digest[:2]) as folder:
            folder.fsync()

    return {Blobs: {"_force_name": force_name}}


@variant("sizes not compared", "loose", seed=2)
def _sizes() -> dict[Any, dict[str, Any]]:
    def find(self: SessionDir, file: str) -> Reference | None:
        return self.described(file)[1]

    def references(self: SessionDir) -> Iterator[tuple[str, Reference]]:
        for file, _, reference in self.links():
            if reference is not None:
                yield file, reference

    return {SessionDir: {"find": find, "references": references}}


@variant("a link without a line read as it is", "loose")
def _undescribed() -> dict[Any, dict[str, Any]]:
    def undescribed(self: SessionDir, file: str, there: os.stat_result) -> Reference | None:
        name = names.decode(file)
        if name is None:
            return None
        digest = hasher("sha256")
        with self.files.reading(file) as fd:
            digest.update(os.read(fd, 1 << 20))
        created = moment(there.st_ctime_ns)
        token = self.token(there)
        return Reference(name, there.st_size, digest.hexdigest(), created, None, token)

    return {SessionDir: {"_undescribed": undescribed}}


@variant("an inode used again taken for the file that had it", "loose", seed=39)
def _used_again() -> dict[Any, dict[str, Any]]:
    real = SessionDir._undescribed

    def undescribed(self: SessionDir, file: str, there: os.stat_result) -> Reference | None:
        written_to = journal.find_inode(self.dir, file, there.st_ino, self._search)
        if written_to is not None:
            return written_to._replace(token=self.token(there))
        return real(self, file, there)

    return {SessionDir: {"_undescribed": undescribed}}


@variant("a torn id left as it is", "loose", seed=2)
def _id() -> dict[Any, dict[str, Any]]:
    return {SessionDir: {"belongs_to": nothing}}


@variant("a session without marks passed over", "loose", seed=11)
def _no_marks() -> dict[Any, dict[str, Any]]:
    real = session_dir.record

    def record(sessions: Directory, sid: str) -> SessionRecord | None:
        whole = sessions.has(f"{sid}/seen") and sessions.has(f"{sid}/id")
        return real(sessions, sid) if whole else None

    return {session_dir: {"record": record}}


@variant("a session without its directory of files not mended", "loose", seed=11)
def _no_files() -> dict[Any, dict[str, Any]]:
    count = 0

    def open_files(self: SessionDir, *, change: bool) -> Directory:  # noqa: ARG001 - as the real one
        nonlocal count
        try:
            files = self.dir.sub("files")
        except FileNotFoundError:
            count += 1
            if count > 100:  # a save tries to make the session for ever
                raise RuntimeError("the session can be neither opened nor made") from None
            raise
        count = 0
        return files

    return {SessionDir: {"_open_files": open_files}}


@variant("what is torn not swept", "loose")
def _swept() -> dict[Any, dict[str, Any]]:
    return {SessionDir: {"torn": lambda _: iter(())}}
