"""The chains that refuse what would pass the gates by, in a kernel: what they leave alone."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from labs.ruleset_lab import EGRESS, ORIGIN, POLICY, WAYS, Lab, Namespace, printed

PUBLISHED = "\n".join(
    f"add rule inet published prerouting {family} daddr {EGRESS[each]} {protocol} dport {port} dnat to {ORIGIN[each]}"
    for family, each in (("ip", 4), ("ip6", 6))
    for protocol, port in (("tcp", 443), ("udp", 443), ("udp", 8443))
)
INITIAL = b"\xc3\x00\x00\x00\x01".ljust(1200, b"\0")


@pytest.fixture(params=WAYS)
def lab(namespace: Namespace, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A ban in force, on a gateway that publishes services of a server by address translation."""
    built = Lab(WAYS[request.param])
    try:
        chain = "add chain inet published prerouting { type nat hook prerouting priority dstnat; }"
        built.gateway.run("nft", "-f", "-", given=f"add table inet published\n{chain}\n{PUBLISHED}\n")
        built.load_policy(tmp_path, POLICY)
        yield built
    finally:
        built.down()


@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_clients_reach_what_the_gateway_publishes(lab: Lab, version: int) -> None:
    """A web site of one's own by its public name: its address is the gateway's, which is no egress."""
    with lab.origin.listen(version, 443) as server, lab.client.connect(EGRESS[version], 443) as client:
        accepted, _ = server.accept()
        with accepted:
            accepted.send(b"hello")
        assert client.recv(64) == b"hello"
    for port in (443, 8443):
        with (
            lab.origin.datagrams(version, bound=port) as far,
            lab.client.datagrams(version, to=(EGRESS[version], port)) as near,
        ):
            near.send(INITIAL)
            far.sendto(*far.recvfrom(2048))
            assert near.recv(2048) == INITIAL


def test_rules_ask_no_ranges_of_their_own(tmp_path: Path) -> None:
    """Linux fills a set of ranges that came with its rule a moment after that: what begins just then would pass."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    assert re.findall(r"\{[^}\n]*-[^}\n]*\}.*", printed(tmp_path)) == []
