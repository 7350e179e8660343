"""Drill: whatever is so, all that tells of it agrees with what traffic meets, and answers at once.

Each state is brought about in a running tokgate. Then a client asks, and `status`, `explain`, `/healthz`, `/metrics`
and the block page are compared with what that client got.
"""

import json
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from whenever import Instant

from labs.command_line import Command
from labs.running_lab import POLICY, Scraped, children, until
from tokgate.runtime.control_socket import ControlRequest, ask
from tokgate.service import last_state
from tokgate.service.status import Status

AT_ONCE = 2.0
"""Seconds for an answer in a test, of which a busy machine may take most; the bound itself is below one."""
NAME = "www.clips.example.org"
BAN = POLICY["bans"]["ban"]
NEVER = "2099-01-01T00:00"
LONG_AGO = "2023-03-11T00:00"


@dataclass(frozen=True)
class State:
    """A policy, or what of it differs, and what holds then."""

    name: str
    verdict: str
    ban: dict[str, Any] | None = None
    phase: str | None = "block"
    more: dict[str, Any] | None = None
    problem: str | None = None
    open: bool = False


def _exempt(clients: list[str], **more: Any) -> dict[str, Any]:
    return {"exemptions": {"press": {"ban": "ban", "clients": clients, "until": NEVER, "reason": "Press"} | more}}


OVERRIDE: dict[str, Any] = {
    "override": True,
    "by": "eve",
    "starts": f"{Instant.now().subtract(hours=1).format_iso(unit='second')}",
    "until": f"{Instant.now().add(hours=1).format_iso(unit='second')}",
}


def _hours(first: int, last: int) -> list[dict[str, Any]]:
    """A window between so many hours from this one, in UTC."""
    hour = Instant.now().to_tz("UTC").hour
    return [{"days": "mon-sun", "from": f"{(hour + first) % 24:02}:00", "to": f"{(hour + last) % 24:02}:00"}]


STATES = (
    State("block", "block", {}),
    State("announced", "allow", {"announced": LONG_AGO, "starts": NEVER}, "announced"),
    State("unannounced", "allow", {"announced": "2098-01-01T00:00", "starts": NEVER}, "unannounced"),
    State("monitor from", "monitor", {"monitor_from": LONG_AGO, "starts": NEVER}, "monitor"),
    State("monitor", "monitor", {"action": "monitor"}, "monitor"),
    State("expired", "allow", {"expires": LONG_AGO}, "expired"),
    State("overdue", "block", {"expires": LONG_AGO, "on_expiry": "hold"}),
    State("in its window", "block", {"windows": _hours(-1, 2)}),
    State("outside its window", "allow", {"windows": _hours(3, 4)}),
    State("exempt", "allow", {}, more=_exempt(["127.0.0.0/24"])),
    State("an override opens all", "allow", {}, more=_exempt(["127.0.0.0/8"], **OVERRIDE), open=True),
    State("another is exempt", "block", {}, more=_exempt(["192.0.2.1/32"])),
    State("exempt in time past", "block", {}, more=_exempt(["127.0.0.0/8"], until=LONG_AGO)),
    State("block again", "block", {}),
    State("held", "block", None, problem="a ban that no file states any more is held: ban"),
    State("lifted", "allow", None, None, more={"lifted": [{"ban": "ban", "reason": "Repealed"}]}),
    State("block once more", "block", {}),
    State("a typo", "block", {"serviecs": ["clips"]}, problem="the newest policy is not in force"),
)
"""In this order: a ban is held that was in force before."""


def _policy(state: State) -> dict[str, Any]:
    bans = {} if state.ban is None else {"ban": BAN | state.ban}
    return POLICY | {"bans": bans} | (state.more or {})


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Scraped]:
    """One with metrics, all of which is well."""
    started = Scraped(tmp_path, ("--mode", "gate:explicit@127.0.0.1:0"), workers=1)
    until("it is well", lambda: started.problems() == [])
    yield started
    if started.process.poll() is None:
        started.close()


def known(running: Scraped) -> Status:
    """What `tokgate status` has to tell, in time."""
    began = time.monotonic()
    state = last_state.status_of(running.confdir, Instant.now())
    assert time.monotonic() - began < AT_ONCE
    assert state is not None
    return state


def health(running: Scraped) -> list[str]:
    """The problems of `/healthz`, in time."""
    began = time.monotonic()
    problems = running.problems()
    assert time.monotonic() - began < AT_ONCE
    return problems


def met(running: Scraped) -> tuple[str, str]:
    """What a client gets who asks for the banned name in plain text: the verdict, as far as it shows, and the page."""
    proxy = urllib.request.ProxyHandler({"http": f"http://127.0.0.1:{running.port}"})
    with pytest.raises(HTTPError) as failed:  # the name leads nowhere: who passes gets 502
        urllib.request.build_opener(proxy).open(f"http://{NAME}/", timeout=30)
    with failed.value as answer:
        return {403: "block", 451: "block", 502: "allow"}.get(answer.code, str(answer.code)), answer.read().decode()


def test_a_policy_in_each_state(running: Scraped, tokgate: Command) -> None:
    """The page, status, explain, metrics and health say of each ban and exemption what its client meets."""
    told = {}
    for state in STATES:
        running.write(_policy(state))
        ask(running.confdir, ControlRequest.RELOAD)
        policies = running.policies if state.problem is None else next(running.confdir.glob("enforced-*.yaml"))
        query = ("--client", "127.0.0.1", "--host", NAME, "--json", "--policies", str(policies))
        status, problems, (verdict, page) = known(running), health(running), met(running)
        policy, explained = status["policy"], tokgate("explain", *query)
        assert explained.out, (state, explained.err)
        told[state.name] = {
            "live": verdict,
            "page": "Clips" in page,
            "explain": json.loads(explained.out)["verdict"],
            "phases": {str(ban["phase"] or "unannounced") for ban in policy["bans"]},
            "metric": running.metric("ban_phase", ban="ban", zone="UTC", phase=state.phase or "-"),
            "open": policy["networks"][0]["open"],
            "files": policy["files"],
            "sound": status["ok"],
            "health": len(problems),
        }
        assert all(state.problem and state.problem in each for each in problems), (state, problems)
    assert told == {
        state.name: {
            "live": "block" if state.verdict == "block" else "allow",
            "page": state.verdict == "block",
            "explain": state.verdict,
            "phases": set() if state.phase is None else {state.phase},
            "metric": None if state.phase is None else 1.0,
            "open": ["ban"] if state.open else [],
            "files": str(running.policies),
            "sound": state.problem is None,
            "health": 0 if state.problem is None else 1,
        }
        for state in STATES
    }


def test_a_supervisor_in_each_state(running: Scraped) -> None:
    """Both answer at once, and agree on who was stopped, restarts or ends; a restart is no reason to turn elsewhere."""
    pid, control = running.process.pid, running.confdir / "control.sock"
    os.kill(pid, signal.SIGSTOP)
    assert health(running) == known(running)["problems"] == [f"tokgate (pid {pid}) was stopped: kill -CONT {pid}"]
    assert known(running)["policy"]["networks"][0]["bans"] == {"ban": "block"}
    os.kill(pid, signal.SIGCONT)
    until("it is well", lambda: known(running)["ok"] and health(running) == [])
    control.unlink()
    until("it is reached again", lambda: known(running)["known"] == "now")

    restarting = threading.Thread(target=ask, args=(running.confdir, ControlRequest.RESTART))
    restarting.start()
    while restarting.is_alive():
        assert (health(running), known(running)["problems"]) == ([], [])
    restarting.join()
    until("it is well", lambda: known(running)["ok"] and health(running) == [])

    status, tunnel = running.connect("127.0.0.1", running.origin.getsockname()[1])
    assert " 200 " in status
    os.kill(pid, signal.SIGTERM)
    with tunnel:
        until("it ends", lambda: any("it ends by SIGTERM" in each for each in known(running)["problems"]))
        assert any("it ends by SIGTERM" in each for each in health(running))
    running.process.wait(30)
    assert last_state.status_of(running.confdir, Instant.now()) is None
    assert health(running) == ["nobody answers"]


def test_a_supervisor_that_died(running: Scraped) -> None:
    """It is told that it did; nothing of before is taken for what is."""
    family = children(running.process.pid)
    running.process.kill()
    running.process.wait()
    with pytest.raises(last_state.Unanswered, match="has died"):
        last_state.status_of(running.confdir, Instant.now())
    until("all have ended", lambda: not any(Path(f"/proc/{pid}").exists() for pid in family))
    assert health(running) == ["nobody answers"]
