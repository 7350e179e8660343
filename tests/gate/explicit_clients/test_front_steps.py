"""What the explicit front has its loop do about each thing that a client says, without a network or time."""

import os
from ipaddress import ip_network
from typing import Any

import pytest

from labs.builders import ban, exemption, present, snapshot, wall
from labs.front_steps import BANNED, BASIC, CONNECT, OTHER, POLICY, SOCKS, TUNNEL, Client
from labs.waiting import DEADLINE, readable
from tokgate.accounts.auth_cache import AuthResult
from tokgate.gate.background import BackgroundCalls
from tokgate.gate.connection import CLOSED, Tunnel
from tokgate.gate.explicit_clients import proxy_auth
from tokgate.gate.explicit_clients.front import ConnectingTunnel
from tokgate.policy.membership import Identity
from tokgate.traffic import refusal_texts
from tokgate.traffic.admission import decide_targets
from tokgate.traffic.counters import ConnectError
from tokgate.wire import socks5
from tokgate.wire.proxy_request import ACCEPTED, MAX_HEAD, REJECTED

PAC = b"GET /proxy.pac HTTP/1.1\r\n"


@pytest.mark.parametrize(
    ("pieces", "own", "proxy"),
    [
        ((PAC, b"Host: gw.example.org:3128\r\n\r\n"), ("192.0.2.1", 8080), b"PROXY gw.example.org:3128"),
        ((PAC, b"\r\n"), ("192.0.2.1", 8080), b"PROXY 192.0.2.1:8080"),
        ((PAC, b"\n"), ("192.0.2.1", 8080), b"PROXY 192.0.2.1:8080"),
        ((PAC[:-2] + b"\n", b"\n"), ("2001:db8::1", 8080, 0, 0), b"PROXY [2001:db8::1]:8080"),
        ((PAC, b"x" * MAX_HEAD), ("192.0.2.1", 8080), b"PROXY 192.0.2.1:8080"),
        ((PAC, b"X: y\r\nhost:[2001:db8::1]:8080\r\n\r\n"), ("192.0.2.1", 80), b"PROXY [2001:db8::1]:8080"),
        ((PAC, b'Host: a"; alert(1)\r\n\r\n'), ("192.0.2.1", 8080), b"PROXY 192.0.2.1:8080"),
        ((b"GET /proxy.pac?x=1 HTTP/1.0\r\n", b"\r\n"), ("192.0.2.1", 8080), b"PROXY 192.0.2.1:8080"),
    ],
)
def test_a_browser_asks_what_goes_through(
    client: Client, pieces: tuple[bytes, ...], own: tuple[Any, ...], proxy: bytes
) -> None:
    """Once its request is whole it is told to come as it came; without a usable Host, to the address it came to."""
    client.loop.own = own
    waited, (what, answer) = client.says(*pieces)
    assert (waited, what) == ("wait", "refuse")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert proxy + b'"' in answer


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
def test_an_opener_answers(client: Client, said: bytes) -> None:
    """Whatever is no CONNECT, as soon as a line or too much of it is there; without one it comes again."""
    assert client.says(said) == [("open", said)]
    client.loop.opener = False
    client.connection.received = b""
    assert client.says(said)[1:] == [("refuse", refusal_texts.UNAVAILABLE)]


@pytest.mark.parametrize(
    "said", [b"C", b"CONNECT ", b"GET http://a/ HT", CONNECT[:-1], b"X" * MAX_HEAD, b"\5", b"\5\1", SOCKS[:3]]
)
def test_a_request_in_pieces(client: Client, said: bytes) -> None:
    """What may go on is waited for."""
    assert client.says(said)[-1] == "wait"


def test_a_client_that_has_gone(client: Client) -> None:
    client.loop.hears = False
    assert client.says(SOCKS) == [socks5.METHOD_CHOSEN]
    client.front.establish(client.connection, Tunnel("www.example.org", 443, socks=False))
    assert client.loop.done[1:] == [refusal_texts.ESTABLISHED]


def test_a_tunnel_whose_client_has_spoken(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was decided about it holds at whichever address is reached, and what it said is passed on there."""
    told: list[object] = []
    monkeypatch.setattr("tokgate.gate.explicit_clients.front.proceed", lambda *given: told.append(given[2]))
    tunnel = Tunnel("a", 443, socks=False, addresses=(OTHER, "198.51.100.8"), established=True)
    client.connection.received = b"hello"
    client.front.connect(client.connection, tunnel, client.message)
    assert isinstance(client.connection.state, ConnectingTunnel)
    client.connection.state.unreachable(client.connection, ConnectError.REFUSED)
    client.connected()
    assert (client.loop.done, told) == ([("dial", OTHER, 443), ("dial", "198.51.100.8", 443)], [client.message])


def test_a_name_without_an_address(client: Client) -> None:
    client.addresses = ()
    assert client.says(CONNECT)[1:] == [("refuse", refusal_texts.UNREACHABLE)]


@pytest.mark.parametrize("opener", [True, False])
def test_a_name_that_leads_to_banned_addresses_alone(client: Client, opener: bool) -> None:
    """It is answered as a banned name is: by an opener, with the request as it came, or in short."""
    client.addresses, client.loop.opener = (BANNED,), opener
    (what, words) = client.says(CONNECT + b"rest")[-1]
    assert what == ("open" if opener else "refuse")
    assert (words == CONNECT + b"rest") if opener else words.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("fails", [False, True])
def test_a_name_that_leads_to_banned_addresses_too(client: Client, fails: bool) -> None:
    """The others are open; where none of these can be reached, a banned one is not tried."""
    client.addresses = (BANNED, OTHER)
    client.loop.fails = {OTHER: OSError()} if fails else {}
    told = [("refuse", refusal_texts.UNREACHABLE)] * fails
    assert client.says(CONNECT)[1:] == [("dial", OTHER, 443), *told]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"CONNECT www.example.org HTTP/1.1\r\n\r\n", refusal_texts.BAD_REQUEST),
        (b"\5\1\2", socks5.NO_METHOD),
        (b"\4", socks5.SOCKS4_REJECTED),
        (b"\4\1\1\xbb\0\0\0\1a\0www.example.org\0", socks5.SOCKS4_REJECTED),
        (b"\5\1\0\5\2\0\1\xc6\x33\x64\7\1\xbb", socks5.Reply.COMMAND_NOT_SUPPORTED.octets),
        (b"\5\1\0\5\1\0\3\x11clips.example.org\1\xbb", socks5.Reply.NOT_ALLOWED.octets),
    ],
)
def test_what_is_no_request(client: Client, said: bytes, words: bytes) -> None:
    assert client.says(said)[-1] == ("refuse", words)
    assert len(client.sink.records) == (words == socks5.Reply.NOT_ALLOWED.octets)


def test_patience(client: Client) -> None:
    """Who says nothing waits for the server; who has begun has as long again, once."""
    tunnel = Tunnel(OTHER, 443, socks=False, addresses=(OTHER,), established=True)
    client.connection.tunnel, client.connection.deadline = tunnel, 100.0
    client.message.overdue(client.connection)
    assert client.loop.done == [("dial", OTHER, 443)]
    client.connection.received = b"half"
    client.message.overdue(client.connection)
    assert (client.connection.deadline, client.enforcer.counters.timeouts) == (110.0, 0)
    client.message.overdue(client.connection)
    assert (client.loop.done, client.enforcer.counters.timeouts) == ([("dial", OTHER, 443)], 1)


@pytest.mark.parametrize("request_", [CONNECT, SOCKS])
def test_a_ban_that_ends_while_it_is_told(client: Client, monkeypatch: pytest.MonkeyPatch, request_: bytes) -> None:
    """Who asked for an address that was banned a moment ago gets its tunnel, with all that it said."""
    client.addresses = (BANNED,)

    def last_time(*asked: Any, **more: Any) -> Any:
        found = decide_targets(*asked, **more)
        client.holder.snapshot = snapshot()
        return found

    monkeypatch.setattr("tokgate.gate.connecting.decide_targets", last_time)
    client.loop.opener = False
    done = client.says(request_ + b"rest")
    assert done[-2:] == [("suspend", 20.0), ("dial", BANNED, 443)]
    assert client.connection.received == b"rest"


@pytest.mark.parametrize("socks", [False, True])
def test_who_is_exempt(client: Client, socks: bool) -> None:
    """Its tunnel to what others may not reach is built, and an analyst sees on what ground."""
    client.holder.snapshot = snapshot(
        ban(networks=("all",)),
        exemptions=(exemption(clients=(ip_network("192.0.2.7/32"),), until=wall("2099-01-01T00:00")),),
        services=tuple(POLICY.policy.services.values()),
        networks=tuple(POLICY.policy.networks.values()),
    )
    client.loop.opener = False
    request = b"\5\1\0\5\1\0\3\x11clips.example.org\1\xbb" if socks else CONNECT.replace(b"www.", b"clips.")
    assert client.says(request)[-1] == ("dial", OTHER, 443)
    assert len(client.sink.records) == 1


def test_a_front_that_is_closed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds no descriptor: gates come and go in one process."""
    front = client.front
    checks = front.sign_in._checks = BackgroundCalls(1)
    front.sign_in.close()
    monkeypatch.setattr(client, "close", client.loop.epoll.close)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(checks.descriptor)


# -- who an explicit client is, step by step: what it is asked, and what it is told

PASSWORD = b"\1\3ada\6secret"


@pytest.mark.parametrize("step", [1, 1000])
def test_a_socks_client_signs_in(client: Client, step: int) -> None:
    """It is asked once, told once that it is known, and then served as others are."""
    client.signs_in()
    client.loop.knows = AuthResult(Identity("ada"))
    said = b"\5\1\2" + PASSWORD + SOCKS[3:]
    done = client.says(*(said[at : at + step] for at in range(0, len(said), step)))
    assert [each for each in done if each != "wait"] == [socks5.PASSWORD_CHOSEN, ACCEPTED, *TUNNEL]
    assert client.connection.person == Identity("ada")
    assert client.connection.received == b""


def test_a_socks_client_that_has_only_signed_in(client: Client) -> None:
    """Its request is waited for; once it has gone, it is not."""
    client.signs_in()
    client.loop.knows = AuthResult(Identity("ada"))
    assert client.says(b"\5\1\2" + PASSWORD) == [socks5.PASSWORD_CHOSEN, ACCEPTED, "wait"]


@pytest.mark.parametrize(
    ("said", "words"), [(b"\5\1\0", socks5.NO_METHOD), (b"\5\1\2\5", REJECTED), (b"\5\1\2\1\1\xff\1x", REJECTED)]
)
def test_a_socks_client_that_does_not_sign_in(client: Client, said: bytes, words: bytes) -> None:
    client.signs_in()
    assert client.says(said)[-1] == ("refuse", words)


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
    client.loop.knows = result
    assert client.says(BASIC) == [("refuse", words)]
    assert client.enforcer.counters.wrong_passwords == wrong
    assert client.enforcer.counters.errors["proxy-auth"] == (result.complaint is not None)


@pytest.mark.parametrize("stays", [True, False])
def test_a_password_is_checked_beside(client: Client, stays: bool) -> None:
    """Its client alone waits, and is then served, if it is still there."""
    client.signs_in()
    assert client.says(BASIC) == [("suspend", 10.0)]
    if not stays:
        client.connection.state = CLOSED
    checks = present(client.front.sign_in._checks)
    assert readable(checks.descriptor, DEADLINE)
    checks.deliver()
    assert client.loop.done[1:] == ([("listen", 0.0), *TUNNEL] if stays else [])


def test_too_many_passwords_at_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes then is told to come again, and no queue grows without end."""
    monkeypatch.setattr(proxy_auth, "MOST_WAITING", 1)
    client.signs_in()
    for done in ([("suspend", 10.0)], [("refuse", refusal_texts.UNAVAILABLE)]):
        client.connection.state, client.connection.received = client.front.request, b""
        client.loop.done.clear()
        assert client.says(BASIC) == done


@pytest.mark.parametrize(("said", "done"), [(b"\5", []), (b"\5\1\2", [socks5.PASSWORD_CHOSEN])])
def test_a_socks_client_that_has_not_said_all(client: Client, said: bytes, done: list[bytes]) -> None:
    """It is asked once it has said what it can, and then waited for."""
    client.signs_in()
    assert client.says(said) == [*done, "wait"]
