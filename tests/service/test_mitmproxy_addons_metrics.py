"""Metrics and health of running tokgates: with gates, and with mitmproxy alone."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from labs.running_lab import AS_WE_ARE, POLICY, ROOT, WITHOUT_BAN, Scraped, until
from tokgate.runtime.control_socket import ControlRequest, ask

WRONG = POLICY | {"bans": {"ban": {"title": "no services"}}}
CARRIERS = {
    "gates": ("--mode", "gate:explicit@127.0.0.1:0"),
    "mitmproxy": ("--mode", "regular@127.0.0.1:0"),
}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Scraped]]:
    """Starts one, and ends it with the test."""
    running: list[Scraped] = []

    def begin(carrier: str, log: Path | None = None) -> Scraped:
        running.append(Scraped(tmp_path, CARRIERS[carrier], log=log))
        return running[0]

    yield begin
    for each in running:
        each.close()
        assert "Traceback" not in each.narrated()


@pytest.mark.parametrize("carrier", CARRIERS)
def test_metrics_and_health(start: Callable[..., Scraped], carrier: str) -> None:
    """Green once it runs; red with the reason while the newest edit is wrong; green again after it is mended."""
    running = start(carrier)
    until("it is well", lambda: running.problems() == [])
    until("a banned name is refused", running.refuses)
    assert running.metric("healthy") == 1
    assert running.metric("ban_phase", ban="ban", zone="UTC", phase="block") == 1
    until("records were written", lambda: (running.metric("log_records_written_total") or 0) >= 2)
    counted = running.metric("decisions_total", network="here", visibility="decrypted", verdict="block")
    assert (counted or 0) >= 1
    role = "gate" if carrier == "gates" else "proxy"
    assert running.metric("workers", role=role, state="serving") == 1
    authority = str(running.confdir / "mitmproxy-ca.pem")
    assert (running.metric("certificate_seconds_until_expiry", file=authority) or 0) > 86400

    running.write(WRONG)
    until("health is red", running.problems)
    assert "the newest policy is not in force" in running.problems()[0]
    assert running.metric("policy_newest_in_force") == 0
    assert (running.metric("policy_reloads_total", result="failure") or 0) >= 1
    running.write(WITHOUT_BAN)
    until("it is well again", lambda: running.problems() == [])
    assert running.metric("ban_phase", ban="ban", zone="UTC", phase="block") is None
    assert (running.metric("policy_reloads_total", result="success") or 0) >= 1


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_log_that_cannot_be_written_is_red(start: Callable[..., Scraped], carrier: str, tmp_path: Path) -> None:
    """Health says what fails; bans are enforced all the same."""
    folder = tmp_path / "folder.ndjson"
    folder.mkdir()
    running = start(carrier, folder)
    until("health is red", lambda: any("Is a directory" in each for each in running.problems()))
    assert running.metric("log_writable") == 0
    assert running.metric("healthy") == 0
    assert until("a banned name is refused", running.refuses)


def _restarted(running: Scraped, role: str) -> bool:
    return running.metric("restarts_total", role=role) == 1


def test_whoever_dies_the_counts_go_on(start: Callable[..., Scraped], tmp_path: Path) -> None:
    """The process for metrics is replaced at its port; so are the others, and each death is counted.

    Another tokgate, in every mode, is told at once that the port is taken: exit code 3.
    """
    running = start("gates")
    until("it is well", lambda: running.problems() == [])
    state = ask(running.confdir, ControlRequest.STATUS)
    assert state is not None
    names = {worker["name"]: worker["pid"] for worker in state["workers"]}
    for role in ("metrics", "gate", "collector"):
        os.kill(names[f"{role}-0"], signal.SIGKILL)
        until(f"the death of {role} is counted", partial(_restarted, running, role))
    until("all is well", lambda: running.problems() == [])
    taken = running.base.rpartition(":")[2]
    files = ("--policies", "policies", "--log", "other.ndjson", "--confdir", "others", "--metrics", taken)
    for mode in CARRIERS.values():
        command = [sys.executable, "-m", "tokgate", "run", *AS_WE_ARE, *mode, *files]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "addons")}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 3, done.stderr
        assert "in use" in done.stderr
