"""A store in a bucket of Amazon S3, or of any server that speaks the S3 protocol.

    s3://bucket/prefix?region=eu-central-1
    s3://bucket/prefix?endpoint_url=http://127.0.0.1:9000
    s3://bucket/prefix?engine=obstore

boto3 makes the requests, or obstore if the user sets ``engine=obstore``. obstore is never the
default, because moto's decorator does not intercept it: a test would use the real bucket.
``ObjectBackend`` implements the protocol. boto3 finds the credentials as always (environment,
shared files, SSO, role of the machine) unless settings name them. docs/s3.md lists the settings,
the permissions and the errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import ClassVar, Protocol, Self

from sessionstore import parsers
from sessionstore.clock import Clock
from sessionstore.doctor import Check
from sessionstore.errors import SettingsError
from sessionstore.model import Location, Reference
from sessionstore.parsers import Parser

from ..objects import keys
from ..objects.backend import ObjectBackend
from ..objects.client import ObjectClient
from .options import OPTIONS, Options

__all__ = ["S3Backend"]

SHORTEST, LONGEST = timedelta(seconds=1), timedelta(minutes=5)
"""The limits of a presigned URL's validity: S3 counts seconds, and it cannot be revoked."""

ENGINES = ("boto3", "obstore")
"""Package names. The extra has the name of the package, except boto3's, which is "s3"."""


class Engine(ObjectClient, Protocol):
    """An ``ObjectClient`` that also has the operations of S3 that the backend needs."""

    opening: bool
    """True while the store is being opened: failures that a setting cures are SettingsErrors."""

    def probe(self, key: str) -> None:
        """Check that the bucket exists and can be listed. Raises SettingsError."""
        ...

    def sign(self, key: str, *, media_type: str, disposition: str, expires: timedelta) -> str:
        """Return a presigned URL to GET the object, valid for ``expires``.

        The response has ``media_type`` as Content-Type and ``disposition`` as Content-Disposition.
        """
        ...


class S3Backend(ObjectBackend):
    """Files in S3. Any number of processes and machines may share one bucket.

    Options: those of every object store, ``engine``, and those in ``options.py``.
    """

    options: ClassVar[Mapping[str, Parser]] = {
        **ObjectBackend.options,
        "engine": parsers.choice(*ENGINES),
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
            from . import doctor as _s3_doctor
        except ModuleNotFoundError:
            words = (
                "versioning, object lock and lifecycle rules are checked with boto3, which is not "
                "installed: pip install 'sessionstore[s3]'"
            )
            yield Check("bucket settings", "unknown", words, "not checked")
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
        """Return a presigned URL, as ``SignsUrls.url`` does. No request: the file may be missing.

        Raises ValueError when ``expires`` is out of range.
        """
        if not SHORTEST <= expires <= LONGEST:
            raise ValueError(f"expires must be from 1 second to 5 minutes (got {expires}).")
        blob = keys.blob(reference.digest, keys.generation(reference.token))
        return self.client.sign(
            blob, media_type=media_type, disposition=disposition, expires=expires
        )


def _engine(name: str, options: Options) -> Engine:
    """Return a client of the engine ``name``. Raises SettingsError if it is not installed."""
    try:
        if name == "obstore":
            from .obstore_client import ObstoreClient

            return ObstoreClient(options)
        from .boto3_client import S3Client

        return S3Client(options)
    except ModuleNotFoundError as error:
        extra = "obstore" if name == "obstore" else "s3"
        raise SettingsError(
            f"engine={name} needs the module {error.name!r}, which is not installed: "
            f"pip install 'sessionstore[{extra}]'."
        ) from error
