"""An explicit front whose loop notes what it is asked for, without a network or time."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from labs.builders import ban, network, service, snapshot
from labs.proxy_lab import NOW
from labs.records import Holder, Sink, enforcer_of
from labs.relay_ends import NotingLoop
from tokgate.accounts.auth_cache import AuthResult
from tokgate.gate.connection import Connection, State
from tokgate.gate.context import Context, Parting, Waiting
from tokgate.gate.explicit_clients.front import ConnectingTunnel, ExplicitFront, ExplicitRequest, TunnelMessage
from tokgate.gate.handoff import OpenerChannel
from tokgate.gate.identification import Identification
from tokgate.gate.sockets import Address, Entry, Listener
from tokgate.policy.membership import Identity
from tokgate.traffic.limits import Limits
from tokgate.traffic.seen import Arrival
from tokgate.wire.proxy_request import Credentials

POLICY = snapshot(
    ban(networks=("all",)),
    services=(service("clips", "suffix:clips.example.org", addresses=("203.0.113.0/24",)),),
    networks=(network("all", "192.0.2.0/24"),),
)
CONNECT = b"CONNECT www.example.org:443 HTTP/1.1\r\nHost: www.example.org:443\r\n\r\n"
SOCKS = b"\5\1\0\5\1\0\3\x0fwww.example.org\1\xbb"
BASIC = b"CONNECT www.example.org:443 HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic YWRhOnNlY3JldA==\r\n\r\n"
OTHER, BANNED = "198.51.100.7", "203.0.113.7"
TUNNEL = [("suspend", 20.0), ("dial", OTHER, 443)]


class Told(NotingLoop):
    """A loop that notes what it is asked for; also a client's socket, and a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[Any] = []
        self.opener = self.hears = True
        self.fails: dict[str, Any] = {}
        self.own: tuple[Any, ...] = ("192.0.2.1", 8080)
        self.knows: AuthResult | None = None
        self.finds = AuthResult(Identity("ada"))

    def getsockname(self) -> tuple[Any, ...]:
        """Where the client is connected to."""
        return self.own

    def send(self, words: bytes, _: int) -> int:
        """Note what the client is told."""
        self.done.append(words)
        if not self.hears:
            raise BrokenPipeError
        return len(words)

    def close(self, connection: Connection) -> None:
        """A client that has gone is not spoken of."""

    def keep_watching_client(self, connection: Connection) -> None:
        self.done.append("wait")

    def unwatch(self, connection: Connection) -> None:
        """It is another's."""

    def recall(self, credentials: Credentials) -> AuthResult | None:
        """What the cache knows."""
        assert credentials == Credentials("ada", "secret")
        return self.knows

    def verify(self, _: Credentials) -> AuthResult:
        """What a check finds."""
        return self.finds


class Opener(OpenerChannel):
    """An opener that notes what it gets, or is not there."""

    def __init__(self, loop: Told) -> None:
        self._loop = loop

    def adopt(self, client: object, arrival: Arrival, received: bytes, *, tls: bool, explicit: bool) -> bool:
        assert (tls, explicit, arrival.destination) == (False, True, None)
        if self._loop.opener:
            self._loop.done.append(("open", received))
        return self._loop.opener


class NotingContext(Context):
    """A context that notes what is done with a connection."""

    def wait(self, connection: Connection, state: Waiting, seconds: float) -> None:
        connection.state = state
        self.loop.done.append(("suspend", seconds))  # type: ignore[attr-defined]

    def listen(self, connection: Connection, state: State, seconds: float = 0.0) -> None:
        connection.state = state
        self.loop.done.append(("listen", seconds))  # type: ignore[attr-defined]

    def refuse(self, connection: Connection, answer: bytes) -> None:
        connection.state = Parting(self, answer)
        self.loop.done.append(("refuse", answer))  # type: ignore[attr-defined]


class Client:
    """An explicit client of a front."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.loop = Told()
        self.sink = Sink()
        self.holder = Holder(POLICY)
        self.enforcer = enforcer_of(self.holder, self.sink, now=lambda: NOW)
        limits = Limits(greeting=10.0, connecting=20.0)
        relay: Any = SimpleNamespace(reset=lambda *_: self.loop.done.append("reset"), drop_server=lambda _: None)
        self.resolver: Any = SimpleNamespace(ask=lambda client, host, answer: answer(self.addresses))
        dialler: Any = SimpleNamespace(
            failed=lambda *_: None, in_order=lambda addresses, _: addresses, resolver=self.resolver
        )
        self.context = NotingContext(
            self.enforcer, Opener(self.loop), limits, self.loop, relay, dialler, Identification(self.enforcer), set()
        )
        self.front = ExplicitFront(self.context)
        self.message = self.front.message
        listener = Listener(None, Entry.EXPLICIT, 8080, 0)
        self.connection = Connection(self.loop, 1, "192.0.2.7", 40000, listener, 0.0, self.front.request)
        self.addresses: tuple[str, ...] = (OTHER,)
        patch.setattr("tokgate.gate.connecting.dial", self._dial)
        patch.setattr("tokgate.gate.explicit_clients.front.parent", lambda *_: None)
        patch.setattr(TunnelMessage, "read", lambda _, __, data: self.loop.done.append(("read", bytes(data))))

    def _dial(self, _: Context, connection: Connection, destination: Address, connecting: ConnectingTunnel) -> None:
        """Note it; an address may fail, or lead back."""
        self.loop.done.append(("dial", *destination))
        if (error := self.loop.fails.get(destination[0])) is not None:
            raise error
        connection.state = connecting

    def connected(self) -> None:
        """The address that was dialled is there."""
        assert isinstance(self.connection.state, ConnectingTunnel)
        self.connection.state.go_on(self.connection)

    def says(self, *pieces: bytes) -> list[Any]:
        """What is done about pieces that come one after another."""
        for piece in pieces:
            assert isinstance(self.connection.state, ExplicitRequest)
            self.connection.state.read(self.connection, piece)
        return self.loop.done

    def signs_in(self) -> None:
        """The policy wants to know who asks."""
        self.front.sign_in.cache = lambda: self.loop  # type: ignore[method-assign, assignment, return-value]

    def close(self) -> None:
        """End threads, close descriptors."""
        self.front.sign_in.close()
        self.loop.epoll.close()


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client under a ban of `clips.example.org` and 203.0.113.0/24."""
    made = Client(monkeypatch)
    yield made
    made.close()
