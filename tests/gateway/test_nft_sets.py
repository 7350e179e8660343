"""The sets of clients in a kernel: networks of which some clients are excepted."""

import re
from pathlib import Path

import pytest

from labs import netns
from labs.ruleset_lab import CLIENT, ORIGIN, POLICY, PORT, Lab, own_name, printed

CIDRS = '{cidrs: [192.0.2.0/24, "2001:db8:c::/48"]}'
BY_LINK = '{interfaces: [client0, guest0], except: [192.0.2.0/25, 192.0.2.200, "2001:db8:c::/64", "2001:db8:2::/64"]}'
BY_PREFIX = (
    '{cidrs: [192.0.2.0/24, 198.51.100.0/24, "2001:db8:c::/48", "2001:db8:9::/48"], except: [lan]}\n'
    "  lan: {interfaces: [client0]}"
)


@pytest.mark.parametrize("network", [BY_LINK, BY_PREFIX], ids=["interfaces", "prefixes"])
def test_excepted_clients_pass(lab: Lab, tmp_path: Path, network: str) -> None:
    """Prefixes excepted from interfaces, and interfaces from prefixes; all others come to the gates."""
    lab.load_policy(tmp_path, POLICY.replace(CIDRS, network))
    for version in (4, 6):
        with lab.origin.listen(version, 443) as origin, lab.client.connect(ORIGIN[version], 443):
            origin.accept()[0].close()
        with lab.gateway.listen(version, PORT) as gate, lab.guest.connect(ORIGIN[version], 443):
            accepted, _ = gate.accept()
            with accepted:
                assert own_name(accepted) == (ORIGIN[version], 443)


@pytest.mark.parametrize("network", [CIDRS, BY_LINK, BY_PREFIX], ids=["plain", "interfaces", "prefixes"])
def test_prefixes_and_ranges_are_in_named_sets(tmp_path: Path, network: str) -> None:
    """Linux fills a set that came with its rule a moment after that: what begins until then would pass."""
    (tmp_path / "policy.yaml").write_text(POLICY.replace(CIDRS, network))
    assert re.findall(r"saddr (?:!= )?\{.*|\{[^}\n]*-[^}\n]*\}.*", printed(tmp_path)) == []


def test_who_is_known_by_an_interface_is_reached(lab: Lab, tmp_path: Path) -> None:
    """Where clients of no network are refused: what comes in for one is no egress of a stranger's."""
    lab.load_policy(tmp_path, POLICY.replace(CIDRS, "{interfaces: [client0]}") + "settings: {unknown_clients: block}\n")
    for version in (4, 6):
        with lab.client.listen(version, 22) as served, lab.origin.connect(CLIENT[version], 22):
            served.accept()[0].close()
        with pytest.raises(ConnectionRefusedError), lab.origin.connect(netns.Lab.GUEST[version], 22):
            pass
        with lab.client.receiver(version, 5000) as near, lab.origin.datagrams(CLIENT[version], 5000) as far:
            far.send(b"hello")
            assert near.recv(16) == b"hello"
