"""What a carrier does with traffic: closed unions, on which carriers `match` to the end. Values only."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QuicClose:
    """CONNECTION_CLOSE with TLS's `unrecognized_name`, and one sentence."""

    reason: str


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An HTTP response that names the ban (451 or 403)."""

    warning: bool = False
    """The ban only warns: a page with a button, for those requests for which someone waits."""


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """A complete DNS message to send to the client."""

    message: bytes


type Words = bytes | QuicClose | HttpAnswer | DnsAnswer | None
"""In the protocol that the client speaks: the octets with which a TCP connection ends, or what they are made of.

None where the protocol is unknown.
"""


@dataclass(frozen=True, slots=True)
class Terms:
    """The limits of an answer: `longest` in seconds, None without limit."""

    longest: int | None
    hides_nothing: bool
    """No ECH keys: the client is under a ban, and a name that is hidden can't be decided about."""


@dataclass(frozen=True, slots=True)
class Pass:
    """Carry it unchanged and unread; only now connect to the destination."""

    terms: Terms | None = None
    """The limits of a DNS answer."""
    watch: bool = False
    """The server may have the client say anew where it goes (TLS's HelloRetryRequest, a proxy): that is decided too."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Say no, and never contact the destination."""

    words: Words


@dataclass(frozen=True, slots=True)
class Open:
    """Read what is inside: of this one name, to answer with a page or to read URLs."""

    tls: bool = True
    """TLS has to be terminated first."""


@dataclass(frozen=True, slots=True)
class AskCertificate:
    """Ask the destination for its certificate, and decide with the names on it: nothing else says who it is."""

    host: str
    port: int


type CarrierAction = Pass | Refuse | Open | AskCertificate
