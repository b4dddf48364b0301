"""Values as signed pickles: their bytes are verified before anything of them is unpickled.

Whoever can make a process unpickle bytes can run code in it. So a value is kept as::

    <header, with the version> <HMAC-SHA-256 with the store's secret> <pickle>

The HMAC is over the place of the value too (its session, the app, its number): an object that was
copied to another place, or made with another secret, is refused like one that was changed.

A stored file is kept as its name and version, and opened in the store of the process that reads it.
A file of the value's own session becomes one of the session that the value is read for.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import pickle
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sessionstore.base import SessionHandle
from sessionstore.model import Reference, SessionKey
from sessionstore.session import Session
from sessionstore.storedfile import StoredFile

if TYPE_CHECKING:
    from sessionstore.store import SessionStore

HEADER: Final = b"sessionstore state 1\n"
"""The beginning of every object. Another version has another number."""

_KIND: Final = b"sessionstore state "
_MAC: Final = hashlib.sha256().digest_size

OVERHEAD: Final = len(HEADER) + _MAC
"""The bytes in front of the pickle."""


class Refused(Exception):
    """Bytes that are no value of this place. The message says why, in words for the log."""


class Place(NamedTuple):
    """The place of a value: the session, the app, and the number of the value in the app."""

    sid: str
    app: str
    number: int


class _Reading(NamedTuple):
    """The store and session that a value is read for, and its files by their names."""

    store: SessionStore
    key: SessionKey
    files: Mapping[str, Reference]


_reading: Final[ContextVar[_Reading]] = ContextVar("sessionstore_reading")


class SignedPickles:
    """Makes and reads the objects of one store."""

    def __init__(self, store: SessionStore, secret: bytes) -> None:
        self._store = store
        self._secret = hmac.new(secret, b"sessionstore gradio state", hashlib.sha256).digest()

    def pickled(self, value: Any, sid: str) -> bytes:
        """Return the pickle of a value of this session. Raises whatever the value's code raises."""
        buffer = io.BytesIO()
        _Pickler(buffer, self._store, sid).dump(value)
        return buffer.getvalue()

    def signed(self, place: Place, pickled: bytes) -> bytes:
        """Return the object with this pickle."""
        return HEADER + self._mac(place, pickled) + pickled

    def opened(
        self, place: Place, data: bytes, key: SessionKey, files: Mapping[str, Reference]
    ) -> Any:
        """Return the value of an object, for the session ``key``.

        ``files`` are the session's files that replace those of another session, by name. Raises
        Refused; nothing was unpickled then, unless the value needs code that is not here.
        """
        if not data.startswith(HEADER):
            other = data.startswith(_KIND)
            raise Refused("it has another version" if other else "it is no state of this library")
        mac, pickled = data[len(HEADER) : OVERHEAD], data[OVERHEAD:]
        if not hmac.compare_digest(mac, self._mac(place, pickled)):
            raise Refused("it was changed, belongs elsewhere, or was signed with another secret")
        token = _reading.set(_Reading(self._store, key, files))
        try:
            return pickle.loads(pickled)  # noqa: S301 - its bytes are signed by this store
        except Exception as error:
            raise Refused(f"this version of the app cannot read it ({error!r})") from error
        finally:
            _reading.reset(token)

    def with_texts(self, value: Any, key: SessionKey, changed: Callable[[str], str]) -> Any:
        """Return a copy of a value of the session ``key``, with each text ``changed``."""
        buffer = io.BytesIO()
        _TextPickler(buffer, self._store, key.sid, changed).dump(value)
        token = _reading.set(_Reading(self._store, key, {}))
        try:
            return _TextUnpickler(io.BytesIO(buffer.getvalue())).load()
        finally:
            _reading.reset(token)

    def _mac(self, place: Place, pickled: bytes) -> bytes:
        mac = hmac.new(self._secret, digestmod=hashlib.sha256)
        for part in (*map(str, place), ""):
            raw = part.encode()
            mac.update(len(raw).to_bytes(4, "big") + raw)
        mac.update(pickled)
        return mac.digest()


class _Pickler(pickle.Pickler):
    """A pickler that keeps stored files of its store by their names and versions."""

    def __init__(self, file: io.BytesIO, store: SessionStore, sid: str) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._store = store
        self._sid = sid

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, StoredFile) and value.session.store is self._store:
            own = value.session.sid == self._sid
            return _file, (None if own else tuple(value.session.key), tuple(value.reference))
        if isinstance(value, SessionHandle) and value.store is self._store:
            return _session, (None if value.sid == self._sid else tuple(value.key),)
        return NotImplemented


class _TextPickler(_Pickler):
    """A pickler that passes each text through a function."""

    def __init__(
        self, file: io.BytesIO, store: SessionStore, sid: str, changed: Callable[[str], str]
    ) -> None:
        super().__init__(file, store, sid)
        self._changed = changed

    def persistent_id(self, value: Any) -> str | None:
        if type(value) is not str:
            return None
        changed = self._changed(value)
        return None if changed == value else changed


class _TextUnpickler(pickle.Unpickler):
    """Reads what ``_TextPickler`` wrote in this process."""

    def persistent_load(self, pid: str) -> str:
        return pid


def _session(key: tuple[Any, ...] | None) -> Session:
    reading = _reading.get()
    return Session(reading.store, reading.key if key is None else SessionKey(*key))


def _file(key: tuple[Any, ...] | None, reference: tuple[Any, ...]) -> StoredFile:
    file = Reference(*reference)
    if key is None:
        file = _reading.get().files.get(file.name, file)
    return StoredFile(_session(key), file)
