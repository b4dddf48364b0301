"""The boto3 client of a store."""

from __future__ import annotations

import io
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import boto3
import botocore.session
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config
from botocore.utils import parse_timestamp

from sessionstore.backends._connection import Client
from sessionstore.backends._s3_options import Options

CONNECTIONS = 64
"""Requests that may be under way at once: more than asyncio's default executor has threads."""

CONNECT_TIMEOUT = 5
"""Seconds; a connection within a region takes milliseconds, one around the world 0.3 s."""

READ_TIMEOUT = 60
"""Seconds without a byte: botocore's own, and more than S3's 99.9th percentile by far."""

ATTEMPTS = 4
"""Of a request that may be repeated, the first included; botocore waits 0.5, 1 and 2 s between
them on average."""


def make_client(options: Options, region: str | None) -> Client:
    """A client for the store, in a boto3 session of its own."""
    core = botocore.session.get_session()
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=timestamp)
    session = boto3.Session(
        botocore_session=core,
        profile_name=options.profile,
        aws_access_key_id=options.access_key_id,
        aws_secret_access_key=options.secret_access_key,
        aws_session_token=options.session_token,
        region_name=region,
    )
    client: Client = session.client(
        "s3",
        endpoint_url=options.endpoint_url,
        config=_config(options, core.user_agent()),
        verify=options.ca_bundle,
    )
    client.meta.events.register("before-call.s3.HeadBucket", _not_sent)
    client.meta.events.register_last("before-call.s3.PutObject", _at_once)
    return client


def timestamp(value: Any) -> datetime:
    """A time in an answer, of which S3 writes two forms: in a listing and in a header.

    botocore tries all that anybody writes, which is two thirds of the CPU time of a listing.
    """
    if isinstance(value, str):
        with suppress(ValueError):
            if value.endswith("Z"):
                return datetime.fromisoformat(value)
            if value.endswith(" GMT"):
                return parsedate_to_datetime(value)
    return parse_timestamp(value)


def _at_once(params: dict[str, Any], **_: object) -> None:
    """Send a body that is in memory with its headers, and not after the store has asked for it.

    botocore asks (Expect: 100-continue) before every body, which doubles the messages of a small
    save. For a large one, which comes from a file, it is right to ask.
    """
    if isinstance(params.get("body"), bytes | io.BytesIO):
        params["headers"].pop("Expect", None)


def _not_sent(**_: object) -> tuple[AWSResponse, dict[str, Any]]:
    """The answer to a HEAD of the bucket, which botocore sends on a redirect without a region.

    S3 always names the region. What else redirects, such as a proxy to https, redirects the HEAD
    as well, and botocore goes round in a circle until the stack is full.
    """
    return AWSResponse("", 301, HTTPHeaders(), None), {"ResponseMetadata": {"HTTPHeaders": {}}}


def _config(options: Options, user_agent: str) -> Config:
    # TLS or the digest we send guards the bytes; to hash them once more would double the cost of a
    # large save.
    s3: Any = {"payload_signing_enabled": False}
    if options.addressing is not None:
        s3["addressing_style"] = options.addressing
    return Config(
        signature_version="s3v4",  # or URLs for us-east-1 would be signed in the way of 2006
        s3=s3,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        parameter_validation=False,
        user_agent=user_agent,  # or it is put together anew for every request: a tenth of the CPU
        max_pool_connections=CONNECTIONS,
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        tcp_keepalive=True,
    )
