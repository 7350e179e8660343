"""Redirected clients whose destination is a proxy: what they ask it for is decided about, request by request."""

import socket
import threading

import pytest

from labs.carriers import Lab, Way
from labs.gate_lab import BANNED, DEADLINE, connect_request, read_all, read_head, until


@pytest.mark.parametrize(
    "banned",
    [b"GET http://www.clips.example.org/ HTTP/1.1\r\n\r\n", connect_request("www.clips.example.org"), BANNED],
    ids=["url", "connect", "hello"],
)
def test_a_client_that_ends_before_the_proxy_answers(lab: Lab, banned: bytes) -> None:
    """What it has said behind an allowed request waits for the answer, and is decided about then."""
    heard, answers = bytearray(), threading.Event()

    def proxy(client: socket.socket) -> None:
        heard.extend(read_head(client))
        answers.wait(DEADLINE)
        client.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
        heard.extend(read_all(client))

    origin, allowed = lab.origin(proxy), connect_request("www.example.net")
    with lab.reach(Way.REDIRECTED, origin.port) as client:
        client.send(allowed + banned)
        client.end()
        until(lambda: heard)
        lab.carrier.wait(1.0)  # so its end was seen
        answers.set()
        client.to_end()
    assert lab.settled()
    assert bytes(heard) == allowed
    assert lab.records.all[-1]["event"]["type"][-1] == "denied"
