"""What was seen of one event on the wire, in the same form from gates and from mitmproxy. Values only."""

from dataclasses import dataclass
from enum import StrEnum

from whenever import Instant

from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Signal
from tokgate.policy.membership import Identity


class Stage(StrEnum):
    """The point of a connection at which the decision took effect."""

    TLS = "tls"
    """At a ClientHello over TCP."""
    QUIC = "quic"
    """At a ClientHello in QUIC Initial packets."""
    CONNECT = "connect"
    """At an explicit proxy request, before any tunnel."""
    HTTP = "http"
    """At a request that could be read: plain, or inside a connection that was opened."""
    DNS = "dns"
    """At a DNS question."""
    ADDRESS = "address"
    """At a connection's first packet, by address alone."""
    LIVE = "live"
    """During a connection that was allowed when it began."""


class Passed(StrEnum):
    """Why traffic under a ban that warns with a page passed without the page."""

    CONTINUED = "continued"
    """The client has continued past the page."""
    NO_PAGE = "no-page"
    """No page can be shown: the client rejects our certificate, is no browser, or speaks neither TLS nor HTTP."""
    NO_NAVIGATION = "no-navigation"
    """The request is no navigation: a part of a page, a form, a program's call."""


class Transport(StrEnum):
    """The transport protocol of a connection."""

    TCP = "tcp"
    UDP = "udp"


class Visibility(StrEnum):
    """What identified the destination of a connection; docs/log.md explains each value."""

    SNI = "sni"
    QUIC_SNI = "quic-sni"
    ECH_OUTER = "ech-outer"
    NONE = "none"
    DECRYPTED = "decrypted"
    DNS = "dns"
    ADDRESS = "address"
    UNREADABLE = "unreadable"
    """What some server might read as TLS, QUIC or HTTP, and can't be read here."""


class KernelRefusal(StrEnum):
    """What the kernel of a gateway refuses, so that no gate sees it; it is counted in packets."""

    QUIC = "quic"
    """To port 443, where no gate takes it."""
    QUIC_OTHER_PORTS = "quic_other_ports"
    UDP_TO_ADDRESSES = "udp_to_addresses"
    """To addresses of services under a ban that blocks."""
    TCP_PAST_GATES = "tcp_past_gates"
    """Of connections that no gate has: none listens, or they are older than the rules."""
    NOT_EXCEPTED = "not_excepted"
    """Of clients under a ban on all: what no gate takes, of any protocol and port."""
    UNKNOWN_CLIENTS = "unknown_clients"
    """Of clients in no network, where the policy refuses those."""
    DESTINATION_FAILED = "destination_failed"
    """To what has just failed for the same client."""
    DIALLED_DIRECTLY = "dialled_directly"
    """To a gate's own port."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a connection; `ip` is an address in text."""

    ip: str
    port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSeen:
    """A ClientHello over TCP or QUIC. `ech`: it had the extension encrypted_client_hello (RFC 9849), also as GREASE."""

    alpn: tuple[str, ...] = ()
    ja4: str | None = None
    ech: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSeen:
    """An HTTP request, and the status of the answer. `path` may hold a query, which is never logged."""

    method: str
    path: str | None = None
    scheme: str | None = None
    version: str | None = None
    """ECS `http.version`: `1.1`, `2`, `3`."""
    status: int | None = None
    user_agent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsSeen:
    """A DNS question's type (`A`, `HTTPS`) and the code of the answer (`NXDOMAIN`)."""

    id: int | None = None
    type: str | None = None
    response_code: str | None = None


@dataclass(frozen=True, slots=True)
class Carried:
    """Octets that a connection has carried: from the client (`up`) and to it (`down`)."""

    up: int
    down: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One event as seen: the client, the destination, and every name with its signal."""

    client: Endpoint
    stage: Stage
    visibility: Visibility
    destination: Endpoint | None = None
    transport: Transport = Transport.TCP
    names: tuple[Sighting, ...] = ()
    tls: TlsSeen | None = None
    http: HttpSeen | None = None
    dns: DnsSeen | None = None
    opened: bool = False
    """TLS was terminated here, so that a page could be shown."""
    passed: Passed | None = None
    """Under a ban that warns with a page: why none was shown."""
    continued_until: Instant | None = None
    """After the client continued past the page: until when the page isn't shown again."""
    connection: str | None = None
    """The same for all events of one connection."""
    carried: Carried | None = None
    """What a connection had carried when it was cut."""
    identity: Identity | None = None

    def name(self, *signals: Signal) -> str | None:
        """The first name that was seen by one of `signals`, unchanged."""
        return next((seen.value for seen in self.names if seen.signal in signals), None)
