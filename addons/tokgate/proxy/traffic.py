"""The hooks that traffic passes: each translates, decides and applies. What fails in one ends in `on_error`."""
# mypy: disallow-untyped-calls=False

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial, wraps
from socket import SOCK_STREAM
from typing import Any, Final

from mitmproxy.connection import Client
from mitmproxy.dns import DNSFlow
from mitmproxy.flow import Error
from mitmproxy.http import HTTPFlow, Response
from mitmproxy.proxy.layer import NextLayer
from mitmproxy.proxy.mode_specs import DnsMode, RegularMode, TransparentMode
from mitmproxy.proxy.server import ConnectionHandler
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.tcp import TCPFlow
from mitmproxy.tls import TlsData

from tokgate.blocklog.observation import Stage, Visibility
from tokgate.gate.admission import Passage, passage_of
from tokgate.gate.enforcer import Enforcer, Ruling
from tokgate.gate.links import Links
from tokgate.gate.origin_certificate import OriginCertificates
from tokgate.policy.bans import OnError
from tokgate.policy.continuing import warns_with_a_page
from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Signal
from tokgate.policy.identity import Identity
from tokgate.proxy import page, requests
from tokgate.proxy.adoption import GateInstance
from tokgate.proxy.dns_front import DnsFront
from tokgate.proxy.guard import OriginCertificate
from tokgate.proxy.notice import notice_of
from tokgate.proxy.relay import Refusal, Relay
from tokgate.proxy.stack import layer_for
from tokgate.proxy.visit import Request, Visit, Visits
from tokgate.proxy.warnings import Warnings
from tokgate.proxy.wires import Wires

_SWITCHING: Final = 101
UNCONFIGURED: Final = "tokgate has no policy: nothing passes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What the hooks need to know of the proxy that they run in."""

    connections: Callable[[], Mapping[Any, ConnectionHandler]] = dict
    """The connections that mitmproxy serves, by the client's id."""
    listens_at: Callable[[], frozenset[int]] = frozenset
    """The ports on which clients connect."""
    implementer: str = ""
    """The URI of who runs this filter; empty: the ban's contact, else this host."""
    hostname: str = "localhost"


type Hook[D] = Callable[["Traffic", D], None]


def ends_in[D](fallback: Hook[D]) -> Callable[[Hook[D]], Hook[D]]:
    """Wrap a hook so that what it raises is counted, logged, and answered by `fallback`.

    mitmproxy logs what a hook raises and goes on as if there had been no hook: traffic would pass undecided.
    """

    def wrap(hook: Hook[D]) -> Hook[D]:
        @wraps(hook)
        def call(self: "Traffic", data: D) -> None:
            try:
                hook(self, data)
            except Exception as error:
                self.failed(hook.__name__, error)
                fallback(self, data)

        return call

    return wrap


class Traffic:
    """The traffic hooks of one proxy. Without an enforcer nothing passes."""

    def __init__(self) -> None:
        """`enforcer` and `place` are set once the options are known."""
        self.enforcer: Enforcer | None = None
        self.place = Place()
        self.visits: Final = Visits()
        self.warnings: Final = Warnings()
        self.certificates = OriginCertificates()
        self._links: Final = Links(partial(self.failed, "links"))
        self._own: Final[set[tuple[Any, Any]]] = set()
        """Our end and the far end of each connection to a destination. Our end alone may be a client's as well."""

    # Fallbacks, named by the hooks below.

    def _close_or_pass(self, next_layer: NextLayer) -> None:
        """No name could be read: the connection is closed, unless errors let everything pass."""
        strict = self.enforcer is None or self.enforcer.snapshot.settings.on_error is OnError.BLOCK
        next_layer.layer = Refusal(next_layer.context, b"") if strict else Relay(next_layer.context, Wires(None))

    def _kill_if_banned(self, flow: HTTPFlow) -> None:
        """The page could not be made, or nothing be decided: cut off what `on_error` blocks."""
        flow.response = None
        if self.enforcer is None:
            flow.kill()
            return
        hosts = (flow.request.data.host, flow.request.host_header or "", flow.client_conn.sni or "")
        names = [Sighting(Signal.HTTP_HOST, host) for host in hosts if host]
        if self.enforcer.judge_by_fallback(names).blocks:
            flow.kill()

    def _dial_nothing(self, data: ServerConnectionHookData) -> None:
        """It isn't known where it would lead."""
        data.server.error = "it can't be decided"

    def _nothing(self, _: Any) -> None:
        """Nothing passed or was refused in this hook."""

    def _turn_away(self, client: Client) -> None:
        """mitmproxy's own layer for DNS would answer everything: not if errors block."""
        strict = self.enforcer is None or self.enforcer.snapshot.settings.on_error is OnError.BLOCK
        if strict and isinstance(client.proxy_mode, DnsMode):
            client.error = "questions can't be decided"

    # Hooks, in the order of a connection's life.

    @ends_in(_turn_away)
    def client_connected(self, client: Client) -> None:
        """A client connects: not to the redirected port itself, which would lead in a circle."""
        if self.enforcer is None:
            client.error = UNCONFIGURED
            return
        visit = self.visits.begin(client, Wires(self.place.connections().get(client.id)))
        visit.explicit = isinstance(client.proxy_mode, RegularMode)
        handed = GateInstance.handed.get(client.id)
        if handed is not None:
            visit.take_over(handed)
        else:
            visit.identity = self._link_of(client)
        if isinstance(client.proxy_mode, TransparentMode) and self._dialled_directly(client):
            self.enforcer.counters.loops += 1
            client.error = "nothing was redirected here: this port is for redirected connections only"
        if isinstance(client.proxy_mode, DnsMode):
            self._stand_before_dns(client, visit)

    @ends_in(_nothing)
    def client_disconnected(self, client: Client) -> None:
        """A client has gone."""
        visit = self.visits.end(client)
        if visit is not None and self.enforcer is not None:
            self.warnings.left(self.enforcer, visit)

    @ends_in(_nothing)
    def tls_failed_client(self, data: TlsData) -> None:
        """A client doesn't accept our certificate, or has gone."""
        self.warnings.rejected(self._enforcer(), self.visits.of(data.context.client), data.conn.error)

    @ends_in(_close_or_pass)
    def next_layer(self, next_layer: NextLayer) -> None:
        """The first bytes have come: put the layer in charge that waits until they say enough."""
        client = next_layer.context.client
        if next_layer.layer is not None or self.enforcer is None:
            return
        if _ends(client.peername, client.sockname) in self._own:
            self.enforcer.counters.loops += 1
            next_layer.layer = Refusal(next_layer.context, b"")
            return
        visit = self.visits.of(client)
        next_layer.layer = layer_for(next_layer.context, next_layer.data_client(), self.enforcer, visit)

    @ends_in(_nothing)
    def dns_request(self, flow: DNSFlow) -> None:
        """A question is about to be asked on: not if it is one of our own that came back."""
        client = flow.client_conn
        if _ends(client.peername, client.sockname) in self._own:
            self._enforcer().counters.loops += 1
            flow.error = Error("a question of our own came back: the resolver that we ask is this one")

    @ends_in(_kill_if_banned)
    def http_connect(self, flow: HTTPFlow) -> None:
        """A client asks for a tunnel: refused here, or to be decided about again inside. A page needs the tunnel."""
        if flow.response is not None or flow.error is not None:
            return
        visit, host = self.visits.of(flow.client_conn), flow.request.data.host
        visit.spoken()
        if not requests.can_be_dialled(host):
            self.answer(flow, Response.make(400, b"", {"Cache-Control": "no-store"}))
            return
        names: tuple[Sighting, ...] = (Sighting(Signal.HTTP_HOST, host),)
        if visit.lead is not None:
            names += (Sighting(Signal.ADDRESS, visit.lead),)
        ruling = self._enforcer().judge(visit.client.ip, names, visit.identity)
        if ruling.blocks and passage_of(ruling.decision) is Passage.REFUSE:
            self._refuse(flow, visit, names, ruling, Stage.CONNECT)
        else:
            visit.connect, visit.waiting_since = host, time.monotonic()
            if not ruling.blocks:
                visit.requests[flow.id] = Request(flow, names)

    @ends_in(_kill_if_banned)
    def requestheaders(self, flow: HTTPFlow) -> None:
        """A request can be read, plain or in an opened connection: decide about every name that it shows."""
        if flow.response is not None or flow.error is not None:
            return None
        visit = self.visits.of(flow.client_conn)
        visit.spoken()
        visit.asked = True
        if requests.is_ambiguous(flow.request):
            return self.answer(flow, Response.make(400, b"", {"Cache-Control": "no-store"}))
        names = requests.sightings(flow, visit)
        ruling = self._enforcer().judge(visit.client.ip, names, visit.identity)
        if ruling.blocks:
            return self._refuse(flow, visit, names, ruling, Stage.HTTP)
        passed = None
        if warns_with_a_page(ruling.decision):
            passed = self.warnings.passed(self._enforcer(), flow, visit, ruling)
            if passed is None:
                return self.answer(flow, self.warnings.answer(self._enforcer(), flow, visit, names, ruling))
        flow.request.stream = True  # nothing is read of what passes, so nothing has to be held back
        seen = partial(requests.observe, flow, visit, names, Stage.HTTP, None, passed)
        self._enforcer().enter(ruling, Visibility.DECRYPTED, seen)
        visit.requests[flow.id] = Request(flow, names)
        return None

    @ends_in(_kill_if_banned)
    def request(self, flow: HTTPFlow) -> None:
        """A request has come whole: only of a warning's button this matters."""
        if flow.response is None and flow.error is None:
            self.answer(flow, self.warnings.pressed(self._enforcer(), flow, self.visits.of(flow.client_conn)))

    @ends_in(_nothing)
    def responseheaders(self, flow: HTTPFlow) -> None:
        """An origin's answer passes as it comes: events and long polls don't wait for their end."""
        if flow.response is not None and flow.response.raw_content is None:
            flow.response.stream = True
            self._end_after(flow, flow.response)

    @ends_in(_nothing)
    def response(self, flow: HTTPFlow) -> None:
        """A request has its whole answer. What it was upgraded to goes on, and is under its names still."""
        if flow.response is None or flow.response.status_code != _SWITCHING:
            self.visits.of(flow.client_conn).requests.pop(flow.id, None)

    @ends_in(_nothing)
    def error(self, flow: HTTPFlow) -> None:
        """A request ended without an answer."""
        self.visits.of(flow.client_conn).requests.pop(flow.id, None)

    @ends_in(_nothing)
    def websocket_message(self, flow: HTTPFlow) -> None:
        """mitmproxy would keep every message as long as the connection lasts."""
        if flow.websocket is not None:
            del flow.websocket.messages[:-1]

    @ends_in(_nothing)
    def tcp_message(self, flow: TCPFlow) -> None:
        """The same for protocols that a request was upgraded to."""
        del flow.messages[:-1]

    async def origin_certificate(self, asked: OriginCertificate) -> None:
        """The guard asks who a destination is. Without an answer, its address decides."""
        try:
            asked.names = await self.certificates.names(asked.host, asked.port)
        except Exception as error:
            self.failed("origin_certificate", error)

    @ends_in(_dial_nothing)
    def server_connect(self, data: ServerConnectionHookData) -> None:
        """A connection of ours is about to be made: not to what only a resolver would take for an address."""
        address = data.server.address
        if address is not None and not requests.can_be_dialled(address[0]):
            data.server.error = "this is no name, and no address as policy knows them"

    @ends_in(_nothing)
    def server_connected(self, data: ServerConnectionHookData) -> None:
        """Remember a connection of ours, to know it should it come back as a client's."""
        self._own.add(_ends(data.server.sockname, data.server.peername))

    @ends_in(_nothing)
    def server_disconnected(self, data: ServerConnectionHookData) -> None:
        """Forget it."""
        self._own.discard(_ends(data.server.sockname, data.server.peername))

    # What hooks share.

    def failed(self, where: str, error: Exception) -> None:
        """Count and log what a hook raised."""
        if self.enforcer is not None:
            self.enforcer.failed(where, error)

    async def close_silent(self, patience: float) -> None:
        """Close the connections whose client has not said in `patience` seconds what it wants."""
        connections = self.place.connections()
        for visit in list(self.visits.overdue(time.monotonic() - patience)):
            visit.spoken()
            handler = connections.get(visit.connection)
            if handler is not None:
                self._enforcer().counters.timeouts += 1
                await handler.on_timeout()

    def _enforcer(self) -> Enforcer:
        if self.enforcer is None:
            raise RuntimeError(UNCONFIGURED)
        return self.enforcer

    def _stand_before_dns(self, client: Client, visit: Visit) -> None:
        """In this mode mitmproxy asks nobody which layer to use: ours takes the place of its own before the start."""
        handler = self.place.connections()[client.id]
        context = handler.layer.context
        context.layers.clear()
        handler.layer = DnsFront(context, self._enforcer(), visit)

    def _link_of(self, client: Client) -> Identity | None:
        """By which interface a client came, and its hardware address, where the policy has use for them."""
        identifies = self._enforcer().snapshot.identifies
        handler = self.place.connections().get(client.id) if identifies.links else None
        writer = None if handler is None else handler.transports[client].writer
        sock = None if writer is None else writer.get_extra_info("socket", None)
        if sock is None or sock.type != SOCK_STREAM:
            return None
        return self._links.identify(sock, client.peername[0], identifies)

    def _dialled_directly(self, client: Client) -> bool:
        """Whether the destination that the kernel remembers is the very socket that accepted the connection."""
        handler = self.place.connections().get(client.id)
        if handler is None or client.sockname is None:
            return False
        writer = handler.transports[client].writer
        local: tuple[str, int] | None = writer.get_extra_info("sockname") if writer is not None else None
        return local is not None and local[:2] == client.sockname[:2] and local[1] in self.place.listens_at()

    def _refuse(self, flow: HTTPFlow, visit: Visit, names: tuple[Sighting, ...], ruling: Ruling, stage: Stage) -> None:
        """Record a blocked request and answer it with the page."""
        ban = ruling.snapshot.bans.get(ruling.decision.ban or "")
        contact = page.href_of(ban.contact) if ban is not None else None
        implementer = self.place.implementer or contact or f"dns:{self.place.hostname}"
        asked = ruling.judgement.sighting.value
        notice = notice_of(ruling, asked=asked, event="", implementer=implementer, opened=visit.opened)
        seen = partial(requests.observe, flow, visit, names, stage, notice.status)
        stamp = self._enforcer().enter(ruling, Visibility.DECRYPTED, seen)
        tongues = flow.request.headers.get("accept-language")
        kind = flow.request.headers.get("accept", "text/plain" if stage is Stage.CONNECT else None)
        answer = page.compose(replace(notice, event=stamp.id), accept=kind, accept_language=tongues)
        self.answer(flow, Response.make(answer.status, answer.body, dict(answer.headers)))

    def answer(self, flow: HTTPFlow, response: Response | None) -> None:
        """Answer a request ourselves, or cut it off where its body would have to be awaited for too long."""
        request = flow.request
        if response is None:
            return
        self._end_after(flow, response)
        if request.method != "CONNECT" and not requests.answerable(request):
            flow.kill()
            return
        if request.method == "HEAD":
            response.raw_content = b""  # Content-Length stays what GET would have got
        if request.is_http2:  # RFC 9113 §8.2.1
            response.headers = type(response.headers)((name.lower(), value) for name, value in response.headers.fields)
        request.stream = False
        flow.response = response

    def _end_after(self, flow: HTTPFlow, response: Response) -> None:
        """Have a client that is to leave do so after this response; over HTTP/2 it has been told otherwise."""
        if not flow.request.is_http2 and self.visits.of(flow.client_conn).leaving:
            response.headers["Connection"] = "close"


def _ends(near: Any, far: Any) -> tuple[Any, Any]:
    """Both ends of a connection, without what IPv6 adds to an address and a port."""
    return near and near[:2], far and far[:2]
