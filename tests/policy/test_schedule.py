"""Time: wall times in zones that shift, calendar durations, windows and phases, each boundary on both sides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from whenever import Date, Instant, ItemizedDelta, Time, Weekday

from labs.builders import BRUSSELS, at, wall
from tokgate.policy.schedule import Edge, Span, Weekly, Window, add_duration, resolve

LORD_HOWE = "Australia/Lord_Howe"  # shifts by 30 minutes
KOLKATA = "Asia/Kolkata"  # no DST
TICK = 1_000  # nanoseconds: 1 microsecond

WORKDAYS = frozenset({Weekday.MONDAY, Weekday.TUESDAY, Weekday.WEDNESDAY, Weekday.THURSDAY, Weekday.FRIDAY})
ALL_DAYS = frozenset(Weekday)


def around(instant: Instant) -> tuple[Instant, Instant, Instant]:
    """One microsecond before, the instant, one microsecond after."""
    return instant.subtract(nanoseconds=TICK), instant, instant.add(nanoseconds=TICK)


def clock(text: str) -> Time:
    return Time.parse_iso(text)


@pytest.mark.parametrize(
    ("local", "zone", "start", "end"),
    [
        ("2023-03-10T00:00", BRUSSELS, "2023-03-09T23:00Z", "2023-03-09T23:00Z"),
        ("2023-07-10T00:00", BRUSSELS, "2023-07-09T22:00Z", "2023-07-09T22:00Z"),
        # 26 March 2023: 02:00-03:00 is skipped; anything inside means 03:00
        ("2023-03-26T01:59:59", BRUSSELS, "2023-03-26T00:59:59Z", "2023-03-26T00:59:59Z"),
        ("2023-03-26T02:00", BRUSSELS, "2023-03-26T01:00Z", "2023-03-26T01:00Z"),
        ("2023-03-26T02:30", BRUSSELS, "2023-03-26T01:00Z", "2023-03-26T01:00Z"),
        ("2023-03-26T02:59:59", BRUSSELS, "2023-03-26T01:00Z", "2023-03-26T01:00Z"),
        ("2023-03-26T03:00", BRUSSELS, "2023-03-26T01:00Z", "2023-03-26T01:00Z"),
        # 29 October 2023: 02:00-03:00 occurs twice; earlier for a start, later for an end
        ("2023-10-29T02:00", BRUSSELS, "2023-10-29T00:00Z", "2023-10-29T01:00Z"),
        ("2023-10-29T02:30", BRUSSELS, "2023-10-29T00:30Z", "2023-10-29T01:30Z"),
        ("2023-10-29T03:00", BRUSSELS, "2023-10-29T02:00Z", "2023-10-29T02:00Z"),
        ("2023-03-26T02:30", KOLKATA, "2023-03-25T21:00Z", "2023-03-25T21:00Z"),
        ("2023-10-29T02:30", KOLKATA, "2023-10-28T21:00Z", "2023-10-28T21:00Z"),
        # Lord Howe, 1 October 2023: 02:00-02:30 is skipped; 2 April 2023: 01:30-02:00 occurs twice
        ("2023-10-01T02:15", LORD_HOWE, "2023-09-30T15:30Z", "2023-09-30T15:30Z"),
        ("2023-10-01T02:30", LORD_HOWE, "2023-09-30T15:30Z", "2023-09-30T15:30Z"),
        ("2023-04-02T01:45", LORD_HOWE, "2023-04-01T14:45Z", "2023-04-01T15:15Z"),
    ],
)
def test_resolve(local: str, zone: str, start: str, end: str) -> None:
    """Skipped times mean the end of the gap; repeated ones the earlier start and the later end."""
    assert resolve(wall(local), zone, Edge.START) == at(start)
    assert resolve(wall(local), zone, Edge.END) == at(end)


def test_resolve_leaves_instants_alone() -> None:
    """A moment with an offset is the same everywhere."""
    assert resolve(at("2023-03-10T00:00Z"), LORD_HOWE, Edge.START) == at("2023-03-10T00:00Z")


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


NIGHT = Window(frozenset({Weekday.FRIDAY}), clock("22:00"), clock("06:00"))
OFFICE_HOURS = Window(WORKDAYS, clock("08:00"), clock("18:00"))


@pytest.mark.parametrize(
    ("windows", "boundary", "opens"),
    [
        ((OFFICE_HOURS,), "2023-03-10T07:00Z", True),  # Friday 08:00
        ((OFFICE_HOURS,), "2023-03-10T17:00Z", False),
        ((NIGHT,), "2023-03-10T21:00Z", True),  # Friday 22:00
        ((NIGHT,), "2023-03-11T05:00Z", False),  # Saturday 06:00, of Friday's window
        ((NIGHT, OFFICE_HOURS), "2023-03-10T21:00Z", True),
        # the night into the spring change is an hour shorter on the clock of the world, not on the wall
        ((Window(ALL_DAYS, clock("22:00"), clock("06:00")),), "2023-03-26T04:00Z", False),
        ((Window(ALL_DAYS, clock("22:00"), clock("06:00")),), "2023-10-29T05:00Z", False),
        # a window that begins in the gap begins at its end; one that ends in the doubled hour ends at the later
        ((Window(ALL_DAYS, clock("02:30"), clock("04:00")),), "2023-03-26T01:00Z", True),
        ((Window(ALL_DAYS, clock("01:00"), clock("02:30")),), "2023-10-29T01:30Z", False),
        ((Window(ALL_DAYS, clock("02:30"), clock("05:00")),), "2023-10-29T00:30Z", True),
    ],
)
def test_window_boundaries(windows: tuple[Window, ...], boundary: str, opens: bool) -> None:
    """One microsecond before, at and after each edge of a window in Brussels, also on both DST days."""
    weekly = Weekly(windows, BRUSSELS)
    before, edge, after = around(at(boundary))
    assert [weekly.state_at(t)[0] for t in (before, edge, after)] == [not opens, opens, opens]
    assert weekly.state_at(before)[1].end == edge
    assert weekly.state_at(edge)[1].start == edge


def test_whole_day_window_has_no_seam() -> None:
    """00:00-24:00 every day is open at every midnight and through both DST days."""
    weekly = Weekly((Window(ALL_DAYS, clock("00:00"), clock("00:00")),), BRUSSELS)
    for midnight in ("2023-03-09T23:00Z", "2023-03-25T23:00Z", "2023-03-26T22:00Z", "2023-10-28T22:00Z"):
        assert all(weekly.state_at(t)[0] for t in around(at(midnight)))


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


windows = st.builds(
    Window,
    st.frozensets(st.sampled_from(list(Weekday)), min_size=1),
    st.builds(Time, st.integers(0, 23), st.sampled_from([0, 15, 30])),
    st.builds(Time, st.integers(0, 23), st.sampled_from([0, 15, 30])),
)


@given(
    st.lists(windows, min_size=1, max_size=3).map(tuple),
    st.sampled_from([BRUSSELS, KOLKATA, LORD_HOWE]),
    st.integers(1_672_531_200, 1_704_067_200).map(lambda seconds: Instant.from_timestamp(seconds, unit="second")),
)
def test_standing_is_constant_over_its_span(parts: tuple[Window, ...], zone: str, moment: Instant) -> None:
    """The span contains its instant, the answer is the same at both its ends, and it ends at an edge."""
    weekly = Weekly(parts, zone)
    inside, span = weekly.state_at(moment)
    assert moment in span
    assert weekly.state_at(span.start)[0] == inside
    assert weekly.state_at(span.end.subtract(nanoseconds=1)) == (inside, span)
    middle = span.start.add(nanoseconds=int(span.end.difference(span.start).total("nanoseconds")) // 2)
    assert weekly.state_at(middle) == (inside, span)


@pytest.mark.parametrize("moment", [Instant.MIN, at("0001-01-02T00:00Z"), at("9999-12-31T12:00Z"), Instant.MAX])
def test_the_ends_of_the_calendar(moment: Instant) -> None:
    """No instant is so far off that asking raises; windows are closed out there."""
    weekly = Weekly((Window(ALL_DAYS, clock("00:00"), clock("00:00"), ("BE",)),), BRUSSELS)
    assert weekly.state_at(moment)[0] is False
    assert weekly.state_at(at("1900-01-01T00:00Z"))[1].start >= at("1900-01-01T00:00Z")
