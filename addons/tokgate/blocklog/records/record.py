"""A record: the fields that all have, its line of JSON, reading fields of any record, and phrases for messages."""

import json
import os
import re
import socket
import uuid
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from typing import Any, Final

from whenever import Instant

from tokgate.policy.bans import Ban
from tokgate.policy.values.text import escaped

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
    UNREADABLE_REFUSED = "unreadable-refused"
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
    EXCEPTION_REQUESTED = "exception-requested"
    EXCEPTION_APPROVED = "exception-approved"
    EXCEPTION_DECLINED = "exception-declined"
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
"""Actions of records about a client's traffic under a ban; all others but one are about tokgate itself."""
_DATASETS: Final = dict.fromkeys(TRAFFIC, "tokgate.block") | {EventAction.UNREADABLE_REFUSED: "tokgate.unreadable"}


_RAND_A: Final = (1 << 12) - 1
_RAND_B: Final = (1 << 62) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Observer:
    """The machine, the version of tokgate, and the worker process (`name`), if there are several."""

    hostname: str
    version: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Stamp:
    """`event.id`, `@timestamp` and observer of a record. The block page shows the id, so it is made beforehand."""

    id: str
    at: Instant
    observer: Observer


def new_event_id(at: Instant) -> str:
    """A UUIDv7 (RFC 9562 §5.7), which sorts by time."""
    random = int.from_bytes(os.urandom(10))
    millis = at.timestamp(unit="millisecond") & ((1 << 48) - 1)
    value = millis << 80 | 0x7 << 76 | (random & _RAND_A) << 64 | 0b10 << 62 | (random >> 12 & _RAND_B)
    return str(uuid.UUID(int=value))


def new_stamp(at: Instant, observer: Observer) -> Stamp:
    return Stamp(new_event_id(at), at, observer)


def this_observer(name: str | None = None) -> Observer:
    """This machine and the installed version; `unknown` if tokgate runs from source without being installed."""
    return Observer(hostname=socket.gethostname(), version=installed_version() or "unknown", name=name)


def installed_version() -> str | None:
    """The version of the installed package; None where tokgate runs from its source folder."""
    try:
        return metadata.version("tokgate")
    except metadata.PackageNotFoundError:
        return None


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
    category: tuple[str, ...] = ("configuration",),
    kinds: tuple[str, ...] = ("change",),
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
                "dataset": _DATASETS.get(action, "tokgate.state"),
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


def value_at(record: object, *path: str) -> object:
    """The value at `path`, or None. Records of other versions or programs may lack any field or have other types."""
    for key in path:
        if not isinstance(record, dict):
            return None
        record = record.get(key)
    return record


def text_at(record: object, *path: str) -> str | None:
    """The text at `path`; None if it is absent or no text."""
    value = value_at(record, *path)
    return value if isinstance(value, str) else None


def instant_of(record: Record) -> Instant | None:
    """A record's `@timestamp`; None if it is absent or malformed."""
    return instant_in(text_at(record, "@timestamp"))


def instant_in(text: str | None) -> Instant | None:
    """An instant from RFC 3339 text; None for anything else."""
    try:
        return None if text is None else Instant.parse_iso(text)
    except ValueError:
        return None


_encoder: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def encode(record: Record) -> bytes:
    """One line of UTF-8 with its newline. Raises TypeError or ValueError for what JSON can't represent."""
    # A lone surrogate becomes a JSON escape, which is valid in strings, the only place where one can be.
    return _encoder.encode(record).encode("utf-8", "backslashreplace") + b"\n"


def decode(line: bytes) -> Record:
    """The record of a line. Raises ValueError for anything else than a JSON object in UTF-8."""
    try:
        value = json.loads(line.decode("utf-8"))  # of bytes, json would also take UTF-16 and UTF-32
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


WITHHELD: Final = "withheld"
"""The alias of every client while no key for pseudonyms is available."""
PSEUDONYM: Final = re.compile(r"p([0-9]+)-([a-z2-7]{16})")
"""The number of the period, and 80 bits of an HMAC in base32."""


def is_alias(text: str) -> bool:
    """Whether a text is `withheld` or a pseudonym. A prefix is no alias, but a network."""
    return text == WITHHELD or PSEUDONYM.fullmatch(text) is not None


def counted(number: int, noun: str) -> str:
    """`1 ban`, `2 bans`, `2 addresses`: for nouns whose plural ends in s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def wall_time(at: Instant, zone: str) -> str:
    """`2023-09-10 00:00 Europe/Brussels`: local time and zone, with seconds if there are any."""
    local = at.to_tz(zone)
    clock = local.time().format_iso(unit="minute" if local.second == 0 and local.nanosecond == 0 else "second")
    return f"{local.date()} {clock} {zone}"


def term(ends: Instant | None, zone: str, *, overdue: bool) -> str:
    """Until when a ban holds, as a phrase."""
    if ends is None:
        return "until lifted"
    if overdue:
        return f"held since its end on {wall_time(ends, zone)}"
    return f"until {wall_time(ends, zone)}"


def by_whom(ban: Ban) -> str:
    """The ban's title and name, its authority and its legal basis, as a phrase."""
    said = f"{ban.title} [{ban.name}]"
    if ban.authority is not None:
        said += f", decided by {ban.authority}"
    if ban.basis is not None:
        said += f" ({ban.basis})"
    return said
