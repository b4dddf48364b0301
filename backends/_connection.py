"""A library's client: made when it is first needed, and made anew after a fork."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

Client = Any
"""A client of some library; botocore makes the methods of its own at run time."""


class Connection:
    """One client, shared by all threads. Safe to use from any of them."""

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._client: Client | None = None
        _connections.add(self)

    @property
    def client(self) -> Client:
        """The client, made by the first who asks: making one is not thread-safe with boto3."""
        if self._client is None:
            with self._lock:
                if self._client is None:
                    self._client = self._make()
        return self._client

    def renew(self, make: Callable[[], Client]) -> None:
        """Make clients in another way from now on."""
        self.close()
        self._make = make

    def close(self) -> None:
        """Close the client if there is one; the next who asks gets a new one."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def forget(self) -> None:
        """Begin anew, in the child of a fork.

        The sockets are the parent's, and the lock may be held by a thread that is not here.
        """
        self._lock = threading.Lock()
        self._client = None


_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


def _forget_all() -> None:
    for connection in _connections:
        connection.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
