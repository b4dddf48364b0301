"""One save into a locked session folder. The order of its steps makes it safe.

1. Write the journal line, so that a link is never without its time to live.
2. Make the link, either directly or by a rename over the older file.
3. Give the blob its name, when the content is new. Garbage collection would remove a blob name
   without any link, so the link is made first.

A failure before the file has its name leaves the older file as it is: a replacement waits under
another name until the blob has its own. If the blob gets no name, as on a full disk, a new file is
removed again. Later steps only tidy up, as the sweep does too, and their failure fails no save.

A small new content under a new name is written in its place, which takes a sixth less time. The
mode of such a file marks it as unfinished, and no reader takes it for a file. Removing the mark
replaces step 2. All of this happens under the lock. An unfinished file while the lock is free is
therefore the leftover of a killed process. The next save of that name, the drop or the next sweep
removes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from sessionstore.content import Content
from sessionstore.model import Reference, Saved

from .blobs import Blob, Blobs
from .directory import Directory
from .session_dir import SessionDir, Step
from .spool import FINISHED, UNFINISHED, LocalSpool, sealed, write_all

SMALL = 128 << 10
"""Bytes up to which a content is written in its place, in some 30 us.

For larger ones the saved link is only a small part of the time.
"""

_TOO_MANY_LINKS = (errno.EMLINK,)


class Disk(NamedTuple):
    """The parameters and abilities that all saves of a store share."""

    blobs: Blobs
    work: Callable[[], Directory]
    new_spool: Callable[[], LocalSpool]
    durable: bool
    links: bool
    unnamed: bool
    """Whether files can be made without a name."""
    in_place: bool
    """Whether small contents are written in their place."""

    def is_small(self, content: Content) -> bool:
        """Return whether the bytes of ``content`` are in memory and at most ``SMALL``.

        Such a content is written under the lock, while other callers wait.
        """
        return self.in_place and content.data is not None and content.size <= SMALL


@dataclass(slots=True)
class Save:
    """One file to save.

    ``older`` is its time of creation in another store it comes from; None means now.
    """

    disk: Disk
    content: Content
    name: str
    file: str
    expires: datetime | None
    fresh: bool
    small: bool
    older: datetime | None = None
    folder: SessionDir = field(init=False)
    blob: Blob = field(init=False)
    created: datetime = field(init=False)
    old: Reference | None = None
    """The file that has the name now."""
    stale: bool = False
    """The blob of that digest is damaged or cannot take another link: this save replaces it."""
    made: bool = False
    """Whether the session was created for this save."""

    def run(
        self, folder: SessionDir, blob: Blob, known: os.stat_result | None, now: datetime
    ) -> Saved | None:
        """Save the file into the locked ``folder``.

        ``known`` is the status of ``blob`` a moment ago. Return None when the blob does not exist
        and the caller must first write the bytes by ``spool``.
        """
        self.folder, self.blob, self.created = folder, blob, self.older or now
        self.stale = False
        if self.expires is not None:
            folder.will_expire(self.expires)
        if self.older is not None:
            folder.has_older(self.older)
        folder.active(now)
        self.old = None
        saved = self._saved(known)
        if saved is not None:
            folder.settle()
        return saved

    def _saved(self, known: os.stat_result | None) -> Saved | None:
        if known is None and self.small:
            reference = self._in_place()
            if reference is not None:
                return Saved(reference, deduplicated=False, replaced=None)
        if not self.fresh:
            self.old = self.folder.find(self.file)
        reference = None if known is None else self._link(known)
        if reference is not None:
            return Saved(reference, deduplicated=True, replaced=self.old)
        if self.small:
            self.spool()
        if not isinstance(self.content.spool, LocalSpool):
            return None
        return Saved(self._new(self.content.spool), deduplicated=False, replaced=self.old)

    def spool(self) -> None:
        """Write the bytes to a file in the store's file system, unless that was done before."""
        content = self.content
        if content.spool is None:
            spool = self.disk.new_spool()
            try:
                for chunk in content.chunks():
                    spool.write(chunk)
            except BaseException:
                spool.close()
                raise
            content.data, content.spool, self.small = None, spool, False

    def _link(self, blob: os.stat_result) -> Reference | None:
        """Link to the existing ``blob``; return None when that is impossible."""
        if not self.blob.is_whole(blob, self.content.size):
            self.stale = True
            return None
        reference = self._note(self.folder.token(blob))
        if self.old is not None and self.old.token == reference.token:
            return reference

        def check(place: Directory, name: str) -> None:
            """Check the link: the blob may have been renewed or collected before it was made."""
            nonlocal reference
            link = place.stat(name)
            if link.st_ino != blob.st_ino or link.st_mtime_ns != blob.st_mtime_ns:
                reference = self._note(self.folder.token(link))
            if link.st_nlink == 1:  # the blob's name was collected
                self.blob.adopt(place, name)

        try:
            self.blob.force()
            self._place(self.blob.link, check)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in _TOO_MANY_LINKS:
                raise
            self.stale = True
            return None
        return reference

    def _in_place(self) -> Reference | None:
        """Write the bytes directly under the file's name; return None when the name is taken."""
        data = self.content.data
        assert data is not None, "a small content"  # noqa: S101 - for mypy
        files = self.folder.files
        try:
            fd = files.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, UNFINISHED)
        except FileExistsError:
            return None
        try:
            write_all(fd, data)
            reference = self._note(self.folder.token(sealed(fd)))
            os.fchmod(fd, FINISHED)
            adopted = self.blob.adopt(files, self.file)
        except BaseException:
            files.unlink(self.file)
            raise
        finally:
            os.close(fd)
        return reference if adopted else self._merged(reference)

    def _new(self, spool: LocalSpool) -> Reference:
        reference = self._note(self.folder.token(spool.seal(durable=self.disk.durable)))
        if not self.disk.links:
            spool.move(self.folder.files, self.file)
            return reference
        adopted = True

        def adopt(place: Directory, name: str) -> None:
            """Give the blob its name."""
            nonlocal adopted
            if self.stale:
                with self.disk.work() as work:
                    self.blob.renew(place, name, work)
            else:
                adopted = self.blob.adopt(place, name)

        self._place(spool.link, adopt)
        return reference if adopted else self._merged(reference)

    def _merged(self, reference: Reference) -> Reference:
        """Replace the file of ``reference`` by a link to the blob that another save made.

        Another save stored the same bytes at the same time. Return the reference of the link, or
        ``reference`` when no link can be made.
        """
        old, self.old = self.old, reference
        linked = None
        with contextlib.suppress(OSError):  # the file is saved already
            blob = self.blob.stat()
            linked = None if blob is None else self._link(blob)
        self.old = old
        return linked or reference

    def _place(self, link: Step, settle: Step) -> None:
        """Give the file its name by ``link(directory, name)``.

        If ``settle(directory, name)`` raises, the file does not get its name.
        """
        if self.old is None and self.folder.place(self.file, link, settle):
            return
        if self.old is None:
            self.old = self.folder.find(self.file)
        releasing: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if self.old is not None:  # None: removed since, by something that ignores our lock
            releasing = self.disk.blobs.releasing(self.old)
        self.folder.replace(self.file, link, settle, releasing)

    def _note(self, token: str) -> Reference:
        content = self.content
        reference = Reference(
            self.name, content.size, content.digest, self.created, self.expires, token
        )
        self.folder.note(self.file, reference)
        return reference
