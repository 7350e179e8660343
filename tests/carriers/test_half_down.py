"""A site whose first address is down: what an opener reads of it comes from the name's other addresses, as by gates."""

import socket
import time

import pytest

from labs.carriers import Kind, Lab, Way
from labs.gate_lab import read_head
from labs.proxy_lab import ALLOWED, BANNED_ADDRESS, policy
from tokgate.policy.settings import EgressSettings

DOWN, UP = "127.0.0.33", "127.0.0.34"


def web(client: socket.socket) -> None:
    read_head(client)
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\norigin")


@pytest.mark.parametrize("lab", [Kind.OPENER], indirect=True)
def test_plain_http(lab: Lab) -> None:
    """A redirected client gets its answer, from an address that its name has here and that is not banned."""
    origin = lab.origin(web, host=UP)
    lab.start()
    lab.names[ALLOWED] = (DOWN, BANNED_ADDRESS, UP)
    assert lab.got(Way.REDIRECTED, origin.port, ALLOWED, at=DOWN).body == b"origin"
    assert origin.accepted == 1


@pytest.mark.parametrize("lab", [Kind.OPENER], indirect=True)
def test_nobody_answers(lab: Lab) -> None:
    """It ends after `egress.connect_seconds`, in words, and not after the two minutes of a system."""
    with socket.create_server((DOWN, 0), backlog=0) as silent, socket.socket() as one, socket.socket() as two:
        for each in (one, two):  # the queue is full: what comes now is not answered
            each.setblocking(False)
            each.connect_ex(silent.getsockname())
        lab.start(policy(egress=EgressSettings(connect_seconds=1)))
        lab.names[ALLOWED] = (DOWN,)
        began = time.monotonic()
        with lab.reach(Way.REDIRECTED, silent.getsockname()[1], DOWN) as client:
            assert client.get(ALLOWED).status == 502
        assert time.monotonic() - began > 0.9
