"""The lab's gateway without tokgate, for its ruleset: the client's network is under a ban, the guest's is in none."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from labs import netns
from labs.netns import flush_conntrack
from tokgate.cli.main import main

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
