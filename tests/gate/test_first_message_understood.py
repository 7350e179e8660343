"""For a client under a ban a connection passes the gate because it was understood; for others nothing changes."""

import contextlib
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL

import pytest

from labs.builders import ban, network, present
from labs.gate_lab import REFUSED, StartGate, StartOrigin, connect_request, dial, exactly, policy, read_all, until
from labs.hello_builder import hello_for
from labs.ports import held_port
from labs.waiting import DEADLINE
from tokgate.evasion import hello as build
from tokgate.gate.first_message import FirstMessage
from tokgate.policy.decision import Response
from tokgate.policy.settings import MissingSni
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.client_messages import FirstBytesReader
from tokgate.wire.hello_reader import HELLO_RETRY

ALLOWED, OTHER, BANNED = (hello_for(f"www.{name}") for name in ("example.net", "example.com", "clips.example.org"))
RETRY = build.records(b"\2" + build.vector(3, b"\3\3" + HELLO_RETRY + b"\x20" + b"s" * 32 + b"\x13\1\0\0\0"))
ANSWER = build.records(b"\2" + build.vector(3, b"\3\3" + b"r" * 32 + b"\x20" + b"s" * 32 + b"\x13\1\0\0\0"))
CHANGE = b"\x14\3\3\0\1\1"
WARNING = b"\x15\3\1\0\2\1\x70"


def nobodys() -> Snapshot:
    """A policy whose ban is for others than the clients on loopback."""
    return policy(ban(networks=("far",)), networks=(network("far", "192.0.2.0/24"),))


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


def test_a_second_hello_cut_in_two_waits(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """The part that comes after the first hello was passed on begins no record; it is a second hello all the same."""
    heard_first = threading.Event()

    def serve(client: socket.socket) -> None:
        exactly(client, len(ALLOWED))
        heard_first.set()
        client.settimeout(0.3)
        with contextlib.suppress(TimeoutError):  # what should wait for the answer would come now
            server.heard = client.recv(65536)
        client.settimeout(None)
        server(client)

    server = Asking(0, RETRY)
    gate = start_gate(start_origin(serve))
    with dial(gate.redirected, ALLOWED + BANNED[:40]) as client:
        assert heard_first.wait(DEADLINE)
        client.sendall(BANNED[40:])
        assert read_all(client).endswith(REFUSED)
    assert server.heard == b""
    assert [record["tokgate"]["reason"] for record in gate.sink.records] == ["ban-block"]


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


def test_early_data_between_two_hellos(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """Early data that was cut off by the retry is passed on as it came, and the name behind it still counts."""
    first = hello_for("www.example.net", (build.EARLY_DATA, b""))
    early = b"\x17\3\3\0\x20" + b"e" * 32
    for second, reply in ((ALLOWED, b"served"), (BANNED, REFUSED)):
        gate = start_gate(start_origin(server := Asking(len(first) + 10, RETRY)))
        with dial(gate.redirected, first + early[:10]) as client:
            assert exactly(client, len(RETRY)) == RETRY
            client.sendall(early[10:] + second)
            assert exactly(client, len(reply)) == reply
        assert server.heard == (early[10:] + second if second == ALLOWED else b"")


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


UNREAD = [
    (b"GET / HTTP/1.10\r\n\r\n", "unreadable"),
    (b"\r\n" * 2000, "unreadable"),
    (b"GE[T / HTTP/1.1\r\n\r\n", "unreadable"),
    (b"X #\r\nHost: a\r\n\r\n", "unreadable"),
    (b"\x16\3\1\0\4\2\0\0\0", "unreadable"),
    (WARNING + b"GET / HTTP/1.1\r\n", "unreadable"),
    (b"\x80\x2e\1\3\1\0\x15\0\0\0\x10" + b"c" * 37, "unreadable"),
    (WARNING + BANNED, "ban-block"),
    (build.records(BANNED[5:], version=0x0200), "ban-block"),
    (build.records(build.hello(build.server_name(b"a!b.clips.example.org"))), "ban-block"),
    (build.records(build.hello(build.server_name(b"www.example.net", b"clips.example.org"))), "ban-block"),
    (build.records(build.hello(build.server_name(b"*.example"))), "invalid-host"),
    (build.records(build.hello(build.server_name(b"\xff\xfe"))), "invalid-host"),
]


@pytest.mark.parametrize(("data", "reason"), UNREAD)
def test_what_some_server_might_read(
    start_gate: StartGate, start_origin: StartOrigin, data: bytes, reason: str
) -> None:
    """Refused to clients under a ban, with a record; passed on as it came to others, and counted."""
    gate = start_gate(origin := start_origin())
    with dial(gate.redirected, data) as client:
        assert read_all(client) in (b"", REFUSED)
    assert gate.settled()
    assert origin.accepted == 0
    assert [record["tokgate"]["reason"] for record in gate.sink.records] == [reason]

    gate = start_gate(origin, nobodys())
    with dial(gate.redirected, data) as client:
        assert exactly(client, len(data)) == data
    assert gate.sink.records == []
    assert sum(gate.gate.enforcer.counters.decisions.values()) == 1


@pytest.mark.parametrize("data", [b"SSH-2.0-client\r\n", b"\x13BitTorrent protocol", b"get key\r\n", b"\0\1"])
def test_other_protocols_pass_and_are_counted(start_gate: StartGate, start_origin: StartOrigin, data: bytes) -> None:
    """What no server takes for TLS or HTTP is decided by address, for clients under a ban too, and counted as that."""
    gate = start_gate(start_origin())
    with dial(gate.redirected, data) as client:
        assert exactly(client, len(data)) == data
    (kind,) = gate.gate.enforcer.counters.decisions
    assert (kind.network, kind.visibility, kind.outcome) == ("loop", "address", "allow")


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


@pytest.mark.parametrize("setting", [MissingSni.BLOCK, MissingSni.CHECK_CERTIFICATE])
@pytest.mark.parametrize("extensions", [(), (build.server_name(b"192.0.2.9"),)])
def test_a_full_queue_opens_no_way(
    start_gate: StartGate, start_origin: StartOrigin, setting: MissingSni, extensions: tuple[build.Extension, ...]
) -> None:
    """Where nobody can ask for a certificate, clients under a ban are refused what names no host, or an address."""
    gate = start_gate(origin := start_origin(), policy(ban(networks=("loop",)), missing_sni=setting))
    gate.opener.willing = False
    for data in (build.records(build.hello(*extensions)), b"GET / HTTP/1.1\r\n"):
        with dial(gate.redirected, data) as client:
            assert read_all(client) in (b"", REFUSED)
    assert gate.settled()
    assert origin.accepted == 0
    assert "missing-sni" in [record["tokgate"]["reason"] for record in gate.sink.records]


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


@pytest.mark.parametrize("response", [Response.PAGE, Response.REFUSE])
def test_nothing_is_opened_behind_another_proxy(
    start_gate: StartGate, start_origin: StartOrigin, response: Response
) -> None:
    """What begins in the middle of a connection is refused where others would see a page: nobody can take it over."""
    gate = start_gate(start_origin(proxied), policy(ban(networks=("loop",), response=response)))
    for words in (BANNED, b"GET http://www.example.net/ HTTP/1.1\r\n\r\n"):
        with dial(gate.redirected, connect_request("www.example.net")) as client:
            exactly(client, len(ESTABLISHED))
            client.sendall(words)
            assert read_all(client) in (b"", REFUSED)
    assert gate.opener.adopted == []
    assert [record["tokgate"]["reason"] for record in gate.sink.records] == ["ban-block", "unreadable"]


def test_a_hello_in_pieces_is_held_once(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """Clients that never finish take no more memory than what they have sent."""
    whole = build.records(build.hello(build.server_name(b"www.example.net"), (build.PADDING, b"\0" * 40_000)))
    gate = start_gate(start_origin())
    with dial(gate.redirected) as client:
        for start in range(0, len(whole) - 1, 5_000):
            client.sendall(whole[start : min(start + 5_000, len(whole) - 1)])
        connection = present(until(lambda: next(iter(gate.gate.loop.connections.values()), None)))
        assert until(lambda: len(connection.received) == len(whole) - 1)
        assert isinstance(connection.state, FirstMessage)
        assert isinstance(connection.state.reader, FirstBytesReader)
        assert connection.received is connection.state.reader.received
        client.sendall(whole[-1:])
        assert exactly(client, len(whole)) == whole


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_a_real_retry(start_gate: StartGate, tmp_path: Path) -> None:
    """OpenSSL's client and server, whose first guesses don't meet, complete a handshake through the gate."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=a -keyout {key}"
    subprocess.run([*make.split(), "-out", str(certificate)], check=True, capture_output=True)
    serve = f"openssl s_server -key {key} -cert {certificate} -groups P-521 -www -quiet -accept 127.0.0.1"
    with held_port() as port, subprocess.Popen(f"{serve}:{port}".split(), stdout=DEVNULL, stderr=DEVNULL) as server:
        try:
            assert until(lambda: _answers(port))
            gate = start_gate(("127.0.0.1", port))
            ask = f"openssl s_client -connect 127.0.0.1:{gate.redirected[1]} -servername www.example.net"
            done = subprocess.run(
                [*ask.split(), "-groups", "X25519:P-521", "-tls1_3"], input=b"", capture_output=True, timeout=60
            )
        finally:
            server.kill()
    assert b"New, TLSv1.3" in done.stdout, (done.stdout, done.stderr, sys.version)
    assert gate.sink.records == []


def _answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
