"""Every operation of a store on a local disk that is full: a table of what each answers.

    python -m tests.campaigns.full_disk [--kind tmpfs]

A small file system is mounted (by root), a store made on it, and then the rest of it filled: until
no byte is free, or until no further file can be made. Each operation gets such a disk of its own,
once in a process that had the store open before, once in one that opens it on the full disk; the
commands of the command line do the latter. An operation is "done", or it raises ``LimitExceeded``
and has changed nothing that can be seen: then everything is there as it was. With room again, the
store has no damage and takes files. Exit status 1 says it was not so.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from sessionstore import LimitExceeded, Session, SessionStore
from sessionstore.clock import SystemClock
from tests.campaigns.faults_local import visible
from tests.support import small_disk
from tests.support.cli_rig import run as command
from tests.support.stores import store_of

LACKS: dict[str, Callable[[Path], None]] = {
    "bytes": small_disk.fill_bytes,
    "files": small_disk.fill_files,
}
"""What there is none of, and how that comes to be."""

DONE, REFUSED = "done", "`LimitExceeded`"
SMALL, KNOWN = b"small", b"known"
LARGE = bytes(range(256)) * 8000
"""Two mebibytes: more than is kept in memory on the way in."""


class LaterClock(SystemClock):
    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(days=2)


class Place(NamedTuple):
    """A full disk, a directory of another one, and a session of the store on the former."""

    disk: Path
    other: Path
    session: Session | None = None

    @property
    def root(self) -> Path:
        return self.disk / "store"

    @property
    def ada(self) -> Session:
        """The session that is worked on."""
        assert self.session is not None
        return self.session

    @property
    def store(self) -> SessionStore:
        return store_of(self.ada)


def prepare(place: Place) -> None:
    with SessionStore.open(place.root) as store:
        store.secret()
        store.session("ada").put("known", KNOWN)
        store.session("ada").put("large", LARGE)
        store.session("ada").put("short", b"a time to live", ttl=timedelta(hours=1))
        store.session("bob").put("other", b"other")


Operation = Callable[[Place], object]


def _sweep(place: Place) -> None:
    with SessionStore.open(place.root, clock=LaterClock()) as later:
        later.sweep()
        assert visible(later) == {}


def _copied(place: Place) -> None:
    with SessionStore.open(place.other / "copy") as copy:
        place.store.copy_to(copy)
        assert visible(copy) == visible(place.store)


def _copy_on_the_disk(place: Place) -> object:
    with SessionStore.open(place.root, cache_dir=place.disk / "copies") as store:
        return store.session("ada").get("large").local_path()


def _touched(place: Place) -> None:
    place.ada.touch()
    place.ada.resume()


def _written(place: Place) -> None:
    with place.ada.open("large", "wb") as file:
        file.write(LARGE + b"2")


def _directory(place: Place) -> None:
    with place.ada.directory() as path:
        (path / "new").write_bytes(LARGE + b"3")


LIBRARY: dict[str, Operation] = {
    "open": lambda at: SessionStore.open(at.root).close(),
    "`sessions`": lambda at: list(at.store.sessions()),
    "`files`, `usage`": lambda at: (at.ada.files(), at.store.usage()),
    "`get`": lambda at: at.ada.get("large"),
    "`read`, `open`": lambda at: (at.ada.read("known"), at.ada.open("large").read()),
    "`local_path`": lambda at: at.ada.get("large").local_path(),
    "`delete`": lambda at: at.ada.delete("large", "known"),
    "`drop`": lambda at: at.ada.drop(),
    "`touch`, `resume`": _touched,
    "`plan`": lambda at: at.store.plan(),
    "`sweep`": _sweep,
    "`verify`": lambda at: at.store.verify(),
    "`copy_to` another disk": _copied,
    "the secret": lambda at: at.store.secret(),
}
"""What must be done on a full disk."""
SAVING: dict[str, Operation] = {
    "`put`, small": lambda at: at.ada.put("new", SMALL),
    "`put`, large": lambda at: at.ada.put("new", LARGE + b"1"),
    "`put`, known content": lambda at: at.ada.put("again", b"other"),
    "`put` over another file": lambda at: at.ada.put("large", SMALL),
    "`put`, a new session": lambda at: at.store.session("eve").put("x", SMALL),
    "`put` with a `ttl`": lambda at: at.ada.put("x", SMALL, ttl=timedelta(hours=1)),
    "`add`": lambda at: at.ada.add(SMALL),
    "`open(name, 'wb')`": _written,
    "`directory`": _directory,
    "`end`": lambda at: at.ada.end(),
    "`local_path`, `cache_dir` on this disk": _copy_on_the_disk,
}
"""What may need room, and is refused then."""
COMMANDS: dict[str, tuple[str, ...]] = {
    "`sessionstore ls`": ("ls",),
    "`sessionstore du`": ("du",),
    "`sessionstore sessions`": ("sessions",),
    "`sessionstore cat`": ("cat", "ada", "known"),
    "`sessionstore get`": ("get", "ada", "large", "--to", "{other}/got"),
    "`sessionstore plan`": ("plan",),
    "`sessionstore sweep`": ("sweep", "--yes"),
    "`sessionstore verify`": ("verify",),
    "`sessionstore verify --repair`": ("verify", "--repair"),
    "`sessionstore copy` to another disk": ("copy", "{root}", "{other}/copy"),
    "`sessionstore config`": ("config",),
}
SAVING_COMMANDS: dict[str, tuple[str, ...]] = {
    "`sessionstore put`": ("put", "ada", "{other}/file"),
}


@contextmanager
def small(kind: str, parent: Path) -> Iterator[Place]:
    """A store on a small file system, which the caller fills."""
    with small_disk.mounted(parent / "disk", kind) as disk:
        place = Place(disk, parent)
        (parent / "file").write_bytes(LARGE + b"4")
        prepare(place)
        yield place


def answer(operation: Operation, kind: str, lack: str, parent: Path, *, before: bool) -> str:
    """What an operation answers; ``before``: in a process that has had the store open.

    Raises AssertionError when it has left something although it was refused.
    """
    with small(kind, parent) as place:
        if before:
            with SessionStore.open(place.root) as store:
                store.session("ada").put("known", KNOWN)
                LACKS[lack](place.disk)
                said = _said(operation, store, place)
        else:
            LACKS[lack](place.disk)
            with SessionStore.open(place.root) as store:
                said = _said(operation, store, place)
        _heal(place)
    return said


def _said(operation: Operation, store: SessionStore, place: Place) -> str:
    seen = visible(store)
    try:
        operation(place._replace(session=store.session("ada")))
    except LimitExceeded:
        assert visible(store) == seen, "what was refused can be seen"
        return REFUSED
    return DONE


def answer_of_command(words: tuple[str, ...], kind: str, lack: str, parent: Path) -> str:
    """The same of a command."""
    with small(kind, parent) as place:
        LACKS[lack](place.disk)
        with SessionStore.open(place.root) as there:
            seen = visible(there)
        store = () if "{root}" in words else ("-s", place.root)
        done = command(*(it.format(root=place.root, other=place.other) for it in words), *store)
        said = DONE
        if done.status != 0:
            assert "the disk is full" in done.err, done
            with SessionStore.open(place.root) as there:
                assert visible(there) == seen, "what was refused can be seen"
            said = REFUSED
        _heal(place)
    return said


def _heal(place: Place) -> None:
    """With room again nothing is damaged, files are taken, and nothing is left in the end."""
    small_disk.empty(place.disk)
    with SessionStore.open(place.root) as store:
        assert [it for it in store.verify() if it.kind != "leftover"] == []
        store.session("ada").put("after", SMALL)
        assert store.session("ada").read("after") == SMALL
    with SessionStore.open(place.root, clock=LaterClock()) as store:
        store.sweep()
        assert store.usage() == (0, 0, 0, 0)
        assert store.verify() == []


def table(kind: str) -> tuple[list[str], list[str]]:
    """The lines of the table, and what was wrong."""
    lines = [
        f"| on {kind} | 0 bytes free | the same, just opened | 0 files free | just opened |",
        "|---|---|---|---|---|",
    ]
    wrong: list[str] = []

    def cell(name: str, must: bool, ask: Callable[[Path], str]) -> str:
        try:
            with tempfile.TemporaryDirectory() as parent:
                said = ask(Path(parent))
        except Exception:  # noqa: BLE001 - it is reported
            wrong.append(f"{name}:\n{traceback.format_exc()}")
            return "**wrong**"
        if must and said != DONE:
            wrong.append(f"{name} answers {said}")
        return said

    for name, operation in {**LIBRARY, **SAVING}.items():
        cells = [
            cell(
                f"{name}, no {lack}, {'before' if before else 'then'}",
                name in LIBRARY,
                lambda parent: answer(operation, kind, lack, parent, before=before),  # noqa: B023 - called at once
            )
            for lack in LACKS
            for before in (True, False)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for name, words in {**COMMANDS, **SAVING_COMMANDS}.items():
        cells = [
            cell(
                f"{name}, no {lack}",
                name in COMMANDS,
                lambda parent: answer_of_command(words, kind, lack, parent),  # noqa: B023 - called at once
            )
            for lack in LACKS
        ]
        lines.append(f"| {name} | | {cells[0]} | | {cells[1]} |")
    return lines, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=small_disk.KINDS, default="tmpfs")
    options = parser.parse_args()
    lines, wrong = table(options.kind)
    sys.stdout.write("\n".join(lines) + f"\n\n{len(wrong)} wrong\n")
    for each in wrong:
        sys.stdout.write(f"  {each}\n")
    return 0 if not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
