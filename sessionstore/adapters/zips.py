"""A zip of files, made while it is sent: neither in memory nor on the disk.

The names come from visitors and apps. On any system each becomes a plain relative path below the
folder where the zip is unpacked, and no two become one file, also where case or Unicode forms do
not matter.
"""

from __future__ import annotations

import re
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final, NamedTuple, cast

from sessionstore.errors import FileNotStored

_CHUNK: Final = 1 << 18
_PART: Final = 120
"""The most characters of a part of a path; Windows allows 260 in a whole path."""

_DEEPEST: Final = 8
"""The most parts of a path; what is deeper is in one folder."""

_LARGE: Final = 1 << 31
"""Bytes from which a file has the 64-bit fields: no size is certain before the last byte."""

_EPOCH: Final = datetime(1980, 1, 1, tzinfo=UTC)  # no date in a zip is earlier
_unsafe = re.compile(r'[<>:"|?*\\]').sub
_is_device = re.compile(
    r"(?i)(?:con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(?:\.|\Z)"
).match


class Entry(NamedTuple):
    """One file of a zip. ``open`` returns its bytes, and raises FileNotStored if it is gone."""

    name: str
    size: int
    modified: datetime
    open: Callable[[], BinaryIO]


class Names:
    """The paths of one zip."""

    def __init__(self) -> None:
        self._taken: dict[str, bool] = {}  # folded paths; True for a folder
        self._tried: dict[str, int] = {}  # the numbers that were tried for a path

    def path(self, name: str) -> str:
        """Return a safe path for a file name that no other file of the zip has."""
        *folders, last = [_part(part) for part in name.split("/")]
        if len(folders) >= _DEEPEST:
            folders = ["_".join(folders)[:_PART].rstrip(". ") or "_"]
        inside = ""
        for folder in folders:
            inside += self._free(inside, folder, "", folder=True) + "/"
        stem, dot, suffix = last.rpartition(".")
        return inside + (
            self._free(inside, stem, dot + suffix) if stem else self._free(inside, last, "")
        )

    def _free(self, inside: str, stem: str, suffix: str, *, folder: bool = False) -> str:
        """Return a name that is free in the folder ``inside``, or that of a folder there."""
        first = _folded(inside + stem + suffix)
        number = 0 if folder else self._tried.get(first, 0)
        while True:
            number += 1
            name = stem + (f" ({number})" if number > 1 else "") + suffix
            key = _folded(inside + name)
            if self._taken.get(key, folder) and folder:
                self._taken[key] = True
                return name
            if key not in self._taken:
                self._taken[key] = False
                self._tried[first] = number
                return name


def _folded(path: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())


def _part(text: str) -> str:
    """Return one part of a path as every system can have it."""
    shown = (
        "_" if unicodedata.category(each) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"} else each
        for each in text
    )  # fmt: skip
    part = _unsafe("_", "".join(shown)).strip()
    if len(part) > _PART:
        stem, dot, suffix = part.rpartition(".")
        end = dot + suffix if stem and len(suffix) <= 16 else ""  # noqa: PLR2004 - a long suffix is none
        part = part[: _PART - len(end)] + end
    part = part.rstrip(". ")
    if part.startswith("."):  # ".." leads out, and others would be hidden
        part = "_" + part[1:]
    return f"_{part}" if not part or _is_device(part) else part


class _Sink:
    """A file that cannot be read or searched, whose bytes are taken away as they are written."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Keep nothing back."""

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


def zipped(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Yield the bytes of a zip of these files, not compressed. A file that is gone is left out.

    Another error of a file is raised in the middle: what was sent is then no whole zip.
    """
    sink, names = _Sink(), Names()
    with zipfile.ZipFile(cast("Any", sink), "w") as bundle:
        for entry in entries:
            try:
                content = entry.open()
            except FileNotStored:
                continue
            with content:
                moment = max(entry.modified.astimezone(UTC), _EPOCH).timetuple()[:6]
                info = zipfile.ZipInfo(names.path(entry.name), moment)
                info.external_attr = 0o600 << 16
                info.file_size = entry.size
                with bundle.open(info, "w", force_zip64=entry.size >= _LARGE) as target:
                    while chunk := content.read(_CHUNK):
                        target.write(chunk)
                        yield sink.take()
            yield sink.take()
    yield sink.take()
