"""`tokgate status` in text: what a person reads of a running tokgate."""

import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from labs.command_line import Command, Outcome
from labs.gate_lab import Origin
from tokgate.cli.service import status
from tokgate.runtime.control_socket import NAME
from tokgate.service.status import worker_of


def ban(name: str, phase: str | None, idle: str | None = None, *, overdue: bool = False) -> dict[str, Any]:
    told = {"ban": name, "networks": ["office"], "phase": phase, "idle": idle, "overdue": overdue}
    return told | {"held": False, "extends": [], "extended_by": []}


def state(*bans: dict[str, Any], ok: bool = True) -> dict[str, Any]:
    report = {"connections": 2, "clients": 1, "errors": {} if ok else {"quic": 3}}
    return {
        "ok": ok,
        "problems": [],
        "known": "now",
        "busy": None,
        "listening": [],
        "policy": {
            "files": "/etc/tokgate/policies",
            "version": "0c2bfe1dd0f4",
            "in_force": "1 ban is in force",
            "open": [],
            "exempt": [],
            "loaded_at": "2023-03-10T08:00:00Z",
            "errors": [],
            "restart_needed": [],
            "next_transition": None,
            "held": [],
            "bans": list(bans),
        },
        "gateway": None,
        "workers": [worker_of("gate-0", 7, 61.2, "0c2bfe1dd0f4", report)],
    }


type Told = Callable[..., Outcome]


@pytest.fixture
def says(tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> Told:
    def say(told: dict[str, Any], *words: str) -> Outcome:
        monkeypatch.setattr(status, "running_status", lambda _: told)
        return tokgate("status", *words)

    return say


@pytest.mark.parametrize(
    ("told", "line"),
    [
        pytest.param(ban("a", None, "unannounced"), "unannounced: a for office", id="unannounced"),
        pytest.param(ban("a", "announced", "announced"), "announced: a for office", id="announced"),
        pytest.param(ban("a", "block"), "block: a for office", id="block"),
        pytest.param(ban("a", "block", "outside-window"), "block: a for office (outside-window)", id="window"),
        pytest.param(ban("a", "block", overdue=True), "block: a for office (overdue)", id="overdue"),
        pytest.param(ban("a", "expired", "expired"), "expired: a for office", id="expired"),
    ],
)
def test_a_ban(says: Told, told: dict[str, Any], line: str) -> None:
    """Its phase, and beside it only what the phase doesn't say."""
    outcome = says(state(told))
    assert (outcome.code, f"\n  {line}\n" in outcome.out) == (0, True), outcome.out


def test_trouble(says: Told) -> None:
    """It comes first, as all that makes the exit code 1, and is told for the worker that has it."""
    told = state(ok=False) | {"problems": ["gate-0 has not reported for 4 s"]}
    told["workers"][0]["condition"] = "silent"
    told["policy"] |= {"held": ["old"], "loaded_at": "2023-03-10T08:00:00.123456789Z"}
    outcome = says(told)
    assert outcome.code == 1
    hangs, held, troubled, in_force, loaded, *_, gate = outcome.out.splitlines()
    assert hangs == "needs attention: gate-0 has not reported for 4 s"
    assert held.startswith("needs attention: the ban old is held")
    assert troubled == "needs attention: gate-0: 3 internal errors in quic"
    assert in_force == "1 ban is in force"
    assert loaded == "policy 0c2bfe1dd0f4 of /etc/tokgate/policies, loaded 2023-03-10T08:00:00Z"
    now = "silent, 2 connections of 1 client, 3 internal errors in quic"
    assert gate == f"gate-0 pid 7, up 61 s, policy 0c2bfe1dd0f4, {now}"


def test_all_is_well(says: Told) -> None:
    """It says so in its first line; an age is in units that can be read."""
    told = state()
    told["workers"][0]["seconds"] = 15 * 86_400.0
    outcome = says(told)
    assert outcome.code == 0
    assert outcome.out.startswith("all is well, and 1 ban is in force\npolicy ")
    assert "gate-0 pid 7, up 15 days, " in outcome.out


def test_a_network_that_is_open(says: Told) -> None:
    """All is not well in the eyes of who reads that everybody passes; it is nobody's fault either."""
    told = state()
    told["listening"] = [{"entry": "explicit", "host": "::", "port": 8080}]
    told["policy"]["open"] = ["the whole network office is exempt from a by eve until 2023-03-11T00:00:00Z: ministry"]
    told["policy"]["exempt"] = [
        {
            "name": "ministry",
            "ban": "a",
            "whom": ["192.0.2.0/24"],
            "until": "2023-03-11T00:00:00Z",
            "override": True,
            "by": "eve",
        }
    ]
    outcome = says(told)
    assert outcome.code == 0
    first, second, *_ = outcome.out.splitlines()
    assert first == told["policy"]["open"][0]
    assert second == "1 ban is in force"
    assert "\n  explicit clients on [::]:8080\n" in outcome.out
    assert "  override ministry by eve: 192.0.2.0/24 from a until 2023-03-11T00:00:00Z\n" in outcome.out


def test_nobody_answers(says: Told) -> None:
    """What is shown is of before, and said to be; so is why."""
    told = state() | {"known": "2023-03-10T08:00:00Z", "at": "2023-03-10T09:00:00Z"}
    told["busy"] = {"what": "a new program takes over", "since": "2023-03-10T08:59:59Z"}
    outcome = says(told)
    assert outcome.out.startswith(
        "busy: a new program takes over, since 2023-03-10T08:59:59Z\n"
        "the supervisor does not answer now: this is what it knew at 2023-03-10T08:00:00Z\n1 ban is in force\n"
    )


def test_the_kernel(says: Told) -> None:
    """Which table is loaded for which policy, until when, and what is wrong with it."""
    gateway = {
        "table": "tokgate",
        "policy": "0c2bfe1dd0f4",
        "loaded_at": "2023-03-10T08:00:00Z",
        "until": "2023-03-11T08:00:00Z",
        "problems": ["chain forward is missing"],
        "refused": {"quic": 3, "unknown_clients": 0},
        "canary": {
            "ok": True,
            "at": "2023-03-10T08:00:07Z",
            "asks_from": "namespace",
            "unavailable": None,
        },
    }
    outcome = says(state(ok=False) | {"gateway": gateway})
    assert outcome.code == 1
    assert (
        "gateway: table tokgate of policy 0c2bfe1dd0f4, loaded 2023-03-10T08:00:00Z, another one is due at "
        "2023-03-11T08:00:00Z\n  chain forward is missing\n"
        "  canary: all well at 2023-03-10T08:00:07Z, asked from a network namespace of its own\n"
        "  packets that the kernel refused, and no gate saw: quic 3\n"
    ) in outcome.out


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", 0, None, id="the file"),
        pytest.param(
            b"HTTP/1.1 502 Bad Gateway\r\n\r\n", 1, "does not answer as it should: HTTP/1.1 502", id="an error"
        ),
        pytest.param(None, 1, "does not answer\n", id="nobody"),
    ],
)
def test_a_probe(says: Told, answer: bytes | None, code: int, said: str | None) -> None:
    """The proxy itself is asked: one that doesn't serve is a finding, whatever the supervisor says."""

    def serve(client: socket.socket) -> None:
        assert client.recv(4096).startswith(b"GET /proxy.pac HTTP/1.1\r\n")
        client.sendall(answer or b"")

    with closing(Origin(serve)) as proxy:
        told = state() | {"listening": [{"entry": "tproxy", "host": "::", "port": 1}]}
        told["listening"].append({"entry": "explicit", "host": "0.0.0.0", "port": proxy.port if answer else 1})
        outcome = says(told, "--probe")
    assert outcome.code == code
    lines = [line for line in outcome.out.splitlines() if line.startswith("needs attention: the proxy on ")]
    assert len(lines) == (said is not None)
    assert said is None or said.strip() in lines[0]


def test_the_addon_in_mitmproxy_is_found(tmp_path: Path, tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the addon runs in a plain mitmproxy, its folder is named; without one, only that none runs."""
    monkeypatch.setenv("HOME", str(tmp_path))
    outcome = tokgate("status")
    assert (outcome.code, outcome.err.count("\n")) == (3, 1)
    assert outcome.err.endswith(".tokgate\n")
    (tmp_path / ".mitmproxy").mkdir()
    (tmp_path / ".mitmproxy" / NAME).touch()
    assert tokgate("status").err.endswith("; the addon in mitmproxy has --confdir ~/.mitmproxy\n")
