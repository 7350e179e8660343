"""Networks: named sets of client addresses, each with the time zone in which its bans are read."""

from dataclasses import dataclass

from tokgate.policy.origin import Origin
from tokgate.policy.prefixes import IPNetwork


@dataclass(frozen=True, slots=True)
class Network:
    """A named set of client CIDRs; `timezone` is an IANA name."""

    name: str
    cidrs: tuple[IPNetwork, ...]
    timezone: str = "UTC"
    origin: Origin | None = None
