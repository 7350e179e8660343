"""Log records as queries that can be decided again: the client, what it asked for, and when."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from whenever import Instant

from tokgate.blocklog.read.reader import Line
from tokgate.blocklog.records.record import TRAFFIC, EventAction, Record, instant_in, instant_of, text_at, value_at
from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Reason, Signal
from tokgate.policy.membership import Identity
from tokgate.policy.values.hostname import parse_address

_TRAFFIC: Final = frozenset(action.value for action in TRAFFIC)


@dataclass(frozen=True, slots=True)
class RecordedQuery:
    """A traffic record as a query; `count` is how many events it stands for, `version` the policy that decided."""

    line: Line
    client: str
    at: Instant
    sightings: tuple[Sighting, ...]
    count: int
    version: str | None
    identity: Identity | None = None

    def field(self, key: str) -> str | None:
        """The text of `tokgate.KEY` in the record; None if it is absent."""
        return text_at(self.line.record, "tokgate", key)


def is_traffic(record: Record) -> bool:
    """Whether a record is about a client's traffic, by its `event.action`."""
    return text_at(record, "event", "action") in _TRAFFIC


def is_unreadable(record: Record) -> bool:
    """Whether a record is about what could not be read: no ban refused it, and nothing can be decided again."""
    return text_at(record, "event", "action") == EventAction.UNREADABLE_REFUSED


def alias_of(record: Record) -> str | None:
    """The pseudonym or prefix that stands in place of the client's address; None if the address is in the record."""
    shown = text_at(record, "source", "address")
    plain = text_at(record, "source", "ip") or text_at(record, "tokgate", "reason") == Reason.INVALID_CLIENT
    return None if shown is None or plain or parse_address(shown) is not None else shown


def recorded(line: Line, client: str | None = None) -> RecordedQuery | None:
    """The query of a record; None if it is not about traffic, or lacks the client, the time, or all names.

    `client` is the address where the log has a pseudonym or prefix. The log has no query component of a URL, and its
    names may hold escapes: both can change the decision.
    """
    record = line.record
    if client is None and alias_of(record) is None:
        client = text_at(record, "source", "ip") or text_at(record, "source", "address")
    first = text_at(record, "tokgate", "repeats", "first")  # of repeats, when the first of them happened
    at = instant_of(record) if first is None else instant_in(first)
    sightings = tuple(_sightings(record))
    if not is_traffic(record) or client is None or at is None or not sightings:
        return None
    count = value_at(record, "tokgate", "repeats", "count")
    number = count if type(count) is int and count > 0 else 1
    version = text_at(record, "tokgate", "policy", "version")
    groups = value_at(record, "tokgate", "groups")  # those that the policy named
    identity = Identity(
        user=text_at(record, "user", "name") if alias_of(record) is None else None,
        groups=frozenset(each for each in (groups if isinstance(groups, list) else ()) if isinstance(each, str)),
        device=text_at(record, "source", "mac"),
        interface=text_at(record, "observer", "ingress", "interface", "name"),
    )
    return RecordedQuery(line, client, at, sightings, number, version, identity or None)


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
