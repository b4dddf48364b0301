"""Record what a writer does to a directory, and build what a power cut may leave of it.

``Recorder`` notes each change of names, of files and of their attributes, and each fsync, by taking
the place of the functions of ``os``. ``Recorder.state`` draws a state that the disk may be in after
a cut at one of these moments, for two kinds of file systems:

* ``journal``: names and attributes come to the disk in the order they were made, all together up
  to some moment that is not before the last fsync. Bytes come at any time, unless forced (ext4).
* ``posix``: nothing is ordered but by fsync. Each name, each file's bytes and its attributes are by
  themselves as old as their last fsync, or as new as anything since.

Bytes not forced are missing, cut off anywhere, or there. Tokens of files in a journal are those of
the inodes that are built. That of a file which is gone may be another's, which has its inode now.
"""

from __future__ import annotations

import bisect
import os
import random
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal["journal", "posix"]
_TOKEN = re.compile(rb'"file": "([^"]+)", "token": "(\d+)\.')
_JOURNAL = b'\n{"file": '
_SETS = ("supports_fd", "supports_dir_fd", "supports_follow_symlinks")
_CALLS = (
    "open", "mkdir", "link", "rename", "replace", "unlink", "remove", "rmdir", "utime", "write",
    "fchmod", "ftruncate", "fsync", "close",
)  # fmt: skip


class Attributes(NamedTuple):
    mode: int
    mtime: int


@dataclass
class Node:
    """A file or directory: its versions, each with the moment since which it is so."""

    fd: int
    directory: bool
    at: list[int] = field(default_factory=list)
    content: list[bytes] = field(default_factory=list)
    attributes: list[Attributes] = field(default_factory=list)
    forced: list[int] = field(default_factory=list)
    names: dict[str, list[tuple[int, int | None]]] = field(default_factory=dict)
    """Of a directory: name -> the inodes that had it, None for none, each since a moment."""


class Recorder:
    """What happens below ``box``, from now on. What is there is on the disk."""

    def __init__(self, box: Path) -> None:
        self.now = 0
        """The number of changes so far: a moment."""
        self.synced = [0]
        """Moments at which everything came to the disk."""
        self.flushes = [0]
        """Moments of an fsync of anything."""
        self._real = {name: getattr(os, name) for name in _CALLS}
        self._nodes: dict[int, Node] = {}
        self._box = box
        self._top = self._add_directory(box)
        for path in sorted(box.rglob("*")):
            parent = self._nodes[path.parent.stat().st_ino]
            if path.is_dir():
                inode = self._add_directory(path)
            else:
                fd = os.open(path, os.O_RDONLY)
                inode = os.fstat(fd).st_ino
                if inode in self._nodes:
                    os.close(fd)
                else:
                    self._nodes[inode] = Node(fd, directory=False)
            parent.names[path.name] = [(0, inode)]
        self._look()

    def close(self) -> None:
        for node in self._nodes.values():
            os.close(node.fd)
        self._nodes.clear()

    def mark(self) -> int:
        """Note what was done until now; returns the moment."""
        self._look()
        return self.now

    def sync(self) -> None:
        """Let everything that was done so far come to the disk, as it does after some seconds."""
        self._look()
        self.now += 1
        self.synced.append(self.now)
        self.flushes.append(self.now)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record inside the block."""
        sets = {name: set(getattr(os, name)) for name in _SETS}
        try:
            for name, real in self._real.items():
                fake = self._fake(name, real)
                setattr(os, name, fake)
                for each in _SETS:
                    if real in sets[each]:
                        getattr(os, each).add(fake)
            yield
        finally:
            for name, real in self._real.items():
                setattr(os, name, real)
            for each, members in sets.items():
                getattr(os, each).clear()
                getattr(os, each).update(members)
            self._look()

    def _fake(self, name: str, real: Callable[..., object]) -> Callable[..., object]:
        note = getattr(self, f"_{name}", None)

        def call(*args: object, **keywords: object) -> object:
            self._look()
            if note is None:
                return real(*args, **keywords)
            return note(real, *args, **keywords)

        return call

    # Calls

    def _open(
        self, real: Callable[..., int], path: str, flags: int, *args: int, **where: int | None
    ) -> int:
        fd = real(path, flags, *args, **where)
        there = os.fstat(fd)
        if flags & os.O_CREAT and there.st_ino not in self._nodes:
            parent = self._parent(path, where.get("dir_fd"))
            if parent is not None:
                self._add_file(fd, there.st_ino)
                self._name(parent, os.path.basename(path), there.st_ino)
        elif flags & os.O_TMPFILE == os.O_TMPFILE and there.st_ino not in self._nodes:
            self._add_file(fd, there.st_ino)
        return fd

    def _mkdir(
        self, real: Callable[..., None], path: str, *args: int, dir_fd: int | None = None
    ) -> None:
        real(path, *args, dir_fd=dir_fd)
        parent = self._parent(path, dir_fd)
        if parent is not None:
            inode = self._add_directory(path, dir_fd)
            self._name(parent, os.path.basename(path), inode)

    def _link(
        self, real: Callable[..., None], old: str, new: str, *, src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None, follow_symlinks: bool = True,
    ) -> None:  # fmt: skip
        real(
            old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks
        )
        parent = self._parent(new, dst_dir_fd)
        if parent is not None:
            inode = os.stat(new, dir_fd=dst_dir_fd).st_ino
            self._name(parent, os.path.basename(new), inode)

    def _rename(
        self, real: Callable[..., None], old: str, new: str, *, src_dir_fd: int | None = None,
        dst_dir_fd: int | None = None,
    ) -> None:  # fmt: skip
        inode = os.stat(old, dir_fd=src_dir_fd, follow_symlinks=False).st_ino
        real(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        source, target = self._parent(old, src_dir_fd), self._parent(new, dst_dir_fd)
        if source is None or target is None or os.access(old, os.F_OK, dir_fd=src_dir_fd):
            return  # between two names of one file it does nothing
        self._name(target, os.path.basename(new), inode)
        self._name(source, os.path.basename(old), None, same=True)

    _replace = _rename

    def _unlink(self, real: Callable[..., None], path: str, *, dir_fd: int | None = None) -> None:
        parent = self._parent(path, dir_fd)
        real(path, dir_fd=dir_fd)
        if parent is not None:
            self._name(parent, os.path.basename(path), None)

    _remove = _rmdir = _unlink

    def _fsync(self, real: Callable[[int], None], fd: int) -> None:
        real(fd)
        node = self._nodes.get(os.fstat(fd).st_ino)
        if node is not None:
            self.now += 1
            node.forced.append(self.now)
            self.flushes.append(self.now)

    # What is known

    def _parent(self, path: str, dir_fd: int | None) -> int | None:
        """The directory that a call is about, None when it is not below the box."""
        above = os.path.dirname(path)
        there = os.stat(above or ".", dir_fd=dir_fd)
        return there.st_ino if there.st_ino in self._nodes else None

    def _add_directory(self, path: str | Path, dir_fd: int | None = None) -> int:
        fd = self._real["open"](path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=dir_fd)
        inode = os.fstat(fd).st_ino
        self._nodes[inode] = Node(fd, directory=True)
        return inode

    def _add_file(self, fd: int, inode: int) -> None:
        # Opened apart: it shares no lock with the writer's, and keeps the inode from another use.
        own = self._real["open"](f"/proc/self/fd/{fd}", os.O_RDONLY)
        self.now += 1
        self._nodes[inode] = Node(own, directory=False)
        self._look_at(self._nodes[inode])

    def _name(self, parent: int, name: str, inode: int | None, *, same: bool = False) -> None:
        """Note who has a name from now on; ``same``: since the moment of the note before."""
        self.now += not same
        self._nodes[parent].names.setdefault(name, [(0, None)]).append((self.now, inode))
        self._look()

    def _look(self) -> None:
        for node in self._nodes.values():
            if not node.directory:
                self._look_at(node)

    def _look_at(self, node: Node) -> None:
        there = os.fstat(node.fd)
        attributes = Attributes(stat.S_IMODE(there.st_mode), there.st_mtime_ns)
        old = node.content[-1] if node.content else None
        changed = old is None or len(old) != there.st_size
        if not changed and attributes == node.attributes[-1]:
            return
        content = old
        if content is None or changed:
            content = os.pread(node.fd, there.st_size, 0)
        if node.content:
            self.now += 1
        node.at.append(self.now)
        node.content.append(content)
        node.attributes.append(attributes)

    # States

    def state(self, cut: int, kind: Kind, rng: random.Random) -> State:
        """Draw a state after a cut at that moment."""
        draw = _Draw(rng, rng.choice(["old", "new", "any", "one old", "one new", "no bytes"]))
        last = self.flushes[bisect.bisect_right(self.flushes, cut) - 1]
        committed = draw.moment(last, cut)
        synced = self.synced[bisect.bisect_right(self.synced, cut) - 1]
        state = State(self._top, {}, {})
        for inode, node in self._nodes.items():
            forced = max([synced, *(at for at in node.forced if at <= cut)])
            if node.directory:
                state.names[inode] = {}
                for name, versions in node.names.items():
                    if kind == "journal":
                        chosen = _at([at for at, _ in versions], committed)
                    else:
                        chosen = draw.version([at for at, _ in versions], forced, cut)
                    state.names[inode][name] = versions[chosen][1]
                continue
            if not node.at or node.at[0] > cut:
                continue
            moments = node.at
            if kind == "journal":
                attributes = node.attributes[_at(moments, committed)]
            else:
                attributes = node.attributes[draw.version(moments, forced, cut)]
            content = self._content(node, forced, cut, draw)
            state.files[inode] = (content, attributes)
        return state

    def _content(self, node: Node, forced: int, cut: int, draw: _Draw) -> bytes:
        base = node.content[_at(node.at, forced)] if forced >= node.at[0] else b""
        versions = zip(node.at, node.content, strict=True)
        since = [text for at, text in versions if forced < at <= cut]
        content = draw.bytes(base, since)
        if content != base and content.startswith(base):
            return content[: draw.length(len(base), len(content))]
        return content


def _at(moments: list[int], moment: int) -> int:
    """The index of the version that is so at a moment."""
    return max(bisect.bisect_right(moments, moment) - 1, 0)


@dataclass
class _Draw:
    """Choices between old and new that are of one kind in one state."""

    rng: random.Random
    kind: str
    _left: int = field(init=False)

    def __post_init__(self) -> None:
        self._left = self.rng.randrange(1, 25)

    def is_old(self) -> bool:
        """Whether the next thing that was not forced is as old as can be."""
        if self.kind in ("one old", "one new"):
            self._left -= 1
            return (self._left == 0) == (self.kind == "one old")
        return self.kind == "old" or (self.kind == "any" and self.rng.random() < 0.5)

    def version(self, moments: list[int], forced: int, cut: int) -> int:
        """The index of a version between the one that was forced and the cut."""
        oldest, newest = _at(moments, forced), _at(moments, cut)
        if oldest == newest:
            return oldest
        if self.kind == "any":
            return self.rng.randint(oldest, newest)
        return oldest if self.is_old() else newest

    def bytes(self, base: bytes, since: list[bytes]) -> bytes:
        """The bytes that were forced, or of a version since."""
        if not since or self.kind == "no bytes":
            return base
        if self.kind == "any":
            return self.rng.choice([base, *since])
        return base if self.is_old() else since[-1]

    def moment(self, oldest: int, newest: int) -> int:
        if self.kind in ("new", "no bytes"):
            return newest
        return oldest if self.kind == "old" else self.rng.randint(oldest, newest)

    def length(self, least: int, most: int) -> int:
        if self.kind in ("new", "one old", "one new") or self.rng.random() < 0.4:
            return most
        return least if self.rng.random() < 0.5 else self.rng.randint(least, most)


@dataclass
class State:
    """What is on the disk: names of directories, bytes and attributes of files."""

    top: int
    names: dict[int, dict[str, int | None]]
    files: dict[int, tuple[bytes, Attributes]]

    def build(self, into: Path, rng: random.Random) -> None:
        """Make it in an empty directory."""
        built: dict[int, Path] = {}
        self._build(self.top, into, built)
        inodes = {old: path.stat().st_ino for old, path in built.items()}
        # By session and name: the inode that a file before it may have had.
        later = {os.fsencode(path): path.stat().st_ino for path in into.rglob("files/*")}

        def translated(found: re.Match[bytes], folder: bytes) -> bytes:
            file, old = found[1], int(found[2])
            if old not in inodes:
                unused = 10**15 + old
                inodes[old] = rng.choice([unused, later.get(folder + file, unused)])
            return b'"file": "%s", "token": "%d.' % (file, inodes[old])

        for inode, path in built.items():
            if path.is_dir():
                continue
            content, attributes = self.files[inode]
            if content.startswith(_JOURNAL):
                folder = os.fsencode(path.parent / "files") + b"/"
                path.write_bytes(_TOKEN.sub(partial(translated, folder=folder), content))
            path.chmod(attributes.mode)
            os.utime(path, ns=(attributes.mtime, attributes.mtime))

    def _build(self, inode: int, into: Path, built: dict[int, Path]) -> None:
        for name, child in self.names[inode].items():
            if child is None:
                continue
            path = into / name
            if child in self.names:
                if child not in built:  # no file system gives a directory two names
                    built[child] = path
                    path.mkdir(mode=0o700)
                    self._build(child, path, built)
            elif child in built:
                os.link(built[child], path)
            elif child in self.files:
                path.write_bytes(self.files[child][0])
                built[child] = path
