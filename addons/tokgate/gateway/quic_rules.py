"""The part of the table for QUIC: the sets of flows that the kernel forwards, and what comes to a gate instead.

Only packets with a short header pass by these sets. Whatever begins something, a connection or early data, has a long
one and comes to the gate, also in a flow that passes: else an allowed connection would open the way for a banned one.

A flow is in a set for a minute. Then its next packet comes to the gate, which knows it and sends it on: so the gate
hears which flows last, and a set that was lost with its table is filled again. Gates change the sets by datagrams of
their own, which bear marks.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from tokgate.gateway.nft_sets import FAMILIES

CARRIES: Final = 0x746C
"""The mark of a datagram that a gate sends on."""
OPENS: Final = 0x746D
"""The same, and the kernel forwards its flow from then on. Where the set is full, the gate goes on to carry it."""
ENDS: Final = 0x746E
"""Of one that only says that its flow passes no more."""
ANSWERS: Final = 0x746F
"""Of a refusal, from the address that the client wants to reach."""

FORWARDED: Final = "quic_forwarded"
"""The chain for UDP of clients to port 443 that is forwarded."""

_SECONDS: Final = 60
_MOST: Final = 65_536
"""Flows of a family; a gate has one out of the set before it begins more (gate/quic/flow_table.py)."""
_SHORT: Final = "@th,64,1 0"
"""A short header: the first bit behind UDP's own eight octets (RFC 8999 §5)."""


def sets() -> Iterator[Iterable[str]]:
    """Flows: the client's address and port, the destination's."""
    for _, version, kind in FAMILIES:
        yield (
            "# Flows of QUIC that a gate let through.",
            f"set quic{version} {{",
            f"\ttype {kind} . inet_service . {kind} . inet_service",
            "\tflags dynamic,timeout",
            f"\ttimeout {_SECONDS}s",
            f"\tsize {_MOST}",
            "}",
        )


def chains(port: int, mark: int, clients: Iterable[str], refuse: str) -> Iterator[Iterable[str]]:
    """`port` of the gates and `mark` for the routes, as for TCP; `clients`: conditions of who comes to the gates."""
    yield (
        "chain quic_prerouting {",
        "\t# Before connection tracking: it must meet a flow where it leaves, so that it is translated there.",
        "\ttype filter hook prerouting priority raw; policy accept;",
        "",
        "\tmeta l4proto != udp accept",
        "\tudp dport != 443 accept",
        *(f"\t{_SHORT} {flow} @quic{version} counter accept" for version, flow in _flows()),
        "\tfib daddr type local accept",
        *(f"\t{client} jump quic_to_gate" for client in clients),
        "}",
    )
    yield (
        "chain quic_to_gate {",
        f"\tmeta l4proto udp counter notrack tproxy to :{port} meta mark set {mark:#x} accept",
        "}",
    )
    yield (
        f"chain {FORWARDED} {{",
        *(f"\t{_SHORT} {flow} @quic{version} return" for version, flow in _flows()),
        "\t# Its flow left the set since this packet passed `quic_prerouting`. The next one comes to the gate, which",
        "\t# knows the flow; a refusal would end the connection.",
        f"\t{_SHORT} ct state != untracked counter drop",
        "\t# Else no gate listens: what `quic_to_gate` meant for one is not tracked.",
        f"\t{refuse}",
        "}",
    )
    yield (
        "chain quic_output {",
        "\t# What gates send: refusals to clients, and for the sets, which have no room for more than they have.",
        "\ttype filter hook output priority raw; policy accept;",
        "",
        "\tmeta l4proto tcp accept",
        f"\tmeta mark {ANSWERS:#x} counter notrack accept",
        *(f"\tmeta mark {OPENS:#x} update @quic{version} {{ {flow} }} counter accept" for version, flow in _flows()),
        *(f"\tmeta mark {ENDS:#x} delete @quic{version} {{ {flow} }} counter drop" for version, flow in _flows()),
        f"\tmeta mark {{ {OPENS:#x}, {ENDS:#x} }} counter drop",
        "}",
    )


def of_gates() -> str:
    """Matches what gates send, for chains that would refuse it as this machine's own."""
    return f"meta mark {{ {CARRIES:#x}, {OPENS:#x}, {ANSWERS:#x} }}"


def _flows() -> Iterator[tuple[int, str]]:
    for family, version, _ in FAMILIES:
        yield version, f"{family} saddr . udp sport . {family} daddr . udp dport"
