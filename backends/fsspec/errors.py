"""The errors of fsspec's file systems, and the errors to raise in their place.

fsspec's file systems raise a fitting OSError where they know one; otherwise the error of the
library below passes through. The row is selected by a property of the error or of one of its
causes: the errno, the code of a store's response, or the name of the class.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from typing import Any

from sessionstore.errors import SessionStoreError

from ..objects.errors import ErrorRow, by_class, one_line

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
