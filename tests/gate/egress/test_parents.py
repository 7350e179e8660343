"""A gate behind a parent proxy: destinations are reached by it, or not at all."""

import errno
import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from select import EPOLLIN, EPOLLOUT, EPOLLRDHUP
from typing import Any

import pytest

from labs.builders import ban, snapshot
from labs.gate_lab import (
    ALLOWED,
    BANNED,
    DEADLINE,
    StartGate,
    StartOrigin,
    broken_off,
    dial,
    exactly,
    policy,
    read_all,
)
from labs.parent_proxy import FORBIDDEN, ParentProxy
from labs.waiting import readable
from tokgate.gate.egress.parents import (
    MAX_ANSWER,
    AskedParent,
    ConnectHandshake,
    ParentHandshake,
    ParentRefused,
    Parents,
    SocksHandshake,
    credentials_of,
    parent_for,
)
from tokgate.gateway.canary import definition
from tokgate.policy.settings import CanarySettings, Upstream, UpstreamKind
from tokgate.policy.snapshot import Snapshot
from tokgate.wire.proxy_request import Credentials
from tokgate.wire.tls_alert import Alert

PASSWORD = "alice:open sesame"
KINDS = pytest.mark.parametrize("socks", [False, True], ids=["http", "socks5"])


@pytest.fixture
def parent(start_origin: StartOrigin) -> Iterator[Callable[..., ParentProxy]]:
    """Starts parents that lead to an origin which echoes."""
    running: list[ParentProxy] = []

    def start(serve: Any = None, **options: Any) -> ParentProxy:
        running.append(ParentProxy(start_origin(serve) if serve else start_origin(), **options))
        return running[-1]

    yield start
    for each in running:
        each.close()


def behind(proxy: ParentProxy, socks: bool, **stated: Any) -> Snapshot:
    """A policy with a ban, whose destinations are reached by this parent."""
    kind = UpstreamKind.SOCKS5 if socks else UpstreamKind.HTTP
    upstream = Upstream(kind=kind, **({"host": "127.0.0.1", "port": proxy.port} | stated))
    return policy(ban(networks=("loop",)), upstream=(upstream,))


def connect_request(host: str, port: int = 443) -> bytes:
    """A CONNECT request of an explicit client."""
    return f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()


@KINDS
def test_redirected_clients(start_gate: StartGate, start_origin: StartOrigin, parent: Any, socks: bool) -> None:
    """What passes goes by the parent to the address that the client dialled, both ways; what is banned goes nowhere."""
    direct, proxy = start_origin(), parent(socks=socks)
    gate = start_gate(direct, behind(proxy, socks))
    with dial(gate.redirected, ALLOWED) as client:
        assert exactly(client, len(ALLOWED)) == ALLOWED
        client.sendall(b"more")
        assert exactly(client, 4) == b"more"
    with dial(gate.redirected, BANNED) as client:
        assert read_all(client) == Alert.UNRECOGNIZED_NAME.record
    assert proxy.asked == [f"127.0.0.1:{direct.port}"]
    assert direct.accepted == 0


@KINDS
def test_tunnels(start_gate: StartGate, parent: Any, socks: bool) -> None:
    """A name is asked for as the client wrote it, and not resolved here: only the parent's network may know it."""
    proxy = parent(socks=socks)
    gate = start_gate(None, behind(proxy, socks))
    with dial(gate.explicit, connect_request("only.beyond.example")) as client:
        assert read_head(client).startswith(b"HTTP/1.1 200 ")
        client.sendall(ALLOWED)
        assert exactly(client, len(ALLOWED)) == ALLOWED
    with dial(gate.explicit, connect_request("192.0.2.77", 8443)) as client:
        assert read_head(client).startswith(b"HTTP/1.1 200 ")
        client.sendall(ALLOWED)
        assert exactly(client, len(ALLOWED)) == ALLOWED
    assert proxy.asked == ["only.beyond.example:443", "192.0.2.77:8443"]


@KINDS
def test_the_server_speaks_first(start_gate: StartGate, parent: Any, socks: bool) -> None:
    """What comes right behind the parent's answer is the destination's, and none of it is lost."""

    def greet(client: socket.socket) -> None:
        client.sendall(b"220 mail.example.net\r\n")
        client.recv(1)

    gate = start_gate(None, behind(parent(greet, socks=socks), socks))
    with dial(gate.explicit, connect_request("mail.example.net", 25)) as client:
        assert read_head(client).startswith(b"HTTP/1.1 200 ")
        assert exactly(client, 22) == b"220 mail.example.net\r\n"


@KINDS
@pytest.mark.parametrize("password", [PASSWORD, "alice:wrong"], ids=["right", "wrong"])
def test_credentials(start_gate: StartGate, parent: Any, tmp_path: Path, socks: bool, password: str) -> None:
    """They come from a file, which may change meanwhile; wrong ones are told to the operator, and nothing passes."""
    secret = tmp_path / "credentials"
    secret.write_text(f"{password}\n")
    gate = start_gate(None, behind(parent(socks=socks, password=PASSWORD), socks, credentials=str(secret)))
    with dial(gate.explicit, connect_request("www.example.net")) as client:
        answer = read_head(client)
    assert answer.startswith(b"HTTP/1.1 200 " if password == PASSWORD else b"HTTP/1.1 502 ")
    assert gate.gate.enforcer.counters.errors["upstream"] == (password != PASSWORD)
    secret.write_text(PASSWORD)
    with dial(gate.explicit, connect_request("www.example.net")) as client:
        assert read_head(client).startswith(b"HTTP/1.1 200 ")
    assert "sesame" not in str(gate.sink.records)


@KINDS
def test_what_the_parent_forbids(start_gate: StartGate, parent: Any, socks: bool) -> None:
    """Its refusal is as no route, and no error of ours."""
    gate = start_gate(None, behind(parent(socks=socks), socks))
    with dial(gate.explicit, connect_request(FORBIDDEN)) as client:
        assert read_head(client).startswith(b"HTTP/1.1 502 ")
    assert gate.gate.enforcer.counters.errors["upstream"] == 0


@pytest.mark.parametrize("how", ["down", "silent", "unresolved", "no-credentials", "ourselves"])
def test_it_fails_closed(start_gate: StartGate, start_origin: StartOrigin, tmp_path: Path, how: str) -> None:
    """Whatever is wrong with the parent, no byte goes to the destination by another way."""
    direct, lost = start_origin(), start_origin(lambda client: None)
    stated: dict[str, Any] = {"host": "127.0.0.1", "port": lost.port}
    if how == "down":
        lost.close()
    elif how == "unresolved":
        stated["host"] = "proxy.invalid"
    elif how == "no-credentials":
        stated["credentials"] = str(tmp_path / "none")
    gate = start_gate(direct)
    if how == "ourselves":
        stated["port"] = gate.explicit[1]
    upstream = Upstream(kind=UpstreamKind.HTTP, **stated)
    gate.holder.snapshot = policy(ban(networks=("loop",)), upstream=(upstream,))
    with dial(gate.redirected, ALLOWED) as client:
        assert broken_off(client)
    with dial(gate.explicit, connect_request("127.0.0.1", direct.port)) as client:
        assert read_head(client).startswith(b"HTTP/1.1 200 ")  # an address is contacted when its client has spoken
        client.sendall(ALLOWED)
        assert broken_off(client)
    assert direct.accepted == 0
    assert gate.settled()
    told = [record["event"]["action"] for record in gate.sink.records]
    assert told == ["internal-error"] * (how == "no-credentials"), "what an operator has to mend, and once"


def test_exclusions_go_directly(start_gate: StartGate, start_origin: StartOrigin, parent: Any) -> None:
    """What is excluded, by the address dialled or by the name in the hello, is reached without the parent."""
    direct, proxy = start_origin(), parent()
    for exclusions in ((ip_network("127.0.0.0/8"),), ("example.net",)):
        gate = start_gate(direct, behind(proxy, False, exclusions=exclusions))
        with dial(gate.redirected, ALLOWED) as client:
            assert exactly(client, len(ALLOWED)) == ALLOWED
    assert (direct.accepted, proxy.asked) == (2, [])


def test_a_name_is_resolved_beside(start_gate: StartGate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parent's name is looked up in a thread; nothing goes out until then, and a failure keeps what was known.

    That holds for a minute: not each connection asks. A name that was never known is asked for again after a second.
    """
    failure = socket.gaierror(socket.EAI_AGAIN, "no server answers")
    found: list[list[str] | OSError] = [failure, ["127.0.0.1", "127.0.0.2"], failure]

    def look_up(*_args: object, **_more: object) -> list[Any]:
        answer = found.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return [(0, 0, 0, "", (each, 0)) for each in answer]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    clock = [0.0]
    parents = Parents(start_gate().gate.enforcer, monotonic=lambda: clock[0])
    upstream = Upstream(kind=UpstreamKind.HTTP, host="proxy.example.org", port=3128)
    try:
        for clock[0] in (0.0, 1.0):
            with pytest.raises(OSError, match=str(errno.EHOSTUNREACH)):
                parents._address(upstream)
            assert readable(parents.descriptor, DEADLINE)
            parents.deliver()
        assert parents._address(upstream) == ("127.0.0.1", 3128)
        clock[0] = 100.0
        assert parents._address(upstream) == ("127.0.0.1", 3128)
        assert readable(parents.descriptor, DEADLINE)
        parents.deliver()
        assert not found
        asked: list[float] = []
        monkeypatch.setattr(parents._lookups, "run", lambda *_: asked.append(clock[0]))
        for now in (100.0, 159.0, 160.0, 161.0):
            clock[0] = now
            parents._address(upstream)
        assert asked == [160.0]
    finally:
        parents.close()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("alice:secret\n", Credentials("alice", "secret")),
        ("alice:se:cret", Credentials("alice", "se:cret")),
        ("alice:", Credentials("alice", "")),
        *((text, None) for text in ("", "alice\n", ":secret\n", "alice:a\nbob:b\n")),
    ],
)
def test_a_file_of_credentials(tmp_path: Path, text: str, found: Credentials | None) -> None:
    """One line; a file of something else is an error that an operator is told of, and nothing of it goes out."""
    file = tmp_path / "credentials"
    file.write_text(text)
    upstream = Upstream(kind=UpstreamKind.HTTP, host="192.0.2.1", port=3128, credentials=str(file))
    if found is None:
        with pytest.raises(ParentRefused, match="is not one line"):
            credentials_of(upstream)
    else:
        assert credentials_of(upstream) == found


class Answering:
    """A parent's socket, and what comes on it."""

    def __init__(self, *answers: bytes) -> None:
        self.answers, self.said = list(answers), b""

    def recv(self, most: int, flags: int) -> bytes:
        """What has come; consumed only without a peek."""
        if not self.answers:
            raise BlockingIOError
        if flags & socket.MSG_PEEK:
            return self.answers[0][:most]
        taken, self.answers[0] = self.answers[0][:most], self.answers[0][most:]
        return taken

    def send(self, words: bytes, _: int) -> int:
        """Note what is said."""
        self.said += words
        return len(words)


@pytest.mark.parametrize(
    ("answers", "event", "outcome"),
    [
        ((b"HTTP/1.1 200 OK\r\n\r\nwords",), EPOLLIN, True),
        ((b"HTTP/1.1 200",), EPOLLIN, False),
        ((), EPOLLOUT, False),
        ((b"HTTP/1.1 200",), EPOLLIN | EPOLLRDHUP, "reset"),
        ((), EPOLLRDHUP, "reset"),
        ((b"",), EPOLLIN, "reset"),
        ((b"HTTP/1.1 403 No\r\n\r\n",), EPOLLIN, "403 No"),
        ((b"HTTP/1.1 407 Who\r\n\r\n",), EPOLLIN, "407 Who"),
        ((b"HTTP/1.1 200 OK\r\n\r\n",), EPOLLIN | EPOLLRDHUP, True),
    ],
)
def test_what_a_parent_answers(
    start_gate: StartGate, answers: tuple[bytes, ...], event: int, outcome: bool | str
) -> None:
    """The request goes out once; what stands behind the answer is the destination's; a parent that ends is no way."""
    enforcer = start_gate().gate.enforcer
    parents, server = Parents(enforcer), Answering(*answers)
    asked = AskedParent(parents, ConnectHandshake("a.example", 443, None))
    try:
        for _ in range(1 if outcome is True else 2):
            if isinstance(outcome, str):
                with pytest.raises(OSError, match=outcome):
                    asked.is_behind(server, event)
            else:
                assert asked.is_behind(server, event) is outcome
    finally:
        parents.close()
    assert server.said.count(b"CONNECT") == 1
    assert outcome is not True or server.answers[0] == (b"words" if b"words" in answers[0] else b"")
    assert enforcer.counters.errors["upstream"] == (outcome == "407 Who"), "an operator is told once of what to mend"


def read_head(client: socket.socket) -> bytes:
    """An answer in HTTP up to its empty line."""
    head = b""
    while not head.endswith(b"\r\n\r\n") and (piece := client.recv(1)):
        head += piece
    return head


def test_the_gateways_own_canary_has_no_parent() -> None:
    """It answers itself on this machine: no parent is asked for its server, whatever name is with the address."""
    upstream = Upstream(kind=UpstreamKind.HTTP, host="192.0.2.1", port=3128)
    settings = CanarySettings()
    stated = snapshot(ban(), own=definition.canary_policy(settings, {}), upstream=(upstream,))
    chosen = parent_for(stated, "198.51.100.7", "www.example.org")
    assert chosen is not None
    assert (chosen.host, chosen.port) == (upstream.host, upstream.port)
    for server in map(str, definition.servers(settings)):
        assert parent_for(stated, server, None) is parent_for(stated, server, definition.ALLOWED) is None


# -- what a parent proxy is told, and its answer

ALICE = Credentials("alice", "open: sesame")
OK = b"HTTP/1.1 200 Connection established\r\nVia: proxy\r\n\r\n"
BOUND = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"


def converse(handshake: ParentHandshake, answers: bytes, step: int) -> tuple[bytes, bytes]:
    """All that is said to a proxy which answers in pieces of `step` octets, and what of its answers is left over."""
    said, pending = handshake.first, b""
    for start in range(0, len(answers), step):
        pending += answers[start : start + step]
        while (progress := handshake.read(pending)) is not None:
            pending = pending[progress.consumed :]
            said += progress.say
            if progress.done:
                return said, pending + answers[start + step :]
    raise AssertionError("it is not done")


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize(
    ("make", "answers", "said"),
    [
        (
            lambda: ConnectHandshake("www.example.org", 443, None),
            OK,
            b"CONNECT www.example.org:443 HTTP/1.1\r\nHost: www.example.org:443\r\n\r\n",
        ),
        (
            lambda: ConnectHandshake("2001:db8::7", 443, ALICE),
            b"HTTP/1.0 200\r\n\r\n",
            (
                b"CONNECT [2001:db8::7]:443 HTTP/1.1\r\nHost: [2001:db8::7]:443\r\n"
                b"Proxy-Authorization: Basic YWxpY2U6b3Blbjogc2VzYW1l\r\n\r\n"
            ),
        ),
        (
            lambda: SocksHandshake("www.example.org", 443, None),
            b"\x05\x00" + BOUND,
            b"\x05\x01\x00\x05\x01\x00\x03\x0fwww.example.org\x01\xbb",
        ),
        (
            lambda: SocksHandshake("192.0.2.7", 80, ALICE),
            b"\x05\x02\x01\x00\x05\x00\x00\x04" + bytes(18),
            b"\x05\x01\x02\x01\x05alice\x0copen: sesame\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x50",
        ),
        (
            lambda: SocksHandshake("a" * 255, 80, Credentials("u", "p" * 255)),
            b"\x05\x02\x01\x00\x05\x00\x00\x01" + bytes(6),
            b"\x05\x01\x02\x01\x01u\xff" + b"p" * 255 + b"\x05\x01\x00\x03\xff" + b"a" * 255 + b"\x00\x50",
        ),
        (
            lambda: SocksHandshake("2001:db8::7", 80, None),
            b"\x05\x00\x05\x00\x00\x03\x04host\x00\x50",
            b"\x05\x01\x00\x05\x01\x00\x04" + bytes.fromhex("20010db8000000000000000000000007") + b"\x00\x50",
        ),
    ],
    ids=["connect", "connect-password", "socks", "socks-password", "socks-longest", "socks-v6"],
)
def test_a_way_is_given(make: Callable[[], ParentHandshake], answers: bytes, said: bytes, step: int) -> None:
    """However the answer comes, the same is said, and none of what the destination says behind it is lost."""
    assert converse(make(), answers + b"first words", step) == (said, b"first words")


@pytest.mark.parametrize(
    ("make", "answers", "why", "ours"),
    [
        (lambda: ConnectHandshake("a.example", 443, None), b"HTTP/1.1 403 Forbidden\r\n\r\n", "403 Forbidden", False),
        (lambda: ConnectHandshake("a.example", 443, None), b"HTTP/1.1 407 Sign in\r\n\r\n", "407 Sign in", True),
        (
            lambda: ConnectHandshake("a.example", 443, None),
            b"220 mail.example.org\r\n\r\n",
            "does not speak HTTP",
            True,
        ),
        *(
            (lambda: ConnectHandshake("a.example", 443, None), line + b"\r\n\r\n", "does not speak HTTP", True)
            for line in (b"", b"HTTP/1.1", b"HTTP/2.0 200 OK", b"ICY 200 OK", b"HTTP/1.1 OK 200")
        ),
        (lambda: ConnectHandshake("a.example", 443, None), b"x" * MAX_ANSWER, "has no end", True),
        (lambda: SocksHandshake("a.example", 443, None), b"\x05\xff", "no way of signing in", True),
        (lambda: SocksHandshake("a.example", 443, ALICE), b"\x05\x02\x01\x01", "credentials are wrong", True),
        (lambda: SocksHandshake("a.example", 443, None), b"\x05\x00\x05\x02\x00\x01" + bytes(6), "reply 2", False),
        (
            lambda: SocksHandshake("a.example", 443, None),
            b"\x05\x00\x05\x00\x00\x09" + bytes(6),
            "not speak SOCKS",
            True,
        ),
    ],
    ids=[
        "forbidden",
        "sign-in",
        "mail",
        "empty",
        "no-status",
        "http2",
        "icy",
        "words",
        "endless",
        "method",
        "password",
        "not-allowed",
        "address-type",
    ],
)
def test_no_way_is_given(make: Callable[[], ParentHandshake], answers: bytes, why: str, ours: bool) -> None:
    """A refusal and nonsense end it; what the configuration can mend is told from what the proxy forbids."""
    with pytest.raises(ParentRefused, match=why) as refused:
        converse(make(), answers, 1000)
    assert refused.value.ours is ours


@pytest.mark.parametrize(
    "credentials",
    [Credentials("u" * 256, "p"), Credentials("u", ""), Credentials("", "p"), Credentials("u", "p" * 256)],
)
def test_what_socks_cannot_say(credentials: Credentials) -> None:
    """It is an error at once, before anything is sent."""
    with pytest.raises(ParentRefused, match="1 to 255"):
        SocksHandshake("a.example", 443, credentials)
    with pytest.raises(ParentRefused, match="too long"):
        SocksHandshake("a" * 256, 443, None)


def test_a_short_refusal() -> None:
    """What a SOCKS proxy says of a failure is understood as soon as it is said, whatever address follows."""
    handshake = SocksHandshake("a.example", 443, None)
    handshake.read(b"\5\0")
    assert handshake.read(b"\5\5\0\1") is None
    with pytest.raises(ParentRefused, match="SOCKS reply 5"):
        handshake.read(b"\5\5\0\1\0")
