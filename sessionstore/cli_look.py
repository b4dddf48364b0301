"""The commands that look: ls, du, sessions, cat, config."""

from __future__ import annotations

import base64
import codecs
import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from sessionstore import cli_output as output
from sessionstore import cli_text as text
from sessionstore.backend import SessionKey, SessionRecord
from sessionstore.cli_options import Json, Name, Owner, Store, Top, Which, WhichOrAll
from sessionstore.cli_store import find, opened, settings_of
from sessionstore.content import CHUNK
from sessionstore.errors import SessionStoreError
from sessionstore.names import shared_key
from sessionstore.session import Session
from sessionstore.settings import KEYWORD
from sessionstore.store import SessionStore
from sessionstore.storedfile import StoredFile
from sessionstore.values import show_size
from sessionstore.verification import is_nameless


class Held(NamedTuple):
    """What a session holds."""

    session: Session
    record: SessionRecord
    files: int
    bytes: int


def ls(
    session: WhichOrAll = None, *, owner: Owner = None, store: Store = None, json: Json = False
) -> None:
    """List the files of a session, or of all."""
    with opened(store) as place:
        found = _everyone(place) if session is None else [find(place, session, owner)]
        if json:
            output.as_json_list(_described(*each) for each in _listed(found, lambda _: None))
            return
        with output.progress("Listing files") as advance:
            rows = [
                (each.sid, show_size(file.size), text.when(file.created),
                 text.when(file.expires), text.name(file.name))
                for each, file in _listed(found, advance)
            ]  # fmt: skip
        head = ["SESSION", "SIZE", "SAVED", "EXPIRES", "NAME"]
        skip = 0 if session is None else 1  # who named the session knows it
        output.table(head[skip:], [row[skip:] for row in rows], "lrlll"[skip:])


def _everyone(place: SessionStore) -> Iterator[Session]:
    """Every session, those of an adapter too, the app's own one last."""
    shared = shared_key().sid
    for record in place.backend.sessions():
        key = place.backend.identify(record.sid)
        if key is None and is_nameless(place.backend, record.sid):
            key = SessionKey.nameless(record.sid)
        if key is not None and record.sid != shared:
            yield Session(place, key)
    if place.backend.session(shared_key().sid) is not None:
        yield place.shared


def _listed(
    sessions: Iterable[Session], advance: output.Advance
) -> Iterator[tuple[Session, StoredFile]]:
    for session in sessions:
        files = session.files()
        advance(len(files))
        yield from ((session, file) for file in files)


def _described(session: Session, file: StoredFile) -> dict[str, object]:
    return {
        "session": _id(session),
        "owner": session.owner,
        "stored_name": session.sid,
        **output.fields(file, "name", "size", "digest", "media_type", "created", "expires"),
    }


def du(*, store: Store = None, top: Top = None, json: Json = False) -> None:
    """Show what each session takes, the largest first.

    Files count with their full size; what is stored is less where they are equal.
    """
    with opened(store) as place:
        held = sorted(_held(place), key=lambda each: -each.bytes)
        stored = place.backend.stored()
    files, size = sum(each.files for each in held), sum(each.bytes for each in held)
    shown = held if top is None else held[:top]
    if json:
        output.as_json(
            {
                "sessions": [_holding(each) for each in shown],
                "total": {
                    "sessions": len(held), "files": files, "bytes": size,
                    "stored_blobs": stored.blobs, "stored_bytes": stored.bytes,
                },
            }
        )  # fmt: skip
        return
    rows = [
        (show_size(each.bytes), f"{each.files:,}", text.short(_id(each.session)),
         text.short(each.session.owner), each.session.sid)
        for each in shown
    ]  # fmt: skip
    output.table(["BYTES", "FILES", "SESSION", "OWNER", "STORED NAME"], rows, "rrlll")
    output.note(
        f"{text.count(len(held), 'session')}, {text.count(files, 'file')}, {show_size(size)}; "
        f"stored are {show_size(stored.bytes)} in {text.count(stored.blobs, 'blob')}."
    )
    _noted(each.session for each in held)


def _held(place: SessionStore) -> Iterator[Held]:
    with output.progress("Looking at sessions") as advance:
        for record in place.backend.sessions():
            sizes = [each.size for each in place.backend.files(record.sid)]
            advance(1)
            key = place.backend.identify(record.sid)
            if key is not None:
                yield Held(Session(place, key), record, len(sizes), sum(sizes))
            elif is_nameless(place.backend, record.sid):
                session = Session(place, SessionKey.nameless(record.sid))
                yield Held(session, record, len(sizes), sum(sizes))


def _noted(sessions: Iterable[Session]) -> None:
    """Say how many of the sessions that are shown do not say whose they are."""
    nameless = sum(each.id == each.sid for each in sessions)
    if nameless:
        output.note(
            f"{text.count(nameless, 'session')} without a readable id and owner, shown by the "
            "stored name; see `sessionstore verify`."
        )


def _id(session: Session) -> str | None:
    """The session's id, None when it does not say whose it is."""
    return None if session.id == session.sid else session.id


def _holding(each: Held) -> dict[str, object]:
    return {
        "session": _id(each.session),
        "owner": each.session.owner,
        "stored_name": each.session.sid,
        "files": each.files,
        "bytes": each.bytes,
    }


def sessions(*, store: Store = None, json: Json = False) -> None:
    """List the sessions, the last active first.

    A session is live while its visitor is there, away when they have not been seen for a while,
    and ended when they left.
    """
    with opened(store) as place:
        held = sorted(_held(place), key=lambda each: each.record.active, reverse=True)
        if json:
            output.as_json_list(
                {
                    **_holding(each),
                    "active": each.record.active,
                    "ended": each.record.ended,
                    "state": _state(place, each.record)[0],
                }
                for each in held
            )
            return
        now = place.now()
        rows = [
            (text.short(_id(each.session)), text.short(each.session.owner), f"{each.files:,}",
             show_size(each.bytes), f"{text.span(now - each.record.active)} ago",
             "".join(_state(place, each.record)), each.session.sid)
            for each in held
        ]  # fmt: skip
        head = ["SESSION", "OWNER", "FILES", "BYTES", "ACTIVE", "STATE", "STORED NAME"]
        output.table(head, rows, "llrrrll")
        _noted(each.session for each in held)


def _state(place: SessionStore, record: SessionRecord) -> tuple[str, str]:
    """A word, and what more there is to say."""
    if record.sid == shared_key().sid:
        return "shared", ""
    due = place.retention.due(record)
    if due is not None:
        left = due - place.now()
        return "ended", f", goes in {text.span(left)}" if left.total_seconds() > 0 else ", is due"
    return ("live" if place.retention.is_live(record, place.now()) else "away"), ""


def cat(
    session: Which, name: Name, *, owner: Owner = None, store: Store = None, json: Json = False
) -> None:
    """Write a file's bytes to stdout.

    On a terminal only text is shown, and control characters in it are escaped.
    """
    with opened(store) as place:
        whose = find(place, session, owner)
        file = whose.get(name)
        with contextlib.closing(file.stream(0, None)) as stream:
            if json:
                data = base64.b64encode(stream.read()).decode()
                output.as_json({**_described(whose, file), "base64": data})
            elif sys.stdout.isatty():
                _show(stream)
            else:
                _pass_on(stream)


def _pass_on(stream: BinaryIO) -> None:
    sys.stdout.flush()
    while chunk := stream.read(CHUNK):
        sys.stdout.buffer.write(chunk)


def _show(stream: BinaryIO) -> None:
    """Text for a terminal, its line breaks kept."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    try:
        while chunk := stream.read(CHUNK):
            _show_text(decode(chunk))
        _show_text(decode(b"", final=True))
    except UnicodeDecodeError as error:
        raise SessionStoreError(
            "The file is not text: send it to a file, as in `sessionstore cat ... > file`, or use "
            "`sessionstore get`."
        ) from error


def _show_text(chunk: str) -> None:
    output.write("\n".join(text.plain(line.replace("\t", "    ")) for line in chunk.split("\n")))


def config(*, store: Store = None, json: Json = False) -> None:
    """Show the settings in force here, and whence each is.

    Secrets are masked.
    """
    # A keyword of open() is what the command line passes on.
    whence = {KEYWORD: "--store"}
    shown = [
        each._replace(source=whence.get(each.source, each.source))
        for each in settings_of(store).shown()
    ]
    if json:
        output.as_json_list(each._asdict() for each in shown)
        return
    rows = [(each.name, text.plain(each.value), text.plain(each.source)) for each in shown]
    output.wrapped(["SETTING", "VALUE", "FROM"], rows)
