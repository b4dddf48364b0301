"""The requests of the object protocol, made with obstore, the faster engine.

obstore is written in Rust; a request takes a sixth of the CPU that boto3 needs, and does not hold
the interpreter's lock. It has limits, which docs/s3.md lists; this module works around them:

* It does not expose the headers of a response. To read the store's clock, a small object is written
  now and then.
* It lists whole directories only. A listing of another prefix lists the directory from that prefix
  on and filters the keys.
* It reads a web page, from a proxy for example, as an empty listing. An empty listing is therefore
  accepted only if the store's marker can be read.
* It cannot list or abort uploads, sign a URL with headers, read AWS configuration files, or work in
  the child of a fork, where it can disturb the connections of the parent. boto3 does all of these.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, cast

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from sessionstore._streams import ReadStream
from sessionstore.errors import BackendUnavailable, SessionStoreError, SettingsError

from ..objects.client import BATCH, Download, Entry, NotFound, Page, Payload, Upload
from ..objects.connection import Connection
from ..objects.errors import CLOSED
from ..objects.layout import Marker, is_harmless
from .errors import TASKS, from_boto3, from_obstore
from .obstore_store import (
    extras,
    for_boto3,
    has_own_credentials,
    make_store,
    own_authority,
    refuse_what_it_cannot,
)
from .options import Options

if TYPE_CHECKING:
    from obstore import GetResult
    from typing_extensions import Buffer  # type checkers know it without the package

    from .boto3_client import S3Client

__all__ = ["ObstoreClient"]

WHOLE = 8 << 20
"""Bytes of an object sent in one request: as many as a piece of an upload has.

In parts it would take four requests, and twice the memory.
"""

PART = 5 << 20
"""Bytes of a larger object's parts: S3's least."""

AT_ONCE = 2
"""Parts that are sent in parallel: 15 MiB together with the part that is being filled."""

PARTS = 9_000
"""The most parts, a little under S3's 10,000: beyond 44 GiB the parts grow."""

PIECE = 1 << 20
"""Bytes per read or write between obstore and the stream of the caller."""

_log = logging.getLogger(__name__)

_FAILURES = (BaseError, OSError, ValueError)


class _Process:
    """Records whether obstore works in this process: its threads do not survive a fork.

    ``used``: obstore was used here or in a parent. ``lost``: and the process was forked afterwards.
    """

    used = lost = False

    def forked(self) -> None:
        self.lost = self.used


_process = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.forked)


class ObstoreClient:
    """One prefix of one bucket.

    While the store is being opened, a failure that another setting cures is a SettingsError.
    """

    shows_date: ClassVar[bool] = False
    at_once: int = 2
    """Parallel reads of a long object. obstore itself sends an upload's parts (``AT_ONCE``)."""

    def __init__(self, options: Options) -> None:
        refuse_what_it_cannot(options)
        self.options: Options = options
        self.opening = True
        self.sees_uploads: bool = importlib.util.find_spec("boto3") is not None
        """Whether boto3 is installed, so that ``uploads`` finds those of killed processes."""
        self._closed = False
        self._extras = extras(options)
        self._authority = own_authority()
        self._connection = Connection(self._make)
        self._boto3 = Connection(self._make_boto3)
        self._marker = Marker(self.get, options.url)

    def put(self, key: str, payload: Payload) -> datetime | None:
        if _process.lost:
            return self.boto3.put(key, payload)
        if payload.size <= WHOLE:
            whole = {"use_multipart": False, **self._extras}
            self._call("put_object", obstore.put, key, payload.mapped(), **whole)
            return None
        try:
            self._call("complete_multipart_upload", self._put_in_parts, key, payload)
        except NotFound as error:
            # obstore retried the request because the response was lost, and the upload is
            # complete already if the key exists: no other writer uses this key.
            if not any(entry.key == key for page in self.list(key) for entry in page.entries):
                raise BackendUnavailable(
                    f"The upload of {key} was aborted by another process; save the file again."
                ) from error
        return None

    def _put_in_parts(self, store: S3Store, key: str, payload: Payload) -> None:
        """Upload in parts, which obstore makes; it aborts an upload that fails."""
        size = max(PART, -(-payload.size // PARTS))
        options = {"buffer_size": size, "max_concurrency": AT_ONCE, **self._extras}
        with payload.open() as source, obstore.open_writer(store, key, **options) as writer:
            while chunk := source.read(PIECE):
                writer.write(chunk)

    def get(self, key: str, start: int = 0, length: int | None = None) -> Download:
        if _process.lost:
            return self.boto3.get(key, start, length)
        ignored = 0
        try:
            named = {} if length is None and not start else {"options": _range(start, length)}
            response = self._call("get_object", obstore.get, key, **named)
        except BackendUnavailable as error:
            if "non-partial response" not in str(error):
                raise
            ignored = start  # rclone, for example, may send the whole object
            response = self._call("get_object", obstore.get, key)
        first, end = response.range
        stream = _Body(_chunks(response, end - first), end - first, self)
        while ignored and (data := stream.read(min(ignored, PIECE))):
            ignored -= len(data)
        stream.left = stream.left if length is None else min(stream.left, length)
        return Download(cast("BinaryIO", stream), lambda: response.meta["e_tag"] or "")

    def list(self, prefix: str, *, start_after: str = "", page_size: int = BATCH) -> Iterator[Page]:
        """Yield pages of up to 1,000 objects, a request each; ``page_size`` is ignored."""
        if _process.lost:
            yield from self.boto3.list(prefix, start_after=start_after, page_size=page_size)
            return
        directory, _, rest = prefix.rpartition("/")
        offset = max(start_after, _just_before(prefix)) if rest else start_after
        seen = False
        for entries in self._to_the_end(prefix, directory, offset):
            done = bool(rest) and self._is_past(prefix, entries)
            matching = [e for e in entries if e.key.startswith(prefix)] if rest else entries
            if matching:
                seen = True
                yield Page(matching)
            if done:
                break
        if not seen:
            self._marker.confirm(prefix, opening=self.opening)
            yield Page([])

    def _to_the_end(self, prefix: str, directory: str, offset: str) -> Iterator[Sequence[Entry]]:
        """Yield the pages of ``directory`` after the key ``offset``, to the listing's real end.

        obstore reads an error in a response with status 200 as an empty page, which may end the
        listing after any page. A sweep would then delete content that the missing references use.
        So the end is confirmed: a second listing after the last key must be empty as well.
        """
        pages, last, confirming = self._pages(directory, offset), offset, False
        first_keys: set[str] = set()  # of each listing; the same one twice: there is no progress
        while True:
            page = self._call("list_objects_v2", lambda _, pages=pages: next(pages, ()))
            entries = [Entry(obj["path"], obj["size"], obj["last_modified"]) for obj in page]
            if entries:
                if confirming or not first_keys:
                    if entries[0].key in first_keys:
                        raise self._without_order()
                    first_keys.add(entries[0].key)
                # The last key in the store's order, not always alphabetical (``_is_past``).
                confirming, last = False, entries[-1].key
                yield entries
            if len(entries) < BATCH:  # the last page: each page before it has as many
                if confirming or is_harmless(prefix):
                    return
                pages, confirming = self._pages(directory, last), True

    def _pages(self, directory: str, offset: str) -> Iterator[Sequence[Any]]:
        where = {"prefix": directory or None, "offset": offset or None, "chunk_size": BATCH}
        return iter(self._call("list_objects_v2", obstore.list, **where))

    def _is_past(self, prefix: str, entries: Sequence[Entry]) -> bool:
        """Return whether no key after ``entries`` can begin with ``prefix``.

        Raises BackendUnavailable if the keys are in no order, since then no end can be known.
        """
        keys = [entry.key for entry in entries]
        # SeaweedFS sorts the names of each directory, so that "a/b" comes before "a-b".
        if keys != sorted(keys) and keys != sorted(keys, key=lambda key: key.split("/")):
            raise self._without_order()
        return bool(keys) and keys[-1] > prefix and not keys[-1].startswith(prefix)

    def _without_order(self) -> BackendUnavailable:
        return BackendUnavailable(
            f"Could not list the objects in {self.options.url}: the store does not list them in "
            "order, which engine=obstore needs; set engine=boto3."
        )

    def delete(self, keys: Sequence[str]) -> datetime | None:
        if _process.lost:
            return self.boto3.delete(keys)
        self._call("delete_objects", obstore.delete, list(keys))
        return None

    def abort(self, key: str, upload: str) -> None:
        self.boto3.abort(key, upload)

    def uploads(self, prefix: str) -> Iterator[Upload]:
        if self.sees_uploads:
            yield from self.boto3.uploads(prefix)

    def close(self) -> None:
        self._closed = True
        self._connection.forget()
        self._boto3.close()

    # Operations of S3 beyond the object protocol

    def probe(self, key: str) -> None:
        """Check with a listing that the bucket exists and can be used. Raises SettingsError.

        If no region is set and the listing fails, boto3 finds the region.
        """
        try:
            next(self.list(key))
        except SettingsError:
            if self.options.region is not None or not self.sees_uploads:
                raise
            self.boto3.probe(key)
            if self.boto3.region is None:
                raise
            self.options = replace(self.options, region=self.boto3.region)
            self._connection.forget()
            next(self.list(key))

    def sign(self, key: str, *, media_type: str, disposition: str, expires: timedelta) -> str:
        return self.boto3.sign(key, media_type=media_type, disposition=disposition, expires=expires)

    @property
    def signer(self) -> S3Client:
        """Return the client that signs URLs."""
        return self.boto3

    # boto3, for the requests that obstore cannot make

    @property
    def boto3(self) -> S3Client:
        client: S3Client = self._boto3.client
        client.opening = self.opening
        return client

    def _make_boto3(self) -> S3Client:
        if not self.sees_uploads and _process.lost:
            raise BackendUnavailable(
                f"Could not use {self.options.url}: obstore does not work in a process that was "
                "forked after its first use. Open the store after the fork, or install boto3 for "
                "such processes: pip install 'sessionstore[s3]'."
            )
        if not self.sees_uploads:
            raise SettingsError(
                "engine=obstore needs boto3 to sign URLs and to abort unfinished uploads: "
                "pip install 'sessionstore[s3]'."
            )
        from .boto3_client import S3Client

        if _process.lost:
            _log.warning(
                "obstore does not work in a process that was forked after its first use: boto3 "
                "makes the requests to %s here. Open the store after the fork.",
                self.options.url,
            )
        return S3Client(for_boto3(self.options), warm=_process.lost)

    # Requests

    def _make(self) -> S3Store:
        _process.used = True
        return make_store(self.options, self._authority, self._credentials())

    def _credentials(self) -> Any:
        """Return boto3's credentials; None if obstore is to find them, or if boto3 is missing."""
        if has_own_credentials(self.options):
            return None
        if not self.sees_uploads:
            if self.options.profile is None:
                return None
            raise SettingsError(
                f"invalid profile={self.options.profile!r}: engine=obstore needs boto3 to read the "
                "AWS configuration files: pip install 'sessionstore[s3]'."
            )
        from botocore.exceptions import BotoCoreError, ClientError

        from .boto3_session import credentials

        try:
            return credentials(self.options)
        except (BotoCoreError, ClientError) as error:
            raise from_boto3(error, TASKS["list_objects_v2"], self) from error

    def _call(self, method: str, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Call ``function`` with the store and these arguments; translate its errors.

        Raises BackendUnavailable if the store is closed.
        """
        if self._closed:
            raise CLOSED.error(TASKS[method].doing, self.options.url, {}, opening=False)
        try:
            return function(self._connection.client, *args, **named)
        except SessionStoreError:  # from ``_credentials``
            raise
        except _FAILURES as error:
            raise from_obstore(error, TASKS[method], self) from error


class _Body(ReadStream):
    """The body of a response, as a stream. It translates errors.

    ``left`` is the number of bytes to read. The stream ends there by itself, because to ask obstore
    for a chunk after the last one takes as long as to ask for a real one.
    """

    def __init__(self, chunks: Iterator[Buffer], left: int, client: ObstoreClient) -> None:
        self._chunks = chunks
        self.left = left
        self._client = client
        self._rest = memoryview(b"")

    def _take(self, size: int) -> bytes:
        size = min(size, self.left)
        try:
            while size and not self._rest and (chunk := next(self._chunks, None)) is not None:
                self._rest = memoryview(chunk)
        except _FAILURES as error:
            raise from_obstore(error, TASKS["get_object"], self._client) from error
        part, self._rest = self._rest[:size], self._rest[size:]
        self.left -= len(part)
        return bytes(part)

    def close(self) -> None:
        self._chunks = iter(())  # this gives the connection back to obstore
        super().close()


def _chunks(response: GetResult, size: int) -> Iterator[Buffer]:
    """Yield the bytes of a response; a small one in one piece, which takes less than a stream."""
    if size > PIECE:
        yield from response.stream(min_chunk_size=PIECE)
    else:
        yield response.bytes()


def _range(start: int, length: int | None) -> Any:
    return {"range": {"offset": start} if length is None else (start, start + length)}


def _just_before(prefix: str) -> str:
    """Return a key just before ``prefix``: no key of the store is between the two.

    It ends in "~", which no key of the store has; obstore's encoding of it sorts only before it.
    """
    return f"{prefix[:-1]}{chr(ord(prefix[-1]) - 1)}~"
