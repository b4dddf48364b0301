"""The doctor's checks of an S3 bucket's settings: versioning, object lock, lifecycle rules.

boto3 makes the requests, because no other engine has them. They need permissions that a store does
not need; without these the verdict is "unknown".
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from sessionstore.doctor import Check

from ..objects.connection import Client
from .boto3_session import make_client
from .options import Options

ABORTED_AFTER = 2
"""The fewest days after which a rule may abort an upload.

A save takes 12 hours at most, a sweep aborts uploads after 24, and a rule counts from midnight.
"""

NONE = ("NoSuchLifecycleConfiguration", "ObjectLockConfigurationNotFoundError")
"""Error codes that mean that the bucket has no such setting."""

LOCK = "s3:GetBucketObjectLockConfiguration"
LIFECYCLE = "s3:GetLifecycleConfiguration"

Response = Mapping[str, Any]

Judge = Callable[[Response], Check]


def examine(options: Options) -> Iterator[Check]:
    """Yield the checks of the bucket's settings."""

    def rules(response: Response) -> Check:
        return lifecycle(response.get("Rules", ()), options.prefix)

    requests: Sequence[tuple[str, str, str, Judge]] = (
        ("versioning", "get_bucket_versioning", "s3:GetBucketVersioning", _versioning),
        ("object lock", "get_object_lock_configuration", LOCK, _lock),
        ("lifecycle rules", "get_bucket_lifecycle_configuration", LIFECYCLE, rules),
    )
    with closing(make_client(options, options.region)) as client:
        for name, method, permission, judge in requests:
            request = partial(getattr(client, method), Bucket=options.bucket)
            yield _check(name, request, permission, judge)
        yield _checksums(client, options)


def _check(name: str, request: Callable[[], Response], permission: str, judge: Judge) -> Check:
    """Make the request and judge its response; "unknown" if the store refuses it."""
    try:
        return judge(request())
    except (BotoCoreError, ClientError) as error:
        code = str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
        if code in NONE:
            return judge({})
        words = f"the request was refused ({code or error}); grant {permission} to check it"
        return Check(name, "unknown", words, "not checked")


def _checksums(client: Client, options: Options) -> Check:
    """Check that the store verifies the digest that the boto3 engine sends with every save."""
    name, wrong = "checksums", base64.b64encode(bytes(32)).decode()
    target = {"Bucket": options.bucket, "Key": f"{options.prefix}doctor-{secrets.token_hex(4)}"}
    try:
        client.put_object(**target, Body=b"damaged", ChecksumSHA256=wrong, **options.arguments)
    except (BotoCoreError, ClientError):
        return Check(name, "good", "the store refuses a save that is damaged in transit")
    client.delete_object(**target)
    words = "the store accepts a save that is damaged in transit; reading it is refused"
    return Check(name, "note", words, "not verified")


def _versioning(response: Response) -> Check:
    name = "versioning"
    if response.get("Status") != "Enabled":
        return Check(name, "good", "off: deleted objects leave no old version", "off")
    words = (
        "on: a deleted object stays as an old version, which costs money; switch versioning off, "
        "or let a lifecycle rule remove noncurrent versions"
    )
    return Check(name, "note", words, "on")


def _lock(response: Response) -> Check:
    name, configuration = "object lock", response.get("ObjectLockConfiguration", {})
    if configuration.get("Rule"):
        words = "objects cannot be deleted for some time after they are written: use another bucket"
        return Check(name, "bad", words, "on")
    return Check(name, "good", "no rule prevents the deletion of objects", "off")


def lifecycle(rules: Sequence[Mapping[str, Any]], prefix: str) -> Check:
    """Check the effect of the lifecycle ``rules`` on a store below ``prefix``."""
    check, harmful, aborts = "lifecycle rules", list[str](), 0
    for rule in rules:
        if rule.get("Status") != "Enabled" or not _touches(rule, prefix):
            continue
        name = rule.get("ID", "without a name")
        if "Expiration" in rule and {"Days", "Date"} & {*rule["Expiration"]}:
            harmful.append(
                f"the rule {name!r} deletes objects by their age, even content that newer files "
                "share: it must not cover the store's prefix"
            )
        classes = [str(step.get("StorageClass")) for step in rule.get("Transitions", ())]
        if any("GLACIER" in kind or "ARCHIVE" in kind for kind in classes):
            harmful.append(
                f"the rule {name!r} moves objects to a storage class that must be restored before "
                "a read: it must not cover the store's prefix"
            )
        days = rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation")
        if days is not None and days < ABORTED_AFTER:
            harmful.append(
                f"the rule {name!r} aborts uploads after {days} d, when a save may still be "
                f"uploading: set it to {ABORTED_AFTER} d or more"
            )
        aborts = aborts or days or 0
    if harmful:
        return Check(check, "bad", "; ".join(harmful), "harmful")
    if aborts:
        words = f"unfinished uploads are aborted after {aborts} d; no rule deletes objects"
        return Check(check, "good", words, "abort uploads")
    words = "none for the store; consider one that aborts unfinished uploads after two days"
    return Check(check, "good", words, "none")


def _touches(rule: Mapping[str, Any], prefix: str) -> bool:
    """Return whether ``rule`` may apply to a key below ``prefix``."""
    chosen = rule.get("Filter") or {}
    # A rule for tags does not apply: objects of a store have no tags.
    if "Tag" in chosen or chosen.get("And", {}).get("Tags"):
        return False
    own = str(chosen.get("Prefix", chosen.get("And", {}).get("Prefix", rule.get("Prefix", ""))))
    return own.startswith(prefix) or prefix.startswith(own)
