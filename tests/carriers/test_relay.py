"""What is allowed passes as if there were no proxy: ends, resets and pressure travel through it."""

import hashlib
import json
import os
import socket
import threading

import pytest

from labs import builders
from labs.carriers import ALERT, Kind, Lab, Way
from labs.gate_lab import DEADLINE, NOBODY, broken_off, exactly, read_all, reset, until
from labs.hello_builder import RETRY, hello_for
from labs.proxy_lab import ALLOWED, BANNED, policy
from tokgate.policy.settings import Upstream

HELLO = hello_for(ALLOWED)
BULK = b"\0" + os.urandom(3 << 20)
"""Not what could be a TLS record: of a client under a ban that would wait for the origin's answer."""
STRANGE = f"GET  /a HTTP/1.1\r\nHost: {BANNED}\r\nHost: {BANNED}\r\nX-Folded: one\r\n two\r\nno field\r\n\r\n".encode()
"""Requests that are refused to clients under a ban for what they ask, and for their form."""
ELSEWHERE = ("192.0.2.0/24",)

pytestmark = pytest.mark.parametrize("way", [Way.REDIRECTED, Way.CONNECT])


def test_the_client_ends_first(lab: Lab, way: Way) -> None:
    """A client that has said all still gets a long answer."""

    def digest(client: socket.socket) -> None:
        client.sendall(hashlib.sha256(read_all(client)).digest() + BULK)

    origin = lab.origin(digest)
    assert lab.heard(way, origin.port, HELLO, BULK) == hashlib.sha256(HELLO + BULK).digest() + BULK
    assert lab.settled()


def test_the_origin_ends_first(lab: Lab, way: Way) -> None:
    """An origin that has said all still hears the client out."""
    heard: list[bytes] = []

    def talker(client: socket.socket) -> None:
        exactly(client, len(HELLO))
        client.sendall(BULK)
        client.shutdown(socket.SHUT_WR)
        heard.append(read_all(client))

    origin = lab.origin(talker)
    with lab.reach(way, origin.port) as client:
        client.send(HELLO)
        assert client.to_end() == BULK
        client.send(b"late" * 50_000)
        client.end()
        assert until(lambda: heard) == [b"late" * 50_000]
    assert lab.settled()


def test_the_client_breaks_off(lab: Lab, way: Way) -> None:
    """Breaking off is passed on as breaking off, not as an orderly end."""
    ends: list[bool] = []

    def waiter(client: socket.socket) -> None:
        client.sendall(exactly(client, len(HELLO)))
        ends.append(broken_off(client))

    origin = lab.origin(waiter)
    with lab.reach(way, origin.port) as client:
        assert client.echoes(HELLO)
        client.reset()
    assert until(lambda: ends) == [True]
    assert lab.settled()


def test_the_origin_breaks_off(lab: Lab, way: Way) -> None:
    """A cut answer must not look whole."""
    origin = lab.origin(lambda client: exactly(client, len(HELLO)) and reset(client))  # type: ignore[func-returns-value]
    with lab.reach(way, origin.port) as client:
        client.send(HELLO)
        assert client.is_reset()
    assert lab.settled()


def test_an_origin_out_of_reach(lab: Lab, way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """The client's connection ends, nothing is said in the origin's place, and mitmproxy calls it no crash."""
    with lab.reach(way, NOBODY[1]) as client:
        client.send(HELLO)
        assert client.is_over()
    assert lab.settled()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    ("first", "then", "refused"),
    [(HELLO, b"", False), (HELLO, ALERT, False), (HELLO, HELLO[:9], True), (HELLO + HELLO[:9], b"", True)],
    ids=["nothing", "alert", "half", "half_ahead"],
)
def test_a_client_that_gives_up_after_a_retry(lab: Lab, way: Way, first: bytes, then: bytes, refused: bool) -> None:
    """Its end passes on, and it is accused of nothing; who ends in the middle of a second hello is refused."""
    heard: list[bytes] = []

    def asks_again(client: socket.socket) -> None:
        exactly(client, len(HELLO))
        client.sendall(RETRY)
        heard.append(read_all(client))

    origin = lab.origin(asks_again)
    if way is Way.REDIRECTED:  # a tunnel is asked for by its address, under a ban on all in vain
        excepted, office = builders.service("shop", f"exact:{ALLOWED}"), builders.network("office", "0.0.0.0/0")
        all_else = builders.ban(services=(), on_all=True, excepted=("shop",))
        lab.start(builders.snapshot(all_else, services=(excepted,), networks=(office,)))
    with lab.reach(way, origin.port) as client:
        client.send(first)
        assert client.exactly(len(RETRY)) == RETRY
        client.send(then)
        client.end()
        assert client.to_end() == (ALERT if refused else b"")
    assert until(lambda: heard) == [b"" if refused else then]
    assert [record["event"]["type"] for record in lab.records.all] == [["connection", "denied"]] * refused
    assert lab.settled()


def test_both_ways_at_once(lab: Lab, way: Way) -> None:
    """A client that sends everything before it reads anything gets through; nothing is lost and nothing swapped."""
    origin = lab.origin()
    with lab.reach(way, origin.port) as client:
        sender = threading.Thread(target=client.send, args=(HELLO, BULK))
        sender.start()
        assert client.exactly(len(HELLO + BULK)) == HELLO + BULK
        sender.join(DEADLINE)
    assert lab.settled()


def test_a_client_that_does_not_read(lab: Lab, way: Way) -> None:
    """Of what it leaves the proxy holds a bounded part, others are served meanwhile, and once it reads it gets all."""
    size, sent, body = 32 << 20, [0], bytes(1 << 20)
    stuck = threading.Event()

    def talker(client: socket.socket) -> None:
        exactly(client, len(HELLO))
        client.settimeout(0.2)
        while sent[0] < size:
            try:
                sent[0] += client.send(body[: size - sent[0]])
            except TimeoutError:
                stuck.set()

    origin = lab.origin(talker)
    with lab.reach(way, origin.port) as idle:
        idle.send(HELLO)
        assert stuck.wait(DEADLINE)
        assert sent[0] < size
        with lab.reach(way, origin.port) as other:
            other.send(hello_for(BANNED))
            assert other.to_end()[:1] == b"\x15"
        assert len(idle.exactly(size)) == size


@pytest.mark.parametrize("lab", [Kind.GATE, Kind.OPENER], indirect=True)
def test_plain_http_that_no_ban_is_for(lab: Lab, way: Way) -> None:
    """It passes octet by octet, whatever it is. It ends when a ban begins for the client, and accuses nobody."""
    origin = lab.web(tls=False)
    lab.start(policy(networks=ELSEWHERE))
    with lab.reach(way, origin.port) as client:
        for loaded in (policy(networks=ELSEWHERE), policy()):
            client.send(STRANGE)
            assert client.reply().status == 200
            lab.carrier.holder.snapshot = loaded
        assert client.is_reset()
    assert origin.heads == [STRANGE, STRANGE]
    (record,) = until(lambda: list(lab.records.all))
    assert record["event"]["action"] == "unreadable-refused"
    assert not {"ban", "service", "authority", "basis"} & record["tokgate"].keys()
    assert BANNED not in json.dumps(record)
    assert b"200" not in lab.heard(way, origin.port, STRANGE)
    assert len(origin.heads) == 2


@pytest.mark.parametrize("lab", [Kind.OPENER], indirect=True)
def test_plain_http_to_a_parent_proxy(lab: Lab, way: Way) -> None:
    """A parent gets the request, not a tunnel to port 80, also of a client that no ban is for."""
    parent = lab.web(tls=False)
    lab.start(policy(networks=ELSEWHERE, upstream=(Upstream(host="127.0.0.1", port=parent.port),)))
    assert lab.got(way, 80, ALLOWED, at="192.0.2.80").status == 200
    assert parent.heads[0].startswith(b"GET http://")
