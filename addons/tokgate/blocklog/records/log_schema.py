"""The JSON Schema of the block log: its fields, and which of them each action's records have.

Strict at every level: a field that isn't listed is an error. `schema/log.schema.json` is its output.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from tokgate.blocklog.records.record import ECS_VERSION, TRAFFIC, EventAction
from tokgate.blocklog.records.traffic import REFUSED
from tokgate.policy.analysis.timeline import TransitionKind
from tokgate.policy.bans import OnExpiry
from tokgate.policy.decision import HIDDEN, Phase, Reason, Response, Signal, Verdict
from tokgate.policy.observation import KernelRefusal, Passed, Stage, Transport, Visibility
from tokgate.policy.settings import EchOuter, MissingSni, OnError, UnknownClients

type Schema = dict[str, Any]


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
            _when((_A.UNREADABLE_REFUSED,), {}) | {"then": _UNREADABLE},
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


def _when(actions: tuple[EventAction, ...], needs: Mapping[str, Any]) -> Schema:
    """A condition: records of these actions need the fields of the tree `needs`."""
    event: Schema = {"properties": {"action": enum_of(actions)}, "required": ["action"]}
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
        {"tokgate": {"ban": ..., "exemption": ..., "exemption_reason": ..., "exemption_until": ...}},
    ),
    ((_A.OVERRIDE_ENDED,), {"event": {"reason": ...}}),
    (
        (_A.EXCEPTION_REQUESTED,),
        {"source": ..., "tokgate": {"ban": ..., "request": {"id": ..., "refusal": ..., "lasting": ...}}},
    ),
    (
        (_A.EXCEPTION_APPROVED,),
        {"tokgate": {"ban": ..., "request": {"id": ...}, "exemption": ..., "exemption_until": ...}},
    ),
    ((_A.EXCEPTION_DECLINED,), {"event": {"reason": ...}, "tokgate": {"ban": ..., "request": {"id": ...}}}),
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


def enum_of(words: type[StrEnum] | tuple[StrEnum | str, ...]) -> Schema:
    """A schema for one of the words of a closed set."""
    return {"enum": [str(word) for word in words]}


def _list_of(*words: str) -> Schema:
    return {"type": "array", "items": enum_of(words), "minItems": 1, "uniqueItems": True}


def closed(properties: Mapping[str, Any], *required: str) -> Schema:
    """An object with these properties and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


_UNREADABLE: Final[Schema] = {
    "required": ["source", "network"],
    "properties": {
        **dict.fromkeys(("rule", "url", "tls", "http", "dns", "user_agent"), False),
        "event": {
            "required": ["code"],
            "properties": {"code": enum_of(tuple(reason for reason in Reason if reason in HIDDEN)), "reason": False},
        },
        "destination": closed({"port": PORT, "bytes": COUNT}),
        "tokgate": {
            "required": ["reason", "stage", "visibility", "network", "policy"],
            "properties": dict.fromkeys(
                (
                    *("verdict", "phase", "service", "rule", "signal", "ban", "authority", "basis", "contact"),
                    *("until", "exemption", "response", "mismatch", "names", "alpn", "ja4"),
                ),
                False,
            ),
        },
    },
}
"""What a record of `unreadable-refused` has, and what it must not have: nothing of a ban, a host or an address."""
_ENDPOINT: Final = {"address": TEXT, "ip": IP, "port": PORT, "bytes": COUNT}
_DOMAIN: Final = {"domain": TEXT, "registered_domain": TEXT, "subdomain": TEXT, "top_level_domain": TEXT}
_TYPES: Final = ("access", "allowed", "change", "connection", "denied", "end", "error", "info", "protocol", "start")

_EVENT: Final = closed(
    {
        "id": UUID,
        "kind": {"const": "event"},
        "category": _list_of("configuration", "network", "process", "web"),
        "type": _list_of(*_TYPES),
        "action": enum_of(EventAction),
        "outcome": enum_of(("success", "failure")),
        "reason": TEXT,
        "code": enum_of(Reason),
        "module": {"const": "tokgate"},
        "dataset": enum_of(("tokgate.block", "tokgate.state", "tokgate.unreadable")),
        "sequence": POSITIVE,
        "hash": HASH,
    },
    *("id", "kind", "category", "type", "action", "outcome", "module", "dataset"),
)

_TOKGATE: Final = closed(
    {
        # The decision, as in `tokgate explain --json`.
        "verdict": enum_of(Verdict),
        "mode": enum_of(("enforce", "warn", "monitor", "exempt", "error")),
        "reason": enum_of(Reason),
        "phase": enum_of(Phase),
        "service": TEXT,
        "rule": TEXT,
        "signal": enum_of(Signal),
        **dict.fromkeys(("network", "ban", "authority", "basis", "contact"), TEXT),
        "until": TIME,
        "exemption": TEXT,
        "exemption_reason": TEXT,
        "exemption_until": TIME,
        "response": enum_of(Response),
        "next_change": TIME,
        "mismatch": FLAG,
        # What was seen.
        "stage": enum_of(Stage),
        "visibility": enum_of(Visibility),
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
        "passed": enum_of(Passed),
        "continued_until": TIME,
        "repeats": closed(
            {
                "count": POSITIVE,
                "first": TIME,
                "last": TIME,
                "of": UUID,
                "names": closed({"count": POSITIVE, "first": TEXTS}, "count", "first"),
            },
            *("count", "first", "last", "of"),
        ),
        # About tokgate itself.
        "policy": closed(
            {
                "version": TEXT,
                "replaced": TEXT,
                **dict.fromkeys(("services", "networks", "bans", "exemptions"), COUNT),
                **dict.fromkeys(("bans_begun", "bans_ended", "bans_lifted", "lifted_because", "bans_held"), TEXTS),
                "changes": TEXTS,
                "more_changes": POSITIVE,
                "weaker_settings": TEXTS,
                "commit": TEXT,
                "author": TEXT,
                "uncommitted": FLAG,
                "warnings": COUNT,
                "restart_needed": TEXTS,
                "errors": COUNT,
                "problems": TEXTS,
                "catalogue": closed({"version": TEXT, "services": TEXTS}, "version", "services"),
                "settings": closed(
                    {
                        "unknown_clients": enum_of(UnknownClients),
                        "on_error": enum_of(OnError),
                        "missing_sni": enum_of(MissingSni),
                        "ech_outer": enum_of(EchOuter),
                    },
                    *("unknown_clients", "on_error", "missing_sni", "ech_outer"),
                ),
            }
        ),
        "transition": enum_of(TransitionKind),
        "phase_before": enum_of(Phase),
        "due": TIME,
        "networks": TEXTS,
        "zone": TEXT,
        "on_expiry": enum_of(OnExpiry),
        "clients": TEXTS,
        "identified": TEXTS,
        "widest": closed({"ipv4": COUNT, "ipv6": COUNT}),
        **dict.fromkeys(("ticket", "by", "ended_by", "where"), TEXT),
        "request": closed({"id": UUID, "refusal": UUID, "lasting": TEXT, "why": TEXT}, "id", "refusal"),
        "coverage": {
            "type": "object",
            "additionalProperties": closed({visibility.value: POSITIVE for visibility in Visibility}),
        },
        "judged": closed(
            {"total": COUNT, "named": COUNT, "percent": {"type": "integer", "minimum": 0, "maximum": 100}},
            *("total", "named"),
        ),
        "since": TIME,
        "unreadable": POSITIVE,
        "in_force": TEXTS,
        "open": TEXTS,
        "gateway": closed({"differences": TEXTS, "refused": closed({kind.value: POSITIVE for kind in KernelRefusal})}),
        "gap": closed({"dropped": {"type": "integer", "minimum": 1}, "since": TIME, "until": TIME}, "dropped", "since"),
        "continues": closed(
            {"file": TEXT, "records": COUNT, "bytes": COUNT, "sequence": POSITIVE, "hash": HASH}, "records", "bytes"
        ),
        "torn": closed({"bytes": POSITIVE, "sha256": HASH, "lines": POSITIVE}, "bytes", "sha256"),
        "deleted": closed({"files": TEXTS, "days": POSITIVE, "follows": TEXT, "missed": TEXTS}, "files", "days"),
        "access_log": closed({"file": TEXT, "lines": POSITIVE, "sha256": HASH}, "file", "lines", "sha256"),
        "foreign": closed(
            {"bytes": POSITIVE, "sha256": HASH, "lines": POSITIVE, "line": POSITIVE, "file": TEXT, "running": FLAG},
            *("bytes", "sha256", "lines", "line", "file", "running"),
        ),
        "cut": closed({"sequence": POSITIVE, "hash": HASH}, "sequence", "hash"),
        "clock": closed({"before": TIME, "seconds": {"type": "number", "exclusiveMinimum": 0}}, "before", "seconds"),
        "chain": UUID,
        "checkpoint": closed(
            {
                "sequence": POSITIVE,
                "hash": HASH,
                "at": TIME,
                "epoch": COUNT,
                "key": TEXT,
                "next_key": TEXT,
                "tree": closed({"first": POSITIVE, "root": HASH}, "first", "root"),
                "signature": TEXT,
            },
            *("sequence", "hash", "at", "epoch", "key", "signature"),
        ),
    }
)

FIELDS: Final[Schema] = {
    "@timestamp": TIME,
    "message": TEXT,
    "ecs": closed({"version": {"const": ECS_VERSION}}, "version"),
    "event": _EVENT,
    "observer": closed(
        {
            "type": {"const": "proxy"},
            "vendor": {"const": "tokgate"},
            "product": {"const": "tokgate"},
            **dict.fromkeys(("version", "hostname", "name"), TEXT),
            "ingress": closed({"interface": closed({"name": TEXT}, "name")}, "interface"),
        },
        *("type", "vendor", "product", "version", "hostname"),
    ),
    "process": closed({"pid": POSITIVE}, "pid"),
    "user": closed({"name": TEXT}, "name"),
    "error": closed({"type": TEXT, "message": TEXT, "stack_trace": TEXT}, "type", "message"),
    "source": closed(_ENDPOINT | {"mac": MAC}),
    "destination": closed(_ENDPOINT | _DOMAIN),
    "network": closed(
        {
            "transport": enum_of(Transport),
            "protocol": enum_of(("tls", "quic", "http", "socks", "dns")),
            "type": enum_of(("ipv4", "ipv6")),
            "direction": {"const": "outbound"},
            "name": TEXT,
            "bytes": COUNT,
        },
        *("transport", "direction"),
    ),
    "tls": closed({"client": closed({"server_name": TEXT}), "established": FLAG}),
    "http": closed(
        {
            "version": TEXT,
            "request": closed({"method": TEXT}, "method"),
            "response": closed({"status_code": {"type": "integer", "minimum": 100, "maximum": 599}}),
        },
        "request",
    ),
    "url": closed({"scheme": TEXT, "domain": TEXT, "registered_domain": TEXT, "port": PORT, "path": TEXT}),
    "user_agent": closed({"original": TEXT}),
    "dns": closed(
        {
            "id": TEXT,
            "type": enum_of(("query", "answer")),
            "response_code": TEXT,
            "question": closed({"name": TEXT, "type": TEXT, "class": TEXT, "registered_domain": TEXT}),
        }
    ),
    "rule": closed(
        {
            **dict.fromkeys(("id", "name", "category", "ruleset", "version", "description", "reference"), TEXT),
            "uuid": UUID,
        },
        *("id", "name", "version", "uuid"),
    ),
    "related": closed({"ip": TEXTS, "hosts": TEXTS, "user": TEXTS}),
    "tokgate": _TOKGATE,
}
