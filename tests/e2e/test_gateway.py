"""`tokgate run --gateway`: one command, after which the kernel follows the policy, and nothing stays when it ends."""

from __future__ import annotations

import itertools
import json
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from whenever import Instant

from labs.clients import UNRECOGNIZED_NAME, python, through
from labs.gateway import KERNEL_TOO, Gateway, office_policy, refuses
from labs.netns import Lab, wait_until
from labs.origin import ADDRESSES, ALLOWED, BANNED, Origin

Make = Callable[..., Gateway]


@pytest.fixture
def make(any_gateway: Make, tmp_path: Path) -> Make:
    """Make gateways that see to the kernel themselves."""

    def made(policy: dict[str, Any], **options: Any) -> Gateway:
        return any_gateway(tmp_path, policy=policy, mode=KERNEL_TOO, **options)

    return made


WAYS: dict[str, dict[str, Any]] = {"tproxy": {}, "redirect": {"options": ("--redirect",), "ports": range(10443, 10507)}}
"""How clients come to the gates, as options of the gateway."""


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each way in turn."""
    return WAYS[request.param]


@pytest.fixture
def unchanged(lab: Lab) -> Iterator[None]:
    """Whatever the test does, the kernel is afterwards as it was."""
    before = kernel(lab)
    yield
    after = kernel(lab)
    if after != before:  # or the next tests would fail as well
        lab.gateway.run("nft", "flush", "ruleset")
        for version, priority in itertools.product(("-4", "-6"), ("700", "746", "747")):
            lab.gateway.run("ip", version, "rule", "del", "priority", priority, check=False)
    assert after == before


def kernel(lab: Lab) -> list[str]:
    """What is loaded in the gateway."""
    commands = ("nft -s list ruleset", "ip rule", "ip -6 rule", "ip route show table 29803")
    return [lab.gateway.run(*command.split(), check=False).stdout for command in commands]


def refused(lab: Lab, origin: Origin, family: int, who: str = "client") -> bool:
    """Whether a network gets TLS's alert for the banned name."""
    return python(getattr(lab, who), BANNED, family, False, origin.authority).error == UNRECOGNIZED_NAME


def reaches(lab: Lab, origin: Origin, name: str, family: int, who: str = "client") -> bool:
    """Whether a network gets the origin's own certificate for a name."""
    answer = python(getattr(lab, who), name, family, False, origin.authority)
    return answer.certificate == origin.fingerprints[name]


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
            told = gateway.status()
            assert told["gateway"] == told["gateway"] | {"ok": True, "table": "tokgate", "problems": []}
            assert "net.ipv4.ip_forward was 0" in gateway.narrated()
        assert "net.ipv4.ip_forward is 0 again" in gateway.narrated()
        shown = lab.gateway.run("sysctl", "-n", "net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding").stdout
        assert shown.split() == ["0", "0"]


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
        gateway.write_policy(office_policy())
        gateway.asked("reload")
        assert reaches(lab, origin, BANNED, 4, "guest")


def test_connections_stay(lab: Lab, origin: Origin, make: Make, unchanged: None, way: dict[str, Any]) -> None:
    """An allowed connection through a gate goes on when its network comes into a ban or out of it, and so do others."""
    with make(office_policy(), **way) as gateway, _conversation(lab, origin, "client") as office:
        assert office.says(1)
        for networks in (["office", "visitors"], ["visitors"], ["office"]):
            gateway.write_policy(office_policy(networks=networks))
            gateway.asked("reload")
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
        gateway.write_policy(office_policy(starts=str(Instant.now().add(hours=1))))
        gateway.asked("reload")
        assert "192.0.2.0/24" in lab.gateway.run("nft", "list", "set", "inet", "tokgate", "clients4").stdout
        assert not _under_ban(lab)
        assert reaches(lab, origin, BANNED, 4)
        starts = gateway.soon(4)
        gateway.write_policy(office_policy(starts=str(starts)))
        gateway.asked("reload")
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


DAMAGE = {
    "table flushed": ("nft flush ruleset", "table inet tokgate is not loaded"),
    "table asleep": ("nft add table inet tokgate { flags dormant; }", "the table is asleep"),
    "another's table": ("nft flush ruleset; add table inet tokgate", "table inet tokgate is somebody else's"),
    "rule gone": ("nft flush chain inet tokgate to_gate", "chain to_gate lacks 5 rules"),
    "route gone": ("ip rule del priority 746", "IPv4: the policy rule 746 that looks mark"),
    "forwarding off": ("sysctl -qw net.ipv4.ip_forward=0", "net.ipv4.ip_forward is 0"),
}


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


def _is_told(gateway: Gateway, said: str) -> bool:
    return said in str(gateway.status()["gateway"]["problems"])


def test_damage(lab: Lab, origin: Origin, make: Make, unchanged: None) -> None:
    """Whatever somebody takes out comes back at once; status, metrics and health are red, and the log says why."""
    with make(office_policy(), options=("--metrics", "9300")) as gateway:
        for command, said in DAMAGE.values():
            lab.gateway.run(*command.split())
            wait_until("status is red", partial(_is_told, gateway, said))
            wait_until("it is restored", lambda: not any(gateway.status()["gateway"]["differences"].values()), 30)
            assert refused(lab, origin, 4)
        assert not gateway.status()["ok"]
        code = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:9300/healthz")
        assert lab.gateway.run(*code).stdout == "503"
        metrics = lab.gateway.run("curl", "-s", "http://127.0.0.1:9300/metrics").stdout
        assert "tokgate_gateway_in_step 0" in metrics
        assert f"tokgate_gateway_restored_total {len(DAMAGE)}" in metrics
        actions = [r["event"]["action"] for r in gateway.records() if r["event"]["action"].startswith("gateway")]
        assert actions == ["gateway-differs", "gateway-restored"] * len(DAMAGE)


DROP = "table inet other { chain drops { type filter hook prerouting priority -400; tcp dport 443 drop; }; }"
STOPPED = {
    "packets dropped by others": (f"nft {DROP}", "nft delete table inet other", "had no answer"),
    "packets of a network dropped by others": (
        f"nft {DROP.replace('tcp dport 443', 'ip saddr 192.0.2.0/24 tcp dport 443')}",
        "nft delete table inet other",
        "IPv4 from 192.0.2.254 in network office: the banned test name had no answer",
    ),
    "marks routed elsewhere": (
        "ip rule add priority 700 fwmark 0x746b lookup main",
        "ip rule del priority 700",
        "IPv4: the banned test name",
    ),
}
"""What stops enforcement although table and routes are as they should be, and the end of that."""


def test_the_canary(lab: Lab, make: Make, unchanged: None) -> None:
    """It shows that enforcement works, that it has stopped, and that it works again; then nothing of it is left."""
    policy = office_policy() | {"settings": {"gateway": {"canary": {"seconds": 1}}}}
    before = lab.gateway.run("ip", "-br", "link").stdout.count("\n")
    with make(policy, options=("--metrics", "9300")) as gateway:

        def green() -> bool:
            told = gateway.status()
            return told["ok"] and told["gateway"]["canary"]["at"] is not None

        def metric() -> str:
            exposed = lab.gateway.run("curl", "-s", "http://127.0.0.1:9300/metrics").stdout
            return next(line for line in exposed.splitlines() if line.startswith("tokgate_gateway_canary "))

        wait_until("enforcement works", green)
        assert metric() == "tokgate_gateway_canary 1.0"
        for begin, end, said in STOPPED.values():
            lab.gateway.run(*begin.split(maxsplit=1 if begin.startswith("nft") else -1))
            wait_until("the canary is red", lambda said=said: _is_told(gateway, said))  # type: ignore[misc]
            assert metric() == "tokgate_gateway_canary 0.0"
            code = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:9300/healthz")
            assert lab.gateway.run(*code).stdout == "503"
            lab.gateway.run(*end.split())
            wait_until("it is green again", green)
    wait_until("its links are gone", lambda: lab.gateway.run("ip", "-br", "link").stdout.count("\n") == before)
    actions = [r["event"]["action"] for r in gateway.records() if r["event"]["action"].startswith("canary")]
    assert actions == ["canary-failed", "canary-recovered"] * len(STOPPED)
    assert all("canary.tokgate" not in json.dumps(r) for r in gateway.records())
    (coverage,) = [r for r in gateway.records() if r["event"]["action"] == "coverage-counted"]
    assert coverage["tokgate"]["coverage"] == {}


def test_the_canary_in_a_container(lab: Lab, make: Make, unchanged: None, tmp_path: Path) -> None:
    """Where no namespace can be made it asks from the machine itself, and shows the same; it is no unknown client."""
    root = tmp_path / "root"
    root.mkdir()
    settings = {"unknown_clients": "block", "gateway": {"canary": {"seconds": 1}}}
    gateway = make(office_policy() | {"settings": settings})
    plainly = gateway.command
    # From a chroot no user namespace can be made (unshare(2)).
    confined = f'mount --rbind / {root} && exec chroot {root} setpriv --bounding-set=-sys_admin "$@"'
    gateway._run = lambda run=gateway._run: ["unshare", "--mount", "sh", "-c", confined, "sh", *run()]  # type: ignore[method-assign,misc]
    with gateway:

        def green() -> bool:
            told = gateway.status()
            return bool(told["ok"] and told["gateway"]["canary"]["asks_from"] == "machine")

        wait_until("enforcement works", green)
        said = gateway.namespace.run(*plainly("status"), env=gateway.environment).stdout
        assert "asked from this machine itself" in said
        begin, end, words = STOPPED["packets dropped by others"]
        lab.gateway.run(*begin.split(maxsplit=1))
        wait_until("the canary is red", lambda: _is_told(gateway, words))
        lab.gateway.run(*end.split())
        wait_until("it is green again", green)
    actions = [r["event"]["action"] for r in gateway.records() if r["event"]["action"].startswith("canary")]
    assert actions == ["canary-failed", "canary-recovered"]


def test_what_no_gate_sees_is_counted(lab: Lab, origin: Origin, make: Make, unchanged: None) -> None:
    """QUIC on another port is refused by the kernel alone: status, metrics and the log say how much there was."""
    initial = (b"\xc3\x00\x00\x00\x01").ljust(1200, b"\0")
    with make(office_policy(), options=("--metrics", "9300")) as gateway:
        for family in (4, 6):
            with lab.client.datagrams(Lab.ALLOWED[family], 8443) as near:
                near.settimeout(20)
                near.send(initial)
                with pytest.raises(ConnectionRefusedError):
                    near.recv(1)
        assert gateway.status()["gateway"]["refused"]["quic_other_ports"] == 2
        metrics = lab.gateway.run("curl", "-s", "http://127.0.0.1:9300/metrics").stdout
        assert 'tokgate_gateway_refused_packets_total{kind="quic_other_ports"} 2' in metrics
    (record,) = [each for each in gateway.records() if each["event"]["action"] == "coverage-counted"]
    assert record["tokgate"]["gateway"]["refused"]["quic_other_ports"] == 2


@pytest.mark.parametrize("on_crash", ["closed", "open"])
def test_a_crash(lab: Lab, origin: Origin, make: Make, on_crash: str) -> None:
    """The rules stay: who is under a ban is refused, or passes where the policy says so; everybody else passes."""
    policy = office_policy() | {"settings": {"gateway": {"on_crash": on_crash}}}
    gateway = make(policy).__enter__()
    try:
        assert refused(lab, origin, 4)
        gateway.wait_for_record(
            "the refusal is logged", refuses(BANNED, Lab.CLIENT[4])
        )  # else the next log begins with it
        assert gateway.process is not None
        gateway.process.kill()
        gateway.process.wait()
        wait_until("no gate listens", lambda: not gateway.listens())
        for family in (4, 6):
            assert reaches(lab, origin, BANNED, family, "guest")
            assert reaches(lab, origin, BANNED, family) is (on_crash == "open")
        for file in gateway.log.parent.glob("block*"):  # the log lacks an end; a new one begins
            file.unlink()
        with make(policy) as again:
            assert refused(lab, origin, 4)
            wait_until("all is well", lambda: again.status()["ok"])
    finally:
        gateway._end()


def test_a_stop_that_stays_closed(lab: Lab, origin: Origin, make: Make, tmp_path: Path) -> None:
    """With `on_stop: closed` nobody under a ban passes while tokgate is updated, and others do."""
    with make(office_policy() | {"settings": {"gateway": {"on_stop": "closed"}}}) as gateway:
        assert gateway.process is not None
        gateway.process.send_signal(signal.SIGTERM)
        gateway.process.wait(20)
        assert not reaches(lab, origin, ALLOWED, 4)
        assert not reaches(lab, origin, BANNED, 4)
        assert reaches(lab, origin, BANNED, 4, "guest")
        gateway.asked("gateway", "down", "--policies", gateway.policies)
        assert reaches(lab, origin, ALLOWED, 4)


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


def test_a_second_one(lab: Lab, origin: Origin, make: Make, unchanged: None, tmp_path: Path) -> None:
    """Another tokgate in the same network namespace changes nothing, nor does `gateway down`, and both say why."""
    with make(office_policy()) as gateway:
        assert gateway.process is not None
        wait_until("the canary has asked", lambda: gateway.status()["gateway"]["canary"]["at"] is not None)
        before = kernel(lab)
        more = ("run", "--gateway", "--user", "root", "--mode", "gate:tproxy@8090", "--policies", gateway.policies)
        for words in ((*more, "--log", tmp_path / "second.ndjson"), ("gateway", "down")):
            done = lab.gateway.run(*gateway.command(*words), env=gateway.environment, check=False)
            assert done.returncode == 3
            assert f"process {gateway.process.pid}" in done.stderr
        assert kernel(lab) == before
        assert refused(lab, origin, 4)
        told = gateway.status()
        assert (told["ok"], told["gateway"]["restored"]["count"]) == (True, 0)


def test_a_host_that_does_not_allow_it(lab: Lab, make: Make) -> None:
    """It says why, changes nothing, and exits with 3."""
    lab.gateway.run("nft", "add", "table", "inet", "tokgate")
    try:
        with pytest.raises(RuntimeError, match="tokgate ended") as told, make(office_policy()):
            pass
        assert "nothing was changed" in str(told.value)
        assert "a table inet tokgate that tokgate did not make" in str(told.value)
    finally:
        lab.gateway.run("nft", "delete", "table", "inet", "tokgate", check=False)
