"""`tokgate doctor` beside a tokgate that runs, and where none does."""

import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from labs.command_line import Command
from labs.running_lab import POLICY, Running, until
from tokgate.cli.service import doctor
from tokgate.gateway.ruleset import Ruleset, Tproxy
from tokgate.runtime.control_socket import NAME
from tokgate.service.doctor import Result, installation, kernel, probes


@pytest.fixture(autouse=True)
def _a_clock_that_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "clock", lambda: Result("clock", "synchronised"))


def _seen(tokgate: Command, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    outcome = tokgate("doctor", "--json", *arguments)
    said = json.loads(outcome.out)
    assert said["ok"] == (outcome.code == 0)
    return outcome.code, {each["subject"]: each for each in said["results"]}


def test_a_running_tokgate(tmp_path: Path, tokgate: Command) -> None:
    """It is tried through its own proxy; a ban that is gone from the files, or a destination, is seen."""
    running = Running(tmp_path, workers=1)
    where = ("--policies", str(running.policies), "--confdir", str(running.confdir), "--log", str(running.log))
    try:
        until("an opener answers", running.refuses)
        until("the gate has reported", lambda: "descriptors" in _seen(tokgate, *where, "--allowed", "localhost")[1])
        until("all of it runs", lambda: not running.problems_told())
        for command in ("status", "reload"):  # what they answer is compared with the schema by the fixture
            assert tokgate(command, "--confdir", str(running.confdir), "--json").out.startswith("{")
        code, seen = _seen(tokgate, *where, "--allowed", "localhost")
        assert seen["DNS"]["ok"]
        assert seen["tokgate"]["ok"], seen
        assert seen["banned probe"]["said"] == "clips.example.org is refused"
        # Nothing listens at port 443 of this machine: the proxy answers 502.
        assert (code, seen["allowed probe"]["ok"]) == (1, False)
        running.write(POLICY | {"bans": {"ban": {"title": "no services"}}})
        code, seen = _seen(tokgate, *where)
        assert (code, "error" in seen["policy"]["said"], "DNS" in seen) == (1, True, True), seen
    finally:
        running.close()


def test_a_supervisor_that_hangs(tmp_path: Path, tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said soon, and that systemd will start it again."""
    monkeypatch.setattr(installation, "PATIENCE", 0.5)
    with socket.socket(socket.AF_UNIX) as nobody_accepts:
        nobody_accepts.bind(str(tmp_path / NAME))
        nobody_accepts.listen()
        _, seen = _seen(tokgate, "--confdir", str(tmp_path), "--policies", str(tmp_path))
    assert "hangs" in seen["tokgate"]["remedy"]


def test_nobody_runs(tmp_path: Path, tokgate: Command, policies: Path) -> None:
    outcome = tokgate("doctor", "--policies", str(policies), "--confdir", str(tmp_path), "--log", str(tmp_path / "log"))
    assert outcome.code == 1
    assert "! tokgate: none runs here\n    systemctl start tokgate" in outcome.out


@pytest.mark.parametrize(
    ("listening", "port"),
    [
        (
            [{"entry": "explicit", "host": "192.0.2.1", "port": 8080}, {"entry": "tproxy", "host": "::", "port": 8081}],
            8081,
        ),
        ([], 8080),
    ],
)
def test_the_port_of_a_running_gateway(
    listening: list[dict[str, Any]],
    port: int,
    tmp_path: Path,
    tokgate: Command,
    policies: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel is compared with the table that brings clients to where gates listen, not with the default one."""
    state = {"problems": [], "policy": {"version": "any"}, "workers": [], "listening": listening}
    compared: list[Ruleset] = []

    def compare(rules: Ruleset, _: Path) -> Sequence[Result]:
        compared.append(rules)
        return ()

    monkeypatch.setattr(doctor, "need", lambda _: None)
    monkeypatch.setattr(doctor, "ask", lambda *_, **__: state)
    monkeypatch.setattr(probes, "proxy", lambda *_: ())
    monkeypatch.setattr(kernel, "loaded", compare)
    _seen(tokgate, "--gateway", "--policies", str(policies), "--confdir", str(tmp_path), "--log", str(tmp_path / "log"))
    assert [each.options.forwarded for each in compared] == [Tproxy(port)]
