"""Dates, times of day, durations and days of the week."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError
from whenever import Instant, ItemizedDelta, PlainDateTime, Time, Weekday

from tokgate.config.diagnostics import Code
from tokgate.config.format import times
from tokgate.policy.schedule import add_duration


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("2023-03-10", PlainDateTime(2023, 3, 10)),
        ("2023-03-10T08:00", PlainDateTime(2023, 3, 10, 8)),
        ("2023-03-10 08:00:30", PlainDateTime(2023, 3, 10, 8, 0, 30)),
        ("2023-03-10T08:00:30.25", PlainDateTime(2023, 3, 10, 8, 0, 30, nanosecond=250_000_000)),
        ("2023-03-10T08:00Z", Instant.from_utc(2023, 3, 10, 8)),
        ("2023-03-10T08:00+01:00", Instant.from_utc(2023, 3, 10, 7)),
        ("2023-03-10 08:00:00-0330", Instant.from_utc(2023, 3, 10, 11, 30)),
    ],
)
def test_moments(written: str, value: object) -> None:
    assert times.moment(written) == value


@pytest.mark.parametrize(
    "written",
    ["20230310", "2023-3-10", "2023-03-10T8:00", "2023-03-10T08", "2023-03-10T08:00:60", "2023-03-10T25:00",
     "2023-W10-5", "10.03.2023", "2023-03-10T08:00+25:00", "2023-03-10T08:00 CET",
     "2023-03-10\n", "1899-12-31", "3001-01-01T00:00Z"],
)  # fmt: skip
def test_not_moments(written: str) -> None:
    """One spelling only, within the calendar and a range of years."""
    with pytest.raises(PydanticCustomError) as raised:
        times.moment(written)
    assert raised.value.type == Code.BAD_TIME


@pytest.mark.parametrize("end", [times.expiry, times.until])
def test_ends_need_a_time_of_day(end: Callable[[Any], object]) -> None:
    """A date alone as an end is an error that shows both meanings."""
    with pytest.raises(PydanticCustomError, match="2023-09-10T00:00") as raised:
        end("2023-09-10")
    assert raised.value.type == Code.DATE_ALONE
    assert end("2023-09-10T00:00") == PlainDateTime(2023, 9, 10)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("P6M", ItemizedDelta(months=6)),
        ("P1Y6M", ItemizedDelta(years=1, months=6)),
        ("P2W", ItemizedDelta(weeks=2)),
        ("PT36H", ItemizedDelta(hours=36)),
    ],
)
def test_durations(written: str, value: ItemizedDelta) -> None:
    """ISO 8601, calendar units kept apart from exact ones."""
    assert times.duration(written).strict_eq(value)


@pytest.mark.parametrize(
    ("written", "minutes"),
    [
        ("30m", 30),
        ("2h", 120),
        ("1h30m", 90),
        ("1d", 1440),
        ("1d2h3m", 1563),
        ("0d1h", 60),
        ("PT2H", 120),
        ("pt90m", 90),
    ],
)
def test_durations_as_typed(written: str, minutes: int) -> None:
    """Short forms are exact time, whatever the clock does; ISO 8601 is taken, too."""
    start = Instant.from_utc(2023, 3, 25, 12)  # the clocks go forward on the next day
    assert add_duration(start, times.lasting(written), "Europe/Brussels") == start.add(minutes=minutes)


@pytest.mark.parametrize("written", ["PT1M", "PT60S", "PT8H", "P1D", "P1DT12H", "P30D", "PT720H"])
def test_continuing(written: str) -> None:
    assert times.continuing(written).strict_eq(times.duration(written))


@pytest.mark.parametrize("written", ["PT59S", "P31D", "P1M", "P1Y", "PT720H1S", "P9999999Y", "8h", "-PT8H", "PT0S"])
def test_not_continuing(written: str) -> None:
    """Shorter would show the page at every turn, longer would outlast what it said."""
    with pytest.raises(PydanticCustomError):
        times.continuing(written)


@pytest.mark.parametrize(
    "written", ["", "2", "h", "2H", "2 h", "1m2h", "2h 30", "0m", "-2h", "1.5h", "P", "2w", "99999999h"]
)
def test_no_durations(written: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(PydanticCustomError):
        times.lasting(written)


def test_times_of_day() -> None:
    """The end of a window may be the midnight that ends its day; nothing else is lenient."""
    assert times.clock("08:30") == Time(8, 30)
    assert times.closing("24:00") == Time.MIN
    for wrong in ("8:30", "24:00", "08:60", "08:30:00", "0830", "8h30"):
        with pytest.raises(PydanticCustomError):
            times.clock(wrong)


@given(st.sampled_from(list(times.DAYS)), st.sampled_from(list(times.DAYS)))
def test_day_ranges(first: str, last: str) -> None:
    """A range holds both its ends, goes forwards, and together with the way back is the week."""
    days = times.day_range(f"{first}-{last}")
    assert {times.DAYS[first], times.DAYS[last]} <= days
    if first != last:
        assert days | times.day_range(f"{last}-{first}") == set(Weekday)
    assert times.day_range(first) == {times.DAYS[first]}
