"""A line's facts in words, whatever shape the record has. Pure."""

from collections.abc import Iterator
from typing import Final

from tokgate.blocklog.document import Record
from tokgate.blocklog.reader import text_at, value_at

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
    "Authority": ("tokgate", "authority"),
    "Basis": ("tokgate", "basis"),
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
    """The client, or what stands for it; empty if the record names none."""
    return text_at(record, "source", "ip") or text_at(record, "source", "address") or ""


def sentence(record: Record) -> str:
    """The record in a sentence."""
    return text_at(record, "message") or "A line of the log"


def facts(record: Record) -> Iterator[tuple[str, str]]:
    """Label and value of what the record says."""
    if client := client_of(record):
        yield "Client", client
    for label, path in _PATHS.items():
        if value := text_at(record, *path):
            yield label, value
    count = value_at(record, "tokgate", "repeats", "count")
    if type(count) is int:
        first, last = (text_at(record, "tokgate", "repeats", edge) or "?" for edge in ("first", "last"))
        yield "Stands for", f"{count} repeats, from {first} to {last}"
    sequence = value_at(record, "event", "sequence")
    if type(sequence) is int:
        yield "Number in its chain", str(sequence)
