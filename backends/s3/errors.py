"""The table of S3's errors: from a failed request to the error to raise, with its remedy.

The error code of the store's response selects the row, then the HTTP status; without a response
it is the name of the exception's class. Names, because the versions of botocore have different
classes. The codes are those of Amazon's "Error responses" page and of stores that add their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from sessionstore.errors import SessionStoreError
from sessionstore.parsers import show_duration

from ..objects.client import NotFound
from ..objects.engine import ErrorRow, by_class, one_line


class Task(NamedTuple):
    """A request: ``doing`` completes "Could not ..."; ``missing`` are the codes of NotFound."""

    operation: str
    doing: str
    permission: str
    missing: tuple[str, ...] = ()


TASKS: Mapping[str, Task] = {
    "put_object": Task("PutObject", "save an object", "s3:PutObject"),
    "get_object": Task("GetObject", "read an object", "s3:GetObject", ("NoSuchKey",)),
    "list_objects_v2": Task("ListObjectsV2", "list the objects", "s3:ListBucket"),
    "delete_object": Task("DeleteObject", "delete an object", "s3:DeleteObject"),
    "delete_objects": Task("DeleteObjects", "delete objects", "s3:DeleteObject"),
    "create_multipart_upload": Task("CreateMultipartUpload", "begin an upload", "s3:PutObject"),
    "upload_part": Task("UploadPart", "upload a part", "s3:PutObject", ("NoSuchUpload",)),
    "complete_multipart_upload": Task(
        "CompleteMultipartUpload", "complete an upload", "s3:PutObject", ("NoSuchUpload",)
    ),
    "abort_multipart_upload": Task(
        "AbortMultipartUpload", "abort an upload", "s3:AbortMultipartUpload", ("NoSuchUpload",)
    ),
    "list_multipart_uploads": Task(
        "ListMultipartUploads",
        "list unfinished uploads",
        "s3:ListBucketMultipartUploads",
        ("NoSuchUpload",),  # rclone sends it for a bucket without uploads
    ),
    "generate_presigned_url": Task("GetObject", "sign a URL", "s3:GetObject"),
}
"""Every request of a store, by the name of the boto3 client's method."""


_NO_BUCKET = ErrorRow(
    "there is no bucket {bucket!r}; create it, or set url to one that exists", setting=True
)
_DENIED = ErrorRow(
    "the credentials lack the permission {permission}; grant it, or use other credentials",
    setting=True,
)
_FORBIDDEN = ErrorRow(
    "the store forbids it ({code}: {detail}); make sure that the credentials have the permission "
    "{permission}",
    setting=True,
)
_REGION = ErrorRow("the bucket is in {region}; set region to that", setting=True)
_MOVED = ErrorRow("it redirects to {location}; set endpoint_url to that", setting=True)
_SKEW = ErrorRow(
    "the clock of this machine differs from the store's{skew}; correct it, with NTP if possible"
)
_BUSY = ErrorRow("the store is overloaded ({code}); try again later, with fewer requests at once")
_TROUBLE = ErrorRow("the store failed ({code}: {detail}); try again later, or read its log")
_UNKNOWN_KEY = ErrorRow(
    "the store does not know the access key; check the credentials and endpoint_url", setting=True
)
_WRONG_SECRET = ErrorRow(
    "the secret key does not match the access key; check the credentials for a typing error",
    setting=True,
)
_EXPIRED = ErrorRow(
    "the credentials have expired; renew them (aws sso login, or a new session token)", setting=True
)
_INVALID_TOKEN = ErrorRow(
    "invalid session token; get a new one, or unset AWS_SESSION_TOKEN if you do not use one",
    setting=True,
)
_KMS = ErrorRow(
    "the KMS key cannot be used ({code}: {detail}); check kms_key_id and the key's policy",
    setting=True,
)
_ARGUMENT = ErrorRow(
    "the store refused an argument ({code}: {detail}); check sse, kms_key_id and put_args",
    setting=True,
)
_UNSUPPORTED = ErrorRow(
    "the store does not know this request ({code}); check that endpoint_url leads to S3",
    setting=True,
)
_FULL = ErrorRow("the store has no space left ({code}); free some, or set max_store", full=True)
_TOO_LARGE = ErrorRow(
    "the object is larger than the store accepts ({code}); set max_file", full=True
)
_REFUSED = ErrorRow("the store answered {code}: {detail}")

CODES: Mapping[str, ErrorRow] = {
    "NoSuchBucket": _NO_BUCKET,
    "InvalidBucketName": _NO_BUCKET,
    "AccessDenied": _DENIED,
    "AccessDeniedException": _DENIED,
    "AllAccessDisabled": _DENIED,
    "AccountProblem": _DENIED,
    "PermanentRedirect": _REGION,
    "TemporaryRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "RequestTimeTooSkewed": _SKEW,
    "RequestExpired": _SKEW,
    "SlowDown": _BUSY,
    "ServiceUnavailable": _BUSY,
    "Throttling": _BUSY,
    "ThrottlingException": _BUSY,
    "RequestLimitExceeded": _BUSY,
    "TooManyRequests": _BUSY,
    "BandwidthLimitExceeded": _BUSY,
    "RequestTimeout": _BUSY,
    "OperationAborted": _BUSY,
    "InternalError": _TROUBLE,
    "InvalidAccessKeyId": _UNKNOWN_KEY,
    "SignatureDoesNotMatch": _WRONG_SECRET,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidToken": _INVALID_TOKEN,
    "KMS.DisabledException": _KMS,
    "KMS.NotFoundException": _KMS,
    "KMS.KMSInvalidStateException": _KMS,
    "KMS.InvalidKeyUsageException": _KMS,
    "InvalidArgument": _ARGUMENT,
    "InvalidRequest": _ARGUMENT,
    "InvalidStorageClass": _ARGUMENT,
    "InvalidEncryptionAlgorithmError": _ARGUMENT,
    "MalformedACLError": _ARGUMENT,
    "AccessControlListNotSupported": _ARGUMENT,
    "MethodNotAllowed": _UNSUPPORTED,
    "NotImplemented": _UNSUPPORTED,
    "EntityTooLarge": _TOO_LARGE,
    "QuotaExceeded": _FULL,
    "XMinioStorageFull": _FULL,
    "XMinioAdminBucketQuotaExceeded": _FULL,
}
"""The row for the error code of the store's response."""

STATUSES: Mapping[int, ErrorRow] = {
    301: _REGION,
    302: _REGION,
    307: _REGION,
    308: _REGION,
    403: _FORBIDDEN,
    405: _UNSUPPORTED,
    408: _BUSY,
    413: _TOO_LARGE,
    429: _BUSY,
    500: _TROUBLE,
    501: _UNSUPPORTED,
    502: _TROUBLE,
    503: _BUSY,
    504: _TROUBLE,
    507: _FULL,
}
"""The row for the HTTP status, if ``CODES`` does not have the code."""

NO_CREDENTIALS = ErrorRow(
    "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, set profile, or "
    "give this machine a role",
    setting=True,
)
_HALF_CREDENTIALS = ErrorRow("the credentials are incomplete: {detail}", setting=True)
_ROLE = ErrorRow(
    "the credentials cannot be obtained: {detail}; check profile and the role", setting=True
)
_PROFILE = ErrorRow(
    "{detail}; set profile (or AWS_PROFILE) to a profile of the AWS configuration", setting=True
)
_CONFIGURATION = ErrorRow("invalid AWS configuration: {detail}", setting=True)
UNREACHABLE = ErrorRow("nothing answers at {endpoint}; check endpoint_url, region and the network")
TIMEOUT = ErrorRow(
    "the store at {endpoint} did not answer in time; try again, or check the network"
)
CUT_OFF = ErrorRow("the connection to {endpoint} broke off; try again, or check the network")
TLS = ErrorRow(
    "the connection to {endpoint} cannot be secured: {detail}; check the https of endpoint_url, "
    "and that AWS_CA_BUNDLE names the authority of its certificate"
)
_PROXY = ErrorRow("{detail}; check HTTPS_PROXY, HTTP_PROXY and NO_PROXY")
_NO_REGION = ErrorRow("no region is set; set region", setting=True)
_BAD_REGION = ErrorRow("{detail}; set region to one such as eu-central-1", setting=True)
_BAD_ENDPOINT = ErrorRow(
    "{detail}; set endpoint_url to a URL such as http://127.0.0.1:9000, and check the bucket's "
    "name and addressing",
    setting=True,
)
_NOT_S3 = ErrorRow("the server at {endpoint} does not speak S3; check endpoint_url", setting=True)
_DAMAGED = ErrorRow("the response was damaged in transit: {detail}; try again")
OTHER = ErrorRow("{detail}")

EXCEPTIONS: Mapping[str, ErrorRow] = {
    "NoCredentialsError": NO_CREDENTIALS,
    "NoAuthTokenError": NO_CREDENTIALS,
    "PartialCredentialsError": _HALF_CREDENTIALS,
    "CredentialRetrievalError": _ROLE,
    "MetadataRetrievalError": _ROLE,
    "RefreshWithMFAUnsupportedError": _ROLE,
    "MissingDependencyException": _ROLE,
    "UnknownCredentialError": _CONFIGURATION,
    "InvalidConfigError": _CONFIGURATION,
    "ConfigParseError": _CONFIGURATION,
    "ConfigNotFound": _CONFIGURATION,
    "InvalidRetryConfigurationError": _CONFIGURATION,
    "InvalidS3UsEast1RegionalEndpointConfigError": _CONFIGURATION,
    "InvalidProxiesConfigError": _CONFIGURATION,
    "InvalidDefaultsMode": _CONFIGURATION,
    "ProfileNotFound": _PROFILE,
    "SSOError": _EXPIRED,
    "LoginError": _EXPIRED,
    "TokenRetrievalError": _EXPIRED,
    "EndpointConnectionError": UNREACHABLE,
    "ConnectTimeoutError": UNREACHABLE,
    "ReadTimeoutError": TIMEOUT,
    "ConnectionClosedError": CUT_OFF,
    "ResponseStreamingError": CUT_OFF,
    "IncompleteReadError": CUT_OFF,
    "ConnectionError": CUT_OFF,
    "OSError": CUT_OFF,
    "SSLError": TLS,
    "ProxyConnectionError": _PROXY,
    "NoRegionError": _NO_REGION,
    "InvalidRegionError": _BAD_REGION,
    "UnknownRegionError": _BAD_REGION,
    "BaseEndpointResolverError": _BAD_ENDPOINT,
    "EndpointProviderError": _BAD_ENDPOINT,
    "InvalidEndpointConfigurationError": _BAD_ENDPOINT,
    "ParamValidationError": _BAD_ENDPOINT,  # botocore checks only the bucket's name here
    "InvalidHostLabelError": _BAD_ENDPOINT,
    "ValueError": _BAD_ENDPOINT,  # botocore's "Invalid endpoint"
    "ResponseParserError": _NOT_S3,
    "FlexibleChecksumError": _DAMAGED,
    "ChecksumError": _DAMAGED,
    "Exception": OTHER,
}
"""The row for the name of the exception's class, or of its nearest base class."""

_action = re.compile(r"perform: ([a-z0-9-]+:[A-Za-z]+)").search
_host_region = re.compile(r"\bs3[.-]([a-z]{2,}(?:-[a-z]+)+-\d)\.").search


@dataclass(frozen=True, slots=True)
class ErrorContext:
    """The store, for messages: its URL, its bucket and its server."""

    url: str
    bucket: str
    endpoint: str


def translate(
    error: Exception, task: Task, place: ErrorContext, *, opening: bool
) -> SessionStoreError | NotFound:
    """Return the error to raise in place of boto3's ``error``."""
    from botocore.exceptions import ClientError  # the table serves engines without botocore too

    if not isinstance(error, ClientError):
        row = by_class(EXCEPTIONS, error)
        return error_for(row, task, place, {"detail": one_line(error)}, opening=opening)
    response: Mapping[str, Any] = error.response
    code = str(response.get("Error", {}).get("Code", ""))
    # A request of another operation is one of STS, which botocore sends to get credentials.
    if error.operation_name != task.operation:
        detail = f"{error.operation_name} was answered {code}"
        return error_for(_ROLE, task, place, {"detail": detail}, opening=opening)
    if code in task.missing:
        return NotFound(code)
    return from_response(response, task, place, opening=opening)


def from_response(
    response: Mapping[str, Any], task: Task, place: ErrorContext, *, opening: bool
) -> SessionStoreError:
    """Return the error to raise when the store refused the request.

    ``response`` has the form of a ClientError's ``response``.
    """
    error = response.get("Error", {})
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code, detail = str(error.get("Code") or status), str(error.get("Message") or "nothing more")
    permission, region, location = _action(detail), _region(response), _location(response)
    facts = {
        "code": code,
        "detail": " ".join(detail.split()).removesuffix("."),
        "permission": permission[1] if permission else task.permission,
        "region": f"the region {region}" if region else "another region",
        "location": location or "",
        "skew": _skew(response),
    }
    row = CODES.get(code) or STATUSES.get(status) or _REFUSED
    if row is _REGION and not region and location:
        row = _MOVED
    return error_for(row, task, place, facts, opening=opening)


def not_s3(task: Task, place: ErrorContext, *, opening: bool) -> SessionStoreError:
    """Return the error to raise for a response that S3 would not send."""
    return error_for(_NOT_S3, task, place, {}, opening=opening)


def error_for(
    row: ErrorRow, task: Task, place: ErrorContext, facts: Mapping[str, str], *, opening: bool
) -> SessionStoreError:
    """Return the error of ``row``, with the ``facts`` of the failure in its message."""
    facts = {**facts, "bucket": place.bucket, "endpoint": place.endpoint}
    return row.error(task.doing, place.url, facts, opening=opening)


def _headers(response: Mapping[str, Any]) -> Mapping[str, str]:
    headers: Mapping[str, str] = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return headers


def _region(response: Mapping[str, Any]) -> str | None:
    """Return the region of the bucket; None if the response does not name it."""
    error = response.get("Error", {})
    host = _host_region(str(error.get("Endpoint", "")))
    region = error.get("Region") or _headers(response).get("x-amz-bucket-region")
    return region or (host[1] if host else None)


def _location(response: Mapping[str, Any]) -> str | None:
    """Return the server that a redirect leads to; None if the response is no redirect."""
    parts = urlsplit(_headers(response).get("location", ""))
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else None


def _skew(response: Mapping[str, Any]) -> str:
    """Return " by " and the difference of the clocks; empty if the response has no valid Date."""
    try:
        date = parsedate_to_datetime(_headers(response)["date"])
        seconds = round(abs((datetime.now(UTC) - date).total_seconds()))
        return f" by {show_duration(timedelta(seconds=seconds))}"
    except (KeyError, ValueError, TypeError):
        return ""
