"""Decisions and their reasons: closed sets whose values are the words used in YAML, the log and the documentation."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from whenever import Instant

from tokgate.policy.values import Word


class Verdict(Word):
    """What happens to the traffic, from mildest to strictest."""

    ALLOW = "allow", "It passes."
    MONITOR = "monitor", "It passes and is logged."
    WARN = "warn", "People are warned."
    BLOCK = "block", "It is refused."

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


class Response(Word):
    """How a verdict is delivered to the client."""

    REFUSE = "refuse", "The connection is refused; nothing is decrypted."
    """TLS alert, QUIC close, DNS NXDOMAIN, plain 451."""
    PAGE = (
        "page",
        "The banned name only is decrypted, to show a page: why (451; 403 without legal mandate), or a warning.",
    )
    INSPECT = "inspect", "Decrypted to read what is asked for."
    """An app store's own name under a ban with `inspect_stores`; other listings pass."""

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


class Reason(Word):
    """Why a decision is as it is. docs/policy.md documents each; the set is closed."""

    NO_SERVICE = "no-service", "The name belongs to no service."
    NO_BAN = "no-ban", "No ban covers it here."
    ANNOUNCED = "announced", "A ban has not started yet."
    OUTSIDE_WINDOW = "outside-window", "A ban is outside its windows."
    EXPIRED = "expired", "A ban has ended."
    EXEMPT = "exempt", "An exemption takes the client out of the ban."
    EXCEPTED = "excepted", "A ban on all leaves this service reachable."
    STORE_FRONT = "store-front", "A store's own host is opened to read the listing."
    BAN_MONITOR = "ban-monitor", "A ban only logs."
    BAN_WARN = "ban-warn", "A ban warns."
    BAN_BLOCK = "ban-block", "A ban blocks."
    BAN_OVERDUE = "ban-overdue", "A ban is held past its end."
    UNKNOWN_CLIENT = "unknown-client", "The client is in no network."
    INVALID_CLIENT = "invalid-client", "The client's address is none."
    INVALID_HOST = "invalid-host", "The name is no host name."
    MISSING_SNI = "missing-sni", "The ClientHello named no host."
    NAME_CHANGED = "name-changed", "The client named another host than before."
    UNREADABLE = "unreadable", "Nobody reads the traffic alike."
    ECH_OUTER = "ech-outer", "The real name was encrypted."
    INTERNAL_ERROR = "internal-error", "Deciding failed."
    INVALID_QUERY = "invalid-query", "The query could not be read."


HIDDEN: Final = frozenset(
    {Reason.MISSING_SNI, Reason.INVALID_HOST, Reason.NAME_CHANGED, Reason.UNREADABLE, Reason.ECH_OUTER}
)
"""Why traffic is refused that can't be read or hides its destination: no ban's refusal."""


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

    @property
    def is_unreadable(self) -> bool:
        """Whether it refuses what can't be read or hides its destination. Nothing says that this was a banned one."""
        return self.verdict is Verdict.BLOCK and self.ban is None and self.reason in HIDDEN
