"""Decisions and their reasons: closed sets whose values are the words used in YAML, the log and the documentation."""

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from whenever import Instant


class Verdict(StrEnum):
    """What happens to the traffic, from mildest to strictest."""

    ALLOW = "allow"
    MONITOR = "monitor"
    WARN = "warn"
    BLOCK = "block"

    @property
    def severity(self) -> int:
        """Rank for `the strictest wins`: higher is stricter."""
        return _SEVERITY[self]


_SEVERITY = {verdict: rank for rank, verdict in enumerate(Verdict)}


class Phase(StrEnum):
    """The phase of a ban at an instant, in the order in which phases follow each other."""

    ANNOUNCED = "announced"
    MONITOR = "monitor"
    WARN = "warn"
    BLOCK = "block"
    EXPIRED = "expired"


class Signal(StrEnum):
    """Which identifier of a connection was seen, or matched."""

    SNI = "sni"
    QUIC_SNI = "quic-sni"
    HTTP_HOST = "http-host"
    URL = "url"
    DNS_NAME = "dns-name"
    ADDRESS = "address"
    CERTIFICATE = "certificate"

    @property
    def is_url(self) -> bool:
        """Whether its values are URLs; those of all other signals are hosts."""
        match self:
            case Signal.URL:
                return True
            case (
                Signal.SNI | Signal.QUIC_SNI | Signal.HTTP_HOST | Signal.DNS_NAME | Signal.ADDRESS | Signal.CERTIFICATE
            ):
                return False
            case _:
                assert_never(self)


class Response(StrEnum):
    """How a verdict is delivered to the client."""

    REFUSE = "refuse"
    """TLS alert, QUIC close, DNS NXDOMAIN, plain 451: nothing is decrypted."""
    PAGE = "page"
    """This name only is decrypted, to show the 451 page."""
    INSPECT = "inspect"
    """An app store's own name under a ban with `inspect_stores`: decrypted to read the URL; other listings pass."""

    @property
    def shows_page(self) -> bool:
        """Whether the client gets an HTML page."""
        match self:
            case Response.PAGE:
                return True
            case Response.REFUSE | Response.INSPECT:
                return False
            case _:
                assert_never(self)

    @property
    def opens(self) -> bool:
        """Whether TLS must be terminated for it."""
        match self:
            case Response.PAGE | Response.INSPECT:
                return True
            case Response.REFUSE:
                return False
            case _:
                assert_never(self)


class Reason(StrEnum):
    """Why a decision is as it is. docs/policy.md documents each; the set is closed."""

    NO_SERVICE = "no-service"
    NO_BAN = "no-ban"
    ANNOUNCED = "announced"
    OUTSIDE_WINDOW = "outside-window"
    EXPIRED = "expired"
    EXEMPT = "exempt"
    STORE_FRONT = "store-front"
    BAN_MONITOR = "ban-monitor"
    BAN_WARN = "ban-warn"
    BAN_BLOCK = "ban-block"
    BAN_OVERDUE = "ban-overdue"
    UNKNOWN_CLIENT = "unknown-client"
    INVALID_CLIENT = "invalid-client"
    INVALID_HOST = "invalid-host"
    MISSING_SNI = "missing-sni"
    NAME_CHANGED = "name-changed"
    UNREADABLE = "unreadable"
    ECH_OUTER = "ech-outer"
    INTERNAL_ERROR = "internal-error"
    INVALID_QUERY = "invalid-query"


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict and its reason. `next_change` is the first later instant at which any other field differs.

    Queries that no policy can distinguish share one decision, so it holds no client, host or instant.
    """

    verdict: Verdict
    reason: Reason
    phase: Phase | None = None
    service: str | None = None
    rule: str | None = None
    signal: Signal | None = None
    network: str | None = None
    ban: str | None = None
    exemption: str | None = None
    response: Response | None = None
    next_change: Instant | None = None
