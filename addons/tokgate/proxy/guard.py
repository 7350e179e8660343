"""The layer in front of everything: holds a connection's first bytes until it is decided what becomes of it."""
# mypy: disallow-untyped-calls=False

import re
from dataclasses import dataclass
from typing import Final

from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import HttpLayer, HTTPMode
from mitmproxy.proxy.layers.tls import ClientTLSLayer, ServerTLSLayer

from tokgate.gate.admission import (
    Admission,
    Arrival,
    Passage,
    admit_bytes,
    admit_tls,
    admit_unreadable,
    needs_certificate,
    observe,
)
from tokgate.gate.enforcer import Enforcer
from tokgate.proxy.relay import Refusal, Relay
from tokgate.proxy.tunnel import TakeOver
from tokgate.proxy.visit import Visit
from tokgate.wire.alert import Alert
from tokgate.wire.client_hello import ClientHello, ClientHelloError, HelloBuffer, looks_like_tls

MAX_REQUEST_LINE: Final = 65536
_REQUEST_LINE: Final = re.compile(rb"(?:\r?\n)*[!#$%&'*+.^_`|~0-9A-Za-z-]+ [^\r\n]+ HTTP/[0-9]\.[0-9]\r?\n")
_METHOD_SO_FAR: Final = re.compile(rb"(?:\r?\n)*\r?[!#$%&'*+.^_`|~0-9A-Za-z-]{0,32}(?: [^\r\n]*\r?)?\Z")


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


def looks_like_http(data: bytes) -> bool | None:
    """Whether a connection begins with an HTTP/1 request line; None while that can't be told yet."""
    if _REQUEST_LINE.match(data):
        return True
    return None if len(data) < MAX_REQUEST_LINE and _METHOD_SO_FAR.match(data) else False


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
        self._received = b""

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.DataReceived) and event.connection == self.context.client:
            yield from self._weigh(event.data)
        elif isinstance(event, events.ConnectionClosed):
            yield commands.CloseConnection(self.context.client)

    def _weigh(self, data: bytes) -> layer.CommandGenerator[None]:
        """Decide as soon as what was received says enough."""
        self._received += data
        if self._received[0] == 0x16 and looks_like_tls(self._received) is not False:
            try:
                hello = self._hello.feed(data)
            except ClientHelloError:
                yield from self._carry_out(admit_unreadable(self._enforcer, self._arrival()), None)
            else:
                if hello is not None:
                    yield from self._admit(hello)
            return
        match looks_like_http(self._received):
            case True:
                yield from self._become(HttpLayer(self.context, HTTPMode.transparent))
            case False:
                yield from self._carry_out(admit_bytes(self._enforcer, self._arrival()), None)

    def _admit(self, hello: ClientHello) -> layer.CommandGenerator[None]:
        arrival = self._arrival()
        certificate: tuple[str, ...] = ()
        if needs_certificate(self._enforcer, arrival, hello) and arrival.destination is not None:
            asked = OriginCertificate(arrival.destination.ip, arrival.destination.port or 443)
            yield OriginCertificateHook(asked)
            certificate = asked.names
        yield from self._carry_out(admit_tls(self._enforcer, arrival, hello, certificate), hello)

    def _carry_out(self, admission: Admission, hello: ClientHello | None) -> layer.CommandGenerator[None]:
        arrival = self._arrival()
        self._enforcer.enter(admission.ruling, admission.visibility, lambda: observe(arrival, admission, hello))
        match admission.passage:
            case Passage.PASS:
                yield from self._become(Relay(self.context, self._visit.wires))
            case Passage.OPEN:
                self._visit.opened = True
                server = ServerTLSLayer(self.context)
                server.child_layer = ClientTLSLayer(self.context)
                yield from self._become(server)
            case Passage.REFUSE:
                alert = Alert.UNRECOGNIZED_NAME.record if self._received[0] == 0x16 else b""
                yield from self._become(Refusal(self.context, alert))

    def _become(self, successor: layer.Layer) -> layer.CommandGenerator[None]:
        """Hand everything over, beginning with what was received."""
        self._visit.spoken()
        received = self._received.lstrip(b"\r\n") if isinstance(successor, HttpLayer) else self._received
        replay = (events.Start(), events.DataReceived(self.context.client, received))
        self._received = b""
        if self._tunnelled:
            yield TakeOver(successor, replay)
            return
        self._handle_event = successor.handle_event  # type: ignore[method-assign]
        for event in replay:
            yield from successor.handle_event(event)

    def _arrival(self) -> Arrival:
        return self._visit.arrival(self.context.server.address)
