"""Metrics and health of running tokgates: with gates, and with mitmproxy alone."""

import os
import signal
import subprocess
import sys
from contextlib import closing
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


@pytest.mark.parametrize("carrier", CARRIERS)
def test_metrics_and_health(tmp_path: Path, carrier: str) -> None:
    """Red with the reason while the log can't be written, or the newest edit is wrong; green once that is mended."""
    (tmp_path / "block.ndjson").mkdir()
    with closing(Scraped(tmp_path, CARRIERS[carrier])) as running:
        until("health is red", lambda: any("Is a directory" in each for each in running.problems()))
        assert running.metric("log_writable") == running.metric("healthy") == 0
        until("a banned name is refused", running.refuses)
        running.log.rmdir()
        until("it is well", lambda: running.problems() == [])
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
    assert "Traceback" not in running.narrated()


def _restarted(running: Scraped, role: str) -> bool:
    return running.metric("restarts_total", role=role) == 1


def test_whoever_dies_the_counts_go_on(tmp_path: Path) -> None:
    """The process for metrics is replaced at its port; so are the others, and each death is counted.

    Another tokgate, in every mode, is told at once that the port is taken: exit code 3.
    """
    with closing(Scraped(tmp_path, CARRIERS["gates"])) as running:
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
