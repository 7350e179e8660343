"""How instants are told to people: wall time where it is lived, and UTC."""

from whenever import Instant


def utc(instant: Instant) -> str:
    """RFC 3339 in UTC, as in all JSON."""
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
