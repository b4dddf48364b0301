"""The requests of the object protocol, by obstore: the engine that the user chooses for speed.

    s3://bucket/prefix?engine=obstore

obstore is written in Rust; a request takes a sixth of the CPU that boto3 needs and no lock of the
interpreter. It does not do everything, and what follows from that stands here:

* It shows no header of an answer, so the store's time is asked for by a small object now and then.
* Its prefixes are whole directories. A listing of keys that begin otherwise asks for the directory,
  from there on, and picks them out.
* A web page, where the store should answer, is an empty listing to it. So an empty listing counts
  only where the store's marker can be read.
* It makes its own multipart uploads, and can neither list nor abort what others left, nor sign a
  URL that says type and name. boto3 does these where it is installed. Without it, let a lifecycle
  rule of the bucket abort unfinished uploads.
* After a fork it stands still in the child, and disturbs the parent if it is used there. boto3 does
  the work in such a process.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, cast

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from sessionstore.backends._marker import Marker, is_harmless
from sessionstore.backends._obstore_errors import ours
from sessionstore.backends._obstore_store import (
    extras,
    for_boto3,
    make_store,
    own_authority,
    refuse_what_it_cannot,
)
from sessionstore.backends._s3_errors import TASKS, Place
from sessionstore.backends._s3_options import Options
from sessionstore.backends.objects_client import (
    BATCH,
    Download,
    Entry,
    NotFound,
    Page,
    Payload,
    Upload,
)
from sessionstore.backends.objects_keys import LAYOUT
from sessionstore.errors import BackendUnavailable, SettingsError

if TYPE_CHECKING:
    from typing_extensions import Buffer  # type checkers know it without the package

    from sessionstore.backends._s3_client import S3Client

__all__ = ["ObstoreClient"]

WHOLE = 5 << 20
"""Bytes up to which an object is one request, from memory; longer ones go in parts of so many, the
least that S3 takes."""

AT_ONCE = 2
"""Parts on their way at once: with the one that is being filled 15 MiB."""

PARTS = 9_000
"""The most parts, a little under S3's 10,000: beyond 44 GiB they grow."""

PIECE = 1 << 20
"""Bytes that are handed from one side to the other at a time."""

_log = logging.getLogger(__name__)

_FAILURES = (BaseError, OSError, ValueError)


class _Process:
    """Whether obstore works in this process: its threads do not come along through a fork."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.used = False
        self.lost = False

    def forked(self) -> None:
        self.lock = threading.Lock()
        self.lost = self.lost or self.used


_process = _Process()
_kept: list[object] = []
"""Stores of the parent of a fork: even to throw them away would reach into its connections."""

_clients: weakref.WeakSet[ObstoreClient] = weakref.WeakSet()


def _after_fork() -> None:
    _process.forked()
    if _process.lost:
        for client in _clients:
            client.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class ObstoreClient:
    """One prefix of one bucket.

    While the store is being opened, errors that another setting cures are SettingsErrors.
    """

    shows_date: ClassVar[bool] = False
    at_once: int = 2
    """Long answers are read ahead. Parts of an upload are obstore's own affair (``AT_ONCE``)."""

    def __init__(self, options: Options) -> None:
        refuse_what_it_cannot(options)
        self.options = options
        self._opening = True
        self._closed = False
        self._place = Place(options.url, options.bucket, options.endpoint_url or "Amazon S3")
        self._extras = extras(options)
        self._authority = own_authority()
        self._made: S3Store | None = None
        self._spare: S3Client | None = None
        self._marker = Marker(self._read_marker, options.url)
        _clients.add(self)

    def put(self, key: str, payload: Payload) -> datetime | None:
        if _process.lost:
            return self.boto3.put(key, payload)
        with self._asking("put_object"):
            if payload.size <= WHOLE:
                obstore.put(
                    self._store, key, payload.read(), use_multipart=False, **self._written_with
                )
                return None
        try:
            with self._asking("complete_multipart_upload"):
                self._put_in_parts(key, payload)
        except NotFound as error:
            # Complete already: the request was repeated when its answer was lost. Nobody else
            # writes this key.
            if not any(entry.key == key for page in self.list(key) for entry in page.entries):
                raise BackendUnavailable(
                    f"The upload of {key} was aborted by somebody else; save the file again."
                ) from error
        return None

    def _put_in_parts(self, key: str, payload: Payload) -> None:
        """An upload whose parts obstore makes; one that fails is aborted."""
        size = max(WHOLE, -(-payload.size // PARTS))
        with (
            payload.open() as source,
            obstore.open_writer(
                self._store, key, buffer_size=size, max_concurrency=AT_ONCE, **self._written_with
            ) as writer,
        ):
            while chunk := source.read(PIECE):
                writer.write(chunk)

    def get(self, key: str, start: int = 0, length: int | None = None) -> Download:
        if _process.lost:
            return self.boto3.get(key, start, length)
        with self._asking("get_object"):
            answer = obstore.get(self._store, key, options=_range(start, length))
            first, end = answer.range
            stream = _Body(answer.stream(min_chunk_size=PIECE), end - first, self)
            return Download(cast("BinaryIO", stream), str(answer.meta["e_tag"] or ""), None)

    def list(self, prefix: str, *, start_after: str = "", page_size: int = BATCH) -> Iterator[Page]:
        """One page of up to 1,000 objects is one request, whatever ``page_size`` is."""
        if _process.lost:
            yield from self.boto3.list(prefix, start_after=start_after, page_size=page_size)
            return
        directory, _, rest = prefix.rpartition("/")
        offset = max(start_after, _just_before(prefix)) if rest else start_after
        seen = False
        for entries in self._to_the_end(prefix, directory, offset):
            done = bool(rest) and self._is_past(prefix, entries)
            matching = [it for it in entries if it.key.startswith(prefix)] if rest else entries
            if matching:
                seen = True
                yield Page(matching, None)
            if done:
                break
        if not seen:
            self._marker.confirm(prefix, opening=self._opening)
            yield Page([], None)

    def _to_the_end(self, prefix: str, directory: str, offset: str) -> Iterator[Sequence[Entry]]:
        """The pages of a directory from there on.

        An error that the store answers with 200 is an empty page to obstore, which ends a listing
        where any page ends. A sweep that believes it would delete what the rest refers to, so the
        store is asked for more.
        """
        pages, last, asked = self._pages(directory, offset), offset, False
        begun: set[str] = set()
        while True:
            with self._asking("list_objects_v2"):
                found = next(pages, None)
            if found is None:
                if asked or is_harmless(prefix):
                    return
                pages, asked = self._pages(directory, last), True
                continue
            entries = [Entry(it["path"], it["size"], it["last_modified"]) for it in found]
            if asked or not begun:
                if entries[0].key in begun:
                    raise self._without_order()
                begun.add(entries[0].key)
            # The last in the store's order, which is not the alphabet's everywhere (``_is_past``).
            asked, last = False, entries[-1].key
            yield entries

    def _pages(self, directory: str, offset: str) -> Iterator[Sequence[Any]]:
        with self._asking("list_objects_v2"):
            return iter(
                obstore.list(
                    self._store, directory or None, offset=offset or None, chunk_size=BATCH
                )
            )

    def _is_past(self, prefix: str, entries: Sequence[Entry]) -> bool:
        """Whether nothing more can begin so. Only an order allows to look no further."""
        keys = [entry.key for entry in entries]
        # SeaweedFS sorts the names of each directory, so that "a/b" comes before "a-b".
        if keys != sorted(keys) and keys != sorted(keys, key=lambda key: key.split("/")):
            raise self._without_order()
        return bool(keys) and keys[-1] > prefix and not keys[-1].startswith(prefix)

    def _without_order(self) -> BackendUnavailable:
        return BackendUnavailable(
            f"Could not list the objects in {self.options.url}: the store lists them in no "
            "order, which engine=obstore needs; leave engine out."
        )

    def _read_marker(self) -> bytes:
        with self.get(LAYOUT).stream as stream:
            return stream.read()

    def delete(self, keys: Sequence[str]) -> datetime | None:
        if _process.lost:
            return self.boto3.delete(keys)
        with self._asking("delete_objects"):
            obstore.delete(self._store, list(keys))
        return None

    def abort(self, key: str, upload: str) -> None:
        self.boto3.abort(key, upload)

    def uploads(self, prefix: str) -> Iterator[Upload]:
        """By boto3; none without it."""
        if self._has_boto3:
            yield from self.boto3.uploads(prefix)

    def close(self) -> None:
        self._closed = True
        self._made = None
        if self._spare is not None:
            self._spare.close()

    # Besides the protocol

    @property
    def opening(self) -> bool:
        """Whether the store is being opened."""
        return self._opening

    @opening.setter
    def opening(self, value: bool) -> None:
        self._opening = value
        if self._spare is not None:
            self._spare.opening = value

    @property
    def sees_uploads(self) -> bool:
        """Whether ``uploads`` finds what killed processes left."""
        return self._has_boto3

    def probe(self, key: str) -> None:
        """Ask for a listing, to see that the bucket is there and may be used; one request."""
        next(self.list(key))

    def sign(self, key: str, *, media_type: str, disposition: str, expires: timedelta) -> str:
        """A URL that anybody may GET the object by until then; by boto3. No request."""
        return self.boto3.sign(key, media_type=media_type, disposition=disposition, expires=expires)

    def leave(self) -> None:
        """Leave the parent's connections alone, in the child of a fork."""
        _kept.append(self._made)
        self._made = None

    # boto3, for what obstore does not do

    @cached_property
    def _has_boto3(self) -> bool:
        return importlib.util.find_spec("boto3") is not None

    @property
    def boto3(self) -> S3Client:
        """The other engine, on the same bucket."""
        if self._spare is None:
            if not self._has_boto3:
                raise self._without_boto3()
            from sessionstore.backends._s3_client import S3Client

            if _process.lost:
                _log.warning(
                    "obstore does not work in a process that was forked after it was used: %s is "
                    "asked by boto3 here. Open the store after the fork.",
                    self.options.url,
                )
            with _process.lock:
                if self._spare is None:
                    self._spare = S3Client(for_boto3(self.options))
                    self._spare.opening = self._opening
        return self._spare

    def _without_boto3(self) -> Exception:
        if _process.lost:
            return BackendUnavailable(
                f"Could not ask {self.options.url}: obstore does not work in a process that was "
                "forked after it was used. Open the store after the fork, or install boto3 for "
                "such processes: pip install 'sessionstore[s3]'."
            )
        return SettingsError(
            "engine=obstore signs URLs and looks after unfinished uploads by boto3, which is not "
            "installed: pip install 'sessionstore[s3]'."
        )

    # Asking

    @property
    def _store(self) -> S3Store:
        if self._made is None:
            with _process.lock:
                if self._made is None:
                    _process.used = True
                    self._made = make_store(self.options, self._authority)
        return self._made

    @property
    def _written_with(self) -> Mapping[str, Any]:
        return {"attributes": self._extras.attributes, "tags": self._extras.tags}

    def _asking(self, method: str) -> _Asking:
        """Around a request: what fails is an error of ours."""
        if self._closed:
            doing = TASKS[method].doing
            raise BackendUnavailable(
                f"Could not {doing} in {self.options.url}: the store is closed."
            )
        return _Asking(self, method)

    def ours(self, error: Exception, method: str) -> Exception:
        """The error to raise instead."""
        return ours(error, TASKS[method], self._place, opening=self._opening)


class _Asking:
    """A context that translates errors, around every request: a generator takes thrice as long."""

    __slots__ = ("_client", "_method")

    def __init__(self, client: ObstoreClient, method: str) -> None:
        self._client = client
        self._method = method

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, _FAILURES):
            raise self._client.ours(error, self._method) from error


class _Body(io.RawIOBase):
    """The bytes of an answer, as they come, their errors translated.

    ``left`` is how many there are: to ask for more behind the last takes as long as for some.
    """

    def __init__(self, chunks: Iterator[Buffer], left: int, client: ObstoreClient) -> None:
        self._chunks: Iterator[Buffer] | None = chunks
        self._left = left
        self._client = client
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return self.readall()
        if not self._rest and size:
            self._rest = self._next()
        part, self._rest = self._rest[:size], self._rest[size:]
        return bytes(part)

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.read(PIECE), b""))

    def readinto(self, buffer: Buffer, /) -> int:
        into = memoryview(buffer).cast("B")
        data = self.read(len(into))
        into[: len(data)] = data
        return len(data)

    def _next(self) -> memoryview:
        if self._chunks is None or self._left <= 0:
            return memoryview(b"")
        try:
            for chunk in self._chunks:
                if data := memoryview(chunk):
                    self._left -= len(data)
                    return data
        except _FAILURES as error:
            raise self._client.ours(error, "get_object") from error
        return memoryview(b"")

    def close(self) -> None:
        """Give the connection back."""
        self._chunks = None
        super().close()


def _range(start: int, length: int | None) -> Any:
    if length is not None:
        return {"range": (start, start + length)}
    return {"range": {"offset": start}} if start else None


def _just_before(prefix: str) -> str:
    """A key that no key of the store lies between, and the first that begins with ``prefix``.

    Keys have no "~", and what obstore makes of it sorts before that only.
    """
    return f"{prefix[:-1]}{chr(ord(prefix[-1]) - 1)}~"
