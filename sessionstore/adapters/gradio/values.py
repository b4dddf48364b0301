"""Stored files inside values of the app: outputs of handlers, and results in ``gr.cache``.

A result in a cache is for every visitor, and may outlive the session of its file. So the file is
saved once more, in a private session of this process, for as long as a cache has it, with a time to
live that is renewed.
"""

from __future__ import annotations

import copy
import secrets
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from sessionstore.adapters.gradio import compat
from sessionstore.adapters.gradio.cache_files import CacheFiles, FoundFile
from sessionstore.adapters.gradio.recent_saves import KeptSession
from sessionstore.errors import FileNotStored
from sessionstore.local_copies import fit
from sessionstore.names import HIDDEN, private_key
from sessionstore.storedfile import StoredFile

if TYPE_CHECKING:
    from sessionstore.model import Reference


class CachedResults:
    """The files of results that the app has in ``gr.cache`` or ``gr.Cache``, for one process."""

    def __init__(self, files: CacheFiles, whose: Callable[[str], StoredFile | None]) -> None:
        """Use the cache of ``files``. ``whose`` returns the file that ``local_path()`` copied."""
        self._files = files
        self._whose = whose
        key = private_key("gradio cached", secrets.token_hex(8))
        self._session = KeptSession(files.store, key)
        self._kept: dict[str, Reference] = {}
        self._caches: weakref.WeakSet[Any] = weakref.WeakSet()

    def keep(self, cache: Any, entry: dict[str, Any]) -> None:
        """Save the files of a new entry, and replace its stored files by those that were saved."""
        self._caches.add(cache)
        for key, value in list(entry.items()):
            for name in self._names(value):
                if name not in self._kept and self._files.local.stamp(name) is not None:
                    self._save(name, self._files.local.path(name))
            if has_stored(value):
                entry[key] = with_paths(value, self._saved)

    def _names(self, value: Any) -> Iterator[str]:
        """Yield the names of the files of Gradio's cache whose paths are in a value."""
        for path, name in self._files.paths.within(value):
            if self._files.paths.kept(name) or name in self._kept or self._whose(path) is not None:
                yield name

    def _saved(self, file: StoredFile) -> StoredFile:
        if file.session.store is not self._files.store or file.session.sid == self._session.sid:
            return file
        name = f"{file.digest}/{fit(file.name)}"
        if name not in self._kept:
            with file.open() as content:
                self._save(name, content)
        return StoredFile(self._session, self._kept[name])

    def _save(self, name: str, content: Any) -> None:
        ttl = self._files.pinned_for
        self._kept[name] = self._session.put(name, content, ttl).reference

    def __contains__(self, name: str) -> bool:
        return name in self._kept

    def restore(self, name: str) -> FoundFile | None:
        """Fetch the file of a path in a cache, None if no cache has it."""
        reference = self._kept.get(name)
        if reference is None:
            return None
        found = FoundFile(name, self._session.sid, reference)
        self._files.fetch(found)
        return found

    def renew(self, *, again: bool) -> None:
        """Delete the files that no cache has any more, and save the others ``again``."""
        alive: set[str] = set()
        for cache in list(self._caches):
            for value in compat.values_in(cache):
                alive.update(self._names(value))
                with_paths(value, lambda file: alive.add(file.name.removeprefix(HIDDEN)))
        for name, reference in list(self._kept.items()):
            if name not in alive:
                del self._kept[name]
                self._files.store.backend.discard(self._session.sid, [reference])
                self._files.forget_file(self._session.sid, reference.name)
            elif again:
                try:
                    with StoredFile(self._session, reference).open() as content:
                        self._save(name, content)
                except FileNotStored:
                    del self._kept[name]


def file_paths(value: Any) -> Iterator[str]:
    """Yield the paths of the files in the value of a component, as Gradio finds them."""
    if isinstance(value, dict):
        path = value.get("path")
        if isinstance(path, str) and "meta" in value:
            yield path
        else:
            for item in value.values():
                yield from file_paths(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from file_paths(item)


def has_stored(value: Any) -> bool:
    """Return whether a handler's return value has a stored file anywhere inside."""
    if value is None or isinstance(value, str | bytes | int | float):
        return False
    return isinstance(value, StoredFile) or any(has_stored(part) for part in _parts(value))


def with_paths(value: Any, path: Callable[[StoredFile], Any]) -> Any:
    """Return a copy of ``value`` with ``path(file)`` in place of each stored file."""
    if isinstance(value, StoredFile):
        return path(value)
    if isinstance(value, dict):
        # In a chat message, content that is a path must say so: other content is text.
        convert = {"content": _content} if "role" in value else {}
        return {key: convert.get(key, with_paths)(item, path) for key, item in value.items()}
    if isinstance(value, list):
        return [with_paths(item, path) for item in value]
    if isinstance(value, tuple):
        items = [with_paths(item, path) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if not has_stored(value):
        return value
    changed = copy.copy(value)
    if _is_message(value):
        changed.content = _content(value.content, path)
    else:
        calls = [with_paths(arguments, path) for arguments in compat.arguments_of(value)]
        compat.set_arguments(changed, calls)
    return changed


def _content(value: Any, path: Callable[[StoredFile], Any]) -> Any:
    if isinstance(value, StoredFile):
        return {"path": path(value)}
    if isinstance(value, list):
        return [_content(item, path) for item in value]
    return with_paths(value, path)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple):
        return value
    return [value.content] if _is_message(value) else compat.arguments_of(value)


def _is_message(value: Any) -> bool:
    """Return whether the value is a ``gr.ChatMessage`` or has its attributes."""
    return hasattr(value, "role") and hasattr(value, "content")
