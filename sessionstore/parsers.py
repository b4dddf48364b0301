"""The values of settings, as people write them: durations, sizes, switches and choices.

A *parser* takes a raw setting (text from a URL or the environment, any type from TOML, the value
itself from Python) and returns the value. It raises a ValueError with the second half of the
message "invalid idle='5 parsecs': ", such as "write a duration such as 90s, 15m, 12h or 1d".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from fractions import Fraction

T = TypeVar("T")

Parser = Callable[[object], object]
"""Each function here that takes one ``object`` is a parser, with a narrower type of result."""

LONGEST = timedelta(days=36525)
"""The longest duration that is added to a time, a hundred years: the sum is still a date."""

_MICROSECONDS = {
    "w": 604_800_000_000,
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1000,
}
_KIB = 1024
_PREFIXES = "kmgtp"
_BYTES = {"": 1, "b": 1} | {
    f"{prefix}{infix}b": base**power
    for infix, base in (("", 1000), ("i", _KIB))
    for power, prefix in enumerate(_PREFIXES, start=1)
}
_SWITCH = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(
    ("0", "false", "no", "off"), False
)

# Bounded, because int() refuses very long numbers with a message of its own. Not "\d", which also
# matches the digits of other scripts.
_NUMBER = r"[0-9]{1,20}(?:\.[0-9]{1,9})?"
_STEP = rf"({_NUMBER})\s*(ms|[wdhms])\s*"

_is_number = re.compile(_NUMBER).fullmatch
_is_whole = re.compile(r"[0-9]{1,20}").fullmatch
_is_duration = re.compile(f"(?:{_STEP})+").fullmatch
_steps = re.compile(_STEP).findall
_is_size = re.compile(rf"({_NUMBER})\s*((?:[kmgtp]i?)?b)?", re.IGNORECASE).fullmatch


def duration(value: object) -> timedelta:
    """Parse a duration: a timedelta, or text such as "90s", "1.5h", "1h30m", "250ms" or "2w".

    Each unit may be used once, the longer before the shorter. A number without a unit is refused,
    since its unit would be a guess; only zero needs no unit. Negative durations are refused.
    Fractions of a microsecond are rounded.
    """
    if isinstance(value, timedelta):
        if value < timedelta(0):
            raise ValueError("a duration cannot be negative")
        return value
    written = _written(value)
    if _is_number(written):
        if _exactly(written) == 0:
            return timedelta(0)
        raise ValueError("write the unit too, such as 90s, 15m, 12h or 1d")
    steps = _steps(written) if _is_duration(written) else []
    order = [list(_MICROSECONDS).index(unit) for _, unit in steps]
    if not steps or any(first >= second for first, second in pairwise(order)):
        raise ValueError("write a duration such as 90s, 15m, 12h or 1d")
    total = sum(_exactly(number) * _MICROSECONDS[unit] for number, unit in steps)
    try:
        return timedelta(microseconds=round(total))
    except OverflowError as error:
        raise ValueError("it is too long; write a duration such as 12h or 1d") from error


def check_duration(name: str, value: timedelta) -> None:
    """Raise ValueError unless ``value`` is longer than zero and at most ``LONGEST``.

    ``name`` is the name of the argument, for the message.
    """
    if value <= timedelta(0):
        raise ValueError(f"invalid {name}={value}: it must be longer than zero.")
    if value > LONGEST:
        raise ValueError(f"invalid {name}={value}: at most a hundred years are allowed.")


def size(value: object) -> int:
    """Parse a number of bytes: an int, or text such as "500MB" (decimal), "2GiB" or "100".

    The case of units does not matter. A fraction of a byte is dropped.
    """
    match = _is_size(_written(value))
    if match is None or (match[2] in {None, "b", "B"} and "." in match[1]):
        raise ValueError("write a size such as 500MB or 2GiB, or a whole number of bytes")
    return int(_exactly(match[1]) * _BYTES[(match[2] or "").lower()])


def boolean(value: object) -> bool:
    """Parse a switch: a bool, 1 or 0, or text: true/false, yes/no, on/off, 1/0 in any case."""
    if isinstance(value, bool):
        return value
    switch = _SWITCH.get(_written(value).lower())
    if switch is None:
        raise ValueError("write true or false")
    return switch


def number(value: object) -> int:
    """Parse a whole number of at least 0, from an int or its digits."""
    written = _written(value)
    if not _is_whole(written):
        raise ValueError("write a whole number that is not negative, such as 100")
    return int(written)


def text(value: object) -> str:
    """Parse text. It is returned unchanged, including surrounding space."""
    if not isinstance(value, str):
        raise ValueError("write text in quotes")  # noqa: TRY004 - parsers raise ValueError only
    return value


def choice(*options: str) -> Callable[[object], str]:
    """Return a parser of one of ``options``, which must be spelled exactly."""

    def one_of(value: object) -> str:
        if isinstance(value, str) and value.strip() in options:
            return value.strip()
        raise ValueError(f"choose {' or '.join(options)}")

    return one_of


def optional(parser: Callable[[object], T]) -> Callable[[object], T | None]:
    """Return a parser that also accepts None, "none" in any case, and empty text, each as None."""

    def parser_or_none(value: object) -> T | None:
        if value is None or (isinstance(value, str) and value.strip().lower() in {"", "none"}):
            return None
        try:
            return parser(value)
        except ValueError as error:
            raise ValueError(f"{error}, or none") from error

    return parser_or_none


def show_duration(value: timedelta) -> str:
    """Return a duration in the form that ``duration`` reads: "1h30m", "250ms", "0s".

    Fractions of a millisecond are left out. A negative duration has a minus in front and is for
    people only.
    """
    signed = value // timedelta(microseconds=1)
    rest = abs(signed)
    shown = ""
    for unit, microseconds in _MICROSECONDS.items():
        if unit != "w":  # "14d" is easier to compare than "2w"
            count, rest = divmod(rest, microseconds)
            shown += f"{count}{unit}" if count else ""
    return ("-" if signed < 0 and shown else "") + (shown or "0s")


def show_size(value: int) -> str:
    """Return a number of bytes for people: "512 B", "1.5 GiB". ``size`` can read it, rounded."""
    if value < _KIB:
        return f"{value} B"
    power = 1
    # Compare the rounded number: one byte less than 1 MiB would otherwise be "1024 KiB".
    while power < len(_PREFIXES) and round(value / _KIB**power, 1) >= _KIB:
        power += 1
    shown = f"{value / _KIB**power:.1f}".removesuffix(".0")
    return f"{shown} {_PREFIXES[power - 1].upper()}iB"


def _written(value: object) -> str:
    """Return a number or text as it is written in the environment; for other types, "-"."""
    return str(value).strip() if isinstance(value, str | int | float) else "-"


def _exactly(number: str) -> Fraction:
    from fractions import Fraction  # here: it imports decimal, most of this module's load time

    return Fraction(number)
