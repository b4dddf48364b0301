"""Backends that remove too little, too much, or the wrong version."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from sessionstore.backend import Dropped, Reference, SessionKey
from sessionstore.backends.memory import MemoryBackend, Place
from sessionstore.clock import Clock
from sessionstore.content import Content
from tests.broken.table import caught_by, pause


@caught_by("deleted_file_is_gone")
class DeletesNothing(MemoryBackend):
    def delete(self, sid: str, names: Iterable[str]) -> list[Reference]:
        return [file for file in self.files(sid) if file.name in set(names)]


@caught_by("delete_tells_what_was_there_and_leaves_other_names")
class DeletesAllNamesThatBeginSo(MemoryBackend):
    def delete(self, sid: str, names: Iterable[str]) -> list[Reference]:
        begin = tuple(names)
        return super().delete(
            sid, [file.name for file in self.files(sid) if file.name.startswith(begin)]
        )


@caught_by("delete_tells_what_was_there_and_leaves_other_names")
class DeletesWithoutAWord(MemoryBackend):
    def delete(self, sid: str, names: Iterable[str]) -> list[Reference]:
        super().delete(sid, names)
        return []


@caught_by("removing_what_is_not_there_is_no_error")
class MissesWhatIsNotThere(MemoryBackend):
    def delete(self, sid: str, names: Iterable[str]) -> list[Reference]:
        return super().delete(sid, [self.get(sid, name).name for name in names])


@caught_by("current_version_is_discarded", "discarded_and_replaced_content_goes")
class DiscardsNothing(MemoryBackend):
    def discard(self, sid: str, references: Iterable[Reference]) -> list[Reference]:
        return []


@caught_by("replaced_version_is_not_discarded", "foreign_reference_discards_nothing")
class DiscardsTheReplacement(MemoryBackend):
    def discard(self, sid: str, references: Iterable[Reference]) -> list[Reference]:
        return self.delete(sid, [reference.name for reference in references])


@caught_by("replaced_version_is_not_discarded")
class TellsVersionsByTheirBytes(MemoryBackend):
    def discard(self, sid: str, references: Iterable[Reference]) -> list[Reference]:
        stale = {(reference.name, reference.digest) for reference in references}
        return self.delete(
            sid, [file.name for file in self.files(sid) if (file.name, file.digest) in stale]
        )


@caught_by("current_version_is_discarded_beside_a_replaced_one")
class TakesTheLastVersionOfAName(MemoryBackend):
    def discard(self, sid: str, references: Iterable[Reference]) -> list[Reference]:
        return super().discard(sid, {file.name: file for file in references}.values())


@caught_by("removing_what_is_not_there_is_no_error")
class MissesWhatItDiscards(MemoryBackend):
    def discard(self, sid: str, references: Iterable[Reference]) -> list[Reference]:
        wanted = list(references)
        for reference in wanted:
            self.get(sid, reference.name)
        return super().discard(sid, wanted)


@caught_by("a_listing_survives_deletes_beside_it")
class ListsWhatIsBeingChanged(MemoryBackend):
    def files(self, sid: str) -> Iterator[Reference]:
        return iter(self._place.files(sid).values())


@caught_by("a_listing_can_be_left_early")
class IsBusyUntilListedToTheEnd(MemoryBackend):
    _busy = False

    def files(self, sid: str) -> Iterator[Reference]:
        self._busy = True
        yield from super().files(sid)
        self._busy = False

    def drop(self, sid: str, **more: Any) -> Dropped | None:
        return None if self._busy else super().drop(sid)


@caught_by("closing_twice_is_no_error")
class ClosesOnce(MemoryBackend):
    def close(self) -> None:
        del self.digest


@caught_by("dropped_session_is_gone")
class DropsNothing(MemoryBackend):
    def drop(self, sid: str, **more: Any) -> Dropped | None:
        files = list(self.files(sid))
        return Dropped(len(files), sum(file.size for file in files))


@caught_by("drop_tells_what_it_removed")
class CountsDroppedBytesOnce(MemoryBackend):
    def drop(self, sid: str, **more: Any) -> Dropped | None:
        sizes = {file.digest: file.size for file in self.files(sid)}
        dropped = super().drop(sid, **more)
        return dropped and Dropped(dropped.files, sum(sizes.values()))


@caught_by("session_without_files_can_be_dropped_once")
class DropsFilesOnly(MemoryBackend):
    def drop(self, sid: str, **more: Any) -> Dropped | None:
        return super().drop(sid) if list(self.files(sid)) else None


@caught_by("session_without_files_can_be_dropped_once")
class DropsWhatIsNotThere(MemoryBackend):
    def drop(self, sid: str, **more: Any) -> Dropped | None:
        return super().drop(sid) or Dropped(0, 0)


@caught_by("many_files_are_dropped_at_once")
class DropsOnePage(MemoryBackend):
    def drop(self, sid: str, **more: Any) -> Dropped | None:
        page = [file.name for file in self.files(sid)][:1000]
        gone = self.delete(sid, page)
        return Dropped(len(gone), sum(file.size for file in gone))


@caught_by("session_made_anew_is_a_new_one")
class NeverForgetsAnEnd(MemoryBackend):
    def __init__(self, place: Place, clock: Clock) -> None:
        super().__init__(place, clock)
        self._ended: dict[str, datetime] = {}

    def end(self, sid: str) -> None:
        super().end(sid)
        self._ended[sid] = self.now()

    def put(self, key: SessionKey, name: str, content: Content, **more: Any) -> Any:
        saved = super().put(key, name, content, **more)
        self._place.sessions[key.sid].ended = self._ended.get(key.sid)
        return saved


@caught_by("session_active_since_is_spared")
class DropsWhoeverIsActive(MemoryBackend):
    def drop(self, sid: str, **more: Any) -> Dropped | None:
        return super().drop(sid)


@caught_by("session_resumed_in_the_same_moment_is_spared")
class DropsWhatHasNotEnded(MemoryBackend):
    def drop(self, sid: str, **more: Any) -> Dropped | None:
        return super().drop(sid, **{**more, "only_ended": False})


@caught_by("session_active_until_then_is_dropped")
class DropsNoEndedSession(MemoryBackend):
    def drop(self, sid: str, **more: Any) -> Dropped | None:
        return None if more.get("only_ended") else super().drop(sid, **more)


@caught_by("session_active_until_then_is_dropped")
class SparesWhoWasActiveThen(MemoryBackend):
    def drop(self, sid: str, **more: Any) -> Dropped | None:
        record = self.session(sid)
        if record is not None and record.active == more.get("unless_active_after"):
            return None
        return super().drop(sid, **more)


@caught_by("save_beside_a_sweep_s_drop_is_kept")
class LooksBeforeItDrops(MemoryBackend):
    def drop(self, sid: str, **more: Any) -> Dropped | None:
        record = self.session(sid)
        since = more.get("unless_active_after")
        if since and record and record.active > since:
            return None
        pause()
        return super().drop(sid)


@caught_by("save_beside_a_drop_is_whole_or_gone")
class DropsWhatItListed(MemoryBackend):
    """Deletes the session a moment after its files, and with it files saved in between."""

    def drop(self, sid: str, **more: Any) -> Dropped | None:
        gone = self.delete(sid, [file.name for file in self.files(sid)])
        pause()
        self._place.sessions.pop(sid, None)
        return Dropped(len(gone), sum(file.size for file in gone))


@caught_by("missing_file_is_not_stored")
class GivesFilesToNobody(MemoryBackend):
    def files(self, sid: str) -> Iterator[Reference]:
        if self.session(sid) is not None:
            return super().files(sid)
        return iter(
            [
                file
                for record in self.sessions()
                for file in super(type(self), self).files(record.sid)
            ]
        )
