"""`tokgate run --gateway`: one command, after which the kernel follows the policy, and nothing stays when it ends."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from labs.clients import UNRECOGNIZED_NAME, python, through
from labs.gateway import Gateway, office_policy, reaches, refused, refuses
from labs.netns import Lab, wait_until
from labs.origin import ADDRESSES, ALLOWED, BANNED, Origin

Make = Callable[..., Gateway]


WAYS: dict[str, dict[str, Any]] = {"tproxy": {}, "redirect": {"options": ("--redirect",), "ports": range(10443, 10507)}}
"""How clients come to the gates, as options of the gateway."""


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each way in turn."""
    return WAYS[request.param]


def test_one_command(lab: Lab, origin: Origin, make: Make, unchanged: None, way: dict[str, Any]) -> None:
    """Clients need no settings, other networks notice nothing, and the end leaves the machine as it was."""
    options = {**way, "options": ("--drain", "20", *way.get("options", ()))}
    with started_under_load(lab, origin, make(office_policy(), **options)) as gateway:
        for family in (4, 6):
            assert refused(lab, origin, family)
            assert reaches(lab, origin, ALLOWED, family)
            assert reaches(lab, origin, BANNED, family, "guest")
            record = gateway.wait_for_record("the refusal", refuses(BANNED, Lab.CLIENT[family]))
            assert record["destination"]["ip"] == Lab.BANNED[family]
        told = json.loads(gateway.asked("status", "--json").stdout)["gateway"]
        assert told == told | {"ok": True, "table": "tokgate", "problems": []}
        with _conversation(lab, origin, "client") as office:
            assert office.says(1)
            # Once a reload says that a ban is in force for a branch it is blocked there; what is allowed goes on.
            for networks in (["office", "visitors"], ["visitors"], ["office"]):
                answer = gateway.enforces(office_policy(networks=networks))
                assert (answer["gateway"]["ok"], answer["gateway"]["policy"]) == (True, answer["version"])
                for family in (4, 6):
                    assert refused(lab, origin, family, "guest") is ("visitors" in networks)
                assert office.says(2), networks
            assert gateway.process is not None
            gateway.process.send_signal(signal.SIGTERM)
            wait_until("new ones pass", lambda: reaches(lab, origin, BANNED, 4))
            assert office.says(2)
        gateway.process.wait(20)


@contextlib.contextmanager
def started_under_load(lab: Lab, origin: Origin, gateway: Gateway) -> Iterator[Gateway]:
    """Nobody is refused because no gate listens yet, and from the first refusal on whoever begins meets the ban."""
    heard: dict[str, list[str]] = {ALLOWED: [], BANNED: []}
    over = threading.Event()

    def asks(name: str) -> None:
        while not over.wait(0.02):
            heard[name].append(python(lab.client, name, 4, False, origin.authority).error)

    threads = [threading.Thread(target=asks, args=(name,)) for name in heard]
    for each in threads:
        each.start()
    try:
        wait_until("clients ask", lambda: all(heard.values()))
        with gateway:
            wait_until("it is refused", lambda: UNRECOGNIZED_NAME in heard[BANNED])
            before = {name: len(answers) for name, answers in heard.items()}
            wait_until("clients go on", lambda: all(len(heard[name]) > before[name] + 3 for name in heard))
            over.set()
            for each in threads:
                each.join()
            assert len([error for error in heard[ALLOWED] if error]) <= 1, heard[
                ALLOWED
            ]  # what was open is reset, once
            assert heard[BANNED][0] == ""
            assert {*heard[BANNED][heard[BANNED].index(UNRECOGNIZED_NAME) :]} == {UNRECOGNIZED_NAME}
            yield gateway
    finally:
        over.set()


class Conversation:
    """A TCP connection between a client and a server that says back what it hears."""

    def __init__(self, server: socket.socket, client: socket.socket) -> None:
        self.client, self.server = client, server
        client.sendall(b"\0hello")
        self.accepted, _ = server.accept()
        self.accepted.settimeout(20)

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self.client, self.accepted, self.server):
            each.close()

    def says(self, times: int) -> bool:
        """Whether something gets there and back."""
        for number in range(times):
            self.client.sendall(b"%d" % number)
            while not self.accepted.recv(64).endswith(b"%d" % number):
                pass
            self.accepted.sendall(b"yes")
            if self.client.recv(64) != b"yes":
                return False
        return True


def _conversation(lab: Lab, origin: Origin, who: str) -> Conversation:
    """On a port of the web that nothing else serves."""
    address = Lab.ALLOWED[4]
    server = lab.origin.inside(lambda: socket.create_server((address, 8888)))
    server.settimeout(20)
    return Conversation(server, getattr(lab, who).connect(address, 8888, 20))


def test_this_machines_own_programs(lab: Lab, origin: Origin, make: Make, unchanged: None) -> None:
    """With `--local` they are under the ban as well, though not tokgate's own connections; others notice nothing.

    An explicit proxy is beside, on the port that gates for TPROXY have by default: those take the next one.
    """
    lab.gateway.hosts({name: list(addresses.values()) for name, addresses in ADDRESSES.items()})
    place = f"{Lab.GATEWAY[4]}:8080"
    policy = office_policy(networks=["office", "gateway"])
    policy["networks"]["gateway"] = {"cidrs": ["203.0.113.1/32", "2001:db8:f::1/128"], "timezone": "Europe/Brussels"}
    options = ("--local", "--mark", "0x51", "--mode", f"gate:explicit@{place}")
    with make(policy, options=options, ports=(8080, 8081)):
        for family in (4, 6):
            for who in ("gateway", "client"):
                assert refused(lab, origin, family, who)
                assert reaches(lab, origin, ALLOWED, family, who)
                assert _plain(lab, family, who) == "200"
            assert reaches(lab, origin, BANNED, family, "guest")
        for name, codes in ((BANNED, "451 000"), (ALLOWED, "200 200")):
            _, output, _ = through(lab.client, f"http://{place}", origin.authority, f"https://{name}/")
            assert f"\n{codes}\n" in output


def _plain(lab: Lab, family: int, who: str) -> str:
    """The status of an HTTP request without TLS, which an opener passes on."""
    address = f"{ALLOWED}:80:{ADDRESSES[ALLOWED][family]}"
    command = ("curl", "-sS", "--max-time", "60", "-o", "/dev/null", "-w", "%{http_code}", "--resolve", address)
    return str(getattr(lab, who).run(*command, f"http://{ALLOWED}/", check=False).stdout)
