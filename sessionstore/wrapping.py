"""Behaviour around a backend: a function around some of its calls, whatever the backend is.

    store.wrap(lambda backend: around(backend, {"put": slowly, "open": slowly}))

A wrapped backend is the backend to everything else: it has the optional abilities of the one within
and no others, and every call that is not named passes through untouched. An object store's client
can be wrapped in the same way.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from sessionstore.backends.objects_client import ObjectClient

T = TypeVar("T")

Call = Callable[..., Any]
Wrapper = Callable[[Call], Call]
"""Takes a bound method and returns what is called in its place."""


@runtime_checkable
class HasClient(Protocol):
    """A backend that makes its requests through a client."""

    def wrap_client(self, wrapper: Callable[[ObjectClient], ObjectClient]) -> None:
        """Put something around the client, for every request from now on."""
        ...


def around(target: T, wrappers: Mapping[str, Wrapper]) -> T:
    """A backend or client with a function around each of the named methods."""
    return _Wrapped(target, wrappers)  # type: ignore[return-value]  # it has all that the target has


class _Wrapped:
    def __init__(self, target: object, wrappers: Mapping[str, Wrapper]) -> None:
        self._target = target
        # As attributes of its own: a runtime-checkable protocol does not look behind __getattr__.
        for name in (each for each in dir(target) if not each.startswith("_")):
            if _is_computed(type(target), name):
                continue  # to ask for it could fail, or cost something
            value = getattr(target, name)
            if callable(value):
                setattr(self, name, wrappers[name](value) if name in wrappers else value)
            elif hasattr(type(target), name):  # a constant; what objects have of their own changes
                setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


def _is_computed(of: type, name: str) -> bool:
    """Whether it is a property."""
    return inspect.isdatadescriptor(inspect.getattr_static(of, name, None))
