"""The commands that only read: ls, du, sessions, cat, config."""

from __future__ import annotations

import base64
import codecs
import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from sessionstore.cli import options as opt
from sessionstore.cli import output
from sessionstore.cli.output import count, plain, short
from sessionstore.cli.stores import find, identified, opened, settings_of
from sessionstore.content import CHUNK
from sessionstore.errors import SessionStoreError
from sessionstore.model import SessionRecord
from sessionstore.names import shared_key
from sessionstore.parsers import show_size
from sessionstore.session import Session
from sessionstore.settings.resolver import KEYWORD
from sessionstore.store import SessionStore
from sessionstore.storedfile import StoredFile


class Usage(NamedTuple):
    """A session with the number and the total size of its files."""

    session: Session
    record: SessionRecord
    files: int
    bytes: int


def ls(
    session_ref: opt.OptionalSessionArgument = None,
    *,
    owner: opt.Owner = None,
    store_url: opt.Store = None,
    json: opt.Json = False,
) -> None:
    """List the files of one session, or of all sessions.

    Example: sessionstore ls k3j9x
    """
    with opened(store_url) as store:
        chosen = _all_sessions(store) if session_ref is None else [find(store, session_ref, owner)]
        if json:
            output.as_json_list(
                _described(session, file) for session, file in _listed(chosen, lambda _: None)
            )
            return
        with output.progress("Listing files") as advance:
            rows = [
                (session.sid, show_size(file.size), output.when(file.created),
                 output.when(file.expires), output.name(file.name))
                for session, file in _listed(chosen, advance)
            ]  # fmt: skip
        head = ["SESSION", "SIZE", "SAVED", "EXPIRES", "NAME"]
        skip = 0 if session_ref is None else 1  # one session was named: omit its column
        output.table(head[skip:], [row[skip:] for row in rows], "lrlll"[skip:])


def _all_sessions(store: SessionStore) -> Iterator[Session]:
    """Return every session, also those of adapters; the app's own session comes last."""
    shared = shared_key().sid
    for record in store.backend.sessions():
        if record.sid != shared and (session := identified(store, record.sid)) is not None:
            yield session
    if store.backend.session(shared) is not None:
        yield store.shared


def _listed(
    sessions: Iterable[Session], advance: output.Advance
) -> Iterator[tuple[Session, StoredFile]]:
    for session in sessions:
        files = session.files()
        advance(len(files))
        yield from ((session, file) for file in files)


def _described(session: Session, file: StoredFile) -> dict[str, object]:
    described = output.fields(file, "name", "size", "digest", "media_type", "created", "expires")
    return {**_names(session), **described}


def _names(session: Session) -> dict[str, object]:
    return {"session": _id(session), "owner": session.owner, "stored_name": session.sid}


def du(*, store_url: opt.Store = None, top: opt.Top = None, json: opt.Json = False) -> None:
    """Show the disk usage of each session, the largest first.

    Each file counts with its full size. Identical files are stored once, so the stored total is
    smaller.

    Example: sessionstore du --top 10
    """
    with opened(store_url) as store:
        usages = sorted(_usages(store), key=lambda usage: -usage.bytes)
        stored = store.backend.stored()
    files, size = sum(usage.files for usage in usages), sum(usage.bytes for usage in usages)
    largest = usages if top is None else usages[:top]
    if json:
        output.as_json(
            {
                "sessions": [_as_fields(usage) for usage in largest],
                "total": {
                    "sessions": len(usages), "files": files, "bytes": size,
                    "stored_blobs": stored.blobs, "stored_bytes": stored.bytes,
                },
            }
        )  # fmt: skip
        return
    rows = [
        (show_size(usage.bytes), f"{usage.files:,}", short(_id(usage.session)),
         short(usage.session.owner), usage.session.sid)
        for usage in largest
    ]  # fmt: skip
    output.table(["BYTES", "FILES", "SESSION", "OWNER", "STORED NAME"], rows, "rrlll")
    saved = f" ({(size - stored.bytes) / size:.0%} saved)" if size > stored.bytes else ""
    output.note(
        f"{count(len(usages), 'session')}, {count(files, 'file')}, {show_size(size)}; "
        f"{show_size(stored.bytes)} stored in {count(stored.blobs, 'blob')}{saved}."
    )
    _note_nameless(usage.session for usage in usages)


def _usages(store: SessionStore) -> Iterator[Usage]:
    with output.progress("Reading sessions") as advance:
        for record in store.backend.sessions():
            sizes = [reference.size for reference in store.backend.files(record.sid)]
            advance(1)
            if (session := identified(store, record.sid)) is not None:
                yield Usage(session, record, len(sizes), sum(sizes))


def _note_nameless(sessions: Iterable[Session]) -> None:
    nameless = sum(session.id == session.sid for session in sessions)
    if nameless:
        output.note(
            f"{count(nameless, 'session')} without a readable id and owner, shown by the "
            "stored name: run `sessionstore verify`."
        )


def _id(session: Session) -> str | None:
    return None if session.id == session.sid else session.id


def _as_fields(usage: Usage) -> dict[str, object]:
    return {**_names(usage.session), "files": usage.files, "bytes": usage.bytes}


def sessions(*, store_url: opt.Store = None, json: opt.Json = False) -> None:
    """List the sessions, the most recently active first.

    A session is live while its visitor has the page open (or had it open a moment ago), idle when
    there was no activity for a while, and lingering after the visitor left, until it is dropped.
    The app's own session is shared.

    Example: sessionstore sessions --json
    """
    with opened(store_url) as store:
        usages = sorted(_usages(store), key=lambda usage: usage.record.active, reverse=True)
        if json:
            output.as_json_list(
                {
                    **_as_fields(usage),
                    "active": usage.record.active,
                    "ended": usage.record.ended,
                    "state": _state(store, usage.record)[0],
                }
                for usage in usages
            )
            return
        now = store.now()
        rows = [
            (short(_id(usage.session)), short(usage.session.owner), f"{usage.files:,}",
             show_size(usage.bytes), f"{output.span(now - usage.record.active)} ago",
             "".join(_state(store, usage.record)), usage.session.sid)
            for usage in usages
        ]  # fmt: skip
        head = ["SESSION", "OWNER", "FILES", "BYTES", "ACTIVE", "STATE", "STORED NAME"]
        output.table(head, rows, "llrrrll")
        _note_nameless(usage.session for usage in usages)


def _state(store: SessionStore, record: SessionRecord) -> tuple[str, str]:
    if record.sid == shared_key().sid:
        return "shared", ""
    due = store.retention.due(record)
    if due is not None:
        left = due - store.now()
        when = f", dropped in {output.span(left)}" if left.total_seconds() > 0 else ", due"
        return "lingering", when
    return ("live" if store.retention.is_live(record, store.now()) else "idle"), ""


def cat(
    session_ref: opt.SessionArgument,
    name: opt.Name,
    *,
    owner: opt.Owner = None,
    store_url: opt.Store = None,
    json: opt.Json = False,
) -> None:
    """Write a file's bytes to stdout.

    A terminal gets text only, with control characters escaped.

    Example: sessionstore cat k3j9x report.csv > report.csv
    """
    with opened(store_url) as store:
        session = find(store, session_ref, owner)
        file = session.get(name)
        with contextlib.closing(file.stream(0, None)) as stream:
            if json:
                data = base64.b64encode(stream.read()).decode()
                output.as_json({**_described(session, file), "base64": data})
            elif sys.stdout.isatty():
                _show(stream)
            else:
                sys.stdout.flush()
                while chunk := stream.read(CHUNK):
                    sys.stdout.buffer.write(chunk)


def _show(stream: BinaryIO) -> None:
    """Write text to a terminal, with its line breaks. Raises SessionStoreError for other bytes."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    try:
        while chunk := stream.read(CHUNK):
            _show_text(decode(chunk))
        _show_text(decode(b"", final=True))
    except UnicodeDecodeError as error:
        raise SessionStoreError(
            "The file is not text: redirect the output, as in `sessionstore cat ... > file`, or "
            "use `sessionstore get`."
        ) from error


def _show_text(chunk: str) -> None:
    output.write("\n".join(plain(line.replace("\t", "    ")) for line in chunk.split("\n")))


def config(*, store_url: opt.Store = None, json: opt.Json = False) -> None:
    """Show the effective settings and where each one comes from.

    Secrets are masked.

    Example: sessionstore config --store s3://bucket/files
    """
    effective = [
        # The command line passes --store to open() as an argument: name the option instead.
        setting._replace(source="--store") if setting.source == KEYWORD else setting
        for setting in settings_of(store_url).shown()
    ]
    if json:
        output.as_json_list(setting._asdict() for setting in effective)
        return
    rows = [(setting.name, plain(setting.value), plain(setting.source)) for setting in effective]
    output.wrapped(["SETTING", "VALUE", "FROM"], rows)
