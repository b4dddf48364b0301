"""What a failing call of a file system becomes: one table, from any library's error to ours.

fsspec has no errors of its own. Its file systems raise OSErrors where they know one that fits, and
let through what the library below raised otherwise. A row is found by what the error or one of its
causes says it is: an errno, the code of a store's answer, or the name of the exception's class.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sessionstore.errors import BackendUnavailable, LimitExceeded, SessionStoreError, SettingsError


@dataclass(frozen=True, slots=True)
class Row:
    """What is wrong and what to do.

    ``setting``: while the store is being opened, this is a SettingsError. ``full``: there is no
    room, which is a LimitExceeded.
    """

    why: str
    setting: bool = False
    full: bool = False

    def error(self, *, opening: bool) -> type[SessionStoreError]:
        if self.full:
            return LimitExceeded
        return SettingsError if self.setting and opening else BackendUnavailable


_FULL = Row("there is no room left ({detail}); free some, or set max_store", full=True)
_MISSING = Row(
    "there is no such bucket, container or directory ({detail}); create it, or set url to one "
    "that is there",
    setting=True,
)
_FORBIDDEN = Row(
    "it is forbidden ({detail}); see that the credentials may list, read, write and delete there",
    setting=True,
)
_NO_CREDENTIALS = Row(
    "there are no credentials that are good for it ({detail}); set those of this file system, in "
    "the environment or in storage_options",
    setting=True,
)
_CONDITION = Row("the object was changed while it was read or written ({detail}); try again")
_AWAY = Row("nothing answers ({detail}); check storage_options and the network")
_SLOW = Row("it did not answer in time ({detail}); try again, or check the network")
_ARGUMENTS = Row(
    "the file system does not take its settings ({detail}); check storage_options", setting=True
)
_OTHER = Row("{detail}")

ERRNOS: Mapping[int, Row] = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: _FORBIDDEN,
    errno.ETIMEDOUT: _SLOW,
    errno.ECONNREFUSED: _AWAY,
}
"""By the errno of an OSError."""

CODES: Mapping[str, Row] = {
    "412": _CONDITION,  # s3fs raises OSError(EINVAL) for it, which tells nothing
    "PreconditionFailed": _CONDITION,
    "NoSuchBucket": _MISSING,
    "AccessDenied": _FORBIDDEN,
    "403": _FORBIDDEN,
    "InvalidAccessKeyId": _NO_CREDENTIALS,
    "SignatureDoesNotMatch": _NO_CREDENTIALS,
    "ExpiredToken": _NO_CREDENTIALS,
}
"""By the code of a store's answer, as botocore's ClientError has it."""

CLASSES: Mapping[str, Row] = {
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
"""By the name of the exception's class, or of the nearest class above it."""


def ours(error: Exception, doing: str, url: str, *, opening: bool) -> SessionStoreError:
    """The error to raise instead; ``doing`` completes "Could not ..."."""
    row = next(filter(None, map(_by_code, _causes(error))), None) or _by_class(error)
    doing = "open the store" if opening else doing
    why = row.why.format(detail=_one_line(error))
    return row.error(opening=opening)(f"Could not {doing} in {url}: {why}.")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _by_code(error: BaseException) -> Row | None:
    told: Any = getattr(error, "response", None)
    if isinstance(told, Mapping):
        code = str(told.get("Error", {}).get("Code", ""))
        status = str(told.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
        return CODES.get(code) or CODES.get(status)
    return ERRNOS.get(error.errno or 0) if isinstance(error, OSError) else None


def _by_class(error: BaseException) -> Row:
    names = (each.__name__ for each in type(error).__mro__)
    return next(CLASSES[name] for name in names if name in CLASSES)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).removesuffix(".") or type(error).__name__
