"""A store in a bucket of Amazon S3, or of any server that speaks its protocol, by boto3.

    s3://bucket/prefix?region=eu-central-1
    s3://bucket/prefix?endpoint_url=http://127.0.0.1:9000

The protocol is ``ObjectBackend``'s. Credentials are found as boto3 finds them everywhere (the
environment, the shared files, SSO, a role of the machine), unless settings name them. docs/s3.md
has the settings, the permissions that are needed and what every error means.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import ClassVar, Self

from sessionstore.backend import Location, Reference
from sessionstore.backends import objects_keys as keys
from sessionstore.backends._s3_client import S3Client
from sessionstore.backends._s3_options import OPTIONS, Options
from sessionstore.backends.objects import ObjectBackend
from sessionstore.clock import Clock
from sessionstore.values import Parser

__all__ = ["S3Backend", "S3Client"]

SHORTEST, LONGEST = timedelta(seconds=1), timedelta(minutes=5)
"""What a signed URL may be good for: S3 counts seconds, and nobody can take it back."""


class S3Backend(ObjectBackend):
    """Files in S3, safe with any number of processes and machines on one bucket.

    Options: those of every object store (``grace``, ``digest``), and

    * ``region``; by default boto3's, else the one that the bucket says it is in,
    * ``endpoint_url`` of a server that is not Amazon's,
    * ``profile``, or ``access_key_id`` and ``secret_access_key`` (and ``session_token``),
    * ``addressing``: ``path``, ``virtual`` or ``auto``, boto3's choice, the default,
    * ``sse`` and ``kms_key_id``: encryption other than the bucket's own,
    * ``put_args``: more arguments for every object that is written, such as StorageClass.
    """

    options: ClassVar[Mapping[str, Parser]] = {**ObjectBackend.options, **OPTIONS}

    client: S3Client

    @classmethod
    def open_client(cls, location: Location, options: Mapping[str, object]) -> S3Client:
        client = S3Client(Options.of(location, options))
        try:
            client.probe(keys.LAYOUT)
        except BaseException:
            client.close()
            raise
        return client

    @classmethod
    def connect(cls, location: Location, options: Mapping[str, object], clock: Clock) -> Self:
        backend = super().connect(location, options, clock)
        backend.client.opening = False
        return backend

    def url(
        self,
        sid: str,
        reference: Reference,
        *,
        media_type: str,
        disposition: str,
        expires: timedelta,
    ) -> str:
        """``SignsUrls.url``. No request: whether the file is there is not looked at."""
        if not SHORTEST <= expires <= LONGEST:
            raise ValueError(f"A signed URL is good for 1 second to 5 minutes: expires={expires}.")
        blob = keys.blob(reference.digest, keys.generation(reference.token))
        return self.client.sign(
            blob, media_type=media_type, disposition=disposition, expires=expires
        )
