"""Behaviour around a backend: something happens at each call, whatever the backend is.

    store.wrap(lambda backend: around(backend, watch))

A wrapped backend is the backend to everything else: it has the optional abilities of the one within
and no others, and all that is not a call of the interface passes through untouched. An object
store's client can be wrapped in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from sessionstore.backends.objects_client import ObjectClient

T = TypeVar("T")

CALLS: Final = (
    "put", "get", "open", "delete", "discard", "session", "identify", "touch", "end", "resume",
    "drop", "collect", "stored",
)  # fmt: skip
"""The calls of a backend that do something and return."""

LISTINGS: Final = ("files", "sessions")
"""The calls of a backend that return an iterator, and do their work while it is read."""

REQUESTS: Final = ("put", "get", "delete", "begin", "upload_part", "complete", "abort")
"""The calls of an object store's client that are one request each."""

PAGED: Final = ("list", "uploads")
"""Its calls that are a request a page."""

Returned = Callable[[Any], Any]
"""Told the result of a call; what it returns is the result for the caller."""

Watch = Callable[[str], AbstractContextManager[Returned]]
"""Entered around each call, by its name. An error of the call leaves through it.

Of a listing it is entered for each entry, because a reader may take long between two; at its end it
is entered once more, and told nothing.
"""


@runtime_checkable
class HasClient(Protocol):
    """A backend that makes its requests through a client."""

    def wrap_client(self, wrapper: Callable[[ObjectClient], ObjectClient]) -> None:
        """Put something around the client, for every request from now on."""
        ...


def around(
    target: T, watch: Watch, *, calls: Collection[str] = CALLS, listings: Collection[str] = LISTINGS
) -> T:
    """A backend or client with ``watch`` around each of its calls."""
    return _Wrapped(target, watch, calls, listings)  # type: ignore[return-value]  # it has all that the target has


class _Wrapped:
    def __init__(
        self, target: object, watch: Watch, calls: Collection[str], listings: Collection[str]
    ) -> None:
        self._target = target
        # As attributes of its own: a runtime-checkable protocol does not look behind __getattr__.
        for name in dir(target):
            ability = None if name.startswith("_") else getattr(target, name)
            if name in calls:
                setattr(self, name, _call(watch, name, getattr(target, name)))
            elif name in listings:
                setattr(self, name, _listing(watch, name, getattr(target, name)))
            elif callable(ability):
                setattr(self, name, ability)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


def _call(watch: Watch, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def watched(*args: Any, **options: Any) -> Any:
        with watch(name) as returned:
            return returned(call(*args, **options))

    return watched


def _listing(watch: Watch, name: str, call: Callable[..., Iterator[Any]]) -> Callable[..., Any]:
    def watched(*args: Any, **options: Any) -> Iterator[Any]:
        entries = iter(call(*args, **options))
        while True:
            with watch(name) as returned:
                entry = next(entries, _END)
                if entry is not _END:
                    entry = returned(entry)
            if entry is _END:
                return
            yield entry

    return watched


_END: Final = object()
