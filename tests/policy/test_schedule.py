"""Time: wall times in zones that shift, calendar durations, windows and phases, each boundary on both sides."""

import pytest
from whenever import Date, Instant, ItemizedDelta, Time, Weekday

from labs.builders import BRUSSELS, at, wall
from tokgate.policy.schedule import Span, Weekly, Window, add_duration

KOLKATA = "Asia/Kolkata"  # no DST

WORKDAYS = frozenset({Weekday.MONDAY, Weekday.TUESDAY, Weekday.WEDNESDAY, Weekday.THURSDAY, Weekday.FRIDAY})
ALL_DAYS = frozenset(Weekday)


def clock(text: str) -> Time:
    return Time.parse_iso(text)


@pytest.mark.parametrize(
    ("start", "duration", "zone", "end"),
    [
        ("2023-03-10T00:00", "P6M", BRUSSELS, "2023-09-09T22:00Z"),
        ("2023-08-31T00:00", "P6M", BRUSSELS, "2024-02-28T23:00Z"),  # = 29 February 00:00
        ("2022-08-31T00:00", "P6M", BRUSSELS, "2023-02-27T23:00Z"),
        ("2023-01-31T12:00", "P1M", KOLKATA, "2023-02-28T06:30Z"),
        ("2024-02-29T00:00", "P1Y", BRUSSELS, "2025-02-27T23:00Z"),
        ("2023-03-25T12:00", "P1D", BRUSSELS, "2023-03-26T10:00Z"),  # a calendar day of 23 hours
        ("2023-03-25T12:00", "PT24H", BRUSSELS, "2023-03-26T11:00Z"),  # 24 exact hours
        ("2023-10-28T12:00", "P1D", BRUSSELS, "2023-10-29T11:00Z"),  # 25 hours
        ("2023-02-26T02:30", "P1M", BRUSSELS, "2023-03-26T01:00Z"),  # ends in the gap
        ("2023-09-29T02:30", "P1M", BRUSSELS, "2023-10-29T01:30Z"),  # ends at the later of two
        ("2023-03-10T00:00", "P2W", BRUSSELS, "2023-03-23T23:00Z"),
    ],
)
def test_durations(start: str, duration: str, zone: str, end: str) -> None:
    """Calendar units follow the wall clock with clamping; hours are exact."""
    assert add_duration(wall(start), ItemizedDelta.parse_iso(duration), zone) == at(end)


def test_duration_from_an_instant_follows_the_zone() -> None:
    """A start with an offset is read on the network's wall clock before months are added."""
    assert add_duration(at("2023-03-09T23:00Z"), ItemizedDelta(months=6), BRUSSELS) == at("2023-09-09T22:00Z")


def test_whole_day_window_has_no_seam() -> None:
    """00:00-24:00 every day is open at every midnight and through both DST days."""
    weekly = Weekly((Window(ALL_DAYS, clock("00:00"), clock("00:00")),), BRUSSELS)
    for midnight in ("2023-03-09T23:00Z", "2023-03-25T23:00Z", "2023-03-26T22:00Z", "2023-10-28T22:00Z"):
        assert all(weekly.state_at(at(midnight).add(microseconds=shift))[0] for shift in (-1, 0, 1))


def test_window_swallowed_by_a_gap_never_opens() -> None:
    """A window that lies wholly in a skipped hour does not happen that day."""
    assert Window(ALL_DAYS, clock("02:10"), clock("02:50")).occurrence(Date(2023, 3, 26), BRUSSELS) is None


def test_no_window_begins_on_a_holiday() -> None:
    """21 July is Belgium's national day: Friday's hours fall away there, and not where other holidays count."""
    belgian = Weekly((Window(WORKDAYS, clock("08:00"), clock("18:00"), ("BE",)),), BRUSSELS)
    dutch = Weekly((Window(WORKDAYS, clock("08:00"), clock("18:00"), ("NL",)),), BRUSSELS)
    noon = at("2023-07-21T10:00Z")
    assert (belgian.state_at(noon)[0], dutch.state_at(noon)[0]) == (False, True)
    assert belgian.state_at(noon)[1].end == at("2023-07-24T06:00Z")  # Monday


def test_a_holiday_of_one_of_two_windows() -> None:
    """It is looked for as far ahead as it may be, also where another window has none: hours fall away there."""
    every_day = Window(ALL_DAYS, clock("00:00"), clock("00:00"), ("BE",))
    hours = Weekly((every_day, Window(WORKDAYS, clock("08:00"), clock("18:00"))), BRUSSELS)
    assert hours.state_at(at("2023-06-10T10:00Z"))[1].end == at("2023-07-20T22:00Z")


def test_next_opening_beyond_a_holiday() -> None:
    """The timeline shows when a ban on Mondays is in force again after Easter Monday, which is 13 days ahead."""
    mondays = Weekly((Window(frozenset({Weekday.MONDAY}), clock("08:00"), clock("18:00"), ("BE",)),), BRUSSELS)

    assert mondays.state_at(at("2023-04-04T10:00Z")) == (
        False,
        Span(at("2023-04-03T16:00Z"), at("2023-04-17T06:00Z")),
    )


def test_holiday_subdivisions() -> None:
    """Epiphany is a holiday in Bavaria, not in Berlin."""
    epiphany = Date(2023, 1, 6)
    for code, begins in (("DE-BY", False), ("DE-BE", True)):
        window = Window(ALL_DAYS, clock("08:00"), clock("18:00"), (code,))
        assert (window.occurrence(epiphany, BRUSSELS) is not None) is begins
    with pytest.raises(NotImplementedError):
        Window(ALL_DAYS, clock("08:00"), clock("18:00"), ("ZZ",)).occurrence(epiphany, BRUSSELS)


@pytest.mark.parametrize("moment", [Instant.MIN, at("0001-01-02T00:00Z"), at("9999-12-31T12:00Z"), Instant.MAX])
def test_the_ends_of_the_calendar(moment: Instant) -> None:
    """No instant is so far off that asking raises; windows are closed out there."""
    weekly = Weekly((Window(ALL_DAYS, clock("00:00"), clock("00:00"), ("BE",)),), BRUSSELS)
    assert weekly.state_at(moment)[0] is False
    assert weekly.state_at(at("1900-01-01T00:00Z"))[1].start >= at("1900-01-01T00:00Z")
