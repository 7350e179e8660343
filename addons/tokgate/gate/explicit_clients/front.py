"""Explicit clients: CONNECT (RFC 9110 §9.3.6) and SOCKS 5. An allowed destination gets a tunnel through the gate.

Everything else that speaks HTTP (a refused CONNECT, a request in absolute form) goes to an opener, which answers with
the reason. What the tunnel then carries is judged by its own first bytes, as if it had come by redirection. Where the
policy wants to know who asks, nobody gets a tunnel before it is known: in HTTP a client sends its password with its
request (RFC 9110 §11.7), in SOCKS 5 before it (RFC 1929).
"""

import json
import re
from dataclasses import replace
from enum import IntEnum
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final, assert_never

from tokgate.accounts.auth_cache import AuthCache
from tokgate.gate.background import Addresses
from tokgate.gate.connecting import Connecting, closed_to, parent, proceed, targets
from tokgate.gate.connection import Connection, State, Tunnel
from tokgate.gate.context import Context, Reading, Waiting
from tokgate.gate.explicit_clients.proxy_auth import ClientAuthentication
from tokgate.gate.first_message import FirstMessage
from tokgate.gate.sockets import DONT_WAIT, Address
from tokgate.policy.observation import Endpoint
from tokgate.policy.snapshot import Policy
from tokgate.policy.values.hostname import parse_address
from tokgate.traffic import refusal_texts
from tokgate.traffic.actions import AskCertificate, HttpAnswer, Open, Pass, Refuse
from tokgate.traffic.admission import admit
from tokgate.traffic.client_messages import Reader
from tokgate.traffic.seen import Connect, SocksConnect
from tokgate.wire import socks5
from tokgate.wire.proxy_request import (
    ACCEPTED,
    MAX_HEAD,
    REJECTED,
    ConnectReader,
    ConnectRequestError,
    read_basic,
    read_password,
)

PATIENCE: Final = 0.5
"""Seconds of a client's silence after which a tunnel to an address is taken for one where the server speaks first."""
# In origin form, to the proxy itself; its Host field names that as the client knows it.
_PAC_REQUEST: Final = re.compile(rb"GET /proxy\.pac(?:\?[!-~]*)? HTTP/1\.[01]\r?\n")
_PAC_HOST: Final = re.compile(rb"\r?\nhost:[ \t]*([A-Za-z0-9.:\[\]-]{1,255})[ \t]*\r?\n", re.IGNORECASE)
_PAC: Final = """\
function FindProxyForURL(url, host) {
  var names = %(names)s, v4 = %(v4)s, v6 = %(v6)s, i;
  host = host.toLowerCase().replace(/^\\[|\\]$/g, "");
  if (isPlainHostName(host) && host.indexOf(":") < 0) return "DIRECT";
  for (i = 0; i < names.length; i++)
    if (host === names[i] || dnsDomainIs(host, "." + names[i])) return "DIRECT";
  if (/^[0-9]+(\\.[0-9]+){3}$/.test(host))
    for (i = 0; i < v4.length; i++)
      if (isInNet(host, v4[i][0], v4[i][1])) return "DIRECT";
  if (host.indexOf(":") >= 0 && typeof isInNetEx === "function")
    for (i = 0; i < v6.length; i++)
      if (isInNetEx(host, v6[i])) return "DIRECT";
  return %(proxy)s;
}
"""
_OWN_PREFIXES: Final = tuple(map(ip_network, ("127.0.0.0/8", "169.254.0.0/16", "::1/128", "fe80::/10")))


class SocksStep(IntEnum):
    """The steps of a SOCKS 5 client before its request."""

    METHOD_CHOSEN = 1
    """It was told how to say who it is, or that it need not."""
    SIGNED_IN = 2
    """It has proved who it is: `Connection.person`."""


class ExplicitRequest(Reading):
    """The client has not yet asked for a destination. `progress`: what reads its CONNECT, or how far SOCKS is.

    One object serves all connections of which there is none.
    """

    __slots__ = ("front", "progress")

    def __init__(self, front: "ExplicitFront", progress: ConnectReader | SocksStep | None = None) -> None:
        super().__init__(front.context)
        self.front: Final = front
        self.progress: Final = progress

    def read(self, connection: Connection, data: bytes) -> None:
        received = connection.received
        if isinstance(received, bytes):
            received = connection.received = bytearray(received)
        received += data
        if received[0] == socks5.VERSION:
            self.front.read_socks(connection, self.progress)
        elif received[0] == socks5.SOCKS4:
            self.context.refuse(connection, socks5.SOCKS4_REJECTED)
        elif isinstance(self.progress, ConnectReader):
            self.front.read_connect(connection, self.progress, data)
        elif received.startswith(b"CONNECT "):
            reader = ConnectReader()
            connection.state = ExplicitRequest(self.front, reader)
            self.front.read_connect(connection, reader, received)
        elif not b"CONNECT ".startswith(received) and (b"\n" in data or len(received) > MAX_HEAD):
            self.front.answer(connection, received)
        else:
            self.wait(connection)


class TunnelMessage(FirstMessage):
    """As a first message that was redirected, but that there may be further addresses of the destination to try."""

    __slots__ = ("front",)

    def __init__(self, front: "ExplicitFront", reader: Reader | None = None) -> None:
        super().__init__(front.context, reader)
        self.front: Final = front

    def with_reader(self, reader: Reader) -> "TunnelMessage":
        return TunnelMessage(self.front, reader)

    def ended(self, connection: Connection) -> None:
        if connection.tunnel is not None and connection.server is None and not connection.received:
            self.front.connect(connection, connection.tunnel)  # it is asked again when the destination is there
        else:
            super().ended(connection)

    def wait(self, connection: Connection) -> None:
        if connection.received or connection.server is not None:
            super().wait(connection)
        else:
            self.context.loop.keep_watching_client(connection)

    def overdue(self, connection: Connection) -> None:
        """No message has come in time, and no destination may be connected.

        A client that has sent nothing may wait for the server, which speaks first in some protocols: connect, and
        decide about what it sends later. One that has sent a part gets more time once.
        """
        tunnel = connection.tunnel
        if tunnel is None or connection.server is not None or not connection.deadline:
            super().overdue(connection)
        elif not connection.received:
            self.front.connect(connection, tunnel)
        elif not tunnel.extended:
            tunnel.extended = True
            connection.deadline += self.context.limits.greeting
        else:
            super().overdue(connection)

    def connect(self, connection: Connection, destination: Address, then: State) -> None:
        if connection.tunnel is None:
            super().connect(connection, destination, then)
        else:
            self.front.connect(connection, connection.tunnel, then)


class WaitingForName(Waiting):
    """The name of a tunnel's destination is being resolved."""

    __slots__ = ("_front", "_tunnel")

    def __init__(self, front: "ExplicitFront", tunnel: Tunnel) -> None:
        super().__init__(front.context)
        self._front: Final = front
        self._tunnel: Final = tunnel

    def overdue(self, connection: Connection) -> None:
        self._front.connect(connection, self._tunnel)  # there is none, which the client is told


class ConnectingTunnel(Connecting):
    """No address of a tunnel's destination has answered yet."""

    __slots__ = ("_front", "_tunnel")

    def __init__(self, front: "ExplicitFront", tunnel: Tunnel, then: State) -> None:
        super().__init__(front.context, then, tunnel.addresses)
        self._front: Final = front
        self._tunnel: Final = tunnel

    def go_on(self, connection: Connection) -> None:
        """What the client has said was judged already; or it is told that it has its tunnel, and heard."""
        if not self._tunnel.established:
            self._front.establish(connection, self._tunnel)
        elif connection.received:
            proceed(self.context, connection, self.then)
        else:
            self.context.listen(connection, self._front.message)

    def leads_back(self, connection: Connection) -> None:
        self._front.close_off(connection, self._tunnel, refusal_texts.LEADS_BACK)

    def give_up(self, connection: Connection) -> None:
        self._front.give_up(connection, self._tunnel, socks5.Reply.HOST_UNREACHABLE, refusal_texts.UNREACHABLE)


class ExplicitFront:
    """Reads what explicit clients ask of a gate, and builds their tunnels."""

    def __init__(self, context: Context) -> None:
        self.context: Final = context
        self.request: Final = ExplicitRequest(self)
        self.message: Final = TunnelMessage(self)
        self._enforcer: Final = context.enforcer
        self.sign_in: Final = ClientAuthentication(context)

    def _say(self, connection: Connection, words: bytes) -> bool:
        """Send a few octets to the client; False, and the connection closed, if it has gone."""
        try:
            connection.client.send(words, DONT_WAIT)
        except OSError:
            self.context.loop.close(connection)
            return False
        return True

    # -- requests

    def answer(self, connection: Connection, received: bytearray) -> None:
        """Answer a request that is no CONNECT: for the PAC file here, once its head has come whole; else by an opener.

        So is what will be told that it is no request; an opener asks who it is from, too.
        """
        context = self.context
        if _PAC_REQUEST.match(received) is None:
            if not context.hand_over(connection, context.arrival(connection), tls=False):
                context.refuse(connection, refusal_texts.UNAVAILABLE)
            return
        if b"\n\r\n" not in received and b"\n\n" not in received and len(received) <= MAX_HEAD:
            self.request.wait(connection)
            return
        host, port = connection.client.getsockname()[:2]
        found = _PAC_HOST.search(received)
        proxy = found[1].decode() if found else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        context.refuse(connection, refusal_texts.pac_answer(pac_file(self._enforcer.snapshot.policy, proxy)))

    def read_connect(self, connection: Connection, reader: ConnectReader, data: bytes | bytearray) -> None:
        """Go on with a CONNECT request, of which `data` came next."""
        try:
            request = reader.feed(data)
        except ConnectRequestError:
            self.context.refuse(connection, refusal_texts.BAD_REQUEST)
            return
        if request is None:
            self.request.wait(connection)
            return
        tunnel = Tunnel(request.host, request.port, socks=False)
        go_on = partial(self._ask, connection, tunnel, request.rest)
        cache = self.sign_in.cache()
        if cache is None:
            go_on()
            return
        credentials = read_basic(request.proxy_authorization.decode("latin-1"))
        wrong, unavailable = refusal_texts.SIGN_IN, refusal_texts.UNAVAILABLE
        self.sign_in.authenticate(connection, cache, credentials, go_on, wrong=wrong, unavailable=unavailable)

    def _ask(self, connection: Connection, tunnel: Tunnel, rest: bytes) -> None:
        """CONNECT of an authenticated client; `rest` are the bytes after the request."""
        if self._admitted(connection, tunnel, Connect(tunnel.host)):
            request, connection.received = bytes(connection.received), rest
            self._build(connection, tunnel, request)

    def read_socks(self, connection: Connection, progress: object) -> None:
        """Go on with what a client of SOCKS has sent so far."""
        signed_in = progress is SocksStep.SIGNED_IN
        cache = None if signed_in else self.sign_in.cache()
        received = bytes(connection.received)
        try:
            methods = 0 if signed_in else socks5.read_methods(received, password=cache is not None)
            if methods is not None and progress is None:
                connection.state = ExplicitRequest(self, SocksStep.METHOD_CHOSEN)
                if not self._say(connection, socks5.METHOD_CHOSEN if cache is None else socks5.PASSWORD_CHOSEN):
                    return
            if methods is None:
                self.request.wait(connection)
            elif cache is not None:
                self._read_password(connection, cache, methods)
            elif (request := socks5.read_request(received[methods:])) is None:
                self.request.wait(connection)
            else:
                tunnel = Tunnel(request.host, request.port, socks=True)
                if self._admitted(connection, tunnel, SocksConnect(request.host)):
                    connection.received = received[methods + request.length :]
                    self._build(connection, tunnel)
        except socks5.SocksError as error:
            self.context.refuse(connection, error.reply)

    def _read_password(self, connection: Connection, cache: AuthCache, methods: int) -> None:
        """Authenticate a SOCKS client by what has come behind its methods."""
        try:
            said = read_password(bytes(connection.received[methods:]))
        except ValueError:
            self.context.refuse(connection, REJECTED)
            return
        if said is None:
            self.request.wait(connection)
            return
        credentials, length = said
        go_on = partial(self._signed_in, connection, methods + length)
        self.sign_in.authenticate(connection, cache, credentials, go_on, wrong=REJECTED, unavailable=REJECTED)

    def _signed_in(self, connection: Connection, length: int) -> None:
        """Go on with the request of a SOCKS client, behind `length` octets that are done with."""
        connection.state = ExplicitRequest(self, SocksStep.SIGNED_IN)
        connection.received = connection.received[length:]
        if self._say(connection, ACCEPTED):
            if connection.received:
                self.read_socks(connection, SocksStep.SIGNED_IN)
            else:
                self.request.wait(connection)

    def _admitted(self, connection: Connection, tunnel: Tunnel, seen: Connect | SocksConnect) -> bool:
        """Whether the gate may build a tunnel; if not, the client is answered, in full by an opener if there is one."""
        asked = self.context.arrival(connection)
        arrival = replace(asked, destination=Endpoint(seen.address or tunnel.host, tunnel.port))
        admission = admit(self._enforcer, arrival, seen)
        match admission.action:
            case Pass():
                admission.record(self._enforcer)
                return True
            case Open() | AskCertificate() | Refuse() if isinstance(seen, Connect) and seen.openable:
                # The opener decides again, answers in full, and writes the record.
                if self.context.hand_over(connection, asked, tls=False):
                    return False
                return self._admitted(connection, tunnel, replace(seen, openable=False))
            case Refuse(HttpAnswer()):
                answer = refusal_texts.refusal(admission.ruling, tunnel.host, admission.record(self._enforcer))
            case Refuse(words):
                admission.record(self._enforcer)
                answer = words if isinstance(words, bytes) else b""
            case Open() | AskCertificate():
                answer = refusal_texts.UNAVAILABLE
            case _:
                assert_never(admission.action)
        self.context.refuse(connection, answer)
        return False

    # -- tunnels

    def _build(self, connection: Connection, tunnel: Tunnel, request: bytes = b"") -> None:
        """Begin a tunnel; `request` is the CONNECT as it came, for an opener to answer if all addresses are banned."""
        context = self.context
        connection.tunnel = tunnel
        connection.destination = (tunnel.host, tunnel.port)
        waiting = WaitingForName(self, tunnel)
        context.wait(connection, waiting, context.limits.connecting)

        def resolved(addresses: Addresses) -> None:
            if connection.state is waiting:
                self._choose(connection, tunnel, addresses, request)

        if closed_to(context, connection, tunnel.port, tunnel.host):
            self.close_off(connection, tunnel, refusal_texts.INSIDE)
        elif parse_address(tunnel.host) is not None:
            # An address doesn't say whose it is: it is contacted only once the client's first bytes do.
            tunnel.addresses = (tunnel.host,)
            self.establish(connection, tunnel)
        elif parent(context, connection, (tunnel.host, tunnel.port)) is not None:
            # The parent resolves it: what only a network beyond can find need not be known here.
            tunnel.addresses = (tunnel.host,)
            self.connect(connection, tunnel)
        else:
            context.dialler.resolver.ask(connection.peer, tunnel.host, resolved)

    def _choose(self, connection: Connection, tunnel: Tunnel, addresses: Addresses, request: bytes) -> None:
        """A name has been resolved: connect to what may be connected to."""
        found = targets(self.context, connection, tunnel.host, tunnel.port, addresses)
        tunnel.addresses = self.context.dialler.in_order(found.open, tunnel.port)
        if found.closed:
            self.close_off(connection, tunnel, refusal_texts.INSIDE)
        elif found.ruling is not None and not found.open:
            connection.tunnel = connection.destination = None  # answered as for a banned name
            rest, connection.received = connection.received, request
            address = found.banned[0]
            seen = SocksConnect(tunnel.host, address) if tunnel.socks else Connect(tunnel.host, address)
            if self._admitted(connection, tunnel, seen):  # its ban has ended just now
                connection.received = rest
                self._build(connection, tunnel, request)
        else:
            self.connect(connection, tunnel)

    def close_off(self, connection: Connection, tunnel: Tunnel, why: bytes) -> None:
        """Refuse a tunnel to this machine's own services, and count it as a loop."""
        self._enforcer.counters.loops += 1
        self.give_up(connection, tunnel, socks5.Reply.NOT_ALLOWED, why)

    def connect(self, connection: Connection, tunnel: Tunnel, then: State | None = None) -> None:
        """Connect to the addresses of a destination, and be in the state `then`; a failure is told."""
        connection.destination = (tunnel.host, tunnel.port)
        ConnectingTunnel(self, tunnel, then or self.context.relay).try_next(connection)

    def give_up(self, connection: Connection, tunnel: Tunnel, reply: socks5.Reply, answer: bytes) -> None:
        """There will be no tunnel; where the client believes that it has one, it is too late to say so."""
        if tunnel.established:
            self.context.relay.reset(connection, connection.client)
        else:
            self.context.refuse(connection, reply.octets if tunnel.socks else answer)

    def establish(self, connection: Connection, tunnel: Tunnel) -> None:
        """Tell the client that it has its tunnel, and wait for what it will say through it."""
        tunnel.established = True
        if not self._say(connection, socks5.Reply.SUCCEEDED.octets if tunnel.socks else refusal_texts.ESTABLISHED):
            return
        # In some protocols the server speaks first: once it is connected, the client may stay silent.
        self.context.listen(connection, self.message, PATIENCE if connection.server is None else 0.0)
        if connection.received:  # the client did not wait for the answer
            received, connection.received = connection.received, b""
            self.message.read(connection, received)


def pac_file(policy: Policy, proxy: str) -> str:
    """The PAC file (proxy auto-configuration) for browsers, of a proxy at `HOST:PORT`.

    Past the proxy go names without a dot, the names and prefixes of `settings.pac`, and addresses of this machine, of
    its links and of the policy's networks. Nothing is looked up in DNS: a browser would wait for that at each request.
    """
    given = (each for network in policy.networks.values() for each in network.cidrs)
    prefixes = dict.fromkeys((*given, *_OWN_PREFIXES, *policy.settings.pac.direct_addresses))
    v4 = [[str(each.network_address), str(each.netmask)] for each in prefixes if isinstance(each, IPv4Network)]
    return _PAC % {
        "names": json.dumps(policy.settings.pac.direct_names),
        "v4": json.dumps(v4),
        "v6": json.dumps([str(each) for each in prefixes if isinstance(each, IPv6Network)]),
        "proxy": json.dumps(f"PROXY {proxy}"),
    }
