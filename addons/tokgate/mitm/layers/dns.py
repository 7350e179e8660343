"""The layer in front of DNS: decides each question, refuses or has it answered, and keeps answers to their terms.

It stands where mitmproxy has its DNSLayer, which remembers answers by message id alone, for ever, and writes every
message anew from what it understood of it.
"""
# mypy: disallow-untyped-calls=False

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, assert_never

from dns.rcode import Rcode
from mitmproxy.connection import Address, ConnectionState, Server
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.mode_specs import DnsMode

from tokgate.mitm.client_connection import ClientConnection
from tokgate.mitm.options import DNS_PORT, name_servers
from tokgate.policy.observation import Endpoint, Transport
from tokgate.policy.values.hostname import parse_address
from tokgate.traffic import dns_questions
from tokgate.traffic.actions import AskCertificate, DnsAnswer, Open, Pass, Refuse, Terms
from tokgate.traffic.admission import admit
from tokgate.traffic.dns_questions import UNANSWERED, UNREADABLE, without_answer
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.seen import DnsArrival, DnsQuestion, DnsResponse
from tokgate.wire.dns_message.answer import answers, refusal
from tokgate.wire.dns_message.query import Query, QueryError, framed, read_query, take_messages

logger = logging.getLogger(__name__)

PATIENCE: Final = 2.0
"""Seconds that a name server has before the next one is asked as well. An answer that comes later still counts."""
LAST_PATIENCE: Final = 6.0
"""Seconds that the last one has. Stub resolvers give up after some 5 (resolv.conf(5), `timeout`)."""
MOST_ASKED: Final = 3
"""Most name servers that one question is sent to, as by the C library (resolv.h: MAXNS)."""
FAILED_FOR: Final = 30.0
"""Seconds for which one that gave no answer is asked last."""
OPEN_QUESTIONS: Final = 512
"""Most questions of one connection that wait for an answer; one more gives up the oldest."""
_ASK_ANOTHER: Final = (2, 4, 5)
"""SERVFAIL, NOTIMP and REFUSED: another server may know more (as the C library has it, resolv.conf(5))."""


@dataclass(slots=True, eq=False)
class Waiting:
    """A question that waits for an answer: what was sent, who may still answer, and who is to be asked next."""

    asked: DnsArrival
    message: bytes
    left: list[Address]
    servers: list[Server] = field(default_factory=list)
    alarm: commands.RequestWakeup | None = None
    """When the last of `servers` has had its time; None: it has what it needs."""
    error: bytes | None = None
    """The last error that a server has answered with."""

    @property
    def server(self) -> Server | None:
        """The server that was asked last."""
        return self.servers[-1] if self.servers else None


class NameServers:
    """Remembers for a while which name servers gave no answer."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now: Final = now
        self._failed: Final[dict[Address, float]] = {}

    def in_order(self, known: Iterable[Address]) -> list[Address]:
        """Those to ask, in this order: as they are configured, but those that have just failed last."""
        now = self._now()
        for address in [each for each, until in self._failed.items() if now >= until]:
            del self._failed[address]
        return sorted(dict.fromkeys(known), key=self._failed.__contains__)[:MOST_ASKED]

    def failed(self, address: Address | None) -> None:
        """It gave no answer, or can't be reached."""
        if address is None:
            return
        if address not in self._failed:
            logger.warning("name server %s gives no answer: for %g s it is asked last", address[0], FAILED_FOR)
        self._failed[address] = self._now() + FAILED_FOR

    def answered(self, address: Address | None) -> None:
        """It gave an answer, whatever it says."""
        if address is not None and self._failed.pop(address, None) is not None:
            logger.warning("name server %s answers again", address[0])


class _Connect(commands.OpenConnection):
    """Connects while the layer goes on: another server may be asked meanwhile."""

    blocking = False


class DnsLayer(layer.Layer):
    """Speaks DNS with one client, over UDP or TCP, and with the resolver that it asked or that we know."""

    def __init__(
        self,
        context: Context,
        enforcer: Enforcer,
        connection: ClientConnection,
        known: NameServers,
        loops: Callable[[], bool],
    ) -> None:
        """`known` is shared by all connections: it remembers which name servers failed.

        `loops` says whether the client is this proxy, whose own question came back.
        """
        super().__init__(context)
        self._loops: Final = loops
        self._enforcer: Final = enforcer
        self._connection: Final = connection
        self._known: Final = known
        self._stream: Final = context.client.transport_protocol == "tcp"
        self._from_client = bytearray()
        self._servers: Final[dict[Server, bytearray]] = {}
        """Those that are asked, and what has come from each of a message that isn't whole."""
        self._answered: Final[set[Server]] = set()
        """Those of them that have answered something."""
        self._open: Final[dict[int, Waiting]] = {}
        self._asked_all = False
        """The client has ended its side."""
        self._done = False

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if self._done:
            return
        yield from self._handle(event)
        if self._asked_all and not (self._open or self._done):
            yield from self._close()

    def _handle(self, event: events.Event) -> layer.CommandGenerator[None]:
        match event:
            case events.DataReceived(connection=self.context.client, data=data):
                yield from self._receive(data)
            case events.DataReceived(connection=Server() as server, data=data) if server in self._servers:
                for message in self._messages(self._servers[server], data):
                    yield from self._pass_back(server, message)
            case events.ConnectionClosed(connection=self.context.client as client):
                self._asked_all = True
                if self._connection.sockets.was_reset(client):
                    yield from self._close()
            case events.ConnectionClosed(connection=Server() as server) if server in self._servers:
                yield from self._lost(server)
            case events.OpenConnectionCompleted(command=command, reply=error) if command.connection in self._servers:
                yield from self._lost(command.connection) if error else self._connected(command.connection)
            case events.Wakeup(command=alarm):
                for waiting in [each for each in self._open.values() if each.alarm is alarm]:
                    yield from self._not_in_time(waiting)

    # From the client.

    def _receive(self, data: bytes) -> layer.CommandGenerator[None]:
        for message in self._messages(self._from_client, data):
            if not self._done:
                yield from self._take(message)

    def _take(self, message: bytes) -> layer.CommandGenerator[None]:
        self._connection.spoken()
        try:
            query = read_query(message)
        except QueryError as error:
            if error.reply is not None:
                yield from self._send(error.reply)
            elif self._stream:
                yield from self._close()
            return
        asked = self._asked(query)
        words = self._admit(asked, DnsQuestion(asked))
        yield from self._send(words) if isinstance(words, bytes) else self._ask(asked, message)

    def _admit(self, asked: DnsArrival, seen: DnsQuestion | DnsResponse) -> bytes | Terms | None:
        """What is answered here; else the terms that an answer has to keep to, if any are known."""
        admission = admit(self._enforcer, asked, seen)
        admission.record(self._enforcer)
        match admission.action:
            case Refuse(DnsAnswer(message)):
                return message
            case Pass(terms):
                return terms
            case Refuse() | Open() | AskCertificate():  # not said in DNS
                return refusal(asked.query, Rcode.SERVFAIL)
            case _:
                assert_never(admission.action)

    # Towards an answer.

    def _ask(self, asked: DnsArrival, message: bytes) -> layer.CommandGenerator[None]:
        """Pass the question on as it came, to the server that was asked or to those that are known here."""
        known = self._open.get(asked.query.id)
        if known is not None and known.message == message:  # again: its servers have no more time for that
            for each in known.servers:
                if each.connected:
                    yield commands.SendData(each, self._framed(message))
            return
        address = self.context.server.address
        servers = [(host, DNS_PORT) for host in name_servers(self.context.options)] if address is None else [address]
        if not servers or self._loops():
            yield from self._send(without_answer(asked, UNANSWERED))
            return
        self._open.pop(asked.query.id, None)
        self._open[asked.query.id] = waiting = Waiting(asked, message, self._known.in_order(servers))
        if len(self._open) > OPEN_QUESTIONS:
            del self._open[next(iter(self._open))]
        yield from self._ask_next(waiting)

    def _ask_next(self, waiting: Waiting) -> layer.CommandGenerator[None]:
        """Ask the next name server, if any is left; else give the client the last error, or say that none answered."""
        if not waiting.left:
            del self._open[waiting.asked.query.id]
            said = waiting.error and self._kept_to_terms(waiting.asked, waiting.error)
            yield from self._send(said or without_answer(waiting.asked, UNANSWERED))
            return
        address = waiting.left.pop(0)
        server = next((each for each in self._servers if each.address == address), None)
        if server is None:
            server = self.context.server
            if server.address != address or server.timestamp_end:
                server = Server(address=address, transport_protocol=server.transport_protocol)
            self._servers[server] = bytearray()
            yield _Connect(server)
        waiting.servers.append(server)
        waiting.alarm = None
        if address != self.context.server.address:  # else the client has chosen it, and knows how long to wait
            waiting.alarm = commands.RequestWakeup(PATIENCE if waiting.left else LAST_PATIENCE)
            yield waiting.alarm
        if server.connected:
            yield commands.SendData(server, self._framed(waiting.message))

    def _connected(self, server: Server) -> layer.CommandGenerator[None]:
        for waiting in list(self._open.values()):
            if server in waiting.servers:
                yield commands.SendData(server, self._framed(waiting.message))

    def _lost(self, server: Server) -> layer.CommandGenerator[None]:
        """A server can't be reached, or has closed. Whoever waits for it has the next one asked.

        One that has answered may end a connection at any time (RFC 7766 §6.2.4): it is asked again on a new one.
        """
        del self._servers[server]
        if server.state is not ConnectionState.CLOSED:
            yield commands.CloseConnection(server)
        waiting = [each for each in self._open.values() if server in each.servers]
        again = server.address if server in self._answered else None
        self._answered.discard(server)
        if again is None and any(each.server is server for each in waiting):
            self._failed(server)
        for each in waiting:
            if again is not None and each.asked.query.transfers:  # of a zone something may have come
                del self._open[each.asked.query.id]
                continue
            if again is not None:
                each.left.insert(0, again)
            yield from self._do_without(each, server)
        if not self._servers and self._stream:
            yield from self._close()

    def _do_without(self, waiting: Waiting, server: Server) -> layer.CommandGenerator[None]:
        """A server has failed. Unless others that were asked may still answer, the next one is asked."""
        last = server is waiting.server
        waiting.servers.remove(server)
        if not waiting.servers or (last and waiting.left):
            yield from self._ask_next(waiting)

    def _not_in_time(self, waiting: Waiting) -> layer.CommandGenerator[None]:
        if waiting.server is not None:
            self._failed(waiting.server)
        yield from self._ask_next(waiting)

    def _failed(self, server: Server) -> None:
        if server.address != self.context.server.address:
            self._known.failed(server.address)

    def _pass_back(self, server: Server, message: bytes) -> layer.CommandGenerator[None]:
        """Give the client a server's answer, if it is one to an open question and no other server may know more."""
        waiting = self._open.get(int.from_bytes(message[:2]))
        if waiting is None or server not in waiting.servers or not answers(waiting.asked.query, message):
            return
        self._known.answered(server.address)
        self._answered.add(server)
        if message[3] & 0xF in _ASK_ANOTHER and (waiting.left or len(waiting.servers) > 1):
            waiting.error = message
            yield from self._do_without(waiting, server)
            return
        asked, waiting.alarm = waiting.asked, None
        if not (asked.query.transfers and self._stream):
            del self._open[asked.query.id]
        yield from self._send(self._kept_to_terms(asked, message))
        if not self._open and not self._stream and isinstance(self.context.client.proxy_mode, DnsMode):
            yield from self._leave_servers()

    def _leave_servers(self) -> layer.CommandGenerator[None]:
        """Keep no socket for a client that has its answers: most ask once from each port, which is theirs for 20 s."""
        self._answered.clear()
        while self._servers:
            yield commands.CloseConnection(self._servers.popitem()[0])

    def _kept_to_terms(self, asked: DnsArrival, answer: bytes) -> bytes:
        """The answer as it may be given now: time has passed since the question, and it may lead to other names."""
        words = self._admit(asked, DnsResponse(asked, dns_questions.members(asked, answer)))
        if isinstance(words, bytes):
            return words
        try:
            return answer if words is None else dns_questions.edited(words, answer)
        except ValueError:
            return without_answer(asked, UNREADABLE)

    # What both directions share.

    def _asked(self, query: Query) -> DnsArrival:
        address = self.context.server.address
        ours = isinstance(self.context.client.proxy_mode, DnsMode)
        known = not ours and address is not None and parse_address(address[0]) is not None
        return DnsArrival(
            client=self._connection.client,
            query=query,
            transport=Transport.TCP if self._stream else Transport.UDP,
            destination=Endpoint(address[0], address[1]) if known and address is not None else None,
            connection=self._connection.id,
            identity=self._connection.identity,
            carried=not ours,
        )

    def _messages(self, buffer: bytearray, data: bytes) -> Iterator[bytes]:
        """The whole messages that have come; the rest waits in the buffer."""
        if not self._stream:
            return iter((data,))
        buffer += data
        return take_messages(buffer)

    def _framed(self, message: bytes) -> bytes:
        return framed(message) if self._stream else message

    def _send(self, message: bytes) -> layer.CommandGenerator[None]:
        yield commands.SendData(self.context.client, self._framed(message))

    def _close(self) -> layer.CommandGenerator[None]:
        """No more will be said. Who still waits learns that there will be no answer."""
        self._done = True
        if self.context.client.state is not ConnectionState.CLOSED:
            for waiting in self._open.values():
                yield from self._send(without_answer(waiting.asked, UNANSWERED))
            yield commands.CloseConnection(self.context.client)
        yield from self._leave_servers()
