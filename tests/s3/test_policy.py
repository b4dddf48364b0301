"""The policy in docs/s3.md allows what a store asks for, and nothing else."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sessionstore import Retention, SessionStore, UploadConflict
from sessionstore.backends.objects.client import Payload
from sessionstore.backends.s3 import S3Backend
from sessionstore.backends.s3.errors import TASKS
from sessionstore.testing import FakeClock, Subject
from tests.s3.place import Bucket
from tests.support import seaweed

pytestmark = pytest.mark.server

PERMISSIONS = {task.operation: task.permission for task in TASKS.values()}
"""The permission that S3 asks for each operation: the "Actions, resources, and condition keys" page
of its service authorization reference. An upload's begin, parts and end are all PutObject."""


@dataclass
class Recorder:
    """What botocore was asked to send: operations, and where."""

    seen: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)

    def note(self, *, event_name: str, params: Mapping[str, Any], **_: Any) -> None:
        self.seen.append((event_name.rpartition(".")[2], params))

    @property
    def permissions(self) -> set[str]:
        return {PERMISSIONS[operation] for operation, _ in self.seen}


@pytest.fixture
def recorder(seaweed_bucket: Bucket) -> Iterator[Recorder]:
    recorder, events = Recorder(), seaweed_bucket.boto.meta.events
    events.register("provide-client-params.s3", recorder.note)
    yield recorder
    events.unregister("provide-client-params.s3", recorder.note)


def policy() -> Mapping[str, Any]:
    text = Path(__file__).parents[2].joinpath("docs", "s3.md").read_text()
    (found,) = re.findall(r"^```json\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    told: Mapping[str, Any] = json.loads(found)
    return told


def everything(bucket: Bucket, prefix: str) -> None:
    """All that a store ever asks of a bucket."""
    client = bucket.boto3_client(prefix)
    client.probe("layout")
    backend = S3Backend(client)
    store = SessionStore(backend, clock=FakeClock(), retention=Retention(linger=timedelta(0)))
    session = store.session("a")
    session.put("f", b"1")
    session.put("f", b"2")
    backend.writer.multipart_above = 1 << 20
    session.put("large", b"x" * (1 << 21))
    assert session.read("f") == b"2"
    assert len(session.files()) == 2
    session.touch()
    session.end()
    session.resume()
    session.delete("f")
    session.put("one", b"1")
    session.drop()
    assert [*store.sessions()] == []
    upload = client.begin("b/abandoned")
    client.upload_part("b/abandoned", upload, 1, Payload.of(b"x"))
    client.abort("b/abandoned", upload)
    session.begin_signed_upload("signed", 1).abort()
    with pytest.raises(UploadConflict):
        session.begin_signed_upload("signed", 1).finish()
    store.sweep()
    store.verify()
    store.usage()
    Subject(lambda _: backend, FakeClock())


def allowed(statement: Mapping[str, Any], operation: str, params: Mapping[str, Any]) -> bool:
    """Whether a statement of a policy lets a request pass, as IAM decides it."""
    resource = f"arn:aws:s3:::{params['Bucket']}"
    if "Key" in params:
        resource += f"/{params['Key']}"
    wanted = statement.get("Condition", {}).get("StringLike", {}).get("s3:prefix", "*")
    return (
        PERMISSIONS[operation] in statement["Action"]
        and fnmatch.fnmatchcase(resource, statement["Resource"])
        and fnmatch.fnmatchcase(str(params.get("Prefix", "")), wanted)
    )


def each_object(operation: str, params: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A request as IAM looks at it: one that deletes many is asked for each key."""
    if operation != "DeleteObjects":
        yield params
        return
    for each in params["Delete"]["Objects"]:
        yield {"Bucket": params["Bucket"], "Key": each["Key"]}


def test_the_policy_is_what_a_store_asks_for(
    seaweed_bucket: Bucket, prefix: str, recorder: Recorder
) -> None:
    everything(seaweed_bucket, prefix)
    named = {action for each in policy()["Statement"] for action in each["Action"]}
    assert named == recorder.permissions
    assert {operation for operation, _ in recorder.seen} == {*PERMISSIONS}


def test_every_request_passes_it(seaweed_bucket: Bucket, prefix: str, recorder: Recorder) -> None:
    everything(seaweed_bucket, prefix)
    text = json.dumps(policy()).replace(":::bucket", f":::{seaweed.BUCKET}")
    statements = json.loads(text.replace("prefix/*", f"{prefix}/*"))["Statement"]
    for operation, params in recorder.seen:
        for one in each_object(operation, params):
            assert any(allowed(each, operation, one) for each in statements), (operation, one)


def test_the_policy_lets_nothing_else_pass() -> None:
    statements = policy()["Statement"]
    for operation, params in (
        ("GetObject", {"Bucket": "bucket", "Key": "other/secret"}),
        ("DeleteObject", {"Bucket": "bucket", "Key": "other/secret"}),
        ("ListObjectsV2", {"Bucket": "bucket", "Prefix": ""}),
        ("ListObjectsV2", {"Bucket": "bucket", "Prefix": "other/"}),
        ("PutObject", {"Bucket": "another", "Key": "prefix/a"}),
    ):
        assert not any(allowed(each, operation, params) for each in statements)
