"""What becomes of each thing that an explicit client says, step by step; what it asks for is noted and not dialled."""

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest

from labs.builders import ban, exemption, present, snapshot, wall
from labs.gate_steps import POLICY, Steps
from labs.waiting import DEADLINE, readable
from tokgate.accounts.auth_cache import AuthResult
from tokgate.gate.background import Addresses, BackgroundCalls
from tokgate.gate.connection import CLOSED, Connection, Tunnel
from tokgate.gate.context import Context, Waiting
from tokgate.gate.explicit_clients import proxy_auth
from tokgate.gate.explicit_clients.front import ConnectingTunnel, ExplicitRequest
from tokgate.gate.sockets import Address, Entry
from tokgate.policy.membership import Identity
from tokgate.traffic import refusal_texts
from tokgate.traffic.admission import decide_targets
from tokgate.traffic.counters import ConnectError
from tokgate.wire import socks5
from tokgate.wire.proxy_request import ACCEPTED, MAX_HEAD, REJECTED, Credentials

CONNECT = b"CONNECT www.example.org:443 HTTP/1.1\r\nHost: www.example.org:443\r\n\r\n"
SOCKS = b"\5\1\0\5\1\0\3\x0fwww.example.org\1\xbb"
BASIC = b"CONNECT www.example.org:443 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic YWRhOnNlY3JldA==\r\n\r\n"
OTHER, BANNED = "198.51.100.7", "203.0.113.7"
PAC = b"GET /proxy.pac HTTP/1.1\r\n"


class Client(Steps):
    """An explicit client, under a ban of `clips.example.org` and 203.0.113.0/24."""

    def __init__(self, patch: pytest.MonkeyPatch, host: str) -> None:
        super().__init__(host)
        self.front = self.gate.explicit
        self.addresses: Addresses | None = (OTHER,)
        """What the name that it asks for resolves to; None: nobody has answered yet."""
        self.fails: dict[str, OSError] = {}
        self.dialled: list[str] = []
        self.knows: AuthResult | None = None
        self.connection.listener = replace(self.connection.listener, entry=Entry.EXPLICIT)
        self.connection.destination, self.connection.state = None, self.front.request
        patch.setattr("tokgate.gate.connecting.dial", self._dial)
        patch.setattr(self.gate.dialler.resolver, "ask", self._resolve)

    def _resolve(self, _: str, __: str, answer: Any) -> None:
        if self.addresses is not None:
            answer(self.addresses)

    def _dial(self, _: Context, connection: Connection, destination: Address, connecting: ConnectingTunnel) -> None:
        self.dialled.append(destination[0])
        if (error := self.fails.get(destination[0])) is not None:
            raise error
        connection.state = connecting

    def says(self, *pieces: bytes) -> None:
        """Pieces come one after another."""
        for piece in pieces:
            assert isinstance(self.connection.state, ExplicitRequest)
            self.connection.state.read(self.connection, piece)

    @property
    def waits(self) -> bool:
        """Whether it may go on with its request."""
        return isinstance(self.connection.state, ExplicitRequest) and self.connection.client_fd in self.loop.connections

    def signs_in(self) -> None:
        """The policy wants to know who asks, and a check finds that it is Ada."""

        def recall(credentials: Credentials) -> AuthResult | None:
            assert credentials == Credentials("ada", "secret")
            return self.knows

        cache: Any = SimpleNamespace(recall=recall, verify=lambda _: AuthResult(Identity("ada")))
        self.front.sign_in.cache = lambda: cache  # type: ignore[method-assign]


@pytest.fixture
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """One that has said nothing."""
    made = Client(monkeypatch, getattr(request, "param", "127.0.0.1"))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("client", "pieces", "proxy"),
    [
        ("127.0.0.1", (PAC, b"Host: gw.example.org:3128\r\n\r\n"), "gw.example.org:3128"),
        ("127.0.0.1", (PAC, b"\r\n"), "127.0.0.1:%d"),
        ("127.0.0.1", (PAC, b"\n"), "127.0.0.1:%d"),
        ("::1", (PAC[:-2] + b"\n", b"\n"), "[::1]:%d"),
        ("127.0.0.1", (PAC, b"x" * MAX_HEAD), "127.0.0.1:%d"),
        ("127.0.0.1", (PAC, b"X: y\r\nhost:[2001:db8::1]:8080\r\n\r\n"), "[2001:db8::1]:8080"),
        ("127.0.0.1", (PAC, b'Host: a"; alert(1)\r\n\r\n'), "127.0.0.1:%d"),
        ("127.0.0.1", (b"GET /proxy.pac?x=1 HTTP/1.0\r\n", b"\r\n"), "127.0.0.1:%d"),
    ],
    indirect=["client"],
)
def test_a_browser_asks_what_goes_through(client: Client, pieces: tuple[bytes, ...], proxy: str) -> None:
    """Once its request is whole it is told to come as it came; without a usable Host, to the address it came to."""
    client.says(pieces[0])
    assert client.waits
    client.says(*pieces[1:])
    answer = client.heard()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert f'"PROXY {proxy.replace("%d", str(client.client.getpeername()[1]))}"'.encode() in answer


@pytest.mark.parametrize("willing", [True, False])
@pytest.mark.parametrize(
    "said",
    [
        b"GET http://a/ HTTP/1.1\r\n",
        b"GET http://www.example.org/proxy.pac HTTP/1.1\r\n",
        b"GET /proxy.packed HTTP/1.1\r\n",
        b"POST /proxy.pac HTTP/1.1\r\n",
        b"CONNECTS a\n",
        b"X" * (MAX_HEAD + 1),
    ],
)
def test_an_opener_answers(client: Client, said: bytes, willing: bool) -> None:
    """Whatever is no CONNECT, as soon as a line or too much of it is there; without one it comes again."""
    client.opener.willing = willing
    client.says(said)
    assert [(a.destination, *each) for _, a, *each in client.opener.adopted] == [(None, said, False, True)] * willing
    assert willing or client.heard() == refusal_texts.UNAVAILABLE


@pytest.mark.parametrize(
    "said", [b"C", b"CONNECT ", b"GET http://a/ HT", CONNECT[:-1], b"X" * MAX_HEAD, b"\5", b"\5\1", SOCKS[:3]]
)
def test_a_request_in_pieces(client: Client, said: bytes) -> None:
    """What may go on is waited for."""
    client.says(said)
    assert client.waits


@pytest.mark.parametrize("socks", [True, False])
def test_a_client_that_has_gone(client: Client, socks: bool) -> None:
    client.connection.client.shutdown(socket.SHUT_WR)
    if socks:
        client.says(SOCKS)
    else:
        client.front.establish(client.connection, Tunnel("www.example.org", 443, socks=False))
    assert (client.connection.state, client.dialled) == (CLOSED, [])


def test_a_tunnel_whose_client_has_spoken(client: Client) -> None:
    """What was decided about it holds at whichever address is reached, and what it said is passed on there."""
    tunnel = Tunnel("a", 443, socks=False, addresses=(OTHER, "198.51.100.8"), established=True)
    client.connection.received = b"hello"
    client.front.connect(client.connection, tunnel, client.gate.relay)
    assert isinstance(client.connection.state, ConnectingTunnel)
    client.connection.state.unreachable(client.connection, ConnectError.REFUSED)
    client.connection.server, client.connection.server_fd = client.outside, client.outside.fileno()
    client.connection.state.go_on(client.connection)
    assert (client.dialled, client.is_open, client.server.recv(10)) == ([OTHER, "198.51.100.8"], True, b"hello")


def test_a_name_is_resolved(client: Client) -> None:
    """It is waited for as long as for a destination; then its client is told."""
    client.addresses = None
    client.says(CONNECT)
    assert client.connection.deadline == 1020.0
    client.connection.state.overdue(client.connection)
    assert client.heard() == refusal_texts.UNREACHABLE


def test_a_name_without_an_address(client: Client) -> None:
    client.addresses = ()
    client.says(CONNECT)
    assert client.heard() == refusal_texts.UNREACHABLE


@pytest.mark.parametrize("opener", [True, False])
def test_a_name_that_leads_to_banned_addresses_alone(client: Client, opener: bool) -> None:
    """It is answered as a banned name is: by an opener, with the request as it came, or in short."""
    client.addresses, client.opener.willing = (BANNED,), opener
    client.says(CONNECT + b"rest")
    assert [each[2] for each in client.opener.adopted] == [CONNECT + b"rest"] * opener
    assert opener or client.heard().startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("fails", [False, True])
def test_a_name_that_leads_to_banned_addresses_too(client: Client, fails: bool) -> None:
    """The others are open; where none of these can be reached, a banned one is not tried."""
    client.addresses = (BANNED, OTHER)
    client.fails = {OTHER: OSError()} if fails else {}
    client.says(CONNECT)
    assert client.dialled == [OTHER]
    assert not fails or client.heard() == refusal_texts.UNREACHABLE


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"CONNECT www.example.org HTTP/1.1\r\n\r\n", refusal_texts.BAD_REQUEST),
        (b"\5\1\2", socks5.NO_METHOD),
        (b"\4", socks5.SOCKS4_REJECTED),
        (b"\4\1\1\xbb\0\0\0\1a\0www.example.org\0", socks5.SOCKS4_REJECTED),
        (b"\5\1\0\5\2\0\1\xc6\x33\x64\7\1\xbb", socks5.METHOD_CHOSEN + socks5.Reply.COMMAND_NOT_SUPPORTED.octets),
        (b"\5\1\0\5\1\0\3\x11clips.example.org\1\xbb", socks5.METHOD_CHOSEN + socks5.Reply.NOT_ALLOWED.octets),
    ],
)
def test_what_is_no_request(client: Client, said: bytes, words: bytes) -> None:
    client.says(said)
    assert client.heard() == words
    assert len(client.sink.records) == words.endswith(socks5.Reply.NOT_ALLOWED.octets)


@pytest.mark.parametrize("connected", [False, True])
def test_patience(client: Client, connected: bool) -> None:
    """Who says nothing waits for the server; who has begun has as long again, once, if the server is not there yet."""
    tunnel = Tunnel(OTHER, 443, socks=False, addresses=(OTHER,), established=True)
    client.connection.tunnel, client.connection.deadline = tunnel, 100.0
    if connected:
        client.connects()
        client.connection.deadline = 100.0
    else:
        client.front.message.overdue(client.connection)
    client.connection.received = b"half"
    for _ in range(2 - connected):
        assert client.counters.timeouts == 0
        client.front.message.overdue(client.connection)
    assert client.connection.deadline == (100.0 if connected else 110.0)
    assert (client.dialled, client.counters.timeouts) == ([OTHER] * (not connected), 1)


@pytest.mark.parametrize("request_", [CONNECT, SOCKS])
def test_a_ban_that_ends_while_it_is_told(client: Client, monkeypatch: pytest.MonkeyPatch, request_: bytes) -> None:
    """Who asked for an address that was banned a moment ago gets its tunnel, with all that it said."""
    client.addresses, client.opener.willing = (BANNED,), False

    def last_time(*asked: Any, **more: Any) -> Any:
        found = decide_targets(*asked, **more)
        client.holder.snapshot = snapshot()
        return found

    monkeypatch.setattr("tokgate.gate.connecting.decide_targets", last_time)
    client.says(request_ + b"rest")
    assert (client.dialled, client.connection.received) == ([BANNED], b"rest")


@pytest.mark.parametrize("socks", [False, True])
def test_who_is_exempt(client: Client, socks: bool) -> None:
    """Its tunnel to what others may not reach is built, and an analyst sees on what ground."""
    client.holder.snapshot = snapshot(
        ban(networks=("all",)),
        exemptions=(exemption(clients=(ip_network("192.0.2.7/32"),), until=wall("2099-01-01T00:00")),),
        services=tuple(POLICY.policy.services.values()),
        networks=tuple(POLICY.policy.networks.values()),
    )
    client.opener.willing = False
    client.says(b"\5\1\0\5\1\0\3\x11clips.example.org\1\xbb" if socks else CONNECT.replace(b"www.", b"clips."))
    assert (client.dialled, len(client.sink.records)) == ([OTHER], 1)


def test_a_front_that_is_closed(client: Client) -> None:
    """It holds no descriptor: gates come and go in one process."""
    checks = client.front.sign_in._checks = BackgroundCalls(1)
    client.front.sign_in.close()
    client.front.sign_in._checks = None
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(checks.descriptor)


# -- who an explicit client is, step by step: what it is asked, and what it is told

PASSWORD = b"\1\3ada\6secret"


@pytest.mark.parametrize("step", [1, 1000])
def test_a_socks_client_signs_in(client: Client, step: int) -> None:
    """It is asked once, told once that it is known, and then served as others are."""
    client.signs_in()
    client.knows = AuthResult(Identity("ada"))
    said = b"\5\1\2" + PASSWORD + SOCKS[3:]
    client.says(*(said[at : at + step] for at in range(0, len(said), step)))
    assert client.client.recv(100) == socks5.PASSWORD_CHOSEN + ACCEPTED
    assert (client.connection.person, client.connection.received) == (Identity("ada"), b"")
    assert client.dialled == [OTHER]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"\5", b""),
        (b"\5\1\2", socks5.PASSWORD_CHOSEN),
        (b"\5\1\2" + PASSWORD, socks5.PASSWORD_CHOSEN + ACCEPTED),
    ],
)
def test_a_socks_client_that_has_not_said_all(client: Client, said: bytes, told: bytes) -> None:
    """It is asked once it has said what it can, told that it is known, and then waited for."""
    client.signs_in()
    client.knows = AuthResult(Identity("ada"))
    client.says(said)
    assert client.waits
    client.connection.client.shutdown(socket.SHUT_WR)
    assert client.heard() == told


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"\5\1\0", socks5.NO_METHOD),
        (b"\5\1\2\5", socks5.PASSWORD_CHOSEN + REJECTED),
        (b"\5\1\2\1\1\xff\1x", socks5.PASSWORD_CHOSEN + REJECTED),
    ],
)
def test_a_socks_client_that_does_not_sign_in(client: Client, said: bytes, words: bytes) -> None:
    client.signs_in()
    client.says(said)
    assert client.heard() == words


@pytest.mark.parametrize(
    ("result", "words", "wrong"),
    [
        (AuthResult(None), refusal_texts.SIGN_IN, 1),
        (AuthResult(None, unavailable=True), refusal_texts.UNAVAILABLE, 0),
        (AuthResult(None, unavailable=True, complaint=OSError("gone")), refusal_texts.UNAVAILABLE, 0),
    ],
)
def test_who_is_not_known(client: Client, result: AuthResult, words: bytes, wrong: int) -> None:
    """A wrong password is counted as such; accounts that can't be asked are none of the client's making, and told."""
    client.signs_in()
    client.knows = result
    client.says(BASIC)
    assert client.heard() == words
    assert client.counters.wrong_passwords == wrong
    assert client.counters.errors["proxy-auth"] == (result.complaint is not None)


@pytest.mark.parametrize("stays", [True, False])
def test_a_password_is_checked_beside(client: Client, stays: bool) -> None:
    """Its client alone waits, and is then served, if it is still there."""
    client.signs_in()
    client.says(BASIC)
    assert (type(client.connection.state), client.connection.deadline) == (Waiting, 1010.0)
    if not stays:
        client.loop.close(client.connection)
    checks = present(client.front.sign_in._checks)
    assert readable(checks.descriptor, DEADLINE)
    checks.deliver()
    assert client.dialled == [OTHER] * stays


def test_too_many_passwords_at_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes then is told to come again, and no queue grows without end."""
    monkeypatch.setattr(proxy_auth, "MOST_WAITING", 1)
    client.signs_in()
    client.says(BASIC)
    assert type(client.connection.state) is Waiting
    client.connection.state, client.connection.received = client.front.request, b""
    client.says(BASIC)
    assert client.heard() == refusal_texts.UNAVAILABLE
