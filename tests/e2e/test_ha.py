"""Two gateways with keepalived (deploy/ha): one dies, and the other serves within seconds, with its rules up before."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pytest
import yaml

from labs.gateway import KERNEL_TOO, ROOT, Gateway, office_policy
from labs.netns import Lab, Namespace, run, wait_until
from labs.origin import ALLOWED, BANNED, Origin, to_banned
from labs.requirements import require
from tokgate.runtime.control_socket import ControlRequest, ask

SOON = 3.0
"""Seconds within which new connections go on."""
PATIENCE = 0.25
"""Seconds for one attempt."""


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


@pytest.fixture
def ha(requirements: None, tmp_path: Path) -> Iterator[HaLab]:
    """The laboratory, where keepalived is installed."""
    require("keepalived")
    with HaLab(os.getpid(), tmp_path) as lab:
        yield lab


@pytest.fixture
def servers(ha: HaLab, tmp_path: Path) -> Iterator[Origin]:
    """The origin behind both gateways."""
    (tmp_path / "servers").mkdir()
    with Origin(ha.origin, tmp_path / "servers") as running:
        yield running


@pytest.fixture
def gateways(ha: HaLab, servers: Origin, tmp_path: Path) -> Iterator[dict[str, Gateway]]:
    """tokgate on both, with the policy of one checkout, and then keepalived: the first one serves."""
    policy = office_policy() | _settings()
    checkout = tmp_path / "policies"
    checkout.mkdir()
    (checkout / "policy.yaml").write_text(yaml.safe_dump(policy))
    with contextlib.ExitStack() as stack:
        running = {}
        for role, namespace in ha.gateways.items():
            (tmp_path / role).mkdir()
            options = ("--metrics", "9300", "--workers", "1")
            running[role] = Gateway(
                namespace, tmp_path / role, policy=checkout, mode=KERNEL_TOO, options=options, check=Path.exists
            )
            running[role].__enter__()
            stack.callback(running[role]._end)
        for role in ha.gateways:
            ha.keepalived(role)
            wait_until("the first one serves", lambda: ha.serving() == ["ha1"])
        yield running


def _settings() -> dict[str, Any]:
    """The settings that deploy/ha/README.md wants."""
    (block,) = re.findall(r"^ +```yaml\n(.*?)```", (ROOT / "deploy/ha/README.md").read_text(), re.MULTILINE | re.DOTALL)
    said: dict[str, Any] = yaml.safe_load(block)
    return said


def attempt(ha: HaLab, servers: Origin, name: str, address: str) -> str:
    """What comes of a new connection: `reached`, `refused` (TLS's alert or a reset), or `nothing` in time."""
    trust = ssl.create_default_context(cafile=str(servers.authority))
    try:
        plain = ha.client.inside(partial(socket.create_connection, (address, 443), PATIENCE))
        with plain, trust.wrap_socket(plain, server_hostname=name):
            return "reached"
    except TimeoutError:
        return "nothing"
    except OSError as error:
        return "nothing" if "unreachable" in str(error).lower() or "timed out" in str(error) else "refused"


def refused(ha: HaLab, servers: Origin, address: str) -> bool:
    """Whether the banned name is refused now; False where nothing came in time."""
    came = attempt(ha, servers, BANNED, address)
    assert came != "reached"
    return came == "refused"


def goes_on(ha: HaLab, servers: Origin, seconds: float) -> None:
    """Over IPv4 and IPv6 allowed connections come through within so many seconds, and banned ones never do."""
    deadline, left = time.monotonic() + seconds, {4, 6}
    while left:
        for version in (4, 6):
            assert attempt(ha, servers, BANNED, Lab.BANNED[version]) != "reached"
        left -= {each for each in left if attempt(ha, servers, ALLOWED, Lab.ALLOWED[each]) == "reached"}
        assert not left or time.monotonic() < deadline, f"not over IPv{left} within {seconds:.1f} s"


def test_one_is_upgraded_and_dies(ha: HaLab, servers: Origin, gateways: dict[str, Gateway]) -> None:
    """While a new program takes over on the gateway that serves, its health check waits, and the addresses stay.

    A machine that is gone at once: new connections go on within three seconds, nothing banned reaches its server.
    """
    with servers.watch() as seen:
        goes_on(ha, servers, 20)
        wait_until("it is healthy", lambda: "VRRP_Script(tokgate) succeeded" in ha.told("ha1"))
        assert (ask(gateways["ha1"].confdir, ControlRequest.RESTART) or {})["ok"]
        goes_on(ha, servers, 20)
        assert "VRRP_Script(tokgate) failed" not in ha.told("ha1")
        assert ha.serving() == ["ha1"]
        ha.kill("ha1")
        goes_on(ha, servers, SOON + 2 * gateways["ha1"].pace)
        assert "ha2" in ha.serving()
        for version in (4, 6):
            wait_until("it is refused", partial(refused, ha, servers, Lab.BANNED[version]))
    assert to_banned(seen) == 0


def test_tokgate_dies(ha: HaLab, servers: Origin, gateways: dict[str, Gateway]) -> None:
    """The rules stay, so that nothing banned passes, until the other one, which is healthy, has the addresses."""
    process = gateways["ha1"].process
    assert process is not None
    with servers.watch() as seen:
        goes_on(ha, servers, 20)
        process.send_signal(signal.SIGKILL)
        process.wait()
        goes_on(ha, servers, 30)
        wait_until("the other one serves", lambda: ha.serving() == ["ha2"])
    assert to_banned(seen) == 0
