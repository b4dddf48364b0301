"""The records that a store and its backend exchange: sessions, files, and results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple, Self


class SessionKey(NamedTuple):
    """A session as a backend knows it: its stored name, and the id and owner behind the name."""

    sid: str
    id: str
    owner: str | None

    @classmethod
    def told(cls, sid: str, id: object, owner: object) -> Self:  # noqa: A002 - the field's name
        """Return the key of an id and owner read from storage. Raises TypeError for other types."""
        if not isinstance(id, str) or not isinstance(owner, str | None):
            raise TypeError(f"invalid session id {id!r} with owner {owner!r}: both must be str.")
        return cls(sid, id, owner)

    @classmethod
    def nameless(cls, sid: str) -> Self:
        """Return a key for a session without a readable id and owner: its id is the ``sid``."""
        return cls(sid, sid, None)


class Reference(NamedTuple):
    """One version of one file of a session.

    ``token`` identifies this version within the backend. Another save under the same name has
    another token, even a save of equal bytes after a delete, unless the stored file is unchanged.
    """

    name: str
    size: int
    digest: str
    created: datetime
    expires: datetime | None
    token: str


class Saved(NamedTuple):
    """The result of a ``put``: the new and the replaced reference, and whether it deduplicated."""

    reference: Reference
    deduplicated: bool
    replaced: Reference | None


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """The facts about a session that need no listing of its files.

    ``active`` is the time of the newest save, touch, resume or end. ``oldest`` and ``expiring``
    are lower bounds, so that a sweep can skip a session: no file was created before ``oldest``,
    and no file expires before ``expiring`` (None: no file has a time to live). ``empty`` is True
    only if the session is known to have no file.
    """

    sid: str
    active: datetime
    ended: datetime | None
    oldest: datetime
    expiring: datetime | None
    empty: bool = False


@dataclass(frozen=True, slots=True)
class Dropped:
    """The result of a drop: the number of removed files, and the sum of their sizes in bytes."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Stored:
    """The size of the content: the number of blobs and their bytes, each blob counted once."""

    blobs: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Collected:
    """The result of a collection: removed blobs, bytes and leftovers; ``held``: why it stopped.

    ``stored`` is all content that is left and ``referred`` the part that files refer to, if the
    collection listed them. ``requests`` is the number of listings' pages that it took.
    """

    blobs: int
    bytes: int
    leftovers: int
    held: str | None = None
    stored: Stored | None = field(default=None, compare=False)
    referred: Stored | None = field(default=None, compare=False)
    requests: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem in a store.

    ``place`` is its location in the backend's terms, such as a path or key. ``problem`` describes
    the problem and ``remedy`` the action of ``repair``, both for people. ``repair`` acts only if
    the state is still the one that was found, and returns whether it acted. ``sid`` and
    ``reference`` are those of the file concerned, if there is one. ``lost``: the repair deletes
    that file.
    """

    kind: Literal["damaged", "missing", "unknown", "leftover"]
    place: str
    problem: str
    remedy: str
    repair: Callable[[], bool] = field(default=lambda: False, repr=False, compare=False)
    sid: str | None = None
    reference: Reference | None = None
    lost: bool = False


class Location(NamedTuple):
    """The parts of a store's URL: ``scheme://netloc/path`` without the query."""

    url: str
    scheme: str
    netloc: str
    path: str
