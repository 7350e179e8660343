"""Times on the command line, and the time zone in which they are read."""

import argparse
from collections.abc import Iterable

from whenever import Instant

from tokgate.policy.networks import Network
from tokgate.policy.schedule import Edge, Moment, resolve
from tokgate.policy.values.text import read_moment


def moment_or_now(text: str) -> Moment:
    """As `read_moment`, and `now`. Raises ValueError."""
    return Instant.now() if text == "now" else read_moment(text)


def time_argument(text: str) -> Moment:
    """`moment_or_now` as argparse's `type=`. Raises ArgumentTypeError."""
    try:
        return moment_or_now(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def settle(moment: Moment, zone: str) -> Instant:
    """The instant of a moment; wall times are in `zone`. Of a time that occurs twice, the earlier is taken."""
    return resolve(moment, zone, Edge.START)


def common_zone(networks: Iterable[Network]) -> str:
    """The time zone of all networks; UTC if they have several."""
    zones = {network.timezone for network in networks}
    return zones.pop() if len(zones) == 1 else "UTC"
