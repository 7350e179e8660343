"""The fields of a record, of any shape, as labels and texts for the page of an event. Pure."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from whenever import Instant

from tokgate.blocklog.records.record import Record, text_at, value_at
from tokgate.policy.values.text import local
from tokgate.webui.log_query import UTC
from tokgate.webui.words import word

_PATHS: Final = {
    "User": ("user", "name"),
    "Time (UTC)": ("@timestamp",),
    "Name": ("destination", "domain"),
    "Destination": ("destination", "ip"),
    "What was done": ("event", "action"),
    "Verdict": ("tokgate", "verdict"),
    "Reason": ("tokgate", "reason"),
    "Phase": ("tokgate", "phase"),
    "Ban": ("tokgate", "ban"),
    "Title": ("rule", "name"),
    "Authority": ("tokgate", "authority"),
    "Basis": ("tokgate", "basis"),
    "Where it can be read": ("rule", "reference"),
    "Rule": ("tokgate", "rule"),
    "Seen in": ("tokgate", "signal"),
    "Network": ("tokgate", "network"),
    "Exemption": ("tokgate", "exemption"),
    "Why exempt": ("tokgate", "exemption_reason"),
    "Gateway": ("observer", "hostname"),
    "Policy version": ("tokgate", "policy", "version"),
    "Chain": ("tokgate", "chain"),
}


def client_of(record: Record) -> str:
    """The client's address, or its pseudonym; empty if the record has neither."""
    return text_at(record, "source", "ip") or text_at(record, "source", "address") or ""


def sentence(record: Record) -> str:
    """The record's `message`, or a substitute for a record without one."""
    return text_at(record, "message") or "A line of the log"


def facts(record: Record, device: str, zone: str) -> Iterator[tuple[str, str]]:
    """Pairs of label and value for the fields that the record has; `device` is the client's name in an inventory."""
    if client := client_of(record):
        yield "Client", f"{client} ({device})" if device else client
    if (at := text_at(record, "@timestamp")) and zone != UTC:
        with suppress(ValueError):  # as some other version, or another hand, may have written it
            yield f"Time ({zone})", local(Instant.parse_iso(at), zone)
    for label, path in _PATHS.items():
        if value := text_at(record, *path):
            said = word(path[-1], value)
            yield label, value if said == value else f"{said} ({value})"
    count = value_at(record, "tokgate", "repeats", "count")
    if type(count) is int:
        first, last = (text_at(record, "tokgate", "repeats", edge) or "?" for edge in ("first", "last"))
        yield "Stands for", f"{count} repeats, from {first} to {last}"
    sequence = value_at(record, "event", "sequence")
    if type(sequence) is int:
        yield "Number in its chain", str(sequence)
