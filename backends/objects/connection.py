"""A client of a cloud library: created on first use, and created again after a fork."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

Client = Any
"""A client of a cloud library; ``Any``, because botocore creates its methods at run time."""


class Connection:
    """One client that all threads share. Thread-safe."""

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._client: Client | None = None
        _connections.add(self)

    @property
    def client(self) -> Client:
        """The client; the first caller creates it."""
        if self._client is None:
            with self._lock:  # boto3 cannot create clients from several threads at once
                if self._client is None:
                    self._client = self._make()
        return self._client

    def renew(self, make: Callable[[], Client]) -> None:
        """Close the client and create later ones with ``make``."""
        self.close()
        self._make = make

    def close(self) -> None:
        """Close the client, if any; the next use creates a new one."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def forget(self) -> None:
        """Reset the connection in the child of a fork, without closing the parent's sockets.

        The lock is replaced: a thread that exists only in the parent may hold it.
        """
        self._lock = threading.Lock()
        self._client = None


_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


def _forget_all() -> None:
    for connection in _connections:
        connection.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
