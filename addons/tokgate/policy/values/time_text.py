"""Formats instants for people, as local time and UTC, and parses the times that people type."""

from typing import Final

from whenever import Date, Instant, PlainDateTime, Time

_PLAUSIBLE: Final = (Instant.from_utc(1900, 1, 1), Instant.from_utc(9900, 1, 1))
"""Accepted instants: far enough from both ends of the calendar for look-ahead and time zones."""


def read_moment(text: str) -> Instant | PlainDateTime:
    """An RFC 3339 instant, a local wall time, or a date (its midnight). Raises ValueError, saying what is wrong."""
    for reader in (Instant.parse_iso, PlainDateTime.parse_iso, _midnight):
        try:
            moment = reader(text)
        except ValueError:
            continue
        wall = moment if isinstance(moment, PlainDateTime) else moment.to_tz("UTC").to_plain()
        if not _PLAUSIBLE[0] <= wall.assume_utc() < _PLAUSIBLE[1]:
            raise ValueError(f"{text!r} is outside the years 1900 to 9899")
        return moment
    raise ValueError(
        f"{text!r} is no time: use 2023-03-10T00:00:00Z, 2023-03-10T00:00+01:00, a local 2023-03-10T00:00 or `now`"
    )


def _midnight(text: str) -> PlainDateTime:
    return Date.parse_iso(text).at(Time.MIDNIGHT)


def utc(instant: Instant) -> str:
    """An instant as RFC 3339 in UTC, the format of all JSON output."""
    return instant.format_iso()


def local(instant: Instant, zone: str) -> str:
    """Wall time and offset in `zone`, to the second and without :00 seconds: `2023-03-10 00:00 +01:00`."""
    there = instant.to_tz(zone).to_fixed_offset()
    wall = there.to_plain()
    offset = there.format_iso().removeprefix(wall.format_iso())
    whole = wall.round("second", mode="floor")
    return f"{whole.format_iso(sep=' ').removesuffix(':00')} {offset}"


def both(instant: Instant, zone: str) -> str:
    """Local time with its zone, then UTC, to the second."""
    there = utc(instant.round("second", mode="floor"))
    return there if zone == "UTC" else f"{local(instant, zone)} {zone} ({there})"
