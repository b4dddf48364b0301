"""The settings of an S3 store: each is read, and refused when it is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sessionstore import SettingsError
from sessionstore.backends.s3 import S3Backend
from sessionstore.backends.s3.options import Options
from sessionstore.settings.resolver import resolve

RIGHT = {
    "grace": ("20m", None),
    "digest": ("sha256", None),
    "engine": ("obstore", None),
    "region": ("eu-central-1", "eu-central-1"),
    "endpoint_url": ("http://127.0.0.1:9000/", "http://127.0.0.1:9000"),
    "profile": ("work", "work"),
    "access_key_id": ("AKIDEXAMPLE", "AKIDEXAMPLE"),
    "secret_access_key": ("s3cr3t", "s3cr3t"),
    "session_token": ("t0ken", "t0ken"),
    "addressing": ("virtual", "virtual"),
    "sse": ("aws:kms", "aws:kms"),
    "kms_key_id": ("alias/sessions", "alias/sessions"),
    "put_args": ('{"StorageClass": "STANDARD_IA"}', {"StorageClass": "STANDARD_IA"}),
}
"""Each setting: how it is written, and what it comes to."""

NEEDS = {
    "access_key_id": {"secret_access_key": "s"},
    "secret_access_key": {"access_key_id": "a"},
    "session_token": {"access_key_id": "a", "secret_access_key": "s"},
    "kms_key_id": {"sse": "aws:kms"},
}
"""What has to stand beside it."""

WRONG = [
    ("grace", "5m", "at least 10m"),
    ("digest", "md5", "choose sha256 or blake3"),
    ("engine", "opendal", "choose auto or boto3 or obstore"),
    ("region", "eu central", "write a region such as eu-central-1"),
    ("region", "x.example.org/", "write a region such as eu-central-1"),
    ("endpoint_url", "127.0.0.1:9000", "write a URL such as http://127.0.0.1:9000"),
    ("endpoint_url", "ftp://a", "write a URL such as http://127.0.0.1:9000"),
    ("endpoint_url", "http://a:b", "write a URL such as http://127.0.0.1:9000"),
    ("endpoint_url", "http://u:p@a", "write a URL such as http://127.0.0.1:9000"),
    ("profile", 7, "write text in quotes"),
    ("access_key_id", 7, "write text in quotes"),
    ("secret_access_key", 7, "write text in quotes"),
    ("session_token", 7, "write text in quotes"),
    ("addressing", "host", "choose auto or path or virtual"),
    ("sse", "AES128", "choose AES256 or aws:kms or aws:kms:dsse"),
    ("kms_key_id", 7, "write text in quotes"),
    ("put_args", "StorageClass", 'write a table, or JSON such as {"StorageClass"'),
    ("put_args", "[1]", 'write a table, or JSON such as {"StorageClass"'),
    ("put_args", '{"Bucket": "b"}', "the argument Bucket is unknown; choose from ACL, "),
    ("put_args", {"StorageClass": 1}, "StorageClass takes a str"),
    ("put_args", {"Metadata": "x"}, "Metadata takes a dict"),
]

TOGETHER = [
    ({"access_key_id": "a"}, "access_key_id and secret_access_key belong together: set both"),
    ({"secret_access_key": "a"}, "access_key_id and secret_access_key belong together: set both"),
    ({"session_token": "a"}, "session_token needs access_key_id and secret_access_key"),
    (
        {"profile": "p", "access_key_id": "a", "secret_access_key": "s"},
        "profile and access_key_id are two sources of credentials: set one",
    ),
    ({"kms_key_id": "k"}, "kms_key_id needs an sse that uses KMS keys: set sse=aws:kms"),
    ({"kms_key_id": "k", "sse": "AES256"}, "kms_key_id needs an sse that uses KMS keys"),
]

URLS = [
    ("s3://", "'' is not a bucket name"),
    ("s3://a", "'a' is not a bucket name"),
    ("s3://b:9000/x", "is not a bucket name; write s3://bucket/prefix, and set endpoint_url"),
    ("s3://key:secret@bucket/x", "it must not hold credentials; set AWS_ACCESS_KEY_ID"),
    ("s3://bucket--use1-az4--x-s3/x", "a directory bucket does not list its keys in order"),
    ("s3://bucket/a//b", "a prefix must not have empty segments"),
    ("s3://bucket/a/../b", "a prefix must not have empty segments"),
    ("s3://bucket/%0a", "a prefix must not have empty segments"),
    (f"s3://bucket/{'x' * 121}", "its prefix is longer than 120 bytes; write a shorter one"),
]


def options(url: str = "s3://bucket/app", /, **keywords: object) -> Options:
    """What a store would be opened with."""
    settings = resolve(url, keywords, {}, Path())
    return Options.of(settings.location, settings.backend_options)


@pytest.mark.parametrize("name", RIGHT)
def test_each_setting_is_read(name: str) -> None:
    written, expected = RIGHT[name]
    seen = options(**{name: written}, **NEEDS.get(name, {}))
    assert getattr(seen, name, None) == expected


@pytest.mark.parametrize(("name", "value", "remedy"), WRONG)
def test_each_setting_is_refused_when_it_is_wrong(name: str, value: object, remedy: str) -> None:
    with pytest.raises(SettingsError) as raised:
        options(**{name: value})
    assert remedy in str(raised.value)
    assert str(raised.value).startswith(f"invalid {name}=")


def test_every_setting_is_tried() -> None:
    assert set(RIGHT) == set(S3Backend.options)
    assert {name for name, *_ in WRONG} == set(S3Backend.options)


def test_every_setting_is_documented() -> None:
    text = Path(__file__).parents[2].joinpath("docs", "s3.md").read_text()
    assert [name for name in S3Backend.options if f"| `{name}` |" not in text] == []


@pytest.mark.parametrize(("together", "remedy"), TOGETHER)
def test_what_does_not_go_together_is_refused(together: dict[str, str], remedy: str) -> None:
    with pytest.raises(SettingsError, match=remedy):
        options(**together)


@pytest.mark.parametrize(("url", "remedy"), URLS)
def test_a_url_that_leads_nowhere_is_refused(url: str, remedy: str) -> None:
    with pytest.raises(SettingsError) as raised:
        options(url)
    assert remedy in str(raised.value)
    assert "secret@" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/", "bucket", ""),
        ("s3://bucket/app", "bucket", "app/"),
        ("s3://my.bucket-1/a/b%20c/", "my.bucket-1", "a/b c/"),
    ],
)
def test_bucket_and_prefix_are_the_url_s(url: str, bucket: str, prefix: str) -> None:
    assert (options(url).bucket, options(url).prefix) == (bucket, prefix)


def test_settings_stand_in_the_url_too() -> None:
    url = "s3://bucket/app?region=eu-west-1&addressing=path&sse=AES256&put_args=%7B%22ACL%22%3A%22private%22%7D"
    seen = options(url)
    assert (seen.region, seen.addressing) == ("eu-west-1", "path")
    assert seen.arguments == {"ACL": "private", "ServerSideEncryption": "AES256"}


def test_settings_stand_in_the_environment_too() -> None:
    environ = {"SESSIONSTORE_URL": "s3://bucket/app", "SESSIONSTORE_REGION": "eu-west-1"}
    assert resolve(None, {}, environ, os.curdir).backend_options == {"region": "eu-west-1"}


def test_secrets_are_in_no_representation() -> None:
    seen = repr(options(access_key_id="AKID", secret_access_key="s3cr3t", session_token="t0ken"))
    assert not [secret for secret in ("AKID", "s3cr3t", "t0ken") if secret in seen]
