"""Translate the errors of obstore: parse the store's response out of the error's text.

obstore has exception classes for a few kinds of failure only. For all others its text has the
request, the status, the body of the response and a description of the underlying error. The code
and status in this text select the row in the table of S3's errors; ``KINDS`` here is the table for
requests without a response.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sessionstore.errors import SessionStoreError

from ..objects.client import NotFound
from ..objects.engine import ErrorRow
from .errors import (
    CUT_OFF,
    NO_CREDENTIALS,
    OTHER,
    TIMEOUT,
    TLS,
    UNREACHABLE,
    ErrorContext,
    Task,
    error_for,
    from_response,
)

_find_status = re.compile(r"status code: (\d{3})").search
_find_code = re.compile(r"<Code>([^<]+)</Code>|\(code: (\w+)\)|code: \"(\w+)\"").search
_find_message = re.compile(r"<Message>([^<]*)</Message>").search
_find_region = re.compile(r"<Region>([^<]+)</Region>").search

_find_refusal = re.compile(r"InvalidCertificate\(\s*(\w+)").search
_is_no_tls = re.compile(r"error: (?:InvalidMessage|AlertReceived|Peer\w+)\b").search
"""The errors of rustls after "kind: Connect": the host answers, but the TLS handshake failed."""

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
"""The reason why a certificate is refused, for the name of rustls's error."""

KINDS: Mapping[str, ErrorRow] = {
    "169.254.": NO_CREDENTIALS,  # the metadata server, the last place where it looks
    "kind: Connect": UNREACHABLE,
    "kind: Timeout": TIMEOUT,
    "kind: Request": CUT_OFF,
    "kind: Interrupted": CUT_OFF,
    "kind: Decode": CUT_OFF,
    "TimedOut": TIMEOUT,
    "IncompleteBody": CUT_OFF,
    "ConnectionReset": CUT_OFF,
}
"""The row for a part of the error's text, if there was no response or an incomplete one."""


def translate(
    error: BaseException, task: Task, place: ErrorContext, *, opening: bool
) -> SessionStoreError | NotFound:
    """Return the error to raise in place of obstore's ``error``."""
    text = str(error)
    response = parse_response(text)
    code = str(response["Error"].get("Code", ""))
    if code in task.missing or (isinstance(error, FileNotFoundError) and not code and task.missing):
        return NotFound(code)
    if response["ResponseMetadata"]["HTTPStatusCode"] or code:
        return from_response(response, task, place, opening=opening)
    if "without LOCATION" in text:  # obstore's text for the redirect to another region
        moved = {"Error": {"Code": "PermanentRedirect"}}
        return from_response(moved, task, place, opening=opening)
    if (reason := insecure(text)) is not None:
        return error_for(TLS, task, place, {"detail": reason}, opening=opening)
    row = next((row for part, row in KINDS.items() if part in text), OTHER)
    return error_for(row, task, place, {"detail": first_line(text)}, opening=opening)


def insecure(text: str) -> str | None:
    """Return why the connection could not be secured; None if the cause is another."""
    refusal = _find_refusal(text)
    if refusal is not None:
        return REFUSALS.get(refusal[1], f"its certificate is refused ({refusal[1]})")
    return "the server does not speak TLS correctly" if _is_no_tls(text) else None


def parse_response(text: str) -> dict[str, Any]:
    """Return the store's response in the form of botocore, as far as ``text`` contains it."""
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
    """Return the first line of ``text``, without the description of the error that follows."""
    return " ".join(text.partition("\n")[0].split()).removesuffix(".") or "no reason is given"
