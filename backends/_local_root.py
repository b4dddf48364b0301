"""The root directory of a local store: made, recognised, or refused with what to do."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
from pathlib import Path

from sessionstore.content import DIGESTS
from sessionstore.errors import SettingsError
from sessionstore.workspace import Workspace

VERSION = 1
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK)
"""What link(2) says where there are no hard links: EPERM, and what FUSE and Windows say."""

OURS = {"layout", "blobs", "sessions", "tmp", "secret"}
HARMLESS = {"lost+found", ".DS_Store"}


def open_root(root: Path, digest: str | None, workspace: Workspace) -> str:
    """Make or recognise the store at ``root``; returns its digest algorithm.

    ``workspace`` is this process's in that store; it is used when there is something to make.
    Raises SettingsError, naming ``url``, when the directory is not ours to use.
    """
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(root)
        layout = _read(root)
        if layout is None:
            _check_empty(root)
            for name in ("blobs", "sessions", "tmp"):
                (root / name).mkdir(mode=0o700, exist_ok=True)
            layout = _write(root, digest or DIGESTS[0], workspace)
    except OSError as error:
        raise SettingsError(
            f"url=file://{root} is not right: {error.strerror or error}; name a directory that "
            "this process can make or write to."
        ) from error
    if digest is not None and digest != layout:
        raise SettingsError(
            f"digest={digest!r} is not right: the store at {root} was made with {layout!r}; leave "
            "the setting out, or name another directory."
        )
    return layout


def _check_owner(root: Path) -> None:
    """Refuse a directory of another user, writable or not: its owner could swap what is in it."""
    if not hasattr(os, "geteuid") or os.geteuid() == 0:
        return
    owner = root.stat().st_uid
    if owner != os.geteuid():
        raise SettingsError(
            f"url=file://{root} is not right: the directory belongs to user {owner} and this "
            f"process runs as user {os.geteuid()}; name a directory of its own user's."
        )


def _check_empty(root: Path) -> None:
    foreign = sorted({entry.name for entry in root.iterdir()} - OURS - HARMLESS)
    if foreign:
        raise SettingsError(
            f"url=file://{root} is not right: the directory holds {foreign[0]!r} and no store; "
            "name an empty directory, or one that does not exist yet."
        )


def _read(root: Path) -> str | None:
    """The digest algorithm of the store, None when there is none yet."""
    try:
        text = (root / "layout").read_bytes()
    except FileNotFoundError:
        return None
    row: object = None
    with contextlib.suppress(ValueError):
        row = json.loads(text)
    if (
        not isinstance(row, dict)
        or row.get("version") != VERSION
        or row.get("digest") not in DIGESTS
    ):
        raise SettingsError(
            f"url=file://{root} is not right: its layout file says {text[:80]!r}, which this "
            "version does not know; update sessionstore, or name another directory."
        )
    return str(row["digest"])


def _write(root: Path, digest: str, workspace: Workspace) -> str:
    """Write the layout; when another process was faster, what that one wrote counts."""
    layout = json.dumps({"version": VERSION, "digest": digest}).encode()
    keep_first(root, "layout", layout, workspace)
    return _read(root) or digest


def keep_first(root: Path, name: str, data: bytes, workspace: Workspace) -> bytes:
    """The content of the file ``name``: what is there, else ``data``, written whole at once."""
    new = workspace.path / secrets.token_hex(8)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(data)
        try:
            os.link(new, root / name)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            if not (root / name).exists():  # the last of two first processes wins, for both alike
                os.replace(new, root / name)
    finally:
        new.unlink(missing_ok=True)
    return (root / name).read_bytes()
