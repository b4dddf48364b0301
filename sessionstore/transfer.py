"""Copying a store to another, of any backend: session by session, file by file.

A copy can be stopped at any moment, even by a kill, and the next one continues where it stopped:
files that the target has already are skipped. The source is not changed.

docs/moving.md describes the ages in the target, and what a copy reports: a file that is deleted,
replaced or expired before it is copied is counted as gone. Every other file that is not copied, or
not copied unchanged, is a finding.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TypeVar

from sessionstore._threads import run_together
from sessionstore.backend import Backend, Omits, Restores
from sessionstore.base import BaseStore
from sessionstore.content import CHUNK, Content, Ingest, ingest
from sessionstore.errors import Corrupted, FileNotStored
from sessionstore.model import Problem, Reference, SessionKey, SessionRecord
from sessionstore.verification import Finding, finding_of, known_key, nameless, unreadable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Copied:
    """The result of a copy: files copied, their bytes, and files that the target had already.

    ``gone`` counts files that were deleted, replaced or expired before they were copied, and
    sessions that were dropped before they were read. ``findings`` has a row, with the reason, for
    every other file that was not copied unchanged; a later copy finds the same.
    """

    files: int
    bytes: int
    skipped: int
    gone: int = 0
    findings: tuple[Finding, ...] = ()


class Damaged(Corrupted):
    """Files of the source are damaged and were not copied. ``copied`` is the whole result."""

    def __init__(self, copied: Copied, damaged: list[Finding]) -> None:
        more = "" if len(damaged) == 1 else f" So are {len(damaged) - 1} more files."
        super().__init__(f"{damaged[0].problem}{more} They were not copied; all others were.")
        self.copied = copied


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a copy: ``done`` so far, and the file that was copied or skipped last."""

    done: Copied
    sessions: int
    session_id: str
    owner: str | None
    name: str
    size: int


Report = Callable[[Progress], object]

_NOT_AS_IT_IS = "It is not copied as it is; verify() says what can be done."

WORKERS = 8  # files copied in parallel; a file needs about ten requests to a bucket
_BATCH = 256  # files of a session that are copied before its next ones are listed


def copy(source: BaseStore, target: BaseStore, *, progress: Report | None, workers: int) -> Copied:
    """Copy a store: the implementation of ``SessionStore.copy_to``."""
    if workers < 1:
        raise ValueError(f"workers must be at least 1 (got {workers}).")
    return _Copy(source, target, progress or (lambda _: None), workers).run()


class _Copy:
    """One copy in progress."""

    def __init__(self, source: BaseStore, target: BaseStore, report: Report, workers: int) -> None:
        self._workers = workers
        self._files = threading.Semaphore(workers)  # sessions are copied in parallel too
        self._lock = threading.Lock()
        self._store = source
        self._source = source.backend
        self._target = target.backend
        self._report = report
        self._done = Copied(0, 0, 0)
        self._sessions = 0
        self._findings: list[Finding] = []
        self._damaged: list[tuple[Finding, Corrupted]] = []
        self._vanished: set[tuple[str, str]] = set()
        """Session and token of files that were listed but could no longer be opened."""

    def run(self) -> Copied:
        self._together(self._session, self._source.sessions(), self._workers)
        if isinstance(self._source, Omits):
            for problem in self._source.omitted():
                if problem.sid is not None and problem.reference is not None:
                    self._vanished.discard((problem.sid, problem.reference.token))
                self._find(replace(problem, remedy=_NOT_AS_IT_IS))
        gone = self._done.gone + len(self._vanished)
        done = self._done = replace(self._done, gone=gone, findings=tuple(self._findings))
        summary = (
            f"{done.files} files copied, {done.skipped} were there, {done.gone} gone, "
            f"{len(done.findings)} findings"
        )
        self._store.emit("copy_finished", size=done.bytes, reason=summary)
        if self._damaged:
            raise Damaged(done, [found for found, _ in self._damaged]) from self._damaged[0][1]
        return done

    def _find(self, problem: Problem) -> Finding:
        finding = finding_of(self._source, problem)
        with self._lock:
            self._findings.append(finding)
        return finding

    def _is_gone(self) -> None:
        with self._lock:
            self._done = replace(self._done, gone=self._done.gone + 1)

    def _together(self, copy: Callable[[T], None], all_of: Iterator[T], batch: int) -> None:
        """Copy all of them, ``batch`` at a time, by at most ``workers`` threads."""
        while tasks := [partial(copy, one) for one in islice(all_of, batch)]:
            run_together(tasks, self._workers)

    def _session(self, record: SessionRecord) -> None:
        key = known_key(self._source, record.sid)
        if key is None:
            self._is_gone()
            return
        if key.id == key.sid:  # that name is made of its id and owner: its visitor finds the files
            remedy = "Its files are copied, and its visitor finds them."
            self._find(nameless(record.sid, remedy))
        with self._lock:
            self._sessions += 1
        self._together(partial(self._try_file, key), self._source.files(key.sid), _BATCH)
        now = self._source.session(key.sid)
        if now is not None:
            _carry_over(now, self._target)

    def _try_file(self, key: SessionKey, reference: Reference) -> None:
        if reference.expires is not None and reference.expires <= self._source.now():
            self._is_gone()
            return
        try:
            with self._files:
                copied = self._file(key, reference)
        except (FileNotStored, Corrupted) as error:  # the copy goes on with the other files
            problem = unreadable(self._source, key.sid, reference, error, _NOT_AS_IT_IS)
            if problem is None:
                with self._lock:
                    self._vanished.add((key.sid, reference.token))
                return
            finding = self._find(problem)
            if isinstance(error, Corrupted):
                self._damaged.append((finding, error))
        else:
            self._note(key, reference, copied=copied)

    def _file(self, key: SessionKey, reference: Reference) -> bool:
        """Copy a file; return False if the target has the same bytes already.

        A second try is for a damaged blob of this content in the target: the backend noticed the
        damage when the file was read back, and the second save stores the blob again.
        """
        existing = None
        with contextlib.suppress(FileNotStored):
            existing = self._target.get(key.sid, reference.name)
        one_digest = self._source.digest == self._target.digest
        if one_digest and _is(existing, reference, reference):  # judged without reading it
            return False
        for last in (False, True):
            into = Ingest(self._target.digest, self._target.spool)
            with ingest(_chunks(self._source, key.sid, reference), into) as content:
                if _is(existing, content, reference):
                    return False
                saved = _put(self._target, key, reference, content)
            try:
                with contextlib.suppress(FileNotStored):  # deleted or replaced: it is in use
                    for _ in _chunks(self._target, key.sid, saved):
                        pass
                break
            except Corrupted:
                self._target.discard(key.sid, [saved])
                if last:
                    raise
        return True

    def _note(self, key: SessionKey, reference: Reference, *, copied: bool) -> None:
        name, size = reference.name, reference.size
        with self._lock:
            done = self._done
            if copied:
                self._done = replace(done, files=done.files + 1, bytes=done.bytes + size)
                self._store.emit("copied", key, name, size, "copied")
            else:
                self._done = replace(done, skipped=done.skipped + 1)
            self._report(Progress(self._done, self._sessions, key.id, key.owner, name, size))


def _carry_over(record: SessionRecord, target: Backend) -> None:
    """Transfer a session's activity, end or return to the target.

    Times are compared for activity only: the two clocks may differ, and a session must not be
    dropped for that reason.
    """
    copy_record = target.session(record.sid)
    if copy_record is None:
        return
    if record.ended is not None:
        if copy_record.ended is None:
            target.end(record.sid)
    elif copy_record.ended is not None:
        target.resume(record.sid)
    elif record.active > copy_record.active:
        target.touch(record.sid)


def _is(existing: Reference | None, content: Content | Reference, reference: Reference) -> bool:
    """Return whether the existing file equals the content, and expires with ``reference``."""
    return existing is not None and (existing.digest, existing.size, existing.expires) == (
        content.digest, content.size, reference.expires,
    )  # fmt: skip


def _put(target: Backend, key: SessionKey, reference: Reference, content: Content) -> Reference:
    if isinstance(target, Restores):
        created = min(reference.created, target.now())
        saved = target.restore(
            key, reference.name, content, created=created, expires=reference.expires
        )
    else:
        saved = target.put(key, reference.name, content, expires=reference.expires)
    return saved.reference


def _chunks(backend: Backend, sid: str, reference: Reference) -> Iterator[bytes]:
    with backend.open(sid, reference) as stream:
        while chunk := stream.read(CHUNK):
            yield chunk
