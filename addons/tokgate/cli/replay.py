"""Traffic decided by two policies, and what comes out differently: counts by network, client and name, and examples.

Memory is bounded: of each effect a number of keys and examples are kept, the rest is only counted.
"""

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from whenever import Instant

from tokgate.blocklog.domains import domain_parts
from tokgate.blocklog.reader import Junk
from tokgate.cli.flows import Flow
from tokgate.policy.comparison import differs
from tokgate.policy.decide import decide, decide_signals
from tokgate.policy.decision import Decision, Signal, Verdict
from tokgate.policy.names import DomainName, normalise
from tokgate.policy.snapshot import Snapshot

MAX_KEYS: Final = 100_000
EXAMPLES: Final = 5
_ABSENT: Final = "-"


@dataclass(frozen=True, slots=True)
class Example:
    """A flow that is decided differently, and by what."""

    flow: Flow
    at: Instant
    before: Decision
    after: Decision


@dataclass(slots=True)
class Tally:
    """How often each key was met, most frequent first; keys first met when it was full are counted together."""

    counts: dict[str, int] = field(default_factory=dict)
    other: int = 0

    def add(self, key: str, count: int) -> None:
        """Count a key."""
        known = self.counts.get(key)
        if known is not None:
            self.counts[key] = known + count
        elif len(self.counts) < MAX_KEYS:
            self.counts[key] = count
        else:
            self.other += count

    def top(self, number: int) -> list[tuple[str, int]]:
        """The most frequent; of equals in the order of their names."""
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:number]

    def rest(self, number: int) -> int:
        """How many events belong to none of `top(number)`."""
        return sum(self.counts.values()) + self.other - sum(count for _, count in self.top(number))


@dataclass(slots=True)
class Effect:
    """All events whose treatment changes in the same way."""

    before: str
    after: str
    count: int = 0
    networks: Tally = field(default_factory=Tally)
    clients: Tally = field(default_factory=Tally)
    names: Tally = field(default_factory=Tally)
    examples: list[Example] = field(default_factory=list)


class Replay:
    """Decides flow after flow by both policies."""

    def __init__(self, old: Snapshot, new: Snapshot, at: Instant | None = None) -> None:
        """`at` is the instant at which all is decided; None means each flow's own."""
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
        """What changes, the most frequent first."""
        return sorted(self._effects.values(), key=lambda effect: (-effect.count, effect.before, effect.after))

    def add(self, flow: Flow) -> None:
        """Decide a flow by both, and count what differs."""
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
        """Count a line that holds no event."""
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


def treatment(decision: Decision, other: Decision) -> str:
    """A verdict in a word: `exempt` where an exemption makes it, with the response where only that differs."""
    if decision.verdict is other.verdict:
        return f"{decision.verdict} ({decision.response or 'no response'})"
    return "exempt" if decision.exemption is not None else decision.verdict.value


def _decide(snapshot: Snapshot, flow: Flow, at: Instant) -> Decision:
    if len(flow.sightings) == 1:  # the same as judging one sighting, at a third of the cost
        (sighting,) = flow.sightings
        return decide(snapshot, flow.client, sighting.value, at, sighting.signal, flow.identity)
    return decide_signals(snapshot, flow.client, flow.sightings, at, flow.identity).decision


def _name(flow: Flow) -> str:
    """The registrable domain, as the summary of the log groups names; else what was asked for."""
    sighting = flow.sightings[0]
    name = normalise(_host(sighting.value) if sighting.signal is Signal.URL else sighting.value)
    if isinstance(name, DomainName):
        return domain_parts(name.value).registered_domain or name.value
    return str(name)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or url
    except ValueError:
        return url
