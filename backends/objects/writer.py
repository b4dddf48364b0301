"""Save files: write the content, then the reference, then check that the reference was in time.

The birth rule protects a save from sweeps without a lock. A sweep deletes a generation only if it
was older than ``grace`` before the sweep listed references. So every sweep that could delete a
generation sees a reference that was written before the generation grew that old. A save is
acknowledged only if its reference was that early. docs/protocol-objects.md has the proof.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from operator import attrgetter

from sessionstore import names
from sessionstore.content import CHUNK, Content, Ingest, TempSpool, ingest
from sessionstore.errors import BackendUnavailable
from sessionstore.model import Saved, SessionKey

from . import keys
from .cache import CachedVersion, Generation
from .client import NotFound, Payload
from .keys import Version
from .layout import UPLOAD_LIMIT, Part, Shared
from .reader import Reader, to_reference

UPLOAD_BESIDE = CHUNK
"""The largest upload, in bytes, that does not wait for the listing that could make it needless.

At 20 MB/s it takes 50 ms, about one round trip to a bucket across a network; and up to this size
the content is in memory. A copy that was uploaded in vain is deleted by a sweep.
"""

MULTIPART_ABOVE = 64 << 20
"""The largest upload in one request, in bytes: at 20 MB/s it takes 3 s, and may be repeated."""

PART_SIZE = 16 << 20
"""The size of a part in bytes: the 10,000 parts that S3 allows hold 160 GiB."""

_ATTEMPTS = 3


@dataclass(slots=True)
class Save:
    """One save in progress; ``older`` are the existing versions, None before they are listed.

    ``known`` are the versions that the caller knows; None: they must be listed. ``created`` is the
    save time to record, in microseconds since 1970; None: now. ``own`` is the generation that this
    save uploads.
    """

    key: SessionKey
    name: str
    file: str
    content: Content
    expires: int
    epoch: int
    known: list[Version] | None = None
    created: int | None = None
    older: list[Version] | None = None
    own: str | None = None


class Writer(Part):
    """Saves the files of one backend."""

    def __init__(self, shared: Shared, reader: Reader) -> None:
        super().__init__(shared)
        self._reader = reader
        self.multipart_above = MULTIPART_ABOVE
        self.part_size = PART_SIZE

    def put(
        self,
        key: SessionKey,
        name: str,
        content: Content,
        *,
        expires: datetime | None = None,
        fresh: bool = False,
        created: datetime | None = None,
    ) -> Saved:
        """Implement ``Backend.put`` and, with ``created``, ``Restores.restore``."""
        file, epoch = names.encode(name), self._cache.epoch(key.sid)
        micros = 0 if expires is None else keys.microseconds(expires)
        since = None if created is None else keys.microseconds(created)
        save = Save(key, name, file, content, micros, epoch, [] if fresh else None, since)
        return self._acknowledged(save, *self._store(save))

    def renew(self, version: Version, key: SessionKey, name: str, donor: str) -> bool:
        """Replace a version's content by a sound copy, read from the object ``donor``.

        Everything else of the version stays the same, and a concurrent save is newer than the old
        and the renewed version. Returns False when the version or the donor was deleted before.
        """
        with self._fetched(donor) as content:
            if content.digest != version.digest:
                return False
            file, epoch = version.file, self._cache.epoch(key.sid)
            # Its sequence number is the next one, even if newer versions exist.
            save = Save(key, name, file, content, version.expires, epoch, [version], created=0)
            renewed, generation, _ = self._store(save)
            # If the old version was deleted or replaced in between, that must stay so.
            gone = self._bucket.find(version.key) is None
            obsolete = renewed.key if gone else version.key
            self._bucket.delete([obsolete, *generation.intents])
        self._cache.changed(key.sid, version.file)
        return not gone

    def _fetched(self, key: str) -> Content:
        into = Ingest(self._terms.digest, TempSpool, lambda _: None)
        try:
            with suppress(NotFound), closing(self._bucket.get(key).stream) as stream:
                return ingest(stream, into)
            return into.finish()  # no object: empty content, with another digest
        finally:
            into.abort()

    def _store(self, save: Save) -> tuple[Version, Generation, float]:
        """Write the content, and a reference that no sweep can have missed.

        Returns them and the time, in ``elapsed()`` seconds, before the reference was written.
        """
        self._bucket.sync()
        for _ in range(_ATTEMPTS):
            save.older = save.known
            generation = self._prepare(save)
            at = self._bucket.clock.elapsed()
            version = self._refer(save, generation)
            if self._is_in_time(version, generation):
                return version, generation, at
            # Take the reference back, and start again with a new copy of the content.
            self._cache.born.pop(save.content.digest)
            self._bucket.delete([version.key, *generation.intents])
        raise BackendUnavailable(
            f"Saving {save.name!r} took longer than the store's grace of {self._terms.grace} "
            f"allows, {_ATTEMPTS} times; find out why the store is slow, or create a store with a "
            "longer grace."
        )

    # Content

    def _prepare(self, save: Save) -> Generation:
        """Return a generation to refer to, and list the file's versions.

        None of the requests needs the result of another one, so they are sent side by side: both
        listings, and the upload of a small content that is unknown here.
        """
        chosen = self._known(save.content)
        if chosen is not None and save.older is not None:
            return chosen
        most = min(UPLOAD_BESIDE, self.multipart_above) if self._bucket.waits.parallel else -1
        tasks: list[Callable[[Save], Generation | None]] = []
        if chosen is None:
            beside = save.content.data is not None and save.content.size <= most
            # The calling thread makes the first request: the longest one, since the others end
            # before it then.
            tasks = [self._upload, self._adopt] if beside else [self._adopt]
        if save.older is None:
            tasks.append(self._list)
        results = self._bucket.waits.together([partial(task, save) for task in tasks])
        if chosen is None:
            found = [generation for generation in results if generation is not None]
            chosen = found[-1] if found else self._upload(save)
            self._cache.born.put(save.content.digest, Generation(chosen.id, chosen.birth))
        return chosen

    def _known(self, content: Content) -> Generation | None:
        known = self._cache.born.get(content.digest)
        return None if known is None or known.birth < self._oldest() else known

    def _oldest(self) -> datetime:
        """Return the least birth of a generation to adopt.

        At most half of ``grace`` ago: the rest is the time to write the reference.
        """
        return self._bucket.clock.latest() - self._terms.grace / 2

    def _adopt(self, save: Save) -> Generation | None:
        """Return an existing generation that is young enough to be referenced; one LIST.

        The oldest one: otherwise each save would adopt the copy that another one uploaded in vain.
        """
        content = save.content
        copies = [
            Generation(parsed[1], entry.modified)
            for entry in self._bucket.entries(keys.blob(content.digest))
            if (parsed := keys.parse_blob(entry.key))
            and entry.size == content.size
            and parsed[1] != save.own
            and not (self._cache.bad.get(parsed[1]) or self._cache.dead.get(parsed[1]))
        ]
        oldest = self._oldest()  # now: the LIST took time
        young = [copy for copy in copies if copy.birth >= oldest]
        return min(young, key=attrgetter("birth", "id"), default=None)

    def _upload(self, save: Save) -> Generation:
        content = save.content
        # The birth is the time before the upload, so it is not after the store's ``modified``.
        generation = Generation(self._nonce(16), self._bucket.clock.now(), uploaded=True)
        save.own = generation.id
        blob, payload = keys.blob(content.digest, generation.id), self._payload(content)
        if content.size <= self.multipart_above:
            self._bucket.put(blob, payload)
            return generation
        intent = keys.intent(save.key.sid, content.digest, generation.id)
        self._bucket.put(intent, b"")
        try:
            self._bucket.upload(blob, payload, self.part_size)
        except Exception:
            with suppress(BackendUnavailable):  # a sweep deletes it when it is old
                self._bucket.delete([intent])
            raise
        return generation._replace(intents=(intent,))

    def _payload(self, content: Content) -> Payload:
        sha256 = content.digest if self._terms.digest == "sha256" else None
        if content.data is not None:
            return Payload(content.data, 0, content.size, sha256)
        if isinstance(content.spool, TempSpool):
            return Payload(content.spool.file, 0, content.size, sha256)
        raise TypeError("The content was spooled by another backend; use spool() of this backend.")

    # References

    def _list(self, save: Save) -> None:
        save.older = self._reader.versions(save.key.sid, save.file)

    def _refer(self, save: Save, generation: Generation) -> Version:
        """Write a reference that is newer than all existing versions of the file."""
        sid, content = save.key.sid, save.content
        now = self._bucket.clock.now()
        created = keys.microseconds(now) if save.created is None else save.created
        newest = max((keys.seq(older.token) for older in save.older or ()), default=0)
        nonce = ("i" if generation.intents else "b") + self._nonce(8)[1:]
        version = keys.version(
            sid, save.file, max(newest + 1, created), nonce, content.size,
            save.expires, content.digest, generation.id, now,
        )  # fmt: skip
        self._bucket.put(version.key, keys.body(save.key, save.name))
        return version

    def _is_in_time(self, version: Version, generation: Generation) -> bool:
        """Return whether no sweep can have missed the reference; ask the store if in doubt."""
        now = self._bucket.clock.latest()
        limit = UPLOAD_LIMIT if generation.intents else self._terms.window
        return now <= generation.birth + limit or self._is_firm(version)

    def _is_firm(self, version: Version) -> bool:
        """Return whether the reference was in time, by the store's own record of both objects.

        Readers and sweeps use the same rule, so no writer takes back a reference they rely on.
        """
        blob, entry = self._bucket.find(version.blob), self._bucket.find(version.key)
        listed = None if entry is None else keys.parse_version(entry)
        return listed is not None and self._terms.is_firm(listed, blob)

    def _acknowledged(
        self, save: Save, version: Version, generation: Generation, at: float
    ) -> Saved:
        sid, older = save.key.sid, save.older or []
        replaced = max(older, key=attrgetter("token"), default=None)
        reference = to_reference(version, save.name)
        sight = CachedVersion(reference, at, self._bucket.clock.latest())
        self._cache.add(sid, save.file, sight, save.epoch, new=bool(older))
        self._cache.keys.put(sid, save.key)
        self._bucket.delete_later([*(one.key for one in older), *generation.intents])
        return Saved(
            reference,
            deduplicated=not generation.uploaded,
            replaced=None if replaced is None else to_reference(replaced, save.name),
        )
