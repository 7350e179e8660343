"""The gate with redirected connections: what passes, what is refused, what is handed over."""

import hashlib
import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from gate_lab import DEADLINE, Origin, RunningGate, broken_off, dial, echo, policy, read_all, reset, until
from hello_builder import EARLY_DATA, ech, hello_for

from builders import at, ban, exemption
from tokgate.gate.connection import Connection, State
from tokgate.gate.gate import Limits
from tokgate.gate.sockets import Entry, NoDestinationError, acceptor, listen, original_destination
from tokgate.policy.bans import EchOuter, OnError
from tokgate.policy.decision import Response
from tokgate.wire.alert import Alert

StartGate = Callable[..., RunningGate]
StartOrigin = Callable[..., Origin]

ALLOWED = hello_for("www.example.net")
BANNED = hello_for("www.clips.example.org")
REFUSED = Alert.UNRECOGNIZED_NAME.record


def page_policy() -> object:
    """The ban with a page."""
    return policy(ban(networks=("loop",), response=Response.PAGE))


def test_allowed_bytes_pass_unchanged(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """The origin gets the hello as sent, the client what the origin said, and nobody writes a record."""
    gate = start_gate(origin := start_origin())
    with dial(gate.redirected, ALLOWED, b"more") as client:
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == ALLOWED + b"more"
    assert gate.settled()
    assert (origin.accepted, gate.sink.records) == (1, [])


def test_banned_names_are_refused(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """An alert, the end of the stream, no connection to the origin, and a record that says why."""
    gate = start_gate(origin := start_origin())
    with dial(gate.redirected, BANNED) as client:
        assert read_all(client) == REFUSED
    assert gate.settled()
    assert origin.accepted == 0
    (record,) = gate.sink.records
    assert record["event"]["action"] == "tls-handshake-refused"
    assert record["tls"]["client"]["server_name"] == "www.clips.example.org"
    assert record["destination"]["port"] == origin.address[1]


def test_early_data_does_not_reset_the_refusal(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """A client that goes on sending still reads the alert: what it sends is thrown away, not answered with a reset."""
    gate = start_gate(start_origin())
    said = hello_for("www.clips.example.org", (EARLY_DATA, b""))
    with dial(gate.redirected, said, b"\x17\x03\x03" + bytes(50_000)) as client:
        assert read_all(client) == REFUSED


@pytest.mark.parametrize("pieces", [1, 50, 700])
@pytest.mark.parametrize("said", [ALLOWED, BANNED])
def test_hello_in_pieces(start_gate: StartGate, start_origin: StartOrigin, said: bytes, pieces: int) -> None:
    """However the hello is cut, the decision is the same, and the origin gets it whole."""
    gate = start_gate(start_origin())
    with dial(gate.redirected) as client:
        for start in range(0, len(said), pieces):
            client.sendall(said[start : start + pieces])
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == (said if said is ALLOWED else REFUSED)


def test_half_close_upwards(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """A client that has said all still gets the answer."""

    def digest(client: socket.socket) -> None:
        client.sendall(hashlib.sha256(read_all(client)).digest())

    gate = start_gate(start_origin(digest))
    body = os.urandom(3 << 20)
    with dial(gate.redirected, ALLOWED, body) as client:
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == hashlib.sha256(ALLOWED + body).digest()
    assert gate.settled()


def test_half_close_downwards(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """An origin that has said all still hears the client out."""
    heard: list[bytes] = []
    body = os.urandom(3 << 20)

    def talker(client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(body)
        client.shutdown(socket.SHUT_WR)
        heard.append(read_all(client))

    gate = start_gate(start_origin(talker))
    with dial(gate.redirected, ALLOWED) as client:
        assert read_all(client) == body
        client.sendall(b"late" * 50_000)
        client.shutdown(socket.SHUT_WR)
    assert gate.settled()
    assert until(lambda: heard) == [b"late" * 50_000]


def test_a_client_that_does_not_read_stalls_nobody(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """Its pipe fills, and the gate turns to the others; once it reads, it gets everything."""
    body = bytes(12 << 20)

    def serve(client: socket.socket) -> None:
        if client.recv(65536) == ALLOWED:
            client.sendall(body)

    gate = start_gate(start_origin(serve))
    with dial(gate.redirected, ALLOWED) as idle:
        assert until(lambda: any(c.down and c.down.blocked for c in list(gate.gate.connections.values())))
        with dial(gate.redirected, BANNED) as other:
            other.settimeout(2.0)
            assert read_all(other) == REFUSED
        assert read_all(idle) == body


def test_both_ways_at_once_with_a_slow_reader(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """Bulk in both directions, the client reading late: nothing is lost and nothing swapped."""
    gate = start_gate(start_origin(echo))
    body = os.urandom(8 << 20)
    with dial(gate.redirected, ALLOWED) as client:
        sender = threading.Thread(target=lambda: (client.sendall(body), client.shutdown(socket.SHUT_WR)))
        sender.start()
        echoed = read_all(client)
        sender.join(DEADLINE)
    assert echoed == ALLOWED + body
    assert gate.settled()


def test_a_reset_by_the_client_reaches_the_origin(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """Breaking off is passed on as breaking off."""
    outcome: list[str] = []

    def waiter(client: socket.socket) -> None:
        try:
            outcome.append("end" if not read_all(client)[len(ALLOWED) :] else "data")
        except ConnectionResetError:
            outcome.append("reset")

    gate = start_gate(origin := start_origin(waiter))
    with dial(gate.redirected, ALLOWED) as client:
        assert until(lambda: origin.accepted)
        assert until(lambda: any(c.state == 3 for c in list(gate.gate.connections.values())))
        reset(client)
    assert until(lambda: outcome) == ["reset"]
    assert gate.settled()


def test_a_reset_by_the_origin_reaches_the_client(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """And the other way round."""

    def breaker(client: socket.socket) -> None:
        client.recv(65536)
        reset(client)

    gate = start_gate(start_origin(breaker))
    with dial(gate.redirected, ALLOWED) as client, pytest.raises(ConnectionResetError):
        read_all(client)
    assert gate.settled()


def test_an_unreachable_origin(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """A destination that refuses looks to the client like one that refuses."""
    gate = start_gate(origin := start_origin())
    origin.close()
    with dial(gate.redirected, ALLOWED) as client, pytest.raises(ConnectionResetError):
        read_all(client)
    assert gate.settled()


def test_pages_are_handed_over(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """What must be opened goes to the opener with every byte read, and the gate keeps nothing of it."""
    gate = start_gate(origin := start_origin(), page_policy())
    with dial(gate.redirected, BANNED[:200], BANNED[200:]) as client:
        (adopted,) = until(lambda: gate.opener.adopted)
        sock, arrival, received, tls, explicit = adopted
        assert (received, tls, explicit) == (BANNED, True, False)
        assert (arrival.destination.ip, arrival.destination.port) == origin.address  # type: ignore[union-attr]
        assert gate.settled()
        with sock:
            sock.sendall(b"page")
        assert read_all(client) == b"page"
    assert gate.sink.records == []  # the opener writes it


def test_without_an_opener_a_page_is_a_refusal(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """A banned name stays blocked when nobody can show the page."""
    gate = start_gate(origin := start_origin(), page_policy())
    gate.opener.willing = False
    with dial(gate.redirected, BANNED) as client:
        assert read_all(client) == REFUSED
    assert (origin.accepted, len(gate.sink.records)) == (0, 1)


def test_plain_http_is_handed_over(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """Requests are read one by one, elsewhere."""
    gate = start_gate(start_origin())
    with dial(gate.redirected, b"GET / HTTP/1.1\r\nHost: www.example.net\r\n\r\n"):
        ((_, _, received, tls, explicit),) = until(lambda: gate.opener.adopted)
    assert (received[:3], tls, explicit) == (b"GET", False, False)


def test_other_bytes_are_decided_by_address(
    start_gate: StartGate, start_origin: StartOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither TLS nor HTTP: passes to an address of nobody, and not to one of a banned service."""
    gate = start_gate(start_origin())
    with dial(gate.redirected, b"\x00binary") as client:
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"\x00binary"
    monkeypatch.setattr("tokgate.gate.gate.original_destination", lambda sock, listener: ("203.0.113.7", 443))
    with dial(gate.redirected, b"\x00binary") as client:
        assert read_all(client) == b""
    assert [r["event"]["action"] for r in gate.sink.records] == ["connection-refused"]


def test_an_innocent_name_at_a_banned_address(start_gate: StartGate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The strictest signal wins: an address of the service's own is refused whatever the name says."""
    monkeypatch.setattr("tokgate.gate.gate.original_destination", lambda sock, listener: ("203.0.113.7", 443))
    gate = start_gate()
    with dial(gate.redirected, ALLOWED) as client:
        assert read_all(client) == REFUSED
    (record,) = gate.sink.records
    assert (record["tokgate"]["signal"], record["tokgate"]["mismatch"]) == ("address", True)


def test_an_exemption_passes_and_is_recorded(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """The long way lets through too."""
    hole = exemption(clients=(ip_network("127.0.0.0/8"),), until=at("2999-01-01T00:00Z"))
    gate = start_gate(start_origin(), policy(ban(networks=("loop",)), exemptions=(hole,)))
    with dial(gate.redirected, BANNED) as client:
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == BANNED
    assert [r["event"]["action"] for r in gate.sink.records] == ["exemption-used"]


@pytest.mark.parametrize(("setting", "passes"), [("allow", True), ("block", False)])
def test_ech_outer(start_gate: StartGate, start_origin: StartOrigin, setting: str, passes: bool) -> None:
    """A hello that shows only a provider's public name passes or not, as the policy says; GREASE always passes."""
    gate = start_gate(start_origin(), policy(ban(networks=("loop",)), ech_outer=EchOuter(setting)))
    for name, expected in (("cloudflare-ech.com", passes), ("www.example.net", True)):
        said = hello_for(name, ech())
        with dial(gate.redirected, said) as client:
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == (said if expected else REFUSED)


@pytest.mark.parametrize(
    ("on_error", "host", "passes"), [("block", BANNED, False), ("block", ALLOWED, True), ("allow", BANNED, True)]
)
def test_a_failing_decide(
    start_gate: StartGate,
    start_origin: StartOrigin,
    monkeypatch: pytest.MonkeyPatch,
    on_error: str,
    host: bytes,
    passes: bool,
) -> None:
    """When deciding raises, banned names stay blocked unless configured otherwise, and all else flows."""

    def broken(*_: object) -> None:
        raise RuntimeError("deciding is broken")

    gate = start_gate(start_origin(), policy(ban(networks=("loop",)), on_error=OnError(on_error)))
    monkeypatch.setattr("tokgate.gate.gate.decide", broken)
    monkeypatch.setattr("tokgate.policy.decide.decide_signals", broken)
    with dial(gate.redirected, host) as client:
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == (host if passes else REFUSED)
    assert any(r["event"]["action"] == "internal-error" for r in gate.sink.records)


def test_dialling_the_gate_itself_is_refused(start_gate: StartGate) -> None:
    """A connection that nobody redirected is reset, not looped."""
    gate = start_gate()
    with dial(gate.redirected, ALLOWED) as client, pytest.raises(ConnectionResetError):
        read_all(client)
    assert gate.gate.enforcer.counters.loops == 1


def test_original_destination_of_an_untranslated_connection() -> None:
    """Without a translation there is no destination, over IPv4 and IPv6."""
    for host in ("127.0.0.1", "::1"):
        for entry in (Entry.REDIRECT, Entry.TPROXY):
            try:
                listener = listen(host, 0, entry)
            except PermissionError:
                pytest.skip("TPROXY needs CAP_NET_ADMIN")
            with socket.create_connection((host, listener.port), DEADLINE) as client:
                client.sendall(b"x")
                descriptor = until(partial(_accepted, listener.socket))
                accepted = socket.SocketType(listener.family, socket.SOCK_STREAM, 0, descriptor)
                with pytest.raises(NoDestinationError):
                    original_destination(accepted, listener)
                accepted.close()
            listener.socket.close()


def _accepted(sock: Any) -> int:
    try:
        return int(sock._accept()[0])
    except BlockingIOError:
        return 0


def test_a_bug_costs_one_connection(
    start_gate: StartGate, start_origin: StartOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody expected is recorded and closes its connection; the next one is served."""
    gate = start_gate(start_origin())
    broken = monkeypatch.context()
    with broken as patch, dial(gate.redirected) as client:
        patch.setattr("tokgate.gate.gate.looks_like_tls", lambda data: 1 / 0)
        client.sendall(b"\x00")
        assert read_all(client) == b""
    assert [r["event"]["action"] for r in gate.sink.records] == ["internal-error"]
    with dial(gate.redirected, ALLOWED) as client:
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == ALLOWED
    assert gate.settled()


def test_a_failing_callback_costs_no_connection_its_events(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """Events are told once: a batch is served to its end, whatever one of them raises."""
    gate = start_gate(start_origin())
    with dial(gate.redirected, ALLOWED[:20]) as client:
        assert until(lambda: gate.gate.connections)
        gate.pause()
        order = os.eventfd(1)
        gate.gate.callbacks[order] = lambda: 1 / 0  # type: ignore[assignment, return-value]
        gate.gate.epoll.register(order, select.EPOLLIN)
        client.sendall(ALLOWED[20:])
        gate.gate.once(1)
        assert [c.state for c in gate.gate.connections.values()] == [State.CONNECTING] * 2
    assert [r["event"]["action"] for r in gate.sink.records] == ["internal-error"]
    os.close(order)


def test_without_descriptors_clients_are_turned_away(start_gate: StartGate, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the spare one; should a thread be quicker and take that, no other descriptor is given up in its place."""
    gate = start_gate()
    gate.pause()
    listener = gate.listeners[0]
    spare = gate.gate._spare
    assert spare is not None
    monkeypatch.setattr("tokgate.gate.gate._spare", lambda: os.open("/nonexistent", os.O_RDONLY))
    for turn in range(2):
        with dial(gate.redirected, b"x") as client:
            assert select.select([listener.socket.fileno()], [], [], DEADLINE)[0]
            gate.gate._turn_away(listener)
            assert broken_off(client)
        if turn == 0:
            os.dup2(gate.gate.epoll.fileno(), spare)
    os.close(spare)  # was still somebody else's
    assert gate.gate.refused_at_limit == 2


def test_accepting_without_the_private_accept() -> None:
    """The public way gives the same: a descriptor and an address, or BlockingIOError."""

    class Public:
        def __init__(self, sock: Any) -> None:
            self.fileno = sock.fileno

    listener = listen("127.0.0.1", 0, Entry.EXPLICIT)
    take = acceptor(Public(listener.socket))
    with pytest.raises(BlockingIOError):
        take()
    with dial(("127.0.0.1", listener.port)) as client:
        descriptor, address = take()
        assert address == client.getsockname()
        os.close(descriptor)
    listener.socket.close()


def test_silent_clients_are_closed(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """Half a hello, then nothing: closed at the deadline and counted."""
    gate = start_gate(start_origin(), limits=Limits(greeting=0.2))
    with dial(gate.redirected, ALLOWED[:40]) as client:
        assert client.recv(10) == b""
    assert gate.settled()
    assert gate.gate.enforcer.counters.timeouts == 1


def test_idle_connections_are_closed(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """Nothing in either direction for longer than the bound; a connection with traffic stays."""
    gate = start_gate(start_origin(), limits=Limits(idle=0.5))
    with dial(gate.redirected, ALLOWED) as idle, dial(gate.redirected, ALLOWED) as busy:
        assert len(idle.recv(65536)) == len(ALLOWED)
        busy.recv(65536)
        idle.setblocking(False)

        def ended() -> bool:
            busy.sendall(b"x")
            assert busy.recv(10) == b"x"
            try:
                return idle.recv(1) == b""
            except BlockingIOError:
                return False

        assert until(ended)


def test_caps(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """A client over its cap is reset; once another connection of its ends, it may come again."""
    gate = start_gate(start_origin(), limits=Limits(per_client=2))
    with dial(gate.redirected, ALLOWED) as first, dial(gate.redirected, ALLOWED) as second:
        assert first.recv(10)
        assert second.recv(10)
        with dial(gate.redirected, ALLOWED) as third, pytest.raises(ConnectionResetError):
            read_all(third)
    assert gate.settled()
    assert gate.gate.clients == {}
    with dial(gate.redirected, ALLOWED) as again:
        assert again.recv(10)


def test_descriptors_are_closed_only_between_batches(start_gate: StartGate) -> None:
    """A number closed within a batch and given out again would get the old connection's remaining events."""
    gate = start_gate()
    gate.pause()
    client, peer = socket.socketpair()
    connection = Connection(client, client.fileno(), "192.0.2.1", 1, next(iter(gate.gate.listeners.values())), 0.0)
    gate.gate.open_connections += 1
    gate.gate.watch_greeting(connection)
    descriptor = connection.client_fd
    gate.gate.close(connection)
    assert descriptor not in gate.gate.connections
    with socket.socket() as newcomer:
        assert newcomer.fileno() != descriptor
        os.fstat(descriptor)  # still ours
    gate.gate.bury()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    peer.close()


def open_descriptors() -> int:
    """How many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def test_storms_leave_nothing_behind(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """Thousands of connections that end in every way leave no descriptor, no pipe and no count."""
    gate = start_gate(start_origin(echo), limits=Limits(greeting=1.0))
    descriptors = open_descriptors()

    def storm(seed: int) -> None:
        for number in range(150):
            kind = (seed + number) % 6
            said = (ALLOWED, BANNED, ALLOWED[:60], ALLOWED + bytes(200_000), b"junk", ALLOWED)[kind]
            try:
                with dial(gate.redirected, said) as client:
                    if kind == 0:
                        client.recv(65536)
                    elif kind == 5:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    elif kind == 3:
                        client.shutdown(socket.SHUT_WR)
                        assert len(read_all(client)) == len(said)
            except ConnectionError:
                continue

    threads = [threading.Thread(target=storm, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert gate.settled()
    gate.gate.close_pipes()
    assert until(lambda: open_descriptors() <= descriptors)
    assert gate.gate.clients == {}
