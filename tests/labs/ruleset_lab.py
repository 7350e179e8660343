"""The lab's gateway without tokgate, for its ruleset: the client's network is under a ban, the guest's is in none."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from whenever import Instant

from labs import netns
from labs.builders import ban, network, snapshot
from labs.netns import Namespace, flush_conntrack
from tokgate.cli.main import main
from tokgate.gateway.kernel import Differences, Kernel
from tokgate.gateway.ruleset import Ruleset, TableOptions, ruleset_of

POLICY = """\
services:
  clips:
    names: {suffix: [clips.example.org]}
    addresses: [203.0.113.20, "2001:db8:f::20"]
networks:
  office: {cidrs: [192.0.2.0/24, "2001:db8:c::/48"]}
bans:
  clips: {title: No clips, services: [clips], networks: [office], starts: 2023-03-10T00:00}
"""
"""One ban in force, of names and addresses."""
INITIAL = b"\xc3\x00\x00\x00\x01".ljust(1200, b"\0")
"""A datagram as large as a client's first one has to be, with a long header of QUIC."""
PORT = 18080
"""Where the proxy would listen."""
CLIENT, GATEWAY, EGRESS = netns.Lab.CLIENT, netns.Lab.GATEWAY, netns.Lab.EGRESS
ORIGIN, BANNED = netns.Lab.ALLOWED, netns.Lab.BANNED
_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Way:
    """How connections come to the proxy: the arguments of `tokgate ruleset`, and what tells their destination."""

    arguments: tuple[str, ...]
    destination: Callable[[socket.socket], tuple[str, int]]


def printed(policies: Path, *arguments: str) -> str:
    """The ruleset for a policy."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["ruleset", "--policies", str(policies), "--port", str(PORT), *arguments]) == 0
    return out.getvalue()


def original_destination(connection: socket.socket) -> tuple[str, int]:
    """What conntrack says a redirected connection was meant for (SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST: both 80)."""
    if connection.family == socket.AF_INET6:
        packed = connection.getsockopt(socket.IPPROTO_IPV6, 80, 28)
        return socket.inet_ntop(socket.AF_INET6, packed[8:24]), int.from_bytes(packed[2:4])
    packed = connection.getsockopt(socket.IPPROTO_IP, 80, 16)
    return socket.inet_ntop(socket.AF_INET, packed[4:8]), int.from_bytes(packed[2:4])


def own_name(connection: socket.socket) -> tuple[str, int]:
    """The address and port of this end."""
    host, port, *_ = connection.getsockname()
    return host, port


TPROXY = Way((), own_name)
REDIRECT = Way(("--redirect", str(PORT)), original_destination)
WAYS = {"tproxy": TPROXY, "redirect": REDIRECT}


class Lab(netns.Lab):
    """The lab, and a way in which connections come to the proxy."""

    def __init__(self) -> None:
        super().__init__(f"{os.getpid()}x{next(_NUMBERS)}")
        self.way = TPROXY

    def reset(self) -> None:
        """Take out what is loaded, and have the kernel forget connections."""
        self.gateway.run("nft", "flush", "ruleset")
        for each in (self.client, self.guest, self.gateway):
            each.run("ss", "-K", "state", "time-wait")
        self.gateway.inside(flush_conntrack)

    def load(self, rules: str) -> None:
        """Load a ruleset into the gateway, and the routes that stand in its comments."""
        self.gateway.run("nft", "-f", "-", given=rules)
        for line in rules.splitlines():
            words = line.removeprefix("#").split()
            if words[:1] == ["ip"] and line.startswith("#"):
                self.gateway.run(*words, check=False)  # a rule may be there already

    def load_policy(self, folder: Path, policy: str) -> None:
        """Load the ruleset of a policy for the way that this laboratory takes."""
        (folder / "policy.yaml").write_text(policy)
        self.load(printed(folder, *self.way.arguments))


def built() -> Iterator[Lab]:
    """The namespaces, with nothing loaded, until the generator ends."""
    lab = Lab()
    try:
        lab.up()
        yield lab
    finally:
        lab.down()


class Host:
    """A machine in a namespace, and the kernel's part of a gateway there."""

    def __init__(self, namespace: Namespace, folder: Path, options: TableOptions | None = None) -> None:
        self.namespace, self.folder = namespace, folder
        self.kernel = Kernel(options or TableOptions(), folder / "keys" / "gateway.json")

    def rules(self, *clients: str) -> Ruleset:
        """A ban for one network, or for several prefixes of it."""
        office = network("office", *(clients or ("192.0.2.0/24", "2001:db8:c::/48")))
        policy = snapshot(ban(), networks=(office,))
        return ruleset_of(policy, Instant.from_utc(2023, 6, 1), self.kernel.options)

    def up(self, rules: Ruleset | None = None) -> Mapping[str, str]:
        return self.namespace.inside(lambda: self.kernel.up(rules or self.rules()))

    def load(self, rules: Ruleset | None = None) -> None:
        self.namespace.inside(lambda: self.kernel.load(rules or self.rules()))

    def repair(self, rules: Ruleset | None = None) -> None:
        self.namespace.inside(lambda: self.kernel.repair(rules or self.rules()))

    def down(self) -> Mapping[str, str]:
        return self.namespace.inside(self.kernel.down)

    def differences(self, rules: Ruleset | None = None) -> Differences:
        return self.namespace.inside(lambda: self.kernel.differences(self.kernel.wanted(rules or self.rules())))

    def nft(self, commands: str) -> None:
        self.namespace.run("nft", "-f", "-", given=commands)

    def shown(self) -> tuple[str, ...]:
        """What is loaded, in the words of the system's own programs."""
        settings = "net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.tcp_early_demux"
        commands = ("nft list ruleset", "ip rule", "ip -6 rule", "ip route show table all", f"sysctl {settings}")
        return tuple(self.namespace.output(*command.split()) for command in commands)
