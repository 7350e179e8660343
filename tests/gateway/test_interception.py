"""The chains that bring TCP to the gates, in a kernel: what routers say of a connection, and tell clients."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from labs.ruleset_lab import CLIENT, GATEWAY, ORIGIN, POLICY, PORT, WAYS, Lab, Namespace, ip

pytestmark = [
    pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"]),
    pytest.mark.parametrize("lab", WAYS, indirect=True),
]

BRANCH = {4: "192.0.2.130", 6: "2001:db8:1:1::130"}
"""A client in a branch office, behind the lab's client, which is its router."""
ROUTER = {4: "192.0.2.129", 6: "2001:db8:1:1::1"}
SIZES = {4: "25", 6: "64"}
HERE = {each: (GATEWAY[each], 5000) for each in GATEWAY}
MTU = 1300
LARGE = bytes(20_000)
"""What fits into a socket's buffer, and not into a packet."""


@pytest.fixture
def lab(namespace: Namespace, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The namespaces, with a ban in force, for a way in which connections come to the proxy."""
    built = Lab(WAYS[request.param])
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
