"""Attempts through explicit proxies: the proxy's replies are read whole, and waited for as long as anything else."""

import socket

import pytest

from tokgate.evasion.attempt import Attempt, Family, Opens
from tokgate.evasion.carrying import AttemptRoute, Carriage, make
from tokgate.evasion.stream import Result, ServerReply, Stream, Target

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


def first_octet(stream: Stream, _: Target) -> ServerReply:
    """An attempt that says nothing."""
    return ServerReply(Result.SERVED, body=stream.receive())


ATTEMPT = Attempt("listens", "says nothing", first_octet, family=Family.SEGMENTS, opens=Opens.TLS)


def made(carriage: Carriage, said: bytes) -> tuple[ServerReply, list[float | None]]:
    """Make the attempt through a proxy that says this and no more; its result, and how long each octet was awaited."""
    with socket.create_server(("127.0.0.1", 0)) as server, Octets() as client:
        client.waited = []
        client.connect(server.getsockname())
        proxy, _ = server.accept()
        with proxy:
            proxy.sendall(said)
            proxy.shutdown(socket.SHUT_WR)
            route = AttemptRoute(carriage=carriage, patience=PATIENCE, dial=lambda _: client)
            return make(ATTEMPT, route, TARGET), client.waited


@pytest.mark.parametrize(
    ("carriage", "granted"),
    [
        (Carriage.CONNECT, ESTABLISHED),
        (Carriage.SOCKS, METHOD + b"\5\0\0\1" + bytes(6)),
        (Carriage.SOCKS, METHOD + b"\5\0\0\4" + bytes(18)),
        (Carriage.SOCKS, METHOD + b"\5\0\0\3\5proxy\0\0"),
    ],
    ids=["connect", "ipv4", "ipv6", "name"],
)
def test_a_proxy_that_replies_bit_by_bit(carriage: Carriage, granted: bytes) -> None:
    """It may resolve and connect before any octet; what follows its reply is the server's."""
    reply, waited = made(carriage, granted + b"S")
    assert (reply.result, reply.body) == (Result.SERVED, b"S")
    assert waited == [PATIENCE] * (len(granted) + 1)


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
