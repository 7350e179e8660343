"""The table's part for QUIC: what it matches, and in which order."""

from tokgate.gate.quic.flow_table import QuicLimits
from tokgate.gateway import quic_rules

CLIENTS = ("ip saddr @clients4", "ip6 saddr @clients6")


def lines(name: str) -> list[str]:
    """The rules of a chain."""
    chains = {chain[0]: chain for chain in map(list, quic_rules.chains(8443, 0x746B, CLIENTS, "reject"))}
    return [line.strip() for line in chains[f"chain {name} {{"][1:-1] if line and "#" not in line]


def test_only_short_headers_pass_by_a_set() -> None:
    """A long header, with which a connection begins, comes to a gate also in a flow that passes."""
    matched = [line for name in ("quic_prerouting", "quic_forwarded") for line in lines(name) if "@quic" in line]

    assert len(matched) == 4
    assert all(line.startswith("@th,64,1 0 ") for line in matched)
    assert lines("quic_forwarded")[-1] == "reject"


def test_only_clients_come_to_gates() -> None:
    """Nobody else's packets are taken, and the gateway's own services stay reachable."""
    *_, local, first, second = lines("quic_prerouting")

    assert local == "fib daddr type local accept"
    assert [first, second] == [f"{client} jump quic_to_gate" for client in CLIENTS]
    assert lines("quic_to_gate") == ["meta l4proto udp counter notrack tproxy to :8443 meta mark set 0x746b accept"]


def test_a_full_set_lets_nothing_by() -> None:
    """What would open a flow for the kernel is told back to the gate, which carries the flow itself then."""
    rules = lines("quic_output")
    passes = [number for number, line in enumerate(rules) if f"{quic_rules.OPENS:#x}" in line]

    assert [" update @quic4 " in rules[passes[0]], " update @quic6 " in rules[passes[1]]] == [True, True]
    assert rules[passes[-1]].endswith("drop")
    assert passes[-1] == len(rules) - 1


def test_gates_remember_flows_for_longer_than_the_kernel() -> None:
    """A flow whose time in the set is over is still known to its gate, and a gate never has more than a set holds."""
    (declared, _) = quic_rules.sets()
    stated = dict(line.strip().split(" ", 1) for line in declared if "timeout " in line or "size " in line)

    assert QuicLimits().idle > 2 * int(stated["timeout"].removesuffix("s"))
    assert QuicLimits().flows <= int(stated["size"])
