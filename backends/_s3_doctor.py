"""What the settings of an S3 bucket would do to a store: versioning, lock, lifecycle rules.

By boto3, since no other engine asks for them. They take permissions that a store does not need;
without these the answer is "unknown".
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from sessionstore.backends._connection import Client
from sessionstore.backends._s3_connection import make_client
from sessionstore.backends._s3_options import Options
from sessionstore.doctor import Check

ABORTED_AFTER = 2
"""Days after which a rule may abort an upload: a save takes 12 hours at most, a sweep aborts after
24, and a rule counts from midnight."""

NONE = ("NoSuchLifecycleConfiguration", "ObjectLockConfigurationNotFoundError")
"""Codes that say there is none."""

LOCK = "s3:GetBucketObjectLockConfiguration"
LIFECYCLE = "s3:GetLifecycleConfiguration"

Answer = Mapping[str, Any]

Judge = Callable[[Answer], Check]


def examine(options: Options) -> Iterator[Check]:
    """The checks of a bucket's settings."""

    def rules(answer: Answer) -> Check:
        return lifecycle(answer.get("Rules", ()), options.prefix)

    asked: Sequence[tuple[str, str, str, Judge]] = (
        ("versioning", "get_bucket_versioning", "s3:GetBucketVersioning", _versioning),
        ("object lock", "get_object_lock_configuration", LOCK, _lock),
        ("lifecycle rules", "get_bucket_lifecycle_configuration", LIFECYCLE, rules),
    )
    with closing(make_client(options, options.region)) as client:
        for what, method, permission, judge in asked:
            ask = partial(getattr(client, method), Bucket=options.bucket)
            yield _asked(what, ask, permission, judge)
        yield _checksums(client, options)


def _asked(what: str, ask: Callable[[], Answer], permission: str, judge: Judge) -> Check:
    try:
        return judge(ask())
    except (BotoCoreError, ClientError) as error:
        code = str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
        if code in NONE:
            return judge({})
        words = f"the store does not tell ({code or error}); {permission} would let it be seen"
        return Check(what, "unknown", words, "not told")


def _checksums(client: Client, options: Options) -> Check:
    """Whether the store looks at the digest that every save of the boto3 engine brings."""
    what, wrong = "checksums", base64.b64encode(bytes(32)).decode()
    place = {"Bucket": options.bucket, "Key": f"{options.prefix}doctor-{secrets.token_hex(4)}"}
    try:
        client.put_object(**place, Body=b"damaged", ChecksumSHA256=wrong, **options.arguments)
    except (BotoCoreError, ClientError):
        return Check(what, "good", "a save that arrives damaged is refused")
    client.delete_object(**place)
    words = "a save that arrives damaged is not noticed by the store; reading it is refused"
    return Check(what, "note", words, "not looked at")


def _versioning(answer: Answer) -> Check:
    what = "versioning"
    if answer.get("Status") != "Enabled":
        return Check(what, "good", "off: what is deleted is gone", "off")
    words = (
        "on: what is deleted stays as an old version, and is paid for; switch it off, or let a "
        "lifecycle rule remove noncurrent versions"
    )
    return Check(what, "note", words, "on")


def _lock(answer: Answer) -> Check:
    what, found = "object lock", answer.get("ObjectLockConfiguration", {})
    if found.get("Rule"):
        words = "objects cannot be deleted for some time after they are written: use another bucket"
        return Check(what, "bad", words, "on")
    return Check(what, "good", "no rule keeps objects from being deleted", "off")


def lifecycle(rules: Sequence[Mapping[str, Any]], prefix: str) -> Check:
    """What rules of a bucket do to a store below a prefix."""
    what, harmful, aborts = "lifecycle rules", list[str](), 0
    for rule in rules:
        if rule.get("Status") != "Enabled" or not _touches(rule, prefix):
            continue
        name = rule.get("ID", "without a name")
        if "Expiration" in rule and {"Days", "Date"} & {*rule["Expiration"]}:
            harmful.append(
                f"the rule {name!r} deletes objects by their age, among them content that younger "
                "files share: keep it away from the store's prefix"
            )
        if any("GLACIER" in str(each) or "ARCHIVE" in str(each) for each in _classes(rule)):
            harmful.append(
                f"the rule {name!r} moves objects to a class that has to be restored before it is "
                "read: keep it away from the store's prefix"
            )
        days = rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation")
        if days is not None and days < ABORTED_AFTER:
            harmful.append(
                f"the rule {name!r} aborts uploads after {days} d, when a save may still be at it: "
                f"let it wait {ABORTED_AFTER}"
            )
        aborts = aborts or days or 0
    if harmful:
        return Check(what, "bad", "; ".join(harmful), "harmful")
    if aborts:
        words = f"unfinished uploads are aborted after {aborts} d, and nothing else is touched"
        return Check(what, "good", words, "abort uploads")
    words = "none for the store; one that aborts unfinished uploads after two days is welcome"
    return Check(what, "good", words, "none")


def _classes(rule: Mapping[str, Any]) -> Iterator[object]:
    return (each.get("StorageClass") for each in rule.get("Transitions", ()))


def _touches(rule: Mapping[str, Any], prefix: str) -> bool:
    """Whether a rule may hold for a key below the prefix. One for tags does not: there are none."""
    told = rule.get("Filter") or {}
    if "Tag" in told or told.get("And", {}).get("Tags"):
        return False
    own = str(told.get("Prefix", told.get("And", {}).get("Prefix", rule.get("Prefix", ""))))
    return own.startswith(prefix) or prefix.startswith(own)
