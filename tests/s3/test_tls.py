"""TLS with a private authority: what is trusted, what is refused, and in which words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sessionstore import BackendUnavailable, SessionStore, SettingsError
from tests.support import seaweed, tls

pytestmark = pytest.mark.server

ENGINES = ("boto3", "obstore")
VARIABLES = ("AWS_CA_BUNDLE", "SSL_CERT_FILE")

Serve = Callable[[Path], str]
"""Puts the server behind TLS with a certificate; gives the endpoint."""


@pytest.fixture(autouse=True)
def _no_authority(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def authority(tmp_path: Path) -> tls.Authority:
    return tls.Authority(tmp_path, "private")


@pytest.fixture
def serve(seaweed_server: seaweed.Server) -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda certificate: stack.enter_context(
            tls.relay(seaweed_server.endpoint, certificate)
        )


def url_of(endpoint: str, prefix: str, engine: str) -> str:
    return f"s3://{seaweed.BUCKET}/{prefix}?endpoint_url={endpoint}&engine={engine}"


@pytest.mark.parametrize(
    ("engine", "variable"),
    [("boto3", "AWS_CA_BUNDLE"), *(("obstore", each) for each in VARIABLES)],
)
def test_a_private_authority_is_trusted_by_saves_reads_and_sweeps(
    serve: Serve, authority: tls.Authority, prefix: str, monkeypatch: pytest.MonkeyPatch,
    *, engine: str, variable: str,
) -> None:  # fmt: skip
    monkeypatch.setenv(variable, str(authority.file))
    url = url_of(serve(authority.certify(tls.HERE)), prefix, engine)
    with SessionStore.open(url) as store:
        store.session("visitor").put("cat.png", b"cat")
        assert store.session("visitor").read("cat.png") == b"cat"
        assert store.sweep() == []


@pytest.mark.parametrize("variable", VARIABLES)
def test_of_several_authorities_in_a_file_each_is_trusted(
    serve: Serve, authority: tls.Authority, tmp_path: Path, prefix: str,
    monkeypatch: pytest.MonkeyPatch, *, variable: str,
) -> None:  # fmt: skip
    both = tmp_path / "both.pem"
    other = tls.Authority(tmp_path, "other")
    both.write_bytes(other.file.read_bytes() + authority.file.read_bytes())
    monkeypatch.setenv(variable, str(both))
    with SessionStore.open(url_of(serve(authority.certify(tls.HERE)), prefix, "obstore")) as store:
        assert store.sweep() == []


def of_another_host(authority: tls.Authority, _: Path) -> Path:
    return authority.certify("elsewhere.example.org")


def of_another_authority(_: tls.Authority, directory: Path) -> Path:
    return tls.Authority(directory, "other").certify(tls.HERE)


def self_signed(_: tls.Authority, directory: Path) -> Path:
    return tls.self_signed(directory)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("certificate", "said"),
    [
        (of_another_host, {"boto3": "match", "obstore": "for another host"}),
        (of_another_authority, {"boto3": "certificate verify failed", "obstore": "not known"}),
        (self_signed, {"boto3": "self-signed certificate", "obstore": "not known"}),
    ],
    ids=lambda it: getattr(it, "__name__", ""),
)
def test_a_wrong_certificate_is_refused_in_words(
    serve: Serve, authority: tls.Authority, tmp_path: Path, prefix: str,
    monkeypatch: pytest.MonkeyPatch, *, engine: str,
    certificate: Callable[[tls.Authority, Path], Path], said: dict[str, str],
) -> None:  # fmt: skip
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.file))
    endpoint = serve(certificate(authority, tmp_path))
    with pytest.raises(BackendUnavailable) as refused:
        SessionStore.open(url_of(endpoint, prefix, engine))
    assert f"the connection to {endpoint} cannot be secured" in str(refused.value)
    assert said[engine] in str(refused.value)


@pytest.mark.parametrize("engine", ENGINES)
def test_without_a_variable_a_private_authority_is_refused(
    serve: Serve, authority: tls.Authority, prefix: str, engine: str
) -> None:
    endpoint = serve(authority.certify(tls.HERE))
    with pytest.raises(BackendUnavailable, match="cannot be secured"):
        SessionStore.open(url_of(endpoint, prefix, engine))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_server_without_tls_is_told_from_one_that_is_not_there(
    seaweed_server: seaweed.Server, prefix: str, engine: str
) -> None:
    endpoint = seaweed_server.endpoint.replace("http:", "https:")
    with pytest.raises(BackendUnavailable, match="cannot be secured"):
        SessionStore.open(url_of(endpoint, prefix, engine))


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_bundle_that_cannot_be_used_is_a_wrong_setting(
    tmp_path: Path, prefix: str, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_bytes(content)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    with pytest.raises(SettingsError, match=r"AWS_CA_BUNDLE=.*bundle\.pem.*name a file of"):
        SessionStore.open(url_of("https://127.0.0.1:9", prefix, "obstore"))
