"""The obstore store of a bucket, made from the same settings as boto3's client.

What obstore cannot do is refused here, so that no setting is passed over in silence.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from obstore.store import S3Store

from sessionstore.backends._s3_options import Options
from sessionstore.errors import SettingsError

CONNECT_TIMEOUT = timedelta(seconds=5)
READ_TIMEOUT = timedelta(seconds=60)
"""As with boto3: without a byte of an answer."""

TIMEOUT = timedelta(days=1)
"""Of one request with its body. obstore has 30 s of its own, in which no large file is read."""

RETRIES = 3
RETRY_TIMEOUT = timedelta(minutes=3)

ATTRIBUTES = {"CacheControl": "Cache-Control", "StorageClass": "Storage-Class"}
"""Arguments of ``put_args`` that obstore calls attributes of an object."""

_DONE = {*ATTRIBUTES, "BucketKeyEnabled", "Metadata", "Tagging"}

_is_changed = re.compile(r"[\\{^}%`\]\">\[~<#|*?]").search
"""Characters that obstore writes otherwise in a key, so that the two engines would not meet."""


@dataclass(frozen=True, slots=True)
class Extras:
    """What goes with every object that is written."""

    attributes: dict[str, str] | None = None
    tags: dict[str, str] | None = field(default=None)


def refuse_what_it_cannot(options: Options) -> None:
    """Raise SettingsError for a setting that only the boto3 engine knows."""
    if options.profile is not None:
        raise SettingsError(
            f"profile={options.profile!r} is not right with engine=obstore, which reads no AWS "
            "configuration files: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, give the "
            "machine a role, or leave engine out."
        )
    for name in options.put_args:
        if name not in _DONE:
            raise SettingsError(
                f"put_args is not right with engine=obstore, which cannot send {name}: it knows "
                f"{', '.join(sorted(_DONE))}; leave it or engine out."
            )
    if (found := _is_changed(options.prefix)) is not None:
        raise SettingsError(
            f"url={options.url!r} is not right with engine=obstore, which writes {found[0]!r} "
            "otherwise in a key: use another prefix, or leave engine out."
        )


def extras(options: Options) -> Extras:
    """What ``put_args`` adds to every object."""
    given = options.put_args
    attributes = {ATTRIBUTES[name]: given[name] for name in ATTRIBUTES if name in given}
    attributes.update(given.get("Metadata", {}))
    tags = dict(parse_qsl(given.get("Tagging", "")))
    return Extras(attributes or None, tags or None)


def own_authority() -> bytes | None:
    """Return the certificates that ``AWS_CA_BUNDLE`` names, as botocore takes them; else None.

    obstore trusts them beside those of the system, or of ``SSL_CERT_FILE``, which it reads itself.
    Raises SettingsError.
    """
    path = os.environ.get("AWS_CA_BUNDLE")
    if not path:
        return None
    try:
        with open(path, "rb") as file:
            bundle = file.read()
    except OSError as error:
        raise SettingsError(
            f"AWS_CA_BUNDLE={path!r} is not right: the file cannot be read ({error.strerror}); "
            "name a file of certificates in PEM form, or unset it."
        ) from error
    if b"-----BEGIN CERTIFICATE-----" not in bundle:
        raise SettingsError(
            f"AWS_CA_BUNDLE={path!r} is not right: no certificate is in the file; name a file of "
            "certificates in PEM form, or unset it."
        )
    return bundle


def for_boto3(options: Options) -> Options:
    """Return the options for the requests that boto3 makes here, with the same authority.

    botocore reads ``AWS_CA_BUNDLE`` itself, and has to be given what ``SSL_CERT_FILE`` names.
    """
    path = None if os.environ.get("AWS_CA_BUNDLE") else os.environ.get("SSL_CERT_FILE")
    return replace(options, ca_bundle=path or None)


def make_store(options: Options, authority: bytes | None = None) -> S3Store:
    """Make a store for the bucket and prefix, which also trusts the ``authority``.

    Raises what obstore raises for settings it cannot read.
    """
    config: Any = {**_place(options), **_credentials(options), **_encryption(options)}
    return S3Store(
        options.bucket,
        prefix=options.prefix.rstrip("/") or None,
        config=config,
        client_options={
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": READ_TIMEOUT,
            "timeout": TIMEOUT,
            "allow_http": True,  # where endpoint_url says so
            **({} if authority is None else {"root_certificate": authority}),
        },
        retry_config={"max_retries": RETRIES, "retry_timeout": RETRY_TIMEOUT},
    )


def _place(options: Options) -> Mapping[str, Any]:
    place: dict[str, Any] = {}
    if options.region is not None:
        place["region"] = options.region
    in_host = options.addressing == "virtual" or (
        # As boto3 has it: virtual at Amazon's, but no certificate is right for dots in the name.
        options.addressing != "path" and options.endpoint_url is None and "." not in options.bucket
    )
    place["virtual_hosted_style_request"] = in_host
    if options.endpoint_url is not None:
        parts = urlsplit(options.endpoint_url)
        host = f"{options.bucket}.{parts.netloc}" if in_host else parts.netloc
        place["endpoint"] = parts._replace(netloc=host).geturl()
    return place


def _credentials(options: Options) -> Mapping[str, str]:
    given = {
        "access_key_id": options.access_key_id,
        "secret_access_key": options.secret_access_key,
        "session_token": options.session_token,
    }
    return {name: each for name, each in given.items() if each is not None}


def _encryption(options: Options) -> Mapping[str, Any]:
    given = {
        "server_side_encryption": options.sse,
        "sse_kms_key_id": options.kms_key_id,
        "sse_bucket_key_enabled": options.put_args.get("BucketKeyEnabled"),
    }
    return {name: each for name, each in given.items() if each is not None}
