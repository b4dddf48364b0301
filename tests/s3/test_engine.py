"""The engine of a store: which one ``auto`` is, who shows it, and what boto3 finds for obstore."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from moto import mock_aws

from sessionstore import SessionStore, SettingsError
from sessionstore.adapters.gradio.admin import page
from sessionstore.backends.s3 import S3Backend
from sessionstore.backends.s3.boto3_client import S3Client
from sessionstore.backends.s3.obstore_client import ObstoreClient
from sessionstore.doctor import doctor
from sessionstore.settings.resolver import resolve
from tests.s3.scripted import Reply, ScriptedServer, listing, refusal
from tests.support import seaweed
from tests.support.cli_rig import run


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """A server with an empty store, which boto3 and obstore find by a variable."""
    server = ScriptedServer()
    server.replies = [listing("app/layout")]
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    with server.serving():
        yield server


@pytest.fixture
def aws_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for AWS configuration files, and no credentials in the environment."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path


def opened(url: str = "s3://sessions/app", **options: Any) -> Any:
    found = resolve(url, options, {}, Path())
    return closing(S3Backend.open_client(found.location, found.backend_options))


def chosen(url: str = "s3://sessions/app", **options: Any) -> str:
    found = resolve(url, options, {}, Path())
    return str(S3Backend.chosen_engine(found.location, found.backend_options))


OBSTORE, BOTO3 = f"obstore {version('obstore')}", f"boto3 {version('boto3')}"


# The choice


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("", ObstoreClient),
        ("?engine=auto", ObstoreClient),
        ("?engine=obstore", ObstoreClient),
        ("?engine=boto3", S3Client),
    ],
)
@pytest.mark.usefixtures("server")
def test_the_engine_is_obstore_or_the_user_s_choice(query: str, kind: type) -> None:
    with opened(f"s3://sessions/app{query}") as client:
        assert type(client) is kind


def test_it_is_boto3_while_moto_is_active() -> None:
    with mock_aws():
        assert chosen() == f"{BOTO3} (moto is active)"
    assert chosen() == OBSTORE


@pytest.mark.parametrize(
    ("url", "options", "why"),
    [
        ("s3://sessions/a*b", {}, "obstore encodes '*' in a key"),
        ("s3://sessions/a", {"put_args": {"ACL": "private"}}, "obstore cannot send ACL"),
    ],
)
def test_it_is_boto3_for_what_only_boto3_can_do(url: str, options: Any, why: str) -> None:
    assert chosen(url, **options) == f"{BOTO3} ({why})"


def test_it_is_boto3_for_a_variable_that_only_boto3_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    assert chosen() == f"{BOTO3} (obstore does not read AWS_USE_FIPS_ENDPOINT)"


@pytest.mark.parametrize("name", ["endpoint_url", "ca_bundle", "use_dualstack_endpoint"])
def test_it_is_boto3_for_configuration_that_only_boto3_reads(aws_files: Path, name: str) -> None:
    (aws_files / "config").write_text(f"[profile work]\n{name} = x\n")
    assert chosen() == OBSTORE
    why = f"obstore does not read {name} in the AWS configuration"
    assert chosen(profile="work") == f"{BOTO3} ({why})"


@pytest.mark.parametrize(
    ("installed", "expected"),
    [("boto3", f"{BOTO3} (obstore is not installed)"), ("obstore", OBSTORE)],
)
def test_it_is_the_one_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, installed: str, expected: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == installed or None)
    assert chosen() == expected


def test_none_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"obstore or boto3.*pip install 'sessionstore\[s3\]'"):
        chosen()


# Who shows it


@pytest.mark.server
def test_the_log_and_the_backend_name_it(
    seaweed_server: seaweed.Server, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sessionstore")
    with SessionStore.open(seaweed_server.url(prefix)) as store:
        assert getattr(store.backend, "engine", None) == OBSTORE
    assert f"{OBSTORE} makes the requests to s3://sessions/{prefix}" in caplog.text


def test_the_dashboard_names_it() -> None:
    backend = SimpleNamespace(engine=OBSTORE, digest="sha256")
    store: Any = SimpleNamespace(location="s3://sessions/app", backend=backend)
    snapshot: Any = SimpleNamespace(at=datetime(2026, 1, 1, tzinfo=UTC))
    assert OBSTORE in page.head(snapshot, store)


@pytest.mark.parametrize(
    ("query", "value"),
    [("", f"auto: {OBSTORE}"), ("?engine=auto", f"auto: {OBSTORE}"), ("?engine=boto3", "boto3")],
)
def test_the_command_config_names_it(query: str, value: str) -> None:
    shown = {row[0]: row[1] for row in run("config", "-s", f"s3://sessions/app{query}").rows}
    assert shown["engine"] == value


@pytest.mark.server
def test_the_doctor_names_it(seaweed_server: seaweed.Server) -> None:
    check = doctor(seaweed_server.url("doctor-engine")).find("engine")
    assert check is not None
    assert (check.short, check.words) == ("obstore", f"{OBSTORE} makes the requests")


# What boto3 finds for obstore


@pytest.mark.parametrize(("profile", "key"), [(None, "first"), ("work", "second")])
def test_obstore_uses_the_credentials_that_boto3_finds(
    server: ScriptedServer, aws_files: Path, profile: str | None, key: str
) -> None:
    (aws_files / "credentials").write_text(
        "[default]\naws_access_key_id = first\naws_secret_access_key = x\n"
        "[work]\naws_access_key_id = second\naws_secret_access_key = x\n"
    )
    (aws_files / "config").write_text(
        "[default]\nregion = eu-west-1\n[profile work]\nregion = eu-west-3\n"
    )
    with opened(**({"profile": profile} if profile else {})) as client:
        assert type(client) is ObstoreClient
    region = "eu-west-3" if profile else "eu-west-1"
    assert f"Credential={key}/" in server.asked[0].headers["authorization"]
    assert f"/{region}/s3/" in server.asked[0].headers["authorization"]


@pytest.mark.usefixtures("aws_files")
def test_no_credentials(server: ScriptedServer) -> None:
    with pytest.raises(SettingsError, match="no credentials were found; set AWS_ACCESS_KEY_ID"):
        opened()
    assert server.asked == []


@pytest.mark.usefixtures("server", "aws_files")
def test_no_such_profile() -> None:
    with pytest.raises(SettingsError, match=r"\(nobody\) could not be found; set profile"):
        opened(profile="nobody")


def test_half_of_the_credentials(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(SettingsError, match=r"incomplete: .*AWS_SECRET_ACCESS_KEY"):
        opened()
    assert server.asked == []


def test_a_profile_needs_boto3(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name != "boto3" or None)
    with pytest.raises(SettingsError, match="invalid profile='work': engine=obstore needs boto3"):
        opened(profile="work")
    assert server.asked == []


@pytest.mark.parametrize("reply", [Reply(301), refusal(301, "PermanentRedirect")])
def test_without_a_region_the_bucket_s_is_taken(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, reply: Reply
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    found = Reply(body=listing().body, headers={"x-amz-bucket-region": "eu-west-3"})
    server.replies = [reply, found, listing("app/layout")]
    with opened(access_key_id="a", secret_access_key="b") as client:
        assert type(client) is ObstoreClient
    assert "/eu-west-3/s3/" in server.asked[-1].headers["authorization"]


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_a_server_of_the_environment_is_addressed_by_path(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv(name, f"{server.endpoint}/")
    with opened():
        assert server.asked[0].path.startswith("/sessions?")


@mock_aws
def test_a_user_s_test_with_moto_needs_no_engine() -> None:
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="bucket")
    with SessionStore.open("s3://bucket/prefix") as store:
        assert getattr(store.backend, "engine", None) == f"{BOTO3} (moto is active)"
        assert store.session("a").put("f", b"1").read() == b"1"
