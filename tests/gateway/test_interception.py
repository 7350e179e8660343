"""The chains that bring TCP to the gates, in a kernel: what clients are told."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from labs.ruleset_lab import GATEWAY, POLICY, WAYS, Lab, Namespace, ip

pytestmark = [
    pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"]),
    pytest.mark.parametrize("lab", WAYS, indirect=True),
]

HERE = {each: (GATEWAY[each], 5000) for each in GATEWAY}


@pytest.fixture
def lab(namespace: Namespace, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The namespaces, with a ban in force, for a way in which connections come to the proxy."""
    built = Lab(WAYS[request.param])
    try:
        built.load_policy(tmp_path, POLICY)
        yield built
    finally:
        built.down()


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
