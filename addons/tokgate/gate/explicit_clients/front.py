"""Explicit clients: CONNECT (RFC 9110 §9.3.6) and SOCKS 5. An allowed destination gets a tunnel through the gate.

Everything else that speaks HTTP (a refused CONNECT, a request in absolute form) goes to an opener, which answers with
the reason. What the tunnel then carries is judged by its own first bytes, as if it had come by redirection. Where the
policy wants to know who asks, nobody gets a tunnel before it is known.
"""

from dataclasses import replace
from functools import partial
from typing import Final, assert_never

from tokgate.gate.connection import WAITING, Connection, Greeting, SocksStep, Tunnel
from tokgate.gate.explicit_clients import pac
from tokgate.gate.explicit_clients.background import Addresses, Resolver
from tokgate.gate.explicit_clients.loop import Loop
from tokgate.gate.explicit_clients.proxy_auth import ClientAuthentication
from tokgate.policy.observation import Endpoint
from tokgate.policy.values.hostname import parse_address
from tokgate.traffic import refusal_texts
from tokgate.traffic.actions import AskCertificate, HttpAnswer, Open, Pass, Refuse, last_words
from tokgate.traffic.admission import admit
from tokgate.traffic.counting.upstream import DNS_ERROR
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.explicit_targets import decide_targets, is_closed
from tokgate.traffic.seen import Connect, SocksConnect
from tokgate.wire import socks5
from tokgate.wire.connect_request import MAX_HEAD, ConnectReader, ConnectRequestError

PATIENCE: Final = 0.5
"""Seconds of a client's silence after which a tunnel to an address is taken for one where the server speaks first."""


class ExplicitFront:
    """Reads what explicit clients ask of a gate, and builds their tunnels."""

    def __init__(self, loop: Loop, enforcer: Enforcer, *, greeting: float, connecting: float) -> None:
        """`greeting` and `connecting` in seconds, as in the gate's limits."""
        self._loop: Final = loop
        self._enforcer: Final = enforcer
        self._greeting: Final = greeting
        self._connecting: Final = connecting
        self._resolver: Final = Resolver(failed=partial(enforcer.counters.add, DNS_ERROR))
        loop.call_back(self._resolver.descriptor, self._resolver.deliver)
        self._sign_in: Final = ClientAuthentication(loop, enforcer, greeting)

    def close(self) -> None:
        self._resolver.close()
        self._sign_in.close()

    @property
    def accounts_error(self) -> str | None:
        """Why users can't sign in; empty while they can, None where they need not."""
        return self._sign_in.failure

    # -- requests

    def greet(self, connection: Connection, greeting: Greeting, data: bytes) -> None:
        """Read the client's request, of which `data` came next."""
        held = connection.held = bytearray(connection.held) if isinstance(connection.held, bytes) else connection.held
        held += data
        if held[0] == socks5.VERSION:
            self._greet_socks(connection, greeting)
        elif isinstance(greeting.reader, ConnectReader):
            self._greet_connect(connection, greeting.reader, data)
        elif held.startswith(b"CONNECT "):
            greeting.reader = reader = ConnectReader()
            self._greet_connect(connection, reader, held)
        elif not b"CONNECT ".startswith(held) and (b"\n" in data or len(held) > MAX_HEAD):
            if pac.asked(held):
                self._serve_pac(connection, held)
                return
            # Any other request, or what will be told that it is none: an opener answers, and asks who it is from.
            if not self._loop.hand_over(connection, self._loop.arrival(connection), tls=False):
                self._loop.refuse(connection, refusal_texts.UNAVAILABLE)
        else:
            self._loop.wait_for_greeting(connection)

    def _serve_pac(self, connection: Connection, held: bytes | bytearray) -> None:
        """Answer a browser that asks what goes through this proxy, once its request has come whole."""
        if b"\n\r\n" not in held and b"\n\n" not in held and len(held) <= MAX_HEAD:
            self._loop.wait_for_greeting(connection)
            return
        host, port = connection.client.getsockname()[:2]
        proxy = pac.host_in(held) or (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        file = pac.pac_file(self._enforcer.snapshot.policy, proxy)
        self._loop.refuse(connection, refusal_texts.pac_answer(file))

    def _greet_connect(self, connection: Connection, reader: ConnectReader, data: bytes | bytearray) -> None:
        try:
            request = reader.feed(data)
        except ConnectRequestError:
            self._loop.refuse(connection, refusal_texts.BAD_REQUEST)
            return
        if request is None:
            self._loop.wait_for_greeting(connection)
            return
        tunnel = Tunnel(request.host, request.port, socks=False)
        go_on = partial(self._ask, connection, tunnel, request.rest)
        self._sign_in.in_http(connection, request.proxy_authorization, go_on)

    def _ask(self, connection: Connection, tunnel: Tunnel, rest: bytes) -> None:
        """CONNECT of an authenticated client; `rest` are the bytes after the request."""
        if self._admitted(connection, tunnel, Connect(tunnel.host)):
            request, connection.held = bytes(connection.held), rest
            self._tunnel(connection, tunnel, request)

    def _greet_socks(self, connection: Connection, greeting: Greeting) -> None:
        signed_in = greeting.reader is SocksStep.SIGNED_IN
        cache = None if signed_in else self._sign_in.cache()
        if cache is not None:
            self._sign_in.in_socks(connection, greeting, cache, partial(self._greet_socks, connection))
            return
        try:
            held = bytes(connection.held)
            methods = 0 if signed_in else socks5.read_methods(held)
            if methods is not None and greeting.reader is None:
                greeting.reader = SocksStep.METHOD_CHOSEN
                if not self._loop.say(connection, socks5.METHOD_CHOSEN):
                    return
            request = None if methods is None else socks5.read_request(held[methods:])
        except socks5.SocksError as error:
            self._loop.refuse(connection, error.reply)
            return
        if methods is None or request is None:
            self._loop.wait_for_greeting(connection)
            return
        tunnel = Tunnel(request.host, request.port, socks=True)
        if self._admitted(connection, tunnel, SocksConnect(request.host)):
            connection.held = held[methods + request.length :]
            self._tunnel(connection, tunnel)

    def _admitted(self, connection: Connection, tunnel: Tunnel, seen: Connect | SocksConnect) -> bool:
        """Whether the gate may build a tunnel; if not, the client is answered, in full by an opener if there is one."""
        asked = self._loop.arrival(connection)
        arrival = replace(asked, destination=Endpoint(seen.address or tunnel.host, tunnel.port))
        admission = admit(self._enforcer, arrival, seen)
        match admission.action:
            case Pass():
                admission.enter(self._enforcer)
                return True
            case Open() | AskCertificate() | Refuse() if isinstance(seen, Connect) and seen.openable:
                # The opener decides again, answers in full, and writes the record.
                if self._loop.hand_over(connection, asked, tls=False):
                    return False
                return self._admitted(connection, tunnel, replace(seen, openable=False))
            case Refuse(HttpAnswer()):
                answer = refusal_texts.refusal(admission.ruling, tunnel.host, admission.enter(self._enforcer))
            case Refuse(words):
                admission.enter(self._enforcer)
                answer = last_words(words)
            case Open() | AskCertificate():
                answer = refusal_texts.UNAVAILABLE
            case _:
                assert_never(admission.action)
        self._loop.refuse(connection, answer)
        return False

    # -- tunnels

    def _tunnel(self, connection: Connection, tunnel: Tunnel, request: bytes = b"") -> None:
        """Begin a tunnel; `request` is the CONNECT as it came, for an opener to answer if all addresses are banned."""
        connection.tunnel = tunnel
        connection.destination = (tunnel.host, tunnel.port)
        self._loop.suspend(connection, self._connecting)

        def resolved(addresses: Addresses) -> None:
            if connection.state is WAITING:
                self._choose(connection, tunnel, addresses, request)

        if is_closed(connection.peer, tunnel.host, self._enforcer.snapshot.settings.nat64_prefixes):
            self._close_off(connection, tunnel)
        elif parse_address(tunnel.host) is not None:
            # An address doesn't say whose it is: it is contacted only once the client's first bytes do.
            tunnel.addresses = (tunnel.host,)
            self.established(connection, tunnel)
        elif self._loop.parent(connection, (tunnel.host, tunnel.port)) is not None:
            # The parent resolves it: what only a network beyond can find need not be known here.
            tunnel.addresses = (tunnel.host,)
            self.try_next(connection, tunnel)
        else:
            self._resolver.ask(connection.peer, tunnel.host, resolved)

    def _choose(self, connection: Connection, tunnel: Tunnel, addresses: Addresses, request: bytes) -> None:
        """A name has been resolved: connect to what may be connected to."""
        identity = self._loop.arrival(connection).identity
        found = decide_targets(self._enforcer, connection.peer, tunnel.host, addresses, identity)
        tunnel.addresses = found.open
        if found.closed:
            self._close_off(connection, tunnel)
        elif found.ruling is not None and not found.open:
            self._refuse_address(connection, tunnel, found.banned[0], request)
        else:
            self.try_next(connection, tunnel)

    def _close_off(self, connection: Connection, tunnel: Tunnel) -> None:
        """Refuse a tunnel to this machine's own services, and count it as a loop."""
        self._enforcer.counters.loops += 1
        self._give_up(connection, tunnel, socks5.Reply.NOT_ALLOWED, refusal_texts.INSIDE)

    def _refuse_address(self, connection: Connection, tunnel: Tunnel, address: str, request: bytes) -> None:
        """All addresses of an allowed name are banned: answer as for a banned name."""
        connection.tunnel = connection.destination = None
        rest, connection.held = connection.held, request
        seen = SocksConnect(tunnel.host, address) if tunnel.socks else Connect(tunnel.host, address)
        if self._admitted(connection, tunnel, seen):  # its ban has ended just now
            connection.held = rest
            self._tunnel(connection, tunnel, request)

    def lose_patience(self, connection: Connection, tunnel: Tunnel) -> bool:
        """The deadline for the first message in a tunnel has passed, and no destination is connected.

        A client that has sent nothing may wait for the server, which speaks first in some protocols: connect, and
        decide about what it sends later. One that has sent a part gets more time once; False if it had that already.
        """
        if not connection.held:
            self.try_next(connection, tunnel)
        elif not tunnel.hurried:
            tunnel.hurried = True
            connection.deadline += self._greeting
        else:
            return False
        return True

    def try_next(self, connection: Connection, tunnel: Tunnel) -> None:
        """Connect to the next address of a destination; the last failure is told to the client."""
        while tunnel.addresses:
            address, tunnel.addresses = tunnel.addresses[0], tunnel.addresses[1:]
            try:
                if not self._loop.dial(connection, (address, tunnel.port)):
                    self._give_up(connection, tunnel, socks5.Reply.NOT_ALLOWED, refusal_texts.LEADS_BACK)
            except OSError:
                continue
            return
        self._give_up(connection, tunnel, socks5.Reply.HOST_UNREACHABLE, refusal_texts.UNREACHABLE)

    def _give_up(self, connection: Connection, tunnel: Tunnel, reply: socks5.Reply, answer: bytes) -> None:
        """There will be no tunnel; where the client believes that it has one, it is too late for words."""
        if tunnel.established:
            self._loop.reset(connection, connection.client)
        else:
            self._loop.refuse(connection, reply.octets if tunnel.socks else answer)

    def connected(self, connection: Connection, tunnel: Tunnel) -> None:
        """The destination answered, and the client has said nothing yet that could be judged."""
        if tunnel.established:
            self._loop.listen(connection)
        else:
            self.established(connection, tunnel)

    def established(self, connection: Connection, tunnel: Tunnel) -> None:
        """Tell the client that it has its tunnel, and wait for what it will say through it."""
        tunnel.established = True
        if not self._loop.say(connection, socks5.Reply.SUCCEEDED.octets if tunnel.socks else refusal_texts.ESTABLISHED):
            return
        # In some protocols the server speaks first: once it is connected, the client may stay silent.
        greeting = self._loop.listen(connection, PATIENCE if connection.server is None else 0.0)
        if connection.held:  # the client did not wait for the answer
            held, connection.held = connection.held, b""
            self._loop.read_greeting(connection, greeting, held)
