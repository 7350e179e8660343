"""Which networks a client belongs to, and which exemptions name it, by its address and its identity.

A network holds a client if any of its statements matches. Each match has a prefix length, by which the narrowest
network is found: a user or a device counts as a host prefix, a group or an interface as the whole address space.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from tokgate.policy.bans import Exemption
from tokgate.policy.decision import Decision, Reason, Response, Verdict
from tokgate.policy.networks import Composition, Device, Network, hardware_address
from tokgate.policy.settings import Settings, UnknownClients
from tokgate.policy.values.hostname import parse_address
from tokgate.policy.values.prefixes import IPNetwork, PrefixEntry, PrefixTable

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
            by_hardware = self._hardware.get(hardware_address(identity.device) or "")
            for network in by_hardware or self._devices.get(folded(identity.device), ()):
                yield network, host
        for group in sorted(identity.groups):
            for network in self._groups.get(folded(group), ()):
                yield network, WHOLE
        if identity.interface is not None:
            for network in self._interfaces.get(identity.interface, ()):
                yield network, WHOLE

    @cached_property
    def _devices(self) -> _Named:
        """Networks by the name of a device, which only policy tests and `explain` use: no connection shows it."""
        return _by((folded(d.name), n.name) for n in self._networks for d in n.devices if d.name is not None)


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


_NO_SERVICE: Final = Decision(Verdict.ALLOW, Reason.NO_SERVICE)


@dataclass(frozen=True, slots=True, eq=False)
class Membership:
    """A client's networks, narrowest first, and the exemptions that name it.

    `networks` maps to the length of the prefix by which the client belongs to the network; see `identity` for other
    statements than prefixes. Interned: clients that the policy doesn't distinguish share one.
    """

    networks: Mapping[str, int]
    exemptions: frozenset[str]
    without_match: Decision = _NO_SERVICE
    """The decision for a name of no service, at any time; for every name, if no network makes the client known."""


@dataclass(frozen=True, slots=True)
class _ByAddress:
    """What an address alone says: the membership, and what it follows from."""

    membership: Membership
    listed: Mapping[str, int]
    """The networks that list the address themselves, with the prefix length."""
    excepted: frozenset[str]
    """The networks with an exception that holds the address."""


class Clients:
    """Finds the membership of a client."""

    def __init__(
        self,
        networks: Collection[Network],
        exemptions: Mapping[str, Exemption],
        settings: Settings,
        own: Collection[str] = (),
    ) -> None:
        """The networks of a policy, and its exemptions by name. By those of `own` no client is known."""
        exempt = tuple(_exempt_by_identity(exemptions.values(), networks))
        self._composition: Final = Composition(networks)
        self._own: Final = own
        self._unknown: Final = _without_network(settings, Reason.UNKNOWN_CLIENT)
        self._known: Final[dict[tuple[tuple[tuple[str, int], ...], frozenset[str]], Membership]] = {}
        self._addresses: Final = PrefixTable(_client_entries(networks, exemptions, exempt), self._of_holders)
        invalid = Membership({}, frozenset(), _without_network(settings, Reason.INVALID_CLIENT))
        self._invalid: Final = _ByAddress(invalid, {}, frozenset())
        self._identities: Final = IdentityIndex(networks)
        self._exempt: Final = IdentityIndex(exempt)
        self.identifies: Final = self._identities.identifies | self._exempt.identifies

    def membership(self, client: str, identity: Identity | None = None) -> Membership:
        """The networks and exemptions of a client, by its address in any spelling and its identity."""
        address = parse_address(client)
        by_address = self._invalid if address is None else self._addresses.find(address)
        known = by_address.membership
        if identity is None:
            return known
        longest = 128 if address is None else address.max_prefixlen
        found = list(self._identities.find(identity, longest))
        exempt = frozenset(name for name, _ in self._exempt.find(identity, longest))
        if not found and exempt <= known.exemptions:  # most who are identified: nothing has to be put together
            return known
        listed = dict(by_address.listed)
        for name, length in found:
            listed[name] = max(length, listed.get(name, WHOLE))
        networks = self._composition.complete(listed, by_address.excepted)
        if not networks and not known.networks:
            return known
        return self._of(networks, known.exemptions | exempt)

    def _of(self, networks: dict[str, int], exemptions: frozenset[str]) -> Membership:
        """The membership with these networks, narrowest first, and exemptions. Safe to call from any thread."""
        key = (tuple(networks.items()), exemptions)
        found = self._known.get(key)
        if found is None:
            known = next((name for name in networks if name not in self._own), None)
            without_match = self._unknown if known is None else replace(_NO_SERVICE, network=known)
            found = self._known.setdefault(key, Membership(networks, exemptions, without_match))
        return found

    def _of_holders(self, holders: "tuple[PrefixEntry[_Holder], ...]") -> _ByAddress:
        """For clients within all these prefixes, which are narrowest first."""
        listed: dict[str, int] = {}
        exemptions: set[str] = set()
        excepted: set[str] = set()
        for entry in holders:
            if isinstance(entry.value, Network):
                listed.setdefault(entry.value.name, entry.prefix.prefixlen)
            elif isinstance(entry.value, Exemption):
                exemptions.add(entry.value.name)
            else:
                excepted.add(entry.value)
        networks = self._composition.complete(listed, excepted)
        return _ByAddress(self._of(networks, frozenset(exemptions)), listed, frozenset(excepted))


def _exempt_by_identity(exemptions: Iterable[Exemption], networks: Iterable[Network]) -> Iterable[Network]:
    """Exemptions by users, groups, interfaces and devices, in the form in which networks list them."""
    named = [e for e in exemptions if e.identified]
    known: dict[str, Device] = {}
    if any(e.devices for e in named):  # by hardware address and name
        listed = [device for network in networks for device in network.devices]
        known = {address: device for device in listed for address in device.hardware}
        known |= {device.name.casefold(): device for device in listed if device.name is not None}
    for each in named:
        devices = tuple(
            known.get(device.casefold())
            or Device(device, (), tuple(filter(None, [hardware_address(device)])), None, ())
            for device in each.devices
        )
        yield Network(each.name, (), users=each.users, groups=each.groups, interfaces=each.interfaces, devices=devices)


_Holder = Network | Exemption | str
"""Whom a prefix belongs to: a network that lists it, an exemption, or by its name a network that excepts it."""


def _client_entries(
    networks: Iterable[Network], exemptions: Mapping[str, Exemption], exempt: Iterable[Network]
) -> Iterable[tuple[IPNetwork, _Holder]]:
    for network in networks:
        yield from ((prefix, network) for prefix in network.listed)
        yield from ((prefix, network.name) for prefix in network.except_cidrs)
    for exemption in exemptions.values():
        yield from ((cidr, exemption) for cidr in exemption.clients)
    for listed in exempt:
        yield from ((prefix, exemptions[listed.name]) for prefix in listed.prefixes)


def _without_network(settings: Settings, reason: Reason) -> Decision:
    """The decision for everything that a client in no network asks for."""
    if settings.unknown_clients is UnknownClients.BLOCK:
        return Decision(Verdict.BLOCK, reason, response=Response.REFUSE)
    return Decision(Verdict.ALLOW, reason)
