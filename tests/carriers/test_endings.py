"""What HTTP means by the end of a direction, and of a connection, arrives on the other side as it was meant."""

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable

import h2.events
import pytest
from OpenSSL import SSL

from labs.carriers import OPENING, Lab, Way, talk_at
from labs.gate_lab import DEADLINE, Origin, read_all, read_head, reset, until
from labs.proxy_lab import ALLOWED, STORE, ban, policy
from labs.raw_client import RawClient

pytestmark = pytest.mark.usefixtures("no_crash")

TLS = pytest.mark.parametrize("tls", [False, True], ids=["plain", "opened"])
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\norigin"
UPGRADE = "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


def origin(lab: Lab, serve: Callable[[socket.socket], object], *, tls: bool) -> Origin:
    """An origin, with the certificate of a store, whose connections are opened; the carrier is started."""
    context = lab.authority.server(STORE)

    def secure(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False) as session:
            serve(session)

    made = lab.origin(secure if tls else serve)
    lab.start(policy(ban(inspect_stores=True)))
    return made


class Session:
    """TLS of a client that may end its own direction first; Python's own would lose what comes meanwhile."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(DEADLINE), 0))
        self._sock, self._tls = sock, SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), sock)
        self._tls.set_tlsext_host_name(STORE.encode())
        self._tls.set_connect_state()
        self._tls.do_handshake()
        self.sendall, self.close = self._tls.sendall, sock.close

    def recv(self, most: int) -> bytes:
        try:
            return self._tls.recv(most)
        except SSL.ZeroReturnError:
            return b""

    def shutdown(self, _: int) -> None:
        self._tls.shutdown()


def ask(client: RawClient, fields: str = "", *, tls: bool, requests: int = 1) -> None:
    if tls:
        client.sock = Session(client.sock)  # type: ignore[assignment]
    client.send(f"GET / HTTP/1.1\r\nHost: {STORE if tls else ALLOWED}\r\n{fields}\r\n".encode() * requests)


def say_no_more(sock: socket.socket) -> None:
    """End the direction of a server: with close_notify, and nothing of TCP's, where there is TLS."""
    if isinstance(sock, ssl.SSLSocket):
        sock.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError):
            sock.unwrap()
        sock.setblocking(True)
    else:
        sock.shutdown(socket.SHUT_WR)


@OPENING
@TLS
def test_a_client_that_says_no_more_is_answered(lab: Lab, tls: bool) -> None:
    """Its server learns that it says no more, and answers all the same: `nc -N`, `socat`."""

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        if sock.recv(1) == b"":
            sock.sendall(ANSWER)

    place = origin(lab, serve, tls=tls)
    with lab.reach(Way.REDIRECTED, place.port) as client:
        ask(client, tls=tls)
        client.end()
        assert client.to_end() == ANSWER


@OPENING
def test_a_client_that_is_gone_is_not_waited_for(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end looks the same: after a while without an octet the server is left."""
    monkeypatch.setattr("tokgate.mitm.layers.http.HALF_CLOSED", 0)
    place = origin(lab, lambda sock: (read_head(sock), until(lambda: gone), read_all(sock)), tls=False)
    gone: list[bool] = []
    with lab.reach(Way.REDIRECTED, place.port) as client:
        ask(client, tls=False)
        client.end()
        assert client.is_over()
    assert lab.settled()
    gone.append(True)


@OPENING
def test_requests_ahead_of_an_end_are_answered(lab: Lab) -> None:
    web = lab.web(tls=False)
    with lab.reach(Way.REDIRECTED, web.port) as client:
        ask(client, tls=False, requests=3)
        client.end()
        assert client.to_end() == ANSWER * 3


@OPENING
@TLS
def test_a_client_that_breaks_off_is_gone(lab: Lab, tls: bool) -> None:
    """A reset, or the end of TCP under TLS, ends the server's connection, too, before any answer."""
    seen: list[object] = []

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        seen.append("asked")
        try:
            seen.append(sock.recv(1))
        except OSError as error:
            seen.append(error)

    place = origin(lab, serve, tls=tls)
    with lab.reach(Way.REDIRECTED, place.port) as client:
        ask(client, tls=tls)
        assert until(lambda: seen)
        client.sock.close() if tls else client.reset()
        assert until(lambda: len(seen) == 2)
    assert lab.settled()


@OPENING
@TLS
@pytest.mark.parametrize("upgrade", ["websocket", "tcp"])
def test_what_was_upgraded_passes_octet_by_octet(lab: Lab, tls: bool, upgrade: str) -> None:
    """A fragment doesn't wait for the rest of its message, nor a ping, and each direction ends by itself."""

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: {upgrade}\r\nConnection: Upgrade\r\n\r\n".encode())
        while said := sock.recv(1000):
            sock.sendall(said)
        sock.sendall(b"bye")
        say_no_more(sock)

    place = origin(lab, serve, tls=tls)
    with lab.reach(Way.REDIRECTED, place.port) as client:
        ask(client, f"Upgrade: {upgrade}\r\n{UPGRADE}", tls=tls)
        assert b" 101 " in read_head(client.sock)
        assert client.echoes(b"\x01\x84\1\2\3\4ping")
        assert client.echoes(b"\x89\x81\1\2\3\4p")
        client.end()
        assert client.to_end() == b"bye"


ENDS: dict[str, tuple[bool, Callable[[socket.socket], object], type[Exception] | None]] = {
    "close_notify": (True, say_no_more, None),
    "FIN under TLS": (True, socket.socket.close, SSL.SysCallError),
    "FIN": (False, socket.socket.close, None),
    "reset": (False, reset, ConnectionResetError),
}


@OPENING
@pytest.mark.parametrize(("tls", "end", "raises"), ENDS.values(), ids=list(ENDS))
def test_the_end_of_an_answer_without_a_length(
    lab: Lab, tls: bool, end: Callable[[socket.socket], object], raises: type[Exception] | None
) -> None:
    """It tells whether the answer was whole (RFC 9112 §9.8), as it does without a proxy."""
    read = threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nhello")
        if read.wait(DEADLINE):
            end(sock)

    place = origin(lab, serve, tls=tls)
    with lab.reach(Way.REDIRECTED, place.port) as client:
        ask(client, tls=tls)
        assert b"200 OK" in read_head(client.sock)
        assert client.exactly(5) == b"hello"
        read.set()
        with pytest.raises(raises) if raises else contextlib.nullcontext():
            assert client.to_end() == b""


@OPENING
@pytest.mark.parametrize(("end", "kind"), [(say_no_more, h2.events.StreamEnded), (reset, h2.events.StreamReset)])
def test_the_end_of_such_an_answer_over_http2(
    lab: Lab, end: Callable[[socket.socket], object], kind: type[h2.events.Event]
) -> None:
    """What was cut short is no whole answer to a client of HTTP/2 either."""

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nhello")
        if read.wait(DEADLINE):
            end(sock)

    read = threading.Event()
    place = origin(lab, serve, tls=True)
    with lab.tls(lab.trusting("h2"), STORE, Way.REDIRECTED, place.port) as client:
        talk, seen = talk_at(client_side=True), list[type]()
        talk.initiate_connection()
        asked = [(":method", "GET"), (":scheme", "https"), (":authority", STORE), (":path", "/")]
        talk.send_headers(1, asked, end_stream=True)
        client.send(talk.data_to_send())
        while not {h2.events.StreamEnded, h2.events.StreamReset} & set(seen):
            seen += [type(event) for event in talk.receive_data(client.sock.recv(1 << 16))]
            if h2.events.DataReceived in seen:
                read.set()
    assert kind in seen
