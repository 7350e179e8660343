"""Explicit clients: CONNECT (RFC 9110 §9.3.6) and SOCKS 5. An allowed destination gets a tunnel through the gate.

Everything else that speaks HTTP (a refused CONNECT, a request in absolute form) goes to an opener, which answers with
the reason. What the tunnel then carries is judged by its own first bytes, as if it had come by redirection. Where the
policy wants to know who asks, nobody gets a tunnel before it is known.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

import h11

from tokgate.blocklog.observation import Endpoint, Observation, Stage, Visibility
from tokgate.blocklog.stamp import Stamp
from tokgate.gate import answers
from tokgate.gate.admission import Arrival
from tokgate.gate.connection import Connection, State
from tokgate.gate.egress import is_closed, ways
from tokgate.gate.enforcer import Ruling
from tokgate.gate.introduction import Introduction, Introductions
from tokgate.gate.relay import DONT_WAIT
from tokgate.gate.resolver import Addresses, Resolver
from tokgate.gate.sockets import connect, leads_to
from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Response, Signal, Verdict
from tokgate.policy.identity import Identity, joined
from tokgate.policy.names import parse_address
from tokgate.wire import socks5
from tokgate.wire.http_authority import Authority, read_connect_target

if TYPE_CHECKING:
    from tokgate.gate.gate import Gate

MAX_HEAD: Final = 65536
PATIENCE: Final = 0.5
"""Seconds of a client's silence after which a tunnel to an address is taken for one where the server speaks first."""


@dataclass(slots=True)
class Tunnel:
    """What an explicit client asked for. `addresses` are those not tried yet."""

    host: str
    port: int
    socks: bool
    addresses: Addresses = ()
    established: bool = False
    hurried: bool = False
    identity: Identity | None = None
    """Who asked for it, where that has to be known."""

    @property
    def asked(self) -> str | None:
        """The host that was asked for, in the words of admission; SOCKS clients ask for addresses without saying so."""
        return None if self.socks and parse_address(self.host) is not None else self.host


class ExplicitFront:
    """Reads what explicit clients ask of a gate, and builds their tunnels."""

    def __init__(self, gate: "Gate") -> None:
        self._gate: Final = gate
        self._resolver: Final = Resolver()
        gate.callbacks[self._resolver.descriptor] = self._resolver.deliver
        gate.epoll.register(self._resolver.descriptor, 1)
        self._introductions: Final = Introductions(gate)

    def close(self) -> None:
        """Stop resolving, and checking passwords."""
        self._gate.epoll.unregister(self._resolver.descriptor)
        self._resolver.close()
        self._introductions.close()

    # -- requests

    def greet(self, connection: Connection) -> None:
        """The client said something; `connection.held` is all of it."""
        held = connection.held
        if held[0] == socks5.VERSION:
            self._greet_socks(connection)
        elif held.startswith(b"CONNECT "):
            self._greet_connect(connection)
        elif b"CONNECT ".startswith(held):
            self._gate.wait_for_greeting(connection)
        elif b"\n" in held or len(held) > MAX_HEAD:
            self._open(connection)  # any other request, or something that will be told that it is none
        else:
            self._gate.wait_for_greeting(connection)

    def _greet_connect(self, connection: Connection) -> None:
        reader = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        try:
            reader.receive_data(connection.held)
            request = reader.next_event()
        except h11.RemoteProtocolError:
            self._gate.refuse(connection, answers.BAD_REQUEST)
            return
        if not isinstance(request, h11.Request):
            self._gate.wait_for_greeting(connection)
            return
        target = read_connect_target(request.target.decode("latin-1"))
        if not isinstance(target, Authority) or target.port is None:
            self._gate.refuse(connection, answers.BAD_REQUEST)
            return
        ask = partial(self._ask, connection, Tunnel(target.host, target.port, socks=False), reader.trailing_data[0])
        said = next((value for name, value in request.headers if name == b"proxy-authorization"), b"")
        self._introductions.in_http(connection, said, ask)

    def _ask(self, connection: Connection, tunnel: Tunnel, rest: bytes, identity: Identity | None) -> None:
        """CONNECT, by somebody who is known as far as that has to be; `rest` is what came behind the request."""
        tunnel.identity = identity
        passes, ruling = self._passes(connection, tunnel.host, identity)
        if not passes and ruling.decision.verdict is not Verdict.WARN:  # what is warned of shows in the tunnel
            if self._gate.hand_over(connection, self._arrival(connection, identity), tls=False):
                return  # the opener decides again, answers, and writes the record
            stamp = self._enter(connection, ruling, tunnel.host, tunnel.port, identity)
            if ruling.blocks:
                self._gate.refuse(connection, answers.refusal(ruling, tunnel.host, stamp))
                return
        request, connection.held = connection.held, rest
        self._tunnel(connection, tunnel, request)

    def _greet_socks(self, connection: Connection) -> None:
        known = connection.greeting if isinstance(connection.greeting, Introduction) else None
        keeper = self._introductions.keeper() if known is None else None
        if keeper is not None:
            self._introductions.in_socks(connection, keeper, partial(self._greet_socks, connection))
            return
        try:
            methods = 0 if known is not None else socks5.read_methods(connection.held)
            if methods is None:
                self._gate.wait_for_greeting(connection)
                return
            if not connection.greeting:
                connection.greeting = True
                connection.client.send(socks5.METHOD_CHOSEN, DONT_WAIT)
            request = socks5.read_request(connection.held[methods:])
        except socks5.SocksError as error:
            self._gate.refuse(connection, error.reply)
            return
        except OSError:
            self._gate.close(connection)
            return
        if request is None:
            self._gate.wait_for_greeting(connection)
            return
        identity = None if known is None else known.identity
        passes, ruling = self._passes(connection, request.host, identity)
        if not passes:
            self._enter(connection, ruling, request.host, request.port, identity)
            if ruling.blocks:
                self._gate.refuse(connection, socks5.Reply.NOT_ALLOWED.octets)
                return
        connection.held = connection.held[methods + request.length :]
        self._tunnel(connection, Tunnel(request.host, request.port, socks=True, identity=identity))

    def _passes(self, connection: Connection, host: str, identity: Identity | None) -> tuple[bool, Ruling]:
        """Whether a destination is allowed without anything to tell, by its name or address."""
        literal = parse_address(host) is not None
        sightings = [Sighting(Signal.HTTP_HOST, host)]
        if literal:
            sightings.append(Sighting(Signal.ADDRESS, host))
        ruling = self._gate.enforcer.judge(connection.peer, sightings, self._who(connection, identity))
        decision = ruling.decision
        plain = decision.response is None or decision.response is Response.INSPECT
        return decision.verdict is Verdict.ALLOW and plain and decision.exemption is None, ruling

    def _who(self, connection: Connection, person: Identity | None) -> Identity | None:
        """Who the client is; the gate knows the person that asks only once there is a tunnel."""
        known = self._gate.identity(connection)
        return known if person is None else joined(known, person)

    def _arrival(self, connection: Connection, person: Identity | None) -> Arrival:
        arrival = self._gate.arrival(connection)
        return arrival if person is None else replace(arrival, identity=self._who(connection, person))

    def _enter(
        self,
        connection: Connection,
        ruling: Ruling,
        host: str,
        port: int,
        identity: Identity | None,
        asked: str | None = None,
    ) -> Stamp:
        """Count and record a refusal, of `host` or of an address that stands behind the name `asked`."""
        names = () if asked is None else (Sighting(Signal.HTTP_HOST, asked),)
        arrival = self._arrival(connection, identity)

        def observe() -> Observation:
            return Observation(
                client=arrival.client,
                destination=Endpoint(host, port) if parse_address(host) is not None else None,
                stage=Stage.CONNECT,
                visibility=Visibility.ADDRESS,
                names=(*names, ruling.judgement.sighting),
                connection=arrival.connection,
                identity=arrival.identity,
            )

        return self._gate.enforcer.enter(ruling, Visibility.ADDRESS, observe, allowed=False)

    def _open(self, connection: Connection) -> None:
        """An opener reads the request and answers it, after it has asked who it is from if it has to know."""
        if not self._gate.hand_over(connection, self._gate.arrival(connection), tls=False):
            self._gate.refuse(connection, answers.UNAVAILABLE)

    # -- tunnels

    def _tunnel(self, connection: Connection, tunnel: Tunnel, request: bytes = b"") -> None:
        """Begin a tunnel; `request` is the CONNECT as it came, for an opener to answer if all addresses are banned."""
        connection.tunnel = tunnel
        connection.destination = (tunnel.host, tunnel.port)
        connection.greeting = None
        connection.state = State.WAITING
        connection.deadline = self._gate.now + self._gate.limits.connecting
        self._gate.watch_greeting(connection)

        def resolved(addresses: Addresses) -> None:
            if connection.state is State.WAITING:
                self._choose(connection, addresses, request)

        if is_closed(connection.peer, tunnel.host):
            self._close_off(connection)
        elif parse_address(tunnel.host) is not None:
            # An address doesn't say whose it is: it is contacted only once the client's first bytes do.
            tunnel.addresses = (tunnel.host,)
            self.established(connection)
        else:
            self._resolver.ask(connection.peer, tunnel.host, resolved)

    def _choose(self, connection: Connection, addresses: Addresses, request: bytes) -> None:
        """A name has been resolved: connect to what may be connected to."""
        tunnel: Tunnel = connection.tunnel
        who = self._who(connection, tunnel.identity)
        found = ways(self._gate.enforcer, connection.peer, tunnel.host, addresses, who)
        tunnel.addresses = found.open
        if found.closed:
            self._close_off(connection)
        elif found.ruling is not None and not found.open:
            self._refuse_address(connection, found.banned[0], found.ruling, request)
        else:
            self.try_next(connection)

    def _close_off(self, connection: Connection) -> None:
        """It would lead to what is this machine's own."""
        self._gate.enforcer.counters.loops += 1
        self._give_up(connection, socks5.Reply.NOT_ALLOWED, answers.INSIDE)

    def _refuse_address(self, connection: Connection, address: str, ruling: Ruling, request: bytes) -> None:
        """A name that may be asked for leads to banned addresses alone: answered as a banned name is."""
        tunnel: Tunnel = connection.tunnel
        if not tunnel.socks:
            connection.tunnel = connection.destination = None
            connection.held = request
            if self._gate.hand_over(connection, self._arrival(connection, tunnel.identity), tls=False):
                return
        stamp = self._enter(connection, ruling, address, tunnel.port, tunnel.identity, asked=tunnel.host)
        said = socks5.Reply.NOT_ALLOWED.octets if tunnel.socks else answers.refusal(ruling, tunnel.host, stamp)
        self._gate.refuse(connection, said)

    def lose_patience(self, connection: Connection) -> None:
        """The client waits as well: a protocol in which the server speaks first. Connect, and judge what will come."""
        tunnel: Tunnel = connection.tunnel
        if not connection.held:
            self.try_next(connection)
        elif connection.server is None and not tunnel.hurried:
            # It has begun to say something: it gets the time that others have.
            tunnel.hurried = True
            connection.deadline = self._gate.now + self._gate.limits.greeting
        else:
            self._gate.enforcer.counters.timeouts += 1
            self._gate.close(connection)

    def try_next(self, connection: Connection) -> None:
        """Connect to the next address of a destination; the last failure is told to the client."""
        tunnel: Tunnel = connection.tunnel
        while tunnel.addresses:
            address, tunnel.addresses = tunnel.addresses[0], tunnel.addresses[1:]
            try:
                server, _ = connect((address, tunnel.port), self._gate.mark)
            except OSError:
                continue
            if leads_to(server, (address, tunnel.port), self._gate.listens_at):
                server.close()
                self._gate.enforcer.counters.loops += 1
                self._give_up(connection, socks5.Reply.NOT_ALLOWED, answers.LEADS_BACK)
                return
            connection.destination = (address, tunnel.port)  # from here on as if it had come by redirection
            self._gate.await_server(connection, server)
            return
        self._give_up(connection, socks5.Reply.HOST_UNREACHABLE, answers.UNREACHABLE)

    def _give_up(self, connection: Connection, reply: socks5.Reply, answer: bytes) -> None:
        """There will be no tunnel; where the client believes that it has one, it is too late for words."""
        if connection.tunnel.established:
            self._gate.reset(connection, connection.client)
        else:
            self._gate.refuse(connection, reply.octets if connection.tunnel.socks else answer)

    def connected(self, connection: Connection) -> None:
        """The destination answered: what the client has said was judged already, or is awaited."""
        tunnel: Tunnel = connection.tunnel
        if not tunnel.established:
            self.established(connection)
        elif connection.held:
            self._gate.open(connection)
        else:
            connection.state = State.GREETING
            connection.deadline = 0.0
            self._gate.watch_client(connection)

    def established(self, connection: Connection) -> None:
        """Tell the client that it has its tunnel, and wait for what it will say through it."""
        tunnel: Tunnel = connection.tunnel
        tunnel.established = True
        connection.state = State.GREETING
        # Some protocols have the server speak first: once it is there, silence is theirs to end.
        connection.deadline = self._gate.now + PATIENCE if connection.server is None else 0.0
        try:
            connection.client.send(socks5.Reply.SUCCEEDED.octets if tunnel.socks else answers.ESTABLISHED, DONT_WAIT)
        except OSError:
            self._gate.close(connection)
            return
        self._gate.watch_client(connection)
        if connection.held:  # the client did not wait for the answer
            self._gate.read_greeting(connection, connection.held)
