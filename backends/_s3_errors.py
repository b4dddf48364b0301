"""What a failing request becomes: one table, from botocore's error to ours and what to do.

A row is found by the error code of the store's answer, else by its HTTP status, or by the name of
the exception where there was no answer. Names, because versions of botocore differ in what they
have. The codes are those of Amazon's "Error responses" page and of the stores that add their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from sessionstore.backends.objects_client import NotFound
from sessionstore.errors import BackendUnavailable, LimitExceeded, SessionStoreError, SettingsError
from sessionstore.values import show_duration


class Task(NamedTuple):
    """What a request is for: completes "Could not ..."; ``missing`` are codes of NotFound."""

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
        ("NoSuchUpload",),  # rclone, of a bucket that has none
    ),
    "generate_presigned_url": Task("GetObject", "sign a URL", "s3:GetObject"),
}
"""Each request that is made, by the name of the client's method."""


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


_NO_BUCKET = Row(
    "there is no bucket {bucket!r}; create it, or set url to one that is there", setting=True
)
_DENIED = Row(
    "the credentials lack the permission {permission} on it; have it granted, or use others",
    setting=True,
)
_FORBIDDEN = Row(
    "the store forbids it ({code}: {detail}); see that the credentials have the permission "
    "{permission}",
    setting=True,
)
_REGION = Row("the bucket is in {region}; set region to that", setting=True)
_MOVED = Row("it redirects to {location}; set endpoint_url to that", setting=True)
_SKEW = Row("this machine's clock differs from the store's{skew}; set it right, by NTP for example")
_BUSY = Row("the store has too much to do ({code}); try again later, with fewer requests at once")
_TROUBLE = Row("the store failed ({code}: {detail}); try again later, or look into its log")
_UNKNOWN_KEY = Row(
    "the store does not know the access key; check the credentials and endpoint_url", setting=True
)
_WRONG_SECRET = Row(
    "the secret key does not fit the access key; check the credentials for a typing error",
    setting=True,
)
_EXPIRED = Row(
    "the credentials have expired; renew them (aws sso login, or a new session token)", setting=True
)
_INVALID_TOKEN = Row(
    "the session token is not valid; get a new one, or unset AWS_SESSION_TOKEN if there is none",
    setting=True,
)
_KMS = Row(
    "the KMS key cannot be used ({code}: {detail}); check kms_key_id and the key's policy",
    setting=True,
)
_ARGUMENT = Row(
    "the store refused an argument ({code}: {detail}); check sse, kms_key_id and put_args",
    setting=True,
)
_UNSUPPORTED = Row(
    "the store does not know this request ({code}); check that endpoint_url leads to S3",
    setting=True,
)
_FULL = Row("the store has no room left ({code}); free some, or set max_store", full=True)
_TOO_LARGE = Row("the object is larger than the store takes ({code}); set max_file", full=True)
_REFUSED = Row("the store answered {code}: {detail}")

CODES: Mapping[str, Row] = {
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
"""By the code of the store's answer."""

STATUSES: Mapping[int, Row] = {
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
"""By the status of an answer whose code is none of those."""

NO_CREDENTIALS = Row(
    "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, set profile, or "
    "give this machine a role",
    setting=True,
)
_HALF_CREDENTIALS = Row("the credentials are incomplete: {detail}", setting=True)
_ROLE = Row("the credentials cannot be had: {detail}; check profile and the role", setting=True)
_PROFILE = Row(
    "{detail}; set profile (or AWS_PROFILE) to one in the AWS configuration", setting=True
)
_CONFIGURATION = Row("the AWS configuration is not right: {detail}", setting=True)
UNREACHABLE = Row("nothing answers at {endpoint}; check endpoint_url, region and the network")
TIMEOUT = Row("the store at {endpoint} did not answer in time; try again, or check the network")
CUT_OFF = Row("the connection to {endpoint} broke off; try again, or check the network")
TLS = Row(
    "the connection to {endpoint} cannot be secured: {detail}; check that endpoint_url is right "
    "about https, and that AWS_CA_BUNDLE names the authority of its certificate"
)
_PROXY = Row("{detail}; check HTTPS_PROXY, HTTP_PROXY and NO_PROXY")
_NO_REGION = Row("no region is known; set region", setting=True)
_BAD_REGION = Row("{detail}; set region to one such as eu-central-1", setting=True)
_BAD_ENDPOINT = Row(
    "{detail}; set endpoint_url to a URL such as http://127.0.0.1:9000, and check the bucket's "
    "name and addressing",
    setting=True,
)
_NOT_S3 = Row("what answers at {endpoint} is not S3; check endpoint_url", setting=True)
_DAMAGED = Row("the answer was damaged on its way: {detail}; try again")
OTHER = Row("{detail}")

EXCEPTIONS: Mapping[str, Row] = {
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
    "ParamValidationError": _BAD_ENDPOINT,  # of a bucket's name: nothing else is looked at
    "InvalidHostLabelError": _BAD_ENDPOINT,
    "ValueError": _BAD_ENDPOINT,  # botocore's "Invalid endpoint"
    "ResponseParserError": _NOT_S3,
    "FlexibleChecksumError": _DAMAGED,
    "ChecksumError": _DAMAGED,
    "Exception": OTHER,
}
"""By the name of the exception's class, or of the nearest class above it."""

_action = re.compile(r"perform: ([a-z0-9-]+:[A-Za-z]+)").search
_host_region = re.compile(r"\bs3[.-]([a-z]{2,}(?:-[a-z]+)+-\d)\.").search


@dataclass(frozen=True, slots=True)
class Place:
    """Which store it is, for messages."""

    url: str
    bucket: str
    endpoint: str


def ours(
    error: Exception, task: Task, place: Place, *, opening: bool
) -> SessionStoreError | NotFound:
    """The error to raise instead."""
    from botocore.exceptions import ClientError  # the table serves engines without botocore too

    if not isinstance(error, ClientError):
        names = (each.__name__ for each in type(error).__mro__)
        row = next(EXCEPTIONS[name] for name in names if name in EXCEPTIONS)
        return made(row, task, place, {"detail": _one_line(error)}, opening=opening)
    told: Mapping[str, Any] = error.response
    code = str(told.get("Error", {}).get("Code", ""))
    if error.operation_name != task.operation:  # of STS, on the way to credentials
        detail = f"{error.operation_name} was answered {code}"
        return made(_ROLE, task, place, {"detail": detail}, opening=opening)
    if code in task.missing:
        return NotFound(code)
    return refused(told, task, place, opening=opening)


def refused(
    told: Mapping[str, Any], task: Task, place: Place, *, opening: bool
) -> SessionStoreError:
    """The error to raise for an answer that says no; ``told`` is a ClientError's ``response``."""
    error = told.get("Error", {})
    status = int(told.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code, detail = str(error.get("Code") or status), str(error.get("Message") or "nothing more")
    said, region, location = _action(detail), _region(told), _location(told)
    facts = {
        "code": code,
        "detail": " ".join(detail.split()).removesuffix("."),
        "permission": said[1] if said else task.permission,
        "region": f"the region {region}" if region else "another region",
        "location": location or "",
        "skew": _skew(told),
    }
    row = CODES.get(code) or STATUSES.get(status) or _REFUSED
    if row is _REGION and not region and location:
        row = _MOVED
    return made(row, task, place, facts, opening=opening)


def not_s3(task: Task, place: Place, *, opening: bool) -> SessionStoreError:
    """The error to raise for an answer that S3 would not give."""
    return made(_NOT_S3, task, place, {}, opening=opening)


def made(
    row: Row, task: Task, place: Place, facts: Mapping[str, str], *, opening: bool
) -> SessionStoreError:
    """The error of a row, in words."""
    doing = "open the store" if opening else task.doing
    why = row.why.format_map({**facts, "bucket": place.bucket, "endpoint": place.endpoint})
    return row.error(opening=opening)(f"Could not {doing} in {place.url}: {why}.")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).removesuffix(".") or type(error).__name__


def _headers(told: Mapping[str, Any]) -> Mapping[str, str]:
    headers: Mapping[str, str] = told.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return headers


def _region(told: Mapping[str, Any]) -> str | None:
    """Where the bucket is, as far as the answer says it."""
    error = told.get("Error", {})
    host = _host_region(str(error.get("Endpoint", "")))
    said = error.get("Region") or _headers(told).get("x-amz-bucket-region")
    return said or (host[1] if host else None)


def _location(told: Mapping[str, Any]) -> str | None:
    """The server that a redirect leads to."""
    parts = urlsplit(_headers(told).get("location", ""))
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else None


def _skew(told: Mapping[str, Any]) -> str:
    """By how much the clocks differ, as far as the answer says it."""
    try:
        date = parsedate_to_datetime(_headers(told)["date"])
        seconds = round(abs((datetime.now(UTC) - date).total_seconds()))
        return f" by {show_duration(timedelta(seconds=seconds))}"
    except (KeyError, ValueError, TypeError):
        return ""
