"""The laboratory itself: it leaves nothing behind, and what it counts is what arrives."""

from __future__ import annotations

import subprocess
import sys

from labs import clients as lab_clients
from labs.netns import NETNS, Lab, Namespace, sweep, wait_until
from labs.origin import BANNED, Origin


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
