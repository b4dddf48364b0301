"""The boto3 client of a store, and the settings of its connections."""

from __future__ import annotations

import ssl
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Final

import boto3
import botocore.session
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config
from botocore.exceptions import NoCredentialsError, ProfileNotFound
from botocore.handlers import add_expect_header
from botocore.utils import determine_content_length, parse_timestamp

from ..objects.connection import Client
from .options import Options

CONNECTIONS = 128
"""The most idle connections: as many as the requests of all threads of a store at once."""

WARM = 4
"""Idle connections that are kept open: as many as one save uses at the same time."""

TICK = 1.0
"""Seconds between two looks at the idle connections."""

REST = 300.0
"""Seconds without a request after which connections are left to close."""

TTL = timedelta(minutes=9)
"""The time for which obstore keeps credentials; botocore renews them 10 minutes before they end."""

PROMPT = 16 << 20
"""Bytes up to which a body is sent together with its headers, without Expect: 100-continue.

botocore asks for the store's permission before every body, which takes a round trip for each save
and each part. For a larger body it keeps doing so: a refusal then saves more than a round trip.
"""

CONNECT_TIMEOUT = 5
"""Seconds; a connection within a region takes milliseconds, one around the world 0.3 s."""

READ_TIMEOUT = 60
"""Seconds without a byte: botocore's default, and far above S3's 99.9th percentile."""

parse_date: Final[Callable[[str], datetime]] = lru_cache(maxsize=16)(parsedate_to_datetime)
"""Parse the date of an HTTP header. The responses of one second have the same one."""

ATTEMPTS = 4
"""Attempts of a request that may be retried, the first included.

botocore waits 0.5, 1 and 2 s between them on average.
"""


def read_files(options: Options) -> Mapping[str, Any]:
    """Return the profile of the store in the AWS configuration files; empty if it is missing."""
    with suppress(ProfileNotFound):
        return dict(botocore.session.Session(profile=options.profile).get_scoped_config())
    return {}


def credentials(options: Options) -> Any:
    """Return a provider for obstore of the credentials that boto3 finds, and of its region.

    Raises botocore's errors.
    """
    from obstore.auth.boto3 import Boto3CredentialProvider

    session = boto3.Session(profile_name=options.profile, region_name=options.region)
    if session.get_credentials() is None:
        raise NoCredentialsError
    provider = Boto3CredentialProvider(session, ttl=TTL)
    provider()  # an error is raised here, not in obstore's threads
    return provider


class Warmer(threading.Thread):
    """A thread that keeps ``WARM`` idle connections of boto3's client open, until ``stop``.

    A store closes a connection that is idle for some seconds, and opening one takes a round trip,
    with TLS two or three. So this thread opens it again before a request needs it. ``used`` is the
    time of the last request; after ``REST`` seconds without one, nothing is opened. botocore has no
    interface for this: where its pools are elsewhere, nothing is kept open.
    """

    def __init__(self, client: Client) -> None:
        super().__init__(name="sessionstore-warm", daemon=True)
        self.used: float = time.monotonic()
        self._client = weakref.ref(client)
        self._over = threading.Event()
        self.stop: Final = self._over.set

    def run(self) -> None:
        while not self._over.wait(TICK) and (client := self._client()) is not None:
            if time.monotonic() - self.used < REST:
                manager = getattr(client._endpoint.http_session, "_manager", None)  # noqa: SLF001 - see above
                pools = getattr(manager, "pools", {})
                for key in pools.keys():  # noqa: SIM118 - it refuses to be iterated over
                    with suppress(Exception):  # whatever it is, the next request meets it too
                        reopen(pools.get(key))


def reopen(pool: Any) -> None:
    """Open connections until ``WARM`` of the idle ones in ``pool``, of urllib3, are open."""
    idle = pool.pool  # a queue of connections, and of None for each that may be opened later
    with idle.mutex:
        missing = WARM - sum(not _is_closed(each) for each in idle.queue)
    for _ in range(missing):
        connection = pool._new_conn()  # noqa: SLF001 - see ``Warmer``
        connection.connect()
        with idle.mutex:
            places = [at for at, each in enumerate(idle.queue) if _is_closed(each)]
            if places and pool.pool is idle:
                old, idle.queue[places[-1]] = idle.queue[places[-1]], connection
                connection = old
        if connection is not None:
            connection.close()


def _is_closed(connection: Any) -> bool:
    """Return whether the ``connection`` is not made or was closed by the store.

    After a handshake of TLS 1.3 the store sends tickets, and urllib3 takes a connection with unread
    bytes for closed. To read consumes the tickets, and tells the two apart.
    """
    if connection is None or connection.sock is None:
        return True
    timeout = connection.sock.gettimeout()
    try:
        connection.sock.settimeout(0)
        connection.sock.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        connection.sock.settimeout(timeout)
        return False
    except OSError:
        return True
    return True


def make_client(options: Options, region: str | None) -> Client:
    """Return a client for the store, made in a new boto3 session."""
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
    client.meta.events.unregister("before-call.s3", add_expect_header)
    client.meta.events.register("before-call.s3", _expect)
    return client


def timestamp(value: Any) -> datetime:
    """Parse a time in a response. S3 writes two forms: one in listings, one in headers.

    botocore's own parser tries all known forms, which is two thirds of the CPU time of a listing.
    """
    if isinstance(value, str):
        with suppress(ValueError):
            if value.endswith("Z"):
                return datetime.fromisoformat(value)
            if value.endswith(" GMT"):
                return parse_date(value)
    return parse_timestamp(value)


def _expect(model: Any, params: dict[str, Any], **_: object) -> None:
    """Wait for the permission to send a body of more than ``PROMPT`` bytes, as botocore does."""
    if (determine_content_length(params.get("body")) or 0) > PROMPT:
        add_expect_header(model, params)


def _not_sent(**_: object) -> tuple[AWSResponse, dict[str, Any]]:
    """Return a made-up response to HeadBucket, which botocore sends after a redirect.

    botocore sends it when the redirect does not name the region, which S3 always does. Any other
    server that redirects, such as a proxy from http to https, redirects the HEAD as well, and
    botocore would recurse until the stack overflows.
    """
    return AWSResponse("", 301, HTTPHeaders(), None), {"ResponseMetadata": {"HTTPHeaders": {}}}


def _config(options: Options, user_agent: str) -> Config:
    # TLS or the digest that is sent protects the body. To hash it again for the signature would
    # double the cost of a large save.
    s3: Any = {"payload_signing_enabled": False}
    if options.addressing is not None:
        s3["addressing_style"] = options.addressing
    return Config(
        signature_version="s3v4",  # the default for URLs in us-east-1 is version 2, of 2006
        s3=s3,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        parameter_validation=False,
        user_agent=user_agent,  # else botocore builds it for each request: a tenth of the CPU
        max_pool_connections=CONNECTIONS,
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        tcp_keepalive=True,
    )
