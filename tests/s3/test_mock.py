"""What a user's own tests look like: moto's decorator, a bucket, and the store unchanged."""

from __future__ import annotations

from datetime import timedelta

import boto3
import pytest
from moto import mock_aws

from sessionstore import FileNotStored, Retention, SessionStore, SettingsError


@mock_aws
def test_an_ordinary_test_of_a_user() -> None:
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="bucket")
    with SessionStore.open("s3://bucket/prefix") as store:
        session = store.session("k3j9x")
        file = session.put("cat.png", b"cat")
        assert file.read() == b"cat"
        assert session.read("cat.png") == b"cat"
        assert [it.name for it in session.files()] == ["cat.png"]
        session.put("cat.png", b"dog")
        assert session.read("cat.png") == b"dog"
        session.delete("cat.png")
        with pytest.raises(FileNotStored):
            session.read("cat.png")


@mock_aws
def test_without_any_setting_of_amazon_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="bucket")
    with SessionStore.open("s3://bucket") as store:
        store.session("a").put("f", b"1")
        assert store.session("a").read("f") == b"1"


@mock_aws
def test_a_bucket_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    boto3.client("s3", region_name="eu-west-3").create_bucket(
        Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "eu-west-3"}
    )
    with SessionStore.open("s3://bucket/prefix", region="eu-west-3") as store:
        store.session("a").put("f", b"1")
        assert store.session("a").read("f") == b"1"


@mock_aws
def test_a_visitor_comes_and_goes() -> None:
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="bucket")
    retention = Retention(linger=timedelta(0))
    with SessionStore.open("s3://bucket/prefix", retention=retention) as store:
        session = store.session("k3j9x")
        session.put("cat.png", b"cat")
        session.end()
        store.sweep()
        assert [*store.sessions()] == []


@mock_aws
def test_no_bucket() -> None:
    with pytest.raises(SettingsError, match="there is no bucket 'bucket'; create it, or set url"):
        SessionStore.open("s3://bucket/prefix")
