"""The chains that bring TCP to the gates, in a kernel: what a connection needs beside its first packet."""

import contextlib
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import NFCTSocket

from labs.ruleset_lab import (
    CLIENT,
    GATEWAY,
    ORIGIN,
    POLICY,
    PORT,
    SECONDS,
    TPROXY,
    WAYS,
    Lab,
    Namespace,
    Way,
    ip,
    original_destination,
)

pytestmark = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
BRANCH = {4: "192.0.2.130", 6: "2001:db8:1:1::130"}
"""A client in a branch office, behind the lab's client, which is its router."""
ROUTER = {4: "192.0.2.129", 6: "2001:db8:1:1::1"}
SIZES = {4: "25", 6: "64"}
OTHER = ("bans:", "  other: {cidrs: [10.1.0.0/16]}\nbans:")
PORTS = range(10443, 10507)
SPREAD = Way(("--redirect",), original_destination)
HERE = {each: (GATEWAY[each], 5000) for each in GATEWAY}
MTU = 1300
LARGE = bytes(20_000)
"""What fits into a socket's buffer, and not into a packet."""


@pytest.fixture(params=WAYS.values(), ids=list(WAYS))
def lab(namespace: Namespace, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The namespaces, with a ban in force, for a way in which connections come to the proxy."""
    built = Lab(request.param)
    try:
        built.load_policy(tmp_path, POLICY)
        yield built
    finally:
        built.down()


@pytest.fixture
def branch(lab: Lab) -> Iterator[Namespace]:
    """A client whose packets are smaller on the way to it than the link at either end has them."""
    made = Namespace(f"rules{os.getpid()}-branch")
    try:
        peer = ("peer", "name", "branch", "netns", lab.client.name)
        ip("link", "add", "eth0", "netns", made.name, "type", "veth", *peer)
        made.device("eth0", *(f"{BRANCH[each]}/{SIZES[each]}" for each in BRANCH), via=ROUTER)
        lab.client.device("branch", *(f"{ROUTER[each]}/{SIZES[each]}" for each in ROUTER))
        ip("-n", lab.client.name, "link", "set", "branch", "mtu", str(MTU))
        lab.client.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for each in BRANCH:
            ip("-n", lab.gateway.name, "route", "add", BRANCH[each], "via", CLIENT[each])
        yield made
    finally:
        made.remove()


def test_a_narrow_way_to_the_client(lab: Lab, branch: Namespace, version: int) -> None:
    """A router behind the gateway says what size it takes to the destination's address: the gate has to hear it."""
    with lab.gateway.listen(version, PORT) as proxy, branch.connect(ORIGIN[version], 443) as client:
        accepted, _ = proxy.accept()
        with accepted:
            accepted.sendall(LARGE)
        assert client.makefile("rb").read() == LARGE


def test_clients_are_told_of_no_shorter_way(lab: Lab, version: int) -> None:
    """Where the next router is on the clients' own link they would go there themselves, past the gates."""
    router, far = (("192.0.2.2", "203.0.113.99"), ("fe80::2", "2001:db8:f::99"))[version == 6]
    lab.gateway.sysctl("net.ipv4.conf.client.send_redirects=1")  # the default; IPv6 has no such setting
    ip("-n", lab.gateway.name, "route", "add", far, "via", router, "dev", "client")
    with lab.client.datagrams(version, to=(far, 5000)) as lost:
        lost.send(b"by the gateway")
    with lab.gateway.datagrams(version, bound=5000) as here, lab.client.datagrams(version, to=HERE[version]) as near:
        near.send(b"an answer comes after what was said of the first")
        here.sendto(b"", here.recvfrom(64)[1])
        near.recv(64)

    counted = lab.client.run("nstat", "-asz", "IcmpInRedirects", "Icmp6InRedirects").split()
    assert [counted[counted.index(name) + 1] for name in ("IcmpInRedirects", "Icmp6InRedirects")] == ["0", "0"]


def forget() -> None:
    """Have conntrack forget everything, as it does by itself with what was silent for long."""
    with NFCTSocket() as conntrack:
        conntrack.flush()


def exchange(first: socket.socket, second: socket.socket) -> None:
    """Each end hears the other."""
    for near, far in ((first, second), (second, first)):
        near.sendall(b"hello")
        assert far.recv(64) == b"hello"


@pytest.mark.parametrize("lab", [TPROXY], indirect=True, ids=["tproxy"])
@pytest.mark.parametrize("gate_first", [False, True], ids=["client speaks", "gate speaks"])
def test_a_forgotten_connection_stays_with_its_gate(lab: Lab, tmp_path: Path, version: int, gate_first: bool) -> None:
    """Also if its client is under no ban any more: the destination would answer its packets with a reset."""
    lab.gateway.sysctl("net.ipv4.tcp_early_demux=0")  # as on a gateway
    with lab.gateway.listen(version, PORT) as proxy, lab.client.connect(ORIGIN[version], 443) as client:
        accepted, _ = proxy.accept()
        with accepted:
            lab.load_policy(tmp_path, POLICY.replace("networks: [office]", "networks: [other]").replace(*OTHER))
            exchange(client, accepted)
            lab.gateway.inside(forget)
            for _ in range(2):
                exchange(*((accepted, client) if gate_first else (client, accepted)))


@pytest.mark.parametrize("lab", [SPREAD], indirect=True, ids=["redirect"])
def test_a_forgotten_connection_is_redirected_alike(lab: Lab, tmp_path: Path, version: int) -> None:
    """To the port at which its gate has it, also after the rules were loaded anew."""
    with contextlib.ExitStack() as opened:
        listeners = [opened.enter_context(lab.gateway.listen(version, port)) for port in PORTS]
        client = opened.enter_context(lab.client.connect(ORIGIN[version], 443))
        (proxy,), _, _ = select.select(listeners, (), (), SECONDS)
        accepted = opened.enter_context(proxy.accept()[0])
        lab.load_policy(tmp_path, POLICY)
        lab.gateway.inside(forget)
        exchange(client, accepted)
