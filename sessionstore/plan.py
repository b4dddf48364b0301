"""The plan of a sweep: what it deletes or holds, and the reasons. Pure policy: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple

from sessionstore.model import Problem, Reference, SessionKey, SessionRecord
from sessionstore.names import is_private
from sessionstore.parsers import show_duration
from sessionstore.retention import Retention

Action = Literal["drop", "delete", "hold"]


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One session or file that a sweep deletes, or holds although its time is over.

    ``size`` is in bytes; ``name`` is None in a row for a whole session. ``reason`` is for people.
    An object in the store that is not a session also has a row with "hold"; its ``session_id`` is
    the object's place.
    """

    action: Action
    session_id: str
    owner: str | None
    name: str | None
    size: int
    reason: str
    record: SessionRecord | None = field(repr=False, compare=False)
    """The basis of the decision: the sweep spares a session that was active since. None in a row
    for an object that is not a session."""
    reference: Reference | None = field(default=None, repr=False, compare=False)
    """The version of the decision: the sweep never deletes a version that replaced it."""


@dataclass(frozen=True, slots=True)
class Planner:
    """Makes the plan of a sweep, session by session.

    ``identify`` and ``files`` call the backend, and only for sessions that need it. ``shared`` is
    the stored name of the app's own session, which is never idle and never ends.
    """

    retention: Retention
    now: datetime
    shared: str
    identify: Callable[[str], SessionKey | None]
    files: Callable[[str], Iterable[Reference]]
    abandoned: Callable[[SessionRecord], str | None] = lambda _: None
    """Returns a reason to drop a session that the retention would keep, or None."""
    held: bool = True
    """Whether to make rows for what is only held. They need requests, and a sweep has no use for
    them."""

    def rows(self, records: Iterable[SessionRecord]) -> Iterator[PlanRow]:
        for record in records:
            yield from self._session(record)

    def _session(self, record: SessionRecord) -> Iterator[PlanRow]:
        shared = record.sid == self.shared
        due = None if shared else self.retention.due(record)
        reason = None if shared else self._drop_reason(record, due)
        if reason is not None:
            yield from self._whole(record, "drop", reason)
            return
        if due is not None and self.held:
            wait = _words(due - self.now)
            yield from self._whole(record, "hold", f"it ended and lingers for {wait} more")
        # A session that cannot have an expired or too old file is skipped, without a listing.
        max_age, expiring = self.retention.max_age, record.expiring
        aged = max_age is not None and self.now - record.oldest > max_age
        aged = aged and (self.held or not self._is_spared(record))
        if aged or (expiring is not None and expiring <= self.now):
            yield from self._files(record)

    def _drop_reason(self, record: SessionRecord, due: datetime | None) -> str | None:
        if due is not None and self.retention.is_due(record, self.now):
            ago = max(self.now - due, timedelta(0))
            return (
                f"it ended, and its linger of {_words(self.retention.linger)} was over "
                f"{_words(ago)} ago"
            )
        idle = self.now - record.active
        if self.retention.idle is not None and idle > self.retention.idle:
            return f"idle for {_words(idle)}, longer than idle={_words(self.retention.idle)}"
        return self.abandoned(record)

    def _whole(self, record: SessionRecord, action: Action, reason: str) -> Iterator[PlanRow]:
        key, remark = self._key(record)
        size = sum(reference.size for reference in self.files(record.sid))
        yield PlanRow(action, key.id, key.owner, None, size, reason + remark, record)

    def _key(self, record: SessionRecord) -> tuple[SessionKey, str]:
        """Return the session's key, and a remark for the reason (empty if there is none)."""
        key = self.identify(record.sid)
        if key is not None:
            return key, ""
        # A crash can leave a session without its id. It too must be dropped in the end.
        return SessionKey.nameless(record.sid), "; its id and owner cannot be read"

    def _files(self, record: SessionRecord) -> Iterator[PlanRow]:
        references = sorted(self.files(record.sid), key=lambda reference: reference.name)
        key, remark = self._key(record)
        rows = []
        for reference in references:
            verdict = self._file(record, reference)
            if verdict is not None:
                action, reason = verdict
                rows.append(
                    PlanRow(
                        action, key.id, key.owner, reference.name, reference.size, reason + remark,
                        record, reference,
                    )
                )  # fmt: skip
        if self._is_over(record, key, references, rows):
            yield from self._whole(record, "drop", "it has no files, and is not in use")
        else:
            yield from rows

    def _is_over(
        self,
        record: SessionRecord,
        key: SessionKey,
        references: list[Reference],
        due: list[PlanRow],
    ) -> bool:
        """Return whether a session without files, or whose files are all ``due``, is dropped.

        Without ``idle`` an empty session would stay for ever, and an adapter's own session would
        stay for ``idle`` although its owner has left.
        """
        if record.sid == self.shared or self.retention.is_live(record, self.now):
            return False
        if not is_private(key):
            return not references and self.retention.idle is None
        return len(references) == len(due) and all(row.action == "delete" for row in due)

    def _file(self, record: SessionRecord, reference: Reference) -> tuple[Action, str] | None:
        if reference.expires is not None and reference.expires <= self.now:
            ago = _words(self.now - reference.expires)
            return "delete", f"its time to live was over {ago} ago"
        age = self.now - reference.created
        if self.retention.max_age is None or age <= self.retention.max_age:
            return None
        older = f"{_words(age)} old, older than max_age={_words(self.retention.max_age)}"
        if self._is_spared(record):
            return "hold", f"{older}, but its session is live"
        return "delete", older

    def _is_spared(self, record: SessionRecord) -> bool:
        """Return whether ``max_age`` spares the files of this session, because it is live."""
        spared = record.sid != self.shared and not self.retention.sweep_live
        return spared and self.retention.is_live(record, self.now)


UNLESS_USED: Final = "unless its session is used"
"""The reason of a time that every use of the session postpones."""


class Going(NamedTuple):
    """When a file goes, if nothing uses its session until then, and why, in words.

    ``at`` is None if no rule ever deletes it. ``with_page``: its session is in use, and the file
    goes some time after the visitor has left, by ``at`` at the latest.
    """

    at: datetime | None
    reason: str
    with_page: bool


def going(
    retention: Retention, record: SessionRecord, reference: Reference, now: datetime
) -> Going:
    """Return when the rules that a sweep follows delete a file of the session of this record."""
    is_live = retention.is_live(record, now)
    ends: list[tuple[datetime, str]] = []
    if reference.expires is not None:
        ends.append((reference.expires, "its time to live ends"))
    if (due := retention.due(record)) is not None:
        ends.append((due, "its page was closed"))
    if retention.idle is not None:
        ends.append((record.active + retention.idle, UNLESS_USED))
    if retention.max_age is not None and (retention.sweep_live or not is_live):
        ends.append((reference.created + retention.max_age, "no file is kept longer"))
    if not ends:
        return Going(None, "", is_live)
    at, reason = min(ends)
    return Going(at, reason, is_live)


def row_for(problem: Problem) -> PlanRow:
    """Return the row of an object in the store that no listing of sessions shows."""
    reason = f"{problem.problem} {problem.remedy}"
    return PlanRow("hold", problem.sid or problem.place, None, None, 0, reason, None)


def _words(duration: timedelta) -> str:
    """Return a duration for people: whole seconds, unless it is shorter than one second."""
    second = timedelta(seconds=1)
    return show_duration(duration if abs(duration) < second else duration // second * second)
