"""What is open ends at the moment at which it becomes banned, whatever carries it; all else goes on."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import Any

import pytest

from labs import builders
from labs.carriers import ALERT, BEFORE, EXPLICIT, OPENING, STARTS, Kind, Lab, Way
from labs.gate_lab import broken_off, exactly, read_head, until
from labs.hello_builder import hello_for, openssl_hello
from labs.proxy_lab import ALLOWED, BANNED, ban, policy
from labs.raw_client import RawClient
from tokgate.gate.sockets import Address
from tokgate.policy.snapshot import Snapshot

HELLO, OTHER = hello_for(BANNED), hello_for(ALLOWED)
NOTHING = policy(ban(services=()))


@contextlib.contextmanager
def both(lab: Lab, way: Way, port: int) -> Iterator[tuple[RawClient, RawClient]]:
    """An open connection to the banned name, and one to another name."""
    with lab.reach(way, port) as banned, lab.reach(way, port) as other:
        assert banned.echoes(HELLO)
        assert other.echoes(OTHER)
        yield banned, other


def test_the_start_of_a_ban(lab: Lab, way: Way) -> None:
    """The banned name's connection is reset on both sides, with one record; another name's doesn't notice."""
    ends: list[bool] = []

    def serve(client: socket.socket) -> None:
        client.sendall(exactly(client, len(HELLO)))
        client.sendall(exactly(client, 4))
        ends.append(broken_off(client))

    origin, aside = lab.origin(serve), lab.origin()
    lab.clock.set(BEFORE)
    with lab.reach(way, origin.port) as banned:
        assert banned.echoes(HELLO)
        assert banned.echoes(b"ping")
        with lab.reach(way, aside.port) as other:
            assert other.echoes(OTHER)
            lab.clock.set(STARTS)
            assert banned.is_reset()
            assert until(lambda: ends) == [True]
            assert other.echoes(b"still")
        (record,) = until(lambda: list(lab.records.all))
    assert record["event"]["action"] == "connection-cut"
    assert record["event"]["type"] == ["connection", "end", "denied"]
    assert (record["tokgate"]["ban"], record["tokgate"]["stage"]) == ("ban", "live")
    assert record["tokgate"]["rule"] == "suffix:clips.example.org"
    assert record["tokgate"]["connection"]
    assert record["destination"]["domain"] == BANNED
    sent, least = record["source"]["bytes"], len(HELLO) + 4
    assert sent == least if way is Way.REDIRECTED else sent > least  # CONNECT and SOCKS are spoken, too
    assert record["destination"]["bytes"] >= len(HELLO)
    assert lab.carrier.counters.cuts == 1
    assert lab.settled()


def test_clocks_that_jump(lab: Lab) -> None:
    """Over a whole ban cuts nothing: what is open then is allowed. Back into a ban cuts."""
    origin, end = lab.origin(), "2023-03-31T22:00:00Z"
    lab.clock.set(BEFORE)
    services = (builders.service("clips", "suffix:clips.example.org"), builders.service("other", f"exact:{ALLOWED}"))
    bans = ban(expires=builders.at(end)), ban(name="later", services=("other",), starts=builders.at(end))
    lab.start(builders.snapshot(*bans, services=services, networks=(builders.network("office", "127.0.0.0/8"),)))
    with both(lab, Way.REDIRECTED, origin.port) as (client, other):
        lab.clock.set(end)
        assert other.is_reset()  # so all were looked at
        assert client.echoes(b"awake")
        lab.clock.set("2023-03-31T21:59:59Z")
        assert client.is_reset()
    assert until(lambda: lab.records.actions == ["connection-cut"] * 2)


def clips(*patterns: str, **more: Any) -> Snapshot:
    """The policy with another definition of the service."""
    return builders.snapshot(
        ban(),
        services=(builders.service("clips", *patterns, **more),),
        networks=(builders.network("office", "127.0.0.0/8"),),
    )


HOLE = builders.exemption(clients=(ip_network("127.0.0.1/32"),), until=builders.wall("2024-01-01T00:00"))
CHANGES: dict[str, tuple[Callable[[], Snapshot], Callable[[], Snapshot]]] = {
    "a ban is added": (lambda: NOTHING, policy),
    "a ban is no longer only watched": (lambda: policy(ban(action="monitor")), policy),
    "a service gains a name": (lambda: clips("suffix:other.example.org"), policy),
    "a service gains an address": (
        lambda: clips("suffix:other.example.org"),
        lambda: clips("suffix:other.example.org", addresses=("127.0.0.0/8",)),
    ),
    "an exemption is removed": (lambda: policy(exemptions=(HOLE,)), policy),
    "a network gains the client": (lambda: policy(networks=("198.51.100.0/24",)), policy),
    "the response is a page": (lambda: NOTHING, lambda: policy(ban(response="page"))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_policy_cuts(lab: Lab, way: Way, change: str) -> None:
    """Whatever makes the new policy block a name also ends its connections."""
    before, after = CHANGES[change]
    origin = lab.origin()
    carrier = lab.start(before())
    with lab.reach(way, origin.port) as client:
        assert client.echoes(HELLO)
        carrier.holder.snapshot = after()
        assert client.is_reset()
    assert until(lambda: "connection-cut" in lab.records.actions)


@pytest.mark.parametrize(
    "after",
    [policy(ban(action="warn")), policy(ban(action="monitor")), policy(networks=("198.51.100.0/24",))],
    ids=["warn", "monitor", "another network"],
)
def test_a_milder_policy_cuts_nothing(lab: Lab, way: Way, after: Snapshot) -> None:
    """A ban that only warns or monitors, or that is somebody else's, ends no connection."""
    origin = lab.origin()
    carrier = lab.start(NOTHING)
    with both(lab, way, origin.port) as (banned, other):
        carrier.holder.snapshot = clips("exact:nothing.example.org")
        carrier.holder.snapshot = after
        assert banned.echoes(b"still")
        carrier.holder.snapshot = clips(f"exact:{ALLOWED}")
        assert other.is_reset()  # so it was looked at
        assert banned.echoes(b"still")


@EXPLICIT
@pytest.mark.parametrize("said", [b"", OTHER, b"\x00\x01not tls"], ids=["nothing", "another name", "bytes"])
def test_tunnels_are_cut_by_the_host_that_was_asked_for(lab: Lab, way: Way, said: bytes) -> None:
    """Whatever the tunnel carries, and also before it carries anything."""
    origin = lab.origin()
    lab.clock.set(BEFORE)
    with lab.reach(way, origin.port, BANNED) as client:
        assert client.echoes(said)
        lab.clock.set(STARTS)
        if not said and (lab.kind, way) == (Kind.MITMPROXY, Way.SOCKS):
            assert client.answer(OTHER) == ALERT  # which decides at the first bytes, and has let nothing through
            return
        assert client.is_reset()
    (record,) = until(lambda: list(lab.records.all))
    assert (record["event"]["action"], record["destination"]["domain"]) == ("connection-cut", BANNED)


def test_nameless_connections_follow_the_settings(lab: Lab, way: Way) -> None:
    """Without a name and with `missing_sni: block`, the start of a ban ends what new ones would be refused for."""
    origin = lab.origin()
    lab.clock.set(BEFORE)
    lab.start(policy(missing_sni="block"))
    with lab.reach(way, origin.port) as client:
        assert client.echoes(openssl_hello(None))
        lab.clock.set(STARTS)
        assert client.is_reset()
    assert until(lambda: lab.records.all)[0]["tokgate"]["reason"] == "missing-sni"


@pytest.fixture
def dead_end() -> Iterator[Address]:
    """An address on loopback whose queue is full: connecting neither succeeds nor fails."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        yield full.getsockname()
        for sock in waiting:
            sock.close()


def test_a_destination_that_has_not_answered_is_given_up(lab: Lab, dead_end: Address) -> None:
    """A connection under way to its destination at the instant doesn't become one afterwards."""
    lab.clock.set(BEFORE)
    carrier = lab.start()
    with lab.reach(Way.REDIRECTED, dead_end[1]) as client:
        client.send(HELLO)
        assert until(lambda: sum(carrier.counters.decisions.values()) == 1)
        lab.clock.set(STARTS)
        assert client.is_reset()
    assert lab.settled()


def endless(client: socket.socket) -> None:
    """Answer any request without end, and a WebSocket with its upgrade."""
    head = read_head(client)
    if b"Upgrade:" in head:
        client.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
    else:
        client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.sendall(b"\x81\x04pong" if b"Upgrade:" in head else b"4\r\npong\r\n")
    client.recv(1)


UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
UPGRADE += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


@OPENING
@pytest.mark.parametrize("way", [Way.REDIRECTED, Way.CONNECT])
@pytest.mark.parametrize("fields", ["", UPGRADE], ids=["long answer", "websocket"])
def test_requests_that_last_are_cut(lab: Lab, way: Way, fields: str) -> None:
    """Plain HTTP: an answer without end, and what a request was upgraded to."""
    origin = lab.origin(endless)
    lab.clock.set(BEFORE)
    with lab.reach(way, origin.port) as client:
        client.send(f"GET /video?v=1 HTTP/1.1\r\nHost: {BANNED}\r\n{fields}\r\n".encode())
        got = b""
        while b"pong" not in got:
            got += client.sock.recv(1000)
        lab.clock.set(STARTS)
        assert client.is_reset()
    (record,) = until(lambda: list(lab.records.all))
    assert (record["event"]["action"], record["url"]["path"]) == ("connection-cut", "/video")


@OPENING
def test_a_long_answer_inside_an_opened_connection_is_cut(lab: Lab, way: Way) -> None:
    """Opened to show the page, by a ban that is lifted when the request comes, and begins anew while it lasts."""
    context = lab.authority.server(BANNED)

    def serve(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as secure:
            endless(secure)

    origin = lab.origin(serve)
    carrier = lab.start(policy(ban(response="page")))
    with lab.tls(lab.trusting(), BANNED, way, origin.port) as client:
        carrier.holder.snapshot = policy(ban(starts=builders.at("2023-05-01T00:00:00Z")))
        client.send(f"GET /video HTTP/1.1\r\nHost: {BANNED}\r\n\r\n".encode())
        got = b""
        while b"pong" not in got:
            got += client.sock.recv(1000)
        lab.clock.set("2023-05-01T00:00:00Z")
        assert client.is_reset()
    assert until(lambda: "connection-cut" in lab.records.actions)


@OPENING
def test_a_finished_request_is_not_remembered(lab: Lab) -> None:
    """An idle connection after an answer is left: its next request is decided as it comes."""
    origin = lab.web(tls=False)
    lab.clock.set(BEFORE)
    with lab.reach(Way.REDIRECTED, origin.port) as client:
        assert client.get(BANNED).status == 200
        lab.clock.set(STARTS)
        assert client.get(BANNED).status == 451
    assert lab.records.actions == ["http-request-blocked"]


@OPENING
def test_a_connection_that_shows_the_page_goes_on(lab: Lab, way: Way) -> None:
    """What was opened to answer with the page is blocked already: nothing passes, and the page may be read."""
    carrier = lab.start(policy(ban(response="page")))
    with lab.tls(lab.trusting(), BANNED, way, 1) as client:
        assert client.get(BANNED).status == 451
        carrier.holder.snapshot = policy(ban(response="page", title="Another"))
        assert client.get(BANNED).status == 451
    assert "connection-cut" not in lab.records.actions
