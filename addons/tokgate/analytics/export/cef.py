"""Records as ArcSight Common Event Format, version 0: one line each.

https://www.microfocus.com/documentation/arcsight/arcsight-smartconnectors/ ("Implementing ArcSight CEF")
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029]")
_SEVERITY: Final = {"block": 6, "warn": 4, "monitor": 3, "allow": 2}
_STATE_SEVERITY: Final = {
    "log-gap": 8,
    "gateway-differs": 8,
    "canary-failed": 9,
    "internal-error": 8,
    "policy-load-failed": 7,
    "log-recovered": 7,
    "log-foreign": 10,
    "log-cut": 10,
}
_LEAST: Final = 1
_FIELDS: Final = {
    "externalId": "event_id",
    "cnt": "events",
    "spt": "client_port",
    "suser": "user",
    "dhost": "name",
    "dpt": "destination_port",
    "proto": "transport",
    "app": "protocol",
    "act": "verdict",
    "outcome": "outcome",
    "reason": "reason",
    "requestMethod": "method",
    "requestClientApplication": "user_agent",
    "dvchost": "gateway",
    "msg": "message",
}
_STRINGS: Final = ("ban", "network", "service", "rule", "signal", "exemption")
"""cs1 to cs6, each with its label."""


def cef_line(record: Mapping[str, Any]) -> str:
    """A row of `events` as one CEF line, with its newline. Absent fields are left out."""
    action = str(record.get("action", "unknown"))
    head = (
        "tokgate",
        "tokgate",
        record.get("version", "unknown"),
        action,
        _title(record, action),
        _severity(record, action),
    )
    return f"CEF:0|{'|'.join(_header(part) for part in head)}|{_extension(record)}\n"


def _title(record: Mapping[str, Any], action: str) -> str:
    return str(record.get("rule_title") or action)


def _severity(record: Mapping[str, Any], action: str) -> int:
    verdict = record.get("verdict")
    return _SEVERITY.get(verdict, _LEAST) if verdict else _STATE_SEVERITY.get(action, _LEAST)


def _extension(record: Mapping[str, Any]) -> str:
    pairs: dict[str, Any] = {"cat": "network" if record.get("traffic") else "tokgate"}
    for key, column in (("rt", "time"), ("start", "first_time"), ("end", "last_time")):
        if (at := record.get(column)) is not None:
            pairs[key] = milliseconds(at)
    pairs |= _address("src", "c6a2", "Source IPv6 Address", record.get("client"))
    pairs |= _address("dst", "c6a3", "Destination IPv6 Address", record.get("destination_ip"))
    pairs |= {key: record[column] for key, column in _FIELDS.items() if column in record}
    if "url_path" in record:
        pairs["request"] = f"{record.get('url_scheme', 'http')}://{record.get('name', '')}{record['url_path']}"
    for number, column in enumerate(_STRINGS, 1):
        if column in record:
            pairs |= {f"cs{number}": record[column], f"cs{number}Label": column}
    return " ".join(f"{key}={_value(value)}" for key, value in pairs.items())


def _address(key: str, custom: str, label: str, address: str | None) -> dict[str, str]:
    """`src` and `dst` hold IPv4 only; IPv6 has custom fields of its own."""
    if address is None:
        return {}
    return {custom: address, f"{custom}Label": label} if ":" in address else {key: address}


def milliseconds(at: datetime) -> int:
    """Milliseconds since the epoch of a datetime in UTC without `tzinfo`, as DuckDB returns it."""
    return int(at.replace(tzinfo=UTC).timestamp() * 1000)


def _header(value: Any) -> str:
    """A pipe would end the field; a line break would end the event."""
    return _CONTROL.sub(" ", str(value)).replace("\\", "\\\\").replace("|", "\\|")


def _value(value: Any) -> str:
    """An equals sign would begin a field; line breaks have escapes, other control characters none."""
    text = str(value).replace("\\", "\\\\").replace("=", "\\=").replace("\r", "\\r").replace("\n", "\\n")
    return _CONTROL.sub(" ", text)
