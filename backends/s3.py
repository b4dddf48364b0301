"""A store in a bucket of Amazon S3, or of any server that speaks its protocol.

    s3://bucket/prefix?region=eu-central-1
    s3://bucket/prefix?endpoint_url=http://127.0.0.1:9000
    s3://bucket/prefix?engine=obstore

The requests are made by boto3, or by obstore where the user says so; never by obstore of itself,
because moto's decorator does not reach it and a test would go to the real bucket. The protocol is
``ObjectBackend``'s. Credentials are found as boto3 finds them everywhere (the environment, the
shared files, SSO, a role of the machine), unless settings name them. docs/s3.md has the settings,
the permissions that are needed and what every error means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import ClassVar, Protocol, Self

from sessionstore import values
from sessionstore.backend import Location, Reference
from sessionstore.backends import objects_keys as keys
from sessionstore.backends._s3_options import OPTIONS, Options
from sessionstore.backends.objects import ObjectBackend
from sessionstore.backends.objects_client import ObjectClient
from sessionstore.clock import Clock
from sessionstore.doctor import Check
from sessionstore.errors import SettingsError
from sessionstore.values import Parser

__all__ = ["S3Backend"]

SHORTEST, LONGEST = timedelta(seconds=1), timedelta(minutes=5)
"""What a signed URL may be good for: S3 counts seconds, and nobody can take it back."""


ENGINES = ("boto3", "obstore")
"""Each is the name of the package, and of the extra that installs it but for boto3's, "s3"."""


class Engine(ObjectClient, Protocol):
    """A client that knows S3 besides the protocol."""

    opening: bool
    """Whether the store is being opened: what another setting cures is a SettingsError then."""

    def probe(self, key: str) -> None:
        """See that the bucket is there and may be listed. Raises SettingsError."""
        ...

    def sign(self, key: str, *, media_type: str, disposition: str, expires: timedelta) -> str:
        """A URL that anybody may GET the object by until then, under that type and name."""
        ...


class S3Backend(ObjectBackend):
    """Files in S3, safe with any number of processes and machines on one bucket.

    Options: those of every object store (``grace``, ``digest``), and

    * ``engine``: who makes the requests, ``boto3``, the default, or ``obstore``,
    * ``region``; by default boto3's, else the one that the bucket says it is in,
    * ``endpoint_url`` of a server that is not Amazon's,
    * ``profile``, or ``access_key_id`` and ``secret_access_key`` (and ``session_token``),
    * ``addressing``: ``path``, ``virtual`` or ``auto``, boto3's choice, the default,
    * ``sse`` and ``kms_key_id``: encryption other than the bucket's own,
    * ``put_args``: more arguments for every object that is written, such as StorageClass.
    """

    options: ClassVar[Mapping[str, Parser]] = {
        **ObjectBackend.options,
        "engine": values.choice(*ENGINES),
        **OPTIONS,
    }

    client: Engine

    @classmethod
    def open_client(cls, location: Location, options: Mapping[str, object]) -> Engine:
        client = _engine(str(options.get("engine", ENGINES[0])), Options.of(location, options))
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

    @classmethod
    def examine(cls, location: Location, options: Mapping[str, object]) -> Iterator[Check]:
        yield from super().examine(location, options)
        try:
            from sessionstore.backends import _s3_doctor
        except ModuleNotFoundError:
            words = "only boto3 can ask for its versioning, object lock and lifecycle rules"
            yield Check("bucket settings", "unknown", words, "not told")
        else:
            yield from _s3_doctor.examine(Options.of(location, options))

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


def _engine(name: str, options: Options) -> Engine:
    """The client of that name. Raises SettingsError when its library is not installed."""
    try:
        if name == "obstore":
            from sessionstore.backends.obstore import ObstoreClient

            return ObstoreClient(options)
        from sessionstore.backends._s3_client import S3Client

        return S3Client(options)
    except ModuleNotFoundError as error:
        extra = "obstore" if name == "obstore" else "s3"
        raise SettingsError(
            f"engine={name} needs the module {error.name!r}, which is not installed: "
            f"pip install 'sessionstore[{extra}]'."
        ) from error
