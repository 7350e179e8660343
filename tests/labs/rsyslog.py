"""Debian's rsyslogd with the shipped configurations: a gateway and a collector, each a process, on loopback."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trustme

from labs.ports import answers
from labs.waiting import DEADLINE as DEADLINE
from labs.waiting import until

SHIPPED: Final = Path(__file__).parents[2] / "deploy" / "siem" / "rsyslog"


class Site:
    """Folders, certificates and configurations of one gateway and one collector."""

    def __init__(self, folder: Path, port: int) -> None:
        """`port` is where the collector listens."""
        self.log: Final = folder / "log" / "block.ndjson"
        self.fleet: Final = folder / "fleet"
        self._folder: Final = folder
        self._port: Final = port
        self.log.parent.mkdir(parents=True)
        authority = trustme.CA()
        shipping = folder / "shipping"
        shipping.mkdir()
        authority.cert_pem.write_to_path(shipping / "ca.pem")
        for name, host in (("gateway", "gw1.gateways.example.org"), ("collector", "collector.example.org")):
            leaf = authority.issue_cert(host, common_name=host)
            leaf.private_key_pem.write_to_path(shipping / f"{name}.key")
            for number, blob in enumerate(leaf.cert_chain_pems):
                blob.write_to_path(shipping / f"{name}.pem", append=bool(number))

    @property
    def arrived(self) -> list[Path]:
        """What the collector wrote."""
        return sorted(self.fleet.rglob("*.ndjson"))

    def lines(self) -> list[bytes]:
        """All lines that arrived whole, in order; of the last one there may be half so far."""
        lines = (line for path in self.arrived for line in path.read_bytes().splitlines(keepends=True))
        return [line.removesuffix(b"\n") for line in lines if line.endswith(b"\n")]

    @contextmanager
    def running(self, role: str) -> Iterator[None]:
        """An rsyslogd with the shipped configuration of `gateway` or `collector`, at other places and another port."""
        config = self._config(role)
        pid_file = self._folder / f"{role}.pid"
        with (self._folder / f"{role}.out").open("ab") as out:
            process = subprocess.Popen(
                ["rsyslogd", "-n", "-f", str(config), "-i", str(pid_file)], stdout=out, stderr=subprocess.STDOUT
            )
        try:
            if role == "collector":
                wait(lambda: process.poll() is not None or answers(self._port))
            assert process.poll() is None, (self._folder / f"{role}.out").read_text()
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(DEADLINE)

    def _config(self, role: str) -> Path:
        text = (SHIPPED / f"{role}.conf").read_text(encoding="utf-8")
        work = self._folder / f"{role}-work"
        work.mkdir(exist_ok=True)
        moved = {
            "/var/log/tokgate-fleet/": f"{self.fleet}/",
            "/var/log/tokgate/": f"{self.log.parent}/",
            "/etc/tokgate/shipping/": f"{self._folder}/shipping/",
            'port="2514"': f'port="{self._port}"',
            'target="collector.example.org"': 'target="127.0.0.1"',
            'action.resumeInterval="5"': 'action.resumeInterval="1"',
        }
        for shipped, here in moved.items():
            text = text.replace(shipped, here)
        text = text.replace("global(", f'global(workDirectory="{work}" ', 1)
        path = self._folder / f"{role}.conf"
        path.write_text(text, encoding="utf-8")
        return path


def present() -> bool:
    """Whether this machine has what is needed."""
    modules = Path("/usr/lib").glob("*/rsyslog/omrelp.so")
    return all(map(shutil.which, ("rsyslogd", "jq"))) and any(modules) and os.geteuid() == 0


def wait(done: Callable[[], bool]) -> None:
    """Until it is so."""
    until("the lines arrive", done)
