"""`tokgate run --gateway`: one command, after which the kernel follows the policy, and nothing stays when it ends."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from whenever import Instant

from labs.clients import UNRECOGNIZED_NAME, python, through
from labs.gateway import Gateway, kernel, office_policy, reaches, refused, refuses
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
    with lab.without_forwarding():
        with make(office_policy(), **way) as gateway:
            for family in (4, 6):
                assert refused(lab, origin, family)
                assert reaches(lab, origin, ALLOWED, family)
                assert reaches(lab, origin, BANNED, family, "guest")
                record = gateway.wait_for_record("the refusal", refuses(BANNED, Lab.CLIENT[family]))
                assert record["destination"]["ip"] == Lab.BANNED[family]
            told = json.loads(gateway.asked("status", "--json").stdout)["gateway"]
            assert told == told | {"ok": True, "table": "tokgate", "problems": []}
            assert "net.ipv4.ip_forward was 0" in gateway.narrated()
        assert "net.ipv4.ip_forward is 0 again" in gateway.narrated()
        shown = lab.gateway.run("sysctl", "-n", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding").stdout
        assert shown.split() == ["0", "0"]


def test_clients_during_the_start(lab: Lab, origin: Origin, make: Make, unchanged: None, way: dict[str, Any]) -> None:
    """Nobody is refused because no gate listens yet, and from the first refusal on whoever begins meets the ban."""
    heard: dict[str, list[str]] = {ALLOWED: [], BANNED: []}
    over = threading.Event()

    def asks(name: str) -> None:
        while not over.wait(0.01):
            heard[name].append(python(lab.client, name, 4, False, origin.authority).error)

    threads = [threading.Thread(target=asks, args=(name,)) for name in heard]
    for each in threads:
        each.start()
    try:
        wait_until("clients ask", lambda: all(heard.values()))
        with make(office_policy(), **way):
            wait_until("it is refused", lambda: UNRECOGNIZED_NAME in heard[BANNED])
            before = {name: len(answers) for name, answers in heard.items()}
            wait_until("clients go on", lambda: all(len(heard[name]) > before[name] + 3 for name in heard))
            over.set()
            for each in threads:
                each.join()
    finally:
        over.set()
    assert len([error for error in heard[ALLOWED] if error]) <= 1, heard[ALLOWED]  # what was open is reset, once
    assert heard[BANNED][0] == ""
    assert {*heard[BANNED][heard[BANNED].index(UNRECOGNIZED_NAME) :]} == {UNRECOGNIZED_NAME}


def test_an_explicit_proxy_beside(lab: Lab, origin: Origin, make: Make, unchanged: None) -> None:
    """On the port that gates for TPROXY have by default: those take the next one, and clients come either way."""
    lab.gateway.hosts({name: list(addresses.values()) for name, addresses in ADDRESSES.items()})
    place = f"{Lab.GATEWAY[4]}:8080"
    with make(office_policy(), options=("--mode", f"gate:explicit@{place}"), ports=(8080, 8081)):
        assert refused(lab, origin, 4)
        assert reaches(lab, origin, ALLOWED, 4)
        for name, codes in ((BANNED, "451 000"), (ALLOWED, "200 200")):
            _, output, _ = through(lab.client, f"http://{place}", origin.authority, f"https://{name}/")
            assert f"\n{codes}\n" in output


def test_a_network_that_is_added(lab: Lab, origin: Origin, make: Make, unchanged: None, way: dict[str, Any]) -> None:
    """Once `tokgate reload` says that a ban is in force for a branch, it is blocked there."""
    with make(office_policy(), **way) as gateway:
        assert reaches(lab, origin, BANNED, 4, "guest")
        gateway.write_policy(office_policy(networks=["office", "visitors"]))
        done = gateway.asked("reload", "--json")
        answer = json.loads(done.stdout)
        assert answer["gateway"]["ok"]
        assert answer["gateway"]["policy"] == answer["version"]
        for family in (4, 6):
            assert refused(lab, origin, family, "guest")
        gateway.enforces(office_policy())
        assert reaches(lab, origin, BANNED, 4, "guest")


def test_connections_stay(lab: Lab, origin: Origin, make: Make, unchanged: None, way: dict[str, Any]) -> None:
    """An allowed connection through a gate goes on when its network comes into a ban or out of it, and so do others."""
    with make(office_policy(), **way) as gateway, _conversation(lab, origin, "client") as office:
        assert office.says(1)
        for networks in (["office", "visitors"], ["visitors"], ["office"]):
            gateway.enforces(office_policy(networks=networks))
            assert office.says(2), networks


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


def test_a_ban_that_begins(lab: Lab, origin: Origin, make: Make, unchanged: None) -> None:
    """A network that no ban concerned yet is blocked at the second at which its ban begins, without anybody's doing."""
    with make(office_policy(starts="2098-01-01T00:00")) as gateway:
        assert reaches(lab, origin, BANNED, 4)
        assert "192.0.2.0/24" not in lab.gateway.run("nft", "list", "table", "inet", "tokgate").stdout
        gateway.enforces(office_policy(starts=str(Instant.now().add(hours=1))))
        assert "192.0.2.0/24" in lab.gateway.run("nft", "list", "set", "inet", "tokgate", "clients4").stdout
        assert not _under_ban(lab)
        assert reaches(lab, origin, BANNED, 4)
        starts = gateway.soon(4)
        gateway.enforces(office_policy(starts=str(starts)))
        wait_until("the kernel has it", lambda: _under_ban(lab), (starts - Instant.now()).total("seconds") + 5)
        assert refused(lab, origin, 4)


def test_inventories_and_overrides(lab: Lab, origin: Origin, make: Make, unchanged: None) -> None:
    """A device that an inventory gains is blocked, and whom an override exempts the kernel lets pass as well."""
    policy = office_policy(networks=["office", "laptops"])
    policy["networks"]["laptops"] = {"devices": {"file": "laptops.csv"}, "timezone": "Europe/Brussels"}
    policy["services"]["tiktok"]["addresses"] = [Lab.BANNED[4]]
    gateway = make(policy)
    inventory = gateway.policies / "laptops.csv"
    inventory.write_text("name,address\none,192.0.2.77\n")
    with gateway:
        assert reaches(lab, origin, BANNED, 4, "guest")
        inventory.write_text(f"name,address\none,192.0.2.77\ntwo,{Lab.GUEST[4]}\n")
        gateway.asked("reload")
        assert Lab.GUEST[4] in lab.gateway.run("nft", "list", "set", "inet", "tokgate", "clients4").stdout
        assert refused(lab, origin, 4, "guest")
        chain = ("nft", "list", "chain", "inet", "tokgate", "banned1_udp")
        assert Lab.CLIENT[4] not in lab.gateway.run(*chain).stdout
        words = ("--ban", "office-ban", "--client", Lab.CLIENT[4], "--for", "1h", "--reason", "Test")
        gateway.asked("override", "add", *words, "--policies", gateway.policies)
        gateway.asked("reload")
        assert f"ip saddr {Lab.CLIENT[4]}" in lab.gateway.run(*chain).stdout
        assert reaches(lab, origin, BANNED, 4)


def _under_ban(lab: Lab) -> bool:
    return "192.0.2.0/24" in lab.gateway.run("nft", "list", "set", "inet", "tokgate", "under_ban4").stdout


def test_this_machines_own_programs(lab: Lab, origin: Origin, make: Make, unchanged: None) -> None:
    """With `--local` they are under the ban as well, though not tokgate's own connections; others notice nothing."""
    policy = office_policy(networks=["office", "gateway"])
    policy["networks"]["gateway"] = {"cidrs": ["203.0.113.1/32", "2001:db8:f::1/128"], "timezone": "Europe/Brussels"}
    with make(policy, options=("--local", "--mark", "0x51")):
        for family in (4, 6):
            for who in ("gateway", "client"):
                assert refused(lab, origin, family, who)
                assert reaches(lab, origin, ALLOWED, family, who)
                assert _plain(lab, family, who) == "200"
            assert reaches(lab, origin, BANNED, family, "guest")


def _plain(lab: Lab, family: int, who: str) -> str:
    """The status of an HTTP request without TLS, which an opener passes on."""
    address = f"{ALLOWED}:80:{ADDRESSES[ALLOWED][family]}"
    command = ("curl", "-sS", "--max-time", "60", "-o", "/dev/null", "-w", "%{http_code}", "--resolve", address)
    return str(getattr(lab, who).run(*command, f"http://{ALLOWED}/", check=False).stdout)


def test_open_connections_are_drained(lab: Lab, origin: Origin, make: Make, unchanged: None) -> None:
    """A stop lets what is open finish, while what is new passes already."""
    with make(office_policy(), options=("--drain", "20")) as gateway, _conversation(lab, origin, "client") as office:
        assert office.says(1)
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGTERM)
        wait_until("new ones pass", lambda: reaches(lab, origin, BANNED, 4))
        assert office.says(2)
        office.client.close()
        office.accepted.close()
        gateway.process.wait(20)
    assert kernel(lab)[0] == ""
