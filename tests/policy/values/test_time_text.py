"""Times as people type and read them."""

from typing import Any

import pytest
from whenever import Instant, PlainDateTime

from tokgate.policy.values.time_text import both, local, read_moment, utc

START = Instant.from_utc(2023, 3, 9, 23)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2023-03-09T23:00:00Z", START),
        ("2023-03-10T00:00+01:00", START),
        ("2023-03-10T00:00", PlainDateTime(2023, 3, 10)),
        ("2023-03-10", PlainDateTime(2023, 3, 10)),
        ("1900-01-01T00:00Z", Instant.from_utc(1900, 1, 1)),
        ("9899-12-31T23:59", PlainDateTime(9899, 12, 31, 23, 59)),
    ],
)
def test_what_is_typed_is_read(text: str, moment: Any) -> None:
    """A ban can be asked about at an instant, at a wall time, or at the midnight of a day."""
    assert read_moment(text) == moment


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1899-12-31T23:59Z", "outside the years"),
        ("9900-01-01", "outside the years"),
        ("tomorrow", "no time"),
        ("", "no time"),
        ("2023-02-30", "no time"),
    ],
)
def test_what_is_no_time_is_said(text: str, why: str) -> None:
    """A mistyped time is answered with the forms that are allowed, and not with a guess."""
    with pytest.raises(ValueError, match=why):
        read_moment(text)


def test_a_time_reads_the_same_here_and_there() -> None:
    """Whoever reads a decision sees the local time, its zone and UTC; in UTC only once."""
    half = START.add(seconds=30, nanoseconds=500_000_000)
    assert utc(START) == "2023-03-09T23:00:00Z"
    assert local(START, "Europe/Brussels") == "2023-03-10 00:00 +01:00"
    assert local(half, "Asia/Kolkata") == "2023-03-10 04:30:30 +05:30"
    assert both(half, "Europe/Brussels") == "2023-03-10 00:00:30 +01:00 Europe/Brussels (2023-03-09T23:00:30Z)"
    assert both(START, "UTC") == "2023-03-09T23:00:00Z"
