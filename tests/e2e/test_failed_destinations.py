"""What a gate could not reach, and has no name to find elsewhere, is refused at the client's next SYN."""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labs.gateway import CARRIERS, Gateway, office_policy
from labs.netns import Lab, run, wait_until
from labs.origin import ADDRESSES, ALLOWED, Origin
from labs.other_ports import BANNER, serving
from tokgate.gateway.kernel import Kernel
from tokgate.gateway.ruleset import TableOptions

PORT = 8443
REFUSES = {4: "203.0.113.87", 6: "2001:db8:f::87"}
SILENT = {4: "203.0.113.88", 6: "2001:db8:f::88"}
UNREACHABLE = {4: "203.0.113.89", 6: "2001:db8:f::89"}
LISTED = {4: "203.0.113.86", 6: "2001:db8:f::86"}
"""Refuses, too, and belongs to a service whose ban only monitors."""
FAILS = {
    "refuses": (REFUSES, errno.ECONNREFUSED),
    "silent": (SILENT, errno.EHOSTUNREACH),
    "unreachable": (UNREACHABLE, errno.EHOSTUNREACH),
}
GREETS = {4: "203.0.113.85", 6: "2001:db8:f::85"}
NEIGHBOUR = {4: "192.0.2.44", 6: "2001:db8:c::44"}
NAME = "greets.example.net"
PYTHON = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 60) as made:
    print(made.recv(64).decode())
"""
CLIENTS: dict[str, tuple[dict[int, str], tuple[str, ...]]] = {
    "python": (GREETS, (sys.executable, "-c", PYTHON, NAME, str(PORT))),
    "curl": (GREETS, ("curl", "-sS", "--max-time", "60", f"gopher://{NAME}:{PORT}/1hello")),
    "openssl": (ADDRESSES[ALLOWED], ("openssl", "s_client", "-noservername", "-brief", "-connect", f"{NAME}:443")),
}
"""The second address, and a client that shows no name."""


@pytest.fixture(scope="module")
def gate(
    lab: Lab, origin: Origin, any_gateway: Callable[..., Gateway], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway with TPROXY before addresses that refuse, say nothing, or have no route to them."""
    for each in (*REFUSES.values(), *SILENT.values(), *LISTED.values(), *GREETS.values()):
        lab.origin.run("ip", "address", "add", f"{each}/{64 if ':' in each else 24}", "dev", "eth0", "nodad")
    for each in UNREACHABLE.values():
        lab.gateway.run("ip", "route", "add", "unreachable", each)
    for each in NEIGHBOUR.values():
        run("ip", "-n", lab.client.name, "addr", "add", each, "dev", "eth0", "nodad")
    hole = f"ip daddr {SILENT[4]} tcp flags syn drop; ip6 daddr {SILENT[6]} tcp flags syn drop;"
    lab.origin.run("nft", f"table inet hole {{ chain input {{ type filter hook input priority 0; {hole} }}\n}}")
    policy = office_policy()
    policy["settings"] = {"egress": {"connect_seconds": 2}}
    policy["services"]["listed"] = {"title": "Listed", "addresses": [*LISTED.values()]}
    policy["bans"]["watch"] = policy["bans"]["office-ban"] | {"services": ["listed"], "action": "monitor"}
    with any_gateway(tmp_path_factory.mktemp("gate"), policy=policy, **CARRIERS["gates"]) as running:
        yield running
    lab.origin.run("nft", "delete table inet hole")
    for each in NEIGHBOUR.values():
        run("ip", "-n", lab.client.name, "addr", "del", each, "dev", "eth0")
    for each in UNREACHABLE.values():
        lab.gateway.run("ip", "route", "del", "unreachable", each)


@pytest.fixture(autouse=True)
def nothing_failed(lab: Lab, gate: Gateway) -> None:
    """The sets are empty."""
    for name in ("refused4", "refused6", "unreachable4", "unreachable6"):
        lab.gateway.run("nft", "flush", "set", "inet", "tokgate", name)


def fate(lab: Lab, address: str, port: int = PORT, clients: dict[int, str] = Lab.CLIENT) -> int:
    """The error with which connecting fails; 0: the client was accepted, and reset later."""
    try:
        made = lab.client.connect(address, port, source=(clients[6 if ":" in address else 4], 0))
    except OSError as error:
        return error.errno or -1
    with made, pytest.raises(ConnectionResetError):
        made.recv(1)
    return 0


def counted(lab: Lab) -> int:
    """The SYNs that were refused."""
    return lab.gateway.inside(Kernel(TableOptions(), Path("unused")).refused)["destination_failed"]


@contextlib.contextmanager
def greeting(lab: Lab, address: str) -> Iterator[None]:
    """A server that greets whoever comes."""
    server = serving(lab.origin, address, PORT)
    server.settimeout(None)

    def greet() -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = server.accept()
                with accepted, contextlib.suppress(OSError):
                    accepted.sendall(BANNER)
                    accepted.shutdown(socket.SHUT_WR)
                    while accepted.recv(64):
                        pass

    thread = threading.Thread(target=greet)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        server.close()


@pytest.mark.parametrize("how", FAILS)
def test_the_next_connection(lab: Lab, gate: Gateway, family: int, how: str) -> None:
    """As the destination's network would refuse it; to this client and this port alone."""
    addresses, error = FAILS[how]
    address, before = addresses[family], counted(lab)
    assert fate(lab, address) == 0
    assert wait_until("it is refused", lambda: fate(lab, address)) == error
    assert counted(lab) > before
    assert fate(lab, address, port=443) == 0
    assert fate(lab, address, clients=NEIGHBOUR) == 0


def test_a_server_that_comes_back(lab: Lab, gate: Gateway, family: int) -> None:
    """What was refused arrives once the destination is there and its failure is some seconds old."""
    address = REFUSES[family]
    assert fate(lab, address) == 0
    assert wait_until("it is refused", lambda: fate(lab, address))
    with greeting(lab, address):

        def greeted() -> bool:
            try:
                made = lab.client.connect(address, PORT)
            except ConnectionRefusedError:
                return False
            with made:
                return made.recv(64) == BANNER

        wait_until("it is reached", greeted)


def test_addresses_of_services(lab: Lab, gate: Gateway, family: int) -> None:
    """Who asks for them is to be logged, whether they are there or not."""
    for _ in range(3):
        assert fate(lab, LISTED[family]) == 0


@pytest.mark.parametrize("client", CLIENTS)
def test_clients_fall_back(lab: Lab, origin: Origin, gate: Gateway, family: int, client: str) -> None:
    """A client that knows two addresses, of which the first is down, comes to the second."""
    second, command = CLIENTS[client]
    lab.client.hosts({NAME: (REFUSES[family], second[family])})
    with greeting(lab, GREETS[family]):
        assert lab.client.run(*command, check=False).returncode
        wait_until("it falls back", lambda: not lab.client.run(*command, check=False).returncode)
