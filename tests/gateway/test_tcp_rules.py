"""The chains that bring TCP to the gates, in a kernel: what a connection needs beside its first packet."""

import contextlib
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labs import netns
from labs.netns import FAMILY, Namespace, flush_conntrack, run
from labs.ruleset_lab import (
    BANNED,
    CLIENT,
    GATEWAY,
    ORIGIN,
    POLICY,
    PORT,
    TPROXY,
    WAYS,
    Lab,
    Way,
    original_destination,
)

pytestmark = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
BRANCH = {4: "192.0.2.130", 6: "2001:db8:c:1::130"}
"""A client in a branch office, behind the lab's client, which is its router."""
ROUTER = {4: "192.0.2.129", 6: "2001:db8:c:1::1"}
SIZES = {4: "25", 6: "64"}
OTHER = ("bans:", "  other: {cidrs: [10.1.0.0/16]}\nbans:")
PORTS = range(10443, 10507)
SPREAD = Way(("--redirect",), original_destination)
HERE = {each: (GATEWAY[each], 5000) for each in GATEWAY}
MTU = 1300
LARGE = bytes(20_000)
"""What fits into a socket's buffer, and not into a packet."""


@pytest.fixture(params=WAYS.values(), ids=list(WAYS))
def lab(module_lab: Lab, tmp_path: Path, request: pytest.FixtureRequest) -> Lab:
    """The namespaces, with a ban in force, for a way in which connections come to the proxy."""
    module_lab.reset()
    module_lab.way = request.param
    module_lab.load_policy(tmp_path, POLICY)
    return module_lab


@pytest.fixture
def branch(lab: Lab) -> Iterator[Namespace]:
    """As `behind`."""
    with behind(lab) as made:
        yield made


@contextlib.contextmanager
def behind(lab: Lab) -> Iterator[Namespace]:
    """A client whose packets are smaller on the way to it than the link at either end has them."""
    made = Namespace(f"tokgate{os.getpid()}-branch").add()
    try:
        peer = ("peer", "name", "branch", "netns", lab.client.name)
        run("ip", "link", "add", "eth0", "netns", made.name, "type", "veth", *peer)
        lab.client.address("branch", *(f"{ROUTER[each]}/{SIZES[each]}" for each in ROUTER))
        made.address("eth0", *(f"{BRANCH[each]}/{SIZES[each]}" for each in BRANCH))
        made.route(*ROUTER.values())
        lab.client.run("ip", "link", "set", "branch", "mtu", str(MTU))
        lab.client.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for each in BRANCH:
            lab.gateway.run("ip", "route", "add", BRANCH[each], "via", CLIENT[each])
        yield made
    finally:
        made.remove()
        for each in BRANCH:
            lab.gateway.run("ip", "route", "del", BRANCH[each], check=False)


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
    lab.gateway.sysctl("net.ipv4.conf.client0.send_redirects=1")  # the default; IPv6 has no such setting
    lab.gateway.run("ip", "route", "replace", far, "via", router, "dev", "client0")
    with lab.client.datagrams(far, 5000) as lost:
        lost.send(b"by the gateway")
    with lab.gateway.receiver(version, 5000) as here, lab.client.datagrams(*HERE[version]) as near:
        near.send(b"an answer comes after what was said of the first")
        here.sendto(b"", here.recvfrom(64)[1])
        near.recv(64)

    counted = lab.client.output("nstat", "-asz", "IcmpInRedirects", "Icmp6InRedirects").split()
    assert [counted[counted.index(name) + 1] for name in ("IcmpInRedirects", "Icmp6InRedirects")] == ["0", "0"]


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
            lab.gateway.inside(flush_conntrack)
            for _ in range(2):
                exchange(*((accepted, client) if gate_first else (client, accepted)))


@pytest.mark.parametrize("lab", [SPREAD], indirect=True, ids=["redirect"])
def test_a_forgotten_connection_is_redirected_alike(lab: Lab, tmp_path: Path, version: int) -> None:
    """To the port at which its gate has it, also after the rules were loaded anew."""
    with contextlib.ExitStack() as opened:
        listeners = [opened.enter_context(lab.gateway.listen(version, port)) for port in PORTS]
        client = opened.enter_context(lab.client.connect(ORIGIN[version], 443))
        (proxy,), _, _ = select.select(listeners, (), (), netns.SECONDS)
        accepted = opened.enter_context(proxy.accept()[0])
        lab.load_policy(tmp_path, POLICY)
        lab.gateway.inside(flush_conntrack)
        exchange(client, accepted)


TCP_REPAIR = 19
"""linux/tcp.h: a socket in this mode is closed without a word to the other side."""


def vanish(*sockets: socket.socket) -> None:
    """Close sockets as a sudden end of their machine does: nobody hears of it."""
    for each in sockets:
        each.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        each.close()


@contextlib.contextmanager
def heard(lab: Lab, version: int) -> Iterator[Callable[[int], bool]]:
    """Whether any packet of TCP from a port has come to the origin, sent before this is asked."""
    raw = lab.origin.inside(lambda: socket.socket(FAMILY[version], socket.SOCK_RAW, socket.IPPROTO_TCP))

    def came(port: int) -> bool:
        with (
            lab.origin.receiver(version, 5000) as far,
            lab.client.datagrams(ORIGIN[version], 5000) as near,
        ):
            near.send(b"after it")
            far.recv(64)
        found = False
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = raw.recv(2048, socket.MSG_DONTWAIT)
                found |= port == int.from_bytes(packet[0:2] if version == 6 else packet[20:22])
        return found

    with raw:
        yield came


STRAYS = {
    "web": ("client", ORIGIN, 443),
    "banned address": ("client", BANNED, 5228),
    "unknown": ("guest", ORIGIN, 22),
}


@pytest.mark.parametrize("stray", STRAYS)
def test_stray_packets_stay_here(lab: Lab, tmp_path: Path, version: int, stray: str) -> None:
    """A reset of a connection that nobody knows any more says to the destination whom a client wanted to reach."""
    who, to, port = STRAYS[stray]
    lab.load_policy(tmp_path, POLICY + "settings: {unknown_clients: block}\n")
    reset = struct.pack("!HHIIBBHHH", 20125, port, 1, 1, 0x50, 0x04, 0, 0, 0)
    client: Namespace = getattr(lab, who)
    raw = client.inside(lambda: socket.socket(FAMILY[version], socket.SOCK_RAW, socket.IPPROTO_TCP))
    with heard(lab, version) as came, raw:
        raw.sendto(reset, (to[version], 0))
        assert not came(20125)


@pytest.mark.parametrize("lab", [TPROXY], indirect=True, ids=["tproxy"])
def test_a_gate_that_is_gone(lab: Lab, tmp_path: Path, version: int) -> None:
    """What it had is reset, and never heard by the destination, also if its client is under no ban any more."""
    with lab.gateway.listen(version, PORT) as proxy, lab.client.connect(ORIGIN[version], 443) as client:
        accepted, _ = proxy.accept()
        lab.load_policy(tmp_path, POLICY.replace("networks: [office]", "networks: [other]").replace(*OTHER))
        proxy.close()
        vanish(accepted)
        with heard(lab, version) as came:
            client.sendall(b"is anybody there")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            assert not came(client.getsockname()[1])


TRACKED = "table inet tracks { chain forward { type filter hook forward priority 10; ct state new accept; }; }"
"""Has conntrack follow connections, as a gateway with address translation does."""


UNKNOWN_TOO = "settings: {unknown_clients: block}\n"


@pytest.mark.parametrize("settings", ["", UNKNOWN_TOO], ids=["networks", "unknown clients"])
@pytest.mark.parametrize("lab", [TPROXY], indirect=True, ids=["tproxy"])
def test_a_port_from_before(lab: Lab, tmp_path: Path, version: int, settings: str) -> None:
    """conntrack has no room for a label in what it knew before: that a gate has it is known by the gate's socket."""
    lab.gateway.run("nft", "flush", "ruleset")
    lab.gateway.run("nft", TRACKED)
    with lab.origin.listen(version, 443) as server:
        before = lab.client.connect(ORIGIN[version], 443, source=(CLIENT[version], 20126))
        vanish(server.accept()[0], before)
    lab.load_policy(tmp_path, POLICY + settings)
    with (
        lab.gateway.listen(version, PORT) as proxy,
        lab.client.connect(ORIGIN[version], 443, source=(CLIENT[version], 20126)) as client,
        proxy.accept()[0] as accepted,
    ):
        exchange(client, accepted)


def test_older_connections_to_banned_addresses_are_reset(lab: Lab, tmp_path: Path, version: int) -> None:
    """What was connected before the rules came does not stay so past the proxy."""
    lab.gateway.run("nft", "flush", "ruleset")
    with lab.origin.listen(version, 5228) as origin, lab.client.connect(BANNED[version], 5228) as client:
        accepted, _ = origin.accept()
        with accepted:
            lab.load_policy(tmp_path, POLICY)
            client.sendall(b"more")
            with pytest.raises(ConnectionResetError):
                client.recv(1)


SPOKEN_FIRST = {"web": (ORIGIN, 443), "banned address": (BANNED, 5228), "neither": (ORIGIN, 22)}
"""Servers that are heard before their clients, by what they are."""


@pytest.mark.parametrize("server", SPOKEN_FIRST)
def test_older_connections_in_which_servers_speak_are_reset(
    lab: Lab, tmp_path: Path, version: int, server: str
) -> None:
    """A gateway without conntrack gets it with the rules. It takes whom it hears first for who began: servers, too."""
    addresses, port = SPOKEN_FIRST[server]
    lab.gateway.run("nft", "flush", "ruleset")
    with lab.origin.listen(version, port) as origin, lab.client.connect(addresses[version], port) as client:
        accepted, _ = origin.accept()
        with accepted:
            lab.load_policy(tmp_path, POLICY)
            lab.gateway.inside(flush_conntrack)
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


@pytest.mark.parametrize(
    "settings",
    [("rp_filter=0", "src_valid_mark=1"), ("rp_filter=1", "src_valid_mark=1"), ("rp_filter=1", "src_valid_mark=0")],
    ids=" ".join,
)
def test_senders_are_looked_up(lab: Lab, version: int, settings: tuple[str, ...]) -> None:
    """Where Linux checks senders, with the packet's mark as wg-quick wants it, connections still come to the proxy."""
    names = [f"net.ipv4.conf.{device}.{setting}" for device in ("all", "client0") for setting in settings]
    lab.gateway.sysctl(*names)
    try:
        with lab.gateway.listen(version, PORT) as proxy, lab.client.connect(ORIGIN[version], 443):
            accepted, _ = proxy.accept()
            with accepted:
                assert lab.way.destination(accepted) == (ORIGIN[version], 443)
    finally:
        lab.gateway.sysctl(*(f"{name.partition('=')[0]}=0" for name in names))
