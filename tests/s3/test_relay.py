"""The relay of ``benchmarks/latency``: the bytes arrive unchanged, and not before their time."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from benchmarks.relay import HOST, Delay, Direction, relaying

RTT = 0.02


class _Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while data := self.rfile.read1(1 << 16):
            self.wfile.write(data)
        self.wfile.write(b"end")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a relay to a server that echoes the bytes, then sends "end" when they end."""
    with socketserver.ThreadingTCPServer((HOST, 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with relaying(HOST, server.server_address[1], RTT) as port:
            yield port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("size", [0, 1, 3 << 20])
def test_bytes_and_the_end_of_each_side_arrive_unchanged(port: int, size: int) -> None:
    data = os.urandom(size)
    with socket.create_connection((HOST, port)) as client, client.makefile("rb") as answer:
        thread = threading.Thread(target=_send, args=(client, data))
        thread.start()
        assert answer.read() == data + b"end"
        thread.join()


def _send(client: socket.socket, data: bytes) -> None:
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)


def test_the_first_response_takes_two_round_trips_and_a_later_one_takes_one(port: int) -> None:
    took = []
    begun = time.monotonic()
    with socket.create_connection((HOST, port)) as client:
        for _ in range(2):
            client.sendall(b"x")
            client.recv(1)
            took.append(time.monotonic() - begun)
            begun = time.monotonic()
    assert took[0] >= 2 * RTT
    assert took[1] >= RTT


def test_bytes_take_half_a_round_trip_each_way() -> None:
    delay = Delay(rtt=10, opened=100)
    assert delay.at_server(200) == 205
    assert delay.at_client(200) == 205


def test_bytes_wait_until_the_connection_is_open() -> None:
    delay = Delay(rtt=10, opened=100)
    assert delay.at_server(101) == 115
    assert delay.at_client(101) == 110


def test_a_server_that_refuses_connections_ends_them_through_the_relay() -> None:
    with socket.create_server((HOST, 0)) as closed:
        number = closed.getsockname()[1]
    with relaying(HOST, number, RTT) as port, socket.create_connection((HOST, port)) as client:
        assert client.recv(1) == b""


class _Written(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.data += data

    def is_closing(self) -> bool:
        return False


def test_bytes_that_arrive_before_the_server_is_connected_are_kept() -> None:
    """On a busy machine it may take longer to connect than the bytes are under way."""
    there, transport = Direction(Delay(RTT, 0.0).at_client, math.inf), _Written()
    there.write(b"GET ")
    there.write(b"/")
    there.connection_made(transport)
    there.write(b" HTTP/1.1")
    assert transport.data == b"GET / HTTP/1.1"
