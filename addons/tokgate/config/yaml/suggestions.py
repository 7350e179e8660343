"""Suggestions for wrong words, and for malformed times, durations, days, zones and prefixes.

A suggestion is made only if the value is unambiguous (`10/03/2023` is not), and is only shown, never used.
"""

import re
from collections.abc import Collection, Iterator
from difflib import get_close_matches
from ipaddress import summarize_address_range
from itertools import islice
from typing import Final

from whenever import Date

from tokgate.policy.values.hostname import parse_address

_LISTED: Final = 20
"""Most alternatives that a message lists."""
_LONGER: Final = 4
"""Most letters by which a suggestion is longer or shorter than the word."""
_LONGEST: Final = 100
_COMPARED: Final = 20_000
"""Most words that are compared: difflib is slow, and a policy may define tens of thousands."""


def near(word: str, allowed: Collection[str]) -> str | None:
    """The allowed word that is most similar to `word`; None if none is, or if there are too many to compare."""
    folded = {candidate.casefold(): candidate for candidate in allowed if abs(len(candidate) - len(word)) <= _LONGER}
    if len(folded) > _COMPARED or len(word) > _LONGEST:
        return folded.get(word.casefold())
    found = get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def did_you_mean(word: str, allowed: Collection[str]) -> str:
    """The end of a message: `; did you mean …?`, else `; allowed: …` if there are few words, else nothing."""
    meant = near(word, allowed)
    if meant is not None:
        return f"; did you mean `{meant}`?"
    return f"; allowed: {listed(allowed)}" if 0 < len(allowed) <= _LISTED else ""


def listed(words: Collection[str]) -> str:
    """The words in backquotes, separated by commas."""
    return ", ".join(f"`{word}`" for word in words)


_HOURS: Final = range(24)
_MINUTES: Final = range(60)
_HALF_DAY: Final = range(1, 13)
_LOOSE: Final = re.compile(
    r"(?:(?P<year>[0-9]{4})(?P<mark>[-/.])(?P<month>[0-9]{1,2})(?P=mark)(?P<day>[0-9]{1,2})"
    r"|(?P<packed>[0-9]{8})"
    r"|(?P<first>[0-9]{1,2})(?:st|nd|rd|th)?[ .-]+(?P<word>[A-Za-z]{3,9})\.?[ ,-]+(?P<last>[0-9]{4})"
    r"|(?P<name>[A-Za-z]{3,9})\.? +(?P<second>[0-9]{1,2})(?:st|nd|rd|th)?,? +(?P<end>[0-9]{4}))"
    r"(?:(?:T|,? +)(?P<hour>[0-9]{1,2})[:.](?P<minute>[0-9]{2})(?P<rest>:[0-9]{2})?"
    r"(?P<offset>Z|[+-][0-9]{2}:?[0-9]{2})?)?\Z"
)
"""Common notations of dates and times."""

_CLOCK: Final = re.compile(r"([0-9]{1,2})(?:[:.h]?([0-9]{2}))?h? ?(am|pm)?\Z", re.IGNORECASE)
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAY_WORDS: Final = {
    **dict.fromkeys(("weekday", "weekdays", "workday", "workdays"), "mon-fri"),
    **dict.fromkeys(("weekend", "weekends"), "sat-sun"),
    **dict.fromkeys(("all", "always", "daily", "everyday"), "mon-sun"),
}
_LASTING: Final = re.compile(r"([1-9][0-9]{0,4}) ?([A-Za-z]+)\Z")
_UNITS: Final = {
    **dict.fromkeys(("y", "year"), "P{}Y"),
    **dict.fromkeys(("mo", "month"), "P{}M"),
    **dict.fromkeys(("w", "week"), "P{}W"),
    **dict.fromkeys(("d", "day"), "P{}D"),
    **dict.fromkeys(("h", "hour"), "PT{}H"),
    **dict.fromkeys(("min", "minute"), "PT{}M"),
}
_OFFSET: Final = re.compile(r"(?:Etc/)?[A-Za-z]{0,5} ?[+-] ?[0-9]{1,2}(?::?[0-9]{2})?\Z")
_FEW: Final = 4
"""Most prefixes of an address range that are suggested."""


def moment(written: str) -> str | None:
    """A date, with its time of day if there is one, in ISO 8601; None if it is ambiguous."""
    found = _LOOSE.match(written.strip())
    day = None if found is None else _day(found)
    if (
        found is None
        or day is None
        or int(found["hour"] or 0) not in _HOURS
        or int(found["minute"] or 0) not in _MINUTES
    ):
        return None
    time = "" if found["hour"] is None else f"T{found['hour']:0>2}:{found['minute']}{found['rest'] or ''}"
    return f"{day}{time}{found['offset'] or ''}"


def _day(found: re.Match[str]) -> Date | None:
    """The date in a match of `_LOOSE`; None if the calendar doesn't have it."""
    packed, word = found["packed"], (found["word"] or found["name"] or "").casefold()
    if packed is not None:
        parts = packed[:4], packed[4:6], packed[6:]
    elif not word:
        parts = found["year"], found["month"], found["day"]
    elif word[:3] in _MONTHS:
        parts = found["last"] or found["end"], str(_MONTHS.index(word[:3]) + 1), found["first"] or found["second"]
    else:
        return None
    try:
        return Date(*map(int, parts))
    except ValueError:
        return None


def time_of_day(written: str) -> str | None:
    """`08:00` for `8:00`, `8.00`, `0800` or `8am`; None for anything else."""
    found = _CLOCK.match(written.strip())
    if found is None:
        return None
    hour, minute, half = int(found[1]), int(found[2] or 0), (found[3] or "").casefold()
    if half and hour not in _HALF_DAY:
        return None
    hour = hour % 12 + 12 * (half == "pm") if half else hour
    return f"{hour:02}:{minute:02}" if hour in _HOURS and minute in _MINUTES else None


def duration(written: str) -> str | None:
    """`P6M` for `6 months`, `PT2H` for `2h`; None if it is ambiguous, as `6m` (minutes or months) is."""
    found = _LASTING.match(written.strip())
    pattern = None if found is None else _UNITS.get(found[2].casefold().removesuffix("s"))
    return None if found is None or pattern is None else pattern.format(found[1])


def days(written: str, known: Collection[str]) -> str | None:
    """A day, a range or a list of days, from longer names or words such as `weekdays`; None for anything else."""
    word = written.strip().lower()
    parts = re.split(r"[\s,;/+]+", word) if "-" not in word else []
    if len(parts) > 1 and all(days(each, known) for each in parts):
        return f"[{', '.join(str(days(each, known)) for each in parts)}]"
    first, dash, last = (part.strip() for part in word.partition("-"))
    ends = [near(name[:3], known) for name in ((first, last) if dash else (first,))]
    return _DAY_WORDS.get(word) or (None if None in ends else dash.join(map(str, ends)))


def is_offset(written: str) -> bool:
    """Whether this was meant as an offset from UTC or from a zone: `UTC+1`, `CET+1`, `+01:00`."""
    return _OFFSET.match(written.strip()) is not None


def zone(written: str, known: Collection[str]) -> str | None:
    """The IANA time zone with the most similar name or city; None for abbreviations such as `CEST`."""
    folded = written.strip().replace(" ", "_")
    if "/" in folded:
        return near(folded, known)
    places = (name for name in sorted(known, reverse=True) if "/" in name and not name.startswith("Etc/"))
    cities = {name.rpartition("/")[2]: name for name in places}
    meant = near(folded, cities) if len(folded) > len("CEST") or folded.title() in cities else None
    return None if meant is None else cities[meant]


def prefix(written: str) -> str:
    """The end of a message about a malformed prefix: what is wrong with it, or examples."""
    before, _, after = (part.strip() for part in written.partition("/"))
    first, last = (parse_address(part.strip()) for part in written.partition("-")[::2])
    base = parse_address(before)
    if first is not None and last is not None and first.version == last.version and first <= last:  # type: ignore[operator]
        prefixes = list(islice(summarize_address_range(first, last), _FEW + 1))
        if len(prefixes) <= _FEW:
            return f": a range is written as prefixes, {listed([str(each) for each in prefixes])}"
    if base is not None and after.isdecimal():
        if int(after) > base.max_prefixlen:
            return f": the length of an IPv{base.version} prefix is at most {base.max_prefixlen}"
        if written != f"{before}/{after}":
            return f"; did you mean `{before}/{after}`?"
    return next(_misread_prefix(written), "; write it as `10.32.0.0/14`, `2001:db8:32::/48` or `192.0.2.7`")


def _misread_prefix(written: str) -> Iterator[str]:
    """What the text looks like that is no prefix."""
    if re.fullmatch(r"[0-9a-fA-F]{2}(?:[:-][0-9a-fA-F]{2}){5}", written):
        yield ": a hardware address stands in an inventory (`devices`)"
    if written.lower() in ("any", "all", "*"):
        yield ": all addresses are `0.0.0.0/0` and `::/0`"
    if re.match(r"(?:[0-9]+\.)*0[0-9]", written.strip()):
        yield ": leave out leading zeros, which some programs read as octal"
    words = [word.strip("\"'") for word in written.split()]
    if len(words) > 1 and all(re.fullmatch(r"[0-9a-fA-F.:]+(?:/[0-9]+)?", word) for word in words):
        yield f": several are separated by commas, {listed(words)}"
    wildcard = re.fullmatch(r"((?:[0-9]{1,3}\.){1,3})\*(?:\.\*)*", written)
    if wildcard is not None:
        octets = wildcard[1].count(".")
        address = wildcard[1] + ".".join("0" * (4 - octets))
        if parse_address(address) is not None:
            yield f"; did you mean `{address}/{8 * octets}`?"
