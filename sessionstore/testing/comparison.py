"""Whether what a backend says is what the memory backend says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sessionstore.backend import Reference, SessionRecord


@dataclass(frozen=True, slots=True)
class Comparison:
    """Asserts that two answers are equal, times as exactly as ``resolution``."""

    resolution: timedelta

    def files(self, real: Iterable[Reference], model: Iterable[Reference]) -> None:
        """The same files, in any order; tokens are each backend's own."""
        some, others = sorted(real, key=_name), sorted(model, key=_name)
        assert [_known(reference) for reference in some] == [_known(it) for it in others]
        for one, other in zip(some, others, strict=True):
            self.times(one.created, other.created)
            self.times(one.expires, other.expires)

    def records(
        self, real: SessionRecord, model: SessionRecord, files: Iterable[Reference]
    ) -> None:
        """The same session, which has these files."""
        assert real.sid == model.sid
        self.times(real.active, model.active)
        self.times(real.ended, model.ended)
        for reference in files:  # bounds need not be equal, but must be bounds
            assert real.oldest <= reference.created + self.resolution
            if reference.expires is not None:
                assert real.expiring is not None
                assert real.expiring <= reference.expires + self.resolution

    def times(self, real: datetime | None, model: datetime | None) -> None:
        """The same moment, or none."""
        assert (real is None) == (model is None)
        if real is not None and model is not None:
            assert abs(real - model) <= self.resolution


def _name(reference: Reference) -> str:
    return reference.name


def _known(reference: Reference) -> tuple[str, int, str]:
    return reference.name, reference.size, reference.digest
