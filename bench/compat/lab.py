"""Namespaces: a client's for each road, the gateway with the proxies, the origin; and the rules that make the roads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network
from typing import Final, Self

from labs.netns import Namespace, run, sweep
from tokgate.gateway import sysctls

HTTP_PORTS: Final = range(20_000, 20_500)
"""A port for each case of HTTP."""
WORD_PORTS: Final = range(21_000, 21_500)
"""A port for each protocol of first words."""
TLS_PORTS: Final = range(4_430, 4_450)
"""Beside 443."""
_NETWORKS: Final = [*IPv4Network("192.0.2.0/24").subnets(new_prefix=28)]
_ORIGIN_SIDE: Final = "203.0.113.1"
_MARK: Final = 1


class Way(StrEnum):
    """How a client's connections come to a proxy."""

    DIRECT = "direct"
    TPROXY = "TPROXY"
    REDIRECT = "redirect"
    EXPLICIT = "explicit"


@dataclass(frozen=True, slots=True)
class Road:
    """One client, and what lies between it and the origin.

    `banned`: its network is under a ban. `opened`: what it asks for is decrypted.
    """

    number: int
    proxy: str
    way: Way
    banned: bool = False
    opened: bool = False

    @property
    def title(self) -> str:
        """As a column's head."""
        more = "" if self.proxy != "tokgate" else ", opened" if self.opened else ", ban" if self.banned else ", no ban"
        return f"{self.way}{more}"

    @property
    def network(self) -> IPv4Network:
        """Of the client."""
        return _NETWORKS[self.number]

    @property
    def client(self) -> str:
        """The client's address."""
        return str(self.network[2])

    @property
    def gateway(self) -> str:
        """The gateway's address towards the client."""
        return str(self.network[1])

    @property
    def address(self) -> str:
        """Of the origin, for this road alone: so the origin knows whom it serves."""
        return f"203.0.113.{10 + self.number}"

    @property
    def banned_address(self) -> str:
        """Of the banned name, for this road."""
        return f"203.0.113.{110 + self.number}"

    @property
    def name(self) -> str:
        """Of the origin, for this road: where it is opened, an app store's."""
        return "play.google.com" if self.opened else f"r{self.number}.example.org"


BANNED_NAME: Final = "www.tiktok.com"
DIRECT: Final = Road(0, "", Way.DIRECT)
ROADS: Final = (
    DIRECT,
    Road(1, "tokgate", Way.TPROXY),
    Road(2, "tokgate", Way.TPROXY, banned=True),
    Road(3, "tokgate", Way.TPROXY, banned=True, opened=True),
    Road(4, "tokgate", Way.REDIRECT),
    Road(5, "tokgate", Way.REDIRECT, banned=True),
    Road(6, "tokgate", Way.EXPLICIT),
    Road(7, "tokgate", Way.EXPLICIT, banned=True),
    Road(8, "haproxy", Way.TPROXY),
    Road(10, "squid", Way.TPROXY),
    Road(11, "squid", Way.REDIRECT),
    Road(12, "squid", Way.EXPLICIT),
)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a proxy listens, for plain HTTP, TLS and everything else; `several`: by redirection from `other` on."""

    http: int
    tls: int
    other: int
    several: int = 1


class Lab:
    """All namespaces, removed at the end with what still runs inside."""

    def __init__(self) -> None:
        self.gateway, self.origin = (Namespace(f"tokgate{os.getpid()}-{role}") for role in ("gateway", "origin"))
        self.clients = {road: Namespace(f"tokgate{os.getpid()}-r{road.number}") for road in ROADS}

    def __enter__(self) -> Self:
        sweep()
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for namespace in (*self.clients.values(), self.gateway, self.origin):
            namespace.remove()

    def _build(self) -> None:
        self.gateway.add()
        self.origin.add()
        names = {road.name: [road.address] for road in ROADS}
        self._link(self.origin, "origin0")
        self.gateway.address("origin0", f"{_ORIGIN_SIDE}/24")
        served = [f"{address}/24" for road in ROADS for address in (road.address, road.banned_address)]
        self.origin.address("eth0", *served)
        self.origin.route(_ORIGIN_SIDE)
        for road, namespace in self.clients.items():
            namespace.add()
            self._link(namespace, f"client{road.number}")
            self.gateway.address(f"client{road.number}", f"{road.gateway}/28")
            namespace.address("eth0", f"{road.client}/28")
            namespace.route(road.gateway)
            namespace.hosts(names | {BANNED_NAME: [road.banned_address]})
        self.gateway.hosts(names | {BANNED_NAME: [DIRECT.banned_address]})
        settings = sysctls.needed((4,), tproxy=True)
        self.gateway.sysctl(*(f"{name}={value}" for name, value in settings.items()))
        run("ip", "-n", self.gateway.name, "rule", "add", "fwmark", str(_MARK), "lookup", str(_MARK))
        run("ip", "-n", self.gateway.name, *["route", "add", "local", "0.0.0.0/0", "dev", "lo", "table"], str(_MARK))

    def _link(self, far: Namespace, near: str) -> None:
        link = ("ip", "link", "add", "eth0", "netns", far.name, "type", "veth", "peer", "name", near)
        run(*link, "netns", self.gateway.name)

    def intercept(self, ports: dict[tuple[str, Way], Ports]) -> None:
        """Bring each road's connections to its proxy."""
        rules: dict[Way, list[str]] = {Way.TPROXY: [], Way.REDIRECT: []}
        for road in ROADS:
            if road.way not in rules or (road.proxy, road.way) not in ports:
                continue
            to, tproxy = ports[road.proxy, road.way], road.way is Way.TPROXY
            http = f"{{ 80, {HTTP_PORTS[0]}-{HTTP_PORTS[-1]} }}"
            tls = f"{{ 443, {TLS_PORTS[0]}-{TLS_PORTS[-1]} }}"
            for match, port in (
                (f"tcp dport {http}", to.http),
                (f"tcp dport {tls}", to.tls),
                ("meta l4proto tcp", to.other),
            ):
                by_hash = ", ".join(f"{number} : {port + number}" for number in range(to.several))
                target = f"jhash ip daddr . tcp dport mod {to.several} map {{ {by_hash} }}" if to.several > 1 else port
                then = f"tproxy ip to :{target} meta mark set {_MARK} accept" if tproxy else f"redirect to :{target}"
                elsewhere = f"ip daddr != {{ {road.gateway}, {_ORIGIN_SIDE} }}"
                rules[road.way].append(f"iifname client{road.number} {elsewhere} {match} {then}")
        table = f"""table ip compat {{
          chain by_tproxy {{ type filter hook prerouting priority mangle; {"; ".join(rules[Way.TPROXY])}; }}
          chain by_redirect {{ type nat hook prerouting priority dstnat; {"; ".join(rules[Way.REDIRECT])}; }}
        }}"""
        self.gateway.run("nft", "-f", "-", given=table)
