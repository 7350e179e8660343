"""For a client under a ban a connection passes the gate because it was understood; for others nothing changes."""

import socket
from collections.abc import Callable

import pytest

from labs.gate_lab import REFUSED, StartGate, StartOrigin, connect_request, dial, exactly, read_all, until
from labs.hello_builder import hello_for
from tokgate.evasion import hello as build
from tokgate.wire.hello_reader import HELLO_RETRY

ALLOWED, OTHER, BANNED = (hello_for(f"www.{name}") for name in ("example.net", "example.com", "clips.example.org"))
RETRY = build.records(b"\2" + build.vector(3, b"\3\3" + HELLO_RETRY + b"\x20" + b"s" * 32 + b"\x13\1\0\0\0"))
ANSWER = build.records(b"\2" + build.vector(3, b"\3\3" + b"r" * 32 + b"\x20" + b"s" * 32 + b"\x13\1\0\0\0"))
CHANGE = b"\x14\3\3\0\1\1"
WARNING = b"\x15\3\1\0\2\1\x70"


class Asking:
    """A server that asks for a second hello, and keeps what it hears then."""

    def __init__(self, first: int = len(ALLOWED), answer: bytes = RETRY + CHANGE) -> None:
        self.heard = b""
        self._first, self._answer = first, answer

    def __call__(self, client: socket.socket) -> None:
        exactly(client, self._first)
        client.sendall(self._answer)
        while piece := client.recv(65536):
            self.heard += piece
            client.sendall(b"served")


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (CHANGE + BANNED, "ban-block"),
        (BANNED, "ban-block"),
        (CHANGE + OTHER, "name-changed"),
        (build.records(build.hello(build.supported_versions(0x0304))), "name-changed"),
        (WARNING + build.records(BANNED[5:], 7, version=0x0200), "ban-block"),
        (build.records(build.hello(build.server_name(b"a!b.clips.example.org"))), "ban-block"),
        (build.records(b"\2\0\0\0"), "unreadable"),
        (b"GET / HTTP/1.1\r\n\r\n", "unreadable"),
    ],
)
def test_another_name_after_a_retry(
    start_gate: StartGate, start_origin: StartOrigin, second: bytes, reason: str
) -> None:
    """A server that asks for another hello never hears of a name that the first one did not say."""
    gate = start_gate(start_origin(server := Asking()))
    with dial(gate.redirected, ALLOWED) as client:
        assert exactly(client, len(RETRY + CHANGE)) == RETRY + CHANGE
        client.sendall(second)
        assert read_all(client) == REFUSED
    assert gate.settled()
    assert server.heard == b""
    assert [record["tokgate"]["reason"] for record in gate.sink.records] == [reason]


@pytest.mark.parametrize("between", [b"", CHANGE, b"\x17\3\3\0\1x"])
@pytest.mark.parametrize("early_data", [False, True])
def test_a_second_hello_that_does_not_wait(
    start_gate: StartGate, start_origin: StartOrigin, between: bytes, early_data: bool
) -> None:
    """Sent right behind the first, a second hello is held until the server has asked for it, and decided about."""
    first = hello_for("www.example.net", *[(build.EARLY_DATA, b"")] * early_data)
    gate = start_gate(start_origin(server := Asking(len(first), RETRY)))
    with dial(gate.redirected, first + between + BANNED) as client:
        assert read_all(client).endswith(REFUSED)
    assert server.heard == b""
    (record,) = gate.sink.records
    assert record["tokgate"]["reason"] == ("unreadable" if between[:1] == b"\x17" and not early_data else "ban-block")


def test_what_follows_a_hello_waits_for_the_answer(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """A client that goes on before it is answered is passed on in full once the answer is no retry."""
    more = b"\x17\3\3\0\1x" + BANNED
    gate = start_gate(start_origin(server := Asking(answer=ANSWER)))
    with dial(gate.redirected, ALLOWED + more) as client:
        assert exactly(client, len(ANSWER)) == ANSWER
        assert exactly(client, 6) == b"served"
        client.shutdown(socket.SHUT_WR)
        read_all(client)
    assert server.heard == more


@pytest.mark.parametrize("pieces", [1, 9, len(CHANGE + ALLOWED)])
def test_the_same_name_after_a_retry(start_gate: StartGate, start_origin: StartOrigin, pieces: int) -> None:
    """A browser whose key share the server doesn't take is served as without a gate, in however many pieces."""
    gate = start_gate(start_origin(server := Asking()))
    second = CHANGE + ALLOWED
    with dial(gate.redirected, ALLOWED) as client:
        assert exactly(client, len(RETRY + CHANGE)) == RETRY + CHANGE
        for start in range(0, len(second), -(-len(second) // pieces)):
            client.sendall(second[start : start + -(-len(second) // pieces)])
        assert exactly(client, 6) == b"served"
    assert gate.settled()
    assert server.heard == second
    assert gate.sink.records == []


@pytest.mark.parametrize("answer", [ANSWER, ANSWER[:20], b"HTTP/1.1 400 Bad Request\r\n", b"\x15\3\3\0\2\2\x28"])
def test_other_answers_end_the_watch(start_gate: StartGate, start_origin: StartOrigin, answer: bytes) -> None:
    """Whatever else a server says, the connection goes on as any other, also for what the client sent meanwhile."""
    more = b"\x17\3\3\0\1x"

    def serve(client: socket.socket) -> None:
        exactly(client, len(ALLOWED))
        client.sendall(answer)
        client.shutdown(socket.SHUT_WR)
        heard.append(read_all(client))

    heard: list[bytes] = []
    gate = start_gate(start_origin(serve))
    with dial(gate.redirected, ALLOWED, more) as client:
        assert read_all(client) == answer
        client.shutdown(socket.SHUT_WR)
    assert until(lambda: heard) == [more]


def collected(heard: list[bytes]) -> Callable[[socket.socket], None]:
    """A server that keeps what comes, and answers to each piece."""

    def serve(client: socket.socket) -> None:
        while piece := client.recv(65536):
            heard.append(piece)

    return serve


@pytest.mark.parametrize(
    ("pieces", "passed"),
    [
        ((b"GE[T ", b"/ HTT", b"P/1.1\r\nHost: www.clips.example.org\r\n\r\n"), b"GE[T / HTT"),
        ((b"X #\r\n", b"Host: www.clips.example.org\r\n\r\n"), b"X #\r\n"),
        ((b"\x13Bit", b"Torrent protocol", b" HTTP/1.1\r\n"), b"\x13BitTorrent protocol"),
    ],
)
def test_a_line_in_pieces(
    start_gate: StartGate, start_origin: StartOrigin, pieces: tuple[bytes, ...], passed: bytes
) -> None:
    """What goes on as a request after it passed ends there, with a record; it was one connection that passed."""
    heard: list[bytes] = []
    gate = start_gate(start_origin(collected(heard)))
    with dial(gate.redirected) as client:
        said = b""
        for piece in pieces[:-1]:
            client.sendall(piece)
            said += piece
            until(lambda: b"".join(heard) == said)  # noqa: B023
        client.sendall(pieces[-1])
        assert read_all(client) == b""
    assert gate.settled()
    assert b"".join(heard) == passed
    assert [record["tokgate"]["reason"] for record in gate.sink.records] == ["unreadable"]
    assert sorted(kind.outcome for kind in gate.gate.enforcer.counters.decisions) == ["allow", "unreadable"]


def proxied(client: socket.socket) -> None:
    """A proxy somewhere else: takes any CONNECT, and echoes what comes through it."""
    while data := client.recv(65536):
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n" if data.startswith(b"CONNECT ") else data)


ESTABLISHED = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize("behind", [b"", ALLOWED])
def test_a_proxy_behind_the_gate(start_gate: StartGate, start_origin: StartOrigin, behind: bytes) -> None:
    """A tunnel through another proxy is carried for an allowed name, also when the client doesn't wait."""
    gate = start_gate(start_origin(proxied))
    with dial(gate.redirected, connect_request("www.example.net") + behind) as client:
        assert exactly(client, len(ESTABLISHED)) == ESTABLISHED
        if not behind:
            client.sendall(ALLOWED)
        assert exactly(client, len(ALLOWED)) == ALLOWED
        client.sendall(b"more")
        assert exactly(client, 4) == b"more"
    assert gate.sink.records == []


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (connect_request("www.clips.example.org"), b""),
        (connect_request("www.example.net"), BANNED),
        (connect_request("www.example.net"), connect_request("www.clips.example.org")),
        (connect_request("www.example.net") + BANNED, b""),
    ],
)
def test_banned_names_through_a_proxy_behind_the_gate(
    start_gate: StartGate, start_origin: StartOrigin, first: bytes, then: bytes
) -> None:
    """Neither the request nor what the tunnel carries gets a banned name past the gate."""
    gate = start_gate(start_origin(proxied))
    with dial(gate.redirected, first) as client:
        if then:
            exactly(client, len(ESTABLISHED))
            client.sendall(then)
        assert b"\x16" not in read_all(client)
    assert gate.settled()
    assert [record["tokgate"]["reason"] for record in gate.sink.records] == ["ban-block"]


@pytest.mark.parametrize("waits", [True, False])
def test_a_retry_through_a_proxy_behind_the_gate(start_gate: StartGate, start_origin: StartOrigin, waits: bool) -> None:
    """What a tunnel carries is watched beyond the proxy's own answer, also when the first hello came before that."""

    def serve(client: socket.socket) -> None:
        exactly(client, len(request))
        client.sendall(ESTABLISHED)
        server(client)

    request, server = connect_request("www.example.net"), Asking()
    gate = start_gate(start_origin(serve))
    with dial(gate.redirected, request if waits else request + ALLOWED) as client:
        assert exactly(client, len(ESTABLISHED)) == ESTABLISHED
        if waits:
            client.sendall(ALLOWED)
        assert exactly(client, len(RETRY + CHANGE)) == RETRY + CHANGE
        client.sendall(BANNED)
        assert read_all(client) == REFUSED
    assert gate.settled()
    assert server.heard == b""
    assert [record["tokgate"]["reason"] for record in gate.sink.records] == ["ban-block"]
