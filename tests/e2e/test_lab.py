"""The laboratory itself: it leaves nothing behind, and what it counts is what arrives."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labs import clients as lab_clients
from labs.gateway import CARRIERS, Gateway, office_policy
from labs.netns import NETNS, Lab, Namespace, sweep, wait_until
from labs.origin import BANNED, Origin, to_banned


def test_sweep_removes_what_a_dead_run_left(requirements: None) -> None:
    """Namespaces of a process that is gone are removed with all that runs inside; those of a living one stay."""
    run = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    left = Namespace(f"tokgate{run.pid}-client")
    left.add()
    inside = subprocess.Popen(left.command("sleep", "60"))
    try:
        sweep()
        assert (NETNS / left.name).exists()
    finally:
        run.communicate(b"\n")
    sweep()

    assert not (NETNS / left.name).exists()
    wait_until("the process inside is gone", lambda: inside.poll() is not None)


def test_counters_count(lab: Lab, origin: Origin) -> None:
    """Without a gateway in between the banned name answers, and its packets are seen: zero elsewhere means zero."""
    with origin.watch() as seen:
        answer = lab_clients.curl(lab.client, BANNED, 6, True, origin.authority)

    assert answer.certificate == origin.fingerprints[BANNED]
    assert seen["banned-tcp443"] > 3
    assert seen["banned-other"] == 0


@pytest.mark.parametrize("family", [4, 6])
def test_what_ends_is_not_counted(lab: Lab, origin: Origin, monkeypatch: pytest.MonkeyPatch, family: int) -> None:
    """A connection from before ends first, however long that takes: its last packets are no arrivals."""
    before = lab.guest.connect(Lab.BANNED[family], 80)
    run = origin.namespace.run

    def slowly(*command: str | Path, **more: Any) -> Any:
        """It ends once somebody has seen that it is there, or has begun to count."""
        done = run(*command, **more)
        before.close()
        return done

    monkeypatch.setattr(origin.namespace, "run", slowly)
    with origin.watch() as seen:
        wait_until("it has ended", lambda: not origin.connected(BANNED))
    assert to_banned(seen) == 0


def test_a_gateway_leaves_no_connections(
    lab: Lab, origin: Origin, any_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    """Behind the next gateway a client may use a port again: the kernel knows nothing of how it was used before."""
    with any_gateway(tmp_path, policy=office_policy(), **CARRIERS["mitmproxy"]):
        assert lab_clients.python(lab.client, BANNED, 4, False, origin.authority).error

    assert lab.gateway.run("sysctl", "-n", "net.netfilter.nf_conntrack_count").stdout == "0\n"
    assert lab.gateway.run("ss", "-Htn", "state", "time-wait").stdout == ""
