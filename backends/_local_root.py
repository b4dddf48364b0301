"""The root directory of a local store: made, recognised, or refused with what to do."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path

from sessionstore.backends._directory import Directory
from sessionstore.backends._local_algorithm import algorithm_of
from sessionstore.content import DIGESTS
from sessionstore.errors import SettingsError
from sessionstore.locks import lock
from sessionstore.oserrors import FULL
from sessionstore.workspace import Workspace

log = logging.getLogger("sessionstore")

VERSION = 1
SECRET_LENGTH = 32
"""Bytes of the store's secret."""

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK)
"""What link(2) says where there are no hard links: EPERM, and what FUSE and Windows say."""

OURS = {"layout", "blobs", "sessions", "tmp", "secret"}
HARMLESS = {"lost+found", ".DS_Store"}


def open_root(root: Path, digest: str | None, workspace: Workspace) -> str:
    """Make or recognise the store at ``root``; returns its digest algorithm.

    ``workspace`` is this process's in that store; it is used when there is something to make.
    Raises SettingsError, naming ``url``, when the directory is not ours to use, and OSError when
    there is no room to make a store.
    """
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(root)
        layout = _read(root)
        if layout is None:
            _check_empty(root)
            for name in ("blobs", "sessions", "tmp"):
                (root / name).mkdir(mode=0o700, exist_ok=True)
            # Before the layout: who sees that finds all the rest there, after a power cut too.
            _force_names(root)
            _force_above(root)
            text = _keep(root, "layout", partial(_first, root, digest), _is_torn_layout, workspace)
            layout = _algorithm(root, text)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise SettingsError(
            f"invalid url=file://{root}: {error.strerror or error}; name a directory that "
            "this process can make or write to."
        ) from error
    if digest is not None and digest != layout:
        raise SettingsError(
            f"invalid digest={digest!r}: the store at {root} was made with {layout!r}; leave "
            "the setting out, or name another directory."
        )
    return layout


def _first(root: Path, digest: str | None) -> bytes:
    """The layout for a directory without one: what its content says comes before the setting."""
    return _layout(algorithm_of(root) or digest or DIGESTS[0])


def _check_owner(root: Path) -> None:
    """Refuse a directory of another user, writable or not: its owner could swap what is in it."""
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        return
    owner = root.stat().st_uid
    if owner != os.geteuid():
        raise SettingsError(
            f"invalid url=file://{root}: the directory belongs to user {owner} and this "
            f"process runs as user {os.geteuid()}; name a directory of its own user's."
        )


def _check_empty(root: Path) -> None:
    foreign = sorted({entry.name for entry in root.iterdir()} - OURS - HARMLESS)
    if foreign:
        raise SettingsError(
            f"invalid url=file://{root}: the directory holds {foreign[0]!r} and no store; "
            "name an empty directory, or one that does not exist yet."
        )


def _read(root: Path) -> str | None:
    """The digest algorithm of the store, None when there is no whole layout yet."""
    try:
        text = (root / "layout").read_bytes()
    except FileNotFoundError:
        return None
    return None if _is_torn_layout(text) else _algorithm(root, text)


def _algorithm(root: Path, text: bytes) -> str:
    """The digest algorithm that the layout file names."""
    row: object = None
    with contextlib.suppress(ValueError):
        row = json.loads(text)
    if (
        not isinstance(row, dict)
        or row.get("version") != VERSION
        or row.get("digest") not in DIGESTS
    ):
        raise SettingsError(
            f"invalid url=file://{root}: its layout file says {text[:80]!r}, which this "
            "version does not know; update sessionstore, or name another directory."
        )
    return str(row["digest"])


def _layout(digest: str) -> bytes:
    return json.dumps({"version": VERSION, "digest": digest}).encode()


def _is_torn_layout(text: bytes) -> bool:
    """Whether a power cut left a beginning of a layout, or zeros; none of them says anything.

    Only a layout of this version can be torn: later ones are forced to the disk as this one is.
    """
    text = text.rstrip(b"\0")
    return any(text != whole and whole.startswith(text) for whole in map(_layout, DIGESTS))


def _is_torn_secret(data: bytes) -> bool:
    """Whether anybody could guess it: too short, or the zeros of a block never written."""
    return len(data) < SECRET_LENGTH or not data.strip(b"\0")


def keep_secret(root: Path, workspace: Workspace) -> bytes:
    """Return the secret of the store at ``root``, made with this process's ``workspace`` if needed.

    One that a power cut tore is never used. To make another in its place is safe: whatever was
    signed with the torn one could be forged, and the one before it is lost already.
    """
    make = partial(secrets.token_bytes, SECRET_LENGTH)
    return _keep(root, "secret", make, _is_torn_secret, workspace)


def _keep(
    root: Path,
    name: str,
    make: Callable[[], bytes],
    is_torn: Callable[[bytes], bool],
    workspace: Workspace,
) -> bytes:
    """Return the content of the file ``name``: what is there, else the result of ``make()``.

    It gets its name when all of it is on the disk, and is returned when the name is too. All
    processes get the same: a torn file is replaced under its lock, by one of them.
    """
    path = root / name
    while True:
        try:
            data = path.read_bytes()
            if not is_torn(data):
                return data
            with open(path, "r+b") as torn:
                lock(torn.fileno())
                if not is_torn(path.read_bytes()):  # another process was faster
                    continue
                log.warning(
                    "%s is torn, as a power cut leaves a file (%d bytes): it is made anew.",
                    path, len(data),
                )  # fmt: skip
                _write(path, make(), workspace, os.replace)
        except FileNotFoundError:
            _write(path, make(), workspace, _place)


def _write(
    path: Path, data: bytes, workspace: Workspace, place: Callable[[Path, Path], object]
) -> None:
    """Write a file whole, force it to the disk, and give it its name by ``place(new, path)``."""
    new = workspace.path / secrets.token_hex(8)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        place(new, path)
        _force_names(path.parent)
    finally:
        new.unlink(missing_ok=True)


def _place(new: Path, path: Path) -> None:
    """Give a file its name unless another process was faster: then that one's file counts."""
    try:
        os.link(new, path)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if not path.exists():  # the last of two first processes wins, for both alike
            os.replace(new, path)


def _force_names(folder: Path) -> None:
    """Force the names in a directory to the disk, where the system and the file system can."""
    with Directory(str(folder)) as names:
        try:
            names.fsync()
        except OSError as error:
            if error.errno not in (errno.EINVAL, *NO_LINKS):
                raise


def _force_above(root: Path) -> None:
    """Force the name of the root, and those of directories that were just made above it.

    A directory above that this user may not look into was there before, with all its names.
    """
    for folder in root.absolute().parents:
        with contextlib.suppress(OSError):
            _force_names(folder)
