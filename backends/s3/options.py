"""The settings of an S3 store: the parser of each, and the rules for their combinations."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from sessionstore import parsers
from sessionstore.errors import SettingsError
from sessionstore.model import Location
from sessionstore.parsers import Parser

PREFIX_LENGTH = 120
"""The most bytes of a prefix: a key of S3 has up to 1,024, the store needs up to 900 of them."""

PUT_ARGS: Mapping[str, type] = {
    "ACL": str,
    "BucketKeyEnabled": bool,
    "CacheControl": str,
    "ExpectedBucketOwner": str,
    "GrantFullControl": str,
    "GrantRead": str,
    "GrantReadACP": str,
    "GrantWriteACP": str,
    "Metadata": dict,
    "SSEKMSEncryptionContext": str,
    "StorageClass": str,
    "Tagging": str,
}
"""Arguments of both PutObject and CreateMultipartUpload that no later request must repeat."""

_ENCRYPTIONS = ("AES256", "aws:kms", "aws:kms:dsse")

_is_bucket = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]").fullmatch
_is_region = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?").fullmatch


def region(value: object) -> str:
    """Parse a region: a valid label of a host name, because boto3 makes one of it."""
    if not _is_region(parsers.text(value)):
        raise ValueError("write a region such as eu-central-1")
    return parsers.text(value)


def endpoint_url(value: object) -> str:
    """Parse the URL of a server other than Amazon's."""
    text = parsers.text(value)
    parts = urlsplit(text)  # raises ValueError for brackets without an IPv6 address
    try:
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is not a number; urlsplit's message would not help the user
        whole = False
    if not whole or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("write a URL such as http://127.0.0.1:9000 or https://s3.example.org")
    return text.rstrip("/")


def put_args(value: object) -> Mapping[str, Any]:
    """Parse the arguments for every object that is written: a table, or JSON as text."""
    try:
        arguments = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        arguments = None
    if not isinstance(arguments, Mapping):
        raise ValueError(  # noqa: TRY004 - parsers raise ValueError only
            'write a table, or JSON such as {"StorageClass": "STANDARD_IA"}'
        )
    for name, argument in arguments.items():
        if name not in PUT_ARGS:
            raise ValueError(f"the argument {name} is unknown; choose from {', '.join(PUT_ARGS)}")
        if not isinstance(argument, PUT_ARGS[name]):
            kind = PUT_ARGS[name].__name__
            raise ValueError(f"{name} takes a {kind}")  # noqa: TRY004 - parsers raise ValueError only
    return dict(arguments)


OPTIONS: Mapping[str, Parser] = {
    "region": region,
    "endpoint_url": endpoint_url,
    "profile": parsers.text,
    "access_key_id": parsers.text,
    "secret_access_key": parsers.text,
    "session_token": parsers.text,
    "addressing": parsers.choice("auto", "path", "virtual"),
    "sse": parsers.choice(*_ENCRYPTIONS),
    "kms_key_id": parsers.text,
    "put_args": put_args,
}
"""The settings of an S3 store, in addition to those of every object store."""


@dataclass(frozen=True, slots=True)
class Options:
    """The URL and settings of a store. Raises SettingsError when they contradict each other."""

    url: str
    bucket: str
    prefix: str
    """Empty, or it ends in "/"."""

    region: str | None = None
    endpoint_url: str | None = None
    profile: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    addressing: str | None = None
    sse: str | None = None
    kms_key_id: str | None = None
    put_args: Mapping[str, Any] = field(default_factory=dict)
    ca_bundle: str | None = None
    """A file of certificate authorities for boto3, in place of its default; not a setting."""

    @classmethod
    def of(cls, location: Location, options: Mapping[str, Any]) -> Self:
        """Return the options of the store at ``location``; ignore those that are not of S3."""
        own = {name: options[name] for name in OPTIONS if name in options}
        return cls(location.url, _bucket(location), _prefix(location), **own)

    def __post_init__(self) -> None:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise SettingsError("access_key_id and secret_access_key belong together: set both.")
        if self.session_token is not None and self.access_key_id is None:
            raise SettingsError(
                "session_token needs access_key_id and secret_access_key: set these too."
            )
        if self.profile is not None and self.access_key_id is not None:
            raise SettingsError(
                "profile and access_key_id are two sources of credentials: set one of them and "
                "leave the other out."
            )
        if self.kms_key_id is not None and self.sse in {None, "AES256"}:
            raise SettingsError("kms_key_id needs an sse that uses KMS keys: set sse=aws:kms.")

    @property
    def arguments(self) -> dict[str, Any]:
        encryption = {"ServerSideEncryption": self.sse, "SSEKMSKeyId": self.kms_key_id}
        return {**self.put_args, **{k: v for k, v in encryption.items() if v is not None}}


def _bucket(location: Location) -> str:
    bucket = location.netloc
    if "@" in bucket:
        why = (
            "it must not hold credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "access_key_id and secret_access_key."
        )
    elif bucket.endswith("--x-s3"):
        why = "a directory bucket does not list its keys in order; use a general purpose bucket."
    elif not _is_bucket(bucket):
        why = (
            f"{bucket!r} is not a bucket name; write s3://bucket/prefix, and set endpoint_url if "
            "the server is not Amazon's."
        )
    else:
        return bucket
    raise SettingsError(f"invalid url={location.url!r}: {why}")


def _prefix(location: Location) -> str:
    path = location.path.strip("/")
    if not path.isprintable() or (path and {"", ".", ".."} & {*path.split("/")}):
        why = (
            "a prefix must not have empty segments, the segments '.' and '..', or control "
            "characters; write s3://bucket/one/two."
        )
    elif len(path.encode(errors="replace")) > PREFIX_LENGTH:
        why = f"its prefix is longer than {PREFIX_LENGTH} bytes; write a shorter one."
    else:
        return f"{path}/" if path else ""
    raise SettingsError(f"invalid url={location.url!r}: {why}")
