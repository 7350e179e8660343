"""The layer in front of everything: holds a connection's first bytes until it is decided what becomes of it."""
# mypy: disallow-untyped-calls=False

from dataclasses import dataclass
from typing import Final

from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.layers.tls import ClientTLSLayer, ServerTLSLayer

from tokgate.gate.admission import (
    Admission,
    Arrival,
    Passage,
    admit_by_fallback,
    admit_bytes,
    admit_tls,
    admit_unreadable,
    needs_certificate,
    observe,
)
from tokgate.gate.enforcer import Enforcer
from tokgate.gate.warned import software
from tokgate.policy.continuing import warns_with_a_page
from tokgate.proxy.http_front import HttpFront, TakeOver
from tokgate.proxy.relay import Refusal, Relay
from tokgate.proxy.visit import Passing, Visit
from tokgate.wire.alert import Alert
from tokgate.wire.client_hello import ClientHello, ClientHelloError, HelloBuffer, looks_like_tls
from tokgate.wire.http_start import looks_like_http

_HANDSHAKE: Final = 0x16


@dataclass
class OriginCertificateHook(commands.StartHook):
    """Someone has to ask the destination for its certificate; the answer goes into `data.names`."""

    data: "OriginCertificate"


@dataclass
class OriginCertificate:
    """A destination, and the names on the certificate that it showed."""

    host: str
    port: int
    names: tuple[str, ...] = ()


class Guard(layer.Layer):
    """Waits for the ClientHello or the request line, decides, and becomes the layer that carries the decision out.

    Like NextLayer it doesn't show in the stack. `tunnelled`: inside a CONNECT request, from which it steps out.
    """

    def __init__(self, context: Context, enforcer: Enforcer, visit: Visit, *, tunnelled: bool) -> None:
        super().__init__(context)
        context.layers.remove(self)
        self._enforcer: Final = enforcer
        self._visit: Final = visit
        self._tunnelled: Final = tunnelled
        self._hello: Final = HelloBuffer()
        self._received = bytearray()
        self._replay: list[events.Event] = []

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.DataReceived) and event.connection == self.context.client:
            yield from self._weigh(event.data)
        elif isinstance(event, events.ConnectionClosed):
            yield commands.CloseConnection(self.context.client)

    def _weigh(self, data: bytes) -> layer.CommandGenerator[None]:
        """Decide as soon as what was received says enough."""
        self._received += data
        try:
            found = self._read(data)
        except Exception as error:
            found = self._by_fallback(error, None)
        if isinstance(found, ClientHello):
            yield from self._admit(found)
        elif isinstance(found, Admission):
            yield from self._carry_out(found, None)
        elif found:
            yield from self._become(HttpFront(self.context, HTTPMode.transparent, self._visit))

    def _read(self, data: bytes) -> ClientHello | Admission | bool:
        """What the bytes so far are: a hello, nothing with a name (and what follows from that), HTTP, or too few."""
        if self._received[0] == _HANDSHAKE and looks_like_tls(bytes(self._received[:2])) is not False:
            try:
                return self._hello.feed(data) or False
            except ClientHelloError:
                return admit_unreadable(self._enforcer, self._arrival())
        http = looks_like_http(bytes(self._received))
        return admit_bytes(self._enforcer, self._arrival()) if http is False else bool(http)

    def _admit(self, hello: ClientHello) -> layer.CommandGenerator[None]:
        try:
            arrival = self._arrival()
            certificate: tuple[str, ...] = ()
            asked = self._question(arrival, hello)
            if asked is not None:
                yield OriginCertificateHook(asked)
                certificate = asked.names
            admission = admit_tls(self._enforcer, arrival, hello, certificate)
        except Exception as error:
            admission = self._by_fallback(error, hello)
        yield from self._carry_out(admission, hello)

    def _question(self, arrival: Arrival, hello: ClientHello) -> OriginCertificate | None:
        if arrival.destination is None or not needs_certificate(self._enforcer, arrival, hello):
            return None
        return OriginCertificate(arrival.destination.ip, arrival.destination.port or 443)

    def _by_fallback(self, error: Exception, hello: ClientHello | None) -> Admission:
        self._enforcer.failed("guard", error)
        return admit_by_fallback(self._enforcer, self._arrival(), hello)

    def _carry_out(self, admission: Admission, hello: ClientHello | None) -> layer.CommandGenerator[None]:
        arrival = self._arrival()
        self._enforcer.enter(admission.ruling, admission.visibility, lambda: observe(arrival, admission, hello))
        if not admission.ruling.blocks:
            self._visit.passing = Passing(arrival, admission.shown)
        match admission.passage:
            case Passage.PASS:
                yield from self._become(Relay(self.context, self._visit.wires))
            case Passage.OPEN:
                self._visit.opened = True
                if hello is not None and warns_with_a_page(admission.ruling.decision):
                    self._visit.software = software(hello)
                server = ServerTLSLayer(self.context)
                server.child_layer = ClientTLSLayer(self.context)
                yield from self._become(server)
            case Passage.REFUSE:
                alert = Alert.UNRECOGNIZED_NAME.record if self._received[0] == _HANDSHAKE else b""
                yield from self._become(Refusal(self.context, alert))

    def _become(self, successor: layer.Layer) -> layer.CommandGenerator[None]:
        """Hand everything over, beginning with what was received."""
        self._visit.spoken()
        received = bytes(self._received)
        if isinstance(successor, HttpFront):
            received = received.lstrip(b"\r\n")  # RFC 9112 §2.2: empty lines before a request are to be ignored
        replay = [events.Start(), events.DataReceived(self.context.client, received)]
        self._received.clear()
        if self._tunnelled:
            self._replay = replay
            self._handle_event = self._leave_behind  # type: ignore[method-assign]
            yield TakeOver(successor, replay)
            return
        self._handle_event = successor.handle_event  # type: ignore[method-assign]
        for event in replay:
            yield from successor.handle_event(event)

    def _leave_behind(self, event: events.Event) -> layer.CommandGenerator[None]:
        """What came while we waited for an answer is the successor's too."""
        self._replay.append(event)
        yield from ()

    def _arrival(self) -> Arrival:
        return self._visit.arrival(self.context.server.address)
