"""The rules in a kernel: which ports and addresses reach the proxy, and which datagrams are refused."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import NFCTSocket

from labs.ruleset_lab import BANNED, CLIENT, ORIGIN, POLICY, PORT, WAYS, Lab, Namespace, printed

NO_NFT = "" if shutil.which("nft") and shutil.which("ip") else "needs nft and ip"
pytestmark = [
    pytest.mark.skipif(bool(NO_NFT) or os.geteuid() != 0, reason=NO_NFT or "needs root"),
    pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"]),
]

FREE = '  free: {cidrs: [198.51.100.0/24, "2001:db8:9::/48"]}\n'
LATER = POLICY.replace("starts: 2023", "monitor_from: 2023-03-10T00:00, starts: 2097")
UNTIL_LATER = POLICY.replace("starts: 2023-03-10T00:00", "starts: 2023-03-10T00:00, last_day: 2097-03-10")
LAPSED = POLICY.replace("starts: 2023-03-10T00:00", "starts: 2023-03-10T00:00, last_day: 2023-03-10, on_expiry: lapse")
EXEMPT = f"""{POLICY}exemptions:
  press:
    ban: clips
    clients: [{CLIENT[4]}, "{CLIENT[6]}"]
    starts: 2023-03-10T00:00
    until: 2097-03-10T00:00
    reason: Press
"""
PORTS = POLICY + "settings: {gateway: {ports: [5000-5002, 5001-5010]}}\n"
UNKNOWN = POLICY + "settings: {unknown_clients: block}\n"

INITIAL = {
    "version 1": b"\xc3\x00\x00\x00\x01",
    "version 2": b"\xd3\x6b\x33\x43\xcf",
    "fixed bit greased": b"\x83\x00\x00\x00\x01",
    "a draft": b"\xc3\xff\x00\x00\x1d",
    "of Google's": b"\xc3Q050",
}
"""How datagrams with an Initial packet begin (RFC 9000 §17.2.2, RFC 9369 §3.2, RFC 9287), and of versions before."""
OTHER = {
    "DTLS": b"\x16\xfe\xfd\x00\x00\x00\x01",
    "WireGuard": b"\x01\x00\x00\x00\x01",
    "short header": b"\x43\x00\x00\x00\x01",
    "another version": b"\xc3\x00\x00\x00\x05",
}


@pytest.fixture(scope="module", params=WAYS)
def built(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The namespaces, without rules, for each way in which connections come to the proxy."""
    lab = Lab(WAYS[request.param])
    try:
        yield lab
    finally:
        lab.down()


@pytest.fixture
def lab(built: Lab, tmp_path: Path) -> Lab:
    """With the ruleset of the policy above."""
    return load(built, tmp_path, POLICY)


def load(lab: Lab, folder: Path, policy: str) -> Lab:
    """Load the ruleset of another policy."""
    lab.load_policy(folder, policy)
    return lab


def forget() -> None:
    """Have conntrack forget what it knows of connections, so that it is as it would be without rules before."""
    with NFCTSocket() as conntrack:
        conntrack.flush()


def redirected(lab: Lab, version: int, address: str, port: int, client: Namespace | None = None) -> None:
    """The proxy gets the connection, and learns where it was meant for."""
    with lab.gateway.listen(version, PORT) as proxy, (client or lab.client).connect(address, port):
        accepted, _ = proxy.accept()
        with accepted:
            assert lab.way.destination(accepted) == (address, port)


def forwarded(lab: Lab, version: int, address: str, port: int, client: Namespace | None = None) -> None:
    """The origin itself gets the connection."""
    with lab.origin.listen(version, port) as origin, (client or lab.client).connect(address, port):
        origin.accept()[0].close()


def arrives(lab: Lab, version: int, address: str, port: int, said: bytes, client: Namespace | None = None) -> None:
    """A datagram reaches the origin."""
    with (
        lab.origin.datagrams(version, bound=port) as far,
        (client or lab.client).datagrams(version, to=(address, port)) as near,
    ):
        near.send(said)
        assert far.recv(2048) == said


def answered(version: int, client: Namespace, server: Namespace, address: str, said: bytes) -> None:
    """A datagram reaches a server, which sends it back."""
    with (
        server.datagrams(version, bound=8443) as far,
        client.datagrams(version, to=(address, 8443)) as near,
    ):
        near.send(said)
        far.sendto(*far.recvfrom(2048))
        assert near.recv(2048) == said


def refused(version: int, client: Namespace, address: str, port: int, said: bytes) -> None:
    """The sender of a datagram is told at once that nobody takes it."""
    with client.datagrams(version, to=(address, port)) as near:
        near.send(said)
        with pytest.raises(ConnectionRefusedError):
            near.recv(1)


@pytest.mark.parametrize("port", [853, 2053, 3128, 4433, 8080, 8443, 9443])
def test_usual_ports_of_the_web_are_redirected(lab: Lab, version: int, port: int) -> None:
    """A banned site on another port of the web would be served past the proxy."""
    redirected(lab, version, ORIGIN[version], port)


@pytest.mark.parametrize("port", [80, 443, 8443])
def test_networks_under_no_ban_pass(built: Lab, tmp_path: Path, version: int, port: int) -> None:
    """Where no ban needs it, servers see their clients' own addresses, and the gateway costs nothing."""
    load(built, tmp_path, POLICY.replace("bans:", f"{FREE}bans:"))
    forwarded(built, version, ORIGIN[version], port, built.stranger)


def test_other_ports_of_other_addresses_pass(lab: Lab, version: int) -> None:
    """SSH and mail are no business of the proxy's."""
    forwarded(lab, version, ORIGIN[version], 22)


@pytest.mark.parametrize(("port", "taken"), [(5000, True), (5010, True), (4999, False), (5011, False), (8443, False)])
def test_ports_are_a_setting(built: Lab, tmp_path: Path, version: int, port: int, taken: bool) -> None:
    """An admin who knows where the web is in this network says so; ranges that overlap are one."""
    load(built, tmp_path, PORTS)
    (redirected if taken else forwarded)(built, version, ORIGIN[version], port)


def test_no_other_ports_at_all(built: Lab, tmp_path: Path, version: int) -> None:
    """`ports: []` keeps to 80 and 443."""
    load(built, tmp_path, POLICY + "settings: {gateway: {ports: []}}\n")
    forwarded(built, version, ORIGIN[version], 8443)
    redirected(built, version, ORIGIN[version], 443)


@pytest.mark.parametrize("port", [22, 5228, 40000])
def test_every_port_of_a_banned_address_is_redirected(lab: Lab, version: int, port: int) -> None:
    """Apps speak to their service's own addresses on ports of their own."""
    redirected(lab, version, BANNED[version], port)
    forwarded(lab, version, ORIGIN[version], port)


def test_banned_addresses_are_nothing_special_to_others(lab: Lab, version: int) -> None:
    """Who is in no network under a ban reaches them, over TCP and UDP."""
    forwarded(lab, version, BANNED[version], 5228, lab.stranger)
    arrives(lab, version, BANNED[version], 5228, b"hello", lab.stranger)


def test_older_connections_to_banned_addresses_are_reset(built: Lab, tmp_path: Path, version: int) -> None:
    """What was connected before the rules came does not stay so past the proxy."""
    built.gateway.run("nft", "flush", "ruleset")
    with built.origin.listen(version, 5228) as origin, built.client.connect(BANNED[version], 5228) as client:
        accepted, _ = origin.accept()
        with accepted:
            load(built, tmp_path, POLICY)
            client.sendall(b"more")
            with pytest.raises(ConnectionResetError):
                client.recv(1)


SPOKEN_FIRST = {"web": (ORIGIN, 443), "banned address": (BANNED, 5228), "neither": (ORIGIN, 22)}
"""Servers that are heard before their clients, by what they are."""


@pytest.mark.parametrize("server", SPOKEN_FIRST)
def test_older_connections_in_which_servers_speak_are_reset(
    built: Lab, tmp_path: Path, version: int, server: str
) -> None:
    """A gateway without conntrack gets it with the rules. It takes whom it hears first for who began: servers, too."""
    addresses, port = SPOKEN_FIRST[server]
    built.gateway.run("nft", "flush", "ruleset")
    with built.origin.listen(version, port) as origin, built.client.connect(addresses[version], port) as client:
        accepted, _ = origin.accept()
        with accepted:
            load(built, tmp_path, POLICY)
            built.gateway.inside(forget)
            accepted.sendall(b"more")
            if server == "neither":
                client.sendall(client.recv(64))
                assert accepted.recv(64) == b"more"
            else:
                with pytest.raises(ConnectionResetError):
                    client.makefile("rb").read()


def test_clients_answer_banned_addresses(lab: Lab, version: int) -> None:
    """A server in the network under a ban is reached by whom it likes: answers are not egress."""
    with lab.client.listen(version, 5228) as served, lab.origin.connect(CLIENT[version], 5228) as visitor:
        accepted, _ = served.accept()
        with accepted:
            accepted.sendall(b"welcome")
            assert visitor.recv(16) == b"welcome"


@pytest.mark.parametrize("port", [53, 443, 5228])
def test_udp_to_a_banned_address_is_refused(lab: Lab, version: int, port: int) -> None:
    """What can't be told apart must not reach a banned service."""
    refused(version, lab.client, BANNED[version], port, b"anything")


def test_udp_to_other_addresses_passes(lab: Lab, version: int) -> None:
    """Games, calls and DNS go on."""
    arrives(lab, version, ORIGIN[version], 5228, b"anything")


@pytest.mark.parametrize("policy", [LATER, LAPSED, EXEMPT], ids=["not yet blocked", "lapsed", "exempt"])
def test_udp_to_an_address_passes_while_nothing_blocks_it(
    built: Lab, tmp_path: Path, version: int, policy: str
) -> None:
    """A ban that only watches, is over, or leaves this client out breaks no calls."""
    load(built, tmp_path, policy)
    arrives(built, version, BANNED[version], 5228, b"anything")


def test_a_ban_refuses_datagrams_until_it_ends(built: Lab, tmp_path: Path, version: int) -> None:
    """A ban with an end still to come blocks calls to the service's addresses like one without."""
    load(built, tmp_path, UNTIL_LATER)
    refused(version, built.client, BANNED[version], 5228, b"anything")


@pytest.mark.parametrize("beginning", INITIAL.values(), ids=INITIAL)
def test_quic_is_refused_on_any_port(lab: Lab, version: int, beginning: bytes) -> None:
    """HTTP/3 on another port would pass the proxy by; the first packet is refused, so that browsers use TCP."""
    refused(version, lab.client, ORIGIN[version], 8443, beginning.ljust(1200, b"\0"))
    arrives(lab, version, ORIGIN[version], 8443, beginning.ljust(1200, b"\0"), lab.stranger)


@pytest.mark.parametrize("beginning", OTHER.values(), ids=OTHER)
def test_what_is_no_quic_passes(lab: Lab, version: int, beginning: bytes) -> None:
    """VPNs, calls and games are not taken for QUIC, however large their datagrams are."""
    arrives(lab, version, ORIGIN[version], 8443, beginning.ljust(1200, b"\0"))


def test_small_datagrams_are_no_quic(lab: Lab, version: int) -> None:
    """Voice (RTP) may begin like a long header, and no server takes an Initial packet this small."""
    arrives(lab, version, ORIGIN[version], 8443, INITIAL["fixed bit greased"].ljust(1199, b"\0"))


def test_clients_serve_quic(lab: Lab, version: int) -> None:
    """A server in the network under a ban may answer with QUIC's long headers."""
    answered(version, lab.origin, lab.client, CLIENT[version], INITIAL["version 1"].ljust(1200, b"\0"))


def test_clients_of_no_network(built: Lab, tmp_path: Path, version: int) -> None:
    """Under `unknown_clients: block` an address in no network is no way out, on no port and not over UDP."""
    load(built, tmp_path, UNKNOWN)
    for port in (22, 80, 8443):
        redirected(built, version, ORIGIN[version], port, built.stranger)
    refused(version, built.stranger, ORIGIN[version], 5228, b"anything")


def test_unknown_clients_leave_known_ones_alone(built: Lab, tmp_path: Path, version: int) -> None:
    """The clients of the policy keep what they had: other ports, UDP with its answers, and who comes to them."""
    load(built, tmp_path, UNKNOWN.replace("bans:", f"{FREE}bans:"))
    for client in (built.client, built.stranger):
        forwarded(built, version, ORIGIN[version], 22, client)
        answered(version, client, built.origin, ORIGIN[version], b"question")
    arrives(built, version, ORIGIN[version], 8443, INITIAL["version 1"].ljust(1200, b"\0"), built.stranger)
    with built.client.listen(version, 25) as served, built.origin.connect(CLIENT[version], 25):
        served.accept()[0].close()


@pytest.mark.parametrize(
    "settings",
    [("rp_filter=0", "src_valid_mark=1"), ("rp_filter=1", "src_valid_mark=1"), ("rp_filter=1", "src_valid_mark=0")],
    ids=" ".join,
)
def test_senders_are_looked_up(lab: Lab, version: int, settings: tuple[str, ...]) -> None:
    """Where Linux checks senders, with the packet's mark as wg-quick wants it, connections still come to the proxy."""
    names = [f"net.ipv4.conf.{device}.{setting}" for device in ("all", "client") for setting in settings]
    lab.gateway.sysctl(*names)
    try:
        redirected(lab, version, ORIGIN[version], 443)
    finally:
        lab.gateway.sysctl(*(f"{name.partition('=')[0]}=0" for name in names))


def test_nft_takes_every_part(built: Lab, tmp_path: Path, version: int) -> None:
    """Links, this machine's programs, a port of its own for HTTP, addresses of one family, strangers: all load."""
    address = BANNED[version]
    policy = EXEMPT.replace('[203.0.113.20, "2001:db8:f::20"]', f'["{address}"]')
    policy = policy.replace("bans:", "  shop: {interfaces: [eth7]}\nbans:").replace("[office]", "[office, shop]")
    (tmp_path / "policy.yaml").write_text(f"{policy}settings: {{unknown_clients: block}}\n")
    for arguments in ((), ("--mark", "7"), ("--local", "--uid", "990", "--http-port", "9001")):
        built.gateway.run("nft", "-c", "-f", "-", given=printed(tmp_path, *arguments))
