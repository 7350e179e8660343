"""The identity of a client besides its address, and the networks that list clients by it.

A network holds a client if any of its statements matches. Each match has a prefix length, by which the narrowest
network is found: a user or a device counts as a host prefix, a group or an interface as the whole address space.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from tokgate.policy.devices import hardware_address
from tokgate.policy.networks import Network

WHOLE: Final = 0
"""The prefix length of a group or an interface, which may hold any number of clients."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What is known about a client; an absent field is unknown.

    `user` is authenticated. `device` is a hardware address, or in policy tests and `explain` a name in an inventory.
    """

    user: str | None = None
    groups: frozenset[str] = frozenset()
    device: str | None = None
    interface: str | None = None

    def __bool__(self) -> bool:
        """Whether anything is known of the client."""
        return bool(self.user or self.groups or self.device or self.interface)


@dataclass(frozen=True, slots=True)
class Identifies:
    """What a policy distinguishes clients by besides their address, which carriers must therefore find out."""

    users: bool = False
    groups: frozenset[str] = frozenset()
    """Case-folded names of groups; a user's other groups make no difference."""
    hardware: bool = False
    interfaces: bool = False

    def __or__(self, other: "Identifies") -> "Identifies":
        return Identifies(
            self.users or other.users,
            self.groups | other.groups,
            self.hardware or other.hardware,
            self.interfaces or other.interfaces,
        )

    @property
    def links(self) -> bool:
        """Whether hardware addresses or interfaces make a difference."""
        return self.hardware or self.interfaces


def joined(link: Identity | None, person: Identity) -> Identity:
    """The device and interface of a link, with the user and groups of an authenticated person."""
    if link is None:
        return person
    return Identity(person.user, person.groups, link.device, link.interface)


def folded(name: str) -> str:
    """The case-folded name of a user, group or device, for comparison."""
    return name.casefold()


_Named = Mapping[str, tuple[str, ...]]
"""Names of networks, by a user, group, interface or device that they list."""


class IdentityIndex:
    """Finds the networks that list a client by its identity."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks: Final = tuple(n for n in networks if n.users or n.groups or n.interfaces or n.devices)
        self._users: Final = _by((folded(user), n.name) for n in self._networks for user in n.users)
        self._groups: Final = _by((folded(group), n.name) for n in self._networks for group in n.groups)
        self._interfaces: Final = _by((each, n.name) for n in self._networks for each in n.interfaces)
        self._hardware: Final = _by(
            (address, n.name) for n in self._networks for device in n.devices for address in device.hardware
        )
        self.identifies: Final = Identifies(
            users=bool(self._users or self._groups),
            groups=frozenset(self._groups),
            hardware=bool(self._hardware),
            interfaces=bool(self._interfaces),
        )

    def find(self, identity: Identity, host: int) -> Iterator[tuple[str, int]]:
        """The networks that list this client, with the prefix length of the match; `host` is that of one host."""
        if identity.user is not None:
            for network in self._users.get(folded(identity.user), ()):
                yield network, host
        if identity.device is not None:
            for network in self._of_device(identity.device):
                yield network, host
        for group in sorted(identity.groups):
            for network in self._groups.get(folded(group), ()):
                yield network, WHOLE
        if identity.interface is not None:
            for network in self._interfaces.get(identity.interface, ()):
                yield network, WHOLE

    def _of_device(self, device: str) -> tuple[str, ...]:
        return self._hardware.get(hardware_address(device) or "") or self._devices.get(folded(device), ())

    @cached_property
    def _devices(self) -> _Named:
        """Networks by the name of a device, which only policy tests and `explain` use: no connection shows it."""
        return _by((folded(d.name), n.name) for n in self._networks for d in n.devices if d.name is not None)


def narrowest_first(networks: Mapping[str, int], found: Iterable[tuple[str, int]]) -> dict[str, int]:
    """All networks of a client with their longest prefix length, longest first; of equal ones in the order given."""
    nearest = dict(networks)
    for name, length in found:
        nearest[name] = max(length, nearest.get(name, WHOLE))
    return dict(sorted(nearest.items(), key=lambda item: -item[1]))


def _by(pairs: Iterable[tuple[str, str]]) -> _Named:
    """The networks of each key without repeats; equal tuples are shared, since an inventory has very many keys."""
    found: dict[str, tuple[str, ...]] = {}
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}
    for key, network in pairs:
        known = found.get(key, ())
        if network not in known:
            both = (*known, network)
            found[key] = shared.setdefault(both, both)
    return found
