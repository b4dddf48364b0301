"""The commands that copy bytes: get, put, copy."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import typer

from sessionstore.cli import options as opt
from sessionstore.cli import output
from sessionstore.cli.output import count, plain
from sessionstore.cli.stores import Ambiguous, find, named, opened, target
from sessionstore.content import CHUNK
from sessionstore.errors import SessionStoreError
from sessionstore.parsers import show_size
from sessionstore.session import regular_files
from sessionstore.storedfile import StoredFile
from sessionstore.transfer import Damaged, Progress

_STDIN = Path("-")


def get(
    session_ref: opt.SessionArgument, names: opt.Names = None, *, owner: opt.Owner = None,
    to: opt.To = None, force: opt.Force = False, store_url: opt.Store = None,
    json: opt.Json = False,
) -> None:  # fmt: skip
    """Download files of a session into a local directory.

    Example: sessionstore get k3j9x report.csv --to ./fetched
    """
    with opened(store_url) as store:
        session = find(store, session_ref, owner)
        files = [session.get(name) for name in names] if names else session.files()
        folder = Path(session.sid) if to is None else to
        wanted = [(file, target(folder, file.name)) for file in files]
        if not force and (existing := [path for _, path in wanted if os.path.lexists(path)]):
            raise SessionStoreError(
                f"{plain(str(existing[0]))!r} exists already: use --force to overwrite it."
            )
        total = sum(file.size for file in files)
        fetched, failed = [], []
        with output.progress("Fetching", total, in_bytes=True) as advance:
            for file, path in wanted:
                try:
                    _fetch(file, path, advance)
                    fetched.append((file, path))
                except SessionStoreError:
                    raise
                except OSError as error:  # "a" may be a folder, because of "a/b": do the others
                    failed.append(
                        f"{output.name(file.name)!r} cannot be written: {error.strerror}."
                    )
    if json:
        output.as_json_list({"name": file.name, "path": str(path)} for file, path in fetched)
    else:
        size = show_size(sum(file.size for file, _ in fetched))
        output.note(f"{count(len(fetched), 'file')}, {size}, saved in {folder}.")
    for failure in failed:
        output.note(f"sessionstore: {failure}")
    if failed:
        raise typer.Exit(output.Status.FAILED)


def _fetch(file: StoredFile, path: Path, advance: output.Advance) -> None:
    """Write a file under a temporary name and rename it to ``path``. Raises OSError."""
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
    session_ref: opt.SessionArgument, paths: opt.Paths, *, name: opt.As = None,
    owner: opt.Owner = None, ttl: opt.TimeToLive = None, store_url: opt.Store = None,
    json: opt.Json = False,
) -> None:  # fmt: skip
    """Save local files into a session.

    A file of the same name is replaced. Symbolic links and special files are skipped and counted.

    Example: sessionstore put k3j9x ./reports --ttl 12h
    """
    with opened(store_url, make=True, saves=True) as store:
        session = named(store, session_ref, owner)
        skipped: list[Path] = []
        wanted = list(_sources(paths, name, skipped))
        total = sum(path.stat().st_size for _, path in wanted if path.is_file())
        saved = []
        # One more step for each file: the store still works on it after its bytes are read.
        whole = total + len(wanted) if total else None
        with output.progress("Saving", whole, in_bytes=True) as advance:
            for saved_name, path in wanted:
                with _reading(path) as source:
                    saved.append(session.put(saved_name, _chunks(source, advance), ttl=ttl))
                    advance(1)
    if json:
        output.as_json_list(output.fields(file, "name", "size", "digest") for file in saved)
    else:
        size = show_size(sum(file.size for file in saved))
        output.note(f"{count(len(saved), 'file')}, {size}, saved in session {session.sid}.")
    if skipped:
        output.note(f"{count(len(skipped), 'link or special file')} skipped.")


def _sources(
    paths: list[Path], name: str | None, skipped: list[Path]
) -> Iterator[tuple[str, Path]]:
    """Return each name to save under with its local file.

    Links and special files in folders are added to ``skipped``, as in ``directory()``.
    """
    if name is not None:
        if len(paths) != 1 or paths[0].is_dir():
            raise Ambiguous("--name is for one file: give a single PATH that is not a folder.")
        yield name, paths[0]
        return
    for path in paths:
        if path == _STDIN:
            raise Ambiguous("A file from stdin needs a --name.")
        if not path.is_dir():
            yield path.name, path
            continue
        try:
            for file in regular_files(path, skipped):
                yield file.relative_to(path).as_posix(), file
        except OSError as error:
            raise _unreadable(error.filename, error) from error


def _unreadable(path: object, error: OSError) -> SessionStoreError:
    return SessionStoreError(f"{plain(str(path))!r} cannot be read: {error.strerror}.")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    if path == _STDIN:
        yield sys.stdin.buffer
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise _unreadable(path, error) from error
    with file:
        yield file


def _chunks(source: BinaryIO, advance: output.Advance) -> Iterator[bytes]:
    while chunk := source.read(CHUNK):
        yield chunk
        advance(len(chunk))


def copy(source: opt.From, target: opt.Into, *, json: opt.Json = False) -> None:
    """Copy a store to another one, of any backend.

    Files that are in the target already are skipped, so an interrupted copy can be repeated.
    Files that could not be copied, or only with a change, are listed; the exit status is then 4,
    or 1 for damaged files.

    Example: sessionstore copy file:///srv/files s3://bucket/files
    """
    with (
        opened(source) as origin,
        opened(target, make=True) as destination,
        output.progress("Copying sessions", sum(1 for _ in origin.backend.sessions())) as advance,
    ):
        reported = 0

        def progressed(progress: Progress) -> None:
            nonlocal reported
            advance(progress.sessions - reported)
            reported = progress.sessions

        damaged: Damaged | None = None
        try:
            copied = origin.copy_to(destination, progress=progressed)
        except Damaged as error:
            damaged, copied = error, error.copied
    if json:
        findings = [output.fields(finding) for finding in copied.findings]
        output.as_json({**output.fields(copied), "findings": findings})
    else:
        output.findings(copied.findings)
        output.note(
            f"{count(copied.files, 'file')} copied, {show_size(copied.bytes)}; "
            f"{copied.skipped:,} already there, {copied.gone:,} deleted during the copy; "
            f"{count(len(copied.findings), 'finding')}."
        )
    if damaged is not None:
        raise damaged
    if copied.findings:
        raise typer.Exit(output.Status.FOUND)
