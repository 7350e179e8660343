"""docs/runbook.md: each of its commands is run against a running tokgate and prints what stands below it.

With TOKGATE_GOLDEN=write the output is written anew; read the difference before you commit it.
"""

import os
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from labs.command_line import shell_environment
from labs.running_lab import POLICY, Running
from labs.waiting import until
from tokgate.runtime.control_socket import ControlRequest, ask

PAGE = Path(__file__).parents[2] / "docs" / "runbook.md"
SHOWN = re.compile(r"```console\n\$ (.*)\n((?:.*\n)*?)```")
SECTIONS = (
    *("TikTok gets through", "Something innocent is blocked", "Switch it off now"),
    *("Roll back", "Upgrade", "The disk is full"),
)
BEFORE: dict[str, Any] = POLICY | {
    "networks": {"here": {"title": "Offices", "cidrs": ["127.0.0.0/8", "::1/128"], "timezone": "Europe/Brussels"}},
    "services": {"trackers": {"title": "Trackers", "names": {"suffix": ["example.net"]}}},
    "bans": {
        "tiktok-ban": {
            "title": "TikTok",
            "authority": "City council",
            "basis": "Decision 12 of 1 December 2025",
            "services": ["tiktok"],
            "networks": ["here"],
            "starts": "2026-01-01T00:00",
        }
    },
    "tests": [{"client": "127.0.0.1", "host": "www.tiktok.com", "at": "2026-01-01T00:00", "expect": "block"}],
}
AFTER = BEFORE | {"bans": {"tiktok-ban": BEFORE["bans"]["tiktok-ban"] | {"services": ["tiktok", "trackers"]}}}
_VARIES = (
    (r", in force since \S+", ""),  # told where the files were read again before the command came
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?Z?( \+0[12]:00)?", "TIME"),
    (r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID"),
    (r"\b[0-9a-f]{12}\b", "VERSION"),
    (r"(?<= of )/\S+/policies", "FOLDER"),
    (r"127\.0\.0\.1:\d+", "LISTENER"),
    (r"[A-Za-z0-9+/]{43}=", "KEY"),
    (r"\([0-9a-f]{7}\)", "COMMIT"),
    (r"pid \d+, up \d+ (s|min)|\b\d+K?(?= (connection|client|records?|later|lines)|\t)|(?<=to )\d+", "N"),
    (r"\[Errno \d+\] (File too large|No space left on device)", "FULL"),
    (r"connections", "connection"),
    (r" +", " "),
)
"""What differs from run to run, and what stands for it in the comparison."""


class Incident:
    """A running tokgate whose policy is in git, with an edit too many."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = shell_environment(folder, SUDO_USER="alice")
        self.running = Running(folder, workers=1, policy=BEFORE)
        (folder / ".tokgate").symlink_to(self.running.confdir)
        git = ("git", "-c", "user.name=alice", "-c", "user.email=alice@example.org", "-c", "init.defaultBranch=main")
        subprocess.run([*git, "init", "-q"], cwd=folder, check=True)
        for policy, why in ((BEFORE, "Ban TikTok"), (AFTER, "Ban trackers with it")):
            self.running.write(policy)
            subprocess.run([*git, "add", "policies"], cwd=folder, check=True)
            subprocess.run([*git, "commit", "-qm", why], cwd=folder, check=True)
        self.shell("tokgate reload")
        for host in ("www.tiktok.com", "www.example.net"):
            until(f"{host} is refused", partial(self._is_refused, host))

    def _is_refused(self, host: str) -> bool:
        status, client = self.running.connect(host, 443)
        client.close()
        return " 451 " in status and f'"{host}"' in self.running.log.read_text()

    def shell(self, command: str) -> str:
        done = subprocess.run(
            ["sh", "-c", command], cwd=self.folder, env=self._environment, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        return done.stdout

    def prepare(self, command: str, number: int) -> None:
        if command.startswith("tokgate diff"):  # the overrides of the sections before are over
            shutil.rmtree(self.running.policies / "overrides")
            self.shell("tokgate reload")
        if "grep collector" in command:
            self._fill_disk(full=number == 0)

    def _fill_disk(self, *, full: bool) -> None:
        """Let the collector's file grow no more, as a full disk does; or let it grow again."""
        (collector,) = (worker["pid"] for worker in self._workers() if worker["name"].startswith("collector"))
        size = self.running.log.stat().st_size if full else resource.RLIM_INFINITY
        resource.prlimit(collector, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        if full:
            status, client = self.running.connect("m.tiktok.com", 443)
            client.close()
            assert " 451 " in status
        until("the collector tells of it", lambda: self._says_full() is full)

    def _says_full(self) -> bool:
        return any(worker["report"].get("log_error") for worker in self._workers())

    def _workers(self) -> list[dict[str, Any]]:
        answer = ask(self.running.confdir, ControlRequest.STATUS)
        return [] if answer is None else list(answer["workers"])


@pytest.fixture
def incident(tmp_path: Path) -> Iterator[Incident]:
    """A bad morning."""
    made = Incident(tmp_path)
    yield made
    made.running.close()


def masked(text: str) -> str:
    """The text without what differs from run to run."""
    for pattern, word in _VARIES:
        text = re.sub(pattern, word, text)
    return text


def test_each_command_prints_what_is_shown(incident: Incident) -> None:
    """Whoever types it in a hurry sees what the page promised, in the page's order."""
    text, seen, different = PAGE.read_text(), dict[str, int](), []
    for command, output in SHOWN.findall(text):
        incident.prepare(command, seen.get(command, 0))
        seen[command] = seen.get(command, 0) + 1
        printed = incident.shell(command)
        if masked(printed) != masked(output):
            different.append(f"$ {command}\n{printed}")
            text = text.replace(f"$ {command}\n{output}```", f"$ {command}\n{printed}```", 1)
    if os.environ.get("TOKGATE_GOLDEN") == "write":
        PAGE.write_text(text)
    assert different == []


def test_each_section_has_three_commands() -> None:
    """Three are enough to remember, and each situation has them."""
    parts = re.split(r"^## (.*)\n", PAGE.read_text(), flags=re.MULTILINE)[1:]
    assert {
        title: len(SHOWN.findall(text)) for title, text in zip(parts[::2], parts[1::2], strict=True)
    } == dict.fromkeys(SECTIONS, 3)
