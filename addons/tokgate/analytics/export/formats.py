"""Rows as CSV and JSON, and records about traffic as OCSF 1.8.

Times in CSV and JSON are RFC 3339 in UTC; absent values are empty in CSV and null in JSON. OCSF's classes are Network,
HTTP and DNS Activity with the security control profile: https://schema.ocsf.io/1.8.0/classes/network_activity,
…/http_activity, …/dns_activity, …/profiles/security_control
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final, TextIO
from uuid import UUID

from tokgate.analytics.sql import QueryResult, Row, rfc3339
from tokgate.blocklog.records.record import EventAction

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""First characters of a cell that a spreadsheet evaluates (https://owasp.org/www-community/attacks/CSV_Injection)."""


def write_csv(answer: QueryResult, stream: TextIO) -> None:
    """Write RFC 4180 CSV with a header. Text that a spreadsheet would evaluate is prefixed with an apostrophe."""
    writer = csv.writer(stream, lineterminator="\r\n")
    writer.writerow(answer.columns)
    writer.writerows([_cell(value) for value in row] for row in answer.rows)


def json_lines(answer: QueryResult) -> Iterator[str]:
    """One JSON object for each row, with its newline."""
    parsed = [kind == "JSON" for kind in answer.types]
    for row in answer.rows:
        fields = {
            name: _parsed(value) if is_json else plain(value)
            for name, value, is_json in zip(answer.columns, row, parsed, strict=True)
        }
        yield json.dumps(fields, ensure_ascii=False) + "\n"


def plain(value: Any) -> Any:
    """A value that DuckDB returned as a value that JSON can hold."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if value - value == 0 else None  # JSON knows neither infinity nor NaN
        case datetime():
            return rfc3339(value)
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case list() | tuple() | set():
            return [plain(entry) for entry in value]
        case dict():
            return {str(key): plain(entry) for key, entry in value.items()}
        case bytes():
            return value.hex()
        case date() | time() | timedelta() | UUID():
            return str(value)
    return str(value)


def rows_as_records(columns: tuple[str, ...], rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """Rows as dicts by column name, without absent values."""
    for row in rows:
        yield {name: value for name, value in zip(columns, row, strict=True) if value is not None}


def _parsed(value: str | None) -> Any:
    try:
        return None if value is None else json.loads(value)
    except ValueError:
        return value


def _cell(value: Any) -> str:
    value = plain(value)
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return f"'{value}" if value.startswith(_FORMULA) else value
        case list() | dict():
            return json.dumps(value, ensure_ascii=False)
    return str(value)


VERSION: Final = "1.8.0"

_NETWORK, _HTTP, _DNS = 4001, 4002, 4003
_CLASS_NAMES: Final = {_NETWORK: "Network Activity", _HTTP: "HTTP Activity", _DNS: "DNS Activity"}
_ACTIVITIES: Final = {
    _NETWORK: {1: "Open", 3: "Reset", 5: "Refuse", 6: "Traffic"},
    _HTTP: {1: "Connect", 2: "Delete", 3: "Get", 4: "Head", 5: "Options", 6: "Post", 7: "Put", 8: "Trace", 9: "Patch"},
    _DNS: {1: "Query", 2: "Response"},
}
_OTHER: Final = 99
_ACTION: Final = {"block": (2, "Denied"), "warn": (3, "Observed"), "monitor": (3, "Observed"), "allow": (1, "Allowed")}
_DISPOSITION: Final = {
    "block": (2, "Blocked"), "warn": (19, "Alert"), "monitor": (17, "Logged"), "allow": (1, "Allowed"),
}  # fmt: skip
_SEVERITY: Final = {"block": (3, "Medium"), "warn": (2, "Low")}
_INFORMATIONAL: Final = (1, "Informational")
_UNKNOWN: Final = (0, "Unknown")
_PROTOCOL: Final = {"tcp": 6, "udp": 17}
_RCODES: Final = {
    "NOERROR": (0, "NoError"),
    "SERVFAIL": (2, "ServError"),
    "NXDOMAIN": (3, "NXDomain"),
    "REFUSED": (5, "Refused"),
}
_FOR_UNMAPPED: Final = (
    "mode", "phase", "reason", "signal", "stage", "visibility", "network", "service", "rule", "response", "authority",
    "basis", "exemption", "exemption_reason", "mismatch", "ech", "ja4", "repeats_of", "chain", "hash",
)  # fmt: skip
"""Columns without an OCSF attribute; they go under `unmapped`, as OCSF specifies."""


def ocsf_event(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """A row of `events` as an OCSF event; None for records about tokgate itself, which these classes don't cover."""
    if not record.get("traffic"):
        return None
    kind = _class_of(record)
    activity, activity_name = _activity(kind, record)
    verdict = str(record.get("verdict"))
    severity, severity_name = _SEVERITY.get(verdict, _INFORMATIONAL)
    action, action_name = _ACTION.get(verdict, _UNKNOWN)
    disposition, disposition_name = _DISPOSITION.get(verdict, _UNKNOWN)
    succeeded = record.get("outcome") == "success"
    event = {
        "category_uid": 4,
        "category_name": "Network Activity",
        "class_uid": kind,
        "class_name": _CLASS_NAMES[kind],
        "activity_id": activity,
        "activity_name": activity_name,
        "type_uid": kind * 100 + activity,
        "type_name": f"{_CLASS_NAMES[kind]}: {activity_name}",
        "time": _ms(record, "time") or 0,
        "start_time": _ms(record, "first_time"),
        "end_time": _ms(record, "last_time"),
        "count": record.get("events"),
        "severity_id": severity,
        "severity": severity_name,
        "status_id": 1 if succeeded else 2,
        "status": "Success" if succeeded else "Failure",
        "status_detail": record.get("reason"),
        "message": record.get("message"),
        "action_id": action,
        "action": action_name,
        "disposition_id": disposition,
        "disposition": disposition_name,
        "is_alert": verdict in ("block", "warn"),
        "metadata": _metadata(record),
        "firewall_rule": _rule(record),
        "policy": {"uid": record.get("policy"), "name": "tokgate policy", "version": record.get("policy")},
        "src_endpoint": {"ip": record.get("client"), "port": record.get("client_port"), "zone": record.get("network")},
        "dst_endpoint": _destination(record),
        "connection_info": _connection(record),
        "unmapped": {"tokgate": {name: record.get(name) for name in _FOR_UNMAPPED}},
    }
    return _present(event | _of_class(kind, record))


def _class_of(record: Mapping[str, Any]) -> int:
    if record.get("dns_type") or record.get("dns_code") or record.get("action") == EventAction.DNS_QUERY_BLOCKED:
        return _DNS
    return _HTTP if record.get("method") else _NETWORK


def _activity(kind: int, record: Mapping[str, Any]) -> tuple[int, str]:
    if kind == _HTTP:
        method = str(record.get("method")).title()
        found = next((number for number, name in _ACTIVITIES[_HTTP].items() if name == method), _OTHER)
    elif kind == _DNS:
        found = 2 if record.get("dns_code") else 1
    elif record.get("action") == EventAction.CONNECTION_CUT:
        found = 3
    elif record.get("verdict") == "block":
        found = 5 if record.get("action") != EventAction.TLS_OPENED else 6
    else:
        found = 1
    return found, _ACTIVITIES[kind].get(found, "Other")


def _metadata(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "version": VERSION,
        "profiles": ["security_control"],
        "uid": record.get("event_id"),
        "event_code": record.get("action"),
        "sequence": record.get("sequence"),
        "log_name": "tokgate block log",
        "log_provider": record.get("gateway"),
        "product": {"name": "tokgate", "vendor_name": "tokgate", "version": record.get("version")},
    }


def _rule(record: Mapping[str, Any]) -> dict[str, Any]:
    if "ban" not in record:
        return {}
    return {
        "uid": record["ban"],
        "name": record.get("rule_title"),
        "category": record.get("service"),
        "desc": record.get("basis"),
        "version": record.get("policy"),
        "condition": record.get("rule"),
        "match_details": [record["name"]] if "name" in record else None,
    }


def _destination(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "hostname": record.get("name"),
        "domain": record.get("registered_domain"),
        "ip": record.get("destination_ip"),
        "port": record.get("destination_port"),
        "svc_name": record.get("service"),
    }


def _connection(record: Mapping[str, Any]) -> dict[str, Any]:
    client = str(record.get("client", ""))
    version = 6 if ":" in client else 4 if "." in client else 0
    return {
        "direction_id": 2,
        "direction": "Outbound",
        "protocol_name": record.get("transport"),
        "protocol_num": _PROTOCOL.get(str(record.get("transport"))),
        "protocol_ver_id": version,
        "uid": record.get("connection"),
    }


def _of_class(kind: int, record: Mapping[str, Any]) -> dict[str, Any]:
    if kind == _DNS:
        code = record.get("dns_code")
        number, name = _RCODES.get(str(code), (_OTHER, code))
        answered = {} if code is None else {"rcode_id": number, "rcode": name}
        asked = {"hostname": record.get("name"), "type": record.get("dns_type"), "class": "IN"}
        return {"query": asked, **answered}
    if kind == _HTTP:
        said = {"http_method": record.get("method"), "user_agent": record.get("user_agent"), "url": _url(record)}
        return {"http_request": said, "http_response": {"code": record.get("status")}}
    return {}


def _url(record: Mapping[str, Any]) -> dict[str, Any]:
    """The target of a request: of CONNECT the authority (RFC 9110 §9.3.6). OCSF wants `url_string` of every URL."""
    host, port, path = (
        record.get("name") or record.get("destination_ip"),
        record.get("destination_port"),
        record.get("url_path"),
    )
    scheme = record.get("url_scheme")
    if host is None:
        return {}
    shown = f"[{host}]" if ":" in host else host
    authority = shown if port is None else f"{shown}:{port}"
    text = f"{scheme}://{shown}{path or '/'}" if scheme else authority
    return {"scheme": scheme, "hostname": host, "path": path, "port": port, "url_string": text}


def _ms(record: Mapping[str, Any], column: str) -> int | None:
    """Milliseconds since the epoch of an instant that DuckDB returned: UTC, without `tzinfo`."""
    at = record.get(column)
    return None if at is None else int(at.replace(tzinfo=UTC).timestamp() * 1000)


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields without None, empty text, lists and objects."""
    kept = {key: _present(value) if isinstance(value, dict) else value for key, value in fields.items()}
    return {key: value for key, value in kept.items() if value is not None and value not in ("", {}, [])}
