"""An explicit front whose loop notes what it is asked for, without a network or time."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from labs.builders import ban, network, service, snapshot
from labs.gate_lab import Sink
from labs.proxy_lab import NOW
from labs.records import Holder
from tokgate.accounts.auth_cache import AuthResult
from tokgate.blocklog.records.record import Observer
from tokgate.gate.connection import WAITING, Connection, Greeting
from tokgate.gate.explicit_clients.front import ExplicitFront
from tokgate.gate.sockets import Entry, Listener
from tokgate.policy.membership import Identity
from tokgate.policy.observation import Endpoint
from tokgate.traffic.arrival import Arrival
from tokgate.traffic.enforcer import Enforcer
from tokgate.wire.basic_auth import Credentials

POLICY = snapshot(
    ban(networks=("all",)),
    services=(service("clips", "suffix:clips.example.org", addresses=("203.0.113.0/24",)),),
    networks=(network("all", "192.0.2.0/24"),),
)
CONNECT = b"CONNECT www.example.org:443 HTTP/1.1\r\nHost: www.example.org:443\r\n\r\n"
SOCKS = b"\5\1\0\5\1\0\3\x0fwww.example.org\1\xbb"
BASIC = b"CONNECT www.example.org:443 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic YWRhOnNlY3JldA==\r\n\r\n"
OTHER, BANNED, INSIDE = "198.51.100.7", "203.0.113.7", "127.0.0.1"
TUNNEL = [("suspend", 20.0), ("dial", OTHER, 443)]


class Told:
    """A loop that notes what it is asked for, and answers as a test wants; also a client's socket, and a cache."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.opener = self.hears = True
        self.dials: dict[str, Any] = {}
        self.upstream: Any = None
        self.own: tuple[Any, ...] = ("192.0.2.1", 8080)
        self.knows: AuthResult | None = None
        self.finds = AuthResult(Identity("ada"))

    def getsockname(self) -> tuple[Any, ...]:
        """Where the client is connected to."""
        return self.own

    def call_back(self, descriptor: int, callback: Callable[[], None]) -> None:
        """Nothing is watched."""

    def arrival(self, connection: Connection) -> Arrival:
        """The client and its destination."""
        to = connection.destination and Endpoint(*connection.destination)
        client = Endpoint(connection.peer, connection.port)
        return Arrival(client=client, destination=to or None, connection="id", identity=connection.person)

    def say(self, _: Connection, words: bytes) -> bool:
        """Note the words."""
        self.done.append(words)
        return self.hears

    def wait_for_greeting(self, _: Connection) -> None:
        """Note it."""
        self.done.append("wait")

    def suspend(self, connection: Connection, seconds: float) -> None:
        """Note it."""
        connection.state = WAITING
        self.done.append(("suspend", seconds))

    def listen(self, connection: Connection, seconds: float = 0.0) -> Greeting:
        """Note it."""
        connection.state = greeting = Greeting()
        self.done.append(("listen", seconds))
        return greeting

    def read_greeting(self, _: Connection, __: Greeting, data: bytes | bytearray) -> None:
        """Note what is read."""
        self.done.append(("read", bytes(data)))

    def dial(self, _: Connection, destination: tuple[str, int]) -> bool:
        """Note it; an address may fail, or lead back."""
        self.done.append(("dial", *destination))
        found = self.dials.get(destination[0], True)
        if isinstance(found, OSError):
            raise found
        return bool(found)

    def parent(self, *_: object) -> Any:
        """The parent proxy that a test states."""
        return self.upstream

    def hand_over(self, connection: Connection, arrival: Arrival, *, tls: bool) -> bool:
        """Note what an opener gets."""
        assert not tls
        assert arrival.destination is None
        if self.opener:
            self.done.append(("open", bytes(connection.held)))
        return self.opener

    def refuse(self, _: Connection, last_words: bytes) -> None:
        """Note the words."""
        self.done.append(("refuse", last_words))

    def reset(self, *_: object) -> None:
        """Note it."""
        self.done.append("reset")

    def recall(self, credentials: Credentials) -> AuthResult | None:
        """What the cache knows."""
        assert credentials == Credentials("ada", "secret")
        return self.knows

    def verify(self, _: Credentials) -> AuthResult:
        """What a check finds."""
        return self.finds


class Client:
    """An explicit client of a front."""

    def __init__(self) -> None:
        self.loop = Told()
        self.sink = Sink()
        self.holder = Holder(POLICY)
        self.enforcer = Enforcer(self.holder, self.sink, Observer(hostname="gw", version="0"), now=lambda: NOW)
        self.front = ExplicitFront(self.loop, self.enforcer, greeting=10.0, connecting=20.0)
        listener = Listener(None, Entry.EXPLICIT, 8080, 0)
        self.connection = Connection(self.loop, 1, "192.0.2.7", 40000, listener, 0.0, Greeting())
        self.addresses: tuple[str, ...] = (OTHER,)
        self.front._resolver.ask = lambda client, host, answer: answer(self.addresses)  # type: ignore[method-assign]

    def says(self, *pieces: bytes) -> list[Any]:
        """What is done about pieces that come one after another."""
        for piece in pieces:
            assert isinstance(self.connection.state, Greeting)
            self.front.greet(self.connection, self.connection.state, piece)
        return self.loop.done

    def signs_in(self) -> None:
        """The policy wants to know who asks."""
        self.front._sign_in.cache = lambda: self.loop  # type: ignore[method-assign, assignment, return-value]


@pytest.fixture
def client() -> Iterator[Client]:
    """A client under a ban of `clips.example.org` and 203.0.113.0/24."""
    made = Client()
    yield made
    made.front.close()
