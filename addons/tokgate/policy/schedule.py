"""The schedule of a ban in one time zone: wall times, calendar durations, weekly windows and phases.

All intervals are half-open. Calendar arithmetic is left to `whenever`, public holidays to `holidays`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from whenever import Date, Instant, ItemizedDelta, PlainDateTime, RepeatedTime, SkippedTime, Time, Weekday

from tokgate.policy.decision import Phase

if TYPE_CHECKING:
    from holidays import HolidayBase

Moment = Instant | PlainDateTime
"""An exact instant, or a wall time that becomes one in the zone of a network."""

Duration = ItemizedDelta
"""An ISO 8601 duration: calendar units follow the calendar, hours and smaller are exact."""


class Edge(Enum):
    """Which end of an interval a wall time stands for."""

    START = "start"
    END = "end"


def resolve(moment: Moment, zone: str, edge: Edge) -> Instant:
    """The instant of a wall time in `zone`.

    A wall time that a DST change skips means the first instant after the gap; one that occurs twice means the earlier
    for a start and the later for an end.
    """
    if isinstance(moment, Instant):
        return moment
    try:
        return moment.assume_tz(zone, disambiguation="raise").to_instant()
    except RepeatedTime:
        choice = moment.assume_tz(zone, disambiguation="earlier" if edge is Edge.START else "later")
        return choice.to_instant()
    except SkippedTime:
        gap = moment.assume_tz(zone, disambiguation="earlier").next_transition()
        if gap is None:  # the zone database says both that the time is skipped and that nothing changes
            raise
        return gap.to_instant()


def add_duration(start: Moment, duration: Duration, zone: str) -> Instant:
    """The exclusive end of `duration` from `start`: calendar units on the wall clock of `zone`, then exact time.

    31 August + P6M is the end of February, as in ISO 8601 calendar arithmetic with clamping. Raises ValueError beyond
    the end of the calendar.
    """
    wall = start if isinstance(start, PlainDateTime) else start.to_tz(zone).to_plain()
    calendar, exact = duration.date_and_time_parts()
    end = resolve(wall.add(calendar) if calendar else wall, zone, Edge.END)
    return end.add(exact) if exact else end


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open interval `[start, end)`."""

    start: Instant
    end: Instant

    def __contains__(self, at: Instant) -> bool:
        return self.start <= at < self.end

    def __and__(self, other: "Span") -> "Span":
        return Span(max(self.start, other.start), min(self.end, other.end))


ALWAYS: Final = Span(Instant.MIN, Instant.MAX)
_CALENDAR: Final = Span(Instant.from_utc(1900, 1, 1), Instant.from_utc(9000, 1, 1))
"""The range in which windows are computed: away from the limits of the calendar in every zone."""


@dataclass(frozen=True, slots=True)
class Window:
    """A weekly window of wall time. `end` at or before `start` is on the next day: 22:00-06:00, or 00:00-24:00.

    It belongs to the day on which it begins; `except_holidays` holds country codes, optionally with a subdivision
    (`BE`, `DE-BY`), on whose public holidays no window begins.
    """

    days: frozenset[Weekday]
    start: Time
    end: Time
    except_holidays: tuple[str, ...] = ()

    def __str__(self) -> str:
        days = ",".join(day.name[:3].lower() for day in Weekday if day in self.days)
        holidays = f" except holidays of {', '.join(self.except_holidays)}" if self.except_holidays else ""
        return f"{days} {self.start.format_iso()[:5]}-{self.end.format_iso()[:5]}{holidays}"

    def occurrence(self, day: Date, zone: str) -> Span | None:
        """The window that begins on `day`; None if none does, or if it lies within a DST gap."""
        holidays = (holiday_calendar(code) for code in self.except_holidays)
        if day.day_of_week() not in self.days or any(day.to_stdlib() in each for each in holidays):
            return None
        last = day if self.end > self.start else day.add(days=1)
        span = Span(resolve(day.at(self.start), zone, Edge.START), resolve(last.at(self.end), zone, Edge.END))
        return span if span.start < span.end else None


@lru_cache(maxsize=64)
def holiday_calendar(code: str) -> "HolidayBase":
    """The public holidays of a country code. Raises NotImplementedError for an unknown code."""
    import holidays  # slow to import, and few policies use it

    country, _, subdivision = code.partition("-")
    return holidays.country_holidays(country, subdiv=subdivision or None)


@dataclass(frozen=True, slots=True)
class Weekly:
    """Several windows in one zone; without windows it is always open."""

    windows: tuple[Window, ...]
    zone: str

    def state_at(self, at: Instant) -> tuple[bool, Span]:
        """Whether `at` lies in a window, and the longest span around it over which that holds."""
        if not self.windows:
            return True, ALWAYS
        if at < _CALENDAR.start:
            return False, Span(Instant.MIN, _CALENDAR.start)
        if at >= _CALENDAR.end:
            return False, Span(_CALENDAR.end, Instant.MAX)
        inside = self._inside(at)
        return inside, _CALENDAR & Span(self._change_before(at, inside), self._change_after(at, inside))

    def closes(self, at: Instant) -> Instant | None:
        """When the windows that are open at `at` close; None if none is open, or they never close."""
        inside, span = self.state_at(at)
        return span.end if inside and span.end < _CALENDAR.end else None

    def _inside(self, at: Instant) -> bool:
        today = at.to_tz(self.zone).date()
        return any(at in span for day in _days(today, range(-1, 2)) for span in self._occurrences(day))

    def _occurrences(self, day: Date) -> Iterator[Span]:
        for window in self.windows:
            span = window.occurrence(day, self.zone)
            if span is not None:
                yield span

    # Changes are searched day by day. Windows repeat weekly except on holidays: no change within the horizon is none.

    def _change_after(self, at: Instant, inside: bool) -> Instant:
        for day in _days(at.to_tz(self.zone).date(), range(-1, self._horizon)):
            changes = [e for e in self._edges(day) if e > at and self._inside(e) is not inside]
            if changes:
                return min(changes)
        return Instant.MAX

    def _change_before(self, at: Instant, inside: bool) -> Instant:
        """Searches one day beyond the first found: a window past midnight may end after one of the next day."""
        best = Instant.MIN
        for day in _days(at.to_tz(self.zone).date(), range(1, -self._horizon, -1)):
            found = best > Instant.MIN
            edges = (e for e in self._edges(day) if e <= at)
            best = max([best, *(e for e in edges if self._inside(e.subtract(nanoseconds=1)) is not inside)])
            if found:
                break
        return best

    @property
    def _horizon(self) -> int:
        """Days after which a search ends."""
        return 400 if any(window.except_holidays for window in self.windows) else 9

    def _edges(self, day: Date) -> Iterator[Instant]:
        for span in self._occurrences(day):
            yield from (span.start, span.end)


def _days(today: Date, offsets: range) -> Iterator[Date]:
    return (today.add(days=offset) for offset in offsets)


class Inactive(StrEnum):
    """Why a ban does not apply at an instant."""

    UNANNOUNCED = "unannounced"
    ANNOUNCED = "announced"
    OUTSIDE_WINDOW = "outside-window"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """The phase of a ban at an instant, whether it applies, and the span over which both hold.

    `idle` is None while the ban applies. `phase` is None before the ban was announced.
    """

    phase: Phase | None
    idle: Inactive | None
    overdue: bool
    span: Span


@dataclass(frozen=True, slots=True)
class PhaseChange:
    """From `at` on the ban is in `phase`; `overdue` if it holds past its end."""

    at: Instant
    phase: Phase
    overdue: bool = False


_IDLE: Final = {Phase.ANNOUNCED: Inactive.ANNOUNCED, Phase.EXPIRED: Inactive.EXPIRED}


@dataclass(frozen=True, slots=True)
class Schedule:
    """A ban's phases in one zone, in order of time, and its windows."""

    changes: tuple[PhaseChange, ...]
    weekly: Weekly
    starts: Instant
    ends: Instant | None

    def state_at(self, at: Instant) -> ScheduleState:
        """The phase at `at`, and whether a window is open."""
        current, span = None, ALWAYS
        for change in self.changes:
            if change.at > at:
                span = Span(span.start, change.at)
                break
            current, span = change, Span(change.at, Instant.MAX)
        if current is None:
            return ScheduleState(None, Inactive.UNANNOUNCED, False, span)
        idle = _IDLE.get(current.phase)
        if idle is None:
            inside, open_span = self.weekly.state_at(at)
            span &= open_span
            idle = None if inside else Inactive.OUTSIDE_WINDOW
        return ScheduleState(current.phase, idle, current.overdue, span)
