"""The table's part for QUIC: what it matches, and in which order."""

import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import NFCTSocket

from labs.builders import at
from labs.netns import FAMILY, flush_conntrack
from labs.ruleset_lab import BANNED, CLIENT, INITIAL, ORIGIN, POLICY, PORT, WAYS, Lab, printed
from tokgate.config.reload.holder import open_policy
from tokgate.gate.quic.flow_table import QuicLimits
from tokgate.gateway import libnftables, nftables, udp_rules
from tokgate.gateway.ruleset import TableOptions, ruleset_of

SHORT = b"\x40" + bytes(40)
"""A packet with a short header."""
LONG = b"\xe3\x00\x00\x00\x01" + bytes(40)
"""One with a long header, which begins no connection."""


def test_gates_remember_flows_for_longer_than_the_kernel() -> None:
    """A flow whose time in the set is over is still known to its gate, and a gate never has more than a set holds."""
    (declared, _) = udp_rules.flow_sets()
    stated = dict(line.strip().split(" ", 1) for line in declared if "timeout " in line or "size " in line)

    assert QuicLimits().idle > 2 * int(stated["timeout"].removesuffix("s"))
    assert QuicLimits().flows <= int(stated["size"])


@pytest.fixture
def lab(lab: Lab, tmp_path: Path) -> Lab:
    """The namespaces, with a ban in force."""
    lab.load_policy(tmp_path, POLICY)
    return lab


def passing(version: int, near: socket.socket) -> str:
    """The element of the set by which the flow of a client's socket passes."""
    flow = f"{CLIENT[version]} . {near.getsockname()[1]} . {ORIGIN[version]} . 443"
    return f"element inet tokgate quic{version} {{ {flow} }}"


@pytest.mark.parametrize("answers", [True, False], ids=["answers come by", "answers take another way"])
@pytest.mark.parametrize("version", [4, 6])
def test_a_flow_that_leaves_its_set_is_not_refused(lab: Lab, version: int, answers: bool) -> None:
    """Also a packet that is between the two chains just then: an ICMP error would end the client's connection."""
    family = "ip" if version == 4 else "ip6"
    leaves = f"delete @quic{version} {{ {family} saddr . udp sport . {family} daddr . udp dport }}"
    with (
        lab.gateway.receiver(version, PORT) as gate,
        lab.origin.receiver(version, 443) as far,
        lab.client.datagrams(ORIGIN[version], 443) as near,
    ):
        lab.gateway.inside(lambda: libnftables.run(f"add {passing(version, near)}"))
        near.send(SHORT)
        came = far.recvfrom(64)
        if answers:
            far.sendto(*came)
            assert near.recv(64) == SHORT
        lab.gateway.run("nft", f"insert rule inet tokgate prerouting udp dport 443 {leaves}")
        for _ in range(2):
            near.send(SHORT)
        assert gate.recv(64) == SHORT
        near.setblocking(False)
        with pytest.raises(BlockingIOError):
            near.recv(1)


@pytest.mark.parametrize("version", [4, 6])
def test_a_flow_passes_while_it_is_in_its_set(lab: Lab, version: int) -> None:
    """Then what goes on comes to the gate as well; where none listens both it and what begins is refused, at once.

    What begins, by a long header, never passes by the set.
    """
    with (
        lab.origin.receiver(version, 443) as far,
        lab.client.datagrams(ORIGIN[version], 443) as near,
    ):
        element = passing(version, near)
        with lab.gateway.receiver(version, PORT) as gate:
            lab.gateway.inside(lambda: libnftables.run(f"add {element}"))
            near.send(SHORT)
            far.sendto(SHORT, far.recvfrom(64)[1])
            assert near.recv(64) == SHORT
            near.send(INITIAL)
            assert gate.recv(2048) == INITIAL
            lab.gateway.inside(lambda: libnftables.run(f"delete {element}"))
            near.send(SHORT)
            assert gate.recv(64) == SHORT
        for passes, datagram in ((False, SHORT), (False, INITIAL), (True, LONG)):
            if passes:
                lab.gateway.inside(lambda: libnftables.run(f"add {element}"))
            near.send(datagram)
            with pytest.raises(ConnectionRefusedError):
                near.recv(1)


@pytest.mark.parametrize("version", [4, 6])
def test_gates_open_and_end_flows(lab: Lab, version: int) -> None:
    """By the marks of datagrams that they send from their clients' addresses, without a word to the kernel."""
    to, port = (ORIGIN[version], 443), 20127
    with (
        lab.gateway.receiver(version, PORT) as gate,
        lab.origin.receiver(version, 443) as far,
        lab.client.datagrams(*to, source=(CLIENT[version], port)) as near,
    ):

        def says(mark: int, said: bytes) -> None:
            with (
                lab.gateway.datagrams(*to, source=(CLIENT[version], port), mark=mark) as out,
                contextlib.suppress(PermissionError),  # so it is told what is dropped here
            ):
                out.send(said)

        says(udp_rules.OPENS, b"opens")
        assert far.recv(64) == b"opens"
        near.send(SHORT)
        assert far.recv(64) == SHORT
        says(udp_rules.TELLS, b"")
        near.send(SHORT)
        assert gate.recv(64) == SHORT
        says(udp_rules.CARRIES, b"carries")
        assert far.recv(64) == b"carries"


@pytest.mark.parametrize("version", [4, 6])
def test_a_set_without_room(lab: Lab, tmp_path: Path, version: int) -> None:
    """What opens a flow is dropped, and the gate, which is told so, goes on to carry it."""
    lab.load(printed(tmp_path).replace("size 65536", "size 1"))
    to = (ORIGIN[version], 443)
    with lab.origin.receiver(version, 443) as far:
        for port, opened in ((20127, True), (20128, False)):
            with lab.gateway.datagrams(*to, source=(CLIENT[version], port), mark=udp_rules.OPENS) as out:
                if opened:
                    out.send(b"opens")
                    assert far.recv(64) == b"opens"
                else:
                    with pytest.raises(PermissionError):
                        out.send(b"opens")


@pytest.mark.parametrize("version", [4, 6])
def test_refusals_are_not_tracked(lab: Lab, version: int) -> None:
    """conntrack would take the server that a gate answers for for the one who began."""

    def known() -> list[Any]:
        with NFCTSocket() as conntrack:
            family = FAMILY[version]
            return [each for each in conntrack.dump() if each["nfgen_family"] == family]

    to = (CLIENT[version], 20129)
    lab.gateway.inside(flush_conntrack)
    with (
        lab.client.receiver(version, 20129) as near,
        lab.gateway.datagrams(*to, source=(ORIGIN[version], 443), mark=udp_rules.ANSWERS) as out,
    ):
        out.send(b"refused")
        assert near.recv(64) == b"refused"
    assert lab.gateway.inside(known) == []


@pytest.mark.parametrize("version", [4, 6])
def test_clients_answer(lab: Lab, version: int) -> None:
    """A server in the network under a ban is reached by whom it likes, also by QUIC: answers are not egress."""
    for source, said in ((BANNED, b"question"), (ORIGIN, INITIAL)):
        with (
            lab.client.receiver(version, 8443) as served,
            lab.origin.datagrams(CLIENT[version], 8443, source=(source[version], 0)) as visitor,
        ):
            visitor.send(said)
            served.sendto(*served.recvfrom(2048))
            assert visitor.recv(2048) == said


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("version", [4, 6])
def test_a_server_that_speaks_first(lab: Lab, tmp_path: Path, version: int, way: str) -> None:
    """What the client then begins is refused like all QUIC on other ports; what else it says is an answer."""
    lab.way = WAYS[way]
    lab.load_policy(tmp_path, POLICY)
    with (
        lab.client.datagrams(ORIGIN[version], 8443, source=(CLIENT[version], 20130)) as near,
        lab.origin.datagrams(CLIENT[version], 20130, source=(ORIGIN[version], 8443)) as far,
    ):
        far.send(b"welcome")
        assert near.recv(64) == b"welcome"
        near.send(SHORT)
        assert far.recv(64) == SHORT
        near.send(INITIAL)
        with pytest.raises(ConnectionRefusedError):
            near.recv(1)
        lab.gateway.run("nft", "flush chain inet tokgate clients_udp")
        near.send(INITIAL)
        assert far.recv(2048) == INITIAL


MOMENTS = {
    "not yet": ("monitor_from: 2023-03-10T00:00, starts: 2097-03-10T00:00", "2023-06-01T00:00Z", True),
    "not any more": ("starts: 2023-03-10T00:00, last_day: 2023-06-30", "2023-06-01T00:00Z", True),
    "now": ("starts: 2023-03-10T00:00, last_day: 2097-03-10", "2023-06-01T00:00Z", False),
}
"""When a ban blocks, for which instant its table was made, and whether what it bans passes at the time of the test."""


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("version", [4, 6])
def test_the_kernel_reads_its_clock(lab: Lab, tmp_path: Path, version: int, moment: str) -> None:
    """A ban begins and ends at its second for datagrams, also with a table from before."""
    stated, instant, passes = MOMENTS[moment]
    (tmp_path / "policy.yaml").write_text(POLICY.replace("starts: 2023-03-10T00:00", stated))
    policy = open_policy(tmp_path, at(instant)).snapshot
    lab.load(nftables.text(ruleset_of(policy, at(instant), TableOptions())))
    with (
        lab.origin.receiver(version, 5228) as far,
        lab.client.datagrams(BANNED[version], 5228) as near,
    ):
        near.send(b"anything")
        if passes:
            assert far.recv(64) == b"anything"
        else:
            with pytest.raises(ConnectionRefusedError):
                near.recv(1)
