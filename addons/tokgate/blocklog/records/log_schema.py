"""The JSON Schema of the block log: its fields, and which of them each action's records have.

Strict at every level: a field that isn't listed is an error. `schema/log.schema.json` is its output.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from tokgate.blocklog.records.log_fields import FIELDS, Schema, closed, enum_of
from tokgate.blocklog.records.record import ECS_VERSION, TRAFFIC, EventAction
from tokgate.blocklog.records.traffic import REFUSED
from tokgate.policy.decision import Reason


def log_schema() -> Schema:
    """The schema of one line of the log."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://tokgate.example/schema/log.schema.json",
        "title": "tokgate block log record",
        "description": f"One line of the block log: Elastic Common Schema {ECS_VERSION}, own fields under `tokgate`.",
        **closed(FIELDS, "@timestamp", "message", "ecs", "event", "observer"),
        "allOf": [
            *(_when(actions, needs) for actions, needs in _CONDITIONS),
            _when((_A.HTTP_REQUEST_BLOCKED,), {"url": ...}, unless=(Reason.UNREADABLE,)),
        ],
    }


def schema_text() -> str:
    """The JSON that `tokgate schema log` prints; `schema/log.schema.json` is its copy."""
    return json.dumps(log_schema(), indent=2, ensure_ascii=False) + "\n"


def _needs(tree: Mapping[str, Any]) -> Schema:
    """A schema that requires the tree's objects, keys and values; `...` stands for any value."""
    properties = {
        key: _needs(value) if isinstance(value, Mapping) else {"const": value}
        for key, value in tree.items()
        if value is not ...
    }
    return {"required": list(tree)} | ({"properties": properties} if properties else {})


def _when(actions: tuple[EventAction, ...], needs: Mapping[str, Any], *, unless: tuple[Reason, ...] = ()) -> Schema:
    """A condition: records of these actions, `unless` for one of these reasons, need the fields of the tree `needs`."""
    event: Schema = {"properties": {"action": enum_of(actions)}, "required": ["action"]}
    if unless:
        event["properties"]["code"] = {"not": enum_of(unless)}
    return {"if": {"properties": {"event": event}}, "then": _needs(needs)}


_DECIDED: Final = {"verdict": ..., "mode": ..., "reason": ..., "stage": ..., "visibility": ..., "mismatch": ...}
_A = EventAction
_CONDITIONS: Final[tuple[tuple[tuple[EventAction, ...], Mapping[str, Any]], ...]] = (
    (
        tuple(action for action in EventAction if action in TRAFFIC),
        {"source": ..., "network": ..., "event": {"code": ...}, "tokgate": _DECIDED | {"policy": {"version": ...}}},
    ),
    (
        tuple(REFUSED.values()),
        {"event": {"outcome": "success"}, "tokgate": {"verdict": "block", "mode": "enforce"}},
    ),
    ((_A.TLS_HANDSHAKE_REFUSED,), {"tls": {"established": False}, "network": {"protocol": "tls"}}),
    ((_A.TLS_OPENED,), {"tls": {"established": True}}),
    ((_A.QUIC_REFUSED,), {"tls": {"established": False}, "network": {"transport": "udp", "protocol": "quic"}}),
    ((_A.CONNECT_REFUSED,), {"network": {"protocol": ...}}),
    ((_A.HTTP_REQUEST_BLOCKED,), {"http": {"response": {"status_code": ...}}}),
    ((_A.HTTP_REQUEST_WARNED,), {"http": {"request": ...}, "url": ...}),
    ((_A.DNS_QUERY_BLOCKED,), {"dns": {"question": {"name": ...}, "response_code": ...}}),
    ((_A.WARNING_CONTINUED,), {"http": {"request": ...}, "url": ..., "tokgate": {"continued_until": ...}}),
    (
        (_A.HTTP_REQUEST_WARNED, _A.WARNING_CONTINUED, _A.CONNECTION_WARNED),
        {"tokgate": {"verdict": "warn", "mode": "warn", "ban": ...}},
    ),
    ((_A.CONNECTION_CUT,), {"tokgate": {"stage": "live"}}),
    ((_A.WOULD_BLOCK,), {"tokgate": {"verdict": "monitor", "mode": "monitor", "ban": ...}}),
    ((_A.EXEMPTION_USED,), {"tokgate": {"verdict": "allow", "mode": "exempt", "exemption": ..., "ban": ...}}),
    ((_A.PASSED_ON_ERROR,), {"tokgate": {"verdict": "allow", "mode": "error", "service": ...}}),
    ((_A.INTERNAL_ERROR,), {"event": {"outcome": "failure"}, "error": ..., "tokgate": {"where": ...}}),
    ((_A.STARTED,), {"process": ..., "tokgate": {"policy": {"version": ...}}}),
    ((_A.STOPPED,), {"process": ..., "event": {"reason": ...}}),
    ((_A.POLICY_LOADED,), {"event": {"outcome": "success"}, "tokgate": {"policy": {"version": ..., "bans": ...}}}),
    ((_A.POLICY_LOAD_FAILED,), {"event": {"outcome": "failure"}, "tokgate": {"policy": {"errors": ...}}}),
    ((_A.PHASE_CHANGED,), {"tokgate": {"ban": ..., "transition": ..., "due": ..., "networks": ..., "zone": ...}}),
    ((_A.BAN_NEAR_EXPIRY,), {"tokgate": {"ban": ..., "until": ..., "on_expiry": ..., "networks": ..., "zone": ...}}),
    (
        (_A.OVERRIDE_STARTED, _A.OVERRIDE_ENDED),
        {"tokgate": {"ban": ..., "exemption": ..., "exemption_reason": ..., "exemption_until": ...}},
    ),
    ((_A.OVERRIDE_ENDED,), {"event": {"reason": ...}}),
    ((_A.COVERAGE_COUNTED,), {"tokgate": {"coverage": ..., "judged": ..., "since": ...}}),
    (
        (_A.GATEWAY_DIFFERS, _A.GATEWAY_RESTORED, _A.CANARY_FAILED, _A.CANARY_RECOVERED),
        {"tokgate": {"gateway": {"differences": ...}}},
    ),
    ((_A.GATEWAY_DIFFERS, _A.CANARY_FAILED), {"event": {"outcome": "failure", "reason": ...}}),
    ((_A.GATEWAY_RESTORED, _A.CANARY_RECOVERED), {"event": {"outcome": "success"}}),
    ((_A.LOG_GAP,), {"event": {"outcome": "failure"}, "tokgate": {"gap": ...}}),
    ((_A.LOG_CONTINUED,), {"tokgate": {"continues": ...}}),
    ((_A.LOG_RECOVERED,), {"tokgate": {"torn": ...}}),
    ((_A.LOG_DELETED,), {"tokgate": {"deleted": ...}}),
    ((_A.ACCESS_LOG_ROTATED,), {"tokgate": {"access_log": ...}}),
    ((_A.LOG_FOREIGN,), {"event": {"outcome": "failure"}, "tokgate": {"foreign": ...}}),
    ((_A.LOG_CUT,), {"event": {"outcome": "failure"}, "tokgate": {"cut": ...}}),
    ((_A.CLOCK_SET_BACK, _A.CLOCK_SET_FORWARD), {"tokgate": {"clock": ...}}),
    ((_A.LOG_CHECKPOINT,), {"tokgate": {"checkpoint": ...}}),
)
