"""A store in a bucket of Amazon S3, or of any server that speaks the S3 protocol.

    s3://bucket/prefix?region=eu-central-1
    s3://bucket/prefix?endpoint_url=http://127.0.0.1:9000
    s3://bucket/prefix?engine=boto3

obstore makes the requests where it can, else boto3. ``ObjectBackend`` implements the protocol.
boto3 finds the credentials as always (environment, shared files, SSO, role of the machine) unless
settings name them. docs/s3.md lists the settings, the permissions and the errors.
"""

from __future__ import annotations

import importlib.util
import logging
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from importlib import metadata
from typing import TYPE_CHECKING, BinaryIO, ClassVar, NamedTuple, Protocol, Self

from sessionstore import parsers
from sessionstore.clock import Clock
from sessionstore.doctor import Check
from sessionstore.errors import FileNotStored, SettingsError, UploadConflict
from sessionstore.model import Location, Reference
from sessionstore.parsers import Parser

from ..objects import keys
from ..objects.backend import ObjectBackend
from ..objects.client import NotFound, ObjectClient
from .options import OPTIONS, Options

if TYPE_CHECKING:
    from .boto3_client import S3Client

__all__ = ["S3Backend"]

SHORTEST, LONGEST = timedelta(seconds=1), timedelta(minutes=5)
"""The limits of a presigned URL's validity: S3 counts seconds, and it cannot be revoked."""

ENGINES = ("boto3", "obstore")
"""Package names."""

_log = logging.getLogger(__name__)


class Engine(ObjectClient, Protocol):
    """An ``ObjectClient`` that also has the operations of S3 that the backend needs."""

    opening: bool
    """True while the store is being opened: failures that a setting cures are SettingsErrors."""

    def probe(self, key: str) -> None: ...

    def sign(self, key: str, *, media_type: str, disposition: str, expires: timedelta) -> str:
        """Return a presigned URL to GET the object, valid for ``expires``.

        The response has ``media_type`` as Content-Type and ``disposition`` as Content-Disposition.
        """

    @property
    def signer(self) -> S3Client:
        """The client for signed uploads. Raises SettingsError without boto3."""


class Choice(NamedTuple):
    """An engine, and the reason if it was chosen in place of obstore."""

    name: str
    why: str = ""

    def __str__(self) -> str:
        because = f" ({self.why})" if self.why else ""
        with suppress(metadata.PackageNotFoundError):  # frozen programs may have no metadata
            return f"{self.name} {metadata.version(self.name)}{because}"
        return f"{self.name}{because}"


def _is_mocked() -> bool:
    """Return whether moto intercepts botocore's requests, as botocore's "before-send" handler."""
    handlers = getattr(sys.modules.get("botocore.handlers"), "BUILTIN_HANDLERS", ())
    return any(
        event == "before-send" and getattr(handler, "enabled", True)
        for event, handler, *_ in handlers
    )


class S3Backend(ObjectBackend):
    """Files in S3. Any number of processes and machines may share one bucket.

    Options: those of every object store, ``engine``, and those in ``options.py``.
    """

    options: ClassVar[Mapping[str, Parser]] = {
        **ObjectBackend.options,
        "engine": parsers.choice("auto", *ENGINES),
        **OPTIONS,
    }

    client: Engine
    engine: str = ""
    """The package that makes the requests, with its version, for people."""

    @classmethod
    def chosen_engine(cls, location: Location, options: Mapping[str, object]) -> Choice:
        """Return the engine of a store there.

        For "auto" it is obstore, unless boto3 is installed and one of these is true: obstore is not
        installed; moto is active, which intercepts boto3 only, so a test would use the real bucket;
        a setting is one that only boto3 supports.
        """
        engine, own = str(options.get("engine", "auto")), Options.of(location, options)
        if engine != "auto":
            return Choice(engine)
        has = {name: importlib.util.find_spec(name) is not None for name in ENGINES}
        if not any(has.values()):
            raise SettingsError(
                "s3:// stores need obstore or boto3, and none of them is installed: "
                "pip install 'sessionstore[s3]'."
            )
        reason = ""
        if not has["obstore"]:
            reason = "obstore is not installed"
        elif has["boto3"]:
            from .obstore_store import only_boto3

            reason = "moto is active" if _is_mocked() else only_boto3(own)
        return Choice("boto3" if reason else "obstore", reason)

    @classmethod
    def effective(cls, location: Location, options: Mapping[str, object]) -> Mapping[str, object]:
        if options.get("engine", "auto") == "auto":
            with suppress(SettingsError):  # raised when the store is opened
                return {"engine": f"auto: {cls.chosen_engine(location, options)}"}
        return {}

    @classmethod
    def open_client(cls, location: Location, options: Mapping[str, object]) -> Engine:
        choice, own = cls.chosen_engine(location, options), Options.of(location, options)
        client: Engine
        try:
            if choice.name == "obstore":
                from .obstore_client import ObstoreClient

                client = ObstoreClient(own)
            else:
                from .boto3_client import S3Client

                client = S3Client(own)
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"engine={choice.name} needs the module {error.name!r}, which is not installed: "
                "pip install 'sessionstore[s3]'."
            ) from error
        _log.info("%s makes the requests to %s.", choice, location.url)
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
        backend.engine = str(cls.chosen_engine(location, options))
        return backend

    @classmethod
    def examine(cls, location: Location, options: Mapping[str, object]) -> Iterator[Check]:
        choice = cls.chosen_engine(location, options)
        yield Check("engine", "good", f"{choice} makes the requests", choice.name)
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

    def url(self, sid: str, reference: Reference, *, expires: timedelta, **headers: str) -> str:
        """Implement ``SignsUrls.url``. No request: the file may be missing.

        Raises ValueError when ``expires`` is out of range.
        """
        if not SHORTEST <= expires <= LONGEST:
            raise ValueError(f"expires must be from 1 second to 5 minutes (got {expires}).")
        blob = keys.blob(reference.digest, keys.generation(reference.token))
        return self.client.sign(blob, expires=expires, **headers)

    # ``SignsUploads``: an upload is named by its key and the store's id of it.

    def begin_parts(self, sid: str, expires: datetime) -> str:
        key = keys.staged(sid, expires, secrets.token_hex(16))
        return f"{key} {self.client.signer.begin(key)}"

    def part_url(self, upload: str, number: int, size: int, expires: timedelta) -> str:
        key, _, id_ = upload.partition(" ")
        return self.client.signer.sign_part(key, id_, number, size, expires)

    def part_sizes(self, upload: str) -> dict[int, int]:
        key, _, id_ = upload.partition(" ")
        try:
            return {part.number: size for part, size in self.client.signer.parts(key, id_)}
        except NotFound as error:
            raise FileNotStored("the upload") from error

    def join_parts(self, upload: str, sizes: Sequence[int]) -> BinaryIO:
        key, _, id_ = upload.partition(" ")
        signer = self.client.signer
        with suppress(NotFound):  # they are joined already, or gone
            found = list(signer.parts(key, id_))
            wrong = {part.number: size for part, size in found}.items() ^ dict(
                enumerate(sizes, start=1)
            ).items()
            if wrong:
                raise UploadConflict(
                    f"Part {min(wrong)[0]} of the {len(sizes)} is missing, has another size or is "
                    "one too many: send it again, or abort the upload."
                )
            signer.complete(key, id_, [part for part, _ in found])
        try:
            return self._bucket.get(key).stream
        except NotFound as error:
            raise FileNotStored("the upload") from error

    def discard_parts(self, upload: str) -> None:
        key, _, id_ = upload.partition(" ")
        self.client.signer.abort(key, id_)
        self._bucket.delete([key])
