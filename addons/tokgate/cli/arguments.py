"""Arguments of commands: times, and the zone in which they are read; values of the policy format; numbers."""

import argparse
import re
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Final

from whenever import Instant

from tokgate.policy.networks import Network
from tokgate.policy.schedule import Edge, Moment, Span, resolve
from tokgate.policy.values.text import read_moment, utc

_PLACE: Final = re.compile(r"(?:\[(?P<address>[^\[\]]+)\]|(?P<host>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?")
_MOST: Final = 65_535


def argument_of[T](read: Callable[[str], T]) -> Callable[[str], T]:
    """A reader of values, which raises ValueError (as do parsers of the policy format), as argparse's `type=`."""

    def convert(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


def moment_or_now(text: str) -> Moment:
    """As `read_moment`, and `now`. Raises ValueError."""
    return Instant.now() if text == "now" else read_moment(text)


time_argument: Final = argument_of(moment_or_now)


def settle(moment: Moment, zone: str) -> Instant:
    """The instant of a moment; wall times are in `zone`. Of a time that occurs twice, the earlier is taken."""
    return resolve(moment, zone, Edge.START)


def common_zone(networks: Iterable[Network]) -> str:
    """The time zone of all networks; UTC if they have several."""
    zones = {network.timezone for network in networks}
    return zones.pop() if len(zones) == 1 else "UTC"


def add_span_options(parser: argparse.ArgumentParser) -> None:
    """Add `--from` and `--to`, which `span_of` reads."""
    parser.add_argument("--from", dest="start", type=time_argument, metavar="TIME", help="the first instant (now)")
    parser.add_argument(
        "--to", dest="end", type=time_argument, metavar="TIME", help="the instant after the last (a year after --from)"
    )
    parser.set_defaults(usage_error=parser.error)


def span_of(options: argparse.Namespace, zone: str, now: Instant) -> Span:
    """The span that the options state, a year from `now` without them. A usage error if it is empty."""
    start = now if options.start is None else settle(options.start, zone)
    end = start.to_tz(zone).add(years=1).to_instant() if options.end is None else settle(options.end, zone)
    if end <= start:
        options.usage_error(f"--to ({utc(end)}) is not after --from ({utc(start)})")
    return Span(start, end)


def identifier(text: str) -> str:
    """A name as the policy format allows it, as argparse's `type=`. Raises ArgumentTypeError."""
    from tokgate.config.format.values import IDENTIFIER

    if not re.match(IDENTIFIER.removesuffix("$") + r"\Z", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} can't be a name: letters, digits, `-`, `_` and `.`, at most 64, a letter or digit first"
        )
    return text


def whole_number(what: str, first: int = 0, last: int | None = None, *, base: int = 10) -> Callable[[str], int]:
    """A parser of whole numbers from `first` to `last`, as argparse's `type=`; errors call the value `what`.

    With `base` 0 also as 0x10.
    """

    def convert(text: str) -> int:
        try:
            number = int(text, base) if text.isascii() and text.isalnum() else -1
        except ValueError:
            number = -1
        if number < first or (last is not None and number > last):
            raise argparse.ArgumentTypeError(
                f"{text!r} is no {what}" + ("" if last is None else f": {first} to {last}")
            )
        return number

    return convert


def host_and_port(text: str, port: int | None = None, *, first: int = 1) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[ADDRESS]:PORT`, where `port` is taken if none is stated.

    For argparse's `type=`; `first` is the lowest port. Raises ArgumentTypeError.
    """
    found = _PLACE.fullmatch(text)
    try:
        host = "" if found is None else found["host"] or str(ip_address(found["address"]))
        number = int((found and found["port"]) or ("" if port is None else port))
    except ValueError:
        host, number = "", 0
    if not host or not first <= number <= _MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is no HOST:PORT, as in www.example.org:443 or [2001:db8::7]:443")
    return host, number
