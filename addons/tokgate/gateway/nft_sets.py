"""The parts that all chains of the table share: sets of clients and addresses, what matches them, and counters."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tokgate.policy.networks import Network
from tokgate.policy.observation import KernelRefusal
from tokgate.policy.values.prefixes import IPNetwork, difference, disjoint

FAMILIES: Final = (("ip", 4, "ipv4_addr"), ("ip6", 6, "ipv6_addr"))
COUNTED: Final = "refused_"
"""How the names of counters begin."""
_BY_LINK: Final = {"interfaces": "iifname", "hardware": "ether saddr"}


@dataclass(frozen=True, slots=True)
class _Part:
    """What a network, or one that it is made of, states by itself, without the exceptions of both."""

    prefixes: tuple[IPNetwork, ...]
    """Without exceptions by address."""
    interfaces: tuple[str, ...]
    hardware: tuple[str, ...]
    excepted: tuple[IPNetwork, ...]
    not_interfaces: tuple[str, ...]
    not_hardware: tuple[str, ...]

    @property
    def simple(self) -> bool:
        """Whether nothing but prefixes is excepted from prefixes."""
        excepted_links = self.not_interfaces or self.not_hardware
        return not excepted_links and not (self.excepted and (self.interfaces or self.hardware))

    def sets(self) -> Iterator[tuple[str, str, Sequence[IPNetwork]]]:
        """The sets that its rules ask: the end of the name, type, prefixes.

        They are named ones: Linux fills a set that came with its rule a moment after the rule is in force.
        """
        for _, version, kind in FAMILIES:
            excepted = self.excepted if self.interfaces or self.hardware else ()
            for suffix, prefixes in (("from", self.prefixes), ("except", excepted)):
                if held := _of(version, disjoint(prefixes)):
                    yield f"{suffix}{version}", kind, held

    def matches(self, name: str, *, local: bool) -> Iterator[str]:
        """As those of `ClientSets`; `name` is how the names of its sets begin."""
        without = [f"iifname != {_quoted(self.not_interfaces)}"] if self.not_interfaces and not local else []
        without += [f"ether saddr != {_listed(self.not_hardware)}"] if self.not_hardware and not local else []
        links = [f"iifname {_quoted(self.interfaces)}"] if self.interfaces and not local else []
        links += [f"ether saddr {_listed(self.hardware)}"] if self.hardware and not local else []
        sets = {suffix for suffix, _, _ in self.sets()}
        for family, version, _ in FAMILIES:
            if f"from{version}" in sets:
                yield " ".join((f"{family} saddr @{name}_from{version}", *without))
            out = f"except{version}"
            known = f"{family} saddr != @{name}_{out}" if out in sets else f"meta nfproto ipv{version}"
            yield from (" ".join((link, known, *without)) for link in links)


@dataclass(frozen=True, slots=True)
class ClientSets:
    """The clients of some networks: a set a family, and one for each other way in which a packet shows its sender.

    Loopback addresses never reach a gateway: `loopback` is for rules over this machine's own programs.
    """

    name: str
    purpose: str
    networks: tuple[Network, ...]
    loopback: bool

    def declared(self) -> Iterator[str]:
        """The sets, with blank lines between them."""
        for number, (_, version, kind) in enumerate(FAMILIES):
            if number:
                yield ""
            yield from interval_set(f"{self.name}{version}", kind, self.purpose, self.prefixes(version))
        for kind, suffix, elements in self._links():
            yield ""
            yield f"# {self.purpose}"
            yield f"set {self.name}_{suffix} {{"
            yield f"\ttype {kind}"
            yield from _elements(elements)
            yield "}"
        for name, part in self._mixed():
            for suffix, kind, held in part.sets():
                yield ""
                yield from interval_set(f"{name}_{suffix}", kind, self.purpose, held)

    def matches(self, *, local: bool = False) -> Iterator[str]:
        """Expressions of nftables, each of which matches packets of these clients; together they match all of them.

        `local`: for packets that start on this machine, which have neither an interface nor a hardware address.
        """
        yield from (f"{family} saddr @{self.name}{version}" for family, version, _ in FAMILIES)
        if not local:
            yield from (f"{_BY_LINK[suffix]} @{self.name}_{suffix}" for _, suffix, _ in self._links())
        for name, part in self._mixed():
            yield from part.matches(name, local=local)

    @property
    def by_interface(self) -> bool:
        """Whether there is a set of interfaces."""
        return any(suffix == "interfaces" for _, suffix, _ in self._links())

    def prefixes(self, version: int) -> Sequence[IPNetwork]:
        """The prefixes of the networks in one version of IP, disjoint and in order, as nftables wants sets."""
        held = [prefix for part in self._parts() if part.simple for prefix in _of(version, part.prefixes)]
        return disjoint(prefix for prefix in held if self.loopback or not prefix.is_loopback)

    def _parts(self) -> Iterable[_Part]:
        return dict.fromkeys(part for network in self.networks for part in _parts(network))

    def _mixed(self) -> Iterator[tuple[str, _Part]]:
        """The parts that are not simple, and how the names of their sets begin."""
        mixed = (part for part in self._parts() if not part.simple)
        return ((f"{self.name}_part{number}", part) for number, part in enumerate(mixed, 1))

    def _links(self) -> Iterator[tuple[str, str, list[str]]]:
        """What networks name beside prefixes, where there is any: type, name, elements."""
        simple = [part for part in self._parts() if part.simple]
        interfaces = sorted({f'"{name}"' for part in simple for name in part.interfaces})
        hardware = sorted({mac for part in simple for mac in part.hardware})
        if interfaces:
            yield "ifname", "interfaces", interfaces
        if hardware:
            yield "ether_addr", "hardware", hardware


def known_return(known: ClientSets, *, local: bool = False) -> Iterator[str]:
    """The rules that leave clients of the policy alone, in a chain for all others."""
    yield from (f"\t{client} return" for client in known.matches(local=local))
    if not local:
        yield "\t# What comes in for a client is no egress."
        yield from (f"\t{family} daddr @{known.name}{version} return" for family, version, _ in FAMILIES)
        if known.by_interface:
            yield f"\tfib daddr oifname @{known.name}_interfaces return"


def counting(kind: KernelRefusal) -> str:
    """The statement of a rule that counts in the named counter of a kind."""
    return f"counter name {COUNTED}{kind}"


def counters_declared() -> Iterator[Iterable[str]]:
    """All counters, whatever the policy: so they keep their values when it changes."""
    for kind in KernelRefusal:
        yield (f"counter {COUNTED}{kind} {{", "}")


def _parts(network: Network, above: tuple[Network, ...] = ()) -> Iterator[_Part]:
    """The network itself, and those that it is made of, with the exceptions of all `above` them."""
    holders = (*above, network)
    excepted = tuple(prefix for each in holders for prefix in each.excepted)
    out = [part for each in holders for other in each.excluded for part in other.parts]
    yield _Part(
        tuple(difference(network.listed, excepted) if excepted else network.listed),
        network.interfaces,
        tuple(mac for device in network.devices for mac in device.hardware),
        tuple(disjoint(excepted)),
        tuple(name for part in out for name in part.interfaces),
        tuple(mac for part in out for device in part.devices for mac in device.hardware),
    )
    for member in network.members:
        yield from _parts(member, holders)


def _of(version: int, prefixes: Iterable[IPNetwork]) -> list[IPNetwork]:
    return [prefix for prefix in prefixes if prefix.version == version]


def _listed(values: Iterable[object]) -> str:
    return f"{{ {', '.join(dict.fromkeys(map(str, values)))} }}"


def _quoted(names: Iterable[str]) -> str:
    return _listed(f'"{name}"' for name in names)


def interval_set(name: str, kind: str, purpose: str, held: Iterable[object]) -> Iterator[str]:
    """A set of prefixes of one family, or of ports and ranges of them."""
    yield f"# {purpose}"
    yield f"set {name} {{"
    yield f"\ttype {kind}"
    yield "\tflags interval"
    yield from _elements(list(map(str, held)))
    yield "}"


def traffic_set(name: str, kinds: str, purpose: str, seconds: int, most: int) -> tuple[str, ...]:
    """A set to which packets add, each time for some seconds."""
    limits = "\tflags dynamic,timeout", f"\ttimeout {seconds}s", f"\tsize {most}"
    return f"# {purpose}", f"set {name} {{", f"\ttype {kinds}", *limits, "}"


def _elements(elements: list[str]) -> Iterator[str]:
    if elements:
        yield "\telements = {"
        yield from (f"\t\t{element}," for element in elements)
        yield "\t}"
