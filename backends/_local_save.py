"""One save into a locked session folder: the order of its steps is what makes it safe.

1. The journal line, so that a link is never without its time to live.
2. The link, straight into its place or by rename over what was there.
3. The blob's name, when the content is new. A blob's name without any link would be garbage to a
   collector, so the link is made first.

What fails before the file has its name leaves an older one as it is: a replacement waits under
another name until the blob has its own. A new file whose blob gets no name, as on a full disk, is
taken back. What fails afterwards is tidying up, which the sweep does too, and fails no save.

A small new content under a new name is written in its place, which takes a sixth less of the time:
the file has a mark in its mode at first, and as long nobody takes it for one. Taking off the mark
stands for step 2. All of it happens under the lock, so a file that lies unfinished while the lock
is free is what a death left: it goes with the next save of that name, the drop, or the next sweep.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from sessionstore.backend import Reference, Saved
from sessionstore.backends._directory import Directory
from sessionstore.backends._local_blobs import Blob, Blobs
from sessionstore.backends._local_folder import Folder, Step
from sessionstore.backends._local_spool import FINISHED, UNFINISHED, LocalSpool, sealed, write_all
from sessionstore.content import Content

SMALL = 128 << 10
"""Bytes that are written in their place, in some 30 us: of more the link saved is a small part."""

_TOO_MANY_LINKS = (errno.EMLINK,)


class Disk(NamedTuple):
    """What all saves of a store have in common."""

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
        """Whether the bytes are in memory, and few enough to be written while others wait."""
        return self.in_place and content.data is not None and content.size <= SMALL


@dataclass(slots=True)
class Save:
    """What is saved. ``older`` is when, if it is not now: the file comes from another store."""

    disk: Disk
    content: Content
    name: str
    file: str
    expires: datetime | None
    fresh: bool
    small: bool
    older: datetime | None = None
    folder: Folder = field(init=False)
    blob: Blob = field(init=False)
    created: datetime = field(init=False)
    old: Reference | None = None
    """What has the name now."""
    stale: bool = False
    """The blob of that digest cannot take another link, or is damaged: ours takes its place."""
    made: bool = False
    """Whether the session was made for it."""

    def run(
        self, folder: Folder, blob: Blob, known: os.stat_result | None, now: datetime
    ) -> Saved | None:
        """Save; None when the content is not there and its bytes are still to be written.

        ``folder`` is locked. ``known`` is the blob of that digest as it was a moment ago.
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
        """Write the bytes to a file in the store's file system, unless that is done."""
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
        """Link to the blob that is there; None when it will not do."""
        if blob.st_size != self.content.size:
            self.stale = True
            return None
        reference = self._note(self.folder.token(blob))
        if self.old is not None and self.old.token == reference.token:
            return reference

        def check(place: Directory, name: str) -> None:
            """Look at the link: the blob may have been renewed or collected meanwhile."""
            nonlocal reference
            there = place.stat(name)
            if there.st_ino != blob.st_ino or there.st_mtime_ns != blob.st_mtime_ns:
                reference = self._note(self.folder.token(there))
            if there.st_nlink == 1:
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
        """Write the bytes straight under the file's name; None when that is taken."""
        data = self.content.data
        assert data is not None, "it is small"  # noqa: S101 - for mypy
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
        """Keep one of two: somebody saved the same bytes at the same time as this file."""
        old, self.old = self.old, reference
        again = None
        with contextlib.suppress(OSError):  # the file is saved already
            twin = self.blob.stat()
            again = None if twin is None else self._link(twin)
        self.old = old
        return again or reference

    def _place(self, link: Step, settle: Step) -> None:
        """Give the file its name by ``link(directory, name)``, unless ``settle`` of both raises."""
        if self.old is None and self.folder.place(self.file, link, settle):
            return
        if self.old is None:
            self.old = self.folder.find(self.file)
        releasing: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if self.old is not None:  # else it went meanwhile, by another hand than ours
            releasing = self.disk.blobs.releasing(self.old)
        self.folder.replace(self.file, link, settle, releasing)

    def _note(self, token: str) -> Reference:
        content = self.content
        reference = Reference(
            self.name, content.size, content.digest, self.created, self.expires, token
        )
        self.folder.note(self.file, reference)
        return reference
