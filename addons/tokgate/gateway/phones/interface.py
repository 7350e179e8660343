"""The WireGuard interface: the kernel's, or wireguard-go's where the kernel has none. Both are set by `wg` (wg(8)).

Methods raise GatewayError. Keys go to `wg` on its standard input, never in its arguments, which all users can read.
"""

import shutil
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from whenever import Instant

from tokgate.gateway import GatewayError, libnftables
from tokgate.gateway.phones.tunnel import Phone, Tunnel

_USERSPACE: Final = "wireguard-go"
_SECONDS: Final = 30
"""Of patience with `wg` and `wireguard-go`, which answer at once."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A WireGuard interface of this network namespace, by name."""

    name: str

    @property
    def is_up(self) -> bool:
        """Whether there is such an interface."""
        return any(name == self.name for _, name in socket.if_nameindex())

    def up(self, tunnel: Tunnel, phones: Iterable[Phone]) -> str:
        """Make it what the tunnel says; phones that are connected stay so. Who carries it: `kernel`, `wireguard-go`."""
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        if shutil.which("wg") is None:
            raise GatewayError("`wg` is missing: install wireguard-tools (apt, dnf or apk)")
        with IPRoute() as netlink:
            carrier = "there already" if self.is_up else self._make(netlink)
            try:
                _run("wg", "syncconf", self.name, "/dev/stdin", given=tunnel.peers(phones))
                (index,) = netlink.link_lookup(ifname=self.name)
                for each in tunnel.own:
                    netlink.addr("replace", index=index, address=str(each.ip), prefixlen=each.network.prefixlen)
                netlink.link("set", index=index, state="up")
                libnftables.run(_table(self.name, tunnel))
            except NetlinkError as error:
                self.down()
                raise GatewayError(f"{self.name}: {error.args[1]}") from error
            except GatewayError:
                self.down()
                raise
        return carrier

    def _make(self, netlink: Any) -> str:
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            netlink.link("add", ifname=self.name, kind="wireguard")
        except NetlinkError as error:
            if shutil.which(_USERSPACE) is None:
                raise GatewayError(
                    f"this kernel has no WireGuard ({error.args[1]}): modprobe wireguard, or install {_USERSPACE}"
                ) from error
            _run(_USERSPACE, self.name)
            return _USERSPACE
        return "kernel"

    def down(self) -> None:
        """Take it out; wireguard-go ends with it."""
        from pyroute2 import IPRoute

        if self.is_up:
            with IPRoute() as netlink:
                netlink.link("del", index=socket.if_nametoindex(self.name))
        table = _table_name(self.name)
        libnftables.run(f"table inet {table}\ndelete table inet {table}")

    def let_in(self, phone: Phone) -> None:
        """Take packets of a phone from now on."""
        _run("wg", "set", self.name, "peer", phone.public_key, "allowed-ips", phone.allowed)

    def shut_out(self, phone: Phone) -> None:
        """Take no packet of a phone any more, and send it none."""
        _run("wg", "set", self.name, "peer", phone.public_key, "remove")

    def seen(self) -> dict[str, Instant]:
        """When each phone last proved its key, by public key: at most two minutes before its last packet."""
        lines = _run("wg", "show", self.name, "latest-handshakes").splitlines()
        times = (line.split("\t") for line in lines)
        return {key: Instant.from_timestamp(int(at)) for key, at in times if int(at)}


def _table_name(interface: str) -> str:
    return f"tokgate_phones_{interface.replace('-', '_').replace('.', '_')}"


def _table(interface: str, tunnel: Tunnel) -> str:
    """The table that gives phones the gateway's address for what is forwarded: theirs mean nothing outside."""
    name = _table_name(interface)
    lines = [f"table inet {name}", f"delete table inet {name}"]
    if tunnel.masquerade:
        lines += [f"table inet {name} {{", "chain postrouting {", "type nat hook postrouting priority srcnat;"]
        for each in tunnel.prefixes:
            family = "ip" if each.version == 4 else "ip6"  # noqa: PLR2004
            lines.append(f'{family} saddr {each} oifname != "{interface}" masquerade')
        lines += ["}", "}"]
    return "\n".join(lines) + "\n"


def _run(*command: str, given: str = "") -> str:
    try:
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GatewayError(f"{command[0]}: {error}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise GatewayError(f"{command[0]}: {said[-1] if said else f'exit {done.returncode}'}")
    return done.stdout
