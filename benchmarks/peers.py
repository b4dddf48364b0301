"""What people would use instead, each in one function, and its version."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

Save = Callable[[str, str, bytes], object]
"""Saves bytes: session, name, content."""


def name(package: str, what: str) -> str:
    """A peer as the tables call it."""
    return f"{what} ({package} {version(package)})" if what else f"{package} {version(package)}"


@functools.cache
def gradio() -> Any:
    """Gradio's own functions. Its version decides what is compared with."""
    from gradio import processing_utils

    return processing_utils


def gradio_save(folder: Path) -> Save:
    """``save_bytes_to_cache``: it knows no sessions; equal bytes of one name are one file."""
    save, cache = gradio().save_bytes_to_cache, str(folder)
    return lambda _session, name, data: save(data, name, cache)


def gradio_save_file(folder: Path) -> Callable[[Path], object]:
    """``save_file_to_cache``: hashes, then copies."""
    save, cache = gradio().save_file_to_cache, str(folder)
    return lambda path: save(str(path), cache)


def gradio_sweep(paths: list[str], folder: Path) -> Callable[[], object]:
    """What ``delete_cache`` does every so often: look at each file it remembers."""
    from types import SimpleNamespace

    from gradio.route_utils import delete_files_created_by_app

    blocks: Any = SimpleNamespace(temp_file_sets=[set(paths)], blocks={})
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    return lambda: delete_files_created_by_app(blocks, 86400)


def diskcache(folder: Path) -> Any:
    """A cache that never evicts, with an index of tags: a tag is a session."""
    from diskcache import Cache

    return Cache(str(folder), size_limit=1 << 40, eviction_policy="none", tag_index=True)


def diskcache_save(cache: Any) -> Save:
    """``Cache.set``, with the session as the tag."""
    return lambda session, name, data: cache.set((session, name), data, tag=session)


def cachelib_save(folder: Path) -> Save:
    """``FileSystemCache.set``, without its clean-up."""
    from cachelib import FileSystemCache

    cache = FileSystemCache(str(folder), threshold=0, default_timeout=0)
    return lambda session, name, data: cache.set(f"{session}/{name}", data)


def django_save(folder: Path) -> Save:
    """``FileSystemStorage``: a file of its own for each save."""
    from django.conf import settings
    from django.core.files.base import ContentFile
    from django.core.files.storage import FileSystemStorage

    if not settings.configured:
        settings.configure()
    storage = FileSystemStorage(location=str(folder))
    return lambda session, name, data: storage.save(f"{session}/{name}", ContentFile(data))


def raw_save(folder: Path) -> Save:
    """The floor of storing: one open, write and close; no digest, nothing once."""

    def save(session: str, name: str, data: bytes) -> None:
        path = f"{folder}/{session}/{name}"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileNotFoundError:
            os.makedirs(f"{folder}/{session}", exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)

    return save


def floor_save(folder: Path) -> Save:
    """The floor of keeping content once: a digest, then one link, or a new file and its link."""
    fds = []
    for each in (folder / "blobs", folder / "files"):
        each.mkdir(parents=True)
        fds.append(os.open(each, os.O_RDONLY | os.O_DIRECTORY))
    blobs, files = fds
    known = set[str]()

    def write(digest: str, name: str, data: bytes) -> None:
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444, dir_fd=files)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)
        os.link(name, digest, src_dir_fd=files, dst_dir_fd=blobs, follow_symlinks=False)

    def save(session: str, name: str, data: bytes) -> None:
        digest = hashlib.sha256(data).hexdigest()
        new = f"{session}-{name}"
        if digest in known:
            os.link(digest, new, src_dir_fd=blobs, dst_dir_fd=files, follow_symlinks=False)
        else:
            known.add(digest)
            write(digest, new, data)

    return save


def own_calls_save(folder: Path) -> Save:
    """A digest and the very system calls that one of our saves makes, without our code."""
    for each in ("blobs", "sessions"):
        (folder / each).mkdir(parents=True)
    fans = {name: _opened(folder / "blobs" / name) for name in map("{:02x}".format, range(256))}
    sessions = os.open(folder / "sessions", os.O_RDONLY | os.O_DIRECTORY)
    open_ = functools.cache(lambda session: _BareSession(folder / "sessions" / session))

    def save(session: str, _name: str, data: bytes) -> None:
        digest = hashlib.sha256(data).hexdigest()
        fan, place, new = fans[digest[:2]], open_(session), os.urandom(10).hex() + ".bin"
        known = _stat(digest, fan)
        fcntl.flock(place.seen, fcntl.LOCK_EX)
        os.stat(f"{session}/seen", dir_fd=sessions, follow_symlinks=False)
        os.utime(place.seen, ns=(time.time_ns(),) * 2)
        if known is None:
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o1400, dir_fd=place.files)
            os.write(fd, data)
            os.utime(fd, ns=(time.time_ns(),) * 2)
            os.fstat(fd)
            place.note()
            os.fchmod(fd, 0o444)
            os.close(fd)
            os.link(new, digest, src_dir_fd=place.files, dst_dir_fd=fan, follow_symlinks=False)
        else:
            place.note()
            os.link(digest, new, src_dir_fd=fan, dst_dir_fd=place.files, follow_symlinks=False)
            os.stat(new, dir_fd=place.files, follow_symlinks=False)
        fcntl.flock(place.seen, fcntl.LOCK_UN)

    return save


class _BareSession:
    """A session's folder, its lock and its journal, open."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.files = _opened(folder / "files")
        self.seen = os.open(folder / "seen", os.O_RDWR | os.O_CREAT)
        self._journal = os.open(folder / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self) -> None:
        os.write(self._journal, _LINE)
        os.lseek(self._journal, 0, os.SEEK_CUR)


_LINE = bytes(290)
"""As long as a journal's line."""


def _opened(folder: Path) -> int:
    folder.mkdir()
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


def _stat(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
