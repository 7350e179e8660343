"""Two gateways between a client and an origin, with one address for each side and family: deploy/ha in namespaces."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from labs.netns import Lab, Namespace, run

KEEPALIVED: Final = Path(__file__).parents[2] / "deploy/ha/keepalived.conf"
ADDRESSES: Final = {
    "ha1": {"lan0": ("192.0.2.2/24", "2001:db8:c::2/64"), "wan0": ("203.0.113.2/24", "2001:db8:f::2/64")},
    "ha2": {"lan0": ("192.0.2.3/24", "2001:db8:c::3/64"), "wan0": ("203.0.113.3/24", "2001:db8:f::3/64")},
}
"""What each gateway has of its own."""


class HaLab:
    """client - switch - two gateways - switch - origin."""

    def __init__(self, pid: int, folder: Path) -> None:
        self.client, self.origin, self._switch, *gateways = self._all = [
            Namespace(f"tokgate{pid}-{role}") for role in ("haclient", "haorigin", "haswitch", *ADDRESSES)
        ]
        self.gateways = dict(zip(ADDRESSES, gateways, strict=True))
        self._folder = folder
        self._keepalived: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for each in self._keepalived:
            each.terminate()
        for namespace in self._all:
            namespace.remove()
        for each in self._keepalived:
            each.wait()

    def _build(self) -> None:
        for namespace in self._all:
            namespace.add()
        for side in ("lan", "wan"):
            run("ip", "-n", self._switch.name, "link", "add", side, "type", "bridge", "mcast_snooping", "0")
            run("ip", "-n", self._switch.name, "link", "set", side, "up")
        self._join(self.client, "eth0", "lan", f"{Lab.CLIENT[4]}/24", f"{Lab.CLIENT[6]}/64")
        for role, devices in ADDRESSES.items():
            for device, addresses in devices.items():
                self._join(self.gateways[role], device, device[:3], *addresses)
        servers = [f"{each[version]}/{length}" for each in _SERVERS for version, length in ((4, 24), (6, 64))]
        self._join(self.origin, "eth0", "wan", *servers)
        self.client.route("192.0.2.1", "2001:db8:c::1")
        self.origin.route("203.0.113.1", "2001:db8:f::1")

    def _join(self, namespace: Namespace, device: str, side: str, *addresses: str) -> None:
        """A link from a namespace to one side's switch."""
        port = f"{namespace.name[-6:]}-{side}"
        link = ("ip", "link", "add", device, "netns", namespace.name, "type", "veth")
        run(*link, "peer", "name", port, "netns", self._switch.name)
        run("ip", "-n", self._switch.name, "link", "set", port, "master", side, "up")
        namespace.address(device, *addresses)

    def keepalived(self, role: str) -> None:
        """Start keepalived on a gateway, with the file that is shipped."""
        pids = [f"--{what}pid={self._folder}/{role}.{what}pid" for what in ("", "vrrp_")]
        words = [
            "keepalived",
            "--dont-fork",
            "--log-console",
            "--log-detail",
            "--vrrp",
            f"--use-file={KEEPALIVED}",
            *pids,
        ]
        started = self.gateways[role].start(*words, output=self._folder / f"{role}.keepalived")
        self._keepalived.append(started)

    def told(self, role: str) -> str:
        """What keepalived has said on a gateway."""
        return (self._folder / f"{role}.keepalived").read_text()

    def serving(self) -> list[str]:
        """The gateways that have the clients' address."""
        return [role for role, each in self.gateways.items() if "192.0.2.1/24" in each.run("ip", "-4", "addr").stdout]

    def kill(self, role: str) -> None:
        """As a machine dies: nothing of it answers any more, and nobody says goodbye."""
        for device in ADDRESSES[role]:
            self.gateways[role].run("ip", "link", "set", device, "down")
        for pid in run("ip", "netns", "pids", self.gateways[role].name).stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


_SERVERS: Final = (Lab.ALLOWED, Lab.BANNED, *Lab.MORE)
