"""Authorities, certificates, and a relay that speaks TLS in front of a server that does not."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support.ports import free_port

HERE = "127.0.0.1"
_CHUNK = 1 << 16


class Authority:
    """An authority of its own; ``file`` is its certificate."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        certificate = (
            self._begun(self._name, self._key)
            .add_extension(constraints, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(_pem(certificate))

    def certify(self, host: str) -> Path:
        """Make a certificate for a host name or an address; gives a file with it and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            name = x509.DNSName(host)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        certificate = (
            self._begun(subject, key)
            .add_extension(x509.SubjectAlternativeName([name]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return _written(self._directory / f"{self.file.stem}-{host}.pem", key, certificate)

    def _begun(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        return _begun(subject, self._name, key)


def self_signed(directory: Path) -> Path:
    """Make a certificate for this machine, signed by itself; gives a file with it and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HERE)])
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HERE))])
    certificate = (
        _begun(name, name, key).add_extension(here, critical=False).sign(key, hashes.SHA256())
    )
    return _written(directory / "self-signed.pem", key, certificate)


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _written(path: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> Path:
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + _pem(certificate)
    )
    return path


@contextlib.contextmanager
def relay(endpoint: str, certificate: Path) -> Iterator[str]:
    """The server at ``endpoint`` behind TLS with that certificate; gives its https URL."""
    parts = urlsplit(endpoint)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = socket.create_server((HERE, free_port()))
    threads: list[threading.Thread] = []

    def start(target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]  # a function
        threads.append(thread)
        thread.start()

    def accept() -> None:
        with contextlib.suppress(OSError):  # closed: it is over
            while True:
                raw, _ = listener.accept()
                start(serve, raw)

    def serve(raw: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),  # a client that refuses the certificate
            raw,
            context.wrap_socket(raw, server_side=True) as client,
            socket.create_connection((parts.hostname or HERE, parts.port or 80)) as server,
        ):
            server.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
            )  # a body follows its headers
            start(pump, server, client)
            pump(client, server)

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    start(accept)
    try:
        yield f"https://{HERE}:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        threads[0].join()
