"""The owner's cookie: nobody plants one beside the visitor's own, whatever is in the header.

A sibling subdomain may set any cookie for the whole domain, but for the names that browsers protect
(``__Host-``). It forges with names that a lax server takes for the protected one.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from playwright.sync_api import sync_playwright
from starlette.requests import Request
from starlette.responses import HTMLResponse

from sessionstore.adapters.asgi.app import OwnerCookie, owner
from sessionstore.adapters.cookies import needs_cookie
from tests.gradio.test_browser import FLAGS, patient
from tests.support.ports import free_port

NAME = b"__Host-sessionstore"
VICTIM, ATTACKER = b"v" * 43, b"a" * 43
MINE = NAME + b"=" + VICTIM

FORGED = [
    b"\xa0" + NAME + b"=" + ATTACKER,  # a no-break space, which str.strip takes away
    b"\x85" + NAME + b"=" + ATTACKER,  # a next line
    b"\xa0\x85\xa0" + NAME + b"=" + ATTACKER,
    NAME + b"\xa0=" + ATTACKER,
    b"\xc2\xa0" + NAME + b"=" + ATTACKER,  # a no-break space in UTF-8
    b"\xe2\x80\x83" + NAME + b"=" + ATTACKER,  # an em space
    b"\xef\xbb\xbf" + NAME + b"=" + ATTACKER,  # a byte order mark
    b"__host-sessionstore=" + ATTACKER,
    b"=" + NAME + b"=" + ATTACKER,  # no name, and a value that looks like one
    b"," + NAME + b"=" + ATTACKER,
    b"x=1," + NAME + b"=" + ATTACKER,
    b"x=1\xa0" + NAME + b"=" + ATTACKER,
]
"""Twelve cookies that are none of ours, as a server over HTTP/1.1 may receive them."""

CONTROLS = [bytes([code]) + NAME + b"=" + ATTACKER for code in (0x0B, 0x0C, 0x1C, 0x1D, 0x1E, 0x1F)]
"""Those that str.strip takes away, too; some servers refuse the request before."""


def of(token: bytes) -> str:
    """The owner that a cookie stands for."""
    return "visitor-" + hashlib.sha256(token).hexdigest()[:32]


def a_request(*cookies: bytes, scheme: str = "https") -> Request:
    """A request with a Cookie header for each of these."""
    headers = [(b"cookie", each) for each in cookies]
    return Request({"type": "http", "method": "GET", "scheme": scheme, "headers": headers})


@pytest.mark.parametrize("forged", [*FORGED, *CONTROLS, NAME + b" =" + ATTACKER, NAME])
def test_a_forged_cookie_changes_nothing_beside_the_visitor_s(forged: bytes) -> None:
    before, after = a_request(forged + b"; " + MINE), a_request(MINE + b"; " + forged)

    assert [owner(before), owner(after)] == [of(VICTIM)] * 2
    assert not needs_cookie(after)


@pytest.mark.parametrize("forged", [*FORGED, *CONTROLS])
def test_a_forged_cookie_alone_is_no_owner(forged: bytes) -> None:
    request = a_request(forged)

    assert owner(request) is None
    assert needs_cookie(request)


@pytest.mark.parametrize(
    "cookies",
    [
        [MINE],
        [b"a=b; " + MINE],
        [b"a=b;" + MINE + b";c=d"],
        [b"a=b;\t" + MINE + b"\t"],
        [b'a="b;c"; ' + MINE],
        [b"a=b", MINE, b"c=d"],
    ],
)
def test_white_space_and_several_headers_are_as_the_standards_have_them(
    cookies: list[bytes],
) -> None:
    assert owner(a_request(*cookies)) == of(VICTIM)


@pytest.mark.parametrize("other", [NAME + b"=" + ATTACKER, MINE, NAME + b"=", NAME + b"=short"])
def test_of_two_cookies_neither_counts_and_no_third_is_given(other: bytes) -> None:
    """A third would replace the visitor's own, which counts again once the planted one is gone."""
    requests = [a_request(MINE + b"; " + other), a_request(other, MINE)]

    assert [owner(request) for request in requests] == [None, None]
    assert not any(needs_cookie(request) for request in requests)


# Really served


class Pages:
    """An app that answers with the owner, and keeps the Cookie headers as they came."""

    def __init__(self) -> None:
        self.cookies: list[bytes] = []
        self.app = OwnerCookie(self._answer)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope)
        self.cookies += [value for name, value in scope["headers"] if name == b"cookie"]
        await HTMLResponse(str(owner(request)))(scope, receive, send)


@contextmanager
def served(pages: Pages, **options: Any) -> Iterator[int]:
    """The app over HTTP/1.1; gives its port."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(
            pages.app, port=port, http="h11", lifespan="off", log_level="critical", **options
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
            assert thread.is_alive(), "the server did not start"
        yield port
    finally:
        server.should_exit = True
        thread.join()


def ask(port: int, *cookies: bytes) -> tuple[str, list[str]]:
    """The owner that a request with these headers has, and the cookies that it is given."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.putrequest("GET", "/")
        connection.putheader("X-Forwarded-Proto", "https")
        for each in cookies:
            connection.putheader("Cookie", each)
        connection.endheaders()
        response = connection.getresponse()
        return response.read().decode(), response.headers.get_all("set-cookie") or []
    finally:
        connection.close()


def test_over_http_a_visitor_keeps_the_owner_beside_each_forged_cookie() -> None:
    pages = Pages()
    with served(pages) as port:
        answers = [ask(port, each + b"; " + MINE) for each in FORGED]
        answers += [ask(port, MINE + b"; " + each) for each in FORGED]
        answers += [ask(port, MINE, each) for each in FORGED]

    assert answers == [(of(VICTIM), [])] * 36
    assert set(FORGED) <= {each for header in pages.cookies for each in header.split(b"; ")}


def certificate(directory: Path) -> tuple[Path, Path]:
    """A key and a certificate that nobody trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "example.test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    key_file, file = directory / "key.pem", directory / "certificate.pem"
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return key_file, file


@contextmanager
def evil(key: Path, file: Path) -> Iterator[int]:
    """A page that sets ``FORGED[n]`` at the path ``/n`` for the whole domain; gives its port.

    Header bytes as they are, which a library's server would refuse to send.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    listener = socket.create_server(("127.0.0.1", free_port()))
    stop = threading.Event()

    def answer(connection: ssl.SSLSocket) -> None:
        asked = b""
        while b"\r\n\r\n" not in asked and (more := connection.recv(65536)):
            asked += more
        number = asked.split(b" ")[1].removeprefix(b"/") if b" " in asked else b""
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n"
        if number.isdigit():
            cookie = FORGED[int(number)] + b"; Domain=example.test; Path=/; Secure; SameSite=None"
            head += b"Set-Cookie: " + cookie + b"\r\n"
        connection.sendall(head + b"Connection: close\r\n\r\nok")

    def one(plain: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),  # the browser opens some that it does not use
            plain,
            context.wrap_socket(plain, server_side=True) as connection,
        ):
            answer(connection)

    def serve() -> None:
        while not stop.is_set():
            plain, _ = listener.accept()
            threading.Thread(target=one, args=(plain,), daemon=True).start()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        stop.set()
        socket.create_connection(listener.getsockname()).close()
        thread.join()
        listener.close()


@pytest.mark.browser
def test_in_a_browser_a_sibling_subdomain_plants_no_owner(
    chromium_path: str, tmp_path: Path
) -> None:
    rules = "--host-resolver-rules=MAP *.example.test 127.0.0.1, MAP * ~NOTFOUND"
    flags = [flag for flag in FLAGS if not flag.startswith("--host-resolver-rules")]
    pages = Pages()
    with ExitStack() as stack:
        key, file = certificate(tmp_path)
        port = stack.enter_context(served(pages, ssl_keyfile=str(key), ssl_certfile=str(file)))
        evil_port = stack.enter_context(evil(key, file))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=chromium_path, args=[*flags, rules])
        stack.callback(patient(browser).close)
        app = f"https://app.example.test:{port}/"
        owners = []
        for number in range(len(FORGED)):
            with browser.new_context(ignore_https_errors=True) as context:
                page = context.new_page()
                page.goto(app)
                page.goto(app)
                mine = page.inner_text("body")
                page.goto(f"https://evil.example.test:{evil_port}/{number}")
                page.goto(app)
                owners.append((mine, page.inner_text("body")))

    assert all(mine.startswith("visitor-") and mine == then for mine, then in owners)
    assert len({mine for mine, _ in owners}) == len(FORGED)
    # The browser did send what a lax server takes for the visitor's: the test is of something.
    assert any(b"\xa0" + NAME + b"=" + ATTACKER in header for header in pages.cookies)
