"""Behind TPROXY destinations see their clients' own addresses, as if there were no gateway."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from labs.clients import seen_from
from labs.gateway import KERNEL_TOO, Gateway, MakeGateway, office_policy
from labs.netns import FAMILY, Lab, wait_until
from labs.origin import ADDRESSES, ALLOWED, Origin

FTP = 2121
VOICE = 0xB8
"""Expedited forwarding (RFC 3246), in its place in the octet."""
MASQUERADE = (
    "table inet masks { chain out { type nat hook postrouting priority srcnat; oifname origin0 masquerade; }; }"
)
POLICY = office_policy() | {"settings": {"gateway": {"ports": [FTP]}}}


@pytest.fixture(scope="module")
def running(any_gateway: MakeGateway) -> Iterator[Gateway]:
    """A gateway that sees to the kernel itself, and takes FTP."""
    with any_gateway(policy=POLICY, mode=KERNEL_TOO) as gateway:
        yield gateway


@pytest.fixture
def gateway(running: Gateway) -> Iterator[Gateway]:
    """The same, with its policy again afterwards."""
    yield running
    running.enforces(POLICY)


def seen(lab: Lab, origin: Origin) -> list[str]:
    """From where the origin sees a client over TLS and over plain HTTP, by each version of IP."""
    return [seen_from(lab.client, origin, ALLOWED, family, scheme) for family in (4, 6) for scheme in ("https", "http")]


GATEWAYS = [Lab.EGRESS[4], Lab.EGRESS[4], Lab.EGRESS[6], Lab.EGRESS[6]]


def test_the_policy_may_want_the_gateways(lab: Lab, origin: Origin, gateway: Gateway) -> None:
    """The address of the route, or those that stand in the policy; a client's alone where TPROXY brought it."""
    gateway.enforces(POLICY | {"settings": POLICY["settings"] | {"egress": {"addresses": "gateway"}}})
    assert seen(lab, origin) == GATEWAYS


@contextmanager
def masquerading(lab: Lab) -> Iterator[None]:
    """The gateway gives what leaves it its own address, as on the edge of the internet."""
    lab.gateway.run("nft", MASQUERADE)
    try:
        yield
    finally:
        lab.gateway.run("nft", "delete table inet masks")


def test_behind_masquerading(lab: Lab, origin: Origin, gateway: Gateway) -> None:
    """The origin sees the gateway again, and answers find their connections."""
    with masquerading(lab):
        assert seen(lab, origin) == GATEWAYS


def test_doctor_tries_the_way_back(lab: Lab, origin: Origin, gateway: Gateway) -> None:
    """Where routes bring answers to clients elsewhere, clients would have no web: it is told with what helps."""
    lab.gateway.hosts({ALLOWED: list(ADDRESSES[ALLOWED].values())})
    route = {"-4": "192.0.2.0/24", "-6": "2001:db8:c::/64"}
    words = ("doctor", "--gateway", "--json", "--allowed", ALLOWED, "--policies", gateway.policies)

    def told() -> list[bool]:
        results = json.loads(gateway.asked(*words, "--log", gateway.log, check=False).stdout)["results"]
        return [each["ok"] for each in results if each["subject"].startswith("answers to clients")]

    assert told() == [True, True]
    for option, prefix in route.items():
        lab.origin.run("ip", option, "route", "add", "blackhole", prefix)
    try:
        assert told() == [False, False]
    finally:
        for option, prefix in route.items():
            lab.origin.run("ip", option, "route", "del", "blackhole", prefix)


def test_active_ftp(lab: Lab, gateway: Gateway, family: int) -> None:
    """A server connects back to where its client says that it is, and only if it sees it there (RFC 2577 §3)."""
    address = Lab.ALLOWED[family]
    server = lab.origin.inside(lambda: socket.create_server((address, FTP), family=FAMILY[family]))
    with closing(server):
        server.settimeout(20)
        data = lab.client.inside(lambda: socket.create_server((Lab.CLIENT[family], 0), family=FAMILY[family]))
        with data, lab.client.connect(address, FTP) as control:
            accepted, (host, *_) = server.accept()
            with accepted:
                accepted.sendall(b"220 ready\r\n")
                assert control.recv(64) == b"220 ready\r\n"
                control.sendall(f"EPRT |1|{Lab.CLIENT[family]}|{data.getsockname()[1]}|\r\n".encode())
                _, _, said, port, _ = accepted.recv(64).decode().split("|")
                assert said == host
                with lab.origin.connect(host, int(port), source=(address, 0)):
                    data.settimeout(20)
                    data.accept()[0].close()


def test_dscp_goes_along(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """What a client marks as urgent is so on the way from the gateway, too."""
    family_word = {4: "ip", 6: "ip6"}[family]
    counted = (
        f"table inet marks {{ chain in {{ type filter hook prerouting priority 0; {family_word} dscp ef counter; }}; }}"
    )

    def marked() -> socket.socket:
        made = socket.socket(FAMILY[family], socket.SOCK_STREAM)
        option = (socket.IPPROTO_IP, socket.IP_TOS) if family == 4 else (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
        made.setsockopt(*option, VOICE)
        made.settimeout(20)
        made.connect((Lab.ALLOWED[family], 443))
        return made

    lab.origin.run("nft", counted)
    try:
        with lab.client.inside(marked) as client:
            client.sendall(b"\0hello")  # no TLS: its server is asked
            wait_until("it arrives so", lambda: "packets 0" not in lab.origin.output("nft", "list table inet marks"))
    finally:
        lab.origin.run("nft", "delete table inet marks")
