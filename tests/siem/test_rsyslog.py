"""rsyslog carries the log: every line as it was written, over rotation, restarts and TLS, and the chain holds there."""

import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
import trustme

from labs.logs import refusal
from labs.ports import answers, held_port
from labs.requirements import REQUIRED, needs
from labs.samples import OBSERVER
from labs.waiting import DEADLINE, until
from tokgate.blocklog.paths import with_rotated
from tokgate.blocklog.write.segment import Rotation
from tokgate.blocklog.write.writer import LogWriter, WriterLimits
from tokgate.cli.main import main

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


def wait(done: Callable[[], bool]) -> None:
    """Until it is so."""
    until("the lines arrive", done)


(COMMAND,) = re.findall(r"^(jq .*) block-log/gw1/\*", (SHIPPED / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
IN_ORDER = shlex.split(COMMAND)
RELP = any(Path("/usr/lib").glob("*/rsyslog/omrelp.so"))
pytestmark = [needs("root", "rsyslogd", "jq"), pytest.mark.skipif(not (RELP or REQUIRED), reason="needs rsyslog-relp")]


@contextmanager
def writing(log: Path, max_bytes: int = 1 << 20) -> Iterator[LogWriter]:
    """tokgate's own writer."""
    writer = LogWriter(log, OBSERVER, limits=WriterLimits(rotation=Rotation(max_bytes=max_bytes)))
    writer.start()
    yield writer
    assert writer.close(DEADLINE)


def put(writer: LogWriter, number: int) -> None:
    """So many refusals, on the disk."""
    for count in range(number):
        assert writer.put(refusal(f"192.0.2.{count % 250}"))
    assert writer.mark().wait(DEADLINE)


def written(log: Path) -> list[bytes]:
    return [line for path in with_rotated(log) for line in path.read_bytes().splitlines()]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with held_port() as port:
        yield Site(tmp_path, port)


def test_lines_arrive_as_they_were_written(site: Site) -> None:
    """Over several rotations, byte for byte, in order and once; `tokgate log verify` passes on what arrived."""
    with site.running("collector"), site.running("gateway"):
        with writing(site.log, max_bytes=60_000) as writer:
            for _ in range(6):
                put(writer, 25)
                # A file that is rotated before rsyslog, which may just be starting, has opened it, is not read.
                wait(lambda: len(site.lines()) >= len(written(site.log)))
        assert len(with_rotated(site.log)) >= 4
        wait(lambda: len(site.lines()) >= len(written(site.log)))
    assert site.lines() == written(site.log)
    assert main(["log", "verify", "--key", str(site.log.with_suffix(".pub")), *map(str, site.arrived)]) == 0


def test_what_was_rotated_away_while_rsyslog_was_down_is_missed(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """rsyslog does not read it; the chain tells that it is missing, and passes once the gateway's file is there.

    What was written then is read, in order, and nothing comes twice.
    """
    with writing(site.log, max_bytes=60_000) as writer, site.running("collector"):
        with site.running("gateway"):
            put(writer, 10)
            wait(lambda: len(site.lines()) >= 11)
        put(writer, 60)
        with site.running("gateway"):
            wait(lambda: written(site.log)[-1] in site.lines())
        current = site.log.read_bytes().splitlines()
        assert site.lines()[-len(current) :] == current
        assert len(set(site.lines())) == len(site.lines())
    public = str(site.log.with_suffix(".pub"))
    assert main(["log", "verify", "--key", public, *map(str, site.arrived)]) == 1
    assert "[missing]" in capsys.readouterr().out
    assert main(["log", "verify", "--key", public, *map(str, with_rotated(site.log))]) == 0


def test_a_collector_that_was_down_gets_everything(site: Site, tmp_path: Path) -> None:
    """The gateway's queue holds the lines, over its own restart too, and what was written meanwhile follows.

    Put in order, as README.md says, all is there.
    """
    with writing(site.log) as writer:
        with site.running("gateway"):
            put(writer, 50)
            wait(lambda: any(tmp_path.glob("gateway-work/tokgate.0*")))
        put(writer, 100)
        with site.running("gateway"):
            put(writer, 50)
            whole = written(site.log)
            with site.running("collector"):
                wait(lambda: set(site.lines()) == set(whole))
    assert len(site.lines()) <= len(whole) + 5
    ordered = tmp_path / "ordered.ndjson"
    command = [*IN_ORDER, *map(str, site.arrived)]
    ordered.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    assert len(ordered.read_bytes().splitlines()) == len(whole)
    assert main(["log", "verify", "--key", str(site.log.with_suffix(".pub")), str(ordered)]) == 0
