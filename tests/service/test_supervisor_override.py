"""Overrides and reminders in running processes: a change of the folder is all it takes, and each thing is told once."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from whenever import Instant

from labs.running_lab import AS_WE_ARE
from labs.waiting import DEADLINE, until

ADDONS = Path(__file__).parents[2] / "addons"
POLICY = """\
version: 1
services: {{clips: {{names: {{suffix: [clips.example.org]}}}}}}
networks: {{here: {{cidrs: [127.0.0.0/8], timezone: Europe/Brussels}}}}
bans:
  clips: {{title: Clips, services: [clips], networks: [here], starts: 2023-03-10}}
  brief: {{title: Brief, services: [clips], networks: [here], starts: "{start}", expires: "{end}"}}
"""
MODES = {"one process": ("regular@127.0.0.1:0",), "gates": ("gate:explicit@127.0.0.1:0", "--workers", "1")}

CheckLines = Callable[..., list[dict[str, Any]]]


class Site:
    """A folder with a policy and a log."""

    def __init__(self, folder: Path, check_lines: CheckLines) -> None:
        self._folder = folder
        self._check = check_lines
        now = Instant.now()
        (folder / "policies").mkdir()
        (folder / "policies" / "policy.yaml").write_text(
            POLICY.format(start=_stamp(now.subtract(hours=48)), end=_stamp(now.add(hours=12)))
        )

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "tokgate", *arguments]

    def call(self, *arguments: str) -> str:
        done = subprocess.run(self.command(*arguments), **self._options(), check=True, capture_output=True, text=True)
        return str(done.stdout).strip()

    def _options(self) -> dict[str, Any]:
        return {"cwd": self._folder, "env": os.environ | {"PYTHONPATH": str(ADDONS)}}

    @contextmanager
    def running(self, mode: tuple[str, ...]) -> Iterator[None]:
        """Run tokgate; ends in order."""
        arguments = ("run", *AS_WE_ARE, "--mode", *mode, "--confdir", str(self._folder / "confdir"), "--drain", "0")
        with (self._folder / "output").open("ab") as output:
            process = subprocess.Popen(self.command(*arguments), **self._options(), stdout=output, stderr=output)
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 0, (self._folder / "output").read_text()

    def wait_for(self, action: str, number: int = 1) -> list[dict[str, Any]]:
        """The records with an action, once there are so many."""
        log = self._folder / "block.ndjson"

        def found() -> list[dict[str, Any]]:
            lines = log.read_bytes().splitlines(keepends=True) if log.exists() else []
            records = [] if lines and not lines[-1].endswith(b"\n") else self._records(log)
            told = [record for record in records if record["event"]["action"] == action]
            return told if len(told) >= number else []

        return until(f"{action} is told", found)

    def _records(self, log: Path) -> list[dict[str, Any]]:
        return self._check(log) if log.exists() else []


def _stamp(at: Instant) -> str:
    return at.format_iso(unit="second")


@pytest.mark.parametrize("mode", MODES)
def test_override_and_reminder(mode: str, tmp_path: Path, check_lines: CheckLines) -> None:
    """An override is followed from the folder alone, also across a restart; the reminder comes once."""
    site = Site(tmp_path, check_lines)
    with site.running(MODES[mode]):
        (reminder,) = site.wait_for("ban-near-expiry")
        assert reminder["tokgate"]["ban"] == "brief"
        name = site.call(
            "override",
            "add",
            "--ban",
            "clips",
            "--client",
            "127.0.0.7",
            "--for",
            "1h",
            "--reason",
            "x",
            "--by",
            "alice",
        )
        (begun,) = site.wait_for("override-started")
        assert (begun["tokgate"]["exemption"], begun["user"]["name"]) == (name, "alice")
    with site.running(MODES[mode]):
        site.wait_for("started", 2)
        site.call("override", "end", name, "--by", "bob")
        (ended,) = site.wait_for("override-ended")
        assert (ended["user"]["name"], ended["event"]["reason"]) == ("bob", "ended early")
        assert len(site.wait_for("override-started")) == 1
        assert len(site.wait_for("ban-near-expiry")) == 1
