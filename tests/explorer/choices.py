"""The choices of one run: drawn from a seed, recorded, and replayed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Draws numbers and records them, from a seed or from a recording.

    After the end of a recording every choice is 0, the simplest one. So a recording with pieces cut
    out is a valid run too, and a shorter one.
    """

    def __init__(self, seed: int | None = None, recorded: Sequence[int] = ()) -> None:
        self.made: list[int] = []
        self._recorded = recorded
        self._random = None if seed is None else random.Random(seed)

    def below(self, count: int) -> int:
        """Return a number from 0 to ``count`` - 1."""
        at = len(self.made)
        if self._random is not None:
            choice = int(self._random.random() * count)
        else:
            choice = min(self._recorded[at], count - 1) if at < len(self._recorded) else 0
        self.made.append(choice)
        return choice

    def chance(self, probability: float) -> bool:
        """Return True with this probability; False is the simpler choice."""
        at = len(self.made)
        if self._random is not None:
            choice = int(self._random.random() < probability)
        else:
            choice = self._recorded[at] if at < len(self._recorded) else 0
        self.made.append(choice)
        return choice > 0

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options; the first is the simplest."""
        return options[self.below(len(options))]
