"""How long things are kept, and the plan that a sweep follows. Pure policy: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from sessionstore.backend import Flaw, Reference, SessionKey, SessionRecord
from sessionstore.errors import SettingsError
from sessionstore.values import LONGEST, show_duration

LIVE = timedelta(seconds=180)
"""A session that was active within this time counts as live, however short the linger is."""

Action = Literal["drop", "delete", "hold"]


@dataclass(frozen=True, slots=True)
class Retention:
    """How long files and sessions are kept. Every field is a setting of the same name.

    Raises SettingsError when nothing would ever be deleted, or a duration is not positive.
    """

    max_age: timedelta | None = None
    """The longest a file is kept after its save; None: no such bound. Files of live sessions are
    spared unless ``sweep_live``."""

    idle: timedelta | None = timedelta(hours=24)
    """A session without a save or touch for this long is dropped whole; None: never for that."""

    linger: timedelta = timedelta(minutes=5)
    """How long an ended session waits for its visitor to come back; zero: dropped at once."""

    sweep_live: bool = False
    """Whether ``max_age`` also deletes files of sessions that are live."""

    def __post_init__(self) -> None:
        for name in ("max_age", "idle", "linger"):
            value = getattr(self, name)
            if not isinstance(value, timedelta) and (value is not None or name == "linger"):
                raise SettingsError(f"invalid {name}={value!r}: give a datetime.timedelta.")
        if not isinstance(self.sweep_live, bool):
            raise SettingsError(f"invalid sweep_live={self.sweep_live!r}: give True or False.")
        if self.max_age is None and self.idle is None:
            raise SettingsError(
                "max_age and idle are both none, so nothing would ever be deleted: set one of them."
            )
        if self.linger < timedelta(0):
            raise SettingsError(f"invalid linger={self.linger}: it cannot be negative.")
        if self.linger > LONGEST:
            raise SettingsError(f"invalid linger={self.linger}: a hundred years are the most.")
        for name in ("max_age", "idle"):
            value = getattr(self, name)
            if value is not None and value <= timedelta(0):
                raise SettingsError(f"invalid {name}={value}: it must be longer than zero.")

    @property
    def live_for(self) -> timedelta:
        """How long after its last activity a session that has not ended counts as live."""
        return max(self.linger, LIVE)

    @property
    def live_interval(self) -> timedelta:
        """How often a live connection touches its session: often enough to stay live.

        And twice within ``idle``, however short that is.
        """
        often = min(max(self.linger / 3, timedelta(seconds=5)), timedelta(seconds=60))
        return often if self.idle is None else min(often, self.idle / 2)

    def due(self, record: SessionRecord) -> datetime | None:
        """When an ended session is dropped: its last sign of life plus ``linger``.

        A save or touch after the end moves it on. None for a session that has not ended.
        """
        if record.ended is None:
            return None
        return max(record.ended, record.active) + self.linger

    def is_due(self, record: SessionRecord, now: datetime) -> bool:
        """Return whether an ended session is to be dropped by ``now``.

        The store's time has reached what the ``record`` says, also where ``now`` is up to a second
        behind it, as with a bucket that dates in whole seconds. So a ``linger`` of zero is no wait.
        """
        if record.ended is None:
            return False
        reached = max(now, record.ended, record.active)
        return max(record.ended, record.active) + self.linger <= reached

    def is_live(self, record: SessionRecord, now: datetime) -> bool:
        """Whether somebody is using the session, as far as its activity tells."""
        return record.ended is None and now - record.active <= self.live_for


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One session or file that a sweep deletes, or holds although its time is up.

    ``size`` is in bytes; ``name`` is None in a row for a whole session. ``reason`` is for people.
    Something that is in the store and is no session has a row of "hold" too; ``session_id`` is then
    its place.
    """

    action: Action
    session_id: str
    owner: str | None
    name: str | None
    size: int
    reason: str
    record: SessionRecord | None = field(repr=False, compare=False)
    """What the decision was made on: the sweep spares a session that was active since. None in a
    row for something that is no session."""
    reference: Reference | None = field(default=None, repr=False, compare=False)
    """The version that was decided on: the sweep never deletes one that replaced it."""


@dataclass(frozen=True, slots=True)
class Planner:
    """Decides, session by session, what a sweep does.

    ``identify`` and ``files`` ask the backend, and only for sessions that need it; ``shared`` is
    the stored name of the app's own session, which is never idle and never ends.
    """

    retention: Retention
    now: datetime
    shared: str
    identify: Callable[[str], SessionKey | None]
    files: Callable[[str], Iterable[Reference]]
    abandoned: Callable[[SessionRecord], str | None] = lambda _: None
    """A reason to drop a session that the retention would keep, or None."""

    def rows(self, records: Iterable[SessionRecord]) -> Iterator[PlanRow]:
        """The plan, in the order of the records."""
        for record in records:
            yield from self._session(record)

    def _session(self, record: SessionRecord) -> Iterator[PlanRow]:
        shared = record.sid == self.shared
        due = None if shared else self.retention.due(record)
        reason = None if shared else self._drop_reason(record, due)
        if reason is not None:
            yield from self._whole(record, "drop", reason)
            return
        if due is not None:
            wait = _words(due - self.now)
            yield from self._whole(record, "hold", f"it ended and lingers for {wait} more")
        if self._is_aged(record) or self._has_expired(record):
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
        """The session's key, and what there is to remark on it."""
        key = self.identify(record.sid)
        if key is not None:
            return key, ""
        # A crash can leave a session that does not know its id. It too has to go in the end.
        return SessionKey.nameless(record.sid), "; it does not say whose it is"

    # Sessions that cannot have a file whose time is up are passed by, unread.

    def _is_aged(self, record: SessionRecord) -> bool:
        max_age = self.retention.max_age
        return max_age is not None and self.now - record.oldest > max_age

    def _has_expired(self, record: SessionRecord) -> bool:
        return record.expiring is not None and record.expiring <= self.now

    def _files(self, record: SessionRecord) -> Iterator[PlanRow]:
        """Rows for single files."""
        references = sorted(self.files(record.sid), key=lambda each: each.name)
        if not references and self._is_left_over(record):
            yield from self._whole(record, "drop", "it has no files any more, and nobody uses it")
        key, remark = self._key(record)
        for reference in references:
            verdict = self._file(record, reference)
            if verdict is not None:
                action, reason = verdict
                yield PlanRow(
                    action, key.id, key.owner, reference.name, reference.size, reason + remark,
                    record, reference,
                )  # fmt: skip

    def _is_left_over(self, record: SessionRecord) -> bool:
        """Whether an empty session would stay for ever, because no session is ever idle."""
        return (
            self.retention.idle is None
            and record.sid != self.shared
            and not self.retention.is_live(record, self.now)
        )

    def _file(self, record: SessionRecord, reference: Reference) -> tuple[Action, str] | None:
        if reference.expires is not None and reference.expires <= self.now:
            ago = _words(self.now - reference.expires)
            return "delete", f"its time to live was over {ago} ago"
        age = self.now - reference.created
        if self.retention.max_age is None or age <= self.retention.max_age:
            return None
        older = f"{_words(age)} old, older than max_age={_words(self.retention.max_age)}"
        spared = record.sid != self.shared and not self.retention.sweep_live
        if spared and self.retention.is_live(record, self.now):
            return "hold", f"{older}, but its session is live"
        return "delete", older


def row_for(flaw: Flaw) -> PlanRow:
    """Make the row of something in the store that no listing of sessions shows."""
    reason = f"{flaw.problem} {flaw.remedy}"
    return PlanRow("hold", flaw.sid or flaw.place, None, None, 0, reason, None)


def _words(duration: timedelta) -> str:
    """A duration for people: whole seconds, unless it is shorter than one."""
    second = timedelta(seconds=1)
    return show_duration(duration if abs(duration) < second else duration // second * second)
