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
    row = next((row for said, row in KINDS.items() if said in text), OTHER)
    return made(row, task, place, {"detail": first_line(text)}, opening=opening)


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
