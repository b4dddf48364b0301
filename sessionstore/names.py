"""The one choke point for strings from users: session ids, owners and file names.

Only names that no store can distinguish are refused. A session is stored under a digest of its id
and owner, a file under an escaped form of its name, so path traversal, device names, trailing dots,
case and look-alike Unicode names are ordinary characters in the stored form. A name is never
normalised: an accepted name reads back unchanged.

The stored form of a file name is one path segment of at most ``STORED_LENGTH`` characters
``[a-z0-9._!-]``, which no file system folds together with another one:

    a-z 0-9 _ - .   themselves
    !a              the capital A
    !-              the slash
    !040            any other byte of the UTF-8 form, in octal
    slug!!digest    the whole name, when the form above would be too long

A leading ``-`` (an option to shell commands), a leading or trailing ``.`` and the first letter of
a Windows device name are escaped too. Nothing here does any I/O.
"""

from __future__ import annotations

import hashlib
import os
import re
import reprlib
import string
from functools import lru_cache
from typing import NoReturn

from sessionstore.errors import InvalidName
from sessionstore.model import SessionKey

LONGEST = 1024  # bytes of UTF-8 in an id, an owner or a whole file name: as many as S3 allows a key

LONGEST_PART = 255
"""Bytes of UTF-8 between the slashes of a file name: NAME_MAX of every common file system, so that
a name can also be written into a real directory."""

STORED_LENGTH = 200  # characters; below NAME_MAX with room for a backend's own marks around it
HIDDEN = "@/"  # the prefix of the names of an adapter's own files in a visitor's session
UPLOADS = HIDDEN + "upload/"  # the prefix of the names of the pieces of uploads in progress
SIGNED = "/signed."  # in the name of the note of an upload straight to the backend, before its size
_RANDOM = 10  # bytes in the random part of a fresh name

_SLUG_LENGTH = 24
_DIGEST_LENGTH = 32  # hex digits: 128 bits

# The device names of Windows, which it finds in any directory and before any extension:
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file. A stored form never contains the
# names with "$" or a superscript digit, because those characters are escaped.
_DEVICE = r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|\Z)"

_is_device = re.compile(_DEVICE).match
_is_plain = re.compile(
    rf"(?!{_DEVICE})[a-z0-9_](?:[a-z0-9_.-]{{0,{STORED_LENGTH - 2}}}[a-z0-9_-])?"
).fullmatch
_is_escaped = re.compile(r"(?:[a-z0-9_.-]|![a-z-]|![0-3][0-7]{2})+").fullmatch
_is_shortened = re.compile(
    rf"[a-z0-9-]*!![0-9a-f]{{{_DIGEST_LENGTH}}}(?:\.[a-z0-9]{{1,16}})?"
).fullmatch
_is_sid = re.compile(
    rf"(?!.*--)[a-z0-9][a-z0-9-]{{0,{_SLUG_LENGTH - 1}}}-[0-9a-f]{{{_DIGEST_LENGTH}}}"
).fullmatch
_words = re.compile(r"[a-z0-9]+").findall
_find_extension = re.compile(r"\.[a-z0-9]{1,16}\Z").search
_unescape = re.compile(r"!(?:([a-z])|(-)|([0-7]{3}))").sub

_octal = "!{:03o}".format
_THEMSELVES = "abcdefghijklmnopqrstuvwxyz0123456789_-."
_ESCAPES = (
    {byte: _octal(byte) for byte in range(256) if chr(byte) not in _THEMSELVES}
    | {ord(capital): "!" + capital.lower() for capital in string.ascii_uppercase}
    | {ord("/"): "!-"}
)
"""For ``str.translate``: the escape of each byte of a UTF-8 form that needs one."""

_shortened = reprlib.Repr()
_shortened.maxstring = 60


def session_key(id: str, owner: str | None = None) -> SessionKey:  # noqa: A002 - the public word
    """Return the key of the session of this id and owner. Another owner has another ``sid``.

    An id or owner must not be empty, must be valid Unicode and have at most ``LONGEST`` bytes of
    UTF-8. Raises InvalidName for others, TypeError for a value that is not a ``str``.
    """
    return _session_key(_exact("session id", id), None if owner is None else _exact("owner", owner))


def shared_key() -> SessionKey:
    """Return the key of the app's own session. No id and owner can have its ``sid``."""
    return SessionKey(_sid("shared", b"shared"), "shared", None)


@lru_cache(maxsize=1024)
def private_key(purpose: str, owner: str | None = None) -> SessionKey:
    """Return the key of an adapter's own session. No id and owner can have its ``sid``."""
    return _private_key(purpose, None if owner is None else _exact("owner", owner))


@lru_cache(maxsize=1024)
def is_private(key: SessionKey) -> bool:
    """Return whether it is the key of an adapter's own session."""
    return private_key(key.id, key.owner).sid == key.sid


def is_sid(text: str) -> bool:
    """Return whether ``text`` has the form of a ``sid``, as an entry of a listing must."""
    return _is_sid(text) is not None


def file_name(name: str) -> str:
    """Return the name unchanged, if a file can have it.

    A name is relative, may have directories ("frames/0001.png"), and may have any character except
    NUL. Raises InvalidName, with the change to make; TypeError for a value that is not a ``str``.
    """
    name = _exact("file name", name)
    if _is_plain(name) is None:
        _encode(name)  # checks it, and a backend asks for the result next
    return name


def own_name(name: str) -> str:
    """Do the work of ``file_name`` for an app: refuse names that begin with ``HIDDEN`` too."""
    if type(name) is str and _is_plain(name) is not None:  # the usual case, quickly
        return name
    name = file_name(name)
    if name.startswith(HIDDEN):
        why = f"begins with {HIDDEN!r}, which is for adapters; begin otherwise"
        _refuse("file name", name, why)
    return name


def encode(name: str) -> str:
    """Return the stored form of a file name: one path segment, as described at the top.

    Raises the same errors as ``file_name``.
    """
    if type(name) is str and _is_plain(name) is not None:  # the usual case, quickly
        return name
    return _encode(_exact("file name", name))


def decode(stored: str) -> str | None:
    """Return the file name of a stored form. For a returned name, ``encode(name) == stored``.

    None for the form with a digest (the backend keeps that name elsewhere), and for any text that
    ``encode`` does not make.
    """
    if _is_plain(stored) is not None:
        return stored
    if _is_escaped(stored) is None:
        return None
    try:
        name = _unescape(_original, stored).encode("latin-1").decode()
        return name if encode(name) == stored else None
    except (UnicodeDecodeError, InvalidName):
        return None


def is_shortened(stored: str) -> bool:
    """Return whether a stored form has a digest in place of a name that is too long."""
    return _is_shortened(stored) is not None


def fresh_name(suffix: str = "") -> str:
    """Return a unique file name: 80 random bits in hex, then ``suffix``.

    Raises InvalidName for a suffix that is neither empty nor a dot and legal characters after it.
    """
    return os.urandom(_RANDOM).hex() + _suffix(_exact("suffix", suffix))


@lru_cache(maxsize=256)
def _suffix(suffix: str) -> str:
    """Return the suffix, if a name of random hex can end in it. Errors are not cached."""
    if suffix and (not suffix.startswith(".") or suffix == "." or "/" in suffix):
        _refuse("suffix", suffix, 'is not one; write a dot and an extension, such as ".png"')
    file_name("0" * 2 * _RANDOM + suffix)
    return suffix


def _exact(what: str, value: str) -> str:
    """Return the value as a plain ``str``: a subclass may compare or print as another string."""
    if type(value) is str:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    raise TypeError(f"The {what} is a {type(value).__name__}; give it as a str.")


def _refuse(what: str, value: str, why: str) -> NoReturn:
    raise InvalidName(f"The {what} {_shortened.repr_str(value, 1)} {why}.")


def _utf8(what: str, value: str) -> bytes:
    """Return the UTF-8 form of a string that is neither empty nor too long."""
    if not value:
        raise InvalidName(f"The {what} is empty; give it at least one character.")
    try:
        raw = value.encode() if len(value) <= LONGEST else b""
    except UnicodeEncodeError:
        _refuse(what, value, "is not valid Unicode; replace its lone surrogates")
    if not raw or len(raw) > LONGEST:
        _refuse(what, value, f"is too long; shorten it to {LONGEST} bytes of UTF-8")
    return raw


def _slug(text: str) -> str:
    return "-".join(_words(text.lower()))[:_SLUG_LENGTH].rstrip("-")


def _digest(*parts: bytes) -> str:
    """Return the digest of the parts. Each has its length in front: no two lists are equal."""
    whole = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hashlib.sha256(whole).hexdigest()[:_DIGEST_LENGTH]


def _sid(text: str, kind: bytes, *parts: bytes) -> str:
    return f"{_slug(text) or 'session'}-{_digest(kind, *parts)}"


@lru_cache(maxsize=1024)
def _session_key(id: str, owner: str | None) -> SessionKey:  # noqa: A002 - as in session_key
    parts = [_utf8("session id", id)]
    if owner is not None:
        parts.append(_utf8("owner", owner))
    return SessionKey(_sid(id, b"session", *parts), id, owner)


@lru_cache(maxsize=1024)
def _private_key(purpose: str, owner: str | None) -> SessionKey:
    parts = [purpose.encode()] if owner is None else [purpose.encode(), _utf8("owner", owner)]
    return SessionKey(_sid(purpose, b"private", *parts), purpose, owner)


def _check(name: str) -> None:
    raw = _utf8("file name", name)
    if b"\0" in raw:
        _refuse("file name", name, "has a NUL character; leave it out")
    if raw.startswith(b"/"):
        _refuse("file name", name, 'is absolute; leave out the "/" in front')
    for part in raw.split(b"/"):
        if part in {b"", b".", b".."}:
            _refuse("file name", name, 'has an empty, "." or ".." part; leave that part out')
        if len(part) > LONGEST_PART:
            why = f"has a part of {len(part)} bytes of UTF-8; shorten it to {LONGEST_PART}"
            _refuse("file name", name, why)


@lru_cache(maxsize=1024)
def _encode(name: str) -> str:
    """Encode a name that is not its own stored form. Errors are not cached."""
    _check(name)
    stored = name.encode().decode("latin-1").translate(_ESCAPES)
    if stored[0] in ".-" or _is_device(stored):
        stored = _octal(ord(stored[0])) + stored[1:]
    if stored[-1] == ".":
        stored = stored[:-1] + _octal(ord("."))
    if len(stored) <= STORED_LENGTH:
        return stored
    extension = _find_extension(name.lower())
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{_slug(name)}!!{digest}{extension[0] if extension else ''}"


def _original(escape: re.Match[str]) -> str:
    capital, slash, octal = escape.groups()
    if capital:
        return capital.upper()
    return "/" if slash else chr(int(octal, 8))
