"""The keys of a store in its bucket: their layout, how to build them and how to parse them.

    layout                                              the store's parameters
    b/<2 hex>/<digest>/<generation>                     content
    b/0/<sid>/<expires>.<id>                            parts of a signed upload, joined
    s/<sid>/f/<name>/<seq>.<nonce>.<size>.<expires>.<digest>.<generation>
                                                        a reference: one version of one file
    s/<sid>/seen.<period>                               the visitor was active in that period
    s/<sid>/saved.<time>                                the save time of a file deleted since
    s/<sid>/ended.<nonce>                               the visitor left
    i/<sid>/<digest>.<generation>                       intent: a multipart upload is in progress
    sweep                                               the counts of the last sweep
    sweeper                                             the lease of the process that sweeps
    probe                                               written to learn the store's time

A key holds everything that a listing needs, so no listing reads an object. References and ``saved``
notes have a JSON body with the session's id, its owner and the file's name: ``identify`` reads it,
and some names are too long for a key.

A key that may be deleted is written only once (``seen`` is written again, but only within its
period). So a delete that arrives late, from a process that was suspended or a request that was
delayed, removes nothing that was written after the decision.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sessionstore.model import Reference, SessionKey

from .client import Entry

LAYOUT = "layout"
SWEEP = "sweep"
SWEEPER = "sweeper"
PROBE = "probe"
BLOBS = "b/"
SESSIONS = "s/"
INTENTS = "i/"

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LAST = f"{(datetime.max.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND:016x}"
"""The last sequence number that is a valid time; no key of a store has a greater one."""

_is_blob = re.compile(r"b/([0-9a-f]{2})/(\1[0-9a-f]{62})/([0-9a-f]{32})").fullmatch
_is_staged = re.compile(r"b/0/[^/]+/([0-9a-f]{16})\.[0-9a-f]{32}").fullmatch
_is_version = re.compile(
    r"s/([^/]+)/f/([^/]+)/([0-9a-f]{16})\.([bi][0-9a-f]{15})\.([0-9]{1,18})\.([0-9]{1,18})\."
    r"([0-9a-f]{64})\.([0-9a-f]{32})"
).fullmatch
_is_mark = re.compile(r"s/([^/]+)/(seen|saved|ended)\.([0-9a-f]{16})").fullmatch
_is_intent = re.compile(r"i/[^/]+/([0-9a-f]{64})\.([0-9a-f]{32})").fullmatch


class Mark(NamedTuple):
    """A note about a session: ``kind`` is "seen", "saved" or "ended"; ``suffix`` ends the key."""

    kind: str
    suffix: str
    entry: Entry

    @property
    def time(self) -> datetime:
        return created(self.suffix) if self.kind == "saved" else self.entry.modified


class Version(NamedTuple):
    """A reference, parsed from its key and its entry in a listing.

    ``token`` is "<seq>.<nonce>.<generation>"; of two versions of a file the newer has the greater
    token. ``file`` is the stored (encoded) name. ``expires`` is in microseconds since 1970, 0 for
    never.
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
        """Return whether an intent protected the content until this reference was written."""
        return self.token[17] == "i"  # the first character of the nonce, after 16 of seq and a dot

    @property
    def generation(self) -> str:
        return generation(self.token)

    @property
    def blob(self) -> str:
        return blob(self.digest, self.generation)


def blob(digest: str, generation: str = "") -> str:
    """Return the key of one generation of a content; without it, the prefix of all its copies."""
    return f"b/{digest[:2]}/{digest}/{generation}"


def staged(sid: str, expires: datetime, id: str) -> str:  # noqa: A002 - the field's name
    """Return the key of a signed upload, until whose end ``expires`` it may be saved as a file.

    The listings of content and of its unfinished uploads show it, and the slice of the digests that
    begin with 0. It is no content: nothing refers to it.
    """
    return f"b/0/{sid}/{microseconds(expires):016x}.{id}"


def staged_until(key: str) -> datetime | None:
    """Return the end of a signed upload; None for another key."""
    match = _is_staged(key)
    return match and (time(int(match[1], 16)) or EPOCH)


def intent(sid: str, digest: str, generation: str) -> str:
    """Return the key of the intent of a multipart upload."""
    return f"i/{sid}/{digest}.{generation}"


def session(sid: str) -> str:
    """Return the prefix of all keys of a session except its intents."""
    return f"s/{sid}/"


def sid(entry: Entry) -> str:
    """Return the session of an entry below ``SESSIONS``."""
    return entry.key.split("/", 2)[1]


def files(sid: str, file: str | None = None) -> str:
    """Return the key prefix of all references of a session, or of the versions of a stored name."""
    return f"s/{sid}/f/" if file is None else f"s/{sid}/f/{file}/"


def version(  # noqa: PLR0917 - the parts of a key, in their order
    sid: str, file: str, seq: int, nonce: str, size: int, expires: int, digest: str,
    generation: str, modified: datetime,
) -> Version:  # fmt: skip
    """Return a new reference; ``seq`` and ``expires`` are in microseconds since 1970.

    ``nonce`` begins with "i" if an intent protected the content until now, and with "b" if the
    birth rule applies. It makes the key unique to one save. Without it, two saves of identical
    content at the same moment would write the same key, and one that takes its reference back
    would delete the reference of the other.
    """
    key = f"s/{sid}/f/{file}/{seq:016x}.{nonce}.{size}.{expires}.{digest}.{generation}"
    token = f"{seq:016x}.{nonce}.{generation}"
    return Version(token, key, sid, file, size, expires, digest, modified)


def of(sid: str, file: str, reference: Reference) -> str:
    """Return the key of a public reference to the stored name ``file``."""
    seq, nonce, generation_ = reference.token.split(".")
    expires = 0 if reference.expires is None else microseconds(reference.expires)
    rest = f"{nonce}.{reference.size}.{expires}.{reference.digest}.{generation_}"
    return f"{files(sid, file)}{seq}.{rest}"


def seen(sid: str, period: int | None = None) -> str:
    """Return the key of the ``seen`` note of a period; None: the prefix of all of them."""
    return f"s/{sid}/seen." + ("" if period is None else f"{period:016x}")


def saved(sid: str, micros: int) -> str:
    """Return the key of the note that a file, deleted since, was saved at ``micros``."""
    return f"s/{sid}/saved.{micros:016x}"


def ended(sid: str, nonce: str = "") -> str:
    """Return the key of one ``ended`` note; without a nonce (hex), the prefix of all of them."""
    return f"s/{sid}/ended.{nonce}"


def parse_blob(key: str) -> tuple[str, str] | None:
    """Return the digest and generation of a blob's key; None for another key."""
    match = _is_blob(key)
    return match and (match[2], match[3])


def parse_version(entry: Entry) -> Version | None:
    """Return the reference that an entry represents, if it is one."""
    match = _is_version(entry.key)
    if match is None:
        return None
    sid, file, seq, nonce, size, expires, digest, generation = match.groups()
    if seq > _LAST:
        return None
    token = f"{seq}.{nonce}.{generation}"
    return Version(token, entry.key, sid, file, int(size), int(expires), digest, entry.modified)


def parse_mark(entry: Entry) -> Mark | None:
    """Return the session note that an entry represents, if it is one."""
    match = _is_mark(entry.key)
    if match is None or (match[2] == "saved" and match[3] > _LAST):
        return None
    return Mark(match[2], match[3], entry)


def parse_intent(key: str) -> tuple[str, str] | None:
    """Return the digest and generation that an intent protects; None for another key."""
    match = _is_intent(key)
    return match and (match[1], match[2])


def microseconds(time: datetime) -> int:
    """Return the microseconds from 1970 to ``time``; at least 1, because 0 means "never"."""
    return max((time - EPOCH) // _MICROSECOND, 1)


def time(micros: int) -> datetime | None:
    """Return the time at ``micros``; None for 0 and for a number beyond the year 9999."""
    try:
        return EPOCH + timedelta(microseconds=micros) if micros else None
    except OverflowError:
        return None


def generation(token: str) -> str:
    """Return the generation of a version's content."""
    return token[-32:]


def seq(token: str) -> int:
    """Return the sequence number of a version.

    It is the store's time of the save in microseconds, or the previous version's number plus 1.
    """
    return int(token[:16], 16)


def created(token: str) -> datetime:
    """Return the save time in a version's sequence number, or in the suffix of a ``saved`` note."""
    return EPOCH + timedelta(microseconds=seq(token))


def body(key: SessionKey, name: str) -> bytes:
    """Return the body of a reference."""
    return json.dumps({"id": key.id, "owner": key.owner, "name": name}).encode()


def parse_body(sid: str, data: bytes) -> tuple[SessionKey, str]:
    """Return the session and the file's name. Raises ValueError, KeyError or TypeError."""
    fields = json.loads(data)
    return SessionKey.told(sid, fields["id"], fields["owner"]), str(fields["name"])
