"""Traffic that is decided again with two policies: flows as NDJSON, or events of the block log.

Differences are counted by network, client and name, with examples. Memory is bounded: each effect has a maximum of keys
and examples.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

from whenever import Instant

from tokgate.blocklog.read.reader import Junk, OpenLog, read
from tokgate.blocklog.read.replay_query import is_traffic, recorded
from tokgate.cli.policy.simulate import MAX_LINE, InvalidQuery, QueryReader, batches, opened
from tokgate.policy.analysis.comparison import differs
from tokgate.policy.decide import Sighting, decide, decide_signals
from tokgate.policy.decision import Decision, Verdict
from tokgate.policy.membership import Identity
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.values.hostname import DomainName, normalise
from tokgate.policy.values.public_suffix import domain_parts

Progress = Callable[[int], None]
"""Called with the number of bytes read since it was last called."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A request to decide, `count` times; `version` is the policy version in the log, if any."""

    client: str
    at: Instant
    sightings: tuple[Sighting, ...]
    count: int = 1
    version: str | None = None
    identity: Identity | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A flow that is decided differently, with both decisions."""

    flow: Flow
    at: Instant
    before: Decision
    after: Decision


@dataclass(slots=True)
class KeyCounts:
    """Counts by key; beyond MAX_KEYS new keys are counted together."""

    counts: dict[str, int] = field(default_factory=dict)
    other: int = 0

    def add(self, key: str, count: int) -> None:
        """Add `count` to a key, or to `other` if there are MAX_KEYS keys."""
        known = self.counts.get(key)
        if known is not None:
            self.counts[key] = known + count
        elif len(self.counts) < MAX_KEYS:
            self.counts[key] = count
        else:
            self.other += count

    def top(self, number: int) -> list[tuple[str, int]]:
        """The most frequent keys, equal ones by name."""
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:number]

    def rest(self, number: int) -> int:
        """The number of events outside of `top(number)`."""
        return sum(self.counts.values()) + self.other - sum(count for _, count in self.top(number))


@dataclass(slots=True)
class Effect:
    """All events whose treatment changes in the same way."""

    before: str
    after: str
    count: int = 0
    networks: KeyCounts = field(default_factory=KeyCounts)
    clients: KeyCounts = field(default_factory=KeyCounts)
    names: KeyCounts = field(default_factory=KeyCounts)
    examples: list[Example] = field(default_factory=list)


class Replay:
    """Decides each flow with both policies."""

    def __init__(self, old: Snapshot, new: Snapshot, at: Instant | None = None) -> None:
        """`at` is the instant of all decisions; None means each flow's own."""
        self.junk: Final[list[Junk]] = []
        """The first lines that held no event."""
        self.events = self.unreadable = self.changed = self.newly_blocked = self.newly_allowed = 0
        self.other_version = 0
        """Events that a log says were decided by another policy than the old one."""
        self.first: Instant | None = None
        self.last: Instant | None = None
        self._old: Final = old
        self._new: Final = new
        self._at: Final = at
        self._effects: Final[dict[tuple[str, str], Effect]] = {}

    @property
    def effects(self) -> list[Effect]:
        """The effects, the most frequent first."""
        return sorted(self._effects.values(), key=lambda effect: (-effect.count, effect.before, effect.after))

    def add(self, flow: Flow) -> None:
        """Decide a flow with both policies, and count a difference."""
        self.events += flow.count
        if self.first is None or flow.at < self.first:
            self.first = flow.at
        if self.last is None or flow.at > self.last:
            self.last = flow.at
        if flow.version is not None and flow.version != self._old.version:
            self.other_version += flow.count
        at = flow.at if self._at is None else self._at
        before, after = _decide(self._old, flow, at), _decide(self._new, flow, at)
        if differs(before, after):
            self._count(flow, at, before, after)

    def pass_over(self, junk: Junk) -> None:
        """Count a line that is no flow, and keep the first few."""
        self.unreadable += 1
        if len(self.junk) < EXAMPLES:
            self.junk.append(junk)

    def _count(self, flow: Flow, at: Instant, before: Decision, after: Decision) -> None:
        self.changed += flow.count
        if before.verdict is not after.verdict:
            self.newly_blocked += flow.count * (after.verdict is Verdict.BLOCK)
            self.newly_allowed += flow.count * (before.verdict is Verdict.BLOCK)
        key = treatment(before, after), treatment(after, before)
        effect = self._effects.setdefault(key, Effect(*key))
        effect.count += flow.count
        effect.networks.add(after.network or before.network or _ABSENT, flow.count)
        effect.clients.add(flow.client, flow.count)
        effect.names.add(_name(flow), flow.count)
        if len(effect.examples) < EXAMPLES:
            effect.examples.append(Example(flow, at, before, after))


def read_flows(files: Iterable[str], reader: QueryReader, progress: Progress) -> Iterator[Flow | Junk]:
    """The flows in files (`-` is standard input) in order; Junk for each line that is no flow."""
    for file in files:
        numbers = count(1)
        with opened(file) as source:
            for lines in batches(source):
                for line, number in zip(lines, numbers, strict=False):
                    try:
                        query = reader.read(line)
                    except InvalidQuery as error:
                        name = "standard input" if file == "-" else file
                        yield Junk(name, number, MAX_LINE if line is None else len(line), str(error))
                    else:
                        yield Flow(query.client, query.at, query.sightings, identity=query.identity)
                progress(sum(len(line) + 1 for line in lines if line is not None))


def read_log(files: Iterable[Path], opener: OpenLog, progress: Progress) -> Iterator[Flow | Junk]:
    """The events in logs in order; Junk for each line that is unreadable or can't be decided again."""
    for line in read(files, opener):
        if isinstance(line, Junk):
            progress(line.size)
            yield line
            continue
        progress(len(line.raw) + 1)
        found = recorded(line)
        if found is not None:
            yield Flow(found.client, found.at, found.sightings, found.count, found.version, found.identity)
        elif is_traffic(line.record):
            yield Junk(
                line.file, line.number, len(line.raw), "lacks the client's address, the time, or what was asked for"
            )


MAX_KEYS: Final = 100_000
EXAMPLES: Final = 5
_ABSENT: Final = "-"


def treatment(decision: Decision, other: Decision) -> str:
    """A verdict in a word: `exempt` for an exemption; with the response if only that differs."""
    if decision.verdict is other.verdict:
        return f"{decision.verdict} ({decision.response or 'no response'})"
    return "exempt" if decision.exemption is not None else decision.verdict.value


def _decide(snapshot: Snapshot, flow: Flow, at: Instant) -> Decision:
    if len(flow.sightings) == 1:  # the same as judging one sighting, at a third of the cost
        (sighting,) = flow.sightings
        return decide(snapshot, flow.client, sighting.value, at, sighting.signal, flow.identity)
    return decide_signals(snapshot, flow.client, flow.sightings, at, flow.identity).decision


def _name(flow: Flow) -> str:
    """The registrable domain, as in the summary of the log, else the name as it is."""
    sighting = flow.sightings[0]
    name = normalise(sighting.host or "")
    if isinstance(name, DomainName):
        return domain_parts(name.value).registered_domain or name.value
    return str(name)
