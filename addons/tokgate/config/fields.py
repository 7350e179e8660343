"""Text to values: times, durations, days, addresses, holidays. One function a kind; errors say what is allowed.

All raise `PydanticCustomError` whose type is a `Code`, so that the models can use them as validators.
"""

import re
from functools import cache
from ipaddress import IPv6Network, ip_network
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic_core import PydanticCustomError
from whenever import Date, Instant, ItemizedDelta, OffsetDateTime, PlainDateTime, Time, Weekday, available_timezones

from tokgate.config import guesses
from tokgate.config.diagnostics import Code
from tokgate.config.suggest import did_you_mean, listed
from tokgate.policy.continuing import LONGEST
from tokgate.policy.names import IPAddress, parse_address
from tokgate.policy.prefixes import IPNetwork
from tokgate.policy.schedule import Duration, Moment, add_duration, holiday_calendar

DAYS: Final = {day.name[:3].lower(): day for day in Weekday}
"""`mon` to `sun`, in order."""

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_MOMENT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}"
    r"(?::[0-5][0-9](?:\.[0-9]{1,9})?)?(?P<offset>Z|[+-][0-9]{2}:?[0-9]{2})?\Z"
)
_TYPED: Final = re.compile(r"(?:([0-9]{1,5})d)?(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m)?(?<=[dhm])\Z")
_CLOCK: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])\Z")
_YEARS: Final = range(1900, 3001)
"""Far from the ends of the calendar, so that no zone and no duration leads past them unnoticed."""

_LONGEST_LINE: Final = 1000
_JOINERS: Final = dict.fromkeys((0xA0, 0x202F, 0x200C, 0x200D))
"""Spaces that don't break, and joiners: languages need them, though Python calls them unprintable."""

MOMENT_SHAPE: Final = "`2023-03-10T08:00` (wall time), or with an offset `2023-03-10T08:00+01:00`"


def wrong(code: Code, message: str) -> PydanticCustomError:
    """An error in our own words; `message` is not a template."""
    return PydanticCustomError(code.value, "{message}", {"message": message})


def text(value: Any) -> str:
    """Text that says something."""
    if not isinstance(value, str):
        kind = "nothing" if value is None else "a list" if isinstance(value, list) else "a mapping"
        raise wrong(Code.WRONG_TYPE, f"must be text, not {kind}")
    if not value.strip():
        raise wrong(Code.BAD_VALUE, "must not be empty")
    return value


def one_line(value: Any) -> str:
    """Text without line breaks: it is shown in tables and headers."""
    line = text(value).strip()
    if not line.translate(_JOINERS).isprintable():
        raise wrong(Code.BAD_VALUE, "must be one line of printable text")
    if len(line) > _LONGEST_LINE:
        raise wrong(Code.BAD_VALUE, f"must be at most {_LONGEST_LINE} characters")
    return line


def link(value: Any) -> str:
    """An address that a reader of the block page may follow."""
    line = one_line(value)
    try:
        has_host = bool(urlsplit(line).hostname)
    except ValueError:  # half a pair of brackets, say
        has_host = False
    if not has_host or not re.match(r"https?://[^\s/]", line) or " " in line:
        raise wrong(Code.BAD_VALUE, f"`{line}` is no web address: `https://…`")
    return line


def flag(value: Any) -> bool:
    """`true` or `false`, as in YAML 1.2."""
    if value in ("true", "True", "TRUE"):
        return True
    if value in ("false", "False", "FALSE"):
        return False
    raise wrong(Code.BAD_VALUE, f"must be `true` or `false`, not {_shown(value)}")


def date(value: Any) -> Date:
    """A calendar day."""
    written = text(value)
    if not _DATE.match(written):
        shape = "; write it as `2023-09-10`"
        hint = f"{shape}; for a time of day use `expires`" if _MOMENT.match(written) else _meant(written, shape, _DATE)
        raise wrong(Code.BAD_TIME, f"{_shown(written)} is no date{hint}")
    try:
        day = Date.parse_iso(written)
    except ValueError:
        raise wrong(Code.BAD_TIME, f"`{written}` is not a day of the calendar") from None
    return _in_range(day)


def moment(value: Any) -> Moment:
    """A date (its first instant), a wall time, or an instant."""
    written = text(value)
    if _DATE.match(written):
        return date(written).at(Time.MIN)
    return _time_of_day(written, f"a date `2023-03-10`, {MOMENT_SHAPE}", _DATE)


def expiry(value: Any) -> Moment:
    """An exclusive end: a date alone would leave open whether that day is still included."""
    written = text(value)
    if _DATE.match(written):
        raise wrong(
            Code.DATE_ALONE,
            f"a date alone does not say whether that day is still included: write `last_day: {written}` if it is, "
            f"or the first instant after the ban: `expires: {written}T00:00`",
        )
    return _time_of_day(written, MOMENT_SHAPE)


def until(value: Any) -> Moment:
    """The exclusive end of an exemption."""
    written = text(value)
    if _DATE.match(written):
        day = date(written)
        raise wrong(
            Code.DATE_ALONE,
            f"a date alone does not say whether that day is still included: write `{day.add(days=1)}T00:00` if it is, "
            f"`{written}T00:00` if not",
        )
    return _time_of_day(written, MOMENT_SHAPE)


def _time_of_day(written: str, allowed: str, *guessed: re.Pattern[str]) -> Moment:
    found = _MOMENT.match(written)
    hint = "; midnight at the end of a day is `00:00` of the next" if re.search(r"[T ]24:00", written) else ""
    if found is None:
        hint = _meant(written, f"; write {allowed}", _MOMENT, *guessed) + hint
        raise wrong(Code.BAD_TIME, f"{_shown(written)} is no time{hint}")
    try:
        local = OffsetDateTime.parse_iso(written) if found["offset"] else PlainDateTime.parse_iso(written)
    except ValueError:
        raise wrong(Code.BAD_TIME, f"`{written}` is not a time of the calendar{hint}") from None
    _in_range(local.date())
    return local.to_instant() if isinstance(local, OffsetDateTime) else local


def _meant(written: str, allowed: str, *shapes: re.Pattern[str]) -> str:
    """What was certainly meant, if it has one of these shapes; else what is allowed."""
    meant = guesses.moment(written) or ""
    return f"; did you mean `{meant}`?" if any(shape.match(meant) for shape in shapes) else allowed


def _in_range(day: Date) -> Date:
    if day.year not in _YEARS:
        raise wrong(Code.BAD_TIME, f"the year {day.year} is out of range: {_YEARS[0]} to {_YEARS[-1]}")
    return day


def duration(value: Any) -> Duration:
    """A positive ISO 8601 duration."""
    written = text(value)
    example = "`P6M`, `P2W`, `P90D`, `P1Y6M` or `PT36H`"
    try:
        parsed = ItemizedDelta.parse_iso(written)
    except ValueError:
        meant = guesses.duration(written)
        hint = f"; did you mean `{meant}`?" if meant else f"; write it as {example}"
        raise wrong(Code.BAD_DURATION, f"{_shown(written)} is no ISO 8601 duration{hint}") from None
    if parsed.sign() < 0:
        raise wrong(Code.BAD_DURATION, f"`{written}` is negative: it must last some time")
    if parsed.sign() == 0:
        raise wrong(Code.BAD_DURATION, f"`{written}` lasts no time at all")
    return parsed


def continuing(value: Any) -> Duration:
    """How long continuing past a warning holds: long enough to be of use, short enough that it is remembered why."""
    parsed, start = duration(value), Instant.from_utc(2024, 1, 1)
    try:
        seconds = (add_duration(start, parsed, "UTC") - start).total("seconds")
    except (ValueError, OverflowError):  # beyond the end of the calendar
        seconds = float("inf")
    if not 60 <= seconds <= LONGEST.total("seconds"):
        raise wrong(Code.BAD_DURATION, f"`{value}` is out of range: from `PT1M` to `P30D`")
    return parsed


def lasting(value: Any) -> Duration:
    """A duration as it is typed: `30m`, `2h`, `1h30m`, `1d` (24 hours), or in ISO 8601."""
    written = text(value)
    found = _TYPED.match(written)
    if found is None:
        if not written[:1].upper() == "P":
            raise wrong(Code.BAD_DURATION, f"{_shown(written)} is no duration; write it as `30m`, `2h`, `1d` or `PT2H`")
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
    meant = guesses.time_of_day(written)
    hint = f"; did you mean `{meant}`?" if meant else "; write it as `08:00`"
    raise wrong(Code.BAD_TIME, f"{_shown(written)} is no time of day{hint}")


def closing(value: Any) -> Time:
    """A time of day for the end of a window; `24:00` is the midnight that ends the day."""
    return Time.MIN if value == "24:00" else clock(value)


def as_list(value: Any) -> Any:
    """Where one or a list is allowed, always a list."""
    return value if isinstance(value, list) else [value]


def day_range(value: Any) -> frozenset[Weekday]:
    """One day, or a range of days; `sat-mon` passes the weekend."""
    written, names = text(value), list(DAYS)
    first, dash, last = (part.strip().lower() for part in written.partition("-"))
    for name in (first, last) if dash else (first,):
        if name not in DAYS:
            meant = guesses.days(written, names)
            hint = f"did you mean `{meant}`? Allowed" if meant else "allowed"
            raise wrong(Code.BAD_DAYS, f"`{name}` is no day; {hint}: {listed(names)}, and ranges as `mon-fri`")
    start = names.index(first)
    count = (names.index(last) - start) % 7 + 1 if dash else 1
    return frozenset(DAYS[names[(start + offset) % 7]] for offset in range(count))


@cache
def _countries() -> dict[str, list[str]]:
    import holidays  # slow, and few policies ask for them

    return holidays.list_supported_countries(include_aliases=True)


def holiday_code(value: Any) -> str:
    """A country, or country and subdivision, whose public holidays are known."""
    written = text(value)
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


def cidr(value: Any) -> IPNetwork:
    """An IPv4 or IPv6 prefix without host bits; an address alone stands for itself."""
    written = text(value)
    try:
        network = ip_network(written, strict=False)
    except ValueError:
        raise wrong(Code.BAD_CIDR, f"{_shown(written)} is no network{guesses.prefix(written)}") from None
    if isinstance(network, IPv6Network):
        if "%" in written:
            raise wrong(Code.BAD_CIDR, f"`{written}` has an interface: leave out what follows the `%`")
        mapped = network.network_address.ipv4_mapped
        if mapped is not None and network.prefixlen >= 96:
            meant = ip_network((mapped, network.prefixlen - 96))
            raise wrong(Code.BAD_CIDR, f"`{written}` is IPv4 in IPv6, which is read as IPv4: write `{meant}`")
    try:
        return ip_network(written)
    except ValueError:
        raise wrong(Code.HOST_BITS, f"`{written}` has host bits set; the network is `{network}`") from None


def address(value: Any) -> IPAddress:
    """One client's address."""
    written = text(value)
    parsed = parse_address(written)
    if parsed is None:
        raise wrong(Code.BAD_CIDR, f"{_shown(written)} is no address; write it as `10.32.1.1` or `2001:db8:32::1`")
    return parsed


def day_count(value: Any) -> int:
    """A number of days, from 1 to a hundred years."""
    written = text(value)
    if not re.fullmatch("[1-9][0-9]{0,4}", written) or int(written) > 36_500:
        raise wrong(Code.BAD_VALUE, f"must be a number of days from 1 to 36500, not {_shown(written)}")
    return int(written)


def whole_path(value: Any) -> str:
    """A file by its whole path: what the current folder is when tokgate starts must not matter."""
    written = one_line(value)
    if not written.startswith("/"):
        raise wrong(Code.BAD_VALUE, f"`{written}` must be a whole path: `/etc/tokgate/…`")
    return written


def interface(value: Any) -> str:
    """The name of a network interface, as the kernel has it (dev_valid_name)."""
    written = text(value)
    if len(written.encode()) > 15 or written in (".", "..") or re.search(r"[\s/:*?]", written):
        raise wrong(Code.BAD_VALUE, f"{_shown(written)} is no interface; write its whole name as `eth1` or `eth0.20`")
    return written


def inventory(value: Any) -> str:
    """A file of devices, beside the policy file that names it."""
    written = one_line(value)
    if not written.casefold().endswith(".csv"):
        raise wrong(Code.BAD_VALUE, f"`{written}` must be a CSV file: `devices.csv`")
    return written


def directory_url(value: Any) -> str:
    """Where an LDAP directory is."""
    written = one_line(value)
    try:
        url = urlsplit(written)
        whole = url.hostname is not None and written == f"{url.scheme}://{url.netloc}" and url.port != 0
    except ValueError:
        url, whole = urlsplit(""), False
    if url.scheme not in ("ldap", "ldaps") or not whole or "@" in url.netloc:
        raise wrong(Code.BAD_VALUE, f"`{written}` is no directory; write it as `ldaps://ldap.example.org`")
    return written


def outlet(value: Any) -> str:
    """Where checkpoints of the log are sent."""
    written = one_line(value)
    try:
        url = urlsplit(written)
        port = url.port or 514
    except ValueError:
        url, port = urlsplit(""), 0
    remote = url.scheme == "syslog" and url.hostname and written == f"syslog://{url.netloc}" and "@" not in url.netloc
    if written not in ("journald", "syslog") and not (remote and port):
        raise wrong(Code.BAD_VALUE, f"`{written}` is none of `journald`, `syslog`, `syslog://host:port`")
    return written


def program(words: list[str]) -> list[str]:
    """A program and its arguments; by its path, so that no search path decides what is run."""
    if words and not words[0].startswith("/"):
        raise wrong(Code.BAD_VALUE, f"`{words[0]}` must be the whole path of a program: `/usr/local/bin/…`")
    return words


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def timezone(value: Any) -> str:
    """A name of the IANA time zone database."""
    written = text(value)
    if written not in _zones():
        meant = guesses.zone(written, _zones())
        hint = f"; did you mean `{meant}`?" if meant else "; write an IANA name as `Europe/Brussels`, or `UTC`"
        raise wrong(Code.UNKNOWN_TIMEZONE, f"unknown time zone `{written}`{hint}")
    return written


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"`{value if len(value) <= 60 else value[:57] + '...'}`"
    return "nothing" if value is None else "a list" if isinstance(value, list) else "a mapping"
