"""Traffic that is decided again with two policies: flows, or events of the block log.

Differences are counted by network, client and name, with examples. Memory is bounded: each effect has a maximum of keys
and examples.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypedDict

from whenever import Instant

from tokgate.blocklog.read.reader import Junk, OpenLog, read
from tokgate.blocklog.read.replay_query import RecordedQuery, is_traffic, recorded
from tokgate.cli.decision_query import DecisionQuery, Outcome, Question, Seen, decided, outcome
from tokgate.cli.policy.simulate import MAX_LINE, InvalidQuery, QueryReader, lines_of, opened
from tokgate.cli.terminal import styled, visible
from tokgate.policy.analysis.comparison import differs
from tokgate.policy.decision import Decision, Verdict
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.values.hostname import DomainName, domain_parts, normalise
from tokgate.policy.values.text import shown, utc


class TrafficExample(TypedDict):
    """An event that comes out differently."""

    client: str
    at: str
    seen: list[Seen]
    before: Outcome
    after: Outcome


class EffectOutput(TypedDict):
    """Events with the same verdicts before and after, and how many of them the most frequent keys have."""

    before: str
    after: str
    count: int
    networks: dict[str, int]
    clients: dict[str, int]
    names: dict[str, int]
    examples: list[TrafficExample]


class Counts(TypedDict):
    """How many events there were, and how many of them come out differently."""

    events: int
    unreadable: int
    other_version: int
    changed: int
    newly_blocked: int
    newly_allowed: int


class Traffic(Counts):
    """What traffic that was seen would get by both policies."""

    first: str | None
    last: str | None
    effects: list[EffectOutput]


def traffic_lines(traffic: Traffic) -> Iterator[str]:
    """The same as lines of text."""
    yield ""
    when = f" from {traffic['first']} to {traffic['last']}" if traffic["first"] is not None else ""
    yield f"Traffic: {traffic['events']:,} events{when}"
    yield f"  newly blocked: {traffic['newly_blocked']:,}"
    yield f"  newly allowed: {traffic['newly_allowed']:,}"
    yield f"  decided differently: {traffic['changed']:,}"
    for effect in traffic["effects"]:
        yield ""
        yield f"{change(effect['before'], effect['after'])}: {effect['count']:,}"
        for title, counts in (
            ("networks", effect["networks"]),
            ("clients", effect["clients"]),
            ("names", effect["names"]),
        ):
            rows = [f"{visible(key)} {number:,}" for key, number in counts.items()]
            if rest := effect["count"] - sum(counts.values()):
                rows.append(f"others {rest:,}")
            yield f"  {title}: {', '.join(rows)}"
        for example in effect["examples"]:
            asked = " ".join(visible(seen["value"]) for seen in example["seen"])
            said = f"{_because(example['before'])} -> {_because(example['after'])}"
            yield f"  e.g. {visible(example['client'])} {asked} at {example['at']}: {said}"


_TINTS: Final = {"block": "1;31", "warn": "1;33", "monitor": "1;36", "allow": "1;32", "exempt": "1;32"}


def change(before: str, after: str) -> str:
    """Two treatments with an arrow, in colour on a terminal."""
    return " -> ".join(styled(word, _TINTS[word.partition(" ")[0]]) for word in (before, after))


def _because(decision: Outcome) -> str:
    what = decision["exemption"] or decision["ban"]
    return f"{decision['verdict']} ({decision['reason']}{f' {what}' if what else ''})"


@dataclass(slots=True)
class _Effect:
    """All events whose treatment changes in the same way."""

    count: int = 0
    tallies: tuple[Counter[str], Counter[str], Counter[str]] = field(
        default_factory=lambda: (Counter(), Counter(), Counter())
    )
    """By network, client and name; of the keys beyond MAX_KEYS there is no count."""
    examples: list[TrafficExample] = field(default_factory=list)


MAX_KEYS: Final = 100_000
EXAMPLES: Final = 5
_ABSENT: Final = "-"


class Replay:
    """Decides each flow with both policies."""

    def __init__(self, old: Snapshot, new: Snapshot, at: Instant | None = None) -> None:
        """`at` is the instant of all decisions; None means each flow's own."""
        self.junk: Final[list[Junk]] = []
        """The first lines that held no event."""
        self._counts = Counts(events=0, unreadable=0, other_version=0, changed=0, newly_blocked=0, newly_allowed=0)
        self._times: list[Instant] = []
        self._old: Final = old
        self._new: Final = new
        self._at: Final = at
        self._effects: Final[dict[tuple[str, str], _Effect]] = {}

    def add(self, flow: DecisionQuery | RecordedQuery) -> None:
        """Decide a flow with both policies, and count a difference."""
        number, version = (flow.count, flow.version) if isinstance(flow, RecordedQuery) else (1, None)
        self._counts["events"] += number
        self._times = [min((*self._times, flow.at)), max((*self._times, flow.at))]
        if version is not None and version != self._old.version:
            self._counts["other_version"] += number
        at = flow.at if self._at is None else self._at
        before, after = decided(self._old, flow, at), decided(self._new, flow, at)
        if differs(before, after):
            self._count(flow, number, at, before, after)

    def pass_over(self, junk: Junk) -> None:
        """Count a line that is no flow, and keep the first few."""
        self._counts["unreadable"] += 1
        if len(self.junk) < EXAMPLES:
            self.junk.append(junk)

    def _count(self, flow: Question, number: int, at: Instant, before: Decision, after: Decision) -> None:
        self._counts["changed"] += number
        if before.verdict is not after.verdict:
            self._counts["newly_blocked"] += number * (after.verdict is Verdict.BLOCK)
            self._counts["newly_allowed"] += number * (before.verdict is Verdict.BLOCK)
        was, becomes = outcome(before), outcome(after)
        effect = self._effects.setdefault((treatment(was, becomes), treatment(becomes, was)), _Effect())
        effect.count += number
        keys = (after.network or before.network or _ABSENT, flow.client, _name(flow))
        for tally, key in zip(effect.tallies, keys, strict=True):
            if key in tally or len(tally) < MAX_KEYS:
                tally[key] += number
        if len(effect.examples) < EXAMPLES:
            seen: list[Seen] = [{"signal": each.signal, "value": each.value} for each in flow.sightings]
            effect.examples.append(
                {"client": flow.client, "at": utc(at), "seen": seen, "before": was, "after": becomes}
            )

    def document(self) -> Traffic:
        """What was found, the most frequent effects first, each with its most frequent networks, clients and names."""
        effects: list[EffectOutput] = []
        for (before, after), effect in sorted(self._effects.items(), key=lambda item: (-item[1].count, item[0])):
            networks, clients, names = (
                dict(sorted(tally.items(), key=lambda item: (-item[1], item[0]))[:EXAMPLES]) for tally in effect.tallies
            )
            told = {"before": before, "after": after, "networks": networks, "clients": clients, "names": names}
            effects.append(shown(EffectOutput, effect, **told))
        first, last = map(utc, self._times) if self._times else (None, None)
        return {**self._counts, "first": first, "last": last, "effects": effects}


def treatment(decision: Outcome, other: Outcome) -> str:
    """A verdict in a word: `exempt` for an exemption; with the response if only that differs."""
    if decision["verdict"] == other["verdict"]:
        return f"{decision['verdict']} ({decision['response'] or 'no response'})"
    return "exempt" if decision["exemption"] is not None else str(decision["verdict"])


def _name(flow: Question) -> str:
    """The registrable domain, as in the summary of the log, else the name as it is."""
    name = normalise(flow.sightings[0].host or "")
    if isinstance(name, DomainName):
        return domain_parts(name.value).registered_domain or name.value
    return str(name)


def read_flows(files: Iterable[str], reader: QueryReader) -> Iterator[tuple[DecisionQuery | Junk | None, int]]:
    """The flows in files (`-` is standard input) in order, with the bytes of their lines; Junk for what is no flow."""
    for file in files:
        with opened(file) as source:
            for number, line in enumerate(lines_of(source), 1):
                size = MAX_LINE if line is None else len(line)
                try:
                    yield reader.read(line), size
                except InvalidQuery as error:
                    yield Junk("standard input" if file == "-" else file, number, size, str(error)), size


def read_log(files: Iterable[Path], opener: OpenLog) -> Iterator[tuple[RecordedQuery | Junk | None, int]]:
    """The events in logs in order, each with the bytes of its line; Junk for what can't be read or decided again."""
    for line in read(files, opener):
        if isinstance(line, Junk):
            yield line, line.size
            continue
        found: RecordedQuery | Junk | None = recorded(line)
        if found is None and is_traffic(line.record):
            why = "lacks the client's address, the time, or what was asked for"
            found = Junk(line.file, line.number, len(line.raw), why)
        yield found, len(line.raw) + 1
