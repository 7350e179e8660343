"""Instants on the command line: what a person types, and the zone in which it is meant."""

import argparse
from collections.abc import Iterable

from whenever import Date, Instant, PlainDateTime, Time

from tokgate.policy.networks import Network
from tokgate.policy.schedule import Edge, Moment, resolve

_PLAUSIBLE = (Instant.from_utc(1900, 1, 1), Instant.from_utc(9900, 1, 1))
"""Instants that can be asked about: far enough from both ends of the calendar for look-ahead and time zones."""


def read_moment(text: str) -> Moment:
    """An RFC 3339 instant, a local wall time, a date (its midnight), or `now`; ValueError for anything else."""
    if text == "now":
        return Instant.now()
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


def time_argument(text: str) -> Moment:
    """For argparse's `type=`."""
    try:
        return read_moment(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def settle(moment: Moment, zone: str) -> Instant:
    """The instant of a moment, wall times read in `zone`: of one that occurs twice the earlier is meant."""
    return resolve(moment, zone, Edge.START)


def common_zone(networks: Iterable[Network]) -> str:
    """The zone in which all these networks live; UTC where they live in several."""
    zones = {network.timezone for network in networks}
    return zones.pop() if len(zones) == 1 else "UTC"
