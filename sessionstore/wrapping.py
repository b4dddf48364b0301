"""Behaviour around a backend: something happens at each call, whatever the backend is.

    store.wrap(lambda backend: around(backend, watch))

A wrapped backend is the backend to everything else: it has the optional abilities of the one within
and no others, and all that is not a call of the interface passes through untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final, cast

from sessionstore.backend import Backend

CALLS: Final = (
    "put", "get", "open", "delete", "discard", "session", "identify", "touch", "end", "resume",
    "drop", "collect", "stored",
)  # fmt: skip
"""The calls that do something and return."""

LISTINGS: Final = ("files", "sessions")
"""The calls that return an iterator, and do their work while it is read."""

Watch = Callable[[str], AbstractContextManager[Callable[[Any], None]]]
"""Entered around each call by its name; what it gives is told the result of a call that has one.

An error of the call leaves through it. A listing is entered once for each entry, because its reader
may take long between two.
"""


def around(backend: Backend, watch: Watch) -> Backend:
    """The backend, with ``watch`` around each of its calls."""
    return cast("Backend", _Wrapped(backend, watch))


class _Wrapped:
    def __init__(self, backend: Backend, watch: Watch) -> None:
        self.wrapped = backend
        self._watch = watch
        for name in CALLS:
            setattr(self, name, self._call(name, getattr(backend, name)))
        for name in LISTINGS:
            setattr(self, name, self._listing(name, getattr(backend, name)))
        # As attributes of its own: a runtime-checkable protocol does not look behind __getattr__.
        for name in dir(backend):
            if not name.startswith("_") and name not in vars(self):
                setattr(self, name, getattr(backend, name))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)

    def _call(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **options: Any) -> Any:
            with self._watch(name) as returned:
                result = call(*args, **options)
                returned(result)
                return result

        return watched

    def _listing(self, name: str, call: Callable[..., Iterator[Any]]) -> Callable[..., Any]:
        def watched(*args: Any, **options: Any) -> Iterator[Any]:
            entries = iter(call(*args, **options))
            while True:
                with self._watch(name) as returned:
                    entry = next(entries, _END)
                    returned(entry)
                if entry is _END:
                    return
                yield entry

        return watched


_END: Final = object()
