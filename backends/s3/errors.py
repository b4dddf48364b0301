"""The table of S3's errors: from a failed request to the error to raise, with its remedy.

The error code of the store's response selects the row, then the HTTP status. Without a response it
is the name of botocore's class (names, because its versions have different classes), or a part of
obstore's text: it has classes for a few kinds of failure only, and its text has the status, the
body of the response and a description of the underlying error. The codes are those of Amazon's
"Error responses" page and of stores that add their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from sessionstore.errors import SessionStoreError
from sessionstore.parsers import show_duration

from ..objects.client import NotFound
from ..objects.errors import ErrorRow, by_class, one_line
from .options import Options


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
    "list_parts": Task(
        "ListParts",
        "list the parts of an upload",
        "s3:ListMultipartUploadParts",
        ("NoSuchUpload",),
    ),
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


CODES: dict[str, ErrorRow] = {}
"""The row for the error code of the store's response."""

STATUSES: dict[int, ErrorRow] = {}
"""The row for the HTTP status, if ``CODES`` does not have the code."""

EXCEPTIONS: dict[str, ErrorRow] = {}
"""The row for the name of botocore's class, or of its nearest base class."""

OBSTORE: dict[str, ErrorRow] = {}
"""The row for a part of obstore's text, if there was no response or an incomplete one."""


def _row(
    why: str,
    codes: str = "",
    classes: str = "",
    obstore: Iterable[str] = (),
    *,
    setting: bool = False,
    full: bool = False,
) -> ErrorRow:
    """Return a row, entered into the tables; ``codes`` may have statuses among its words."""
    row = ErrorRow(why, setting, full)
    for code in codes.split():
        if code.isdigit():
            STATUSES[int(code)] = row
        else:
            CODES[code] = row
    EXCEPTIONS.update(dict.fromkeys(classes.split(), row))
    OBSTORE.update(dict.fromkeys(obstore, row))
    return row


_setting = partial(_row, setting=True)
_full = partial(_row, full=True)

# Responses

_setting(
    "there is no bucket {bucket!r}; create it, or set url to one that exists",
    "NoSuchBucket InvalidBucketName",
)
_setting(
    "the credentials lack the permission {permission}; grant it, or use other credentials",
    "AccessDenied AccessDeniedException AllAccessDisabled AccountProblem",
)
_setting(
    "the store forbids it ({code}: {detail}); make sure that the credentials have the permission "
    "{permission}",
    "403",
)
_REGION = _setting(
    "the bucket is in {region}; set region to that",
    "PermanentRedirect TemporaryRedirect AuthorizationHeaderMalformed "
    "IllegalLocationConstraintException 301 302 307 308",
)
_MOVED = _setting("it redirects to {location}; set endpoint_url to that")
_row(
    "the clock of this machine differs from the store's{skew}; correct it, with NTP if possible",
    "RequestTimeTooSkewed RequestExpired",
)
_row(
    "the store is overloaded ({code}); try again later, with fewer requests at once",
    "SlowDown ServiceUnavailable Throttling ThrottlingException RequestLimitExceeded "
    "TooManyRequests BandwidthLimitExceeded RequestTimeout OperationAborted 408 429 503",
)
_row(
    "the store failed ({code}: {detail}); try again later, or read its log",
    "InternalError 500 502 504",
)
_setting(
    "the store does not know the access key; check the credentials and endpoint_url",
    "InvalidAccessKeyId",
)
_setting(
    "the secret key does not match the access key; check the credentials for a typing error",
    "SignatureDoesNotMatch",
)
_setting(
    "the credentials have expired; renew them (aws sso login, or a new session token)",
    "ExpiredToken ExpiredTokenException TokenRefreshRequired",
    "SSOError LoginError TokenRetrievalError",
)
_setting(
    "invalid session token; get a new one, or unset AWS_SESSION_TOKEN if you do not use one",
    "InvalidToken",
)
_setting(
    "the KMS key cannot be used ({code}: {detail}); check kms_key_id and the key's policy",
    "KMS.DisabledException KMS.NotFoundException KMS.KMSInvalidStateException "
    "KMS.InvalidKeyUsageException",
)
_setting(
    "the store refused an argument ({code}: {detail}); check sse, kms_key_id and put_args",
    "InvalidArgument InvalidRequest InvalidStorageClass InvalidEncryptionAlgorithmError "
    "MalformedACLError AccessControlListNotSupported",
)
_setting(
    "the store does not know this request ({code}); check that endpoint_url leads to S3",
    "MethodNotAllowed NotImplemented 405 501",
)
_full(
    "the store has no space left ({code}); free some, or set max_store",
    "QuotaExceeded XMinioStorageFull XMinioAdminBucketQuotaExceeded 507",
)
_full("the object is larger than the store accepts ({code}); set max_file", "EntityTooLarge 413")
_REFUSED = _row("the store answered {code}: {detail}")

# Requests without a response

_setting(
    "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, set profile, or "
    "give this machine a role",
    classes="NoCredentialsError NoAuthTokenError",
    obstore=["169.254."],  # the metadata server, the last place where it looks
)
_setting("the credentials are incomplete: {detail}", classes="PartialCredentialsError")
_ROLE = _setting(
    "the credentials cannot be obtained: {detail}; check profile and the role",
    classes="CredentialRetrievalError MetadataRetrievalError RefreshWithMFAUnsupportedError "
    "MissingDependencyException",
)
_setting(
    "{detail}; set profile (or AWS_PROFILE) to a profile of the AWS configuration",
    classes="ProfileNotFound",
)
_setting(
    "invalid AWS configuration: {detail}",
    classes="UnknownCredentialError InvalidConfigError ConfigParseError ConfigNotFound "
    "InvalidRetryConfigurationError InvalidS3UsEast1RegionalEndpointConfigError "
    "InvalidProxiesConfigError InvalidDefaultsMode",
)
_row(
    "nothing answers at {endpoint}; check endpoint_url, region and the network",
    classes="EndpointConnectionError ConnectTimeoutError",
    obstore=["kind: Connect"],
)
_row(
    "the store at {endpoint} did not answer in time; try again, or check the network",
    classes="ReadTimeoutError",
    obstore=["kind: Timeout", "TimedOut"],
)
_row(
    "the connection to {endpoint} broke off; try again, or check the network",
    classes="ConnectionClosedError ResponseStreamingError IncompleteReadError ConnectionError "
    "OSError",
    obstore=[
        "kind: Request",
        "kind: Interrupted",
        "kind: Decode",
        "IncompleteBody",
        "ConnectionReset",
    ],
)
_TLS = _row(
    "the connection to {endpoint} cannot be secured: {detail}; check the https of endpoint_url, "
    "and that AWS_CA_BUNDLE names the authority of its certificate",
    classes="SSLError",
)
_row("{detail}; check HTTPS_PROXY, HTTP_PROXY and NO_PROXY", classes="ProxyConnectionError")
_setting("no region is set; set region", classes="NoRegionError")
_setting(
    "{detail}; set region to one such as eu-central-1",
    classes="InvalidRegionError UnknownRegionError",
)
_setting(
    "{detail}; set endpoint_url to a URL such as http://127.0.0.1:9000, and check the bucket's "
    "name and addressing",
    # ParamValidationError: botocore checks only the bucket's name here. ValueError is botocore's
    # "Invalid endpoint".
    classes="BaseEndpointResolverError EndpointProviderError InvalidEndpointConfigurationError "
    "ParamValidationError InvalidHostLabelError ValueError",
)
_NOT_S3 = _setting(
    "the server at {endpoint} does not speak S3; check endpoint_url", classes="ResponseParserError"
)
_row(
    "the response was damaged in transit: {detail}; try again",
    classes="FlexibleChecksumError ChecksumError",
)
_OTHER = _row("{detail}", classes="Exception")

_action = re.compile(r"perform: ([a-z0-9-]+:[A-Za-z]+)").search
_host_region = re.compile(r"\bs3[.-]([a-z]{2,}(?:-[a-z]+)+-\d)\.").search


class FailedClient(Protocol):
    """The client of a request that failed. ``opening``: the store is being opened."""

    options: Options
    opening: bool


def from_boto3(error: Exception, task: Task, client: FailedClient) -> SessionStoreError | NotFound:
    """Return the error to raise in place of boto3's ``error``."""
    from botocore.exceptions import ClientError  # the table serves obstore without botocore too

    if not isinstance(error, ClientError):
        return _error(by_class(EXCEPTIONS, error), task, client, {"detail": one_line(error)})
    response: Mapping[str, Any] = error.response
    code = str(response.get("Error", {}).get("Code", ""))
    # A request of another operation is one of STS, which botocore sends to get credentials.
    if error.operation_name != task.operation:
        detail = f"{error.operation_name} was answered {code}"
        return _error(_ROLE, task, client, {"detail": detail})
    if code in task.missing:
        return NotFound(code)
    return from_response(response, task, client)


def from_response(
    response: Mapping[str, Any], task: Task, client: FailedClient
) -> SessionStoreError:
    """Return the error to raise when the store refused the request.

    ``response`` has the form of a ClientError's ``response``.
    """
    error, metadata = response.get("Error", {}), response.get("ResponseMetadata", {})
    status, headers = int(metadata.get("HTTPStatusCode", 0)), metadata.get("HTTPHeaders", {})
    code, detail = str(error.get("Code") or status), str(error.get("Message") or "nothing more")
    permission, host = _action(detail), _host_region(str(error.get("Endpoint", "")))
    region = error.get("Region") or headers.get("x-amz-bucket-region") or (host and host[1])
    moved = urlsplit(headers.get("location", ""))
    facts = {
        "code": code,
        "detail": " ".join(detail.split()).removesuffix("."),
        "permission": permission[1] if permission else task.permission,
        "region": f"the region {region}" if region else "another region",
        "location": f"{moved.scheme}://{moved.netloc}",
        "skew": _skew(headers),
    }
    row = CODES.get(code) or STATUSES.get(status) or _REFUSED
    if row is _REGION and not region and moved.netloc:
        row = _MOVED
    return _error(row, task, client, facts)


def not_s3(task: Task, client: FailedClient) -> SessionStoreError:
    """Return the error to raise for a response that S3 would not send."""
    return _error(_NOT_S3, task, client, {})


def _error(
    row: ErrorRow, task: Task, client: FailedClient, facts: Mapping[str, str]
) -> SessionStoreError:
    store = client.options
    facts = {**facts, "bucket": store.bucket, "endpoint": store.endpoint_url or "Amazon S3"}
    return row.error(task.doing, store.url, facts, opening=client.opening)


def _skew(headers: Mapping[str, str]) -> str:
    """Return " by " and the difference of the clocks; empty if the response has no valid Date."""
    try:
        date = parsedate_to_datetime(headers["date"])
        seconds = round(abs((datetime.now(UTC) - date).total_seconds()))
        return f" by {show_duration(timedelta(seconds=seconds))}"
    except (KeyError, ValueError, TypeError):
        return ""


# obstore's text

_FACTS = {  # parts of the store's response, as far as the text contains it
    "Status": re.compile(r"status code: (\d{3})").search,
    "Code": re.compile(r"<Code>([^<]+)</Code>|\(code: (\w+)\)|code: \"(\w+)\"").search,
    "Message": re.compile(r"<Message>([^<]*)</Message>").search,
    "Region": re.compile(r"<Region>([^<]+)</Region>").search,
}

_find_refusal = re.compile(r"InvalidCertificate\(\s*(\w+)").search
_is_no_tls = re.compile(r"error: (?:InvalidMessage|AlertReceived|Peer\w+)\b").search
"""The errors of rustls after "kind: Connect": the host answers, but the TLS handshake failed."""

_REFUSALS: Mapping[str, str] = {
    "UnknownIssuer": "its certificate is signed by an authority that is not known",
    "CaUsedAsEndEntity": "its certificate is signed by itself",
    "NotValidForName": "its certificate is for another host",
    "Expired": "its certificate has expired",
    "NotValidYet": "its certificate is not valid yet",
    "Revoked": "its certificate has been revoked",
}
"""The reason why a certificate is refused, for the name of rustls's error."""


def from_obstore(
    error: BaseException, task: Task, client: FailedClient
) -> SessionStoreError | NotFound:
    """Return the error to raise in place of obstore's ``error``."""
    text = str(error)
    found = {
        name: next(filter(None, match.groups()), "") if (match := find(text)) else ""
        for name, find in _FACTS.items()
    }
    status, code = int(found.pop("Status") or 0), found["Code"]
    if code in task.missing or (isinstance(error, FileNotFoundError) and not code and task.missing):
        return NotFound(code)
    if status or code:
        response = {"Error": found, "ResponseMetadata": {"HTTPStatusCode": status}}
        return from_response(response, task, client)
    if "without LOCATION" in text:  # obstore's text for the redirect to another region
        moved = {"Error": {"Code": "PermanentRedirect"}}
        return from_response(moved, task, client)
    if (reason := _insecure(text)) is not None:
        return _error(_TLS, task, client, {"detail": reason})
    row = next((row for part, row in OBSTORE.items() if part in text), _OTHER)
    # The first line; a description of the error follows.
    detail = " ".join(text.partition("\n")[0].split()).removesuffix(".") or "no reason is given"
    return _error(row, task, client, {"detail": detail})


def _insecure(text: str) -> str | None:
    refusal = _find_refusal(text)
    if refusal is not None:
        name = refusal[1].removesuffix("Context")
        return _REFUSALS.get(name, f"its certificate is refused ({name})")
    return "the server does not speak TLS correctly" if _is_no_tls(text) else None
