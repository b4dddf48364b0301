"""The obstore store of a bucket, made from the same settings as boto3's client.

A setting that obstore does not support is refused here, so that none is silently ignored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from obstore.store import S3Store

from sessionstore.errors import SettingsError

from .options import Options

CONNECT_TIMEOUT = timedelta(seconds=5)
READ_TIMEOUT = timedelta(seconds=60)
"""The time without a byte of the response, as with boto3."""

TIMEOUT = timedelta(days=1)
"""The time for one request with its body. obstore's default, 30 s, is too short for large files."""

RETRIES = 3
RETRY_TIMEOUT = timedelta(minutes=3)

ATTRIBUTES = {"CacheControl": "Cache-Control", "StorageClass": "Storage-Class"}
"""Arguments of ``put_args`` that are attributes of an object for obstore."""

_ONLY_BOTO3 = ("use_fips_endpoint", "use_dualstack_endpoint")
"""Settings of the AWS configuration, or variables, that only boto3 follows."""

_ONLY_IN_FILES = ("ca_bundle", "endpoint_url", "s3", "services")
"""More of them, if they are in the AWS configuration files; obstore gets the variables."""

_FILES = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}

_SUPPORTED = {*ATTRIBUTES, "BucketKeyEnabled", "Metadata", "Tagging"}

_is_changed = re.compile(r"[\\{^}%`\]\">\[~<#|*?]").search
"""Characters that obstore encodes in a key: the two engines would use different keys."""


def refuse_what_it_cannot(options: Options) -> None:
    """Raise SettingsError for a setting that only the boto3 engine supports."""
    for name in options.put_args:
        if name not in _SUPPORTED:
            raise SettingsError(
                f"invalid put_args: engine=obstore cannot send {name}, only "
                f"{', '.join(sorted(_SUPPORTED))}; leave {name} or engine out."
            )
    if (character := _is_changed(options.prefix)) is not None:
        raise SettingsError(
            f"invalid url={options.url!r}: engine=obstore encodes {character[0]!r} in a key; use "
            "another prefix, or leave engine out."
        )


def only_boto3(options: Options) -> str:
    """Return why only boto3 can make the requests, which is installed; empty if obstore can too."""
    if character := _is_changed(options.prefix):
        return f"obstore encodes {character[0]!r} in a key"
    if other := sorted(options.put_args.keys() - _SUPPORTED):
        return f"obstore cannot send {', '.join(other)}"
    if set_ := [name for name in _ONLY_BOTO3 if os.environ.get(f"AWS_{name.upper()}")]:
        return f"obstore does not read AWS_{set_[0].upper()}"
    files = (os.environ.get(variable, path) for variable, path in _FILES.items())
    if any(os.path.exists(os.path.expanduser(path)) for path in files):
        from .boto3_session import read_files

        if set_ := sorted(read_files(options).keys() & {*_ONLY_BOTO3, *_ONLY_IN_FILES}):
            return f"obstore does not read {set_[0]} in the AWS configuration"
    return ""


def has_own_credentials(options: Options) -> bool:
    """Return whether the settings or the environment have keys, which obstore reads itself."""
    variables = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    in_environment = options.profile is None and all(os.environ.get(name) for name in variables)
    return options.access_key_id is not None or in_environment


def extras(options: Options) -> dict[str, Any]:
    """Return the arguments for every object that is written: attributes and tags."""
    given = options.put_args
    attributes = {ATTRIBUTES[name]: given[name] for name in ATTRIBUTES if name in given}
    attributes.update(given.get("Metadata", {}))
    tags = dict(parse_qsl(given.get("Tagging", "")))
    return {"attributes": attributes or None, "tags": tags or None}


def own_authority() -> bytes | None:
    """Return the certificates in the file ``AWS_CA_BUNDLE``, as botocore has it; None if unset.

    obstore trusts them in addition to the authorities of the system or of ``SSL_CERT_FILE``, which
    it reads itself. Raises SettingsError if the file is unreadable or has no certificate.
    """
    path = os.environ.get("AWS_CA_BUNDLE")
    if not path:
        return None
    try:
        with open(path, "rb") as file:
            bundle = file.read()
        if b"-----BEGIN CERTIFICATE-----" in bundle:
            return bundle
        why, cause = "has no certificate", None
    except OSError as error:
        why, cause = f"cannot be read ({error.strerror})", error
    raise SettingsError(
        f"invalid AWS_CA_BUNDLE={path!r}: the file {why}; name a file of certificates in PEM form, "
        "or unset it."
    ) from cause


def for_boto3(options: Options) -> Options:
    """Return the options for the boto3 client beside obstore, with the same authorities.

    botocore reads ``AWS_CA_BUNDLE`` itself. It does not read ``SSL_CERT_FILE``, so this passes it.
    """
    path = None if os.environ.get("AWS_CA_BUNDLE") else os.environ.get("SSL_CERT_FILE")
    return replace(options, ca_bundle=path or None)


def make_store(options: Options, authority: bytes | None = None, provider: Any = None) -> S3Store:
    """Return a store for the bucket and prefix that also trusts the certificates ``authority``.

    ``provider`` gives credentials, if obstore is not to find them itself. Errors of obstore for
    invalid settings pass through.
    """
    given = {
        **_place(options),
        "region": options.region,
        "access_key_id": options.access_key_id,
        "secret_access_key": options.secret_access_key,
        "session_token": options.session_token,
        "server_side_encryption": options.sse,
        "sse_kms_key_id": options.kms_key_id,
        "sse_bucket_key_enabled": options.put_args.get("BucketKeyEnabled"),
    }
    config: Any = {name: value for name, value in given.items() if value is not None}
    if str(config.get("endpoint")).startswith("http:"):
        config["checksum_algorithm"] = "SHA256"  # SeaweedFS does not compare the signed digest
    return S3Store(
        options.bucket,
        prefix=options.prefix.rstrip("/") or None,
        config=config,
        client_options={
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": READ_TIMEOUT,
            "timeout": TIMEOUT,
            "allow_http": True,  # for an endpoint_url with http
            **({"root_certificate": authority} if authority else {}),
        },
        credential_provider=provider,
        retry_config={"max_retries": RETRIES, "retry_timeout": RETRY_TIMEOUT},
    )


def _place(options: Options) -> Mapping[str, Any]:
    variables = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # obstore would not add the bucket
    endpoint = options.endpoint_url or next(filter(None, map(os.environ.get, variables)), None)
    in_host = options.addressing == "virtual" or (
        # As in boto3: virtual at Amazon's, except that no certificate covers dots in the name.
        options.addressing != "path" and endpoint is None and "." not in options.bucket
    )
    if endpoint is not None:
        parts = urlsplit(endpoint.rstrip("/"))
        host = f"{options.bucket}.{parts.netloc}" if in_host else parts.netloc
        endpoint = parts._replace(netloc=host).geturl()
    return {"virtual_hosted_style_request": in_host, "endpoint": endpoint}
