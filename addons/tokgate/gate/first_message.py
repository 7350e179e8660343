"""Reads what a client says first, decides, and carries the verdict out; and what it says next, where that matters.

What decides is `traffic.admission`, the same as behind mitmproxy. Of a client under a ban no more is passed on than
what was decided about, until its destination has answered: after a HelloRetryRequest, or a request to a proxy, what it
says next has to be decided about as well (`traffic.client_messages`).
"""

import sys
from dataclasses import replace
from select import EPOLLERR, EPOLLIN, EPOLLOUT, EPOLLRDHUP
from typing import Final, assert_never

from tokgate.gate.connecting import Connecting, proceed
from tokgate.gate.connection import CLOSED, Connection, State
from tokgate.gate.context import Context, Reading
from tokgate.gate.sockets import DONT_WAIT, END_FOLLOWS, PEEK, Address
from tokgate.policy.decide import decide, is_under_block
from tokgate.policy.decision import Response, Signal, Verdict
from tokgate.policy.observation import Stage, Visibility
from tokgate.policy.services import NO_MATCH
from tokgate.traffic.actions import AskCertificate, Open, Pass, Refuse
from tokgate.traffic.admission import admit, refusal_octets
from tokgate.traffic.client_messages import (
    FirstBytesReader,
    Reader,
    SecondHelloReader,
    UnreadLineReader,
    Watched,
    after,
    after_hello,
)
from tokgate.traffic.seen import FirstBytes, Hello, HttpStart, OtherBytes, Shown
from tokgate.wire.client_hello import REFUSAL, ClientHello, ClientHelloError, is_ech_outer
from tokgate.wire.hello_reader import HANDSHAKE, MAX_ANSWER, read_client_hello

_UNREAD: Final = Shown(visibility=Visibility.UNREADABLE)
"""Of requests that passed unread: nobody knows what they ask, so they end when a ban blocks anything for the client."""


class FirstMessage(Reading):
    """What a connection carries has to be read and decided about. Without a `reader` nothing was read in pieces yet.

    One object serves all connections that have none.
    """

    __slots__ = ("reader",)

    def __init__(self, context: Context, reader: Reader | None = None) -> None:
        super().__init__(context)
        self.reader: Final = reader

    @property
    def movable(self) -> bool:
        """Not if it is a second message; a first one in pieces is collected again from what was received."""
        reader = self.reader
        return reader is None or (isinstance(reader, FirstBytesReader) and reader.openable)

    def with_reader(self, reader: Reader) -> "FirstMessage":
        """The same state for a connection whose message comes in pieces."""
        return FirstMessage(self.context, reader)

    # -- reading

    def read(self, connection: Connection, data: bytes | bytearray) -> None:
        """Look for a ClientHello, or what else it is, in what was received and `data`, which is new."""
        reader = self.reader
        if reader is None:
            if connection.received:  # from before it was passed on to this gate
                data = connection.received + data
            connection.received = data
            if data[0] == HANDSHAKE:
                try:
                    hello = read_client_hello(bytes(data))
                except ClientHelloError:  # the reader says what else it is
                    hello = None
                if hello is not None:
                    self._decide(connection, hello)
                    return
            reader = FirstBytesReader()
            connection.state, connection.received = self.with_reader(reader), reader.received
        seen = reader.feed(data)
        if seen is None:
            self.wait(connection)
        elif isinstance(seen, Hello) and seen.openable:
            self._decide(connection, seen.hello)
        elif self.context.destination(connection) is not None:
            self.admit(connection, seen)

    def ended(self, connection: Connection) -> None:
        """The client has ended its side. It may have nothing to say, and much to hear, if it is connected."""
        if connection.server is None and connection.tunnel is None:
            self.count_unfinished(connection)
            self.context.loop.close(connection)
        else:
            self.admit(connection, OtherBytes() if self.reader is None else self.reader.ended())

    def wait(self, connection: Connection) -> None:
        """The client has to say more. It need not begin: there are protocols in which the server does."""
        if not connection.received and connection.server is None:  # the kernel has waited for it
            self._connect_silent(connection)
            return
        if connection.received and not connection.deadline:
            connection.deadline = self.context.loop.now + self.context.limits.greeting
        self.context.loop.keep_watching_client(connection)

    def count_unfinished(self, connection: Connection) -> None:
        decided = isinstance(self.reader, SecondHelloReader | UnreadLineReader)  # and counted then
        if connection.tunnel is None and not decided:
            super().count_unfinished(connection)

    def _connect_silent(self, connection: Connection) -> None:
        """Connect a client that says nothing, if its destination's address may be reached; judge what it says later."""
        context = self.context
        destination = context.destination(connection)
        if destination is None:
            return
        admission = admit(context.enforcer, context.arrival(connection), OtherBytes())
        if isinstance(admission.action, Refuse):
            context.refuse(connection, refusal_octets(admission, admission.record(context.enforcer)))
            return
        connection.silent, connection.shown = True, admission.shown  # counted by what it says, or at its end
        self.connect(connection, destination, self)
        if isinstance(connection.state, Connecting):
            context.loop.keep_watching_client(connection)

    # -- deciding

    def _decide(self, connection: Connection, hello: ClientHello) -> None:
        destination = self.context.destination(connection)
        if destination is None:
            return
        name = hello.name
        if name is not None and hello.names_a_host:
            try:
                identity, peer = self.context.identification.of(connection), connection.peer
                membership = self.context.enforcer.snapshot.membership
                is_as_others = identity is None or membership(peer, identity) is membership(peer)
                if is_as_others and self._takes_shortcut(connection, name, destination, hello):
                    return
            except Exception as error:  # `admit` decides again, and answers for it
                self.context.enforcer.failed("gate", error)
        self.admit(connection, Hello(hello))

    def _takes_shortcut(self, connection: Connection, name: str, destination: Address, hello: ClientHello) -> bool:
        """Carry out a plain pass or a repeated refusal, as `admit` decides it; False, and nothing done, otherwise.

        These are the two commonest outcomes: nothing is built for them. A property test compares it with `admit`.
        """
        enforcer = self.context.enforcer
        snapshot, at, peer = enforcer.snapshot, enforcer.now(), connection.peer
        decision = decide(snapshot, peer, name, at)
        if is_ech_outer(hello) or snapshot.services.match(destination[0]) is not NO_MATCH:
            return False  # the address is a service's, and may be banned whatever the name is
        tunnel = connection.tunnel
        if decision.verdict is Verdict.ALLOW:
            if decision.response is not None or decision.exemption is not None:
                return False
            if tunnel is not None:
                asked = decide(snapshot, peer, tunnel.host, at, Signal.HTTP_HOST)
                if asked.verdict is not Verdict.ALLOW:
                    return False
            watched = after_hello(hello, connection.received) if is_under_block(snapshot, peer, at) else None
            counters = enforcer.counters
            counters.cells[counters.plain[decision.network]] += 1
            connection.shown = sys.intern(name)  # many connections are for few names: they hold one string
            self._pass(connection, destination, watched)
            return True
        if decision.response is not Response.REFUSE or tunnel is not None:
            return False
        if not enforcer.repeats(peer, name, decision, Stage.TLS, at):
            return False
        self.refuse_hello(connection, hello)
        return True

    def admit(self, connection: Connection, seen: FirstBytes) -> None:
        """Decide about a connection's first bytes, and carry it out."""
        context = self.context
        if isinstance(seen, HttpStart):
            seen = replace(seen, passable=True)
        admission = admit(context.enforcer, context.arrival(connection), seen)
        match admission.action:
            case Open() | AskCertificate() as action:
                tls = isinstance(action, AskCertificate) or action.tls
                handed = context.hand_over(connection, admission.arrival, tls=tls)
                if not handed and isinstance(seen, Hello | HttpStart):
                    self.admit(connection, replace(seen, openable=False))
            case Pass():
                admission.record(context.enforcer)
                destination = connection.destination
                if destination is not None:
                    connection.shown = _UNREAD if isinstance(seen, HttpStart) else admission.shown
                    watched = after(seen, connection.received) if admission.action.watch else None
                    self._pass(connection, destination, watched)
            case Refuse():
                stamp = admission.record(context.enforcer)
                if isinstance(seen, Hello):
                    self.refuse_hello(connection, seen.hello)
                else:
                    context.refuse(connection, refusal_octets(admission, stamp))
            case _:
                assert_never(admission.action)

    # -- carrying the verdict out

    def _pass(self, connection: Connection, destination: Address, watched: Watched | None) -> None:
        """Pass on what was said; `watched`: no more than what was decided about, until the destination has answered."""
        then: State = self.context.relay
        if watched is not None:
            then = FirstExchange(self.context, watched)
            if watched.rest:
                connection.received = connection.received[: -len(watched.rest)]
        if connection.server is not None:
            proceed(self.context, connection, then)
        else:
            self.connect(connection, destination, then)

    def connect(self, connection: Connection, destination: Address, then: State) -> None:
        """Begin to connect to the destination; the connection is in the state `then` when it is there."""
        connecting, dials = Connecting(self.context, then), self.context.loop.dials
        if dials is None:
            connecting.begin(connection, destination)
        else:
            connection.state = connecting
            dials.append((connecting.begin, connection, destination))

    def refuse_hello(self, connection: Connection, hello: ClientHello) -> None:
        """Refuse and close at once if nothing follows the hello: without unread data closing sends no reset."""
        context = self.context
        whole = len(connection.received) == len(hello.message) + 5
        if not whole or connection.server is not None or hello.early_data:
            context.refuse(connection, REFUSAL)
            return
        try:  # noqa: SIM105 - `suppress` would take a sixtieth of what a refusal takes here
            connection.client.send(REFUSAL, END_FOLLOWS)
        except OSError:  # the client is gone
            pass
        if connection.client_fd not in context.loop.connections:  # never watched: no event of this batch is for it
            connection.client.close()
        context.loop.close(connection)


def count_silent(context: Context, connection: Connection) -> None:
    """Count a connection that ended without a word by where it went, as bytes that are no known protocol."""
    admission = admit(context.enforcer, context.arrival(connection), OtherBytes())
    if isinstance(admission.action, Pass):
        admission.record(context.enforcer)


class FirstExchange(State):
    """The client's first message was passed on, and nothing has flowed towards it: it may have to say more."""

    __slots__ = ("answer", "client_waits", "context", "watched")

    def __init__(self, context: Context, watched: Watched) -> None:
        self.context: Final = context
        self.watched: Final = watched
        self.answer = b""
        """The beginning of the destination's answer, as long as it can't be judged."""
        self.client_waits = False
        """The client has said more, which stays in its socket, and of which epoll does not tell again."""

    def on_server(self, connection: Connection, event: int) -> None:
        """The destination has answered, ended, or takes more."""
        relay = self.context.relay
        connection.seen = self.context.loop.now
        if event & EPOLLERR:  # no second message of the client can reach it
            if self.answer:
                relay.direction(connection, False, self.answer)
            relay.broke_off(connection, False)
            return
        if event & EPOLLOUT and connection.received and not relay.send_received(connection):
            return
        if event & EPOLLRDHUP:
            connection.server_fin = True
        if event & (EPOLLIN | EPOLLRDHUP):
            self._read_answer(connection)
        elif self.client_waits:
            self.on_client(connection, 0)

    def _read_answer(self, connection: Connection) -> None:
        """Look at what the destination says first, before it is passed on: does it make the client say more?

        Once it has spoken, the connection is as others are.
        """
        relay = self.context.relay
        buffer, length = relay.buffer, len(self.answer)
        if length:
            buffer[:length] = self.answer
        try:
            received: int = connection.server.recv_into(relay.view[length:] if length else buffer, 0, DONT_WAIT)
        except BlockingIOError:
            return
        except OSError:
            relay.reset(connection, connection.client)
            return
        length += received
        again = self.watched.asked(buffer[: min(length, MAX_ANSWER)]) if length else False
        if again is None and received and not connection.server_fin:
            self.answer = bytes(relay.view[:length])
            return
        if again:
            self._read_again(connection)
        else:
            self._relay(connection)
        if connection.server is not None and connection.state is not CLOSED:
            relay.pass_on(connection, False, connection.client, length, connection.server_fin or not received)

    def on_client(self, connection: Connection, event: int) -> None:
        """Data that comes before the destination answers waits for the answer, unless it can't change the decision."""
        relay = self.context.relay
        if event & EPOLLERR:
            relay.reset(connection, connection.server)
            return
        try:
            said = connection.client.recv(1, PEEK)
        except BlockingIOError:
            return
        except OSError:
            relay.reset(connection, connection.server)
            return
        self.client_waits = True
        if not self.watched.waits(said):
            self._relay(connection)
        elif not (self.watched.for_answer or connection.received):
            self._read_again(connection)
        elif not said:  # it says no more, and its destination may wait for its end
            connection.deadline = self.context.loop.now + self.context.limits.half_closed

    def overdue(self, connection: Connection) -> None:
        self.context.loop.close(connection)

    def _relay(self, connection: Connection) -> None:
        """Relay the connection like any other from now on."""
        relay = self.context.relay
        connection.state, connection.deadline = relay, 0.0
        if self.watched.rest:
            connection.received += self.watched.rest
        if connection.received and not relay.send_received(connection):
            return
        if self.client_waits:
            self.context.loop.watch_client(connection)

    def _read_again(self, connection: Connection) -> None:
        """It is the client's turn, and its next message is decided about as its first was."""
        reader = self.watched.reader()
        message = FirstMessage(self.context, reader)
        connection.received = reader.received
        seconds = self.context.limits.greeting if isinstance(reader, SecondHelloReader) else 0.0
        self.context.listen(connection, message, seconds)
        if self.watched.rest:
            message.read(connection, self.watched.rest)
