"""What a failing request of obstore becomes: the store's answer, found in the error's text.

obstore has an exception for a few kinds of failure and puts everything else into words: the
request, the status, the body of the answer, and a description of the error below. The answer is
read from there and looked up in the table of S3's codes; for requests without an answer there is a
table here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sessionstore.backends._s3_errors import (
    CUT_OFF,
    NO_CREDENTIALS,
    OTHER,
    TIMEOUT,
    TLS,
    UNREACHABLE,
    Place,
    Row,
    Task,
    made,
    refused,
)
from sessionstore.backends.objects_client import NotFound
from sessionstore.errors import SessionStoreError

_find_status = re.compile(r"status code: (\d{3})").search
_find_code = re.compile(r"<Code>([^<]+)</Code>|\(code: (\w+)\)|code: \"(\w+)\"").search
_find_message = re.compile(r"<Message>([^<]*)</Message>").search
_find_region = re.compile(r"<Region>([^<]+)</Region>").search

_find_refusal = re.compile(r"InvalidCertificate\(\s*(\w+)").search
_is_no_tls = re.compile(r"error: (?:InvalidMessage|AlertReceived|Peer\w+)\b").search
"""What rustls says, below "kind: Connect", when the connection is there and cannot be secured."""

REFUSALS: Mapping[str, str] = {
    "UnknownIssuer": "its certificate is signed by an authority that is not known",
    "CaUsedAsEndEntity": "its certificate is signed by itself",
    "NotValidForName": "its certificate is for another host",
    "NotValidForNameContext": "its certificate is for another host",
    "Expired": "its certificate has expired",
    "ExpiredContext": "its certificate has expired",
    "NotValidYet": "its certificate is not valid yet",
    "NotValidYetContext": "its certificate is not valid yet",
    "Revoked": "its certificate has been revoked",
}
"""Why a certificate is refused, by the name of rustls's error."""

KINDS: Mapping[str, Row] = {
    "169.254.": NO_CREDENTIALS,  # it asked the machine for a role, having found nothing else
    "kind: Connect": UNREACHABLE,
    "kind: Timeout": TIMEOUT,
    "kind: Request": CUT_OFF,
    "kind: Interrupted": CUT_OFF,
    "kind: Decode": CUT_OFF,
    "TimedOut": TIMEOUT,
    "IncompleteBody": CUT_OFF,
    "ConnectionReset": CUT_OFF,
}
"""What an error's text says when there was no answer, or only the beginning of one."""


def ours(
    error: BaseException, task: Task, place: Place, *, opening: bool
) -> SessionStoreError | NotFound:
    """The error to raise instead."""
    text = str(error)
    told = answer(text)
    code = str(told["Error"].get("Code", ""))
    if code in task.missing or (isinstance(error, FileNotFoundError) and not code and task.missing):
        return NotFound(code)
    if told["ResponseMetadata"]["HTTPStatusCode"] or code:
        return refused(told, task, place, opening=opening)
    if "without LOCATION" in text:  # its word for the redirect of a bucket that is elsewhere
        moved = {"Error": {"Code": "PermanentRedirect"}}
        return refused(moved, task, place, opening=opening)
    if (unsafe := insecure(text)) is not None:
        return made(TLS, task, place, {"detail": unsafe}, opening=opening)
    row = next((row for said, row in KINDS.items() if said in text), OTHER)
    return made(row, task, place, {"detail": first_line(text)}, opening=opening)


def insecure(text: str) -> str | None:
    """Return why the connection could not be secured; None when something else was wrong."""
    refusal = _find_refusal(text)
    if refusal is not None:
        return REFUSALS.get(refusal[1], f"its certificate is refused ({refusal[1]})")
    return "what answers there does not speak TLS as it should" if _is_no_tls(text) else None


def answer(text: str) -> dict[str, Any]:
    """The store's answer as botocore would have it, as far as the text holds it."""
    status, code = _find_status(text), _find_code(text)
    message, region = _find_message(text), _find_region(text)
    error = {
        "Code": next(filter(None, code.groups())) if code else "",
        "Message": message[1] if message else "",
        "Region": region[1] if region else "",
    }
    return {
        "Error": error,
        "ResponseMetadata": {"HTTPStatusCode": int(status[1]) if status else 0},
    }


def first_line(text: str) -> str:
    """What the error says before it describes itself."""
    return " ".join(text.partition("\n")[0].split()).removesuffix(".") or "no reason is given"
