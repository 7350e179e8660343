"""Building blocks of records: the fields that all have, omitting absent values, and escaping untrusted text."""

from enum import StrEnum
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog.records.stamp import Stamp
from tokgate.policy.values.visible_text import escaped

Record = dict[str, Any]
"""One line of the log before it is serialised: ECS as nested objects. Not changed once it was passed on."""

ECS_VERSION: Final = "9.4.0"
MAX_TEXT: Final = 1024
"""Longest untrusted text in a record, in characters; Elasticsearch's default mapping indexes no more either."""


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
    GATEWAY_DIFFERS = "gateway-differs"
    GATEWAY_RESTORED = "gateway-restored"
    CANARY_FAILED = "canary-failed"
    CANARY_RECOVERED = "canary-recovered"
    LOG_GAP = "log-gap"
    LOG_CONTINUED = "log-continued"
    LOG_RECOVERED = "log-recovered"
    LOG_CHECKPOINT = "log-checkpoint"
    LOG_DELETED = "log-deleted"
    ACCESS_LOG_ROTATED = "access-log-rotated"
    LOG_FOREIGN = "log-foreign"
    LOG_CUT = "log-cut"
    CLOCK_SET_BACK = "clock-set-back"
    CLOCK_SET_FORWARD = "clock-set-forward"


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
"""Actions of records about a client's traffic; all others are about tokgate itself."""


def timestamp(at: Instant) -> str:
    """RFC 3339 in UTC with microseconds: always 27 characters, so that texts sort by time."""
    return at.format_iso(unit="microsecond")


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """Untrusted text with invisible characters escaped, cut to `limit` characters."""
    text = escaped(text[: limit + 1])
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
    """The fields that every record has. `kinds` is `event.type`; `event.outcome` of a refusal is `success`."""
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
    """The fields without None and empty text, lists and objects. False and 0 stay."""
    kept = {}
    for key, value in fields.items():
        inner = pruned(value) if isinstance(value, dict) else value
        if inner is not None and inner not in ("", [], {}):
            kept[key] = inner
    return kept
