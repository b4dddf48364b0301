"""The interface of a backend.

A backend is mechanism. It keeps *content* (immutable bytes under their digest, kept once) and
*references* ("this session has a file of this name with that content"), returns the bytes and
reclaims the space. It knows no ages, quotas, owners or HTTP: all policy is in ``SessionStore``.

The guarantees of a backend, while other processes write, delete, sweep or die:

* **Kept** (I1): after ``put`` has returned, the file reads back byte for byte until it is deleted,
  discarded or replaced, or its session is dropped.
* **Atomic** (I2): a reader gets the old bytes, the new bytes or ``FileNotStored``; an interrupted
  ``put`` leaves the old file.
* **Once** (I3): equal bytes are kept once. A race can leave a few extra copies; they are collected.
* **Apart** (I4): a call reaches only the session that it names.
* **Gone** (I5): after ``delete``, ``discard`` or ``drop`` the file is not served. Unreferenced
  content is reclaimed, at once or by ``collect``.
* **No leaks** (I6): ``collect`` finds the leftovers of a crash in the store, not in memory.
* **Clean failure** (I7): a failure is one error of ``sessionstore.errors`` with its cause chained,
  and nothing partial is visible. A listing that fails or ends early deletes nothing.
* **Bounded** (I8): memory grows neither with a file's size nor with the number of files seen.

The guarantees of the caller: each ``sid`` and ``name`` has passed ``sessionstore.names``, and an id
and owner always come with the same ``sid``. Calls may come from any thread.

``sessionstore.testing.BackendContract`` tests these guarantees.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import BinaryIO, ClassVar, Protocol, Self, runtime_checkable

from sessionstore.clock import Clock
from sessionstore.content import Content, Spool
from sessionstore.model import (
    Collected,
    Dropped,
    Location,
    Problem,
    Reference,
    Saved,
    SessionKey,
    SessionRecord,
    Stored,
)
from sessionstore.parsers import Parser

__all__ = [
    "Backend", "Collected", "Dropped", "HasFreeSpace", "Inspects", "KeepsLease", "KeepsSecret",
    "KnowsIfAlone", "ListsSince", "Location", "Omits", "Problem", "ReclaimsLate", "Reference",
    "Restores", "Saved", "SessionKey", "SessionRecord", "SignsUploads", "SignsUrls", "Stored",
    "Survey", "Surveys",
]  # fmt: skip


class Backend(Protocol):
    """Keeps content once, and references to it. The module's docstring lists the guarantees."""

    options: ClassVar[Mapping[str, Parser]]
    """The backend's own settings: name -> parser of ``sessionstore.parsers``."""

    digest: str
    """The name of the store's digest algorithm, ``sha256`` or ``blake3``, fixed for its life."""

    @classmethod
    def connect(cls, location: Location, options: Mapping[str, object], clock: Clock) -> Self:
        """Open the store at ``location``, and create it if it does not exist.

        Raises SettingsError if the location cannot be used, BackendUnavailable if it cannot be
        reached.
        """
        ...

    def now(self) -> datetime:
        """Return the time by which this backend's ``created`` and ``active`` are measured."""
        ...

    def spool(self) -> Spool:
        """Return a new spool for bytes to save. ``content.TempSpool`` fits any backend."""
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
        """Save ``content`` as the session's file ``name``. Creates the session if it is new.

        Replaces a file of that name atomically. With ``fresh`` the caller guarantees that no file
        has this name. The caller closes the content. Counts as activity of the session.
        """
        ...

    def get(self, sid: str, name: str) -> Reference:
        """Return the reference of the file of that name. Raises FileNotStored."""
        ...

    def open(
        self, sid: str, reference: Reference, start: int = 0, length: int | None = None
    ) -> BinaryIO:
        """Return a stream of ``length`` bytes of the version from ``start``, or of all the rest.

        Bounds past the end are cut to the end. Raises FileNotStored if another version has replaced
        this one. A stream of the whole content raises Corrupted instead of ending with bytes that
        differ from the saved ones (``content.verified`` does that for any stream).
        """
        ...

    def files(self, sid: str) -> Iterator[Reference]:
        """Iterate over the session's files, in no order. Empty if there is no such session."""
        ...

    def delete(self, sid: str, names: Iterable[str]) -> list[Reference]:
        """Remove the files of these names in any version; return the removed references.

        A missing file is no error.
        """
        ...

    def discard(self, sid: str, references: Iterable[Reference]) -> list[Reference]:
        """Remove exactly these versions, never a newer one; return the removed references."""
        ...

    def sessions(self) -> Iterator[SessionRecord]:
        """Iterate over every session, in no order."""
        ...

    def session(self, sid: str) -> SessionRecord | None:
        """Return the record of one session, None if it does not exist."""
        ...

    def identify(self, sid: str) -> SessionKey | None:
        """Return the id and owner behind a stored name, None if there is no such session."""
        ...

    def touch(self, sid: str) -> None:
        """Mark the session as active now. Does nothing if there is no such session."""
        ...

    def end(self, sid: str) -> SessionRecord | None:
        """Mark the session as ended now, and return its record.

        Does nothing, and returns None, if there is no such session.
        """
        ...

    def resume(self, sid: str) -> bool:
        """Cancel an end; counts as activity. Return whether there is such a session.

        Does nothing if there is none.
        """
        ...

    def drop(
        self, sid: str, *, unless_active_after: datetime | None = None, only_ended: bool = False
    ) -> Dropped | None:
        """Remove a session with all its files; return None if it does not exist or is spared.

        With ``unless_active_after`` the session is spared if its ``active`` is later than that, or
        if another call works in it at this moment. With ``only_ended`` it is also spared if it has
        not ended: where times are whole seconds, ``active`` does not show a resume within the
        second of the end.
        """
        ...

    def collect(self, *, force: bool = False) -> Collected:
        """Remove unreferenced content and the leftovers of crashes. The work per call is bounded.

        If the state of the store looks wrong, nothing is removed and ``held`` of the result gives
        the reason; ``force`` removes all the same.
        """
        ...

    def stored(self) -> Stored:
        """Return the size of the content. Lists all of it."""
        ...

    def close(self) -> None:
        """Release all resources. Files stay. A second call does nothing."""
        ...


@runtime_checkable
class HasFreeSpace(Protocol):
    """A backend that can fill up."""

    def free(self) -> int:
        """Return how many bytes can still be written."""
        ...


@runtime_checkable
class ReclaimsLate(Protocol):
    """A backend in which content takes space for a while after its last file was deleted.

    ``max_store`` then limits the referenced content: the space of deleted files is freed later.
    """

    def referred(self) -> Stored:
        """Return the size of the referenced content. Lists all files."""
        ...


class Survey(Protocol):
    """One sweep's pass over a store: ``sessions`` is read to its end, and then ``collect``."""

    @property
    def tokens(self) -> Mapping[str, Collection[str]]:
        """The tokens of the listed files of each watched session, and maybe of replaced ones."""
        ...

    def sessions(self) -> Iterator[SessionRecord]: ...
    def collect(self, *, force: bool = False) -> Collected: ...


@runtime_checkable
class Surveys(Protocol):
    """A backend in which listings cost money: one pass serves ``sessions`` and ``collect``.

    Both are as ``Backend`` describes them. Content whose last file is deleted between the two is
    collected by a later pass.
    """

    def survey(self, *, content: bool = True, watched: Iterable[str] = ()) -> Survey:
        """Return a pass. Without ``content`` it lists the sessions only, and collects nothing.

        ``watched`` are the sessions whose files are wanted.
        """
        ...


@runtime_checkable
class KeepsLease(Protocol):
    """A backend that keeps a note by which processes agree on one that sweeps.

    The agreement is advisory: any number of processes may sweep at the same time, and no method of
    a backend looks at the note.
    """

    def lease(self) -> bytes | None:
        """Return the note, None if there is none."""
        ...

    def write_lease(self, note: bytes) -> None:
        """Replace the note."""
        ...


@runtime_checkable
class Forgets(Protocol):
    """A backend where a look costs a request, and a record of what is gone costs another."""

    def forget(self, sid: str, references: Iterable[Reference]) -> None:
        """Remove exactly these versions, without a look and without a record of the session.

        Only for a name that had no other version, in a session that need not outlive its files.
        """
        ...


@runtime_checkable
class ListsSince(Protocol):
    """A backend that lists what was saved lately in less time than all files of a session."""

    def since(self, sid: str, mark: object) -> tuple[object, list[Reference] | None]:
        """Return a new mark, and the references that any process saved since ``mark``.

        ``mark`` is from an earlier call for this session, or None. There may be more references
        than those, also of saves that did not finish. None in place of them means that it is not
        known what was saved: list all files.
        """
        ...


@runtime_checkable
class KnowsIfAlone(Protocol):
    """A backend that can detect whether another live process has the store open."""

    def alone(self) -> bool:
        """Return whether this process is the only one."""
        ...


@runtime_checkable
class KeepsSecret(Protocol):
    """A backend that can make a secret for the store and keep it readable for its users only."""

    def secret(self) -> bytes:
        """Return 32 random bytes, equal at every call and in every process on this store."""
        ...


@runtime_checkable
class SignsUrls(Protocol):
    """A backend that serves a file itself, to anyone who has a presigned URL of it."""

    def url(
        self,
        sid: str,
        reference: Reference,
        *,
        media_type: str,
        disposition: str,
        expires: timedelta,
    ) -> str:
        """Return a URL that answers GET with this version's bytes and these headers.

        It is valid for ``expires``. The caller has checked that the version is current; a later
        delete does not revoke the URL. Raises ValueError if ``expires`` is longer than the backend
        allows.
        """
        ...


@runtime_checkable
class SignsUploads(Protocol):
    """A backend that takes the parts of an upload itself, from anyone who has a presigned URL.

    ``begin_parts`` returns the name of an upload for the other calls. No file has its bytes.
    """

    def begin_parts(self, sid: str, expires: datetime) -> str:
        """Begin an upload for a session. ``collect`` removes it, in any state, after ``expires``.

        The session need not exist, and its drop leaves the upload.
        """
        ...

    def part_url(self, upload: str, number: int, size: int, expires: timedelta) -> str:
        """Return a URL that takes a PUT with exactly ``size`` bytes as the part ``number``.

        Numbers begin with 1. It is valid for ``expires``, and as long as the parts are not joined.
        A part of the same number is replaced.
        """
        ...

    def part_sizes(self, upload: str) -> dict[int, int]:
        """Return the sizes of the parts that are there, by number.

        Raises FileNotStored if they are joined or discarded.
        """
        ...

    def join_parts(self, upload: str, sizes: Sequence[int]) -> BinaryIO:
        """Join the parts, and return a stream of all bytes. They do not change any more.

        A second call returns them again. Raises UploadConflict if the parts that are there do not
        have exactly these ``sizes``; FileNotStored if they are discarded.
        """
        ...

    def discard_parts(self, upload: str) -> None:
        """Remove the upload, joined or not. A second call does nothing."""
        ...


@runtime_checkable
class Inspects(Protocol):
    """A backend that can inspect its own storage."""

    def inspect(self) -> Iterator[Problem]:
        """Iterate over all problems, found by reading all content once. Changes nothing by itself.

        Concurrent work of other processes is no problem. Memory grows with the number of problems,
        not with the size of the store. The ``repair`` of a problem may be called at once.
        """
        ...


@runtime_checkable
class Omits(Protocol):
    """A backend whose storage can hold objects that no listing of sessions and files shows."""

    def omitted(self, *, files: bool = True) -> Iterator[Problem]:
        """List everything that ``sessions`` leaves out, and with ``files`` all other objects too.

        For example a session without its marks, a file with a lost name, a file without content,
        and any object that is not part of the store. Unfinished work, and the concurrent work of
        other processes, is left out. Reads no content.
        """
        ...


@runtime_checkable
class Restores(Protocol):
    """A backend that can copy a file from another store and keep its creation time."""

    def restore(
        self,
        key: SessionKey,
        name: str,
        content: Content,
        *,
        created: datetime,
        expires: datetime | None = None,
    ) -> Saved:
        """Do the work of ``put`` for a file saved at ``created``, which is not later than ``now``.

        Counts as activity of the session now, not at ``created``.
        """
        ...
