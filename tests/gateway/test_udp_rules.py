"""The table's part for QUIC: what it matches, and in which order."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from labs.builders import at, ban, snapshot
from labs.ruleset_lab import ANY, CLIENT, FAMILY, ORIGIN, POLICY, PORT, Lab, Namespace
from tokgate.gate.quic.flow_table import QuicLimits
from tokgate.gateway import libnftables, udp_rules
from tokgate.gateway.ruleset import TableOptions, Tproxy, ruleset_of

SHORT = b"\x40" + bytes(40)
"""A packet with a short header."""
CLIENTS = ("ip saddr @clients4", "ip6 saddr @clients6")
RULES = ruleset_of(snapshot(ban()), at("2023-06-01T12:00:00Z"), TableOptions(forwarded=Tproxy(8443)))


def lines(name: str) -> list[str]:
    """The rules of a chain."""
    chains = {chain[0]: chain for chain in map(list, udp_rules.chains(RULES))}
    return [line.strip() for line in chains[f"chain {name} {{"][1:-1] if line and "#" not in line]


def test_only_short_headers_pass_by_a_set() -> None:
    """A long header, with which a connection begins, comes to a gate also in a flow that passes."""
    matched = [line for name in ("quic_prerouting", "quic_forwarded") for line in lines(name) if "@quic" in line]

    assert len(matched) == 4
    assert all(line.startswith("@th,64,1 0 ") for line in matched)
    assert lines("quic_forwarded")[-1] == "counter name refused_quic reject with icmpx port-unreachable"


def test_only_clients_come_to_gates() -> None:
    """Nobody else's packets are taken, and the gateway's own services stay reachable."""
    *_, local, first, second = lines("quic_prerouting")

    assert local == "fib daddr type local accept"
    assert [first, second] == [f"{client} jump quic_to_gate" for client in CLIENTS]
    assert lines("quic_to_gate") == ["meta l4proto udp counter notrack tproxy to :8443 meta mark set 0x746b accept"]


def test_a_full_set_lets_nothing_by() -> None:
    """What would open a flow for the kernel is told back to the gate, which carries the flow itself then."""
    rules = lines("quic_output")
    passes = [number for number, line in enumerate(rules) if f"{udp_rules.OPENS:#x}" in line]

    assert [" update @quic4 " in rules[passes[0]], " update @quic6 " in rules[passes[1]]] == [True, True]
    assert rules[passes[-1]].endswith("drop")
    assert passes[-1] == len(rules) - 1


def test_gates_remember_flows_for_longer_than_the_kernel() -> None:
    """A flow whose time in the set is over is still known to its gate, and a gate never has more than a set holds."""
    (declared, _) = udp_rules.flow_sets()
    stated = dict(line.strip().split(" ", 1) for line in declared if "timeout " in line or "size " in line)

    assert QuicLimits().idle > 2 * int(stated["timeout"].removesuffix("s"))
    assert QuicLimits().flows <= int(stated["size"])


@pytest.fixture
def lab(namespace: Namespace, tmp_path: Path) -> Iterator[Lab]:
    """The namespaces, with a ban in force."""
    built = Lab()
    try:
        built.load_policy(tmp_path, POLICY)
        yield built
    finally:
        built.down()


def at_gate(lab: Lab, version: int) -> socket.socket:
    """A socket to which `tproxy` brings datagrams; nobody reads it."""

    def make() -> socket.socket:
        made = socket.socket(FAMILY[version], socket.SOCK_DGRAM)
        made.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
        made.bind((ANY[version], PORT))
        return made

    return lab.gateway.inside(make)


def passing(version: int, near: socket.socket) -> str:
    """The element of the set by which the flow of a client's socket passes."""
    flow = f"{CLIENT[version]} . {near.getsockname()[1]} . {ORIGIN[version]} . 443"
    return f"element inet tokgate quic{version} {{ {flow} }}"


@pytest.mark.parametrize("answers", [True, False], ids=["answers come by", "answers take another way"])
@pytest.mark.parametrize("version", [4, 6])
def test_a_flow_that_leaves_its_set_is_not_refused(lab: Lab, version: int, answers: bool) -> None:
    """Also packets that are between the two chains just then: an ICMP error would end the client's connection."""
    with (
        at_gate(lab, version),
        lab.origin.datagrams(version, bound=443) as far,
        lab.client.datagrams(version, to=(ORIGIN[version], 443)) as near,
    ):
        element = passing(version, near)

        def come_and_go() -> None:
            for _ in range(100):
                libnftables.run(f"delete {element}")
                libnftables.run(f"add {element}")

        lab.gateway.inside(lambda: libnftables.run(f"add {element}"))
        near.send(SHORT)
        came = far.recvfrom(64)
        if answers:
            far.sendto(*came)
            assert near.recv(64) == SHORT
        changes = threading.Thread(target=lambda: lab.gateway.inside(come_and_go))
        changes.start()
        refused = 0
        while changes.is_alive():
            try:
                near.send(SHORT)
            except ConnectionRefusedError:
                refused += 1
        assert refused == 0


@pytest.mark.parametrize("version", [4, 6])
def test_without_a_gate_all_is_refused(lab: Lab, version: int) -> None:
    """At once, so that clients come over TCP: what begins, and a flow that the kernel forwarded."""
    with (
        lab.origin.datagrams(version, bound=443) as far,
        lab.client.datagrams(version, to=(ORIGIN[version], 443)) as near,
    ):
        element = passing(version, near)
        lab.gateway.inside(lambda: libnftables.run(f"add {element}"))
        near.send(SHORT)
        far.sendto(SHORT, far.recvfrom(64)[1])
        assert near.recv(64) == SHORT
        lab.gateway.inside(lambda: libnftables.run(f"delete {element}"))
        for datagram in (SHORT, b"\xc3\x00\x00\x00\x01".ljust(1200, b"\0")):
            near.send(datagram)
            with pytest.raises(ConnectionRefusedError):
                near.recv(1)
