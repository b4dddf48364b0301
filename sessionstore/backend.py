"""What a backend is: the whole interface on one screen.

A backend is mechanism. It keeps *content* (immutable bytes known by their digest, kept once) and
*references* ("this session has a file of this name, which is that content"), hands bytes back and
reclaims. It knows no ages, quotas, owners or HTTP: all policy lives in ``SessionStore``.

What a backend guarantees, whatever processes write, delete, sweep or die beside it:

* **Kept** (I1): when ``put`` has returned, the file reads back byte for byte until it is deleted,
  discarded or replaced, or its session is dropped.
* **Atomic** (I2): a reader gets the old bytes, the new bytes or ``FileNotStored``; an interrupted
  ``put`` leaves the old file.
* **Once** (I3): equal bytes are kept once, except for copies that a race leaves, which are few and
  are collected.
* **Apart** (I4): a call reaches only the session it names.
* **Gone** (I5): after ``delete``, ``discard`` or ``drop`` the file is not served; content that
  nothing refers to is reclaimed, at once or by ``collect``.
* **No leaks** (I6): ``collect`` finds what a crash left from the store itself, not from memory.
* **Clean failure** (I7): a failure is one error of ``sessionstore.errors`` with its cause chained,
  and nothing partial is visible. A listing that fails or ends early deletes nothing.
* **Bounded** (I8): memory grows neither with a file's size nor with the number of files seen.

What the caller guarantees: a ``sid`` and a ``name`` have passed ``sessionstore.names``; an id and
owner always come with the same ``sid``; all calls may come from any thread.

``sessionstore.testing.BackendContract`` is this text as tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import (
    TYPE_CHECKING,
    BinaryIO,
    ClassVar,
    Literal,
    NamedTuple,
    Protocol,
    Self,
    runtime_checkable,
)

if TYPE_CHECKING:
    from sessionstore.clock import Clock
    from sessionstore.content import Content, Spool
    from sessionstore.values import Parser


class SessionKey(NamedTuple):
    """A session as a backend knows it: its stored name, and what the name stands for."""

    sid: str
    id: str
    owner: str | None

    @classmethod
    def told(cls, sid: str, id: object, owner: object) -> Self:  # noqa: A002 - the field's name
        """The key with an id and owner that were read. Raises TypeError when they are none."""
        if not isinstance(id, str) or not isinstance(owner, str | None):
            raise TypeError(f"{id!r} of {owner!r} is no session.")
        return cls(sid, id, owner)

    @classmethod
    def nameless(cls, sid: str) -> Self:
        """A key for a session that does not say whose it is: the id is the ``sid``."""
        return cls(sid, sid, None)


class Reference(NamedTuple):
    """One version of one file of a session.

    ``token`` is the backend's own mark of this version: a save under the same name, even of equal
    bytes after a delete, has another one unless the stored file is the very same.
    """

    name: str
    size: int
    digest: str
    created: datetime
    expires: datetime | None
    token: str


class Saved(NamedTuple):
    """The answer to a ``put``: what is there now, what it displaced, whether bytes were kept."""

    reference: Reference
    deduplicated: bool
    replaced: Reference | None


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """What is known of a session without looking at its files.

    ``active`` is the time of the newest save, touch, resume or end. ``oldest`` and ``expiring``
    are lower bounds, so that a sweep can pass a session by: no file was created before ``oldest``,
    none expires before ``expiring`` (None: none has a time to live).
    """

    sid: str
    active: datetime
    ended: datetime | None
    oldest: datetime
    expiring: datetime | None


@dataclass(frozen=True, slots=True)
class Dropped:
    """What a drop removed: files, and the sum of their sizes in bytes."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection removed, and why it held back if it did."""

    blobs: int
    bytes: int
    leftovers: int
    held: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """What the content takes: number of blobs and their bytes, each counted once."""

    blobs: int
    bytes: int


def left_alone() -> bool:
    """The ``mend`` of a flaw that nothing is done about."""
    return False


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something in a store that is not as it should be.

    ``place`` is where it is, in the backend's own terms: a path, a key. ``problem`` says what is
    wrong and ``remedy`` what ``mend`` does about it, both for people. ``mend`` does it if all still
    is as it was found, and returns whether it did. ``sid`` and ``reference`` are of the file
    concerned, if one is; ``lost``: mending deletes that file.
    """

    kind: Literal["damaged", "missing", "unknown", "leftover"]
    place: str
    problem: str
    remedy: str
    mend: Callable[[], bool] = field(default=left_alone, repr=False, compare=False)
    sid: str | None = None
    reference: Reference | None = None
    lost: bool = False


class Location(NamedTuple):
    """A store's URL, taken apart: ``scheme://netloc/path`` without the query."""

    url: str
    scheme: str
    netloc: str
    path: str


class Backend(Protocol):
    """Keeps content once and references to it. See the module's text for the guarantees."""

    options: ClassVar[Mapping[str, Parser]]
    """The settings it takes besides its URL: name -> parser of ``sessionstore.values``."""

    digest: str
    """The name of the store's digest algorithm, ``sha256`` or ``blake3``, fixed for its life."""

    @classmethod
    def connect(cls, location: Location, options: Mapping[str, object], clock: Clock) -> Self:
        """Open the store at ``location``, making it when there is none.

        Raises SettingsError when the place cannot be used, BackendUnavailable when it cannot be
        reached.
        """
        ...

    def now(self) -> datetime:
        """The time that this backend's ``created`` and ``active`` are measured by."""
        ...

    def spool(self) -> Spool:
        """A place for bytes that are on their way in. ``content.TempSpool`` serves any backend."""
        ...

    def put(
        self,
        key: SessionKey,
        name: str,
        content: Content,
        *,
        expires: datetime | None = None,
        fresh: bool = False,
    ) -> Saved:
        """Save ``content`` as the session's file ``name``, making the session when it is new.

        Replaces what has that name, atomically. ``fresh`` is the caller's word that no file has
        this name. The caller closes the content. Counts as activity of the session.
        """
        ...

    def get(self, sid: str, name: str) -> Reference:
        """The file of that name. Raises FileNotStored."""
        ...

    def open(
        self, sid: str, reference: Reference, start: int = 0, length: int | None = None
    ) -> BinaryIO:
        """A stream of the version's bytes from ``start``, ``length`` of them or all the rest.

        Bounds past the end give what there is. Raises FileNotStored when that version is no
        longer the file. A stream of the whole content raises Corrupted rather than end with
        other bytes than were saved (``content.verified`` does that for any stream).
        """
        ...

    def files(self, sid: str) -> Iterator[Reference]:
        """The session's files, in no order. Empty when there is no such session."""
        ...

    def delete(self, sid: str, names: Iterable[str]) -> list[Reference]:
        """Remove the files of these names, whatever they are now; returns those that were there.

        A name that is not there is no error.
        """
        ...

    def discard(self, sid: str, references: Iterable[Reference]) -> list[Reference]:
        """Remove exactly these versions, never one that replaced them; returns those removed."""
        ...

    def sessions(self) -> Iterator[SessionRecord]:
        """Every session there is, in no order."""
        ...

    def session(self, sid: str) -> SessionRecord | None:
        """One session, None when there is none of that name."""
        ...

    def identify(self, sid: str) -> SessionKey | None:
        """The id and owner behind a stored name, None when there is no such session."""
        ...

    def touch(self, sid: str) -> None:
        """Note that the session is active now. Nothing happens when there is no such session."""
        ...

    def end(self, sid: str) -> None:
        """Note that the visitor left now. Nothing happens when there is no such session."""
        ...

    def resume(self, sid: str) -> None:
        """Take an end back; counts as activity. Nothing happens when there is no such session."""
        ...

    def drop(
        self, sid: str, *, unless_active_after: datetime | None = None, only_ended: bool = False
    ) -> Dropped | None:
        """Remove a session with all its files; None when there is none or it was spared.

        With ``unless_active_after`` the session is spared when its ``active`` is later than that,
        or when something is being done in it at this moment. With ``only_ended`` it is also spared
        when it has not ended: where times are whole seconds, ``active`` does not show a resume
        within the second of the end.
        """
        ...

    def collect(self, *, force: bool = False) -> Collected:
        """Remove content that nothing refers to, and what crashes left. Bounded work each time.

        ``held`` says why nothing was removed when the state of the store looks wrong; ``force``
        goes ahead all the same.
        """
        ...

    def stored(self) -> Stored:
        """What the content takes. Looks at all of it."""
        ...

    def close(self) -> None:
        """Give back what is held. Files stay. Closing twice is no error."""
        ...


@runtime_checkable
class HasFreeSpace(Protocol):
    """A backend that can fill up."""

    def free(self) -> int:
        """Bytes that can still be written."""
        ...


@runtime_checkable
class ReclaimsLate(Protocol):
    """A backend in which content takes its room for a while after its last file went.

    ``max_store`` then limits what files refer to: what is deleted for it is no room yet, and will
    be.
    """

    def referred(self) -> Stored:
        """The content that files refer to. Looks at all of them."""
        ...


@runtime_checkable
class KnowsIfAlone(Protocol):
    """A backend that can tell whether another live process has the store open."""

    def alone(self) -> bool:
        """Whether this is the only one."""
        ...


@runtime_checkable
class KeepsSecret(Protocol):
    """A backend that can make a secret for the store and keep it where only its users read it."""

    def secret(self) -> bytes:
        """32 random bytes, the same at every call and in every process on this store."""
        ...


@runtime_checkable
class SignsUrls(Protocol):
    """A backend that hands a file out by itself, to whoever has a URL it signed."""

    def url(
        self,
        sid: str,
        reference: Reference,
        *,
        media_type: str,
        disposition: str,
        expires: timedelta,
    ) -> str:
        """A URL that answers GET with this version's bytes for that long, in those headers.

        The caller has looked whether the version still is the file; that it is deleted later does
        not end the URL. Raises ValueError for longer than the backend signs for.
        """
        ...


@runtime_checkable
class Inspects(Protocol):
    """A backend that can look at what is below its files."""

    def inspect(self) -> Iterator[Flaw]:
        """Every flaw there is, found by reading all content once. Changes nothing by itself.

        What other processes do meanwhile is no flaw. Memory grows with what is wrong, not with
        what there is. A flaw's ``mend`` may be called as soon as it is there.
        """
        ...


@runtime_checkable
class Omits(Protocol):
    """A backend whose place can hold things that no listing of sessions and files shows."""

    def omitted(self, *, files: bool = True) -> Iterator[Flaw]:
        """List everything that ``sessions`` leaves out, and with ``files`` all other things too.

        For example a session without its marks, a file whose name is lost, a file without content,
        and anything that is not the store's. Work that is unfinished, and whatever other processes
        do meanwhile, is not in it. Reads no content.
        """
        ...


@runtime_checkable
class Restores(Protocol):
    """A backend that can take a file over from another store with the time it was saved at."""

    def restore(
        self,
        key: SessionKey,
        name: str,
        content: Content,
        *,
        created: datetime,
        expires: datetime | None = None,
    ) -> Saved:
        """``put``, of a file that was saved at ``created``, which is not later than ``now``.

        It counts as activity of the session at this moment all the same.
        """
        ...
