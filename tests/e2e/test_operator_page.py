"""The gateway of docs/readers/operator.md: its commands do what is printed, with two clients behind it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labs.command_line import shell_environment
from labs.gateway import ROOT, Record
from labs.netns import Lab, Namespace, wait_until
from labs.origin import ADDRESSES, BANNED, Origin, to_banned

PAGE = (ROOT / "docs/readers/operator.md").read_text()
CLIENTS = {"office": "client", "visitors": "guest"}
CURL_REFUSED = re.compile(r"curl: \(35\) .*unrecognized name")
"""The words before are of the library that curl is built with."""


def block(language: str, mark: str) -> str:
    """The one code block of a language with a mark behind it."""
    (found,) = re.findall(rf"^```{language} {mark}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


class Typing:
    """Somebody in a folder of his own who types what the page has. curl trusts the laboratory's authority."""

    def __init__(self, lab: Lab, origin: Origin, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.narration = folder / "narration"
        self._environment = shell_environment(folder, CURL_CA_BUNDLE=str(origin.authority))

    def command(self, line: str) -> tuple[str, ...]:
        """The command line of a shell that runs a line in the folder."""
        return ("sh", "-c", f"cd {self.folder} && exec {line}")

    def prints(self, namespace: Namespace, line: str) -> str:
        """What a command line prints, on both streams."""
        done = namespace.run(*self.command(line), env=self._environment, check=False)
        return done.stderr + done.stdout

    def does(self, line: str) -> str:
        """What a command on the gateway prints; it ends well."""
        return self.lab.gateway.run(*self.command(line), env=self._environment).stdout

    @property
    def records(self) -> Path:
        """The block log."""
        return self.folder / "block.ndjson"


@pytest.fixture
def typing(lab: Lab, origin: Origin, tmp_path: Path) -> Iterator[Typing]:
    """The first block is typed: the gateway runs until the test ends."""
    made = Typing(lab, origin, tmp_path)
    hosts = {name: tuple(addresses.values()) for name, addresses in ADDRESSES.items()}
    for client in (lab.client, lab.guest):
        client.hosts(hosts)
    *before, last = block("sh", "gateway").splitlines()
    for line in before:
        made.does(line)
    process = lab.gateway.start(*made.command(last), output=made.narration, env=made._environment)
    try:
        wait_until("the gateway runs", lambda: "gate: QUIC" in made.narration.read_text() or process.poll() is not None)
        assert process.poll() is None, made.narration.read_text()
        wait_until("its openers serve", lambda: "no opener" not in made.prints(lab.gateway, "tokgate status"))
        yield made
    finally:
        process.terminate()
        process.wait(60)
        lab.gateway.forget()
    assert process.returncode == 0, made.narration.read_text()
    assert lab.gateway.run("nft", "list", "ruleset").stdout == ""


def test_each_command(lab: Lab, origin: Origin, typing: Typing, check_lines: Callable[[Path], list[Record]]) -> None:
    """Clients get what is printed, over IPv4 and IPv6, and the gateway shows who was refused what."""
    for mark, role in CLIENTS.items():
        with origin.watch() as seen:
            for command, output in re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", block("console", mark), re.MULTILINE):
                printed = typing.prints(getattr(lab, role), command)
                assert masked(printed) == masked(output), command
        assert bool(to_banned(seen)) is (mark == "visitors")
    shown = {line.partition("#")[0].strip(): "" for line in block("sh", "look").splitlines()}
    for line in shown:
        shown[line] = " ".join(typing.does(line).split())  # long lines are folded
    assert shown["tokgate gateway check"] == ""
    for family in (4, 6):
        assert f"{Lab.CLIENT[family]} (here) was refused {BANNED}: " in shown["tokgate log tail"]
    assert "tiktok-ban" in shown["tokgate status"]
    refused = [r["source"]["ip"] for r in check_lines(typing.records) if "denied" in r["event"]["type"]]
    assert sorted(set(refused)) == sorted(Lab.CLIENT.values())


def masked(output: str) -> str:
    """Output without what differs between libraries."""
    return CURL_REFUSED.sub("curl: (35) unrecognized name", output)
