"""The root directory of a local store: create it, recognise it, or refuse it with a remedy."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from sessionstore._os.errors import FULL
from sessionstore._os.locks import lock
from sessionstore._os.workspace import Workspace
from sessionstore.content import DIGESTS
from sessionstore.errors import SettingsError

from . import journal
from .directory import Directory, digest_of

log: Final = logging.getLogger("sessionstore")

VERSION = 1
SECRET_LENGTH = 32
"""Length of the store's secret in bytes."""

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK)
"""The errors of link(2) without hard links: EPERM, and the errors of FUSE and of Windows."""

OURS = {"layout", "blobs", "sessions", "tmp", "secret", "sweeper"}
HARMLESS = {"lost+found", ".DS_Store"}
_BLAKE3_OF_NOTHING = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def open_root(root: Path, digest: str | None, workspace: Workspace) -> str:
    """Create or recognise the store at ``root``; return its digest algorithm.

    Raises SettingsError when the directory cannot be used, OSError without room to create a store.
    """
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_owner(root)
        path = root / "layout"
        if not path.exists() or _is_torn_layout(path.read_bytes()):
            _check_empty(root)
            for name in ("blobs", "sessions", "tmp"):
                (root / name).mkdir(mode=0o700, exist_ok=True)
            # Before the layout. A process that sees the layout then finds all the rest, also after
            # a power cut.
            _force_names(root)
            _force_above(root)

        def first() -> bytes:  # the algorithm of the content precedes the setting
            return _layout(algorithm_of(root) or digest or DIGESTS[0])

        layout = _algorithm(root, _keep(root, "layout", first, _is_torn_layout, workspace))
    except OSError as error:
        if error.errno in FULL:
            raise
        why = f"{error.strerror or error}; name a directory that this process can make or write to."
        raise _refusal(root, why) from error
    if digest is not None and digest != layout:
        raise SettingsError(
            f"invalid digest={digest!r}: the store at {root} was made with {layout!r}; leave "
            "the setting out, or name another directory."
        )
    return layout


def _refusal(root: Path, why: str) -> SettingsError:
    return SettingsError(f"invalid url=file://{root}: {why}")


def _check_owner(root: Path) -> None:
    """Refuse a directory of another user, writable or not: its owner could replace files in it."""
    owner, user = root.stat().st_uid, os.geteuid() if hasattr(os, "geteuid") else 0
    if user not in {0, owner}:
        raise _refusal(
            root,
            f"the directory belongs to user {owner} and this process runs as user {user}; name a "
            "directory that belongs to this user.",
        )


def _check_empty(root: Path) -> None:
    foreign = sorted({entry.name for entry in root.iterdir()} - OURS - HARMLESS)
    if foreign:
        raise _refusal(
            root,
            f"the directory holds {foreign[0]!r} and no store; name an empty directory, or one "
            "that does not exist yet.",
        )


def _algorithm(root: Path, text: bytes) -> str:
    with contextlib.suppress(ValueError, TypeError, KeyError):
        row = json.loads(text)
        if row["version"] == VERSION and row["digest"] in DIGESTS:
            return str(row["digest"])
    raise _refusal(
        root,
        f"its layout file holds {text[:80]!r}, which this version does not know; update "
        "sessionstore, or name another directory.",
    )


def _layout(digest: str) -> bytes:
    return json.dumps({"version": VERSION, "digest": digest}).encode()


def _is_torn_layout(text: bytes) -> bool:
    """Return whether ``text`` is the beginning of a layout, or zeros, as after a power cut.

    Later versions force their layouts too, so only one of this version can be torn.
    """
    text = text.rstrip(b"\0")
    return any(text != whole and whole.startswith(text) for whole in map(_layout, DIGESTS))


def _is_torn_secret(data: bytes) -> bool:
    """Return whether an attacker could guess the secret: too short, or zeros."""
    return len(data) < SECRET_LENGTH or not data.strip(b"\0")


def keep_secret(root: Path, workspace: Workspace) -> bytes:
    """Return the secret of the store; create it if it is missing or torn.

    A torn one is safe to replace: it could be guessed, and the whole one is lost already.
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
    """Return the content of the file ``name``; create it with ``make()`` if missing or torn.

    A new file gets its name after its bytes are on the disk, and is returned when the name is, too.
    All processes get the same content: a torn file is replaced under its own lock.
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
                    "%s is torn, as after a power cut (%d bytes): it is created again.",
                    path, len(data),
                )  # fmt: skip
                _write(path, make(), workspace, os.replace)
        except FileNotFoundError:
            _write(path, make(), workspace, _place)


def _write(
    path: Path, data: bytes, workspace: Workspace, place: Callable[[Path, Path], object]
) -> None:
    """Write ``data`` to a new file, force it to the disk, and name it by ``place(new, path)``."""
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
    """Rename ``new`` to ``path``, unless another process has created ``path`` first."""
    try:
        os.link(new, path)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if not path.exists():  # if two processes get here together, both use the last file
            os.replace(new, path)


def _force_names(folder: Path) -> None:
    """Force the names in ``folder`` to the disk, where system and file system support it."""
    with Directory(str(folder)) as names:
        try:
            names.fsync()
        except OSError as error:
            if error.errno not in (errno.EINVAL, *NO_LINKS):
                raise


def _force_above(root: Path) -> None:
    # A parent that this user may not read existed before, so its names need no fsync.
    for folder in root.absolute().parents:
        with contextlib.suppress(OSError):
            _force_names(folder)


def algorithm_of(root: Path) -> str | None:
    """Return the algorithm that made the digests of the store: the first with a matching digest.

    None means that no content is whole, so that any choice loses nothing. Raises SettingsError when
    only a package that is not installed could check the content.
    """
    unknown = lacking = False
    for digest, path in _content(root):
        for algorithm in DIGESTS:
            try:
                with open(path, "rb", buffering=0) as file:
                    if digest_of(file.fileno(), algorithm) == digest:
                        return algorithm
            except SettingsError:  # the package of the algorithm is not installed
                lacking = True
        # An empty file with any other digest was torn by a power cut, under every algorithm.
        unknown = unknown or path.stat().st_size > 0 or digest == _BLAKE3_OF_NOTHING
    if unknown and lacking:
        raise _refusal(
            root,
            "its layout file is missing or torn, and none of its content has a matching sha256 "
            "digest; install sessionstore[blake3], so that the store can be opened if it was made "
            "with blake3.",
        )
    return None


def _content(root: Path) -> Iterator[tuple[str, Path]]:
    for path in root.glob("blobs/??/*"):
        if path.is_file():
            yield path.name, path
    for session in root.glob("sessions/*"):
        if session.is_dir():
            with Directory(str(session)) as folder:
                for line in journal.lines(folder):
                    path = session / "files" / line.file
                    if path.name == line.file and path.is_file():
                        yield line.reference.digest, path
