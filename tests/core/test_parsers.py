"""Values of settings as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionstore.parsers import (
    Parser,
    boolean,
    choice,
    duration,
    number,
    optional,
    show_duration,
    show_size,
    size,
    text,
)

milliseconds = st.integers(0, timedelta.max // timedelta(milliseconds=1)).map(
    lambda count: timedelta(milliseconds=count)
)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (timedelta(minutes=3), 180),
        ("90s", 90),
        ("15m", 900),
        ("12h", 43_200),
        ("1d", 86_400),
        ("2w", 1_209_600),
        ("250ms", 0.25),
        ("1h30m", 5400),
        ("1d2h3m4s5ms", 93_784.005),
        ("1.5h", 5400),
        ("0.5ms", 0.0005),
        (" 1 h 30 m ", 5400),
        ("0s", 0),
        ("0", 0),
        (0, 0),
        (0.0, 0),
    ],
)
def test_a_duration_is_a_number_with_its_unit(written: object, seconds: float) -> None:
    assert duration(written) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("written", "bytes_"),
    [
        (0, 0),
        (2048, 2048),
        ("100", 100),
        ("100B", 100),
        ("10kB", 10_000),
        ("10KB", 10_000),
        ("500MB", 500_000_000),
        ("500mb", 500_000_000),
        ("1.5 GB", 1_500_000_000),
        ("2TB", 2 * 10**12),
        ("1KiB", 1024),
        ("2GiB", 2 * 2**30),
        ("0.5 MiB", 2**19),
        ("3PiB", 3 * 2**50),
        ("0.3KiB", 307),
        (str(2**63), 2**63),
    ],
)
def test_a_size_is_bytes_in_decimal_or_binary_units(written: object, bytes_: int) -> None:
    assert size(written) == bytes_


@pytest.mark.parametrize(
    ("written", "meant"),
    [(True, True), (False, False), (1, True), (0, False)]
    + [(each, True) for each in ("1", "true", "True", "YES", "on", " on ")]
    + [(each, False) for each in ("0", "false", "FALSE", "no", "Off")],
)
def test_a_switch_is_written_in_any_usual_way(written: object, meant: object) -> None:
    assert boolean(written) is meant


def test_a_number_is_whole_and_not_negative() -> None:
    assert number(7) == 7
    assert number(" 0042 ") == 42


def test_text_is_kept_as_it_stands() -> None:
    assert text(" a\n") == " a\n"


def test_a_choice_is_one_of_its_options() -> None:
    engine = choice("boto3", "obstore")
    assert engine(" obstore ") == "obstore"


@pytest.mark.parametrize("written", [None, "", " ", "none", "None", " NONE "])
def test_an_optional_value_may_be_none(written: object) -> None:
    assert optional(duration)(written) is None


def test_an_optional_value_is_read_by_its_parser() -> None:
    assert optional(duration)("90s") == timedelta(seconds=90)
    assert optional(number)(0) == 0


DURATION = "write a duration such as 90s, 15m, 12h or 1d"
UNIT = "write the unit too, such as 90s, 15m, 12h or 1d"
SIZE = "write a size such as 500MB or 2GiB, or a whole number of bytes"
NUMBER = "write a whole number that is not negative, such as 100"


@pytest.mark.parametrize(
    ("parser", "written", "advice"),
    [
        (duration, timedelta(seconds=-1), "a duration cannot be negative"),
        *[(duration, bare, UNIT) for bare in (5, 1.5, "5", "1.5", 10**19)],
        *[(duration, "9" * digits + "d", DURATION) for digits in (21, 5000)],
        (duration, "9" * 12 + "d", "it is too long; write a duration such as 12h or 1d"),
        *[
            (duration, wrong, DURATION)
            for wrong in [
                *("", " ", "s", "5 parsecs", "-5s", -5, "5min", "1h30", "30m1h", "1m1m", "1e3s"),
                *("5S", "\u0665s", "inf", float("nan"), True, False, None, b"5s", ["5s"]),
            ]
        ],
        *[
            (size, wrong, SIZE)
            for wrong in [
                *("", "B", "-1", -1, "1.5", "1.5B", 1.5, 1e9, "5M", "5 Gi", "1e3B", "1_000"),
                *("\u0665", "9" * 21, True, None, b"5", timedelta(1)),
            ]
        ],
        *[
            (boolean, wrong, "write true or false")
            for wrong in ("", "y", "maybe", 2, -1, 1.0, None, b"1")
        ],
        *[
            (number, wrong, NUMBER)
            for wrong in ("", "-1", -1, "1.0", 1.0, "1_0", "\u0665", "9" * 21, True, None)
        ],
        *[(text, wrong, "write text in quotes") for wrong in (5, None, True, b"a")],
        *[(choice("a", "b"), wrong, "choose a or b") for wrong in ("", "c", "A", None, 1)],
        (optional(duration), "soon", DURATION + ", or none"),
        (optional(number), False, NUMBER + ", or none"),
    ],
)
def test_what_is_not_right_is_refused_with_what_would_be(
    parser: Parser, written: object, advice: str
) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the whole text is compared below
        parser(written)
    assert str(refusal.value) == advice


def refusal_of(parser: Parser, written: str) -> str | None:
    try:
        parser(written)
    except ValueError as refusal:
        return str(refusal)
    return None


@given(st.text() | st.text("0159.wdhmskgtiB -none", max_size=30))
def test_any_text_is_read_or_refused_in_our_own_words(written: str) -> None:
    for parser in (duration, size, boolean, number, choice("a"), optional(duration)):
        refusal = refusal_of(parser, written) or "write"
        assert refusal.startswith(("write", "choose a", "it is too long; write"))


@given(milliseconds)
def test_a_duration_is_shown_as_it_is_read(value: timedelta) -> None:
    assert duration(show_duration(value)) == value


@given(st.timedeltas(min_value=timedelta(0)))
def test_a_shown_duration_is_short_by_less_than_a_millisecond(value: timedelta) -> None:
    shown = duration(show_duration(value))
    assert timedelta(0) <= value - shown < timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (timedelta(0), "0s"),
        (timedelta(milliseconds=250), "250ms"),
        (timedelta(seconds=90), "1m30s"),
        (timedelta(minutes=90), "1h30m"),
        (timedelta(hours=24), "1d"),
        (timedelta(days=14), "14d"),
        (timedelta(seconds=-90), "-1m30s"),
        (timedelta(microseconds=-1), "0s"),
    ],
)
def test_a_duration_is_shown_without_units_that_are_zero(value: timedelta, shown: str) -> None:
    assert show_duration(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (2**20 - 1, "1 MiB"),
        (3 * 2**29, "1.5 GiB"),
        (2**40, "1 TiB"),
        (5 * 2**60, "5120 PiB"),
    ],
)
def test_a_size_is_shown_in_the_largest_unit_that_fits(value: int, shown: str) -> None:
    assert show_size(value) == shown


@given(st.integers(0, 2**63))
def test_a_shown_size_reads_back_within_its_one_decimal(value: int) -> None:
    assert size(show_size(value)) == pytest.approx(value, rel=0.05)
