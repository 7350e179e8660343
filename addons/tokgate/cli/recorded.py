"""Records of the block log as questions that can be asked again: who asked for what, and when."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from whenever import Instant

from tokgate.blocklog.document import TRAFFIC, Record
from tokgate.blocklog.reader import Junk, Line, instant_of, read, text_at, value_at
from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Reason, Signal
from tokgate.policy.identity import Identity
from tokgate.policy.names import parse_address

_TRAFFIC: Final = frozenset(action.value for action in TRAFFIC)


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event about traffic; `count` is how many it stands for, `version` the policy that decided it."""

    line: Line
    client: str
    at: Instant
    sightings: tuple[Sighting, ...]
    count: int
    version: str | None
    identity: Identity | None = None

    def said(self, key: str) -> str | None:
        """What the record says under `tokgate`, as text."""
        return text_at(self.line.record, "tokgate", key)


def is_traffic(record: Record) -> bool:
    """Whether a record names a client and what it asked for."""
    return text_at(record, "event", "action") in _TRAFFIC


def disguise(record: Record) -> str | None:
    """What the log shows in place of the client's address, where it names clients by pseudonym or prefix."""
    shown = text_at(record, "source", "address")
    plain = text_at(record, "source", "ip") or text_at(record, "tokgate", "reason") == Reason.INVALID_CLIENT
    return None if shown is None or plain or parse_address(shown) is not None else shown


def recorded(line: Line, client: str | None = None) -> Recorded | None:
    """The question in a record; None if it is not about traffic, or lacks the client, the time, or anything asked for.

    `client` is the address where the log only has a pseudonym or prefix. The log keeps no query of a URL, and a name
    in it may have been made printable: both can change the answer.
    """
    record = line.record
    if client is None and disguise(record) is None:
        client = text_at(record, "source", "ip") or text_at(record, "source", "address")
    at = _first(record)
    sightings = tuple(_sightings(record))
    if not is_traffic(record) or client is None or at is None or not sightings:
        return None
    count = value_at(record, "tokgate", "repeats", "count")
    number = count if type(count) is int and count > 0 else 1
    version = text_at(record, "tokgate", "policy", "version")
    return Recorded(line, client, at, sightings, number, version, _identity(record))


def _identity(record: Record) -> Identity | None:
    """Who the client was besides its address, as far as the log says: of groups those that the policy names."""
    groups = value_at(record, "tokgate", "groups")
    found = Identity(
        user=text_at(record, "user", "name") if disguise(record) is None else None,
        groups=frozenset(filter(_is_text, groups if isinstance(groups, list) else ())),
        device=text_at(record, "source", "mac"),
        interface=text_at(record, "observer", "ingress", "interface", "name"),
    )
    return found or None


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _first(record: Record) -> Instant | None:
    """When it happened; of repeats when the first of them did."""
    text = text_at(record, "tokgate", "repeats", "first")
    try:
        return instant_of(record) if text is None else Instant.parse_iso(text)
    except ValueError:
        return None


def _sightings(record: Record) -> Iterator[Sighting]:
    names = value_at(record, "tokgate", "names")
    found = False
    for signal, values in names.items() if isinstance(names, dict) else ():
        if signal in set(Signal) and isinstance(values, list):
            for value in values:
                if isinstance(value, str):
                    found = True
                    yield Sighting(Signal(signal), value)
    address = text_at(record, "destination", "ip")
    if not found and address is not None:
        yield Sighting(Signal.ADDRESS, address)


def find(files: Iterable[Path], event: str) -> Line | None:
    """The record with the id `event`: the last of them if files overlap."""
    found = None
    for line in read(files):
        if not isinstance(line, Junk) and text_at(line.record, "event", "id") == event:
            found = line
    return found
