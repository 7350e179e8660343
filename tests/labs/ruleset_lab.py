"""Four network namespaces for the ruleset: a banned client, a stranger, the gateway between, and an origin."""

from __future__ import annotations

import contextlib
import ctypes
import io
import itertools
import os
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labs.netns import NETNS, inside
from tokgate.cli.main import main

POLICY = """\
services:
  clips:
    names: {suffix: [clips.example.org]}
    addresses: [203.0.113.20, "2001:db8:f::20"]
networks:
  office: {cidrs: [192.0.2.0/24, "2001:db8:1::/48"]}
bans:
  clips: {title: No clips, services: [clips], networks: [office], starts: 2023-03-10T00:00}
"""
"""One ban in force, of names and addresses."""
PORT = 18080
"""Where the proxy would listen."""
CLIENT = {4: "192.0.2.10", 6: "2001:db8:1::10"}
GATEWAY = {4: "192.0.2.1", 6: "2001:db8:1::1"}
EGRESS = {4: "203.0.113.1", 6: "2001:db8:f::1"}
ORIGIN = {4: "203.0.113.10", 6: "2001:db8:f::10"}
BANNED = {4: "203.0.113.20", 6: "2001:db8:f::20"}
"""Addresses that the origin has, too."""
ANY = {4: "0.0.0.0", 6: "::"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
SECONDS = 60.0
_NUMBERS = itertools.count()


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


def ip(*words: str) -> None:
    """Run `ip`."""
    subprocess.run(("ip", *words), check=True, capture_output=True, text=True)


class Namespace:
    """A network namespace; sockets made inside stay there, wherever they are used."""

    def __init__(self, name: str) -> None:
        self.name = name
        ip("netns", "add", name)
        self.sysctl("net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.accept_dad=0")
        ip("-n", name, "link", "set", "lo", "up")

    def remove(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("netns", "del", self.name)

    def done(self, *command: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command here to its end, whatever that is."""
        words = ("ip", "netns", "exec", self.name, *command)
        return subprocess.run(words, input=given, capture_output=True, text=True, check=False)

    def run(self, *command: str, given: str = "") -> str:
        done = self.done(*command, given=given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def sysctl(self, *settings: str) -> None:
        self.run("sysctl", "-qw", *settings)

    def device(self, device: str, *addresses: str, via: dict[int, str] | None = None) -> None:
        for address in addresses:
            ip("-n", self.name, "addr", "add", address, "dev", device)
        ip("-n", self.name, "link", "set", device, "up")
        for gateway in (via or {}).values():
            ip("-n", self.name, "route", "add", "default", "via", gateway)

    def inside[T](self, work: Callable[[], T]) -> T:
        """Call `work` in a thread that has entered the namespace."""
        return inside(self.name, work)

    def listen(self, version: int, port: int) -> socket.socket:
        def make() -> socket.socket:
            listener = socket.socket(FAMILY[version], socket.SOCK_STREAM)
            if version == 6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
            listener.bind((ANY[version], port))
            listener.listen()
            listener.settimeout(SECONDS)
            return listener

        return self.inside(make)

    def connect(
        self, address: str, port: int, *, mark: int = 0, uid: int = 0, source: tuple[str, int] | None = None
    ) -> socket.socket:
        def make() -> socket.socket:
            ctypes.CDLL(None).setfsuid(uid)  # of this thread alone: netfilter's `skuid` is who opened the socket
            connection = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            connection.settimeout(SECONDS)
            if source is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                connection.bind(source)
            try:
                connection.connect((address, port))
            except BaseException as error:
                connection.close()
                if isinstance(error, TimeoutError):
                    error.add_note(_state(self.name.rpartition("-")[0]))
                raise
            return connection

        return self.inside(make)

    def datagrams(
        self,
        version: int,
        *,
        bound: int = 0,
        to: tuple[str, int] | None = None,
        source: str | None = None,
        mark: int = 0,
    ) -> socket.socket:
        """`source`: an address, which need not be one of this namespace."""

        def make() -> socket.socket:
            made = socket.socket(FAMILY[version], socket.SOCK_DGRAM)
            made.settimeout(SECONDS)
            made.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            made.bind((ANY[version] if source is None else source, bound))
            if to is not None:
                made.connect(to)  # so that ICMP errors come back to it
            return made

        return self.inside(make)


def _state(laboratory: str) -> str:
    """What the namespaces of a laboratory tell of a packet that was lost."""
    shown = ("ip -s neigh", "ip -s link", "ip -6 addr", "nstat -sz", "nft list ruleset")
    asked = [
        ("ip", "netns", "exec", each.name, *command.split())
        for each in NETNS.glob(f"{laboratory}-*")
        for command in shown
    ]
    done = (subprocess.run(each, capture_output=True, text=True, check=False) for each in asked)
    return "\n".join(f"{' '.join(each.args)}\n{each.stdout}{each.stderr}" for each in done)


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


class Lab:
    """client and stranger - gateway - origin, over IPv4 and IPv6."""

    def __init__(self, way: Way = TPROXY) -> None:
        self.way = way
        self._number = next(_NUMBERS)
        self.without: str | None = None
        """A rule, as a line of the table, that is left out of what is loaded."""
        self.namespaces: list[Namespace] = []
        self.client, self.stranger, self.gateway, self.origin = (
            self._add(role) for role in ("client", "stranger", "gateway", "origin")
        )
        for far in (self.client, self.stranger, self.origin):
            role = far.name.rpartition("-")[2]
            peer = ("peer", "name", role, "netns", self.gateway.name)
            ip("link", "add", "eth0", "netns", far.name, "type", "veth", *peer)
        self.gateway.device("client", "192.0.2.1/24", "2001:db8:1::1/64")
        self.gateway.device("stranger", "198.51.100.1/24", "2001:db8:9::1/64")
        self.gateway.device("origin", "203.0.113.1/24", "2001:db8:f::1/64")
        self.client.device("eth0", "192.0.2.10/24", "2001:db8:1::10/64", via=GATEWAY)
        stranger_via = {4: "198.51.100.1", 6: "2001:db8:9::1"}
        self.stranger.device("eth0", "198.51.100.10/24", "2001:db8:9::10/64", via=stranger_via)
        # IPv4 answers from the first address, IPv6 from the newest.
        self.origin.device("eth0", "203.0.113.10/24", "203.0.113.20/24", "2001:db8:f::20/64", via=EGRESS)
        self.origin.device("eth0", "2001:db8:f::10/64")
        self.gateway.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        # Tests refuse more in a second than Linux tells of by default (ip-sysctl: icmp_ratelimit, in ms).
        self.gateway.sysctl("net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
        # Kernels before 6.14 have these for all namespaces together, and not here.
        self.gateway.run("sysctl", "-qew", "net.ipv4.icmp_msgs_per_sec=100000", "net.ipv4.icmp_msgs_burst=10000")

    def _add(self, role: str) -> Namespace:
        namespace = Namespace(f"rules{os.getpid()}x{self._number}-{role}")
        self.namespaces.append(namespace)
        return namespace

    def load(self, rules: str) -> None:
        """Load a ruleset into the gateway, and the routes that stand in its comments."""
        if self.without is not None:
            rules = "".join(line for line in rules.splitlines(keepends=True) if line.strip() != self.without)
        self.gateway.run("nft", "-f", "-", given=rules)
        for line in rules.splitlines():
            words = line.removeprefix("#").split()
            if words[:1] == ["ip"] and line.startswith("#"):
                with contextlib.suppress(subprocess.CalledProcessError):  # a rule that is there already
                    ip("-n", self.gateway.name, *words[1:])

    def load_policy(self, folder: Path, policy: str) -> None:
        """Load the ruleset of a policy for the way that this laboratory takes."""
        (folder / "policy.yaml").write_text(policy)
        self.load(printed(folder, *self.way.arguments))

    def down(self) -> None:
        for namespace in self.namespaces:
            namespace.remove()
