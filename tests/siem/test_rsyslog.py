"""rsyslog carries the log: every line as it was written, over rotation, restarts and TLS, and the chain holds there."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from labs.logs import refusal
from labs.ports import held_port
from labs.rsyslog import DEADLINE, SHIPPED, Site, present, wait
from labs.samples import OBSERVER
from tokgate.blocklog.paths import with_rotated
from tokgate.blocklog.write.segment import Rotation
from tokgate.blocklog.write.writer import LogWriter, WriterLimits
from tokgate.cli.main import main

(COMMAND,) = re.findall(r"^(jq .*) block-log/gw1/\*", (SHIPPED / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
IN_ORDER = shlex.split(COMMAND)
pytestmark = pytest.mark.skipif(
    not present() and os.environ.get("TOKGATE_REQUIRE_E2E") != "1", reason="needs root, rsyslog, rsyslog-relp and jq"
)


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
