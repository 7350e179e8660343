"""What the kernel refuses is counted by kind: no gate sees it, and no record would tell of it."""

import contextlib
from collections import Counter
from pathlib import Path

import pytest

from labs.netns import Namespace
from labs.ruleset_lab import BANNED, GATEWAY, INITIAL, ORIGIN, POLICY, PORT, WAYS, Host, Lab
from tokgate.gateway.kernel import RefusalTotals
from tokgate.policy.observation import KernelRefusal


@pytest.fixture(params=WAYS)
def lab(module_lab: Lab, request: pytest.FixtureRequest, tmp_path: Path) -> Lab:
    """The namespaces, with a policy that refuses clients in no network."""
    module_lab.reset()
    module_lab.way = WAYS[request.param]
    module_lab.load_policy(tmp_path, POLICY + "settings: {unknown_clients: block}\n")
    return module_lab


def counted(lab: Lab) -> Counter[str]:
    """The kernel's counters that are not zero."""
    return +Counter(lab.gateway.inside(Host(lab.gateway, Path("unused")).kernel.refused))


def sends(namespace: Namespace, version: int, address: str, port: int, said: bytes) -> None:
    """A datagram, and the kernel's answer that nobody takes it."""
    with namespace.datagrams(address, port) as near:
        near.send(said)
        with pytest.raises(ConnectionRefusedError):
            near.recv(1)


@pytest.mark.parametrize("version", [4, 6])
def test_each_kind(lab: Lab, version: int) -> None:
    """One packet of each kind is one in its counter, and what passes is in none."""
    expected = Counter[str]()
    assert counted(lab) == expected
    datagrams = [
        (KernelRefusal.QUIC, lab.client, ORIGIN[version], 443, INITIAL),
        (KernelRefusal.QUIC_OTHER_PORTS, lab.client, ORIGIN[version], 8443, INITIAL),
        (KernelRefusal.QUIC_OTHER_PORTS, lab.client, ORIGIN[version], 8443, b"\xc3\xff\0\0\x1d" + INITIAL[5:]),
        (KernelRefusal.QUIC_OTHER_PORTS, lab.client, ORIGIN[version], 8443, b"\xc3Q050" + INITIAL[5:]),
        (KernelRefusal.UDP_TO_ADDRESSES, lab.client, BANNED[version], 5000, b"hello"),
        (KernelRefusal.UNKNOWN_CLIENTS, lab.guest, ORIGIN[version], 5000, b"hello"),
    ]
    for kind, who, address, port, said in datagrams:
        sends(who, version, address, port, said)
        expected[kind] += 1
        assert counted(lab) == expected
    connections = [(KernelRefusal.DIALLED_DIRECTLY, GATEWAY[version], PORT)]
    if lab.way is WAYS["tproxy"]:  # redirected ones never get to `forward`
        connections.append((KernelRefusal.TCP_PAST_GATES, ORIGIN[version], 443))
    for kind, address, port in connections:
        with pytest.raises(ConnectionRefusedError), lab.client.connect(address, port):
            pass
        expected[kind] += 1
        assert counted(lab) == expected
    with (
        lab.origin.receiver(version, 5000) as far,
        lab.client.datagrams(ORIGIN[version], 5000) as near,
    ):
        near.send(b"hello")
        assert far.recv(16) == b"hello"
    assert counted(lab) == expected


def test_another_policy_keeps_the_counts(host: Host) -> None:
    """An edit changes the table in place; without a table there is nothing to count."""

    def counts() -> dict[str, int]:
        return host.namespace.inside(host.kernel.refused)

    assert counts() == {}
    host.up(host.rules("127.0.0.0/8"))
    with contextlib.suppress(ConnectionRefusedError), host.namespace.connect("127.0.0.1", 8080):
        pass
    before = counts()
    assert before[KernelRefusal.DIALLED_DIRECTLY] > 0
    host.load(host.rules("198.51.100.0/24"))
    assert counts() == before


def test_sums_only_grow() -> None:
    """What was counted before the start is somebody else's; a table that was lost begins with zero."""
    sums = RefusalTotals({"quic": 5})
    for quic in (5, 7, 7, 1):
        sums.take({"quic": quic})
    assert sums.totals["quic"] == 3
    sums.take({})
    sums.take({"quic": 2})
    assert sums.totals["quic"] == 5
