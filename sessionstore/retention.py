"""The retention of files and sessions. Pure policy: no I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sessionstore.errors import SettingsError
from sessionstore.model import SessionRecord
from sessionstore.parsers import LONGEST

LIVE = timedelta(seconds=180)  # active within this time is live, however short the linger is


@dataclass(frozen=True, slots=True)
class Retention:
    """The retention times of files and sessions. Every field is a setting of the same name.

    Raises SettingsError if nothing would ever be deleted, or if a duration is not positive.
    """

    max_age: timedelta | None = None
    """The maximum age of a file since its save; None: no limit. Files of live sessions are spared
    unless ``sweep_live``."""

    idle: timedelta | None = timedelta(hours=24)
    """A session without a save or touch for this long is dropped with its files; None: never."""

    linger: timedelta = timedelta(minutes=5)
    """The time an ended session waits for its visitor to come back; zero: it is dropped at once."""

    sweep_live: bool = False
    """True if ``max_age`` also applies to files of live sessions."""

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
        if not timedelta(0) <= self.linger <= LONGEST:
            is_long = self.linger > LONGEST
            hint = "at most a hundred years are allowed" if is_long else "it cannot be negative"
            raise SettingsError(f"invalid linger={self.linger}: {hint}.")
        for name in ("max_age", "idle"):
            value = getattr(self, name)
            if value is not None and value <= timedelta(0):
                raise SettingsError(f"invalid {name}={value}: it must be longer than zero.")

    @property
    def live_for(self) -> timedelta:
        """Return the time after its last activity for which an open session counts as live."""
        return max(self.linger, LIVE)

    @property
    def live_interval(self) -> timedelta:
        """Return the time between two touches of a session by a live connection.

        It is short enough to keep the session live, and at most half of ``idle``.
        """
        often = min(max(self.linger / 3, timedelta(seconds=5)), timedelta(seconds=60))
        return often if self.idle is None else min(often, self.idle / 2)

    def due(self, record: SessionRecord) -> datetime | None:
        """Return when an ended session is dropped: ``linger`` after its last activity or its end.

        A later save or touch postpones it. None for a session that has not ended.
        """
        if record.ended is None:
            return None
        return max(record.ended, record.active) + self.linger

    def is_due(self, record: SessionRecord, now: datetime) -> bool:
        """Return whether an ended session is to be dropped by ``now``.

        The times of ``record`` count as reached even if ``now`` is up to a second behind them, as
        with a bucket whose times are whole seconds. So a ``linger`` of zero does not wait.
        """
        due = self.due(record)
        return due is not None and due <= max(now, due - self.linger)

    def spared_after(self, now: datetime) -> datetime:
        """Return the time after which an ended session must not be active, to be due by ``now``."""
        return now - self.linger if self.linger else datetime.max.replace(tzinfo=now.tzinfo)

    def is_live(self, record: SessionRecord, now: datetime) -> bool:
        """Return whether the session is in use, judged by its last activity."""
        return record.ended is None and now - record.active <= self.live_for
