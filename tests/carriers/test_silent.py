"""Redirected clients that wait for the server to speak first, as those of SSH and mail do."""

import socket
import threading

import pytest

from labs.carriers import ALERT, Lab, Way
from labs.gate_lab import DEADLINE, Origin, until
from labs.hello_builder import hello_for
from labs.proxy_lab import BANNED, BANNED_ADDRESS
from tokgate.traffic.limits import Limits

BANNER = b"220 mail.example.net ESMTP\r\n"
HELLO = hello_for(BANNED)


@pytest.fixture
def heard() -> list[bytes]:
    return []


@pytest.fixture
def server(lab: Lab, heard: list[bytes]) -> Origin:
    """A server that speaks first, and then sends back what it hears."""

    def serve(client: socket.socket) -> None:
        client.sendall(BANNER)
        while data := client.recv(65536):
            heard.append(data)
            client.sendall(data)

    lab.servers_may_begin = True
    return lab.origin(serve)


def test_the_server_may_speak_first(lab: Lab, server: Origin) -> None:
    """Mail or SSH on a port of the web goes on, although its client waits for the server."""
    with lab.reach(Way.REDIRECTED, server.port) as client:
        assert client.exactly(len(BANNER)) == BANNER
        assert client.answer(b"EHLO client.example.net\r\n") == b"EHLO client.example.net\r\n"
    assert lab.settled()
    assert lab.records.all == []


def test_a_client_that_only_listens(lab: Lab, server: Origin, heard: list[bytes]) -> None:
    """A client that ends its side without a word still hears the server out."""
    with lab.reach(Way.REDIRECTED, server.port) as client:
        assert client.exactly(len(BANNER)) == BANNER
        assert client.answer() == b""
    assert heard == []


def test_a_client_that_waits_for_long(lab: Lab) -> None:
    """A feed whose client never speaks is not closed for its silence."""

    begins = threading.Event()

    def serve(client: socket.socket) -> None:
        assert begins.wait(DEADLINE)
        client.sendall(BANNER)

    lab.servers_may_begin = True
    carrier, origin = lab.start(), lab.origin(serve)
    with lab.reach(Way.REDIRECTED, origin.port) as client:
        assert until(lambda: origin.accepted)
        carrier.wait(Limits().greeting)
        begins.set()
        assert client.exactly(len(BANNER)) == BANNER


def test_a_banned_address_is_refused_in_silence(lab: Lab, server: Origin) -> None:
    """A banned service's address is reached by no protocol, and the attempt is recorded."""
    with lab.reach(Way.REDIRECTED, server.port, BANNED_ADDRESS) as client:
        assert client.to_end() == b""
    assert lab.settled()
    assert server.accepted == 0
    (record,) = lab.records.all
    assert record["event"]["action"] == "connection-refused"
    assert (record["destination"]["ip"], record["destination"]["port"]) == (BANNED_ADDRESS, server.port)


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_late_hello_is_judged(lab: Lab, server: Origin, heard: list[bytes], pieces: int) -> None:
    """Waiting is no way round: a banned name said after the server's first words is refused, and doesn't reach it."""
    with lab.reach(Way.REDIRECTED, server.port) as client:
        assert client.exactly(len(BANNER)) == BANNER
        client.send(*(HELLO[each * len(HELLO) // pieces : (each + 1) * len(HELLO) // pieces] for each in range(pieces)))
        assert client.to_end() == ALERT
    assert lab.settled()
    assert heard == []
    (record,) = lab.records.all
    assert record["tls"]["client"]["server_name"] == BANNED


def test_a_late_hello_that_does_not_end(lab: Lab, server: Origin, heard: list[bytes]) -> None:
    """Who begins to speak has the time that all have to end it."""
    carrier = lab.start()
    with lab.reach(Way.REDIRECTED, server.port) as client:
        assert client.exactly(len(BANNER)) == BANNER
        client.send(HELLO[:20])
        with lab.reach(Way.REDIRECTED, server.port, BANNED_ADDRESS) as other:  # served after those octets were
            assert other.to_end() == b""
        carrier.wait(Limits().greeting)
        assert client.is_over()
    assert lab.settled()
    assert carrier.counters.timeouts == 1
    assert heard == []


def test_a_server_that_can_not_be_reached(lab: Lab) -> None:
    """The client is not kept waiting."""
    lab.servers_may_begin = True
    with lab.reach(Way.REDIRECTED, 1) as client:
        assert client.is_over()
    assert lab.settled()
