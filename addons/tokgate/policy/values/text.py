"""Texts for people: instants as local time and UTC, and untrusted text with what is invisible in it escaped."""

import re
from collections.abc import Iterator
from typing import Final, cast
from unicodedata import combining, east_asian_width

import idna
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


def shown[T](shape: type[T], source: object, **own: object) -> T:
    """A TypedDict for JSON: of each key its value in `own`, else the attribute of `source` that is called so.

    Instants become text and tuples lists.
    """
    return cast(T, {key: own[key] if key in own else _plain(getattr(source, key)) for key in shape.__annotations__})


def _plain(value: object) -> object:
    return utc(value) if isinstance(value, Instant) else list(value) if isinstance(value, tuple) else value


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


def columns(text: str) -> int:
    """Columns that text takes on a terminal (UAX 11: wide characters take two)."""
    return len(text) if text.isascii() else sum(0 if combining(c) else 1 + (east_asian_width(c) in "WF") for c in text)


_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Printable to Python but invisible: Default_Ignorable_Code_Point (UAX #44), and the Braille blank."""
_EMOJI_STYLE: Final = "\ufe0f"
_SPACES: Final = "\u00a0\u202f"
"""No-break spaces, which French typography puts before a colon."""
_JOINER: Final = "\u200d"
_NON_JOINER: Final = "\u200c"


def escaped(text: str) -> str:
    r"""Untrusted text with invisible characters as `\u200b`, also line breaks, tabs and non-ASCII spaces."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _seen(character) else _escape(character) for character in text)


def readable(text: str) -> str:
    """`escaped` for text by authors of policies, which leaves what typography needs.

    Unchanged are no-break spaces, joiners where a script needs them (RFC 5892, A.1 and A.2), and the variation selector
    that makes a symbol an emoji.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(readable_characters(text))


def readable_lines(text: str) -> str:
    """`readable` for each line of a text."""
    return "\n".join(map(readable, text.split("\n")))


def readable_characters(text: str) -> Iterator[str]:
    """`readable` as one string for each character of the text."""
    for place, character in enumerate(text):
        kept = _seen(character) or character in _SPACES or _belongs(text, place)
        yield character if kept else _escape(character)


def _seen(character: str) -> bool:
    return character.isprintable() and not _INVISIBLE.match(character)


def _belongs(text: str, place: int) -> bool:
    """Whether an invisible character changes how its neighbours are displayed, as their script requires."""
    character, before = text[place], text[max(0, place - 1) : place]
    if character == _EMOJI_STYLE:
        return before != "" and _seen(before) and not before.isalnum()
    if character in (_JOINER, _NON_JOINER):
        try:
            return idna.core.valid_contextj(text, place)
        except ValueError:  # a neighbour is not assigned in Unicode
            return False
    return False


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
