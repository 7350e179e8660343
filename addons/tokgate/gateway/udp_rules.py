"""The chains for UDP: QUIC to port 443, which gates decide about and the kernel then forwards, and what is refused.

Only packets with a short header are forwarded, in the flows of two sets. Whatever begins something, a connection or
early data, has a long one and comes to the gate, also in a flow that passes: else an allowed connection would open the
way for a banned one.

A flow is in a set for a minute. Then its next packet comes to the gate, which knows it and sends it on: so the gate
hears which flows last, and a set that was lost with its table is filled again. Gates change the sets by datagrams of
their own, which bear marks.
"""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network
from typing import Final

from whenever import Instant

from tokgate.gateway import tcp_rules
from tokgate.gateway.nft_sets import FAMILIES, counting, known_return, traffic_set
from tokgate.gateway.ruleset import KernelBan, Ruleset, Tproxy
from tokgate.policy.observation import KernelRefusal
from tokgate.policy.schedule import ALWAYS
from tokgate.policy.settings import Passage
from tokgate.wire.quic import DRAFTS, VERSIONS

CARRIES: Final = 0x746C
"""The mark of a datagram that a gate sends on."""
OPENS: Final = 0x746D
"""The same, and the kernel forwards its flow from then on. Where the set is full, the gate goes on to carry it."""
TELLS: Final = 0x746E
"""The mark of a datagram that goes no further. Without a payload it takes its flow out of the set; with one, as of
`tcp_rules.failed_sets`, it tells of a destination that has failed."""
ANSWERS: Final = 0x746F
"""The mark of a refusal, which a gate sends from the address that the client wants to reach."""

_SECONDS: Final = 60
_MOST: Final = 65_536
"""Flows of a family; a gate has one out of the set before it begins more (gate/quic/flow_table.py)."""
_SHORT: Final = "@th,64,1 0"
"""A short header: the first bit behind UDP's own eight octets (RFC 8999 §5)."""
_INITIAL: Final = tuple(
    f"udp length >= 1208 @th,64,1 1 @th,72,{bits} {{ {', '.join(f'{each:#x}' for each in versions)} }}"
    for bits, versions in ((32, VERSIONS), (24, DRAFTS))
)
"""A long header of QUIC 1 or 2 (RFC 9000 §17.2, RFC 9369 §3.1) in a datagram as large as one with an Initial packet has
to be (RFC 9000 §14.1: 1200 octets, behind 8 of UDP). The bits beside the header's form may be anything (RFC 9287).
No set has ranges, which Linux would fill a moment after the rules are in force."""
_SERVED: Final = 118
"""The conntrack label of flows that began with QUIC."""
_FAR: Final = 9_000_000_000
"""Unix time in the year 2255; the kernel's nanoseconds end in 2262."""


def flow_sets() -> Iterator[Iterable[str]]:
    """Flows: the client's address and port, the destination's."""
    for _, version, kind in FAMILIES:
        purpose, kinds = "Flows of QUIC that a gate let through.", f"{kind} . inet_service . {kind} . inet_service"
        yield traffic_set(f"quic{version}", kinds, purpose, _SECONDS, _MOST)


def chains(rules: Ruleset) -> Iterator[Iterable[str]]:
    """Each as lines of nftables' language."""
    if isinstance(rules.options.forwarded, Tproxy):
        yield from _quic(rules, rules.options.forwarded)
    yield (
        "# What began outside with QUIC is of a client's own server, whose answers look as a client's beginnings do.",
        "chain quic_servers {",
        "\ttype filter hook prerouting priority mangle; policy accept;",
        "",
        *(f"\tct state new {begins} ct label set {_SERVED}" for begins in _INITIAL),
        "}",
    )
    yield _clients(rules)
    for number, ban in enumerate(rules.address_bans, 1):
        refused = refuse(KernelRefusal.UDP_TO_ADDRESSES)
        yield (
            f"chain banned{number}_udp {{",
            *_while_blocking(ban),
            *(f"\t{family} daddr @banned{number}_addresses{version} {refused}" for family, version, _ in FAMILIES),
            "}",
        )
    for number, each in enumerate(rules.all_bans, 1):
        yield _all(number, each, rules)
    if rules.options.local is not None:
        yield _output(rules)
        if rules.strangers:
            known = known_return(rules.known_sets, local=True)
            yield ("chain strangers_local_udp {", *known, "\tjump clients_udp", "}")


def refuse(kind: KernelRefusal) -> str:
    """Statements: count and refuse. Browsers then use TCP at once, while dropping in silence would cost seconds."""
    return f"{counting(kind)} reject with icmpx port-unreachable"


def _quic(rules: Ruleset, to: Tproxy) -> Iterator[Iterable[str]]:
    flows = [(version, f"{family} saddr . udp sport . {family} daddr . udp dport") for family, version, _ in FAMILIES]
    yield (
        "chain quic_prerouting {",
        "\t# Before connection tracking: it must meet a flow where it leaves, so that it is translated there.",
        "\ttype filter hook prerouting priority raw; policy accept;",
        "",
        "\tmeta l4proto != udp accept",
        "\tudp dport != 443 accept",
        *(f"\t{_SHORT} {flow} @quic{version} counter accept" for version, flow in flows),
        "\tfib daddr type local accept",
        *(f"\t{client} jump quic_to_gate" for client in rules.client_sets.matches()),
        "}",
    )
    yield (
        "chain quic_to_gate {",
        f"\tmeta l4proto udp counter notrack tproxy to :{to.port} meta mark set {to.mark:#x} accept",
        "}",
    )
    yield (
        "chain quic_forwarded {",
        *(f"\t{_SHORT} {flow} @quic{version} return" for version, flow in flows),
        "\t# Its flow left the set since this packet passed `quic_prerouting`. The next one comes to the gate, which",
        "\t# knows the flow; a refusal would end the connection.",
        f"\t{_SHORT} ct state != untracked counter drop",
        "\t# Else no gate listens: what `quic_to_gate` meant for one is not tracked.",
        f"\t{refuse(KernelRefusal.QUIC)}",
        "}",
    )
    yield (
        "chain quic_output {",
        "\t# Gates mark refusals to clients, and datagrams that change sets. What a full set does not take is dropped.",
        "\ttype filter hook output priority raw; policy accept;",
        "",
        "\tmeta l4proto tcp accept",
        f"\tmeta mark {ANSWERS:#x} counter notrack accept",
        *(f"\tmeta mark {OPENS:#x} update @quic{version} {{ {flow} }} counter accept" for version, flow in flows),
        *(
            f"\tmeta mark {TELLS:#x} udp length 8 delete @quic{version} {{ {flow} }} counter drop"
            for version, flow in flows
        ),
        *(f"\tmeta mark {TELLS:#x} {failed} counter drop" for failed in tcp_rules.failed_told()),
        f"\tmeta mark {{ {OPENS:#x}, {TELLS:#x} }} counter drop",
        "}",
    )


def _clients(rules: Ruleset) -> Iterator[str]:
    to_gates = isinstance(rules.options.forwarded, Tproxy)
    yield "chain clients_udp {"
    yield "\t# Services behind an address of this gateway's, which `prerouting` let pass: they are no egress either."
    yield "\tct status dnat return"
    yield "\t# QUIC (HTTP/3) that would pass the gates by. On other ports it is known by how it begins."
    yield f"\tudp dport 443 {'jump quic_forwarded' if to_gates else refuse(KernelRefusal.QUIC)}"
    yield f"\tct direction reply ct label {_SERVED} return"
    yield from (f"\t{begins} {refuse(KernelRefusal.QUIC_OTHER_PORTS)}" for begins in _INITIAL)
    if rules.address_bans:
        yield ""
        yield "\t# Nothing else of UDP can be told apart: while a ban blocks, all of it to its addresses is refused."
    for number, clients in enumerate(rules.banned_sets, 1):
        yield from (f"\t{client} jump banned{number}_udp" for client in clients.matches())
    yield "}"


def _all(number: int, ban: KernelBan, rules: Ruleset) -> Iterator[str]:
    yield "# What is forwarded of these clients, and no gate has taken, whatever its protocol and port."
    yield f"chain all{number}_refused {{"
    yield from _while_blocking(ban)
    yield "\t# Services behind an address of this gateway's, and what is said of a connection that a gate has."
    yield "\tct status dnat return"
    yield "\tct state related return"
    if isinstance(rules.options.forwarded, Tproxy):
        yield "\t# QUIC that a gate let through: `clients_udp` has refused all other."
        yield "\tudp dport 443 return"
    yield "\t# What no gate has: `under_ban_tcp` has the reasons, for the ports of the web."
    if rules.on_crash is Passage.OPEN and isinstance(rules.options.forwarded, Tproxy):
        yield "\tmeta l4proto tcp return"
    else:
        yield "\tmeta l4proto tcp ct state invalid counter drop"
        yield f"\tmeta l4proto tcp {counting(KernelRefusal.NOT_EXCEPTED)} reject with tcp reset"
    yield f"\tmeta l4proto udp {refuse(KernelRefusal.NOT_EXCEPTED)}"
    yield f"\t{counting(KernelRefusal.NOT_EXCEPTED)} reject with icmpx admin-prohibited"
    yield "}"


def _while_blocking(ban: KernelBan) -> Iterator[str]:
    yield "\tct direction reply return"
    if ban.blocks.start > ALWAYS.start:
        yield f"\t# The ban blocks from {ban.blocks.start}."
        yield f"\tmeta time < {_seconds(ban.blocks.start)} return"
    if ban.blocks.end < ALWAYS.end:
        yield f"\t# The ban ends at {ban.blocks.end}."
        yield f"\tmeta time >= {_seconds(ban.blocks.end)} return"
    for prefix, span in ban.exempt:
        begins, holds = "", ""
        if span.start != ALWAYS.start:
            begins, holds = f" from {span.start}", f" meta time >= {_seconds(span.start)}"
        yield f"\t# Exempt{begins} until {span.end}."
        family = "ip" if isinstance(prefix, IPv4Network) else "ip6"
        yield f"\t{family} saddr {prefix}{holds} meta time < {_seconds(span.end)} return"


def _seconds(at: Instant) -> int:
    """The instant as `meta time` is compared with."""
    return min(max(at.timestamp(), 0), _FAR)


def _output(rules: Ruleset) -> Iterator[str]:
    yield "chain output_udp {"
    yield "\ttype filter hook output priority filter; policy accept;"
    yield ""
    yield "\tmeta l4proto != udp accept"
    if rules.options.bypass is not None:
        yield f"\t{rules.options.bypass.condition} accept"
    if isinstance(rules.options.forwarded, Tproxy):
        yield f"\tmeta mark {{ {CARRIES:#x}, {OPENS:#x}, {ANSWERS:#x} }} accept"
    yield from (f"\t{client} jump clients_udp" for client in rules.client_sets.matches(local=True))
    if rules.strangers:
        yield "\tjump strangers_local_udp"
    yield "}"
