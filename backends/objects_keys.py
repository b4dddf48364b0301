"""Where everything stands in the bucket, and what a key says.

    layout                                              what made this store
    b/<2 hex>/<digest>/<generation>                     content
    s/<sid>/f/<name>/<seq>.<nonce>.<size>.<expires>.<digest>.<generation>
                                                        a reference: one version of one file
    s/<sid>/seen.<period>                               the visitor was there within that period
    s/<sid>/saved.<time>                                a file that is deleted now was saved then
    s/<sid>/ended.<nonce>                               the visitor left
    i/<sid>/<digest>.<generation>                       a multipart upload is on its way
    sweep                                               what the last sweep counted
    probe                                               written to ask for the store's time

A key says all that a listing has to know, so no listing reads an object. References and ``saved``
have a body, for ``identify`` and for names too long for a key: the id and owner of the session and
the file's name, in JSON.

What a delete may name is written once in its life (``seen`` is written again within its period
only). So a delete that comes late, from a process that slept or a request that was on its way,
takes nothing that came after it was decided.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sessionstore.backend import SessionKey
from sessionstore.backends.objects_client import Entry

LAYOUT = "layout"
SWEEP = "sweep"
PROBE = "probe"
BLOBS = "b/"
SESSIONS = "s/"
INTENTS = "i/"

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LAST = f"{(datetime.max.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND:016x}"
"""The last sequence number that is a time; a key beyond it is none of ours."""

_is_blob = re.compile(r"b/([0-9a-f]{2})/(\1[0-9a-f]{62})/([0-9a-f]{32})").fullmatch
_is_version = re.compile(
    r"s/([^/]+)/f/([^/]+)/([0-9a-f]{16})\.([bi][0-9a-f]{15})\.([0-9]{1,18})\.([0-9]{1,18})\."
    r"([0-9a-f]{64})\.([0-9a-f]{32})"
).fullmatch
_is_mark = re.compile(r"s/([^/]+)/(seen|saved|ended)\.([0-9a-f]{16})").fullmatch
_is_intent = re.compile(r"i/[^/]+/([0-9a-f]{64})\.([0-9a-f]{32})").fullmatch


class Mark(NamedTuple):
    """A note about a session: ``kind`` is "seen", "saved" or "ended"; ``said`` is the key's end."""

    kind: str
    said: str
    entry: Entry

    @property
    def time(self) -> datetime:
        """What it is a note of."""
        return created(self.said) if self.kind == "saved" else self.entry.modified


class Version(NamedTuple):
    """A reference as its key and its listing tell it.

    ``token`` is "<seq>.<nonce>.<generation>": of one name, the newer version has the greater token.
    ``expires`` is in microseconds since 1970, 0 for never.
    """

    token: str
    key: str
    sid: str
    file: str
    size: int
    expires: int
    digest: str
    modified: datetime

    @property
    def by_intent(self) -> bool:
        """Whether it was an intent that kept the content until this reference was there."""
        return self.token[17] == "i"

    @property
    def generation(self) -> str:
        """The key segment of its content."""
        return generation(self.token)

    @property
    def blob(self) -> str:
        """The key of its content."""
        return blob(self.digest, self.generation)


def blob(digest: str, generation: str) -> str:
    """The key of one copy of a content."""
    return f"b/{digest[:2]}/{digest}/{generation}"


def generations(digest: str) -> str:
    """What the keys of all copies of a content begin with."""
    return f"b/{digest[:2]}/{digest}/"


def intent(sid: str, digest: str, generation: str) -> str:
    """The key that says that a multipart upload is on its way."""
    return f"i/{sid}/{digest}.{generation}"


def session(sid: str) -> str:
    """What all keys of a session begin with, but its intents."""
    return f"s/{sid}/"


def files(sid: str) -> str:
    """What the keys of all references of a session begin with."""
    return f"s/{sid}/f/"


def versions(sid: str, file: str) -> str:
    """What the keys of all versions of a file begin with; ``file`` is its name as stored."""
    return f"s/{sid}/f/{file}/"


def version(  # noqa: PLR0917 - the parts of a key, in their order
    sid: str, file: str, seq: int, nonce: str, size: int, expires: int, digest: str,
    generation: str, modified: datetime,
) -> Version:  # fmt: skip
    """A new reference; ``seq`` and ``expires`` are in microseconds since 1970.

    The nonce begins with "i" when an intent protected the content until now and with "b" when it is
    its birth that counts. It makes the key one save's own: two saves of equal bytes at one moment
    would write one key otherwise, and the one that takes its reference back the other's.
    """
    key = f"s/{sid}/f/{file}/{seq:016x}.{nonce}.{size}.{expires}.{digest}.{generation}"
    token = f"{seq:016x}.{nonce}.{generation}"
    return Version(token, key, sid, file, size, expires, digest, modified)


def seen(sid: str, period: int | None = None) -> str:
    """The key of one period; without one, what the keys of all begin with."""
    return f"s/{sid}/seen." + ("" if period is None else f"{period:016x}")


def saved(sid: str, micros: int) -> str:
    """The key of the note that a file that is gone was saved then."""
    return f"s/{sid}/saved.{micros:016x}"


def ended(sid: str, nonce: str = "") -> str:
    """The key of one end; without a nonce, what the keys of all ends begin with."""
    return f"s/{sid}/ended.{nonce}"


def after_ends(sid: str) -> str:
    """Where a listing goes on behind the ends: with files, then ``saved``, then ``seen``."""
    return f"s/{sid}/ended.g"


def parse_blob(key: str) -> tuple[str, str] | None:
    """Digest and generation, None when the key is not one of content."""
    match = _is_blob(key)
    return None if match is None else (match[2], match[3])


def parse_version(entry: Entry) -> Version | None:
    """The reference an entry stands for, None when it stands for none."""
    match = _is_version(entry.key)
    if match is None:
        return None
    sid, file, seq, nonce, size, expires, digest, generation = match.groups()
    if seq > _LAST:
        return None
    token = f"{seq}.{nonce}.{generation}"
    return Version(token, entry.key, sid, file, int(size), int(expires), digest, entry.modified)


def parse_mark(entry: Entry) -> Mark | None:
    """The note an entry is, None when it is none."""
    match = _is_mark(entry.key)
    if match is None or (match[2] == "saved" and match[3] > _LAST):
        return None
    return Mark(match[2], match[3], entry)


def parse_intent(key: str) -> tuple[str, str] | None:
    """Digest and generation that an intent protects, None when the key is no intent."""
    match = _is_intent(key)
    return None if match is None else (match[1], match[2])


def sid_of(key: str) -> str:
    """The session a key below ``s/`` belongs to."""
    return key.split("/", 2)[1]


def microseconds(time: datetime) -> int:
    """Since 1970. At least 1, which leaves 0 for "never"."""
    return max((time - EPOCH) // _MICROSECOND, 1)


def time(micros: int) -> datetime | None:
    """The other way; None for 0 and for what no calendar reaches."""
    try:
        return EPOCH + timedelta(microseconds=micros) if micros else None
    except OverflowError:
        return None


def generation(token: str) -> str:
    """The generation of a version's content."""
    return token[-32:]


def seq(token: str) -> int:
    """The sequence number of a version.

    It is the store's time of its save in microseconds, or one more than that of the version before.
    """
    return int(token[:16], 16)


def created(token: str) -> datetime:
    """When a version was saved, as its sequence number has it; also the time a ``saved`` notes."""
    return EPOCH + timedelta(microseconds=seq(token))


def body(key: SessionKey, name: str) -> bytes:
    """What stands in a reference's object."""
    return json.dumps({"id": key.id, "owner": key.owner, "name": name}).encode()


def parse_body(sid: str, data: bytes) -> tuple[SessionKey, str] | None:
    """The session and the file's name, None when the body is not one of ours."""
    try:
        told = json.loads(data)
        return SessionKey.told(sid, told["id"], told["owner"]), str(told["name"])
    except (ValueError, KeyError, TypeError):
        return None
