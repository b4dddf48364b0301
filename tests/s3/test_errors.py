"""Every failure of S3 is one sentence of our tree that says what to do."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import botocore.exceptions as botocore_exceptions
import pytest

from sessionstore import BackendUnavailable, LimitExceeded, SessionStoreError, SettingsError
from sessionstore.backends.objects.client import NotFound, Payload
from sessionstore.backends.s3 import S3Backend, boto3_session
from sessionstore.backends.s3.boto3_client import S3Client
from sessionstore.backends.s3.errors import (
    CODES,
    EXCEPTIONS,
    STATUSES,
    TASKS,
    from_boto3,
)
from sessionstore.backends.s3.options import Options
from sessionstore.clock import SystemClock
from sessionstore.settings.location import parse_url
from tests.s3.scripted import Reply, ScriptedServer, listing, refusal
from tests.support import seaweed

AWAY, SETTING, FULL = "away", "setting", "full"
"""What kind of failure it is: of the service, of a setting, of a limit."""

NO_BUCKET = (
    404,
    SETTING,
    "there is no bucket 'sessions'; create it, or set url to one that exists",
)
DENIED = (403, SETTING, "lack the permission s3:PutObject; grant it, or use other credentials")
REGION = (301, SETTING, "the bucket is in another region; set region to that")
SKEW = (403, AWAY, "; correct it, with NTP if possible")
BUSY = (503, AWAY, "try again later, with fewer requests at once")
EXPIRED = (400, SETTING, "the credentials have expired; renew them (aws sso login")
KMS = (400, SETTING, "check kms_key_id and the key's policy")
ARGUMENT = (400, SETTING, "check sse, kms_key_id and put_args")
UNSUPPORTED = (501, SETTING, "check that endpoint_url leads to S3")
NO_ROOM = (507, FULL, "free some, or set max_store")
TOO_LARGE = (413, FULL, "set max_file")
TROUBLE = (500, AWAY, "try again later, or read its log")

ANSWERS = {
    "NoSuchBucket": NO_BUCKET,
    "InvalidBucketName": NO_BUCKET,
    "AccessDenied": DENIED,
    "AccessDeniedException": DENIED,
    "AllAccessDisabled": DENIED,
    "AccountProblem": DENIED,
    "PermanentRedirect": REGION,
    "TemporaryRedirect": REGION,
    "AuthorizationHeaderMalformed": REGION,
    "IllegalLocationConstraintException": REGION,
    "RequestTimeTooSkewed": SKEW,
    "RequestExpired": SKEW,
    "SlowDown": BUSY,
    "ServiceUnavailable": BUSY,
    "Throttling": BUSY,
    "ThrottlingException": BUSY,
    "RequestLimitExceeded": BUSY,
    "TooManyRequests": BUSY,
    "BandwidthLimitExceeded": BUSY,
    "RequestTimeout": BUSY,
    "OperationAborted": BUSY,
    "InternalError": TROUBLE,
    "InvalidAccessKeyId": (403, SETTING, "does not know the access key; check the credentials"),
    "SignatureDoesNotMatch": (403, SETTING, "the secret key does not match the access key"),
    "ExpiredToken": EXPIRED,
    "ExpiredTokenException": EXPIRED,
    "TokenRefreshRequired": EXPIRED,
    "InvalidToken": (400, SETTING, "get a new one, or unset AWS_SESSION_TOKEN"),
    "KMS.DisabledException": KMS,
    "KMS.NotFoundException": KMS,
    "KMS.KMSInvalidStateException": KMS,
    "KMS.InvalidKeyUsageException": KMS,
    "InvalidArgument": ARGUMENT,
    "InvalidRequest": ARGUMENT,
    "InvalidStorageClass": ARGUMENT,
    "InvalidEncryptionAlgorithmError": ARGUMENT,
    "MalformedACLError": ARGUMENT,
    "AccessControlListNotSupported": ARGUMENT,
    "MethodNotAllowed": UNSUPPORTED,
    "NotImplemented": UNSUPPORTED,
    "EntityTooLarge": TOO_LARGE,
    "QuotaExceeded": NO_ROOM,
    "XMinioStorageFull": NO_ROOM,
    "XMinioAdminBucketQuotaExceeded": NO_ROOM,
}
"""Code -> the status it comes with, its kind, and words that its message has."""

BY_STATUS = {
    301: REGION,
    302: REGION,
    307: REGION,
    308: REGION,
    403: (403, SETTING, "the store forbids it (Odd: odd); make sure that the credentials have the"),
    405: UNSUPPORTED,
    408: BUSY,
    413: TOO_LARGE,
    429: BUSY,
    500: TROUBLE,
    501: UNSUPPORTED,
    502: TROUBLE,
    503: BUSY,
    504: TROUBLE,
    507: NO_ROOM,
}

NO_CREDENTIALS = (SETTING, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, set profile, or")
ROLE = (SETTING, "check profile and the role")
CONFIGURATION = (SETTING, "invalid AWS configuration: ")
CUT_OFF = (AWAY, "broke off; try again, or check the network")
UNREACHABLE = (AWAY, "nothing answers at http://store.example; check endpoint_url, region and the")
BAD_ENDPOINT = (SETTING, "set endpoint_url to a URL such as http://127.0.0.1:9000")
BAD_REGION = (SETTING, "set region to one such as eu-central-1")
DAMAGED = (AWAY, "the response was damaged in transit")

NO_ANSWER = {
    "NoCredentialsError": NO_CREDENTIALS,
    "NoAuthTokenError": NO_CREDENTIALS,
    "PartialCredentialsError": (SETTING, "the credentials are incomplete"),
    "CredentialRetrievalError": ROLE,
    "MetadataRetrievalError": ROLE,
    "RefreshWithMFAUnsupportedError": ROLE,
    "MissingDependencyException": ROLE,
    "UnknownCredentialError": CONFIGURATION,
    "InvalidConfigError": CONFIGURATION,
    "ConfigParseError": CONFIGURATION,
    "ConfigNotFound": CONFIGURATION,
    "InvalidRetryConfigurationError": CONFIGURATION,
    "InvalidS3UsEast1RegionalEndpointConfigError": CONFIGURATION,
    "InvalidProxiesConfigError": CONFIGURATION,
    "InvalidDefaultsMode": CONFIGURATION,
    "ProfileNotFound": (
        SETTING,
        "set profile (or AWS_PROFILE) to a profile of the AWS configuration",
    ),
    "SSOError": EXPIRED[1:],
    "UnauthorizedSSOTokenError": EXPIRED[1:],
    "LoginError": EXPIRED[1:],
    "TokenRetrievalError": EXPIRED[1:],
    "EndpointConnectionError": UNREACHABLE,
    "ConnectTimeoutError": UNREACHABLE,
    "ReadTimeoutError": (AWAY, "did not answer in time; try again, or check the network"),
    "ConnectionClosedError": CUT_OFF,
    "ResponseStreamingError": CUT_OFF,
    "IncompleteReadError": CUT_OFF,
    "ConnectionError": CUT_OFF,
    "OSError": CUT_OFF,
    "SSLError": (AWAY, "cannot be secured"),
    "ProxyConnectionError": (AWAY, "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"),
    "NoRegionError": (SETTING, "no region is set; set region"),
    "InvalidRegionError": BAD_REGION,
    "UnknownRegionError": BAD_REGION,
    "BaseEndpointResolverError": BAD_ENDPOINT,
    "EndpointProviderError": BAD_ENDPOINT,
    "InvalidEndpointConfigurationError": BAD_ENDPOINT,
    "ParamValidationError": BAD_ENDPOINT,
    "InvalidHostLabelError": BAD_ENDPOINT,
    "ValueError": BAD_ENDPOINT,
    "ResponseParserError": (SETTING, "the server at http://store.example does not speak S3"),
    "FlexibleChecksumError": DAMAGED,
    "ChecksumError": DAMAGED,
    "Exception": (AWAY, "Could not save an object in s3://sessions/app: Exception."),
}


def kind_of(kind: str, *, opening: bool) -> type[SessionStoreError]:
    by_kind = {AWAY: BackendUnavailable, SETTING: BackendUnavailable, FULL: LimitExceeded}
    return SettingsError if opening and kind == SETTING else by_kind[kind]


def is_one_sentence(text: str) -> bool:
    return bool(re.fullmatch(r"Could not [^{}\n]+[^. ]\.", text)) and ". " not in text


@pytest.fixture(scope="module")
def shared_server() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    with server.serving():
        yield server


@pytest.fixture
def server(shared_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> ScriptedServer:
    monkeypatch.setattr(boto3_session, "ATTEMPTS", 1)
    shared_server.asked.clear()
    return shared_server


@pytest.fixture(scope="module")
def shared_client(shared_server: ScriptedServer) -> Iterator[S3Client]:
    """One for all tests that only look at answers: it takes 0.2 s to make."""
    options = Options(
        "s3://sessions/app",
        "sessions",
        "app/",
        region="us-east-1",
        endpoint_url=shared_server.endpoint,
        access_key_id="a",
        secret_access_key="b",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boto3_session, "ATTEMPTS", 1)
        client = S3Client(options)
        assert client.connection.client
    yield client
    client.close()


@pytest.fixture(params=[True, False], ids=["opening", "open"])
def client(request: pytest.FixtureRequest, shared_client: S3Client) -> S3Client:
    shared_client.opening = request.param
    return shared_client


def unreachable(*, opening: bool) -> S3Client:
    """A client for messages: it makes no request."""
    options = Options("s3://sessions/app", "sessions", "app/", endpoint_url="http://store.example")
    client = S3Client(options)
    client.opening = opening
    return client


def connect(endpoint: str | None, **options: object) -> S3Backend:
    """Open a store as SessionStore.open does, with the settings parsed already."""
    location, _ = parse_url("s3://sessions/app", Path())
    where = {} if endpoint is None else {"endpoint_url": endpoint}
    return S3Backend.connect(location, {"engine": "boto3", **where, **options}, SystemClock())


def check(error: BaseException, client: S3Client, kind: str, words: str) -> None:
    assert type(error) is kind_of(kind, opening=client.opening)
    assert words in str(error)
    assert is_one_sentence(str(error))
    assert isinstance(error.__cause__, botocore_exceptions.ClientError)


# The table


@pytest.mark.parametrize("code", ANSWERS)
def test_each_code_has_its_sentence(client: S3Client, server: ScriptedServer, code: str) -> None:
    status, kind, words = ANSWERS[code]
    server.replies = [refusal(status, code, "It is so.")]
    with pytest.raises(SessionStoreError) as raised:
        client.put("layout", Payload.of(b"{}"))
    check(raised.value, client, kind, words)


@pytest.mark.parametrize("status", BY_STATUS)
def test_an_unknown_code_goes_by_its_status(
    client: S3Client, server: ScriptedServer, status: int
) -> None:
    _, kind, words = BY_STATUS[status]
    server.replies = [refusal(status, "Odd", "odd")]
    with pytest.raises(SessionStoreError) as raised:
        client.put("layout", Payload.of(b"{}"))
    check(raised.value, client, kind, words)


@pytest.mark.parametrize("name", NO_ANSWER)
@pytest.mark.parametrize("opening", [True, False])
def test_each_exception_has_its_sentence(name: str, opening: bool) -> None:
    kind, words = NO_ANSWER[name]
    made: type[Exception] = type(name, (Exception,), {})
    found: type[Exception] = getattr(botocore_exceptions, name, made)
    error = found.__new__(found)
    seen = from_boto3(error, TASKS["put_object"], unreachable(opening=opening))
    assert type(seen) is kind_of(kind, opening=opening)
    assert words in str(seen).replace("open the store", "save an object")
    assert is_one_sentence(str(seen))


def test_every_row_is_tested() -> None:
    assert set(ANSWERS) == set(CODES)
    assert set(BY_STATUS) == set(STATUSES)
    assert set(NO_ANSWER) >= set(EXCEPTIONS)


def test_every_error_of_botocore_is_mapped() -> None:
    classes = [each for each in vars(botocore_exceptions).values() if isinstance(each, type)]
    errors = [each for each in classes if issubclass(each, botocore_exceptions.BotoCoreError)]
    client = unreachable(opening=False)
    for kind in errors:
        seen = from_boto3(kind.__new__(kind), TASKS["get_object"], client)
        assert isinstance(seen, SessionStoreError)
        assert is_one_sentence(str(seen))
    assert len(errors) > 50


# What the sentences take from the answer


@pytest.mark.parametrize(
    ("ask", "permission"),
    [
        (lambda it: it.put("k", Payload.of(b"")), "s3:PutObject"),
        (lambda it: it.get("k"), "s3:GetObject"),
        (lambda it: next(it.list("")), "s3:ListBucket"),
        (lambda it: it.delete(["k"]), "s3:DeleteObject"),
        (lambda it: it.delete(["k", "l"]), "s3:DeleteObject"),
        (lambda it: it.begin("k"), "s3:PutObject"),
        (lambda it: it.upload_part("k", "u", 1, Payload.of(b"")), "s3:PutObject"),
        (lambda it: it.complete("k", "u", []), "s3:PutObject"),
        (lambda it: it.abort("k", "u"), "s3:AbortMultipartUpload"),
        (lambda it: next(it.uploads("")), "s3:ListBucketMultipartUploads"),
    ],
)
def test_access_denied_names_the_permission(
    shared_client: S3Client, server: ScriptedServer, ask: object, permission: str
) -> None:
    server.replies = [refusal(403, "AccessDenied", "Access Denied")]
    assert callable(ask)
    with pytest.raises(SessionStoreError, match=f"lack the permission {permission}; grant it"):
        ask(shared_client)


def test_access_denied_names_the_permission_that_the_store_names(
    shared_client: S3Client, server: ScriptedServer
) -> None:
    message = "User: x is not authorized to perform: kms:GenerateDataKey on resource: y"
    server.replies = [refusal(403, "AccessDenied", message)]
    with pytest.raises(SessionStoreError, match="lack the permission kms:GenerateDataKey"):
        shared_client.put("k", Payload.of(b""))


@pytest.mark.parametrize(
    "reply",
    [
        Reply(301, headers={"x-amz-bucket-region": "eu-west-3"}),
        refusal(400, "AuthorizationHeaderMalformed", "wrong", Region="eu-west-3"),
        refusal(301, "PermanentRedirect", Endpoint="sessions.s3.eu-west-3.amazonaws.com"),
        refusal(301, "PermanentRedirect", Endpoint="sessions.s3-eu-west-3.amazonaws.com"),
    ],
)
def test_wrong_region_names_the_right_one(
    shared_client: S3Client, server: ScriptedServer, reply: Reply
) -> None:
    server.replies = [reply]
    with pytest.raises(SessionStoreError, match="is in the region eu-west-3; set region to that"):
        next(shared_client.list(""))


def test_clock_skew_says_how_much(shared_client: S3Client, server: ScriptedServer) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(hours=2, seconds=59), usegmt=True)
    skewed = refusal(403, "RequestTimeTooSkewed", "The difference is too large.")
    server.replies = [Reply(403, skewed.body, {"Date": later})]
    with pytest.raises(SessionStoreError, match=r"differs from the store's by 2h\d+s; correct it"):
        next(shared_client.list(""))


def test_what_could_not_be_deleted_is_told(client: S3Client, server: ScriptedServer) -> None:
    server.replies = [
        Reply(
            body=b"<DeleteResult><Error><Key>app/a</Key><Code>NoSuchKey</Code></Error>"
            b"<Error><Key>app/b</Key><Code>AccessDenied</Code><Message>No.</Message></Error>"
            b"</DeleteResult>"
        )
    ]
    with pytest.raises(SessionStoreError, match="lack the permission s3:DeleteObject; grant it"):
        client.delete(["a", "b"])


def test_a_role_that_cannot_be_assumed() -> None:
    told: Any = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    error = botocore_exceptions.ClientError(told, "AssumeRoleWithWebIdentity")
    seen = from_boto3(error, TASKS["list_objects_v2"], unreachable(opening=True))
    words = "cannot be obtained: AssumeRoleWithWebIdentity was answered AccessDenied; check profile"
    assert words in str(seen)
    assert is_one_sentence(str(seen))


# Not found


def test_a_missing_object_is_not_found(shared_client: S3Client, server: ScriptedServer) -> None:
    server.replies = [refusal(404, "NoSuchKey", "There is none.")]
    with pytest.raises(NotFound):
        shared_client.get("k")


def test_a_missing_bucket_is_no_missing_object(
    shared_client: S3Client, server: ScriptedServer
) -> None:
    server.replies = [refusal(404, "NoSuchBucket", "There is none.")]
    with pytest.raises(SessionStoreError, match="there is no bucket"):
        shared_client.get("k")


def test_an_aborted_upload_is_not_found(shared_client: S3Client, server: ScriptedServer) -> None:
    server.replies = [refusal(404, "NoSuchUpload", "There is none."), listing()]
    with pytest.raises(NotFound):
        shared_client.complete("k", "u", [])
    server.replies = [refusal(404, "NoSuchUpload", "There is none.")]
    with pytest.raises(NotFound):
        shared_client.upload_part("k", "u", 1, Payload.of(b""))
    shared_client.abort("k", "u")


def test_an_upload_completed_by_a_lost_answer_is_complete(
    shared_client: S3Client, server: ScriptedServer
) -> None:
    server.replies = [refusal(404, "NoSuchUpload", "There is none."), listing("app/k")]
    assert shared_client.complete("k", "u", []) is not None


def test_a_redirect_names_where_to(client: S3Client, server: ScriptedServer) -> None:
    server.replies = [Reply(301, headers={"Location": "https://store.example/sessions?x=y"})]
    words = "it redirects to https://store.example; set endpoint_url to that"
    with pytest.raises(SessionStoreError, match=words) as raised:
        next(client.list(""))
    assert type(raised.value) is kind_of(SETTING, opening=client.opening)


# Answers that are none


def test_what_is_not_s3_is_told(client: S3Client, server: ScriptedServer) -> None:
    server.replies = [Reply(body=b"<html><body>Welcome!</body></html>")]
    with pytest.raises(SessionStoreError, match="does not speak S3; check endpoint_url") as raised:
        next(client.list(""))
    assert type(raised.value) is kind_of(SETTING, opening=client.opening)


def test_a_truncated_listing_is_an_error(shared_client: S3Client, server: ScriptedServer) -> None:
    whole = listing("app/a", "app/b")
    server.replies = [Reply(body=whole.body[:-30], length=len(whole.body))]
    with pytest.raises(SessionStoreError):
        next(shared_client.list(""))


def test_a_listing_without_its_next_page_is_an_error(
    shared_client: S3Client, server: ScriptedServer
) -> None:
    server.replies = [listing("app/a", IsTruncated="true")]
    pages = shared_client.list("")
    assert [entry.key for entry in next(pages).entries] == ["a"]
    with pytest.raises(BackendUnavailable, match="without NextContinuationToken"):
        next(pages)


def test_a_listing_that_does_not_get_on_is_an_error(
    shared_client: S3Client, server: ScriptedServer
) -> None:
    """botocore's own paginators look for that too."""
    server.replies = [listing("app/a", IsTruncated="true", NextContinuationToken="same")]
    with pytest.raises(BackendUnavailable, match="breaks off at the place where the page began"):
        list(shared_client.list(""))
    assert len(server.asked) == 2


def test_a_body_that_breaks_off_is_an_error(
    shared_client: S3Client, server: ScriptedServer
) -> None:
    shared_client.opening = False
    server.replies = [Reply(body=b"12345", length=10)]
    with closing(shared_client.get("k").stream) as stream:
        assert stream.read(5) == b"12345"
        with pytest.raises(BackendUnavailable, match="broke off") as raised:
            stream.read(5)
    assert raised.value.__cause__ is not None


def test_a_store_that_ignores_ranges_gives_the_right_bytes(
    shared_client: S3Client, server: ScriptedServer
) -> None:
    server.replies = [Reply(body=b"0123456789")]
    with closing(shared_client.get("k", 3, 4).stream) as stream:
        assert stream.read(4) == b"3456"


# Opening


@pytest.mark.usefixtures("server")
def test_nothing_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(BackendUnavailable, match="nothing answers at http://127"):
            connect(endpoint)


def test_https_where_there_is_http(server: ScriptedServer) -> None:
    with pytest.raises(
        BackendUnavailable, match=r"cannot be secured.*check the https of endpoint_url"
    ):
        connect(server.endpoint.replace("http:", "https:"))


def test_no_credentials(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in seaweed.ENVIRONMENT:
        monkeypatch.delenv(name)
    with pytest.raises(SettingsError, match="no credentials were found; set AWS_ACCESS_KEY_ID"):
        connect(server.endpoint)
    assert server.asked == []


def test_half_of_the_credentials(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SettingsError, match=r"incomplete: .*AWS_SECRET_ACCESS_KEY"):
        connect(server.endpoint)


def test_no_such_profile(server: ScriptedServer) -> None:
    with pytest.raises(SettingsError, match=r"\(nobody\) could not be found; set profile"):
        connect(server.endpoint, profile="nobody")


def test_an_endpoint_that_botocore_refuses() -> None:
    with pytest.raises(SettingsError, match=r"Invalid endpoint.*set endpoint_url to a URL such"):
        connect("http://-a-")


def test_a_region_other_than_the_bucket_s(server: ScriptedServer) -> None:
    reply = listing()
    server.replies = [Reply(body=reply.body, headers={"x-amz-bucket-region": "eu-west-3"})]
    with pytest.raises(SettingsError, match="'sessions' is in 'eu-west-3'; set region to that"):
        connect(server.endpoint, region="us-east-1")


def test_without_a_region_the_bucket_s_is_taken(server: ScriptedServer) -> None:
    layout = b'{"version": 1, "digest": "sha256", "grace": 3600}'
    reply = listing()
    server.replies = [
        Reply(body=reply.body, headers={"x-amz-bucket-region": "eu-west-3"}),
        Reply(body=layout),
    ]
    with closing(connect(server.endpoint)):
        assert "/us-east-1/s3/" in server.asked[0].headers["Authorization"]
        assert "/eu-west-3/s3/" in server.asked[1].headers["Authorization"]


def test_what_fails_after_opening_is_no_setting(server: ScriptedServer) -> None:
    layout = Reply(body=b'{"version": 1, "digest": "sha256", "grace": 3600}')
    server.replies = [listing(), layout, refusal(404, "NoSuchBucket", "There is none any more.")]
    with (
        closing(connect(server.endpoint)) as backend,
        pytest.raises(BackendUnavailable, match="Could not list the objects in s3://sessions/app"),
    ):
        backend.stored()


def test_no_such_bucket_at_open(server: ScriptedServer) -> None:
    server.replies = [refusal(404, "NoSuchBucket", "There is none.")]
    with pytest.raises(SettingsError, match="Could not open the store in s3://sessions/app: there"):
        connect(server.endpoint)
    assert len(server.asked) == 1


def test_a_closed_store_says_so(shared_client: S3Client) -> None:
    client = S3Client(shared_client.options)
    client.close()
    client.close()
    with pytest.raises(BackendUnavailable, match="the store is closed"):
        client.get("k")
