"""Phones: a namespace of the lab whose traffic goes through WireGuard, as the app on a phone sets it up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labs.gateway import Gateway
from labs.netns import Namespace

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
