"""Three network namespaces, client - gateway - origin, and the rule that puts one proxy in the way."""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from comparison.settings import BULK, CLIENT, CLIENT_SIDE, HELD, ORIGIN_SIDE, SMALL, WEB
from tokgate.gateway import sysctls

NAMED: Final = re.compile(r"tgbench(\d+)-(?:client|gateway|origin)")
_NAMESPACES: Final = Path("/run/netns")
_SERVERS: Final = (WEB, SMALL, BULK, HELD)
_MARK: Final = 1
"""Of packets for a proxy behind TPROXY, and the number of their routing table."""


class Way(StrEnum):
    """How connections come to a proxy."""

    TPROXY = "tproxy"
    REDIRECT = "redirect"


def run(*command: str, given: str = "", check: bool = True, seconds: float = 60) -> str:
    """Run a command to its end and return what it printed; what went wrong is in the error."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=seconds, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stdout}{done.stderr}".strip())
    return done.stdout


class Lab:
    """The namespaces of one run, removed at its end together with whatever still runs inside."""

    def __init__(self, pid: int) -> None:
        self.client, self.gateway, self.origin = self._names = [
            f"tgbench{pid}-{role}" for role in ("client", "gateway", "origin")
        ]

    def __enter__(self) -> Self:
        sweep()
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def inside(self, namespace: str, *command: str) -> list[str]:
        """The command line that runs a command in a namespace, and ends it when this process ends."""
        return ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", namespace, *command]

    def intercept(self, port: int | None, way: Way = Way.TPROXY, ports: int = 1) -> None:
        """Send the client's HTTPS to a proxy's port; None: forward it untouched.

        `ports`: with REDIRECT, to so many from `port` on, by a hash of the destination, as `tokgate ruleset` does it.
        """
        rules = "".join(f"flush chain ip bench by_{way}\n" for way in Way)
        if port is not None:
            to = f":{port}"
            if ports > 1:
                each = ", ".join(f"{number} : {port + number}" for number in range(ports))
                to = f":jhash ip daddr . tcp dport mod {ports} map {{ {each} }}"
            then = f"meta mark set {_MARK} accept" if way is Way.TPROXY else ""
            rules += f'add rule ip bench by_{way} iifname "client0" tcp dport 443 {way} to {to} {then}\n'
        run(*self.inside(self.gateway, "nft", "-f", "-"), given=rules)

    def _build(self) -> None:
        for name in self._names:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        for far, near in ((self.client, "client0"), (self.origin, "origin0")):
            link = ["ip", "link", "add", "eth0", "netns", far]
            run(*link, "type", "veth", "peer", "name", near, "netns", self.gateway)
        self._address(self.client, "eth0", [CLIENT])
        self._address(self.gateway, "client0", [CLIENT_SIDE])
        self._address(self.gateway, "origin0", [ORIGIN_SIDE])
        self._address(self.origin, "eth0", _SERVERS)
        run("ip", "-n", self.client, "route", "add", "default", "via", CLIENT_SIDE)
        run("ip", "-n", self.origin, "route", "add", "default", "via", ORIGIN_SIDE)
        for name in self._names:
            self._sysctl(
                name,
                "net.ipv4.ip_local_port_range=16384 65535",  # below: where the proxies listen
                "net.ipv4.tcp_tw_reuse=1",
                "net.core.somaxconn=8192",
                "net.ipv4.tcp_max_syn_backlog=8192",
            )
        # What `tokgate run --gateway` sets; with early demultiplexing next to nothing would pass without a proxy.
        settings = sysctls.needed((4,), tproxy=True)
        self._sysctl(self.gateway, *(f"{name}={value}" for name, value in settings.items()))
        run(*self.inside(self.gateway, "nft", "-f", "-"), given=_TABLE)
        run("ip", "-n", self.gateway, "rule", "add", "fwmark", str(_MARK), "lookup", str(_MARK))
        run("ip", "-n", self.gateway, "route", "add", "local", "0.0.0.0/0", "dev", "lo", "table", str(_MARK))
        # Ten thousand connections a second would fill the table with finished ones within half a minute.
        for state in ("time_wait", "close", "last_ack", "fin_wait", "close_wait"):
            self._sysctl(self.gateway, f"net.netfilter.nf_conntrack_tcp_timeout_{state}=3")

    def _address(self, namespace: str, device: str, addresses: Sequence[str]) -> None:
        for address in addresses:
            run("ip", "-n", namespace, "addr", "add", f"{address}/24", "dev", device)
        run("ip", "-n", namespace, "link", "set", device, "up")

    def _sysctl(self, namespace: str, *settings: str) -> None:
        run(*self.inside(namespace, "sysctl", "-qw", *settings))

    def _remove(self) -> None:
        for name in self._names:
            _remove(name)


_TABLE: Final = """\
table ip bench {
  chain by_redirect { type nat hook prerouting priority dstnat; }
  chain by_tproxy { type filter hook prerouting priority mangle; }
}
"""


def sweep() -> None:
    """Remove what a run that is no longer alive left behind."""
    if not _NAMESPACES.is_dir():
        return
    for entry in _NAMESPACES.iterdir():
        found = NAMED.fullmatch(entry.name)
        if found and not Path(f"/proc/{found[1]}").exists():
            _remove(entry.name)


def _remove(name: str) -> None:
    """End what runs inside, then remove the namespace: a leftover process would keep it alive without a name."""
    for pid in run("ip", "netns", "pids", name, check=False).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    run("ip", "netns", "del", name, check=False)
