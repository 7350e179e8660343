"""What the wire showed of one event, in the same shape from the gate and from mitmproxy. Values only."""

from dataclasses import dataclass
from enum import StrEnum

from whenever import Instant

from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Signal
from tokgate.policy.identity import Identity


class Stage(StrEnum):
    """Where in a connection's life the decision took effect."""

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
    """In the middle of a connection that was allowed when it began."""


class Passed(StrEnum):
    """Why what a ban warns of passed without the page that the ban asks for."""

    CONTINUED = "continued"
    """The client has continued past the page."""
    NO_PAGE = "no-page"
    """No page can be shown: its software rejects our certificate, is no browser, or speaks neither TLS nor HTTP."""
    NO_NAVIGATION = "no-navigation"
    """A request that no person waits for: a part of a page, a form, a program's call."""


class Transport(StrEnum):
    """What carried it."""

    TCP = "tcp"
    UDP = "udp"


class Visibility(StrEnum):
    """What could be seen of a connection."""

    SNI = "sni"
    QUIC_SNI = "quic-sni"
    ECH_OUTER = "ech-outer"
    NONE = "none"
    DECRYPTED = "decrypted"
    DNS = "dns"
    ADDRESS = "address"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a connection; `ip` is an address in text."""

    ip: str
    port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSeen:
    """A ClientHello, over TCP or QUIC. `ech`: the extension was there (also as GREASE)."""

    alpn: tuple[str, ...] = ()
    ja4: str | None = None
    ech: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSeen:
    """A request and what it was answered with. `path` may carry a query: it is never logged."""

    method: str
    path: str | None = None
    scheme: str | None = None
    version: str | None = None
    """As in ECS: `1.1`, `2`, `3`."""
    status: int | None = None
    user_agent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsSeen:
    """A DNS question's type (`A`, `HTTPS`) and the code it was answered with (`NXDOMAIN`)."""

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
    """One event as seen: who, to where, and every name that was shown, by signal."""

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
    """Under a ban that warns with a page: why it passed without."""
    continued_until: Instant | None = None
    """The client continues past the page: until when it isn't shown again."""
    connection: str | None = None
    """The same for all events of one connection."""
    carried: Carried | None = None
    """Of a connection that was cut: how much had passed."""
    identity: Identity | None = None
    """Who the client is besides its address."""

    def name(self, *signals: Signal) -> str | None:
        """The first name shown by one of `signals`, as it was shown."""
        return next((seen.value for seen in self.names if seen.signal in signals), None)
