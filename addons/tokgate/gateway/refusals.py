"""The chains that refuse what must not pass the gates by: direct dials, QUIC, UDP to banned addresses, strangers."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network
from typing import Final

from whenever import Instant

from tokgate.gateway import quic_rules
from tokgate.gateway.address_bans import AddressBan
from tokgate.gateway.interception import FOUND_UNDER_WAY, GATED, NOT_NEW, known_return, taken
from tokgate.gateway.nft_sets import FAMILIES, ClientSets
from tokgate.gateway.refusal_counters import counting
from tokgate.gateway.ruleset import Redirect, Ruleset, Tproxy
from tokgate.policy.observation import KernelRefusal
from tokgate.policy.schedule import ALWAYS, Span
from tokgate.policy.settings import Passage
from tokgate.wire.quic.versions import DRAFTS, VERSIONS

_REFUSE: Final = "reject with icmpx port-unreachable"
"""Browsers use TCP at once, while dropping in silence would cost them seconds."""
_RESET: Final = "reject with tcp reset"
_QUIC: Final = tuple(
    f"udp length >= 1208 @th,64,1 1 @th,72,{bits} {{ {', '.join(f'{each:#x}' for each in versions)} }}"
    for bits, versions in ((32, VERSIONS), (24, DRAFTS))
)
"""A long header of QUIC 1 or 2 (RFC 9000 §17.2, RFC 9369 §3.1) in a datagram as large as one with an Initial packet has
to be (RFC 9000 §14.1: 1200 octets, behind 8 of UDP). The bits beside the header's form may be anything (RFC 9287).
No set has ranges, which Linux would fill a moment after the rules are in force."""
_DIALLED: Final = counting(KernelRefusal.DIALLED_DIRECTLY)
_PAST: Final = counting(KernelRefusal.TCP_PAST_GATES)
_PUBLISHED: Final = (
    "\t# Services behind an address of this gateway's, which `prerouting` let pass: they are no egress either.",
    "\tct status dnat return",
)
_FAR: Final = 9_000_000_000
"""Unix time in the year 2255."""


def refuse(kind: KernelRefusal) -> str:
    """The statements that count and refuse a datagram."""
    return f"{counting(kind)} {_REFUSE}"


def chains(rules: Ruleset) -> Iterator[Iterable[str]]:
    """The chains that refuse what doesn't come to gates, each as lines of nftables' language."""
    yield _input(rules)
    yield _forward(rules)
    yield _under_ban_tcp(rules)
    yield _clients_udp(rules)
    for number, ban in enumerate(rules.address_bans, 1):
        yield _banned_udp(number, ban)
    if rules.strangers:
        yield _strangers_forwarded(rules)
    if rules.options.local is not None:
        yield _output_udp(rules)
        if rules.strangers:
            yield _strangers_local_udp(rules)


def _input(rules: Ruleset) -> Iterator[str]:
    yield "chain input {"
    yield "\ttype filter hook input priority filter; policy accept;"
    yield ""
    yield "\t# One that dials a gate's port directly has no other destination than the gate itself, which would connect"
    yield "\t# to itself for ever."
    for way in dict.fromkeys((rules.options.forwarded, rules.options.local)):
        if isinstance(way, Tproxy):
            yield f"\ttcp dport {_listed(way)} fib daddr type local {_DIALLED} {_RESET}"
        elif isinstance(way, Redirect):
            yield f"\ttcp dport {_listed(way)} ct status dnat accept"
            yield f"\ttcp dport {_listed(way)} {_DIALLED} {_RESET}"
    yield "}"


def _listed(way: Tproxy | Redirect) -> str:
    ports = list(map(str, way.ports))
    return ports[0] if len(ports) == 1 else f"{{ {', '.join(ports)} }}"


def _forward(rules: Ruleset) -> Iterator[str]:
    bypass = rules.options.bypass
    yield "chain forward {"
    yield "\ttype filter hook forward priority filter; policy accept;"
    yield ""
    if bypass is not None and bypass.forwarded:
        yield f"\t{bypass.condition} accept"
        yield ""
    if isinstance(rules.options.forwarded, Tproxy):
        yield "\t# A gate had this connection, and is gone."
        yield f"\t{GATED} {_PAST} {_RESET}"
        yield ""
    yield from (f"\tmeta l4proto udp {client} jump clients_udp" for client in rules.client_sets.conditions())
    if rules.on_crash is Passage.CLOSED or isinstance(rules.options.forwarded, Redirect):
        yield ""
        yield "\t# conntrack may begin with these rules. It takes whom it hears first for who began: a server, too."
        yield f"\tct state new {NOT_NEW} ct label set {FOUND_UNDER_WAY}"
        yield ""
        yield "\t# What is still forwarded reached no gate: none listens, or the connection is older than these rules."
        yield from (f"\tmeta l4proto tcp {client} jump under_ban_tcp" for client in rules.ban_sets.conditions())
    if rules.strangers:
        yield ""
        yield "\tjump strangers_forwarded"
    yield "}"


def _under_ban_tcp(rules: Ruleset) -> Iterator[str]:
    yield "# Stray packets of ended connections must not reach the origin. What began before these rules, or finds no"
    yield "# gate, is reset, and comes again. The answers of the clients' own servers pass."
    yield "chain under_ban_tcp {"
    yield from _PUBLISHED
    for each in taken(rules):
        yield f"\t{each} ct state invalid counter drop"
        yield f"\t{each} ct direction original {_PAST} {_RESET}"
        yield f"\t{each} ct label {FOUND_UNDER_WAY} {_PAST} {_RESET}"
    yield "}"


def _clients_udp(rules: Ruleset) -> Iterator[str]:
    to_gates = isinstance(rules.options.forwarded, Tproxy)
    quic = f"jump {quic_rules.FORWARDED}" if to_gates else refuse(KernelRefusal.QUIC)
    yield "chain clients_udp {"
    yield from _PUBLISHED
    yield "\t# QUIC (HTTP/3) that would pass the gates by. On other ports it is known by how it begins."
    yield f"\tudp dport 443 {quic}"
    yield from (f"\t{begins} ct direction original {refuse(KernelRefusal.QUIC_OTHER_PORTS)}" for begins in _QUIC)
    if rules.address_bans:
        yield ""
        yield "\t# Nothing else of UDP can be told apart: while a ban blocks, all of it to its addresses is refused."
    for number, ban in enumerate(rules.address_bans, 1):
        for client in banned_clients(number, ban, rules).conditions():
            yield f"\t{client} jump banned{number}_udp"
    yield "}"


def banned_clients(number: int, ban: AddressBan, rules: Ruleset) -> ClientSets:
    """The sets of those whom a ban keeps from addresses."""
    purpose = "Whom a ban keeps from addresses."
    return ClientSets(f"banned{number}_clients", purpose, ban.networks, rules.options.local is not None)


def _banned_udp(number: int, ban: AddressBan) -> Iterator[str]:
    yield f"chain banned{number}_udp {{"
    yield "\tct direction reply return"
    if ban.blocks.start > ALWAYS.start:
        yield f"\t# The ban blocks from {ban.blocks.start}."
        yield f"\tmeta time < {_seconds(ban.blocks.start)} return"
    if ban.blocks.end < ALWAYS.end:
        yield f"\t# The ban ends at {ban.blocks.end}."
        yield f"\tmeta time >= {_seconds(ban.blocks.end)} return"
    for prefix, span in ban.exempt:
        yield f"\t# Exempt{_in_time(span)}."
        holds = "" if span.start == ALWAYS.start else f" meta time >= {_seconds(span.start)}"
        family = "ip" if isinstance(prefix, IPv4Network) else "ip6"
        yield f"\t{family} saddr {prefix}{holds} meta time < {_seconds(span.end)} return"
    refused = refuse(KernelRefusal.UDP_TO_ADDRESSES)
    yield from (f"\t{family} daddr @banned{number}_addresses{version} {refused}" for family, version, _ in FAMILIES)
    yield "}"


def _in_time(span: Span) -> str:
    return ("" if span.start == ALWAYS.start else f" from {span.start}") + f" until {span.end}"


def _seconds(at: Instant) -> int:
    """The instant as `meta time` is compared with; the kernel's nanoseconds end in the year 2262."""
    return min(max(at.timestamp(), 0), _FAR)


def _strangers_forwarded(rules: Ruleset) -> Iterator[str]:
    yield "chain strangers_forwarded {"
    yield from known_return(rules.known_sets)
    yield "\tmeta l4proto tcp ct state invalid counter drop"
    yield f"\tmeta l4proto tcp ct direction original {counting(KernelRefusal.UNKNOWN_CLIENTS)} {_RESET}"
    yield f"\tmeta l4proto udp ct direction original {refuse(KernelRefusal.UNKNOWN_CLIENTS)}"
    yield "}"


def _output_udp(rules: Ruleset) -> Iterator[str]:
    yield "chain output_udp {"
    yield "\ttype filter hook output priority filter; policy accept;"
    yield ""
    yield "\tmeta l4proto != udp accept"
    if rules.options.bypass is not None:
        yield f"\t{rules.options.bypass.condition} accept"
    if isinstance(rules.options.forwarded, Tproxy):
        yield f"\t{quic_rules.of_gates()} accept"
    yield from (f"\t{client} jump clients_udp" for client in rules.client_sets.conditions(local=True))
    if rules.strangers:
        yield "\tjump strangers_local_udp"
    yield "}"


def _strangers_local_udp(rules: Ruleset) -> Iterator[str]:
    yield "chain strangers_local_udp {"
    yield from known_return(rules.known_sets, local=True)
    yield "\tjump clients_udp"
    yield "}"
