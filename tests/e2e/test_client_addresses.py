"""Behind TPROXY destinations see their clients' own addresses, as if there were no gateway."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from labs.clients import http3
from labs.gateway import KERNEL_TOO, Gateway, office_policy
from labs.netns import FAMILY, Lab, wait_until
from labs.origin import ADDRESSES, ALLOWED, BANNED, Origin

FTP = 2121
VOICE = 0xB8
"""Expedited forwarding (RFC 3246), in its place in the octet."""
MASQUERADE = (
    "table inet masks { chain out { type nat hook postrouting priority srcnat; oifname origin0 masquerade; }; }"
)

type Make = Callable[..., Gateway]


@pytest.fixture
def make(any_gateway: Make, tmp_path: Path) -> Make:
    """Make gateways that see to the kernel themselves, with these settings."""

    def made(*options: str, **settings: Any) -> Gateway:
        return any_gateway(tmp_path, policy=office_policy() | {"settings": settings}, mode=KERNEL_TOO, options=options)

    return made


def seen_from(lab: Lab, origin: Origin, family: int, scheme: str = "https", name: str = ALLOWED, who: str = "") -> str:
    """The address from which the origin sees a client's request."""
    port, address = 443 if scheme == "https" else 80, ADDRESSES[name][family]
    command = ("curl", "-sS", "--max-time", "60", "--cacert", origin.authority, f"{scheme}://{name}/who")
    return str(getattr(lab, who or "client").output(*command, "--resolve", f"{name}:{port}:{address}").strip())


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_origins_see_clients(lab: Lab, origin: Origin, any_gateway: Make, nobodys_folder: Path, user: str) -> None:
    """Through gates, through openers and over HTTP/3; after a hand-over to another program, too."""
    options = ("--user", user, "--confdir", nobodys_folder / "keys")
    with any_gateway(nobodys_folder, policy=office_policy(), mode=KERNEL_TOO, options=options) as gateway:
        for turn in range(2):
            assert seen(lab, origin) == [Lab.CLIENT[4], Lab.CLIENT[4], Lab.CLIENT[6], Lab.CLIENT[6]]
            for family in (4, 6):
                assert http3(lab.client, origin, ALLOWED, family, path="/who") == (0, f"{Lab.CLIENT[family]}\n")
                assert seen_from(lab, origin, family, name=BANNED, who="guest") == Lab.GUEST[family]
            if turn == 0:
                gateway.asked("restart")


def seen(lab: Lab, origin: Origin) -> list[str]:
    """From where the origin sees a client over TLS and over plain HTTP, by each version of IP."""
    return [seen_from(lab, origin, family, scheme) for family in (4, 6) for scheme in ("https", "http")]


GATEWAYS = [Lab.EGRESS[4], Lab.EGRESS[4], Lab.EGRESS[6], Lab.EGRESS[6]]


def test_the_policy_may_want_the_gateways(lab: Lab, origin: Origin, make: Make) -> None:
    """The address of the route, or those that stand in the policy; a client's alone where TPROXY brought it."""
    with make(egress={"addresses": "gateway"}):
        assert seen(lab, origin) == GATEWAYS


@contextmanager
def masquerading(lab: Lab) -> Iterator[None]:
    """The gateway gives what leaves it its own address, as on the edge of the internet."""
    lab.gateway.run("nft", MASQUERADE)
    try:
        yield
    finally:
        lab.gateway.run("nft", "delete table inet masks")


def test_behind_masquerading(lab: Lab, origin: Origin, make: Make) -> None:
    """The origin sees the gateway again, and answers find their connections."""
    with make(), masquerading(lab):
        assert seen(lab, origin) == GATEWAYS


def test_doctor_tries_the_way_back(lab: Lab, origin: Origin, make: Make) -> None:
    """Where routes bring answers to clients elsewhere, clients would have no web: it is told with what helps."""
    lab.gateway.hosts({ALLOWED: list(ADDRESSES[ALLOWED].values())})
    route = {"-4": "192.0.2.0/24", "-6": "2001:db8:c::/64"}
    with make() as gateway:
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


def test_active_ftp(lab: Lab, make: Make, family: int) -> None:
    """A server connects back to where its client says that it is, and only if it sees it there (RFC 2577 §3)."""
    address = Lab.ALLOWED[family]
    server = lab.origin.inside(lambda: socket.create_server((address, FTP), family=FAMILY[family]))
    with make(gateway={"ports": [FTP]}), closing(server):
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


def test_dscp_goes_along(lab: Lab, origin: Origin, make: Make, family: int) -> None:
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
        with make(), lab.client.inside(marked) as client:
            client.sendall(b"\0hello")  # no TLS: its server is asked
            wait_until("it arrives so", lambda: "packets 0" not in lab.origin.output("nft", "list table inet marks"))
    finally:
        lab.origin.run("nft", "delete table inet marks")
