"""An exam room that is learned from what a ban saw while it only monitored."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from labs.gateway import CARRIERS, Gateway, office_policy
from labs.netns import Lab, wait_until
from labs.origin import ALLOWED, BANNED, Origin
from labs.other_ports import REFUSED_BY_ALERT, curl, greeted, serving

SERVER, ELSEWHERE = Lab.MORE


def test_learned_from_monitoring(lab: Lab, origin: Origin, any_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """What a monitored room asked for becomes its service: then that passes, and what nobody asked for is refused."""
    policy = office_policy(services="all", action="monitor")
    name = next(iter(policy["bans"]))
    with any_gateway(tmp_path, policy=policy, **CARRIERS["gates"]) as gateway:
        assert curl(lab.client, origin, f"https://{ALLOWED}:443/", 4)[1][-3:] == "200"
        assert greeted(lab, lab.client, SERVER[4], 22)
        gateway.wait_for_record("its record", lambda record: record.get("destination", {}).get("ip") == SERVER[4])
        words = ("--ban", name, "--name", "room", "--log", gateway.log, "--policies", gateway.policies)
        assert gateway.asked("service", "learn", *words).stdout.endswith("room.yaml: 1 name, 1 address\n")
        policy["bans"][name] |= {"action": "block", "except": ["room"]}
        gateway.enforces(policy)
        wait_until(
            "it is refused", lambda: curl(lab.client, origin, f"https://{BANNED}:443/", 4)[0] == REFUSED_BY_ALERT
        )
        assert curl(lab.client, origin, f"https://{ALLOWED}:443/", 4)[1][-3:] == "200"
        assert greeted(lab, lab.client, SERVER[4], 22)
        with serving(lab.origin, ELSEWHERE[4], 22) as server:
            server.settimeout(0.1)
            with contextlib.suppress(OSError), lab.client.connect(ELSEWHERE[4], 22, 20) as client:
                client.sendall(b"hello\r\n")
                assert client.recv(64) == b""
            with pytest.raises(TimeoutError):
                server.accept()
