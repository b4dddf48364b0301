"""One save into a locked session folder: the order of its steps is what makes it safe.

1. The journal line, so that a link is never without its time to live.
2. The link, straight into its place or by rename over what was there.
3. The blob's name, when the content is new. A blob's name without any link would be garbage to a
   collector, so the link is made first.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from sessionstore.backend import Reference, Saved
from sessionstore.backends._directory import Directory
from sessionstore.backends._local_blobs import Blob, Blobs
from sessionstore.backends._local_folder import Folder
from sessionstore.backends._local_journal import Line
from sessionstore.backends._local_spool import LocalSpool
from sessionstore.content import Content

_TOO_MANY_LINKS = (errno.EMLINK,)


@dataclass(slots=True)
class Save:
    """What is saved, and where. ``old`` is what has the name now."""

    folder: Folder
    blobs: Blobs
    blob: Blob
    work: Callable[[], Directory]
    file: str
    name: str
    content: Content
    created: datetime
    expires: datetime | None
    old: Reference | None
    durable: bool
    links: bool
    stale: bool = False
    """The blob of that digest cannot take another link, or is damaged: ours takes its place."""

    def run(self, known: os.stat_result | None) -> Saved | None:
        """Save; None when the content is not there and its bytes are still to be written.

        ``known`` is the blob of that digest as it was a moment ago.
        """
        before = self.old
        reference = None if known is None else self._link(known)
        if reference is not None:
            return Saved(reference, deduplicated=True, replaced=before or self.old)
        if not isinstance(self.content.spool, LocalSpool):
            return None
        reference = self._new(self.content.spool)
        return Saved(reference, deduplicated=False, replaced=before or self.old)

    def _link(self, blob: os.stat_result) -> Reference | None:
        """Link to the blob that is there; None when it will not do."""
        if blob.st_size != self.content.size:
            self.stale = True
            return None
        reference = self._note(self.folder.token(blob))
        if self.old is not None and self.old.token == reference.token:
            return reference
        try:
            self._place(self.blob.link)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in _TOO_MANY_LINKS:
                raise
            self.stale = True
            return None
        return self._check(reference)

    def _check(self, reference: Reference) -> Reference:
        """Look at the link just made: the blob may have been renewed or collected meanwhile."""
        there = self.folder.files.stat(self.file)
        token = self.folder.token(there)
        if token != reference.token:
            reference = self._note(token)
        if there.st_nlink == 1:
            self.blob.adopt(self.folder.files, self.file)
        return reference

    def _new(self, spool: LocalSpool) -> Reference:
        reference = self._note(self.folder.token(spool.seal(durable=self.durable)))
        if not self.links:
            spool.move(self.folder.files, self.file)
            return reference
        self._place(spool.link)
        if self.stale:
            with self.work() as work:
                self.blob.renew(self.folder.files, self.file, work)
        elif not self.blob.adopt(self.folder.files, self.file):
            # Somebody saved the same bytes at the same time: keep one of the two.
            twin = self.blob.stat()
            again = None if twin is None else replace(self, old=reference)._link(twin)  # noqa: SLF001 - its own
            return again or reference
        return reference

    def _place(self, link: Callable[[Directory, str], None]) -> None:
        if self.old is None and self.folder.place(self.file, link):
            return
        if self.old is None:
            self.old = self.folder.find(self.file)
        if self.old is None:  # gone meanwhile by another hand than ours
            self.folder.replace(self.file, link)
            return
        with self.blobs.releasing(self.old):
            self.folder.replace(self.file, link)

    def _note(self, token: str) -> Reference:
        reference = Reference(
            self.name, self.content.size, self.content.digest, self.created, self.expires, token
        )
        self.folder.note(Line(self.file, reference), durable=self.durable)
        return reference
