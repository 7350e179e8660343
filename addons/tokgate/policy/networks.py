"""Networks: named sets of clients, each with the time zone in which its bans are read; devices of an inventory."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter
from typing import Final

from tokgate.policy.values import Language, Origin
from tokgate.policy.values.prefixes import IPNetwork, difference

_SEPARATORS: Final = str.maketrans("", "", ":-. ")
_HARDWARE: Final = re.compile(r"[0-9a-f]{12}\Z")


@dataclass(frozen=True, slots=True)
class Device:
    """One row of an inventory. `addresses` are host prefixes; `hardware` as `hardware_address` writes them."""

    name: str | None
    addresses: tuple[IPNetwork, ...]
    hardware: tuple[str, ...]
    owner: str | None
    paid_by: tuple[str, ...]
    origin: Origin | None = None

    def __str__(self) -> str:
        return self.name or (self.hardware or tuple(str(each.network_address) for each in self.addresses))[0]


def hardware_address(raw: str) -> str | None:
    """An EUI-48 address in any usual notation as `00:53:00:aa:bb:cc`; None if it isn't one."""
    digits = raw.strip().translate(_SEPARATORS).lower()
    if not _HARDWARE.match(digits):
        return None
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


@dataclass(frozen=True, slots=True)
class Network:
    """A named set of clients: those that any of its statements lists, without its exceptions.

    `timezone` is an IANA name.
    """

    name: str
    cidrs: tuple[IPNetwork, ...]
    timezone: str = "UTC"
    origin: Origin | None = None
    users: tuple[str, ...] = ()
    """Names of users that authenticated to the explicit proxy."""
    groups: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()
    """Network interfaces by which clients' connections reach the gateway."""
    devices: tuple[Device, ...] = ()
    title: str | None = None
    language: Language | None = None
    """The page's, for clients that ask for none that there is."""
    networks: tuple[str, ...] = ()
    """Networks whose clients are its own too."""
    except_cidrs: tuple[IPNetwork, ...] = ()
    except_networks: tuple[str, ...] = ()
    """Networks whose clients are not its own."""
    members: "tuple[Network, ...]" = field(default=(), compare=False, repr=False)
    """The networks that `networks` names."""
    excluded: "tuple[Network, ...]" = field(default=(), compare=False, repr=False)
    """The networks that `except_networks` names."""
    by_address: bool = field(init=False, compare=False, repr=False)
    """Whether addresses alone say who its clients are."""
    _below: "tuple[Network, ...]" = field(init=False, compare=False, repr=False)
    _addresses: tuple[IPNetwork, ...] | None = field(init=False, compare=False, repr=False)
    """None without members and exceptions."""

    def __post_init__(self) -> None:
        """Compute what follows from members and exceptions once: a network may be part of very many."""
        parts = {each.name: each for member in self.members for each in member.parts}
        own = not (self.users or self.groups or self.interfaces or any(d.hardware for d in self.devices))
        related = (*self.members, *self.excluded)
        object.__setattr__(self, "_below", tuple(parts.values()))
        object.__setattr__(self, "by_address", own and all(each.by_address for each in related))
        inside = (*self.listed, *(prefix for member in self.members for prefix in member.prefixes))
        addresses = tuple(difference(inside, self.excepted)) if related or self.except_cidrs else None
        object.__setattr__(self, "_addresses", addresses)

    @property
    def parts(self) -> "tuple[Network, ...]":
        """Itself, and the networks that it is made of, theirs included."""
        return (self, *self._below)

    @property
    def listed(self) -> Iterator[IPNetwork]:
        """The prefixes that the network itself states, those of its devices included, exceptions aside."""
        yield from self.cidrs
        for device in self.devices:
            yield from device.addresses

    @property
    def excepted(self) -> tuple[IPNetwork, ...]:
        """All addresses that are known not to be its clients', by its own exceptions."""
        return (*self.except_cidrs, *(prefix for each in self.excluded for prefix in each.prefixes))

    @property
    def prefixes(self) -> Iterable[IPNetwork]:
        """All addresses that are known to be its clients'."""
        return self.listed if self._addresses is None else self._addresses


def linked(networks: Mapping[str, Network]) -> dict[str, Network]:
    """The same networks, with `members` and `excluded` as the names in them say. There must be no cycle."""
    done: dict[str, Network] = {}
    for network in _parts_first(networks):
        members, excluded = ([done[name] for name in each] for each in (network.networks, network.except_networks))
        known = not (members or excluded)
        done[network.name] = network if known else replace(network, members=tuple(members), excluded=tuple(excluded))
    return {name: done[name] for name in networks}


def with_parts(names: Iterable[str], networks: Mapping[str, Network]) -> set[str]:
    """These networks, and all that they are made of or except."""
    found: set[str] = set()
    rest = list(names)
    while rest:
        name = rest.pop()
        if name not in found and name in networks:
            found.add(name)
            rest += (*networks[name].networks, *networks[name].except_networks)
    return found


class Composition:
    """Which networks hold a client, from those whose own statements list it."""

    def __init__(self, networks: Iterable[Network]) -> None:
        """There must be no cycle among the networks."""
        ordered = _parts_first({each.name: each for each in networks})
        self._ordered = tuple(n for n in ordered if n.networks or n.except_cidrs or n.except_networks)

    def complete(self, listed: Mapping[str, int], excepted: Iterable[str] = ()) -> dict[str, int]:
        """The networks, each with the longest prefix by which it lists the client, longest first.

        `excepted` are networks one of whose `except_cidrs` holds the client.
        """
        found = dict(listed)
        for network in self._ordered:
            name = network.name
            lengths = [found[each] for each in (name, *network.networks) if each in found]
            out = name in excepted or any(each in found for each in network.except_networks)
            if lengths and not out:
                found[name] = max(lengths)
            elif out:
                found.pop(name, None)
        return dict(sorted(found.items(), key=lambda item: -item[1]))


def _parts_first(networks: Mapping[str, Network]) -> Iterator[Network]:
    """The networks, each after those that it refers to."""
    refers = {name: (*each.networks, *each.except_networks) for name, each in networks.items()}
    yield from (networks[name] for name in TopologicalSorter(refers).static_order())
