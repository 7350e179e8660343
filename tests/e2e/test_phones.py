"""`tokgate phone`: phones behind WireGuard, one peer each, and the gates behind the tunnel."""

from __future__ import annotations

import csv
import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.rdatatype
import pytest

from labs.clients import UNRECOGNIZED_NAME, python
from labs.gateway import KERNEL_TOO, Gateway, office_policy, refuses
from labs.netns import Lab, Namespace, wait_until
from labs.origin import ALLOWED, BANNED, LARGE, Origin
from labs.requirements import require
from labs.resolver import ADDRESS as RESOLVER
from labs.resolver import resolver_in

NOBODY = 65534
REQUESTS = 40
UNIT = Path(__file__).parents[2] / "deploy/systemd/tokgate-phones.service"
DOWNLOADS = 2
"""Of each of two phones, at once."""
PREFIX = {4: "10.83.0.", 6: "fd83:7467:6174:6500::"}


TOOLS = ("wg", "wireguard-go")
"""What a machine needs for phones."""


@contextmanager
def connected(namespace: Namespace, interface: str, configuration: str) -> Iterator[None]:
    """While the block lasts, all that a namespace sends goes through the tunnel of a configuration (wg-quick(8)).

    The kernel of a test machine has no WireGuard as a rule: the phone uses wireguard-go. Its gateway is on the link.
    """
    stated = dict(line.split(" = ", 1) for line in configuration.splitlines() if " = " in line)
    kept = "\n".join(line for line in configuration.splitlines() if not line.startswith(("Address", "DNS")))
    before = {
        version: namespace.run("ip", version, "route", "show", "default").stdout.split() for version in ("-4", "-6")
    }
    namespace.run("wireguard-go", interface)
    try:
        namespace.run("wg", "setconf", interface, "/dev/stdin", given=kept)
        namespace.address(interface, *stated["Address"].split(", "))
        for version in before:
            namespace.run("ip", version, "route", "replace", "default", "dev", interface)
            namespace.run("ip", version, "route", "del", "default", "via", before[version][2], check=False)
        yield
    finally:
        namespace.run("ip", "link", "del", interface, check=False)
        for version, route in before.items():
            namespace.run("ip", version, "route", "replace", *route, check=False)


class PhoneGateway:
    """`tokgate phone` on a gateway."""

    def __init__(self, gateway: Gateway, interface: str) -> None:
        self.gateway = gateway
        self.interface = interface
        self.state = gateway.folder / "tunnel"

    def command(self, *words: str | Path, check: bool = True) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of `tokgate phone`."""
        action, *rest = words
        where = ("--policies", self.gateway.policies, "--state", self.state)
        command = self.gateway.command("phone", action, *where, *rest)
        done = self.gateway.namespace.run(*command, env=self.gateway.environment, check=check)
        return done.returncode, done.stdout, done.stderr

    def added(self, name: str, *options: str) -> str:
        """The configuration of a new phone."""
        return self.command("add", name, "--config", "-", *options)[1]

    def down(self) -> None:
        """Take the tunnel out, whatever has become of it."""
        self.command("down", check=False)


@pytest.fixture
def interface(lab: Lab) -> str:
    """A name that no other run has: sockets of wireguard-go lie beside each other, whatever the namespace."""
    require(*TOOLS)
    return f"wg{os.getpid()}"


@pytest.fixture
def tunnel(any_gateway: Callable[..., Gateway], interface: str, tmp_path: Path) -> Iterator[PhoneGateway]:
    """A tunnel for phones, all of which are under the ban; `reporter` is exempt by its name. tokgate does not run."""
    policy: dict[str, Any] = office_policy(networks=["phones"])
    policy["exemptions"] = {
        "press": {"ban": "office-ban", "devices": ["reporter"], "until": "2099-01-01T00:00", "reason": "Press"}
    }
    made = PhoneGateway(any_gateway(tmp_path, policy=policy, mode=KERNEL_TOO), interface)
    made.command("up", "--endpoint", f"{Lab.GATEWAY[4]}:51820", "--dns", RESOLVER, "--interface", interface)
    yield made
    made.down()


@pytest.fixture
def running(tunnel: PhoneGateway) -> Iterator[Gateway]:
    """Gates behind the tunnel."""
    with tunnel.gateway as gateway:
        yield gateway


def at(configuration: str, host: str) -> str:
    """A configuration whose endpoint is another of the gateway's addresses: the lab has no network around it."""
    return configuration.replace(f"{Lab.GATEWAY[4]}:", f"{host}:")


def reaches(phone: Namespace, origin: Origin, name: str, family: int) -> bool:
    """Whether a phone gets the origin's own certificate for a name."""
    return python(phone, name, family, False, origin.authority).certificate == origin.fingerprints[name]


def refused(phone: Namespace, origin: Origin, family: int) -> bool:
    """Whether a phone gets TLS's alert for the banned name."""
    return python(phone, BANNED, family, False, origin.authority).error == UNRECOGNIZED_NAME


def download(phone: Namespace, origin: Origin) -> int:
    """Octets of a large file that a phone gets."""
    resolved = ("--resolve", f"{ALLOWED}:443:{Lab.ALLOWED[4]}", "--cacert", origin.authority)
    written = ("-o", "/dev/null", "-w", "%{size_download}")
    done = phone.run("curl", "-sS", "--max-time", "90", f"https://{ALLOWED}/large", *resolved, *written, seconds=100)
    return int(done.stdout)


def test_two_phones_at_once(lab: Lab, origin: Origin, tunnel: PhoneGateway, running: Gateway) -> None:
    """Each is a client of its own in policy and log; both at once lose nothing; one that is revoked is out at once."""
    first, second = tunnel.added("worker", "--owner", "alice"), tunnel.added("reporter")
    lines = first.splitlines()
    assert lines[2:4] == [f"Address = {PREFIX[4]}2/32, {PREFIX[6]}2/128", f"DNS = {RESOLVER}"]
    with (
        resolver_in(lab.origin) as resolver,
        connected(lab.client, f"a{os.getpid()}", first),
        connected(lab.guest, f"b{os.getpid()}", at(second, "198.51.100.1")),
    ):
        for family in (4, 6):
            assert reaches(lab.client, origin, ALLOWED, family)
            assert refused(lab.client, origin, family)
            running.wait_for_record("the refusal", refuses(BANNED, f"{PREFIX[family]}2"))
            wait_until("the exemption holds", lambda: reaches(lab.guest, origin, BANNED, family))  # noqa: B023
        with lab.client.datagrams(RESOLVER, 53) as asking:
            question = dns.message.make_query("www.example.org", "A")
            dns.query.send_udp(asking, question, None)
            answer = dns.query.receive_udp(asking, None)[0]
        assert [each.rdtype for each in answer.answer] == [dns.rdatatype.A]
        assert "www.example.org" in resolver.asked

        # What phones send each other bears their own addresses, by which bans and the log know them.
        place = (f"{PREFIX[4]}3", 2222)
        with lab.guest.inside(lambda: socket.create_server(place)) as server, lab.client.connect(*place, 20):
            server.settimeout(20)
            accepted, (host, _) = server.accept()
            accepted.close()
        assert host == f"{PREFIX[4]}2"

        lost, octets = in_parallel(origin, lab.client, lab.guest)
        assert (lost, octets) == ([], [LARGE] * 2 * DOWNLOADS)

        listed = json.loads(tunnel.command("list", "--json")[1])
        assert [(each["name"], each["owner"], each["seen"] is None) for each in listed["phones"]] == [
            ("worker", "alice", False),
            ("reporter", None, False),
        ]
        tunnel.command("revoke", "worker")
        with pytest.raises(TimeoutError):
            lab.client.connect(Lab.ALLOWED[4], 443, 2)
        assert reaches(lab.guest, origin, ALLOWED, 4)
    assert tunnel.added("next").splitlines()[2].startswith(f"Address = {PREFIX[4]}4/32")  # no address comes again


def in_parallel(origin: Origin, *phones_: Namespace) -> tuple[list[str], list[int]]:
    """Many requests and downloads of each phone at once: what was lost, and the sizes of the downloads."""
    lost: list[str] = []
    octets: list[int] = []

    def asks(phone: Namespace) -> None:
        lost.extend(f"{phone.name} {n}" for n in range(REQUESTS) if not reaches(phone, origin, ALLOWED, 4 + n % 2 * 2))

    def loads(phone: Namespace) -> None:
        octets.extend(download(phone, origin) for _ in range(DOWNLOADS))

    working = [threading.Thread(target=work, args=(phone,)) for phone in phones_ for work in (asks, loads)]
    for each in working:
        each.start()
    for each in working:
        each.join()
    return lost, octets


def test_files(tunnel: PhoneGateway) -> None:
    """Keys are their owner's alone, the gateway keeps none of a phone, and the inventory is for everybody."""
    folder = tunnel.gateway.folder
    made, profile = folder / "a.conf", folder / "a.mobileconfig"
    tunnel.command("add", "one", "--config", made, "--mobileconfig", profile)
    assert [each.stat().st_mode & 0o777 for each in (made, profile, tunnel.state / "tunnel.json")] == [0o600] * 3
    assert tunnel.state.stat().st_mode & 0o777 == 0o700
    inventory = tunnel.gateway.policies / "phones.csv"
    assert inventory.stat().st_mode & 0o777 == 0o644
    (row,) = csv.DictReader(inventory.read_text().splitlines())
    assert (row["name"], row["address"]) == ("one", f"{PREFIX[4]}2, {PREFIX[6]}2")
    (key,) = (line.removeprefix("PrivateKey = ") for line in made.read_text().splitlines() if "PrivateKey" in line)
    kept = [path for path in folder.rglob("*") if path.is_file() and path not in (made, profile)]
    assert tunnel.state / "tunnel.json" in kept
    assert [path for path in kept if key.encode() in path.read_bytes()] == []
    code, _, said = tunnel.command("add", "two", "--config", made, check=False)
    assert (code, "is there already" in said) == (2, True)
    assert len(json.loads(tunnel.command("list", "--json")[1])["phones"]) == 1


def test_as_the_unit_brings_it_up(tunnel: PhoneGateway, interface: str, tmp_path: Path) -> None:
    """At each start of the machine: as another user, with the unit's capabilities, and a copy of the key to read.

    All phones are back, and nothing of revoked ones.
    """
    tunnel.added("one")
    tunnel.added("two")
    tunnel.command("revoke", "one")
    tunnel.command("down")
    unit = dict(line.split("=", 1) for line in UNIT.read_text().splitlines() if "=" in line and line[0] != "#")
    assert unit["User"] not in ("root", "tokgate")
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"] == "CAP_NET_ADMIN"
    assert not unit.keys() & {"ReadWritePaths", "StateDirectory"}
    sockets, copy, devices = (tmp_path / name for name in ("sockets", "credentials", "devices"))
    for each in (sockets, copy, devices):
        each.mkdir()
    shutil.copy(tunnel.state / "tunnel.json", copy)
    for each in (sockets, copy, copy / "tunnel.json"):
        os.chown(each, NOBODY, NOBODY)
    copy.chmod(0o500)
    tunnel.state, policies = copy, tunnel.gateway.policies
    caps = "+net_admin,+dac_read_search"  # the second one for the tests' own folders, which are root's
    user = f"setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups --bounding-set -all,{caps} --inh-caps -all,{caps}"
    confined = f"""mkdir -p /run/wireguard && mount --bind {sockets} /run/wireguard &&
        mount -t tmpfs tmpfs {devices} && mknod -m 666 {devices}/tun c 10 200 &&
        mount --bind {devices}/tun /dev/net/tun &&
        mount -o bind,ro {policies} {policies} && exec {user} --ambient-caps -all,{caps} "$@" """
    within, plainly = ["unshare", "--mount", "sh", "-c", confined, "sh"], tunnel.gateway.command
    tunnel.gateway.command = lambda *words: [*within, *plainly(*words)]  # type: ignore[method-assign]
    tunnel.command("up")
    namespace = tunnel.gateway.namespace
    shown = namespace.run(*within, "wg", "show", interface, "allowed-ips").stdout
    assert [line.split("\t")[1].split() for line in shown.splitlines()] == [[f"{PREFIX[4]}3/32", f"{PREFIX[6]}3/128"]]
    assert "masquerade" in namespace.run("nft", "list", "ruleset").stdout
    tunnel.command("down")
    assert interface not in namespace.run("ip", "link").stdout
