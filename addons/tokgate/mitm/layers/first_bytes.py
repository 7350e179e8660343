"""The layer in front of everything: holds a connection's first bytes until it is decided what becomes of it."""
# mypy: disallow-untyped-calls=False

from dataclasses import dataclass, replace
from typing import Final, assert_never

from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HTTPMode

from tokgate.mitm.client_connection import ClientConnection, Passing
from tokgate.mitm.layers.http import HttpConnectionLayer, TakeOver
from tokgate.mitm.layers.relay import PassthroughLayer, RefusalLayer, WatchedLayer
from tokgate.mitm.layers.tls import ClientTLSLayer, ServerTLSLayer
from tokgate.policy.analysis.terms import warns_with_a_page
from tokgate.traffic.actions import AskCertificate, Open, Pass, Refuse
from tokgate.traffic.admission import Admission, admit, refusal_octets
from tokgate.traffic.client_messages import FirstBytesReader, Watched, after
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.seen import FirstBytes, Hello, HttpStart, OtherBytes
from tokgate.traffic.warning_state import software


@dataclass
class OriginCertificateHook(commands.StartHook):
    """Someone has to ask the destination for its certificate; the answer goes into `data.names`."""

    data: "OriginCertificate"


@dataclass
class OriginCertificate:
    """A destination that a client has chosen, and the names on the certificate that it showed."""

    client: str
    host: str
    port: int
    names: tuple[str, ...] = ()


class FirstBytesLayer(layer.Layer):
    """Waits for the ClientHello or the request line, decides, and becomes the layer that carries the decision out.

    Like NextLayer it doesn't show in the stack. `tunnelled`: inside a CONNECT request, from which it steps out.
    """

    def __init__(self, context: Context, enforcer: Enforcer, connection: ClientConnection, *, tunnelled: bool) -> None:
        super().__init__(context)
        context.layers.remove(self)
        self._enforcer: Final = enforcer
        self._connection: Final = connection
        self._tunnelled: Final = tunnelled
        self._reader: Final = FirstBytesReader()
        self._replay: list[events.Event] = []

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.DataReceived) and event.connection == self.context.client:
            if event.data:
                self._connection.begins_to_speak()
                if (seen := self._reader.feed(event.data)) is not None:
                    yield from self._admit(seen)
            else:  # by `Traffic.hear_servers`
                yield from self._hear_server()
        elif isinstance(event, events.DataReceived):
            yield commands.SendData(self.context.client, event.data)
        elif isinstance(event, events.ConnectionClosed) and event.connection == self.context.server:
            yield commands.CloseTcpConnection(self.context.client, half_close=True)
        elif isinstance(event, events.ConnectionClosed) and self._connection.listens:  # it never had anything to say
            yield from self._admit(OtherBytes())
            yield from self._handle_event(event)
        elif isinstance(event, events.ConnectionClosed):
            if self._connection.waiting_since is not None:  # else we have closed it, which is counted
                self._enforcer.counters.unfinished += 1
            yield commands.CloseConnection(self.context.client)

    def _hear_server(self) -> layer.CommandGenerator[None]:
        """Connect a client that says nothing, if its destination's address may be reached; judge what it says later."""
        admission = admit(self._enforcer, self._connection.arrival(self.context.server.address), OtherBytes())
        if isinstance(admission.action, Refuse):
            yield from self._admit(OtherBytes())
            return
        self._connection.passing = Passing(admission.arrival, admission.shown)
        if (yield commands.OpenConnection(self.context.server)):
            yield commands.CloseConnection(self.context.client)

    def _admit(self, seen: FirstBytes) -> layer.CommandGenerator[None]:
        """Decide, and become the layer that carries it out."""
        admission = admit(self._enforcer, self._connection.arrival(self.context.server.address), seen)
        match admission.action:
            case AskCertificate(host, port):
                asked = OriginCertificate(self._connection.client.ip, host, port)
                yield OriginCertificateHook(asked)
                if isinstance(seen, Hello):
                    yield from self._admit(replace(seen, certificate=asked.names))
                return
            case Open(tls=False):
                if isinstance(seen, HttpStart) and seen.http2:
                    self.context.client.alpn = b"h2"  # by which mitmproxy tells what is spoken
                successor: layer.Layer = HttpConnectionLayer(self.context, HTTPMode.transparent, self._connection)
            case Open():
                successor = self._opened(admission)
            case Pass(watch=watch):
                watched = after(seen, self._reader.received) if watch else None
                successor = self._passes(admission, watched)
            case Refuse():
                successor = RefusalLayer(self.context, refusal_octets(admission, admission.record(self._enforcer)))
            case _:
                assert_never(admission.action)
        if not isinstance(admission.action, Refuse):
            admission.record(self._enforcer)
        if admission.recorded and not admission.ruling.blocks:
            self._connection.passing = Passing(admission.arrival, admission.shown)
        yield from self._become(successor)

    def _passes(self, admission: Admission, watched: Watched | None) -> layer.Layer:
        """Carried unread; watched, as long as the client may yet say that it wants to go somewhere else."""
        if watched is None:
            return PassthroughLayer(self.context, self._connection.sockets)

        def decide(seen: FirstBytes) -> tuple[Admission, bytes]:
            second = admit(self._enforcer, admission.arrival, seen)
            return second, refusal_octets(second, second.record(self._enforcer))

        if watched.rest:
            del self._reader.received[-len(watched.rest) :]
        return WatchedLayer(self.context, self._connection.sockets, watched, decide)

    def _opened(self, admission: Admission) -> layer.Layer:
        self._connection.opened = True
        if isinstance(admission.seen, Hello) and warns_with_a_page(admission.ruling.decision):
            self._connection.software = software(admission.seen.hello)
        server = ServerTLSLayer(self.context)
        server.child_layer = ClientTLSLayer(self.context)
        return server

    def _become(self, successor: layer.Layer) -> layer.CommandGenerator[None]:
        """Hand everything over, beginning with what was received."""
        self._connection.spoken()
        received = bytes(self._reader.received)
        if isinstance(successor, HttpConnectionLayer):
            received = received.lstrip(b"\r\n")  # RFC 9112 §2.2: empty lines before a request are to be ignored
        replay = [events.Start(), events.DataReceived(self.context.client, received)]
        if self._tunnelled:
            self._replay = replay
            self._handle_event = self._leave_behind  # type: ignore[method-assign]
            yield TakeOver(successor, replay)
            return
        self._handle_event = successor.handle_event  # type: ignore[method-assign]
        for event in replay:
            yield from successor.handle_event(event)

    def _leave_behind(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Keep events that arrive during a blocking call, for the next layer."""
        self._replay.append(event)
        yield from ()
