"""What is decided and why: closed sets whose values are the words used in YAML, the log and the documentation."""

from dataclasses import dataclass
from enum import StrEnum

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
    """Where a ban stands at an instant."""

    ANNOUNCED = "announced"
    MONITOR = "monitor"
    WARN = "warn"
    BLOCK = "block"
    EXPIRED = "expired"


class Signal(StrEnum):
    """Which identifier matched."""

    SNI = "sni"
    QUIC_SNI = "quic-sni"
    HTTP_HOST = "http-host"
    URL = "url"
    DNS_NAME = "dns-name"
    ADDRESS = "address"
    CERTIFICATE = "certificate"


class Response(StrEnum):
    """How a verdict is delivered."""

    REFUSE = "refuse"
    """TLS alert, QUIC close, DNS NXDOMAIN, plain 451: nothing is decrypted."""
    PAGE = "page"
    """This name only is decrypted, to show the 451 page."""
    INSPECT = "inspect"
    """An app store's own name under a ban with `inspect_stores`: decrypted to read the URL; other listings pass."""


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
    ECH_OUTER = "ech-outer"
    INTERNAL_ERROR = "internal-error"
    INVALID_QUERY = "invalid-query"


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict and why. Absent things are None; `next_change` is the first later instant at which any of this differs.

    Decisions are shared between queries that cannot be told apart: client, host and instant stay with the caller.
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
