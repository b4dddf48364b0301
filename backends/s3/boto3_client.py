"""The requests of the object protocol, made with boto3."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, BinaryIO, ClassVar, cast

import urllib3
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from sessionstore._streams import ReadStream
from sessionstore.content import CHUNK
from sessionstore.errors import BackendUnavailable, SettingsError

from ..objects.client import Download, Entry, NotFound, Page, Part, Payload, Upload
from ..objects.connection import Client, Connection
from ..objects.errors import CLOSED
from .boto3_session import Warmer, make_client, parse_date
from .errors import TASKS, from_boto3, from_response, not_s3
from .options import Options

SMALL = 1 << 16
"""Bytes up to which a body is sent from memory and hashed first, which takes 30 us at most."""

_FAILURES = (BotoCoreError, ClientError, ResponseParserError)

Response = Mapping[str, Any]


class S3Client:
    """One prefix of one bucket. A method makes one request, plus its retries and redirects.

    While the store is being opened, a failure that another setting cures is a SettingsError.
    """

    shows_date: ClassVar[bool] = True
    at_once: int = 2
    """Parts in parallel: a second request hides the hashing and the round trip of the first.

    On a server that was short of processors, four requests took longer than one.
    """

    def __init__(self, options: Options, *, warm: bool = True) -> None:
        """``warm``: keep some idle connections open."""
        self.options = options
        self._warm = warm
        self._warmer: Warmer | None = None
        self.opening = True
        self.region: str | None = options.region
        self._closed = False
        self.connection: Connection = Connection(self._make)

    def put(self, key: str, payload: Payload) -> datetime | None:
        body = payload.read() if payload.size <= SMALL else payload.open()
        digest = bytes.fromhex(payload.sha256) if payload.sha256 else None
        if digest is None and isinstance(body, bytes):
            digest = hashlib.sha256(body).digest()
        checksum = _base64("ChecksumSHA256", digest) if digest else self._md5(payload)
        return _date(self._put("put_object", key, Body=body, **checksum))

    def get(self, key: str, start: int = 0, length: int | None = None) -> Download:
        wanted = _range(start, length)
        response = self._object_request("get_object", key, **wanted)
        stream = _Body(response["Body"], lambda error: from_boto3(error, TASKS["get_object"], self))
        if wanted and "ContentRange" not in response:
            # rclone, for example, may send the whole object
            while start and (data := stream.read(min(start, CHUNK))):
                start -= len(data)
        elif wanted and not response["ContentRange"].startswith(f"bytes {start}-"):
            stream.close()
            raise BackendUnavailable(
                f"Could not read an object in {self.options.url}: the request was for the bytes "
                f"from {start}, the response has {response['ContentRange']!r}; check the proxy or "
                "cache in front of the store."
            )
        etag = partial(response.get, "ETag", "")
        return Download(cast("BinaryIO", stream), etag, _date(response))

    def list(self, prefix: str, *, start_after: str = "", page_size: int = 1000) -> Iterator[Page]:
        own = len(self.options.prefix)
        after = {"StartAfter": f"{self.options.prefix}{start_after}"} if start_after else {}
        while True:
            response = self._list(prefix, MaxKeys=page_size, **after)
            entries = [
                Entry(item["Key"][own:], item["Size"], item["LastModified"])
                for item in response.get("Contents", ())
            ]
            yield Page(entries, _date(response))
            if not response["IsTruncated"]:
                return
            after = self._next(response, after, ContinuationToken="NextContinuationToken")

    def delete(self, keys: Sequence[str]) -> datetime | None:
        if len(keys) == 1:
            return _date(self._object_request("delete_object", keys[0]))
        objects = [{"Key": f"{self.options.prefix}{key}"} for key in keys]
        response = self._request("delete_objects", Delete={"Objects": objects, "Quiet": True})
        for error in response.get("Errors", ()):
            if error.get("Code") != "NoSuchKey":
                raise from_response({"Error": error}, TASKS["delete_objects"], self)
        return _date(response)

    def begin(self, key: str) -> str:
        return str(self._put("create_multipart_upload", key)["UploadId"])

    def upload_part(self, key: str, upload: str, number: int, payload: Payload) -> Part:
        response = self._object_request(
            "upload_part", key, UploadId=upload, PartNumber=number, Body=payload.open(),
            **self._md5(payload),
        )  # fmt: skip
        return Part(number, str(response["ETag"]))

    def complete(self, key: str, upload: str, parts: Sequence[Part]) -> datetime | None:
        uploaded = [{"PartNumber": part.number, "ETag": part.etag} for part in parts]
        try:
            response = self._object_request(
                "complete_multipart_upload", key, UploadId=upload,
                MultipartUpload={"Parts": uploaded},
            )  # fmt: skip
        except NotFound:
            # The upload was aborted, or it is complete already: botocore retries a request when
            # the response was lost. The key tells which, since no other writer uses it.
            page = next(self.list(key, page_size=1))
            if key not in {entry.key for entry in page.entries}:
                raise
            return page.date
        return _date(response)

    def abort(self, key: str, upload: str) -> None:
        with suppress(NotFound):
            self._object_request("abort_multipart_upload", key, UploadId=upload)

    def uploads(self, prefix: str) -> Iterator[Upload]:
        own = len(self.options.prefix)
        after: dict[str, str] = {}
        while True:
            try:
                response = self._request(
                    "list_multipart_uploads", Prefix=f"{self.options.prefix}{prefix}", **after
                )
            except NotFound:
                return
            for item in response.get("Uploads", ()):
                yield Upload(item["Key"][own:], item["UploadId"], item["Initiated"])
            if not response.get("IsTruncated"):
                return
            after = self._next(
                response, after, KeyMarker="NextKeyMarker", UploadIdMarker="NextUploadIdMarker"
            )

    def close(self) -> None:
        self._closed = True
        self._disconnect()

    # Operations of S3 beyond the object protocol

    def probe(self, key: str) -> None:
        """Implement ``Engine.probe`` with one listing request.

        It also settles the region, which the signature of a URL contains: if none is set, take the
        region that the store reports for the bucket. Raises SettingsError if another one is set.
        """
        response = self._list(key, MaxKeys=1)
        actual = response["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
        if actual is None or actual == self.connection.client.meta.region_name:
            return
        if self.options.region is not None:
            raise SettingsError(
                f"invalid region={self.options.region!r}: the bucket {self.options.bucket!r} is in "
                f"{actual!r}; set region to that."
            )
        self.region = actual
        self._disconnect()

    def sign(self, key: str, *, media_type: str, disposition: str, expires: timedelta) -> str:
        headers = {"ResponseContentType": media_type, "ResponseContentDisposition": disposition}
        return self._sign("get_object", key, expires, headers)

    def sign_part(self, key: str, upload: str, number: int, size: int, expires: timedelta) -> str:
        """Return a presigned URL that takes a part of exactly ``size`` bytes by PUT."""
        # The length is a signed header: a store that checks signatures refuses any other body.
        bound = {"UploadId": upload, "PartNumber": number, "ContentLength": size}
        return self._sign("upload_part", key, expires, bound)

    def parts(self, key: str, upload: str) -> Iterator[tuple[Part, int]]:
        """Yield the parts of an upload with their sizes, 1,000 a request. Raises NotFound."""
        after: dict[str, str] = {}
        while True:
            response = self._object_request("list_parts", key, UploadId=upload, **after)
            for part in response.get("Parts", ()):
                yield Part(part["PartNumber"], part["ETag"]), part["Size"]
            if not response.get("IsTruncated"):
                return
            after = self._next(response, after, PartNumberMarker="NextPartNumberMarker")

    @property
    def signer(self) -> S3Client:
        """Return the client that signs URLs."""
        return self

    # Requests

    def _sign(self, method: str, key: str, expires: timedelta, bound: Mapping[str, Any]) -> str:
        """Return a presigned URL for a request with the parameters ``bound``."""
        place = {"Bucket": self.options.bucket, "Key": f"{self.options.prefix}{key}"}
        arguments = {"ClientMethod": method, "Params": {**place, **bound}}
        seconds = int(expires.total_seconds())
        return str(self._send("generate_presigned_url", **arguments, ExpiresIn=seconds))

    def _md5(self, payload: Payload) -> dict[str, str]:
        """Return the checksum argument for a body without a known digest; none for TLS.

        MD5, because SHA-256 of parts must be announced when the upload begins, which some stores do
        not support. It protects against damage in transit, not against an attacker.
        """
        if not (self.options.endpoint_url or "").startswith("http:"):
            return {}
        digest = hashlib.md5(usedforsecurity=False)
        body = payload.open()
        while chunk := body.read(CHUNK):
            digest.update(chunk)
        return _base64("ContentMD5", digest.digest())

    def _make(self) -> Client:
        client = make_client(self.options, self.region)
        if self._warm:
            self._warmer = Warmer(client)
            self._warmer.start()
        return client

    def _disconnect(self) -> None:
        if self._warmer is not None:
            self._warmer.stop()
        self.connection.close()

    def _list(self, prefix: str, **arguments: Any) -> Response:
        method = "list_objects_v2"
        response = self._request(method, Prefix=f"{self.options.prefix}{prefix}", **arguments)
        if "IsTruncated" not in response:  # botocore reads a web page as an empty listing
            raise not_s3(TASKS[method], self)
        return response

    # Each of these adds arguments and calls the next: ``_put`` those of written objects,
    # ``_object_request`` the key, ``_request`` the bucket. ``_send`` translates errors.

    def _put(self, method: str, key: str, **arguments: Any) -> Response:
        return self._object_request(method, key, **self.options.arguments, **arguments)

    def _object_request(self, method: str, key: str, **arguments: Any) -> Response:
        return self._request(method, Key=f"{self.options.prefix}{key}", **arguments)

    def _request(self, method: str, **arguments: Any) -> Response:
        response: Response = self._send(method, Bucket=self.options.bucket, **arguments)
        return response

    def _send(self, method: str, **arguments: Any) -> Any:
        if self._closed:
            raise CLOSED.error(TASKS[method].doing, self.options.url, {}, opening=False)
        try:
            client = self.connection.client
        except (*_FAILURES, ValueError) as error:  # ValueError: "Invalid endpoint"
            raise from_boto3(error, TASKS[method], self) from error
        if self._warmer is not None:
            self._warmer.used = time.monotonic()
        try:
            return getattr(client, method)(**arguments)
        except _FAILURES as error:
            raise from_boto3(error, TASKS[method], self) from error

    def _next(self, response: Response, after: Mapping[str, str], **markers: str) -> dict[str, str]:
        """Return the arguments that request the page after ``response``.

        ``after`` are those that requested ``response``. ``markers`` maps the names of the arguments
        to the fields of the response that hold them. Raises BackendUnavailable when the listing
        does not continue, since a part of a listing must never pass for the whole.
        """
        following = {name: str(response.get(marker, "")) for name, marker in markers.items()}
        missing = [marker for name, marker in markers.items() if not following[name]]
        if missing or following == after:
            how = f"without {missing[0]}" if missing else "at the place where the page began"
            raise BackendUnavailable(
                f"Could not list the objects in {self.options.url}: the listing breaks off {how}; "
                "check endpoint_url."
            )
        return following


class _Body(ReadStream):
    """The body of a response. It translates errors, and a body that is too short is an error.

    Closing it returns the connection to the pool, or closes it if the body was not read to its end.
    """

    def __init__(self, body: Any, translate: Callable[[Exception], Exception]) -> None:
        self._stream = body
        self._translate = translate

    def _take(self, size: int | None) -> bytes:
        try:
            data: bytes = self._stream.read(size)
        except (BotoCoreError, urllib3.exceptions.HTTPError, OSError) as error:
            raise self._translate(error) from error
        return data

    def readall(self) -> bytes:
        return self._take(None)


def _base64(name: str, digest: bytes) -> dict[str, str]:
    return {name: base64.b64encode(digest).decode()}


def _range(start: int, length: int | None) -> dict[str, str]:
    if length is not None:
        return {"Range": f"bytes={start}-{start + length - 1}"}
    return {"Range": f"bytes={start}-"} if start else {}


def _date(response: Response) -> datetime | None:
    """Return the Date of a response, from the store's clock; None without one, as moto may send."""
    date = response["ResponseMetadata"]["HTTPHeaders"].get("date")
    return None if date is None else parse_date(date)
