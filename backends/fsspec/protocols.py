"""The file systems of fsspec: those that can hold a store, how each is made, and its errors."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import fsspec

from sessionstore.errors import SessionStoreError, SettingsError
from sessionstore.model import Location

from ..objects.engine_parts import ErrorRow, by_class, one_line
from .filesystems import Files, LocalFiles, MemoryFiles

CHAINED = "fsspec+"
"""The prefix of a file system's name in the scheme of a URL."""

PACKAGES: Mapping[str, str] = {
    "s3": "s3fs>=2024",
    "s3a": "s3fs>=2024",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "hf": "huggingface_hub",
    "oss": "ossfs",
}
"""The object stores that meet the needs of the protocol, and the package of each."""

KINDS: Mapping[str, type[Files]] = {
    **dict.fromkeys(PACKAGES, Files),
    "memory": MemoryFiles,
    "file": LocalFiles,
    "local": LocalFiles,
}

_CACHE = "it is a cache, which may show deleted files and miss new ones"
_ARCHIVE = "it does not support writing single files"
_IN_PLACE = (
    "it writes files in place and its times are not from one clock, so a file may be incomplete "
    "and its age is uncertain"
)
_LATE = "its listings may lag behind the writes"
_WRAPPER = "it is a wrapper of another file system; name that one"

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("simplecache", "filecache", "blockcache", "cached"), _CACHE),
    **dict.fromkeys(
        ("zip", "tar", "libarchive", "reference", "git", "github", "gist", "data", "http", "https"),
        _ARCHIVE,
    ),
    **dict.fromkeys(
        ("ftp", "sftp", "ssh", "smb", "webdav", "hdfs", "webhdfs", "dbfs", "jlab",
         "jupyter", "root", "asynclocal"),
        _IN_PLACE,
    ),
    **dict.fromkeys(("gdrive", "dropbox", "box", "wandb", "dvc", "lakefs"), _LATE),
    **dict.fromkeys(("dir", "generic", "asyncwrapper", "dask"), _WRAPPER),
}  # fmt: skip
"""The file systems that cannot hold a store, with the reason."""


@dataclass(frozen=True, slots=True)
class Where:
    """A file system and a path in it. Raises SettingsError if it cannot hold a store."""

    url: str
    protocol: str
    address: str
    """The URL in the form of fsspec."""

    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, location: Location, storage_options: Mapping[str, Any]) -> Self:
        protocol = location.scheme.removeprefix(CHAINED)
        path = f"{location.netloc}{location.path}"
        if not path.strip("/"):
            raise SettingsError(
                f"invalid url={location.url!r}: name a bucket, container or directory, as in "
                f"{location.scheme}://bucket/prefix."
            )
        if wildcards := {"*", "?", "[", "]"} & {*path}:
            raise SettingsError(
                f"invalid url={location.url!r}: {min(wildcards)!r} is a wildcard in a path of "
                "fsspec; use another prefix."
            )
        return cls(location.url, protocol, f"{protocol}://{path}", storage_options)

    def __post_init__(self) -> None:
        if KINDS.get(self.protocol) is LocalFiles and os.name == "nt":
            raise SettingsError(
                f"invalid url={self.url!r}: Windows does not record when a file was renamed; use "
                "file://."
            )
        if (why := REFUSED.get(self.protocol)) is not None:
            raise SettingsError(
                f"invalid url={self.url!r}: the file system {self.protocol!r} cannot hold a store, "
                f"because {why}; use another one, listed in docs/fsspec.md."
            )

    def files(self) -> Files:
        """Return a new instance of the file system. Its errors for wrong settings pass through."""
        kind = self._class()
        files = KINDS.get(self.protocol, Files)
        arguments = {
            **kind._get_kwargs_from_urls(self.address),  # noqa: SLF001 - as fsspec.core itself does
            **files.arguments,
            **self.storage_options,
            "use_listings_cache": False,
            "skip_instance_cache": True,
        }
        return files(kind(**arguments), kind._strip_protocol(self.address))  # noqa: SLF001 - as above

    def warn(self) -> None:
        """Emit a warning if sessionstore was not tested with this file system."""
        if self.protocol not in KINDS:
            warnings.warn(
                f"sessionstore was not tested with the file system {self.protocol!r}. It must show "
                "a file only when it is complete, list a file as soon as it is written, and have "
                "times of the store's clock: check it with sessionstore.doctor first.",
                stacklevel=2,
            )

    def _class(self) -> Any:
        try:
            return fsspec.get_filesystem_class(self.protocol)
        except ImportError as error:
            package = PACKAGES.get(self.protocol, error.name or self.protocol)
            raise SettingsError(
                f"url={self.url!r} needs a package that is not installed: pip install '{package}'."
            ) from error
        except ValueError as error:
            raise SettingsError(
                f"invalid url={self.url!r}: fsspec has no file system {self.protocol!r}; check the "
                "spelling, or install the package that registers it."
            ) from error


# The table of errors. fsspec's file systems raise a fitting OSError where they know one; otherwise
# the error of the library below passes through. The row is selected by a property of the error or
# of one of its causes: the errno, the code of a store's response, or the name of the class.

_FULL = ErrorRow("there is no space left ({detail}); free some, or set max_store", full=True)
_MISSING = ErrorRow(
    "there is no such bucket, container or directory ({detail}); create it, or set url to one "
    "that exists",
    setting=True,
)
_FORBIDDEN = ErrorRow(
    "it is forbidden ({detail}); make sure that the credentials may list, read, write and delete "
    "there",
    setting=True,
)
_NO_CREDENTIALS = ErrorRow(
    "no valid credentials were found ({detail}); set those of this file system, in the environment "
    "or in storage_options",
    setting=True,
)
_CONDITION = ErrorRow("the object was changed while it was read or written ({detail}); try again")
_AWAY = ErrorRow("nothing answers ({detail}); check storage_options and the network")
_SLOW = ErrorRow(
    "the file system did not answer in time ({detail}); try again, or check the network"
)
_ARGUMENTS = ErrorRow(
    "the file system refuses its settings ({detail}); check storage_options", setting=True
)
_OTHER = ErrorRow("{detail}")

ERRNOS: Mapping[int, ErrorRow] = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: _FORBIDDEN,
    errno.ETIMEDOUT: _SLOW,
    errno.ECONNREFUSED: _AWAY,
}
"""The row for the errno of an OSError."""

CODES: Mapping[str, ErrorRow] = {
    "412": _CONDITION,  # s3fs raises OSError(EINVAL) for it, which is too vague
    "PreconditionFailed": _CONDITION,
    "NoSuchBucket": _MISSING,
    "AccessDenied": _FORBIDDEN,
    "403": _FORBIDDEN,
    "InvalidAccessKeyId": _NO_CREDENTIALS,
    "SignatureDoesNotMatch": _NO_CREDENTIALS,
    "ExpiredToken": _NO_CREDENTIALS,
}
"""The row for the code or status of a store's response, as botocore's ClientError has it."""

CLASSES: Mapping[str, ErrorRow] = {
    "FileNotFoundError": _MISSING,
    "PermissionError": _FORBIDDEN,
    "NoCredentialsError": _NO_CREDENTIALS,  # botocore
    "DefaultCredentialsError": _NO_CREDENTIALS,  # google-auth
    "ClientAuthenticationError": _NO_CREDENTIALS,  # azure-core
    "LocalTokenNotFoundError": _NO_CREDENTIALS,  # huggingface_hub
    "FileExpired": _CONDITION,  # s3fs
    "TimeoutError": _SLOW,
    "FSTimeoutError": _SLOW,
    "ReadTimeoutError": _SLOW,
    "EndpointConnectionError": _AWAY,
    "ConnectTimeoutError": _AWAY,
    "ConnectionClosedError": _AWAY,
    "ConnectionError": _AWAY,
    "ClientConnectionError": _AWAY,  # aiohttp
    "ServiceRequestError": _AWAY,  # azure-core
    "TypeError": _ARGUMENTS,
    "Exception": _OTHER,
}
"""The row for the name of the exception's class, or of its nearest base class."""


def translate(error: Exception, doing: str, url: str, *, opening: bool) -> SessionStoreError:
    """Return the error to raise in place of ``error``; ``doing`` completes "Could not ..."."""
    row = next(filter(None, map(_by_code, _causes(error))), None) or by_class(CLASSES, error)
    return row.error(doing, url, {"detail": one_line(error)}, opening=opening)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield ``error`` and the errors below it, each once: a chain may be a circle."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _by_code(error: BaseException) -> ErrorRow | None:
    response: Any = getattr(error, "response", None)
    if isinstance(response, Mapping):
        code = str(response.get("Error", {}).get("Code", ""))
        status = str(response.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
        return CODES.get(code) or CODES.get(status)
    return ERRNOS.get(error.errno or 0) if isinstance(error, OSError) else None
