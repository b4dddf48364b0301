"""The commands that move bytes: get, put, copy."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

import typer

from sessionstore import cli_output as output
from sessionstore import cli_text as text
from sessionstore.cli_options import (
    As,
    Force,
    From,
    Into,
    Json,
    Names,
    Owner,
    Paths,
    Store,
    TimeToLive,
    To,
    Which,
)
from sessionstore.cli_status import FAILED, FOUND
from sessionstore.cli_store import Ambiguous, find, named, opened, target
from sessionstore.content import CHUNK
from sessionstore.errors import SessionStoreError
from sessionstore.store import SessionStore
from sessionstore.storedfile import StoredFile
from sessionstore.transfer import Damaged, Progress
from sessionstore.values import show_size

_STDIN = Path("-")


def get(
    session: Which, names: Names = None, *, owner: Owner = None, to: To = None,
    force: Force = False, store: Store = None, json: Json = False,
) -> None:  # fmt: skip
    """Fetch files of a session into a local folder."""
    with opened(store) as place:
        whose = find(place, session, owner)
        files = [whose.get(each) for each in names] if names else whose.files()
        folder = Path(whose.sid) if to is None else to
        wanted = [(file, target(folder, file.name)) for file in files]
        if not force and (there := [path for _, path in wanted if os.path.lexists(path)]):
            raise SessionStoreError(
                f"{text.plain(str(there[0]))!r} is there already: use --force to overwrite it."
            )
        total = sum(file.size for file in files)
        got, failed = [], []
        with output.progress("Fetching", total, in_bytes=True) as advance:
            for file, path in wanted:
                try:
                    _fetch(file, path, advance)
                    got.append((file, path))
                except SessionStoreError:
                    raise
                except OSError as error:  # it stops no other: perhaps "a" is a folder, of "a/b"
                    failed.append(f"{text.name(file.name)!r} cannot be written: {error.strerror}.")
    if json:
        output.as_json_list({"name": file.name, "path": str(path)} for file, path in got)
    else:
        done = f"{text.count(len(got), 'file')}, {show_size(sum(file.size for file, _ in got))}"
        output.note(f"{done}, are in {folder}.")
    for each in failed:
        output.note(f"sessionstore: {each}")
    if failed:
        raise typer.Exit(FAILED)


def _fetch(file: StoredFile, path: Path, advance: output.Advance) -> None:
    """Write a file beside its place and put it there whole, or nothing. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.parent / f".{os.getpid()}.part"
    try:
        with contextlib.closing(file.stream(0, None)) as stream, unfinished.open("xb") as local:
            while chunk := stream.read(CHUNK):
                local.write(chunk)
                advance(len(chunk))
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def put(
    session: Which, paths: Paths, *, name: As = None, owner: Owner = None,
    ttl: TimeToLive = None, store: Store = None, json: Json = False,
) -> None:  # fmt: skip
    """Save local files into a session.

    They replace those of the same names. Links and special files are passed over, and counted.
    """
    with opened(store, make=True, saves=True) as place:
        whose = named(place, session, owner)
        passed: list[Path] = []
        wanted = list(_found(paths, name, passed))
        total = sum(path.stat().st_size for _, path in wanted if path.is_file())
        saved = []
        # One more for each file: when its bytes are read, the store still has work with it.
        whole = total + len(wanted) if total else None
        with output.progress("Saving", whole, in_bytes=True) as advance:
            for each, path in wanted:
                with _reading(path) as source:
                    saved.append(whose.put(each, _chunks(source, advance), ttl=ttl))
                    advance(1)
    if json:
        output.as_json_list(output.fields(each, "name", "size", "digest") for each in saved)
    else:
        size = show_size(sum(each.size for each in saved))
        output.note(f"{text.count(len(saved), 'file')}, {size}, are in {whose.sid}.")
    if passed:
        output.note(f"{text.count(len(passed), 'link or special file')} passed over.")


def _found(paths: list[Path], name: str | None, passed: list[Path]) -> Iterator[tuple[str, Path]]:
    """The names to save under, and the files.

    Links and special files in folders are ``passed`` over, as in ``directory()``.
    """
    if name is not None:
        if len(paths) != 1 or paths[0].is_dir():
            raise Ambiguous("--name is for one file: name a single PATH that is no folder.")
        yield name, paths[0]
        return
    for path in paths:
        if path == _STDIN:
            raise Ambiguous("What comes from stdin needs a --name.")
        if not path.is_dir():
            yield path.name, path
            continue
        for parent, folders, names in os.walk(path, onerror=_refuse):
            passed += [each for each in map(Path(parent).joinpath, folders) if each.is_symlink()]
            for each in sorted(names):
                file = Path(parent, each)
                if file.is_file() and not file.is_symlink():
                    yield file.relative_to(path).as_posix(), file
                else:
                    passed.append(file)


def _refuse(error: OSError) -> NoReturn:
    """Raise what ``os.walk`` would pass over: the files of a folder that cannot be read."""
    raise SessionStoreError(
        f"{text.plain(str(error.filename))!r} cannot be read: {error.strerror}."
    ) from error


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    if path == _STDIN:
        yield sys.stdin.buffer
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise SessionStoreError(
            f"{text.plain(str(path))!r} cannot be read: {error.strerror}."
        ) from error
    with file:
        yield file


def _chunks(source: BinaryIO, advance: output.Advance) -> Iterator[bytes]:
    while chunk := source.read(CHUNK):
        yield chunk
        advance(len(chunk))


def _sessions(place: SessionStore) -> int:
    return sum(1 for _ in place.backend.sessions())


def copy(source: From, target: Into, *, json: Json = False) -> None:
    """Copy a store to another, of any backend.

    What is there already is passed over, so an interrupted copy goes on where it was. What could
    not be copied, or not as it is, is listed, and the exit status is 4, or 1 for damaged files.
    """
    with (
        opened(source) as here,
        opened(target, make=True) as there,
        output.progress("Copying sessions", _sessions(here)) as advance,
    ):
        seen = 0

        def progressed(progress: Progress) -> None:
            nonlocal seen
            advance(progress.sessions - seen)
            seen = progress.sessions

        damaged: Damaged | None = None
        try:
            copied = here.copy_to(there, progress=progressed)
        except Damaged as error:
            damaged, copied = error, error.copied
    if json:
        found = [output.fields(each) for each in copied.findings]
        output.as_json({**output.fields(copied), "findings": found})
    else:
        output.findings(copied.findings)
        output.note(
            f"{text.count(copied.files, 'file')} copied, {show_size(copied.bytes)}; "
            f"{copied.skipped:,} were there already, {copied.gone:,} are gone meanwhile; "
            f"{text.count(len(copied.findings), 'finding')}."
        )
    if damaged is not None:
        raise damaged
    if copied.findings:
        raise typer.Exit(FOUND)
