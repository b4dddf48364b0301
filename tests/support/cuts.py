"""A TCP relay that cuts connections in the middle of what the client sends, at seeded places."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from typing import Self
from urllib.parse import urlsplit

from tests.support.ports import free_port

_PIECE = 16 << 10
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends a reset


class CuttingRelay:
    """The relay, for a ``with`` block. Each connection goes to another one of the ``servers``.

    While ``cuts`` are left, a connection is reset on both sides after a number of bytes from its
    client that is drawn from ``between``. ``on_cut`` is called with the number of each.
    """

    def __init__(
        self,
        servers: Sequence[str],
        seed: int,
        between: tuple[int, int],
        on_cut: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.servers = list(servers)
        self.cuts = 0
        self.done = 0
        """How many connections were cut."""
        self.sent = 0
        """The bytes that clients sent."""
        self._random = random.Random(seed)
        self._between = between
        self._on_cut = on_cut
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", free_port()))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        number = 0
        with contextlib.suppress(OSError):  # it is closed
            while True:
                client, _ = self._listener.accept()
                number += 1
                server = urlsplit(self.servers[number % len(self.servers)])
                ends = (client, (str(server.hostname), server.port or 0))
                threading.Thread(target=self._relay, args=ends, daemon=True).start()

    def _relay(self, client: socket.socket, server: tuple[str, int]) -> None:
        try:
            far = socket.create_connection(server)
        except OSError:  # it is dead
            client.close()
            return
        back = threading.Thread(target=_copy, args=(far, client), daemon=True)
        back.start()
        with self._lock:
            left = self._random.randint(*self._between)
        with contextlib.suppress(OSError):
            while data := client.recv(_PIECE):
                left -= len(data)
                with self._lock:
                    self.sent += len(data)
                    cut = left < 0 and self.cuts > 0
                    self.cuts -= cut
                    self.done += cut
                    number = self.done
                far.sendall(data[:left] if cut else data)
                if cut:
                    for end in (client, far):
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    client.shutdown(socket.SHUT_RDWR)
                    far.shutdown(socket.SHUT_RD)
                    self._on_cut(number)
                    break
            else:
                far.shutdown(socket.SHUT_WR)
        back.join()  # or its socket's number could be another one's by now
        client.close()
        far.close()


def _copy(source: socket.socket, to: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_PIECE):
            to.sendall(data)
        to.shutdown(socket.SHUT_WR)
