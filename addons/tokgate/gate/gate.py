"""The gate: reads a client's first bytes once, decides, and has the verdict carried out.

What decides is `traffic.admission`, the same as behind mitmproxy. A gate is an epoll loop over its listeners and all
their connections, in layers: `event_loop` ← `splice` ← `first_exchange` ← `acceptor` ← `connector` ← `shortcut` ← this.
"""

from dataclasses import replace
from typing import Final, assert_never

from tokgate.gate.connection import CONNECTING, Connection, Greeting
from tokgate.gate.connector import Opener
from tokgate.gate.shortcut import Shortcut
from tokgate.gate.sockets import DONT_WAIT, Entry
from tokgate.gate.splice import BUFFER
from tokgate.traffic.actions import AskCertificate, Open, Pass, Refuse
from tokgate.traffic.admission import admit, words_of
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.first_bytes import FirstBytesReader
from tokgate.traffic.limits import Limits
from tokgate.traffic.second_words import Reader, SecondHelloReader, UnreadLineReader, Watched, after
from tokgate.traffic.seen import FirstBytes, Hello, HttpStart, OtherBytes
from tokgate.wire import proxy_protocol
from tokgate.wire.client_hello import ClientHello, ClientHelloError
from tokgate.wire.hello_reader import read_client_hello

_HANDSHAKE: Final = 22
"""The content type with which a TLS connection begins (RFC 8446 §5.1)."""


class Gate(Shortcut):
    """One gate, which decides about the connections that it accepts."""

    def __init__(
        self, enforcer: Enforcer, opener: Opener, limits: Limits | None = None, mark: int | None = None
    ) -> None:
        """`mark` is set on sockets towards destinations, for firewalls that tell the proxy's own traffic by it."""
        super().__init__(enforcer, opener, limits or Limits(), mark)

    # -- the first bytes

    def greet(self, connection: Connection, greeting: Greeting) -> None:
        """Read what the client says first, and decide as soon as it says enough."""
        try:
            received: int = connection.client.recv_into(self._buffer, 0, DONT_WAIT)
        except BlockingIOError:
            self.wait_for_greeting(connection)
            return
        except OSError:
            self._count_unfinished(connection, greeting)
            self.reset(connection, connection.server)
            return
        connection.silent = False
        if not received:
            self._said_all(connection, greeting)
            return
        data = bytes(self._view[:received])
        if greeting.preface is not None:
            data = self._read_preface(connection, greeting, greeting.preface + data)
            if not data:
                return
        if connection.listener.entry is Entry.EXPLICIT and connection.tunnel is None:
            self.explicit.greet(connection, greeting, data)
        else:
            self.read_greeting(connection, greeting, data)
        if received == BUFFER and isinstance(connection.state, Greeting):
            self.watch_client(connection)  # more may be there, of which epoll has told already

    def _read_preface(self, connection: Connection, greeting: Greeting, data: bytes) -> bytes:
        """Learn from a load balancer who the client is; what follows its header, empty as long as there is nothing."""
        try:
            header = proxy_protocol.read(data)
        except ValueError:
            self.enforcer.counters.unfinished += 1
            self.reset(connection, connection.client)
            return b""
        if header is None:
            greeting.preface = data
            self.wait_for_greeting(connection)
            return b""
        greeting.preface = None
        if header.source is not None and not self.become(connection, header.source):
            return b""
        if len(data) == header.length:
            self.wait_for_greeting(connection)
        return data[header.length :]

    def read_greeting(self, connection: Connection, greeting: Greeting, data: bytes | bytearray) -> None:
        """Look for a ClientHello, or what else it is, in what was held and `data`, which is new."""
        reader = greeting.reader
        if not isinstance(reader, Reader):
            if connection.held:  # from before it was passed on to this gate
                data = connection.held + data
            connection.held = data
            if data[0] == _HANDSHAKE:
                try:
                    hello = read_client_hello(bytes(data))
                except ClientHelloError:  # the reader says what else it is
                    hello = None
                if hello is not None:
                    self._decide(connection, hello)
                    return
            greeting.reader = reader = FirstBytesReader()
            connection.held = reader.received
        self._take(connection, reader.feed(data))

    def _take(self, connection: Connection, seen: FirstBytes | None) -> None:
        if seen is None:
            self.wait_for_greeting(connection)
        elif isinstance(seen, Hello) and seen.openable:
            self._decide(connection, seen.hello)
        elif self._destination(connection) is not None:
            self._admit(connection, seen)

    def asked_again(self, connection: Connection, watched: Watched) -> None:
        """Decide about the client's next message as about its first."""
        reader = watched.reader()
        connection.held = reader.received
        greeting = self.listen(connection, self.limits.greeting if isinstance(reader, SecondHelloReader) else 0.0)
        greeting.reader = reader
        if watched.rest:
            self.read_greeting(connection, greeting, watched.rest)

    def _said_all(self, connection: Connection, greeting: Greeting) -> None:
        """The client has ended its side. In a tunnel it may have nothing to say, and much to hear."""
        tunnel, reader = connection.tunnel, greeting.reader
        if tunnel is None and connection.server is None:
            self._count_unfinished(connection, greeting)
            self.close(connection)
        elif tunnel is not None and connection.server is None and not connection.held:
            self.explicit.try_next(connection, tunnel)  # it is asked again when the destination is there
        else:
            self._admit(connection, reader.ended() if isinstance(reader, Reader) else OtherBytes())

    def _count_unfinished(self, connection: Connection, greeting: Greeting) -> None:
        """The client is gone before it was decided about."""
        decided = isinstance(greeting.reader, SecondHelloReader | UnreadLineReader)  # and counted then
        if connection.tunnel is None and not (connection.silent or decided):
            self.enforcer.counters.unfinished += 1

    def wait_for_greeting(self, connection: Connection) -> None:
        """The client has to say more. It need not begin: there are protocols in which the server does."""
        redirected = connection.listener.entry is not Entry.EXPLICIT
        if redirected and not connection.held and connection.server is None:  # the kernel has waited for it
            self._connect_silent(connection)
            return
        if not connection.deadline and (connection.held or (connection.tunnel is None and not redirected)):
            connection.deadline = self.now + self.limits.greeting
        self.watch_greeting(connection)

    def _connect_silent(self, connection: Connection) -> None:
        """Connect a client that says nothing, if its destination's address may be reached; judge what it says later."""
        destination = self._destination(connection)
        if destination is None:
            return
        admission = admit(self.enforcer, self.arrival(connection), OtherBytes())
        if isinstance(admission.action, Refuse):
            self.refuse(connection, words_of(admission, admission.enter(self.enforcer)))
            return
        connection.silent, connection.shown = True, admission.shown  # counted by what it says, or at its end
        self.connect(connection, destination)
        if connection.state is CONNECTING:
            self.watch_greeting(connection)

    # -- the verdict

    def _decide(self, connection: Connection, hello: ClientHello) -> None:
        destination = self._destination(connection)
        if destination is None:
            return
        name = hello.name
        if name is not None and hello.names_a_host:
            try:
                if self._takes_short_way(connection, name, destination, hello):
                    return
            except Exception as error:  # the long way asks again, and answers for it
                self.enforcer.failed("gate", error)
        self._admit(connection, Hello(hello))

    def _admit(self, connection: Connection, seen: FirstBytes) -> None:
        """Decide about a connection's first bytes, and carry it out."""
        admission = admit(self.enforcer, self.arrival(connection), seen)
        match admission.action:
            case Open() | AskCertificate() as action:
                tls = isinstance(action, AskCertificate) or action.tls
                if not self.hand_over(connection, admission.arrival, tls=tls) and isinstance(seen, Hello | HttpStart):
                    self._admit(connection, replace(seen, openable=False))
            case Pass():
                admission.enter(self.enforcer)
                destination = connection.destination
                if destination is not None:
                    connection.shown = admission.shown
                    if admission.action.watch:
                        self._watch(connection, after(seen, connection.held))
                    self.connect(connection, destination)
            case Refuse():
                stamp = admission.enter(self.enforcer)
                if isinstance(seen, Hello):
                    self._refuse_at_once(connection, seen.hello)
                else:
                    self.refuse(connection, words_of(admission, stamp))
            case _:
                assert_never(admission.action)

    def closed_silent(self, connection: Connection) -> None:
        """Count a connection without a word by where it went, as bytes that are no known protocol."""
        admission = admit(self.enforcer, self.arrival(connection), OtherBytes())
        if isinstance(admission.action, Pass):
            admission.enter(self.enforcer)
