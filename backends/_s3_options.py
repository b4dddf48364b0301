"""The settings of an S3 store: how each is read, and what they come to together."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from sessionstore import values
from sessionstore.backend import Location
from sessionstore.errors import SettingsError
from sessionstore.values import Parser

PREFIX_LENGTH = 120
"""Bytes of the longest prefix: S3's keys have 1,024, the store's own take 900 of them."""

PUT_ARGS = {
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
"""What both PutObject and CreateMultipartUpload take and no later request has to repeat."""

_ENCRYPTIONS = ("AES256", "aws:kms", "aws:kms:dsse")

_is_bucket = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]").fullmatch
_is_region = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?").fullmatch


def region(value: object) -> str:
    """A parser of a region's name: a host name's label, since it becomes one."""
    if not _is_region(values.text(value)):
        raise ValueError("write a region such as eu-central-1")
    return values.text(value)


def endpoint_url(value: object) -> str:
    """A parser of where a store other than Amazon's is."""
    text = values.text(value)
    parts = urlsplit(text)  # a ValueError for brackets that are no IPv6 address
    try:
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port that is no number, in words that fit no sentence
        whole = False
    if not whole or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("write a URL such as http://127.0.0.1:9000 or https://s3.example.org")
    return text.rstrip("/")


def put_args(value: object) -> Mapping[str, Any]:
    """A parser of arguments for every object that is written: a table, or JSON as text."""
    try:
        told = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        told = None
    if not isinstance(told, Mapping):
        raise ValueError(  # noqa: TRY004 - parsers raise ValueError only
            'write a table, or JSON such as {"StorageClass": "STANDARD_IA"}'
        )
    for key, each in told.items():
        if key not in PUT_ARGS:
            raise ValueError(f"{key} is none of {', '.join(PUT_ARGS)}")
        if not isinstance(each, PUT_ARGS[key]):
            kind = PUT_ARGS[key].__name__
            raise ValueError(f"{key} takes a {kind}")  # noqa: TRY004 - parsers raise ValueError only
    return dict(told)


OPTIONS: Mapping[str, Parser] = {
    "region": region,
    "endpoint_url": endpoint_url,
    "profile": values.text,
    "access_key_id": values.text,
    "secret_access_key": values.text,
    "session_token": values.text,
    "addressing": values.choice("auto", "path", "virtual"),
    "sse": values.choice(*_ENCRYPTIONS),
    "kms_key_id": values.text,
    "put_args": put_args,
}
"""Each setting of an S3 store, besides those of every object store."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a URL and its settings say. Raises SettingsError for what does not go together."""

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
    """A file of authorities for boto3 to trust in place of its own choice; not a setting."""

    @classmethod
    def of(cls, location: Location, options: Mapping[str, Any]) -> Self:
        """The options of a store; those of ``options`` that are no business of S3's are left."""
        own = {name: options[name] for name in OPTIONS if name in options}
        return cls(location.url, _bucket(location), _prefix(location), **own)

    def __post_init__(self) -> None:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise SettingsError("access_key_id and secret_access_key go together: set both.")
        if self.session_token is not None and self.access_key_id is None:
            raise SettingsError(
                "session_token goes with access_key_id and secret_access_key: set these too."
            )
        if self.profile is not None and self.access_key_id is not None:
            raise SettingsError(
                "profile and access_key_id both say who asks: set one of them and leave the other "
                "out."
            )
        if self.kms_key_id is not None and self.sse in {None, "AES256"}:
            raise SettingsError("kms_key_id needs a sse that uses keys of KMS: set sse=aws:kms.")

    @property
    def arguments(self) -> dict[str, Any]:
        """What goes with every object that is written."""
        encryption = {"ServerSideEncryption": self.sse, "SSEKMSKeyId": self.kms_key_id}
        return {**self.put_args, **{k: v for k, v in encryption.items() if v is not None}}


def _bucket(location: Location) -> str:
    bucket = location.netloc
    if "@" in bucket:
        raise SettingsError(
            f"url={location.url!r} is not right: credentials do not stand in it; set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or access_key_id and secret_access_key."
        )
    if bucket.endswith("--x-s3"):
        raise SettingsError(
            f"url={location.url!r} is not right: a directory bucket lists its keys in no order; "
            "use a general purpose bucket."
        )
    if not _is_bucket(bucket):
        raise SettingsError(
            f"url={location.url!r} is not right: {bucket!r} is no name of a bucket; write "
            "s3://bucket/prefix, and set endpoint_url to the server if it is not Amazon's."
        )
    return bucket


def _prefix(location: Location) -> str:
    path = location.path.strip("/")
    if not path:
        return ""
    segments = path.split("/")
    if not path.isprintable() or {"", ".", ".."} & {*segments}:
        raise SettingsError(
            f"url={location.url!r} is not right: a prefix has neither empty segments nor dots "
            "alone nor control characters; write s3://bucket/one/two."
        )
    if len(path.encode(errors="replace")) > PREFIX_LENGTH:
        raise SettingsError(
            f"url={location.url!r} is not right: its prefix is longer than {PREFIX_LENGTH} bytes; "
            "write a shorter one."
        )
    return f"{path}/"
