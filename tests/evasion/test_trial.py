"""The streams of attempts: an answer to what was sent is waited for, and a proxy's replies are read whole."""

import socket

import pytest

from tokgate.evasion.attempt import Attempt, Family, Opens, Result, ServerReply, Stream, Target
from tokgate.evasion.trial import PAUSE, AttemptRoute, Carriage, make

PATIENCE = 7.0
TARGET = Target("www.clips.example.org", "192.0.2.1", 443)
METHOD = b"\5\0"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\nVia: another\r\n\r\n"


class Octets(socket.socket):
    """Receives an octet at a time, and keeps how long each was waited for."""

    waited: list[float | None]

    def recv(self, size: int, flags: int = 0) -> bytes:
        self.waited.append(self.gettimeout())
        return super().recv(1, flags)


def twice(stream: Stream, _target: Target) -> ServerReply:
    """An attempt that asks, and asks again."""
    heard = b""
    for _ in range(2):
        stream.send(b"hello")
        heard += stream.receive()
    return ServerReply(Result.SERVED, body=heard)


ATTEMPT = Attempt("twice", "asks twice", twice, family=Family.SEGMENTS, opens=Opens.TLS)


def made(carriage: Carriage, said: bytes) -> tuple[ServerReply, list[float | None]]:
    """Make the attempt through a proxy that says just this; what came of it, and how long each octet was awaited."""
    with socket.create_server(("127.0.0.1", 0)) as server, Octets() as client:
        client.waited = []
        client.connect(server.getsockname())
        proxy, _ = server.accept()
        with proxy:
            proxy.sendall(said)
            proxy.shutdown(socket.SHUT_WR)
            route = AttemptRoute(carriage=carriage, patience=PATIENCE, dial=lambda _: client)
            return make(ATTEMPT, route, TARGET), client.waited


def answers(*octets: int) -> list[float | None]:
    """How long the octets of answers are waited for, which are so long."""
    return [wait for number in octets for wait in (PATIENCE, *[PAUSE] * (number - 1))]


@pytest.mark.parametrize(
    ("carriage", "granted", "waits"),
    [
        (Carriage.ROUTE, b"", []),
        (Carriage.CONNECT, ESTABLISHED, answers(len(ESTABLISHED))),
        (Carriage.SOCKS, METHOD + b"\5\0\0\1" + bytes(6), answers(2, 10)),
        (Carriage.SOCKS, METHOD + b"\5\0\0\4" + bytes(18), answers(2, 22)),
        (Carriage.SOCKS, METHOD + b"\5\0\0\3\5proxy\0\0", answers(2, 12)),
    ],
    ids=["route", "connect", "ipv4", "ipv6", "name"],
)
def test_answers_may_take_their_time(carriage: Carriage, granted: bytes, waits: list[float | None]) -> None:
    """Whoever is asked may have to resolve and connect first; what follows a proxy's reply is the server's."""
    reply, waited = made(carriage, granted + b"AB")
    assert (reply.result, reply.body) == (Result.SERVED, b"AB")
    assert waited == waits + answers(1, 1)


@pytest.mark.parametrize(
    ("carriage", "said", "result", "detail"),
    [
        (Carriage.CONNECT, b"HTTP/1.1 403 No\r\n\r\n", Result.REFUSED, "no tunnel: HTTP/1.1 403 No"),
        (Carriage.CONNECT, ESTABLISHED[:-1], Result.CLOSED, "no tunnel"),
        (Carriage.SOCKS, b"\5\xff", Result.REFUSED, "no tunnel: no method"),
        (Carriage.SOCKS, METHOD + b"\5\2\0\1" + bytes(6), Result.REFUSED, "no tunnel: reply 02"),
        (Carriage.SOCKS, METHOD + b"\5\2", Result.REFUSED, "no tunnel: reply 02"),
        (Carriage.SOCKS, METHOD + b"\5\0\0\4" + bytes(6), Result.REFUSED, "no tunnel: reply 00"),
    ],
)
def test_a_proxy_that_grants_no_tunnel(carriage: Carriage, said: bytes, result: Result, detail: str) -> None:
    """In its own words, or by ending before it has granted one."""
    reply, _ = made(carriage, said)
    assert (reply.result, reply.detail) == (result, detail)
