"""Drill: whatever is so, all that tells of it agrees with what traffic meets, and answers at once.

Each state is brought about in a running tokgate. Then a client asks, and `status`, `explain`, `/healthz`, `/metrics`,
the block page and the kernel's sets are compared with what that client got.
"""

import json
import os
import signal
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from prometheus_client.parser import text_string_to_metric_families
from whenever import Instant

from labs.command_line import Command
from labs.gateway import KERNEL_TOO, Gateway
from labs.netns import Lab
from labs.origin import BANNED, Origin
from labs.running_lab import Scraped, children, runs, until
from tokgate.gateway.kernel import Kernel
from tokgate.gateway.ruleset import TableOptions
from tokgate.runtime.control_socket import ControlRequest, ask
from tokgate.service import last_state
from tokgate.service.status import Status

AT_ONCE = 2.0
"""Seconds for an answer in a test, of which a busy machine may take most; the bound itself is below one."""
CLIENT = Lab.CLIENT[4]
NEVER = "2099-01-01T00:00"
LONG_AGO = "2023-03-11T00:00"
BAN: dict[str, Any] = {"title": "Clips", "services": ["clips"], "networks": ["here"], "starts": "2023-03-10T00:00"}
POLICY: dict[str, Any] = {
    "version": 1,
    "services": {"clips": {"names": {"suffix": [BANNED]}}},
    "networks": {"here": {"cidrs": ["192.0.2.0/24"]}, "elsewhere": {"cidrs": ["198.51.100.0/24"]}},
    "settings": {"gateway": {"canary": {"enabled": False}}},
}


@dataclass(frozen=True)
class State:
    """A policy, or what of it differs, and what holds then. `days`: how wrong the clock is."""

    name: str
    verdict: str
    ban: dict[str, Any] | None = None
    phase: str | None = "block"
    more: dict[str, Any] | None = None
    problem: str | None = None
    open: bool = False
    days: int = 0
    restarts: bool = False
    kernel: str | None = None
    """Which of its sets the client is in; by the ban's phase if nothing is said."""

    @property
    def in_kernel(self) -> str:
        by_phase = {"block": "under ban", "warn": "under ban", "monitor": "clients"}
        return by_phase.get(self.phase or "", "") if self.kernel is None else self.kernel


def _exempt(clients: list[str], **more: Any) -> dict[str, Any]:
    return {"exemptions": {"press": {"ban": "ban", "clients": clients, "until": NEVER, "reason": "Press"} | more}}


def _in(hours: int) -> str:
    return Instant.now().add(hours=hours).format_iso(unit="second")


OVERRIDE: dict[str, Any] = {"override": True, "by": "eve", "starts": _in(-1), "until": _in(1)}
TODAY: dict[str, Any] = {"starts": _in(-6), "expires": _in(6)}
"""A ban that a clock two days off does not know."""


def _hours(first: int, last: int) -> list[dict[str, Any]]:
    """A window between so many hours from this one, in UTC."""
    hour = Instant.now().to_tz("UTC").hour
    return [{"days": "mon-sun", "from": f"{(hour + first) % 24:02}:00", "to": f"{(hour + last) % 24:02}:00"}]


STATES = (
    State("ahead before the start", "allow", TODAY, "expired", days=2),
    State("right after the start", "block", TODAY),
    State("behind", "allow", TODAY, "announced", days=-2),
    State("right after it was behind", "block", TODAY),
    State("ahead", "allow", TODAY, "expired", days=2),
    State("right after it was ahead", "block", TODAY),
    State("behind before a restart", "allow", TODAY, "announced", days=-2, restarts=True),
    State("right after a restart", "block", TODAY),
    State("block", "block", {}),
    State("a restart", "block", {}, restarts=True),
    State("announced", "allow", {"announced": LONG_AGO, "starts": NEVER}, "announced"),
    State("unannounced", "allow", {"announced": "2098-01-01T00:00", "starts": NEVER}, "unannounced"),
    State("begins within a day", "allow", {"starts": _in(6)}, "announced", kernel="clients"),
    State("begins in two days", "allow", {"starts": _in(48)}, "announced"),
    State("monitor from", "monitor", {"monitor_from": LONG_AGO, "starts": NEVER}, "monitor"),
    State("monitor", "monitor", {"action": "monitor"}, "monitor"),
    State("expired", "allow", {"expires": LONG_AGO}, "expired"),
    State("overdue", "block", {"expires": LONG_AGO, "on_expiry": "hold"}),
    State("in its window", "block", {"windows": _hours(-1, 2)}),
    State("outside its window", "allow", {"windows": _hours(3, 4)}),
    State("exempt", "allow", {}, more=_exempt(["192.0.2.0/25"])),
    State("an override opens all", "allow", {}, more=_exempt(["192.0.2.0/24"], **OVERRIDE), open=True),
    State("an override that is over", "block", {}, more=_exempt(["192.0.2.0/24"], **OVERRIDE | {"until": _in(0)})),
    State("another is exempt", "block", {}, more=_exempt(["192.0.2.1/32"])),
    State("exempt in time past", "block", {}, more=_exempt(["192.0.2.0/24"], until=LONG_AGO)),
    State("exempt in time to come", "block", {}, more=_exempt(["192.0.2.0/24"], starts=_in(6))),
    State("another network's", "allow", {"networks": ["elsewhere"]}, kernel=""),
    State("everything", "block", {"services": "all"}),
    State("block again", "block", {}),
    State("held", "block", None, problem="a ban that no file states any more is held: ban"),
    State("lifted", "allow", None, None, more={"lifted": [{"ban": "ban", "reason": "Repealed"}]}),
    State("block once more", "block", {}),
    State("a typo", "block", {"serviecs": ["clips"]}, problem="the newest policy is not in force"),
)
"""In this order: a ban is held that was in force before."""

CLOCK = """
import os, threading, time
from whenever import Instant, patch_current_time

real, lock, seen, patched = time.monotonic, threading.Lock(), None, None


def monotonic():
    global seen, patched
    if os.stat({file!r}).st_mtime_ns != seen and lock.acquire(blocking=False):
        seen = os.stat({file!r}).st_mtime_ns
        if patched is not None:
            patched.__exit__(None, None, None)
        patched = patch_current_time(Instant.now().add(hours=24 * int(open({file!r}).read())), keep_ticking=True)
        patched.__enter__()
        lock.release()
    return real()


time.monotonic = monotonic
"""
"""What each process of Python's runs first: its wall clock is as many days off as a file says, as soon as it says so.

All of them read the monotonic clock at least once a second.
"""


def _policy(state: State) -> dict[str, Any]:
    bans = {} if state.ban is None else {"ban": BAN | state.ban}
    return POLICY | {"bans": bans} | (state.more or {})


class Watched:
    """A gateway, whose clock can be set, and all that tells of it."""

    def __init__(self, gateway: Gateway, lab: Lab, clock: Path) -> None:
        self.gateway, self.lab, self._clock = gateway, lab, clock
        self.confdir = gateway.home / ".tokgate"
        self._kernel = Kernel(TableOptions(), gateway.folder / "gateway.json")

    def set_clock(self, days: int) -> None:
        draft = self._clock.with_suffix(".draft")
        draft.write_text(str(days))
        draft.rename(self._clock)

    def known(self) -> Status:
        """What `tokgate status` has to tell, in time."""
        return in_time(lambda: last_state.status_of(self.confdir, Instant.now()))

    def get(self, path: str) -> bytes:
        """What is served to Prometheus, or to who asks for health."""

        def got() -> bytes:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:9300{path}", timeout=30) as answer:
                    return bytes(answer.read())
            except HTTPError as error:
                with error:
                    return error.read()

        return in_time(lambda: self.gateway.namespace.inside(got))

    def metric(self, phase: str) -> float | None:
        """Whether the ban is in a phase."""
        labels = {"ban": "ban", "zone": "UTC", "phase": phase}
        families = text_string_to_metric_families(self.get("/metrics").decode())
        samples = (sample for family in families for sample in family.samples)
        return next(
            (each.value for each in samples if each.name == "tokgate_ban_phase" and each.labels == labels), None
        )

    def in_kernel(self) -> str:
        """Which of the kernel's sets the client's network is in."""
        loaded = self.gateway.namespace.inside(self._kernel.loaded)
        assert loaded is not None
        found = {name: "192.0.2.0" in str(loaded.elements[name]) for name in ("clients4", "under_ban4")}
        assert found["clients4"] or not found["under_ban4"]
        return "under ban" if found["under_ban4"] else "clients" if found["clients4"] else ""

    def over_tls(self) -> str:
        """What the client meets that names the banned host."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with self.lab.client.connect(Lab.BANNED[4], 443, 30) as sock:
            try:
                with context.wrap_socket(sock, server_hostname=BANNED):
                    return "allow"
            except ssl.SSLError as error:
                return "block" if "UNRECOGNIZED_NAME" in str(error).upper() else str(error)

    def over_http(self) -> tuple[str, str]:
        """The same in plain text, and the page."""
        page = b""
        with self.lab.client.connect(Lab.BANNED[4], 80, 30) as sock, suppress(ConnectionResetError):
            sock.sendall(f"GET / HTTP/1.1\r\nHost: {BANNED}\r\nConnection: close\r\n\r\n".encode())
            while more := sock.recv(65536):
                page += more
        status = page.split(b" ")[1].decode() if page else "nothing"
        return {"403": "block", "451": "block", "200": "allow", "404": "allow"}.get(status, status), page.decode()


def in_time[T](does: Callable[[], T | None]) -> T:
    """The result, which comes at once."""
    began = time.monotonic()
    found = does()
    assert time.monotonic() - began < AT_ONCE
    assert found is not None
    return found


@pytest.fixture
def watched(
    lab: Lab, origin: Origin, any_gateway: Callable[..., Gateway], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Watched]:
    """One that starts with the first state's clock and policy."""
    clock, site = tmp_path / "clock", tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(CLOCK.format(file=str(clock)))
    clock.write_text(str(STATES[0].days))
    gateway = any_gateway(tmp_path, policy=_policy(STATES[0]), mode=KERNEL_TOO, options=("--metrics", "9300"))
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", str(site))
        with gateway:
            yield Watched(gateway, lab, clock)


def test_a_policy_in_each_state(watched: Watched, tokgate: Command) -> None:
    """Page, status, explain, metrics, health and the kernel say of each ban and exemption what its client meets."""
    told, gateway = {}, watched.gateway
    for state in STATES:
        gateway.write_policy(_policy(state))
        watched.set_clock(state.days)
        assert ask(watched.confdir, ControlRequest.RESTART if state.restarts else ControlRequest.RELOAD)
        phases = set() if state.phase is None else {state.phase}

        def follows(phases: set[str] = phases) -> bool:
            return phases == {str(each["phase"] or "unannounced") for each in watched.known()["policy"]["bans"]}

        until(f"status follows the clock: {state.name}", follows, 10)
        until(f"the kernel follows: {state.name}", lambda: watched.in_kernel() == state.in_kernel, 10)  # noqa: B023
        policies = gateway.policies if state.problem is None else next(watched.confdir.glob("enforced-*.yaml"))
        at = ("--at", Instant.now().add(hours=24 * state.days).format_iso(unit="second"))
        query = ("--client", CLIENT, "--host", BANNED, "--json", "--policies", str(policies), *at)
        explained = tokgate("explain", *query)
        assert explained.out, (state, explained.err)
        status, problems = watched.known(), json.loads(watched.get("/healthz"))["problems"]
        live, page = watched.over_http()
        told[state.name] = {
            "TLS": watched.over_tls(),
            "HTTP": live,
            "page": "Clips" in page,
            "explain": json.loads(explained.out)["verdict"],
            "metric": watched.metric(state.phase or "-"),
            "open": next(each["open"] for each in status["policy"]["networks"] if each["network"] == "here"),
            "files": status["policy"]["files"],
            "sound": status["ok"],
            "health": len(problems),
        }
        assert all(state.problem and state.problem in each for each in problems), (state, problems)
    assert told == {
        state.name: {
            "TLS": "block" if state.verdict == "block" else "allow",
            "HTTP": "block" if state.verdict == "block" else "allow",
            "page": state.verdict == "block",
            "explain": state.verdict,
            "metric": None if state.phase is None else 1.0,
            "open": ["ban"] if state.open else [],
            "files": str(gateway.policies),
            "sound": state.problem is None,
            "health": 0 if state.problem is None else 1,
        }
        for state in STATES
    }


# -- the supervisor


def known(running: Scraped) -> Status:
    """What `tokgate status` has to tell, in time."""
    return in_time(lambda: last_state.status_of(running.confdir, Instant.now()))


def health(running: Scraped) -> list[str]:
    """The problems of `/healthz`, in time."""
    return in_time(running.problems)


def test_a_supervisor_in_each_state(tmp_path: Path) -> None:
    """Both answer at once, and agree on who was stopped, restarts, ends or died; a restart is not red.

    Of who died nothing of before is taken for what is.
    """
    running = Scraped(tmp_path)
    until("it is well", lambda: running.problems() == [])
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

    running.start({})
    until("its state is kept", (running.confdir / last_state.NAME).exists)
    family = children(running.process.pid)
    running.process.kill()
    running.process.wait()
    running.origin.close()
    with pytest.raises(last_state.Unanswered, match="has died"):
        last_state.status_of(running.confdir, Instant.now())
    until("all have ended", lambda: not any(map(runs, family)))
    assert health(running) == ["nobody answers"]


def test_mitmproxy_alone(tmp_path: Path) -> None:
    """Without a supervisor the same is known of who was stopped, drains or died; who ended in order is not there."""
    running = Scraped(tmp_path, ("--mode", "regular@127.0.0.1:0"))
    until("it is well", lambda: running.problems() == [] and known(running)["ok"])
    pid = running.process.pid
    until("it is kept", lambda: json.loads((running.confdir / last_state.NAME).read_text())["state"])
    os.kill(pid, signal.SIGSTOP)
    assert known(running)["problems"] == [f"tokgate (pid {pid}) was stopped: kill -CONT {pid}"]
    assert known(running)["policy"]["networks"][0]["bans"] == {"ban": "block"}
    os.kill(pid, signal.SIGCONT)
    until("it is well", lambda: known(running)["ok"])
    _, tunnel = running.connect("127.0.0.1", running.origin.getsockname()[1])
    os.kill(pid, signal.SIGTERM)
    with tunnel:
        until("it ends", lambda: any("it ends by SIGTERM" in each for each in known(running)["problems"]))
    assert running.process.wait(30) == 0
    assert last_state.status_of(running.confdir, Instant.now()) is None
    running.start({})
    until("it answers", lambda: ask(running.confdir, ControlRequest.STATUS))
    running.process.kill()
    running.process.wait()
    running.origin.close()
    with pytest.raises(last_state.Unanswered, match="has died"):
        last_state.status_of(running.confdir, Instant.now())
