"""Comparison of a backend's results with the memory backend's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sessionstore.model import Reference, SessionRecord


@dataclass(frozen=True, slots=True)
class Comparison:
    """Asserts that two results are equal; times may differ by ``resolution``."""

    resolution: timedelta

    def files(self, real: Iterable[Reference], model: Iterable[Reference]) -> None:
        """Assert that both list the same files, in any order; each backend has its own tokens."""
        reals, models = sorted(real, key=_name), sorted(model, key=_name)
        assert [_known(reference) for reference in reals] == [
            _known(reference) for reference in models
        ]
        for one, other in zip(reals, models, strict=True):
            self.times(one.created, other.created)
            self.times(one.expires, other.expires)

    def records(
        self, real: SessionRecord, model: SessionRecord, files: Iterable[Reference]
    ) -> None:
        """Assert that both records describe the same session, which has these ``files``."""
        assert real.sid == model.sid
        self.times(real.active, model.active)
        self.times(real.ended, model.ended)
        for reference in files:  # the bounds may differ, but must hold for every file
            assert real.oldest <= reference.created + self.resolution
            if reference.expires is not None:
                assert real.expiring is not None
                assert real.expiring <= reference.expires + self.resolution

    def times(self, real: datetime | None, model: datetime | None) -> None:
        """Assert that both are the same time, or both None."""
        assert (real is None) == (model is None)
        if real is not None and model is not None:
            assert abs(real - model) <= self.resolution


def _name(reference: Reference) -> str:
    return reference.name


def _known(reference: Reference) -> tuple[str, int, str]:
    return reference.name, reference.size, reference.digest
