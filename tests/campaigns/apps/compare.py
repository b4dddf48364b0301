"""The differences between a plain visit and an attached one, and whether they are worse."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tests.campaigns.apps.notes import Outcome
from tests.campaigns.apps.settings import Settings

Verdict = Literal["same", "better", "worse", "documented", "does not start", "unused mark"]
Steps = dict[str, Outcome]


@dataclass
class Comparison:
    """The differences of one app's two visits, each with its reason."""

    worse: dict[str, str] = field(default_factory=dict)
    better: dict[str, str] = field(default_factory=dict)
    documented: dict[str, str] = field(default_factory=dict)
    varies: int = 0
    """Steps that differ between two visits of the same kind."""
    worked: int = 0
    """Steps that work without the store."""
    steps: int = 0
    starts: bool = True
    unused: list[str] = field(default_factory=list)
    """The parts of steps that the app documents as worse, and that no such step has."""

    @property
    def verdict(self) -> Verdict:
        if not self.starts:
            return "does not start"
        if self.worse:
            return "worse"
        if self.unused:
            return "unused mark"
        return "documented" if self.documented else "better" if self.better else "same"


def compared(plain: Steps, attached: Steps, settings: Settings) -> Comparison:
    """Compare two visits step by step."""
    result = Comparison(steps=len(plain), worked=sum(each.ok for each in plain.values()))
    for step in dict.fromkeys([*plain, *attached]):
        one, other = plain.get(step), attached.get(step)
        reason = _worse(one, other)
        if reason is not None:
            part = next((part for part in settings.documented if part in step), None)
            if part is None:
                result.worse[step] = reason
            else:
                result.documented[step] = settings.documented[part]
        elif other is not None and other.ok and (one is None or not one.ok):
            result.better[step] = "missing" if one is None else one.detail
    return result


def _worse(plain: Outcome | None, attached: Outcome | None) -> str | None:
    """Return why the attached outcome is worse, None when it is not."""
    if plain is None:  # a step more that failed: an output that plain Gradio does not have
        return None if attached is None or attached.ok else f"new: {attached.detail}"
    if not plain.ok:
        return None
    if attached is None:
        return "missing"
    if not attached.ok:
        return attached.detail
    if attached.detail != plain.detail:
        return f"other: {attached.detail!r} instead of {plain.detail!r}"
    return None


def without_noise(first: Comparison, again: Comparison, plain: Steps, plain2: Steps) -> Comparison:
    """Keep the differences that two runs show and that plain Gradio does not have with itself."""
    for kind in ("worse", "better", "documented"):
        seen, seen_again = getattr(first, kind), getattr(again, kind)
        kept = {
            step: reason
            for step, reason in seen.items()
            if step in seen_again and _steady(plain.get(step), plain2.get(step))
        }
        first.varies += len(seen) - len(kept)
        setattr(first, kind, kept)
    return first


def _steady(one: Outcome | None, other: Outcome | None) -> bool:
    return one == other or not (one and other and one.ok and other.ok)
