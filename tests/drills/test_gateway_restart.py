"""Drill: a new version takes over on a gateway, with the kernel's rules, the open connections and QUIC's sockets."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labs.clients import UNRECOGNIZED_NAME, http3, python
from labs.gateway import KERNEL_TOO, Gateway, office_policy
from labs.netns import Lab, wait_until
from labs.origin import ALLOWED, BANNED, Origin

RESTARTS = int(os.environ.get("TOKGATE_TEST_RESTARTS", "1"))


def test_restarts(lab: Lab, origin: Origin, any_gateway: Callable[..., Gateway], tmp_path: Path) -> None:
    """What is open goes on, what comes is decided, HTTP/3 as well, and the rules are those of the policy throughout."""
    address = (Lab.ALLOWED[4], 8888)
    with any_gateway(tmp_path, policy=office_policy(), mode=KERNEL_TOO) as gateway:
        server = lab.origin.inside(lambda: socket.create_server(address))
        with server, lab.client.connect(*address, 20) as client:
            client.sendall(b"\0hello")
            server.settimeout(20)
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(20)
                assert accepted.recv(64) == b"\0hello"
                for number in range(RESTARTS):
                    done = gateway.namespace.run(*gateway.command("restart"), env=gateway.environment, check=False)
                    assert done.returncode == 0, done.stderr
                    client.sendall(b"%d" % number)
                    assert accepted.recv(64) == b"%d" % number
                    accepted.sendall(b"yes")
                    assert client.recv(64) == b"yes"
                    assert python(lab.client, BANNED, 4, False, origin.authority).error == UNRECOGNIZED_NAME
                    answer = python(lab.client, ALLOWED, 4, False, origin.authority)
                    assert answer.certificate == origin.fingerprints[ALLOWED]
                    assert http3(lab.client, origin, ALLOWED, 4)[0] == 0
                    assert http3(lab.client, origin, BANNED, 4)[0] == 7
        wait_until("all is well", lambda: _problems(gateway) == [])
        words = ("doctor", "--gateway", "--json", "--policies", gateway.policies, "--log", gateway.log)
        done = gateway.namespace.run(*gateway.command(*words), env=gateway.environment, check=False)
        seen = {each["subject"]: each["ok"] for each in json.loads(done.stdout)["results"]}
        assert [seen[each] for each in ("IPv4 forwarding", "kernel", "next start")] == [True] * 3, done.stdout
        ended = [record["event"]["action"] for record in gateway.records()].count("gateway-differs")
        assert ended == 0


def _problems(gateway: Gateway) -> list[Any]:
    done = gateway.namespace.run(*gateway.command("status", "--json"), env=gateway.environment, check=False)
    found: list[Any] = json.loads(done.stdout)["gateway"]["problems"] if done.stdout else ["no answer"]
    return found
