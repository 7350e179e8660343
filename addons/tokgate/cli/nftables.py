"""The nftables table that sends a policy's clients through the proxy: text from values, nothing is read or run here."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import Final

from tokgate.policy.networks import Network
from tokgate.policy.prefixes import IPNetwork

_FAMILIES: Final = (("ip", 4, "ipv4_addr"), ("ip6", 6, "ipv6_addr"))


@dataclass(frozen=True, slots=True)
class Bypass:
    """How the proxy's own packets are told apart: an nftables condition, and whether forwarded packets can carry it."""

    condition: str
    forwarded: bool

    @classmethod
    def by_uid(cls, uid: int) -> "Bypass":
        """By the user the proxy runs as; only packets that start on this machine have one."""
        return cls(f"meta skuid {uid}", forwarded=False)

    @classmethod
    def by_mark(cls, mark: int) -> "Bypass":
        """By a firewall mark set on the proxy's sockets."""
        return cls(f"meta mark {mark:#x}", forwarded=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruleset:
    """What the table is made of: `quic_refused` holds networks under a ban, `local` adds this machine's programs."""

    table: str
    version: str
    clients: tuple[Network, ...]
    quic_refused: tuple[Network, ...]
    https_port: int
    http_port: int
    bypass: Bypass | None
    local: bool

    def __str__(self) -> str:
        """The whole file; the same for the same values."""
        return "\n".join(_file(self)) + "\n"


def _file(rules: Ruleset) -> Iterator[str]:
    yield f"# nftables for tokgate, policy {rules.version}. Load with: tokgate ruleset | nft -f -"
    yield "# Print and load it again when networks or bans change; loading replaces the whole table at once."
    yield "# The proxy must listen on all addresses, IPv4 and IPv6: what is redirected comes to the gateway's own."
    yield "# A firewall of your own must let the clients reach the proxy's port: accepting here does not overrule it."
    yield "#"
    yield "# Networks of the policy:"
    for network in rules.clients:
        yield f"#   {network.name}: {_in_words(network)}"
    yield ""
    yield "# Declared, so that deleting cannot fail, then deleted: one transaction, never a moment without rules."
    yield f"table inet {rules.table}"
    yield f"delete table inet {rules.table}"
    yield ""
    yield f"table inet {rules.table} {{"
    chains = [_sets(rules), _prerouting(rules), _input(rules), _forward(rules)]
    if rules.local or rules.bypass is not None:
        chains += [_output_redirect(rules)]
    if rules.local:
        chains += [_output_quic(rules)]
    for number, chain in enumerate(chains):
        if number:
            yield ""
        for line in chain:
            yield f"\t{line}" if line else ""
    yield "}"


def _in_words(network: Network) -> str:
    words = list(map(str, network.cidrs))
    words += [f"interface {name}" for name in network.interfaces]
    if network.devices:
        words.append(f"{len(network.devices)} devices of an inventory")
    if network.users or network.groups:
        words.append("users, whom only an explicit proxy knows")
    return ", ".join(words)


def _sets(rules: Ruleset) -> Iterator[str]:
    purposes = (
        ("clients", "Whose web traffic goes through the proxy.", rules.clients),
        ("quic_refused", "Networks under a ban that is not over: these must not speak QUIC.", rules.quic_refused),
    )
    first = True
    for name, purpose, networks in purposes:
        for _, version, kind in _FAMILIES:
            if not first:
                yield ""
            first = False
            yield f"# {purpose}"
            yield f"set {name}{version} {{"
            yield f"\ttype {kind}"
            yield "\tflags interval"
            yield "\tauto-merge"
            elements = _prefixes(networks, version, loopback=rules.local)
            if elements:
                yield "\telements = {"
                yield from (f"\t\t{prefix}," for prefix in elements)
                yield "\t}"
            yield "}"
        for kind, suffix, named in _links(networks):
            yield ""
            yield f"# {purpose}"
            yield f"set {name}_{suffix} {{"
            yield f"\ttype {kind}"
            yield "\telements = {"
            yield from (f"\t\t{element}," for element in named)
            yield "\t}"
            yield "}"


def _links(networks: Iterable[Network]) -> Iterator[tuple[str, str, list[str]]]:
    """The sets of what networks name beside prefixes, where there is any: type, name, elements."""
    held = list(networks)
    interfaces = sorted({f'"{name}"' for network in held for name in network.interfaces})
    hardware = sorted({known for network in held for device in network.devices for known in device.hardware})
    if interfaces:
        yield "ifname", "interfaces", interfaces
    if hardware:
        yield "ether_addr", "hardware", hardware


_MATCHES: Final = {"interfaces": "iifname", "hardware": "ether saddr"}


def _matches(name: str, networks: Iterable[Network]) -> Iterator[str]:
    """Conditions under which a packet that comes from outside is of one of these networks."""
    yield from (f"{family} saddr @{name}{version}" for family, version, _ in _FAMILIES)
    yield from (f"{_MATCHES[suffix]} @{name}_{suffix}" for _, suffix, _ in _links(networks))


def _prefixes(networks: Iterable[Network], version: int, *, loopback: bool) -> list[IPNetwork]:
    """Disjoint prefixes in order. Loopback addresses never reach a gateway, so they are of use to `local` only."""
    cidrs = [c for n in networks for c in n.prefixes if c.version == version and (loopback or not c.is_loopback)]
    if version == 4:
        return list(collapse_addresses(c for c in cidrs if isinstance(c, IPv4Network)))
    return list(collapse_addresses(c for c in cidrs if isinstance(c, IPv6Network)))


def _redirect(rules: Ruleset, *, local: bool = False) -> Iterator[str]:
    """`local`: for this machine's own programs, which come by no interface."""
    ports = {rules.http_port: "80", rules.https_port: "443"}
    if len(ports) == 1:
        ports = {rules.https_port: "{ 80, 443 }"}
    for client in _matches("clients", () if local else rules.clients):
        for port, matched in ports.items():
            yield f"\t{client} tcp dport {matched} counter redirect to :{port}"


def _prerouting(rules: Ruleset) -> Iterator[str]:
    yield "chain prerouting {"
    yield "\ttype nat hook prerouting priority dstnat; policy accept;"
    yield ""
    if rules.bypass is not None and rules.bypass.forwarded:
        yield "\t# The proxy's own packets, should they come by here (policy routing, a container): never back into it."
        yield f"\t{rules.bypass.condition} accept"
        yield ""
    yield "\t# What this gateway itself serves is not egress; redirecting it could lock the admin out."
    yield "\tfib daddr type local accept"
    yield ""
    yield "\t# Web traffic of the clients goes to the proxy, which asks conntrack for the address it was meant for."
    yield from _redirect(rules)
    yield "}"


def _input(rules: Ruleset) -> Iterator[str]:
    ports = sorted({rules.http_port, rules.https_port})
    matched = str(ports[0]) if len(ports) == 1 else f"{{ {', '.join(map(str, ports))} }}"
    yield "chain input {"
    yield "\ttype filter hook input priority filter; policy accept;"
    yield ""
    yield "\t# Only redirected connections reach the proxy. One that dials its port directly has no other destination"
    yield "\t# than the proxy itself, which would connect to itself for ever."
    yield f"\ttcp dport {matched} ct status dnat accept"
    yield f"\ttcp dport {matched} counter reject with tcp reset"
    yield "}"


def _forward(rules: Ruleset) -> Iterator[str]:
    yield "chain forward {"
    yield "\ttype filter hook forward priority filter; policy accept;"
    yield ""
    if rules.bypass is not None and rules.bypass.forwarded:
        yield f"\t{rules.bypass.condition} accept"
        yield ""
    yield "\t# QUIC (HTTP/3) would pass the proxy by. Refused aloud from the first packet: browsers use TCP at once,"
    yield "\t# while dropping in silence would cost them seconds."
    for client in _matches("quic_refused", rules.quic_refused):
        yield f"\t{client} udp dport 443 counter reject with icmpx port-unreachable"
    yield ""
    yield "\t# Web traffic still forwarded was not redirected. Stray packets of ended connections must not reach the"
    yield "\t# origin; connections older than these rules are reset, and come again through the proxy."
    for client in _matches("clients", rules.clients):
        clients = f"\t{client} tcp dport {{ 80, 443 }}"
        yield f"{clients} ct state invalid counter drop"
        yield f"{clients} counter reject with tcp reset"
    yield "}"


def _output_redirect(rules: Ruleset) -> Iterator[str]:
    yield "chain output {"
    yield "\ttype nat hook output priority dstnat; policy accept;"
    yield ""
    if rules.bypass is not None:
        yield "\t# The proxy's own connections go out as they are: redirected, they would come back to it for ever."
        yield f"\t{rules.bypass.condition} accept"
    if rules.local:
        yield ""
        yield "\t# The web traffic of this machine's own programs, where its address is one of the clients'."
        yield "\tfib daddr type local accept"
        yield from _redirect(rules, local=True)
    yield "}"


def _output_quic(rules: Ruleset) -> Iterator[str]:
    yield "chain output_quic {"
    yield "\ttype filter hook output priority filter; policy accept;"
    yield ""
    if rules.bypass is not None:
        yield f"\t{rules.bypass.condition} accept"
    yield "\t# QUIC of this machine's own programs, for the same reason as of forwarded clients."
    for family, version, _ in _FAMILIES:
        yield f"\t{family} saddr @quic_refused{version} udp dport 443 counter reject with icmpx port-unreachable"
    yield "}"
