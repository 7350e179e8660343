"""Networks: named sets of clients, each with the time zone in which its bans are read."""

from collections.abc import Iterator
from dataclasses import dataclass

from tokgate.policy.devices import Device
from tokgate.policy.origin import Origin
from tokgate.policy.prefixes import IPNetwork


@dataclass(frozen=True, slots=True)
class Network:
    """A named set of clients: it holds a client that any of its statements names; `timezone` is an IANA name."""

    name: str
    cidrs: tuple[IPNetwork, ...]
    timezone: str = "UTC"
    origin: Origin | None = None
    users: tuple[str, ...] = ()
    """Who proved to an explicit proxy who they are."""
    groups: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()
    """By which a client's connections reach the gateway."""
    devices: tuple[Device, ...] = ()

    @property
    def prefixes(self) -> Iterator[IPNetwork]:
        """All addresses that are known to be its clients'."""
        yield from self.cidrs
        for device in self.devices:
            yield from device.addresses

    @property
    def by_address(self) -> bool:
        """Whether addresses are all that it names its clients by."""
        return not (self.users or self.groups or self.interfaces or any(d.hardware for d in self.devices))
