"""A gate behind a parent proxy: destinations are reached by it, or not at all."""

import errno
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from select import EPOLLIN, EPOLLOUT, EPOLLRDHUP
from typing import Any

import pytest

from labs.builders import ban, present, snapshot
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
    read_head,
)
from labs.gate_lab import (
    connect_request as asks,
)
from labs.parent_proxy import ParentProxy
from labs.waiting import readable
from tokgate.gate.egress.parents import (
    MAX_ANSWER,
    AskedParent,
    ParentRefused,
    Parents,
    answer_length,
    connect_request,
    credentials_of,
)
from tokgate.gateway.canary import definition
from tokgate.policy.settings import CanarySettings, Upstream, upstream_for
from tokgate.policy.snapshot import Snapshot
from tokgate.wire.client_hello import REFUSAL
from tokgate.wire.proxy_request import Credentials

PASSWORD = "alice:open sesame"


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


def behind(proxy: ParentProxy, **stated: Any) -> Snapshot:
    """A policy with a ban, whose destinations are reached by this parent."""
    upstream = Upstream(host="127.0.0.1", port=proxy.port, **stated)
    return policy(ban(networks=("loop",)), upstream=(upstream,))


def test_redirected_clients(start_gate: StartGate, start_origin: StartOrigin, parent: Any) -> None:
    """What passes goes by the parent to the address that the client dialled, both ways; what is banned goes nowhere."""
    direct, proxy = start_origin(), parent()
    gate = start_gate(direct, behind(proxy))
    with dial(gate.redirected, ALLOWED) as client:
        assert exactly(client, len(ALLOWED)) == ALLOWED
        client.sendall(b"more")
        assert exactly(client, 4) == b"more"
    with dial(gate.redirected, BANNED) as client:
        assert read_all(client) == REFUSAL
    assert proxy.asked == [f"127.0.0.1:{direct.port}"]
    assert direct.accepted == 0


def test_tunnels(start_gate: StartGate, parent: Any) -> None:
    """A name is asked for as the client wrote it, and not resolved here: only the parent's network may know it."""
    proxy = parent()
    gate = start_gate(None, behind(proxy))
    with dial(gate.explicit, asks("only.beyond.example")) as client:
        assert read_head(client).startswith(b"HTTP/1.1 200 ")
        client.sendall(ALLOWED)
        assert exactly(client, len(ALLOWED)) == ALLOWED
    with dial(gate.explicit, asks("192.0.2.77", 8443)) as client:
        assert read_head(client).startswith(b"HTTP/1.1 200 ")
        client.sendall(ALLOWED)
        assert exactly(client, len(ALLOWED)) == ALLOWED
    assert proxy.asked == ["only.beyond.example:443", "192.0.2.77:8443"]


@pytest.mark.parametrize("password", [PASSWORD, "alice:wrong"], ids=["right", "wrong"])
def test_credentials(start_gate: StartGate, parent: Any, tmp_path: Path, password: str) -> None:
    """They come from a file, which may change meanwhile; wrong ones are told to the operator, and nothing passes."""
    secret = tmp_path / "credentials"
    secret.write_text(f"{password}\n")
    gate = start_gate(None, behind(parent(password=PASSWORD), credentials=str(secret)))
    with dial(gate.explicit, asks("www.example.net")) as client:
        answer = read_head(client)
    assert answer.startswith(b"HTTP/1.1 200 " if password == PASSWORD else b"HTTP/1.1 502 ")
    assert gate.gate.enforcer.counters.errors["upstream"] == (password != PASSWORD)
    secret.write_text(PASSWORD)
    with dial(gate.explicit, asks("www.example.net")) as client:
        assert read_head(client).startswith(b"HTTP/1.1 200 ")
    assert "sesame" not in str(gate.sink.records)


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
    upstream = Upstream(**stated)
    gate.holder.snapshot = policy(ban(networks=("loop",)), upstream=(upstream,))
    with dial(gate.redirected, ALLOWED) as client:
        assert broken_off(client)
    with dial(gate.explicit, asks("127.0.0.1", direct.port)) as client:
        assert read_head(client).startswith(b"HTTP/1.1 200 ")  # an address is contacted when its client has spoken
        client.sendall(ALLOWED)
        assert broken_off(client)
    assert direct.accepted == 0
    assert gate.settled()
    told = [record["event"]["action"] for record in gate.sink.records]
    assert told == ["internal-error"] * (how == "no-credentials"), "what an operator has to mend, and once"


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
    upstream = Upstream(host="proxy.example.org", port=3128)
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
    upstream = Upstream(host="192.0.2.1", port=3128, credentials=str(file))
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
    asked = AskedParent(parents, b"CONNECT")
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


def test_the_gateways_own_canary_has_no_parent() -> None:
    """It answers itself on this machine: no parent is asked for its server, whatever name is with the address."""
    upstream = Upstream(host="192.0.2.1", port=3128)
    settings = CanarySettings()
    stated = snapshot(ban(), own=definition.canary_policy(settings, {}), upstream=(upstream,))
    chosen = present(upstream_for(stated.upstream, ("198.51.100.7", "www.example.org")))
    assert (chosen.host, chosen.port) == (upstream.host, upstream.port)
    for server in map(str, definition.servers(settings)):
        assert (
            upstream_for(stated.upstream, (server, None))
            is upstream_for(stated.upstream, (server, definition.ALLOWED))
            is None
        )


# -- what a parent proxy is told, and its answer


@pytest.mark.parametrize(
    ("host", "password", "said"),
    [
        ("www.example.org", None, b"CONNECT www.example.org:443 HTTP/1.1\r\nHost: www.example.org:443\r\n\r\n"),
        (
            "2001:db8::7",
            "alice:open: sesame",
            (
                b"CONNECT [2001:db8::7]:443 HTTP/1.1\r\nHost: [2001:db8::7]:443\r\n"
                b"Proxy-Authorization: Basic YWxpY2U6b3Blbjogc2VzYW1l\r\n\r\n"
            ),
        ),
    ],
)
def test_what_a_parent_is_told(tmp_path: Path, host: str, password: str | None, said: bytes) -> None:
    """The destination as it was asked for, and who asks, if that is wanted."""
    (tmp_path / "secret").write_text(password or "")
    upstream = Upstream(host="192.0.2.1", port=3128, credentials=str(tmp_path / "secret") if password else None)
    assert connect_request(upstream, host, 443) == said


@pytest.mark.parametrize(
    ("answer", "why", "ours"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "403 Forbidden", False),
        (b"HTTP/1.1 407 Sign in\r\n\r\n", "407 Sign in", True),
        *(
            (line + b"\r\n\r\n", "does not speak HTTP", True)
            for line in (b"220 mail", b"", b"HTTP/1.1", b"HTTP/2.0 200 OK", b"ICY 200 OK", b"HTTP/1.1 OK 200")
        ),
        (b"x" * MAX_ANSWER, "has no end", True),
    ],
)
def test_no_way_is_given(answer: bytes, why: str, ours: bool) -> None:
    """A refusal and nonsense end it; what the configuration can mend is told from what the proxy forbids."""
    assert answer_length(answer[:-1]) is None
    with pytest.raises(ParentRefused, match=why) as refused:
        answer_length(answer)
    assert refused.value.ours is ours


def test_a_way_is_given() -> None:
    """However the answer comes, none of what the destination says behind it is taken for a part of it."""
    answer = b"HTTP/1.0 200\r\nVia: proxy\r\n\r\n"
    lengths = [answer_length((answer + b"words")[:number]) for number in range(len(answer) + 6)]
    assert lengths == [None] * len(answer) + [len(answer)] * 6
