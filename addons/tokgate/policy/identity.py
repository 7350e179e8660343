"""Who is behind a connection besides its address, and the networks that name them by it.

A network holds a client if any of its statements does. How near a statement comes to one client is told as the length
of a prefix, by which the narrowest network is found: a user and a device count as a single address does, a group and
an interface as everything.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from tokgate.policy.devices import hardware_address
from tokgate.policy.networks import Network

WHOLE: Final = 0
"""How near a group or an interface comes to one client: it may hold any number of them."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What was found out about a client; absent means that it was not, or could not be.

    `user` has proved who they are; `device` is a hardware address, or in tests and questions a name in an inventory.
    """

    user: str | None = None
    groups: frozenset[str] = frozenset()
    device: str | None = None
    interface: str | None = None

    def __bool__(self) -> bool:
        """Whether anything was found out."""
        return bool(self.user or self.groups or self.device or self.interface)


@dataclass(frozen=True, slots=True)
class Identifies:
    """What a policy tells clients apart by, besides their address: what carriers have to find out."""

    users: bool = False
    groups: frozenset[str] = frozenset()
    """Folded; the other groups of a user have no say."""
    hardware: bool = False
    interfaces: bool = False

    @property
    def links(self) -> bool:
        """Whether the link by which a client comes, or its address there, has a say."""
        return self.hardware or self.interfaces


def joined(link: Identity | None, person: Identity) -> Identity:
    """What a link shows of a client, and who the person at it proved to be."""
    if link is None:
        return person
    return Identity(person.user, person.groups, link.device, link.interface)


def folded(name: str) -> str:
    """A user's, group's or device's name as names are compared."""
    return name.casefold()


_Named = Mapping[str, tuple[str, ...]]
"""Names of networks, by what they name."""


class IdentityIndex:
    """Which networks name a client by something else than its address."""

    def __init__(self, networks: Iterable[Network]) -> None:
        """Only networks that do are kept."""
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
        """The networks that name this client, each with how near it comes; `host` is the length of a host's prefix."""
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
        """By name: no connection shows it, so only tests and questions need it."""
        return _by((folded(d.name), n.name) for n in self._networks for d in n.devices if d.name is not None)


def narrowest_first(networks: Mapping[str, int], found: Iterable[tuple[str, int]]) -> dict[str, int]:
    """All networks of a client, each with the nearest that it comes; of equally near ones in the order given."""
    nearest = dict(networks)
    for name, length in found:
        nearest[name] = max(length, nearest.get(name, WHOLE))
    return dict(sorted(nearest.items(), key=lambda item: -item[1]))


def _by(pairs: Iterable[tuple[str, str]]) -> _Named:
    """Each key's networks, each once; equal lists are shared, since an inventory has very many keys."""
    found: dict[str, tuple[str, ...]] = {}
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}
    for key, network in pairs:
        known = found.get(key, ())
        if network not in known:
            both = (*known, network)
            found[key] = shared.setdefault(both, both)
    return found
