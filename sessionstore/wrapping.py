"""Wrappers of a backend: a function around some of its calls, for any backend.

    store.wrap(lambda backend: around(backend, {"put": slowly, "open": slowly}))

A wrapped backend behaves like the backend: it has exactly the same optional abilities, and each
call that is not named passes through unchanged. An object store's client can be wrapped too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

T = TypeVar("T")

Call = Callable[..., Any]
Wrapper = Callable[[Call], Call]
"""Takes a bound method and returns the function that is called in its place."""


@runtime_checkable
class HasClient(Protocol):
    """A backend that makes its requests through a client."""

    def wrap_client(self, wrapper: Callable[[Any], Any]) -> None:
        """Replace the client by ``wrapper(client)``, for every request from now on."""
        ...


def wrap_methods(target: T, wrappers: Mapping[str, Wrapper]) -> T:
    """Return a backend or client with a function around each of the named methods."""
    return _WrappedMethods(target, wrappers)  # type: ignore[return-value]  # it has all that the target has


class _WrappedMethods:
    def __init__(self, target: object, wrappers: Mapping[str, Wrapper]) -> None:
        self._target = target
        # Set as own attributes: a runtime-checkable protocol does not use __getattr__.
        for name in (public for public in dir(target) if not public.startswith("_")):
            if inspect.isdatadescriptor(inspect.getattr_static(type(target), name, None)):
                continue  # reading a property could fail, or be slow
            value = getattr(target, name)
            if callable(value):
                setattr(self, name, wrappers[name](value) if name in wrappers else value)
            elif hasattr(type(target), name):  # a constant of the class; instance attributes change
                setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)
