"""A client's traffic as it arrives, and what a carrier can see of it, for `admission.admit` to decide. Values only.

A new kind of traffic is a new member of `Seen`; mypy then names the places that must say what becomes of it.
"""

from dataclasses import dataclass
from typing import Final

from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Signal
from tokgate.policy.membership import Identity
from tokgate.policy.observation import Endpoint, HttpSeen, Transport, Visibility
from tokgate.policy.values.hostname import parse_address
from tokgate.wire.client_hello import ClientHello
from tokgate.wire.dns_message.query import Query
from tokgate.wire.http_detection import UnreadLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A client connection, flow of datagrams or question, before anything of its content is known."""

    client: Endpoint
    destination: Endpoint | None = None
    """Host and port: an address for redirected connections, a name or an address literal in a CONNECT tunnel."""
    connect: str | None = None
    """The host that was asked for with CONNECT, as it was sent."""
    connection: str | None = None
    """The id of the connection, in all of its records."""
    identity: Identity | None = None
    """Who the client is besides its address, as far as the policy has use for it."""
    transport: Transport = Transport.TCP

    @property
    def sightings(self) -> tuple[Sighting, ...]:
        """The signals known before the connection's first byte."""
        host = self.destination.ip if self.destination is not None else None
        address = (Sighting(Signal.ADDRESS, host),) if host and parse_address(host) is not None else ()
        return (Sighting(Signal.HTTP_HOST, self.connect), *address) if self.connect else address

    @property
    def endpoint(self) -> Endpoint | None:
        """The destination as the log wants it: an address, or nothing."""
        if self.destination is None or parse_address(self.destination.ip) is None:
            return None
        return self.destination


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsArrival(Arrival):
    """A question. Its destination is the resolver that the client asked; None if it was us."""

    query: Query
    transport: Transport = Transport.UDP
    carried: bool = False
    """What the client connects to then passes here, too."""

    @property
    def names(self) -> tuple[Sighting, ...]:
        """The name, and its part after octets that no pattern can match, whose owner answers for the whole name."""
        sighting = Sighting(Signal.DNS_NAME, self.query.name)
        return (sighting, Sighting(Signal.DNS_NAME, self.query.below)) if self.query.below else (sighting,)


OF_HELLOS: Final = (Visibility.SNI, Visibility.QUIC_SNI, Visibility.ECH_OUTER, Visibility.NONE)
"""Of what began with a ClientHello that could be read, named or not."""


@dataclass(frozen=True, slots=True)
class Hello:
    """A ClientHello, over TCP or in QUIC."""

    hello: ClientHello
    quic: bool = False
    certificate: tuple[str, ...] | None = None
    """The names on the destination's certificate; None: it has not been asked for one."""
    openable: bool = True
    """Someone can terminate TLS, or ask for the certificate; False once that was tried and failed."""
    retry_of: str | None = None
    """The name in the hello before it, after a HelloRetryRequest; empty if it had none."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Bytes that some server might read as TLS, QUIC or HTTP, and that make no sense here."""

    quic: bool = False
    http: bool = False


@dataclass(frozen=True, slots=True)
class OtherBytes:
    """Neither TLS nor HTTP, or datagrams that belong to no connection that was seen to begin."""

    line: UnreadLine | None = None
    """What may yet become a request to some server, with what follows."""
    more: bool = False
    """It follows what was decided about, and counted."""


@dataclass(frozen=True, slots=True)
class HttpStart:
    """The request line of HTTP/1, or HTTP/2 with prior knowledge: requests are then decided one by one."""

    openable: bool = True
    """Someone can read the requests; False once that was tried and failed."""
    http2: bool = False
    passable: bool = False
    """Whoever carries it can pass it on unread."""


@dataclass(frozen=True, slots=True)
class ProxyConnect:
    """A CONNECT request to a proxy somewhere else: what its tunnel carries is decided about after it."""

    host: str
    rest: bytes = b""
    """The bytes after the request."""
    named: str = ""
    """Another host that its Host field names, which that proxy might follow."""


@dataclass(frozen=True, slots=True)
class Connect:
    """A CONNECT request of HTTP: `host` is the target's."""

    host: str
    address: str | None = None
    """Behind the host, where it was looked up and the policy knows it."""
    http: HttpSeen | None = None
    """The request as the log wants it, from whoever reads HTTP in full."""
    openable: bool = True
    """Someone else can carry or answer the tunnel; False once that was tried and failed."""


@dataclass(frozen=True, slots=True)
class SocksConnect:
    """A CONNECT request of SOCKS 5: `host` is a name or an address."""

    host: str
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request, and every name that it and its connection show: hosts, URLs, addresses."""

    names: tuple[Sighting, ...]
    http: HttpSeen
    opened: bool
    """TLS ends here: it was read inside a connection that was opened."""
    ambiguous: bool = False
    """A server might read another request than was read here, or one more."""


@dataclass(frozen=True, slots=True)
class DnsQuestion:
    """A DNS question, before anyone else is asked."""

    asked: DnsArrival


@dataclass(frozen=True, slots=True)
class DnsResponse:
    """The answer to a question that was asked on, before it is passed back: time has gone by."""

    asked: DnsArrival
    members: tuple[Sighting, ...] | None = ()
    """The names to which it leads, as by aliases; None: it can't be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a connection that passed showed at its beginning: enough to decide about it again while it lasts."""

    visibility: Visibility
    name: str | None = None
    legible: tuple[str, ...] | None = None
    """What could be names of a server_name that is no host name; None: it is one, or there is none."""
    certificate: tuple[str, ...] | None = None
    """The names on the destination's certificate, where it was asked for that."""
    quic: bool = False
    """It came in datagrams."""


type FirstBytes = Hello | Unreadable | OtherBytes | HttpStart | ProxyConnect
type Seen = FirstBytes | Connect | SocksConnect | Request | DnsQuestion | DnsResponse | Shown
