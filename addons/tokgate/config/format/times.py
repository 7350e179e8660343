"""Dates, times of day, durations, days of the week, time zones and holidays in policy files."""

import re
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field
from whenever import Date, Instant, ItemizedDelta, OffsetDateTime, PlainDateTime, Time, Weekday, available_timezones

from tokgate.config.diagnostics import Code, did_you_mean, listed, near
from tokgate.config.extras import Extra, missing_extra
from tokgate.config.format.values import Parsed, as_list, one_or_list, shown, text, wrong
from tokgate.policy.analysis.terms import LONGEST
from tokgate.policy.schedule import Duration, Moment, add_duration, holiday_calendar

DAYS: Final = {day.name[:3].lower(): day for day in Weekday}
"""`mon` to `sun`, in order."""
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_MOMENT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}"
    r"(?::[0-5][0-9](?:\.[0-9]{1,9})?)?(?P<offset>Z|[+-][0-9]{2}:?[0-9]{2})?\Z"
)
_TYPED: Final = re.compile(r"(?:([0-9]{1,5})d)?(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?<=[dhm])\Z")
_OFFSET: Final = re.compile(r"(?:Etc/)?[A-Za-z]{0,5} ?[+-] ?[0-9]{1,2}(?::?[0-9]{2})?\Z")
"""An offset from UTC or from a zone: `UTC+1`, `CET+1`, `+01:00`."""
_CLOCK: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])\Z")
_YEARS: Final = range(1900, 3001)
"""Accepted years: far enough from the limits of the calendar for zones and durations."""
_MINUTE: Final = 60
"""Seconds."""
MOMENT_SHAPE: Final = "`2023-03-10T08:00` (wall time), or with an offset `2023-03-10T08:00+01:00`"


def date(value: Any) -> Date:
    """A calendar date in ISO 8601, such as `2023-09-10`, within the accepted years."""
    written = text(value)
    if not _DATE.match(written):
        shape = "; write it as `2023-09-10`"
        hint = f"{shape}; for a time of day use `expires`" if _MOMENT.match(written) else shape
        raise wrong(Code.BAD_TIME, f"{shown(written)} is no date{hint}")
    try:
        day = Date.parse_iso(written)
    except ValueError:
        raise wrong(Code.BAD_TIME, f"`{written}` is not a day of the calendar") from None
    return _in_range(day)


def moment(value: Any) -> Moment:
    """A date (which means its midnight), a wall time, or an instant."""
    written = text(value)
    if _DATE.match(written):
        return date(written).at(Time.MIN)
    return _time_of_day(written, f"a date `2023-03-10`, {MOMENT_SHAPE}")


def expiry(value: Any) -> Moment:
    """The exclusive end of a ban: a wall time or an instant."""
    return _end(value, "`last_day: {0}` if it is, or the first instant after the ban: `expires: {0}T00:00`".format)


def until(value: Any) -> Moment:
    """The exclusive end of an exemption: a wall time or an instant."""
    return _end(value, lambda day: f"`{date(day).add(days=1)}T00:00` if it is, `{day}T00:00` if not")


def _end(value: Any, instead: Callable[[str], str]) -> Moment:
    written = text(value)
    if _DATE.match(written):
        why = "a date alone does not say whether that day is still included"
        raise wrong(Code.DATE_ALONE, f"{why}: write {instead(written)}")
    return _time_of_day(written, MOMENT_SHAPE)


def _time_of_day(written: str, allowed: str) -> Moment:
    found = _MOMENT.match(written)
    hint = "; midnight at the end of a day is `00:00` of the next" if re.search(r"[T ]24:00", written) else ""
    if found is None:
        raise wrong(Code.BAD_TIME, f"{shown(written)} is no time; write {allowed}{hint}")
    try:
        local = OffsetDateTime.parse_iso(written) if found["offset"] else PlainDateTime.parse_iso(written)
    except ValueError:
        raise wrong(Code.BAD_TIME, f"`{written}` is not a time of the calendar{hint}") from None
    _in_range(local.date())
    return local.to_instant() if isinstance(local, OffsetDateTime) else local


def _in_range(day: Date) -> Date:
    if day.year not in _YEARS:
        raise wrong(Code.BAD_TIME, f"the year {day.year} is out of range: {_YEARS[0]} to {_YEARS[-1]}")
    return day


def duration(value: Any) -> Duration:
    """An ISO 8601 duration longer than zero."""
    written = text(value)
    example = "`P6M`, `P2W`, `P90D`, `P1Y6M` or `PT36H`"
    try:
        parsed = ItemizedDelta.parse_iso(written)
    except ValueError:
        hint = f"{shown(written)} is no ISO 8601 duration; write it as {example}"
        raise wrong(Code.BAD_DURATION, hint) from None
    if parsed.sign() < 0:
        raise wrong(Code.BAD_DURATION, f"`{written}` is negative: it must last some time")
    if parsed.sign() == 0:
        raise wrong(Code.BAD_DURATION, f"`{written}` lasts no time at all")
    return parsed


def continuing(value: Any) -> Duration:
    """How long continuing past a warning holds: an ISO 8601 duration from `PT1M` to `P30D`."""
    parsed, start = duration(value), Instant.from_utc(2024, 1, 1)
    try:
        seconds = (add_duration(start, parsed, "UTC") - start).total("seconds")
    except ValueError:  # beyond the end of the calendar
        seconds = float("inf")
    if not _MINUTE <= seconds <= LONGEST.total("seconds"):
        raise wrong(Code.BAD_DURATION, f"`{value}` is out of range: from `PT1M` to `P30D`")
    return parsed


def lasting(value: Any) -> Duration:
    """A duration as people type it: `30m`, `2h`, `1h30m`, `1d` (24 hours), or in ISO 8601."""
    written = text(value)
    found = _TYPED.match(written)
    if found is None:
        if not written[:1].upper() == "P":
            raise wrong(Code.BAD_DURATION, f"{shown(written)} is no duration; write it as `30m`, `2h`, `1d` or `PT2H`")
        return duration(written)
    days, hours, minutes = (int(part or 0) for part in found.groups())
    if not days + hours + minutes:
        raise wrong(Code.BAD_DURATION, f"`{written}` lasts no time at all")
    return ItemizedDelta(hours=24 * days + hours, minutes=minutes)


def clock(value: Any) -> Time:
    """A time of day for the start of a window."""
    written = text(value)
    found = _CLOCK.match(written)
    if found:
        return Time(int(found[1]), int(found[2]))
    if written == "24:00":
        raise wrong(Code.BAD_TIME, "`24:00` is the end of a day: only `to` can have it")
    raise wrong(Code.BAD_TIME, f"{shown(written)} is no time of day; write it as `08:00`")


def closing(value: Any) -> Time:
    """A time of day for the end of a window; `24:00` is the midnight that ends the day."""
    return Time.MIN if value == "24:00" else clock(value)


def day_range(value: Any) -> frozenset[Weekday]:
    """One day, or a range of days; `sat-mon` passes the weekend."""
    written, names = text(value), list(DAYS)
    first, dash, last = (part.strip().lower() for part in written.partition("-"))
    for name in (first, last) if dash else (first,):
        if name not in DAYS:
            allowed = f"{listed(names)}, ranges as `mon-fri`, and lists as `[mon, wed-fri]`"
            raise wrong(Code.BAD_DAYS, f"{shown(name)} is no day; allowed: {allowed}")
    start = names.index(first)
    count = (names.index(last) - start) % 7 + 1 if dash else 1
    return frozenset(DAYS[names[(start + offset) % 7]] for offset in range(count))


@cache
def _countries() -> dict[str, list[str]]:
    import holidays  # slow to import, and few policies use it

    return holidays.list_supported_countries(include_aliases=True)


def holiday_code(value: Any) -> str:
    """A country (`BE`) or its subdivision (`DE-BY`) whose public holidays `holidays` knows."""
    written = text(value)
    missing = missing_extra(Extra.CALENDAR, "holidays")
    if missing is not None:
        raise wrong(Code.MISSING_EXTRA, f"public holidays need an extra; {missing}")
    countries = _countries()
    country, dash, subdivision = written.partition("-")
    if country not in countries:
        meant = country.upper()
        hint = (
            f"; did you mean `{meant + dash + subdivision}`?" if meant in countries else "; write it as `BE` or `DE-BY`"
        )
        raise wrong(Code.UNKNOWN_HOLIDAYS, f"no public holidays are known for `{country}`{hint}")
    try:
        holiday_calendar(written)
    except NotImplementedError:
        hint = did_you_mean(subdivision, countries[country])
        raise wrong(Code.UNKNOWN_HOLIDAYS, f"`{country}` has no subdivision `{subdivision}`{hint}") from None
    return written


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def zones_listed() -> tuple[str, ...]:
    """The zones that the JSON Schema lists: those of the package `tzdata`, or of this machine without it."""
    try:
        return tuple(sorted((resources.files("tzdata") / "zones").read_text("utf-8").split()))
    except (ModuleNotFoundError, OSError):
        return tuple(sorted(_zones()))


def timezone(value: Any) -> str:
    """A name of the IANA time zone database."""
    written = text(value)
    if written not in _zones():
        if _OFFSET.match(written.strip()):
            why = "is an offset, which has no summer time: write an IANA name as `Europe/Brussels`, or `UTC`"
            signs = "the zones `Etc/GMT…` have the opposite sign: `Etc/GMT-1` is one hour ahead of UTC"
            raise wrong(Code.UNKNOWN_TIMEZONE, f"unknown time zone: `{written}` {why} ({signs})")
        meant = near(written, _zones()) if "/" in written else None
        hint = f"; did you mean `{meant}`?" if meant else "; write an IANA name as `Europe/Brussels`, or `UTC`"
        raise wrong(Code.UNKNOWN_TIMEZONE, f"unknown time zone `{written}`{hint}")
    return written


_DATE_PATTERN: Final = r"^\d{4}-\d{2}-\d{2}"
_TIME_PATTERN: Final = r"[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?$"
_ONE_DAY: Final = f"({'|'.join(DAYS)})"

When = Annotated[
    Moment,
    Parsed(
        moment,
        "A date or a time: `2023-03-10`, `2023-03-10T08:00`, `2023-03-10T08:00+01:00`.",
        f"{_DATE_PATTERN}({_TIME_PATTERN[:-1]})?$",
    ),
]
Expiry = Annotated[
    Moment,
    Parsed(
        expiry,
        "A date with a time of day: `2023-09-10T00:00`. For a day included: `last_day`.",
        _DATE_PATTERN + _TIME_PATTERN,
    ),
]
Until = Annotated[
    Moment, Parsed(until, "A date with a time of day: `2023-09-10T00:00`.", _DATE_PATTERN + _TIME_PATTERN)
]
Day = Annotated[Date, Parsed(date, "A date: `2023-09-09`.", _DATE_PATTERN + "$")]
Lasting = Annotated[Duration, Parsed(duration, "A duration in ISO 8601: `P6M`, `P2W`, `PT36H`.", "^[Pp]")]
Continuing = Annotated[Duration, Parsed(continuing, "A duration in ISO 8601: `PT8H`, `P1D`.", "^[Pp]")]
Opening = Annotated[Time, Parsed(clock, "A time of day: `08:00`.", r"^([01]\d|2[0-3]):[0-5]\d$")]
Closing = Annotated[Time, Parsed(closing, "A time of day: `18:00`, or `24:00`.", r"^(([01]\d|2[0-3]):[0-5]\d|24:00)$")]
Days = Annotated[
    list[Annotated[frozenset[Weekday], Parsed(day_range)]],
    Field(min_length=1),
    BeforeValidator(as_list),
    one_or_list(patternErrorMessage="A day or a range: `mon`, `mon-fri`.", pattern=f"^{_ONE_DAY}(-{_ONE_DAY})?$"),
]
Holidays = Annotated[
    list[Annotated[str, Parsed(holiday_code)]],
    Field(min_length=1),
    BeforeValidator(as_list),
    one_or_list(patternErrorMessage="A country or subdivision: `BE`, `DE-BY`.", pattern="^[A-Z]{2,3}(-.+)?$"),
]
Zone = Annotated[str, Parsed(timezone, type="string", anyOf=[{"enum": list(zones_listed())}])]
