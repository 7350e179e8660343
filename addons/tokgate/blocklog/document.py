"""How a record is put together: the frame that all share, what is left out, and outside text made safe to print."""

from enum import StrEnum
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog.stamp import Stamp

Record = dict[str, Any]
"""One line of the log before it is serialised: ECS as nested objects. Nobody changes it once it was handed on."""

ECS_VERSION: Final = "9.4.0"
MAX_TEXT: Final = 1024
"""Longest text kept of anything that came from outside; Elasticsearch's default mapping indexes no more either."""


class EventAction(StrEnum):
    """`event.action`: what happened. Closed; docs/log.md explains each."""

    TLS_HANDSHAKE_REFUSED = "tls-handshake-refused"
    TLS_OPENED = "tls-opened"
    QUIC_REFUSED = "quic-refused"
    CONNECT_REFUSED = "connect-refused"
    HTTP_REQUEST_BLOCKED = "http-request-blocked"
    HTTP_REQUEST_WARNED = "http-request-warned"
    WARNING_CONTINUED = "warning-continued"
    DNS_QUERY_BLOCKED = "dns-query-blocked"
    CONNECTION_REFUSED = "connection-refused"
    CONNECTION_WARNED = "connection-warned"
    CONNECTION_CUT = "connection-cut"
    WOULD_BLOCK = "would-block"
    EXEMPTION_USED = "exemption-used"
    PASSED_ON_ERROR = "passed-on-error"
    INTERNAL_ERROR = "internal-error"
    STARTED = "started"
    STOPPED = "stopped"
    POLICY_LOADED = "policy-loaded"
    POLICY_LOAD_FAILED = "policy-load-failed"
    PHASE_CHANGED = "phase-changed"
    BAN_NEAR_EXPIRY = "ban-near-expiry"
    OVERRIDE_STARTED = "override-started"
    OVERRIDE_ENDED = "override-ended"
    COVERAGE_COUNTED = "coverage-counted"
    NEAR_MISSES = "near-misses"
    LOG_GAP = "log-gap"
    LOG_CONTINUED = "log-continued"
    LOG_RECOVERED = "log-recovered"
    LOG_CHECKPOINT = "log-checkpoint"
    LOG_DELETED = "log-deleted"


TRAFFIC: Final = frozenset(
    {
        EventAction.TLS_HANDSHAKE_REFUSED,
        EventAction.TLS_OPENED,
        EventAction.QUIC_REFUSED,
        EventAction.CONNECT_REFUSED,
        EventAction.HTTP_REQUEST_BLOCKED,
        EventAction.HTTP_REQUEST_WARNED,
        EventAction.WARNING_CONTINUED,
        EventAction.DNS_QUERY_BLOCKED,
        EventAction.CONNECTION_REFUSED,
        EventAction.CONNECTION_WARNED,
        EventAction.CONNECTION_CUT,
        EventAction.WOULD_BLOCK,
        EventAction.EXEMPTION_USED,
        EventAction.PASSED_ON_ERROR,
    }
)
"""Actions that name a client and what it asked for; all others are about tokgate itself."""


def timestamp(at: Instant) -> str:
    """RFC 3339 in UTC with microseconds: always 27 characters, so that text sorts as time."""
    return at.format_iso(unit="microsecond")


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """Text from outside, safe to print and to store: unprintable characters escaped, cut to `limit` characters."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[:limit])
    return text if len(text) <= limit else text[: limit - 1] + "…"


def frame(
    stamp: Stamp,
    action: EventAction,
    message: str,
    *,
    category: tuple[str, ...],
    kinds: tuple[str, ...],
    succeeded: bool = True,
    reason: str | None = None,
    code: str | None = None,
) -> Record:
    """What every record has. `kinds` is `event.type`; a refusal that worked has `succeeded`, as ECS sees it."""
    observer = stamp.observer
    return {
        "@timestamp": timestamp(stamp.at),
        "message": message,
        "ecs": {"version": ECS_VERSION},
        "event": pruned(
            {
                "id": stamp.id,
                "kind": "event",
                "category": list(category),
                "type": list(kinds),
                "action": action.value,
                "outcome": "success" if succeeded else "failure",
                "reason": reason,
                "code": code,
                "module": "tokgate",
                "dataset": "tokgate.block" if action in TRAFFIC else "tokgate.state",
            }
        ),
        "observer": pruned(
            {
                "type": "proxy",
                "vendor": "tokgate",
                "product": "tokgate",
                "version": observer.version,
                "hostname": observer.hostname,
                "name": observer.name,
            }
        ),
    }


def pruned(fields: dict[str, Any]) -> dict[str, Any]:
    """Without what is absent: None and empty text, lists and objects. False and 0 say something, so they stay."""
    kept = {}
    for key, value in fields.items():
        inner = pruned(value) if isinstance(value, dict) else value
        if inner is not None and inner not in ("", [], {}):
            kept[key] = inner
    return kept
