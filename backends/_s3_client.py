"""The requests of the object protocol, by boto3."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, cast

import urllib3
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from sessionstore.backends._connection import Client, Connection
from sessionstore.backends._s3_connection import make_client
from sessionstore.backends._s3_errors import TASKS, Place, not_s3, ours, refused
from sessionstore.backends._s3_options import Options
from sessionstore.backends.objects_client import (
    Download,
    Entry,
    NotFound,
    Page,
    Part,
    Payload,
    Upload,
)
from sessionstore.content import CHUNK
from sessionstore.errors import BackendUnavailable, SettingsError

if TYPE_CHECKING:
    from typing_extensions import Buffer  # type checkers know it without the package

SMALL = 1 << 16
"""Bytes up to which a body is sent from memory and with a digest made for it, 30 us at most."""

_FAILURES = (BotoCoreError, ClientError, ResponseParserError)

Answer = Mapping[str, Any]


class S3Client:
    """One prefix of one bucket. Every method is one request, but for repeated and redirected ones.

    While the store is being opened, errors that another setting cures are SettingsErrors.
    """

    shows_date: ClassVar[bool] = True
    at_once: int = 2
    """A second request hides the digest and the round trip of the first. On a server that is short
    of processors itself, four took longer than one."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.opening = True
        self._region = options.region
        self._closed = False
        self._place = Place(options.url, options.bucket, options.endpoint_url or "Amazon S3")
        self.connection = Connection(self._make)

    def put(self, key: str, payload: Payload) -> datetime | None:
        small = payload.size <= SMALL
        body = payload.read() if small else payload.open()
        digest = bytes.fromhex(payload.sha256) if payload.sha256 else None
        if digest is None and isinstance(body, bytes):
            digest = hashlib.sha256(body).digest()
        known = {"ChecksumSHA256": base64.b64encode(digest).decode()} if digest else None
        checksum = self._guard(payload) if known is None else known
        return _date(self._put("put_object", key, Body=body, **checksum))

    def get(self, key: str, start: int = 0, length: int | None = None) -> Download:
        wanted = _range(start, length)
        answer = self._ask("get_object", key, **wanted)
        stream = _Body(answer["Body"], lambda error: self._ours(error, "get_object"))
        if wanted and "ContentRange" not in answer:
            _skip(stream, start)  # rclone, for one, may answer with the whole
        elif wanted and not answer["ContentRange"].startswith(f"bytes {start}-"):
            stream.close()
            raise BackendUnavailable(
                f"Could not read an object in {self.options.url}: bytes from {start} were asked "
                f"for, and {answer['ContentRange']!r} came; check what stands before the store."
            )
        return Download(cast("BinaryIO", stream), str(answer.get("ETag", "")), _date(answer))

    def list(self, prefix: str, *, start_after: str = "", page_size: int = 1000) -> Iterator[Page]:
        own = len(self.options.prefix)
        after = {"StartAfter": f"{self.options.prefix}{start_after}"} if start_after else {}
        while True:
            answer = self._list(prefix, MaxKeys=page_size, **after)
            entries = [
                Entry(it["Key"][own:], it["Size"], it["LastModified"])
                for it in answer.get("Contents", ())
            ]
            yield Page(entries, _date(answer))
            if not answer["IsTruncated"]:
                return
            after = self._next(answer, after, ContinuationToken="NextContinuationToken")

    def delete(self, keys: Sequence[str]) -> datetime | None:
        if len(keys) == 1:
            return _date(self._ask("delete_object", keys[0]))
        objects = [{"Key": f"{self.options.prefix}{key}"} for key in keys]
        answer = self._call("delete_objects", Delete={"Objects": objects, "Quiet": True})
        for error in answer.get("Errors", ()):
            if error.get("Code") != "NoSuchKey":
                raise refused(
                    {"Error": error}, TASKS["delete_objects"], self._place, opening=self.opening
                )
        return _date(answer)

    def begin(self, key: str) -> str:
        return str(self._put("create_multipart_upload", key)["UploadId"])

    def upload_part(self, key: str, upload: str, number: int, payload: Payload) -> Part:
        answer = self._ask(
            "upload_part", key, UploadId=upload, PartNumber=number, Body=payload.open(),
            **self._guard(payload),
        )  # fmt: skip
        return Part(number, str(answer["ETag"]))

    def complete(self, key: str, upload: str, parts: Sequence[Part]) -> datetime | None:
        made = [{"PartNumber": part.number, "ETag": part.etag} for part in parts]
        try:
            answer = self._ask(
                "complete_multipart_upload", key, UploadId=upload, MultipartUpload={"Parts": made}
            )
        except NotFound:
            # Gone, or complete already: botocore repeats a request whose answer was lost. Nobody
            # else writes this key.
            page = next(self.list(key, page_size=1))
            if key not in {entry.key for entry in page.entries}:
                raise
            return page.date
        return _date(answer)

    def abort(self, key: str, upload: str) -> None:
        try:
            self._ask("abort_multipart_upload", key, UploadId=upload)
        except NotFound:
            return

    def uploads(self, prefix: str) -> Iterator[Upload]:
        own = len(self.options.prefix)
        after: dict[str, str] = {}
        while True:
            try:
                answer = self._call(
                    "list_multipart_uploads", Prefix=f"{self.options.prefix}{prefix}", **after
                )
            except NotFound:
                return
            for it in answer.get("Uploads", ()):
                yield Upload(it["Key"][own:], it["UploadId"], it["Initiated"])
            if not answer.get("IsTruncated"):
                return
            after = self._next(
                answer, after, KeyMarker="NextKeyMarker", UploadIdMarker="NextUploadIdMarker"
            )

    def close(self) -> None:
        self._closed = True
        self.connection.close()

    # Besides the protocol

    def probe(self, key: str) -> None:
        """Ask for a listing, to see that the bucket is there and may be used; one request.

        Settles the region, which a URL has to be signed for: where none was set, it is the one that
        the store says the bucket is in.
        """
        answer = self._list(key, MaxKeys=1)
        there = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
        if there is None or there == self.connection.client.meta.region_name:
            return
        if self.options.region is not None:
            raise SettingsError(
                f"region={self.options.region!r} is not right: the bucket "
                f"{self.options.bucket!r} is in {there!r}; set region to that."
            )
        self._region = there
        self.connection.close()

    def sign(self, key: str, *, media_type: str, disposition: str, expires: timedelta) -> str:
        """A URL that anybody may GET the object by until then. No request."""
        with_headers = {
            "Bucket": self.options.bucket,
            "Key": f"{self.options.prefix}{key}",
            "ResponseContentType": media_type,
            "ResponseContentDisposition": disposition,
        }
        url: str = self._do(
            "generate_presigned_url",
            ClientMethod="get_object",
            Params=with_headers,
            ExpiresIn=int(expires.total_seconds()),
        )
        return url

    # Asking

    def _guard(self, payload: Payload) -> dict[str, str]:
        """What the store checks a body by whose digest is not known. TLS needs none.

        MD5, since a part's SHA-256 would have to be announced when the upload begins, and some
        stores know nothing of that. It guards against accidents on the way.
        """
        if not (self.options.endpoint_url or "").startswith("http:"):
            return {}
        digest = hashlib.md5(usedforsecurity=False)
        body = payload.open()
        while chunk := body.read(CHUNK):
            digest.update(chunk)
        return {"ContentMD5": base64.b64encode(digest.digest()).decode()}

    def _make(self) -> Client:
        return make_client(self.options, self._region)

    def _list(self, prefix: str, **arguments: Any) -> Answer:
        method = "list_objects_v2"
        answer = self._call(method, Prefix=f"{self.options.prefix}{prefix}", **arguments)
        if "IsTruncated" not in answer:  # a web page would pass for an empty bucket
            raise not_s3(TASKS[method], self._place, opening=self.opening)
        return answer

    def _put(self, method: str, key: str, **arguments: Any) -> Answer:
        return self._ask(method, key, **self.options.arguments, **arguments)

    def _ask(self, method: str, key: str, **arguments: Any) -> Answer:
        return self._call(method, Key=f"{self.options.prefix}{key}", **arguments)

    def _call(self, method: str, **arguments: Any) -> Answer:
        answer: Answer = self._do(method, Bucket=self.options.bucket, **arguments)
        return answer

    def _do(self, method: str, **arguments: Any) -> Any:
        if self._closed:
            doing = TASKS[method].doing
            raise BackendUnavailable(
                f"Could not {doing} in {self.options.url}: the store is closed."
            )
        try:
            client = self.connection.client
        except (*_FAILURES, ValueError) as error:  # ValueError: "Invalid endpoint"
            raise self._ours(error, method) from error
        try:
            return getattr(client, method)(**arguments)
        except _FAILURES as error:
            raise self._ours(error, method) from error

    def _ours(self, error: Exception, method: str) -> Exception:
        return ours(error, TASKS[method], self._place, opening=self.opening)

    def _next(self, answer: Answer, after: Mapping[str, str], **markers: str) -> dict[str, str]:
        """Where the next page of a listing begins, whose last one began at ``after``.

        ``markers`` are the names of what the answer tells, by those of what the request says.
        """
        for marker in markers.values():
            if not answer.get(marker):
                raise self._broken_off(f"without {marker}")
        following = {name: str(answer[marker]) for name, marker in markers.items()}
        if following == after:
            raise self._broken_off("where it began")
        return following

    def _broken_off(self, how: str) -> BackendUnavailable:
        return BackendUnavailable(
            f"Could not list the objects in {self.options.url}: the store breaks its listing off "
            f"{how}; check endpoint_url."
        )


class _Body(io.RawIOBase):
    """The bytes of an answer, their errors translated. Ends with an error, not early."""

    def __init__(self, body: Any, translate: Callable[[Exception], Exception]) -> None:
        self._body = body
        self._translate = translate

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            data: bytes = self._body.read(None if size is None or size < 0 else size)
        except (BotoCoreError, urllib3.exceptions.HTTPError, OSError) as error:
            raise self._translate(error) from error
        return data

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Buffer, /) -> int:
        into = memoryview(buffer).cast("B")
        data = self.read(len(into))
        into[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Give the connection back; one that was not read to the end is closed."""
        self._body.close()
        super().close()


def _range(start: int, length: int | None) -> dict[str, str]:
    if length is not None:
        return {"Range": f"bytes={start}-{start + length - 1}"}
    return {"Range": f"bytes={start}-"} if start else {}


def _skip(stream: _Body, count: int) -> None:
    while count and (data := stream.read(min(count, 1 << 20))):
        count -= len(data)


def _date(answer: Answer) -> datetime | None:
    """When the store answered, by its own clock; moto leaves the header out now and then."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return None if date is None else _parsed(date)


@lru_cache(maxsize=16)
def _parsed(date: str) -> datetime:
    """The time in a Date header: all answers of a second have the same, and parsing is slow."""
    return parsedate_to_datetime(date)
