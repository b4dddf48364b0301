"""The client of a cloud library: one for all threads, and another one after a fork."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

Client = Any
"""A client of a cloud library; ``Any``, because botocore creates its methods at run time."""


class Connection:
    """One client, created on first use and again after a fork. Thread-safe."""

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._client: Client | None = None
        _connections.add(self)

    @property
    def client(self) -> Client:
        if self._client is None:
            with self._lock:  # boto3 cannot create clients from several threads at once
                if self._client is None:
                    self._client = self._make()
        return self._client

    def close(self) -> None:
        """Close the client, if any; the next use creates a new one."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def forget(self) -> Client | None:
        """Return the client, and create another one at the next use.

        The lock is replaced: after a fork, a thread that exists only in the parent may hold it.
        """
        self._lock = threading.Lock()
        client, self._client = self._client, None
        return client


_connections: weakref.WeakSet[Connection] = weakref.WeakSet()
_parents: list[Client] = []
"""The clients of the parent, in the child of a fork: to free them would touch their connections."""


def _after_fork() -> None:
    _parents.extend(filter(None, [connection.forget() for connection in _connections]))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
