"""The JSON Schema of the block log, made from the closed sets the code uses: `schema/log.schema.json` is its output.

Strict at every level: a field that isn't listed here is an error, so a new one has to be documented first.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from tokgate.blocklog.document import ECS_VERSION, TRAFFIC, EventAction
from tokgate.blocklog.observation import Passed, Stage, Transport, Visibility
from tokgate.blocklog.records import REFUSED
from tokgate.policy.bans import EchOuter, MissingSni, OnError, OnExpiry, UnknownClients
from tokgate.policy.decision import Phase, Reason, Response, Signal, Verdict
from tokgate.policy.likeness import How
from tokgate.policy.timeline import Kind

type Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string", "minLength": 1}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
POSITIVE: Final[Schema] = {"type": "integer", "minimum": 1}
FLAG: Final[Schema] = {"type": "boolean"}
PORT: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": 65535}
TIME: Final[Schema] = {
    "type": "string",
    "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$",
}
UUID: Final[Schema] = {"type": "string", "format": "uuid", "pattern": r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}
HASH: Final[Schema] = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
IP: Final[Schema] = {"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}
MAC: Final[Schema] = {"type": "string", "pattern": "^[0-9A-F]{2}(-[0-9A-F]{2}){5}$"}
TEXTS: Final[Schema] = {"type": "array", "items": TEXT, "minItems": 1}


def log_schema() -> Schema:
    """The schema of one line of the log."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://tokgate.example/schema/log.schema.json",
        "title": "tokgate block log record",
        "description": f"One line of the block log: Elastic Common Schema {ECS_VERSION}, own fields under `tokgate`.",
        **_closed(_FIELDS, "@timestamp", "message", "ecs", "event", "observer"),
        "allOf": [_when(actions, needs) for actions, needs in _CONDITIONS],
    }


def schema_text() -> str:
    """What `tokgate schema log` prints and `schema/log.schema.json` holds."""
    return json.dumps(log_schema(), indent=2, ensure_ascii=False) + "\n"


def _enum(words: type[StrEnum] | tuple[str, ...]) -> Schema:
    return {"enum": [str(word) for word in words]}


def _list_of(*words: str) -> Schema:
    return {"type": "array", "items": _enum(words), "minItems": 1, "uniqueItems": True}


def _closed(properties: Mapping[str, Any], *required: str) -> Schema:
    """An object with these properties and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def _needs(tree: Mapping[str, Any]) -> Schema:
    """`{"tls": {"established": False}}`: that object must be there, with that key; `...` means any value."""
    properties = {
        key: _needs(value) if isinstance(value, Mapping) else {"const": value}
        for key, value in tree.items()
        if value is not ...
    }
    return {"required": list(tree)} | ({"properties": properties} if properties else {})


def _when(actions: tuple[EventAction, ...], needs: Mapping[str, Any]) -> Schema:
    """What records with one of these actions need."""
    action = {"properties": {"action": {"enum": [action.value for action in actions]}}, "required": ["action"]}
    return {"if": {"properties": {"event": action}}, "then": _needs(needs)}


_ENDPOINT: Final = {"address": TEXT, "ip": IP, "port": PORT, "bytes": COUNT}
_DOMAIN: Final = {"domain": TEXT, "registered_domain": TEXT, "subdomain": TEXT, "top_level_domain": TEXT}
_TYPES: Final = ("access", "allowed", "change", "connection", "denied", "end", "error", "info", "protocol", "start")

_EVENT: Final = _closed(
    {
        "id": UUID,
        "kind": {"const": "event"},
        "category": _list_of("configuration", "network", "process", "web"),
        "type": _list_of(*_TYPES),
        "action": _enum(EventAction),
        "outcome": _enum(("success", "failure")),
        "reason": TEXT,
        "code": _enum(Reason),
        "module": {"const": "tokgate"},
        "dataset": _enum(("tokgate.block", "tokgate.state")),
        "sequence": POSITIVE,
        "hash": HASH,
    },
    *("id", "kind", "category", "type", "action", "outcome", "module", "dataset"),
)

_TOKGATE: Final = _closed(
    {
        # What was decided, in the words of a decision (see `tokgate explain --json`).
        "verdict": _enum(Verdict),
        "mode": _enum(("enforce", "warn", "monitor", "exempt", "error")),
        "reason": _enum(Reason),
        "phase": _enum(Phase),
        "service": TEXT,
        "rule": TEXT,
        "signal": _enum(Signal),
        "network": TEXT,
        "ban": TEXT,
        "authority": TEXT,
        "basis": TEXT,
        "contact": TEXT,
        "until": TIME,
        "exemption": TEXT,
        "exemption_reason": TEXT,
        "exemption_until": TIME,
        "response": _enum(Response),
        "next_change": TIME,
        "mismatch": FLAG,
        # What was seen.
        "stage": _enum(Stage),
        "visibility": _enum(Visibility),
        "connection": TEXT,
        "names": {
            "type": "object",
            "properties": {signal.value: TEXTS for signal in Signal},
            "additionalProperties": False,
        },
        "groups": TEXTS,
        "alpn": TEXTS,
        "ja4": TEXT,
        "ech": FLAG,
        "passed": _enum(Passed),
        "continued_until": TIME,
        "repeats": _closed(
            {"count": POSITIVE, "first": TIME, "last": TIME, "of": UUID}, "count", "first", "last", "of"
        ),
        # About tokgate itself.
        "policy": _closed(
            {
                "version": TEXT,
                "replaced": TEXT,
                "services": COUNT,
                "networks": COUNT,
                "bans": COUNT,
                "exemptions": COUNT,
                "warnings": COUNT,
                "restart_needed": TEXTS,
                "errors": COUNT,
                "problems": TEXTS,
                "settings": _closed(
                    {
                        "unknown_clients": _enum(UnknownClients),
                        "on_error": _enum(OnError),
                        "missing_sni": _enum(MissingSni),
                        "ech_outer": _enum(EchOuter),
                    },
                    *("unknown_clients", "on_error", "missing_sni", "ech_outer"),
                ),
            }
        ),
        "transition": _enum(Kind),
        "phase_before": _enum(Phase),
        "due": TIME,
        "networks": TEXTS,
        "zone": TEXT,
        "on_expiry": _enum(OnExpiry),
        "clients": TEXTS,
        "widest": _closed({"ipv4": COUNT, "ipv6": COUNT}),
        "ticket": TEXT,
        "by": TEXT,
        "ended_by": TEXT,
        "where": TEXT,
        "coverage": {
            "type": "object",
            "additionalProperties": _closed({visibility.value: POSITIVE for visibility in Visibility}),
        },
        "judged": _closed(
            {"total": COUNT, "named": COUNT, "percent": {"type": "integer", "minimum": 0, "maximum": 100}},
            *("total", "named"),
        ),
        "since": TIME,
        "near_misses": _closed(
            {
                "names": {
                    "type": "array",
                    "minItems": 1,
                    "items": _closed(
                        {"name": TEXT, "service": TEXT, "word": TEXT, "how": _enum(How), "count": POSITIVE},
                        *("name", "service", "word", "how", "count"),
                    ),
                },
                "more": POSITIVE,
            },
            "names",
        ),
        "gap": _closed(
            {"dropped": {"type": "integer", "minimum": 1}, "since": TIME, "until": TIME}, "dropped", "since"
        ),
        "continues": _closed(
            {"file": TEXT, "records": COUNT, "bytes": COUNT, "sequence": POSITIVE, "hash": HASH}, "records", "bytes"
        ),
        "torn": _closed({"bytes": POSITIVE, "sha256": HASH, "lines": POSITIVE}, "bytes", "sha256"),
        "deleted": _closed({"files": TEXTS, "days": POSITIVE}, "files", "days"),
        "chain": UUID,
        "checkpoint": _closed(
            {
                "sequence": POSITIVE,
                "hash": HASH,
                "at": TIME,
                "epoch": COUNT,
                "key": TEXT,
                "next_key": TEXT,
                "signature": TEXT,
            },
            *("sequence", "hash", "at", "epoch", "key", "signature"),
        ),
    }
)

_FIELDS: Final[Schema] = {
    "@timestamp": TIME,
    "message": TEXT,
    "ecs": _closed({"version": {"const": ECS_VERSION}}, "version"),
    "event": _EVENT,
    "observer": _closed(
        {
            "type": {"const": "proxy"},
            "vendor": {"const": "tokgate"},
            "product": {"const": "tokgate"},
            "version": TEXT,
            "hostname": TEXT,
            "name": TEXT,
            "ingress": _closed({"interface": _closed({"name": TEXT}, "name")}, "interface"),
        },
        *("type", "vendor", "product", "version", "hostname"),
    ),
    "process": _closed({"pid": POSITIVE}, "pid"),
    "user": _closed({"name": TEXT}, "name"),
    "error": _closed({"type": TEXT, "message": TEXT, "stack_trace": TEXT}, "type", "message"),
    "source": _closed(_ENDPOINT | {"mac": MAC}),
    "destination": _closed(_ENDPOINT | _DOMAIN),
    "network": _closed(
        {
            "transport": _enum(Transport),
            "protocol": _enum(("tls", "quic", "http", "socks", "dns")),
            "type": _enum(("ipv4", "ipv6")),
            "direction": {"const": "outbound"},
            "name": TEXT,
            "bytes": COUNT,
        },
        *("transport", "direction"),
    ),
    "tls": _closed({"client": _closed({"server_name": TEXT}), "established": FLAG}),
    "http": _closed(
        {
            "version": TEXT,
            "request": _closed({"method": TEXT}, "method"),
            "response": _closed({"status_code": {"type": "integer", "minimum": 100, "maximum": 599}}),
        },
        "request",
    ),
    "url": _closed({"scheme": TEXT, "domain": TEXT, "registered_domain": TEXT, "port": PORT, "path": TEXT}),
    "user_agent": _closed({"original": TEXT}),
    "dns": _closed(
        {
            "id": TEXT,
            "type": _enum(("query", "answer")),
            "response_code": TEXT,
            "question": _closed({"name": TEXT, "type": TEXT, "class": TEXT, "registered_domain": TEXT}),
        }
    ),
    "rule": _closed(
        {
            "id": TEXT,
            "name": TEXT,
            "category": TEXT,
            "ruleset": TEXT,
            "version": TEXT,
            "description": TEXT,
            "reference": TEXT,
            "uuid": UUID,
        },
        *("id", "name", "version", "uuid"),
    ),
    "related": _closed({"ip": TEXTS, "hosts": TEXTS, "user": TEXTS}),
    "tokgate": _TOKGATE,
}

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
    ((_A.HTTP_REQUEST_BLOCKED,), {"http": {"response": {"status_code": ...}}, "url": ...}),
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
        {"tokgate": {"ban": ..., "exemption": ..., "exemption_reason": ..., "exemption_until": ..., "clients": ...}},
    ),
    ((_A.OVERRIDE_ENDED,), {"event": {"reason": ...}}),
    ((_A.COVERAGE_COUNTED,), {"tokgate": {"coverage": ..., "judged": ..., "since": ...}}),
    ((_A.NEAR_MISSES,), {"tokgate": {"near_misses": ..., "since": ...}}),
    ((_A.LOG_GAP,), {"event": {"outcome": "failure"}, "tokgate": {"gap": ...}}),
    ((_A.LOG_CONTINUED,), {"tokgate": {"continues": ...}}),
    ((_A.LOG_RECOVERED,), {"tokgate": {"torn": ...}}),
    ((_A.LOG_DELETED,), {"tokgate": {"deleted": ...}}),
    ((_A.LOG_CHECKPOINT,), {"tokgate": {"checkpoint": ...}}),
)
