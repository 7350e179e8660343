"""The differences between two policies: found, with equal ones grouped, as text, and as one JSON object."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NotRequired, TypedDict

from whenever import Instant

from tokgate.cli.arguments import common_zone
from tokgate.cli.decision_query import Outcome, Seen, outcome
from tokgate.cli.policy.replay import Effect, Example, KeyCounts, Replay, treatment
from tokgate.cli.terminal import visible
from tokgate.policy.analysis.comparison import (
    ExemptionChange,
    VerdictChange,
    exemption_changes,
    verdict_changes,
)
from tokgate.policy.analysis.definitions import Redefinition, redefinitions, weaker_settings
from tokgate.policy.analysis.held_bans import vanished
from tokgate.policy.decision import Decision, Phase, Reason, Response, Verdict
from tokgate.policy.schedule import Span
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.values.text import local, utc


@dataclass(frozen=True, slots=True)
class Group:
    """Services in networks of one time zone that change in the same way during the same spans."""

    before: str
    after: str
    spans: tuple[Span, ...]
    zone: str
    services: tuple[str, ...]
    networks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Differences:
    """All differences within a span of time."""

    old: Snapshot
    new: Snapshot
    within: Span
    verdict_changes: tuple[VerdictChange, ...]
    exemptions: tuple[ExemptionChange, ...]
    redefinitions: tuple[Redefinition, ...]
    held: tuple[str, ...]
    """Bans in force at the span's start that the new policy neither states nor lifts: a running tokgate keeps them."""
    weaker_settings: tuple[str, ...]
    """Settings by which the new policy lets more pass, with both values."""

    @property
    def any(self) -> bool:
        """Whether the policies differ at all."""
        return bool(self.verdict_changes or self.exemptions or self.redefinitions)


class PolicySource(TypedDict):
    """Where a policy is from, and its version."""

    source: str
    version: str


class Treatment(TypedDict):
    """What a client gets."""

    verdict: Verdict
    phase: Phase | None
    ban: str | None
    response: Response | None
    reason: Reason


_Times = TypedDict("_Times", {"from": str | None, "to": str | None})
VerdictDifference = TypedDict(
    "VerdictDifference",
    {
        "network": str | None,
        "service": str,
        "from": str | None,
        "to": str | None,
        "before": Treatment,
        "after": Treatment,
    },
)
ExemptionDifference = TypedDict(
    "ExemptionDifference",
    {
        "ban": str,
        "client": str,
        "from": str | None,
        "to": str | None,
        "before": str | None,
        "after": str | None,
    },
)


class RedefinitionOutput(TypedDict):
    """What is added to and removed from a definition."""

    kind: str
    name: str
    key: NotRequired[str | None]
    added: list[str]
    removed: list[str]


class CountRow(TypedDict):
    """How often a key occurred."""

    key: str
    count: int


class Counts(TypedDict):
    """The most frequent keys, and how many events the others have."""

    rows: list[CountRow]
    other: int


class TrafficExample(TypedDict):
    """An event that comes out differently."""

    client: str
    at: str
    seen: list[Seen]
    before: Outcome
    after: Outcome


class EffectOutput(TypedDict):
    """Events with the same verdicts before and after."""

    before: str
    after: str
    count: int
    networks: Counts
    clients: Counts
    names: Counts
    examples: list[TrafficExample]


class Traffic(TypedDict):
    """What traffic that was seen would get by both policies."""

    events: int
    unreadable: int
    other_version: int
    first: str | None
    last: str | None
    changed: int
    newly_blocked: int
    newly_allowed: int
    effects: list[EffectOutput]


Difference = TypedDict(
    "Difference",
    {
        "old": PolicySource,
        "new": PolicySource,
        "from": str,
        "to": str,
        "differs": bool,
        "verdicts": list[VerdictDifference],
        "exemptions": list[ExemptionDifference],
        "definitions": list[RedefinitionOutput],
        "held": list[str],
        "weaker_settings": list[str],
        "traffic": Traffic | None,
    },
)
Difference.__doc__ = (
    "`tokgate diff --json`. `from` and `to` of a difference are null where it goes beyond the span. `held` are "
    "bans in force that NEW neither states nor lifts: a running tokgate keeps them. `weaker_settings` are settings "
    "by which NEW lets more pass, with both values."
)


def compare(old: Snapshot, new: Snapshot, within: Span) -> Differences:
    """All differences of two policies within a span of time."""
    redefined = tuple(redefinitions(old.policy, new.policy))
    return Differences(
        old,
        new,
        within,
        tuple(verdict_changes(old, new, within)),
        tuple(exemption_changes(old, new, within)),
        redefined,
        vanished(old, new.policy, within.start),
        weaker_settings(redefined),
    )


def grouped(differences: Differences) -> list[Group]:
    """Group services of a network that change in the same way, then networks with equal groups."""
    courses: dict[tuple[str, str, str, str], list[Span]] = {}
    for each in differences.verdict_changes:
        key = (each.network, each.service, treatment(each.before, each.after), treatment(each.after, each.before))
        courses.setdefault(key, []).append(each.span)
    by_network: dict[tuple[str, str, str, tuple[Span, ...]], list[str]] = {}
    for (network, service, before, after), spans in courses.items():
        by_network.setdefault((network, before, after, tuple(spans)), []).append(service)
    groups: dict[tuple[str, str, tuple[Span, ...], str, tuple[str, ...]], list[str]] = {}
    for (network, before, after, over), services in by_network.items():
        zone = _zone((differences.new, differences.old), network)
        groups.setdefault((before, after, over, zone, tuple(services)), []).append(network)
    found = [Group(*key, tuple(networks)) for key, networks in groups.items()]
    return sorted(found, key=lambda group: group.spans[0].start)


def _zone(snapshots: Iterable[Snapshot], network: str) -> str:
    return next(s.policy.networks[network].timezone for s in snapshots if network in s.policy.networks)


_TINTS: Final = {"block": "31", "warn": "33", "monitor": "36", "allow": "32", "exempt": "32"}
_SPANS: Final = 3
"""Maximum spans of a change that are shown: weekly windows make hundreds."""
_MEANINGS: Final = 10


def text(old: str, new: str, differences: Differences, replay: Replay | None, top: int, color: bool) -> Iterator[str]:
    """The lines of the output: verdicts, exemptions, definitions, and the replay if there is one."""
    within = differences.within
    yield f"old: {visible(old)} ({differences.old.version})"
    yield f"new: {visible(new)} ({differences.new.version})"
    yield f"from {utc(within.start)} to {utc(within.end)}"
    yield from _section("Verdicts", [_group(group, within, color) for group in grouped(differences)])
    zone = common_zone(differences.new.policy.networks.values())
    yield from _section("Exemptions", [_exemption(each, within, zone) for each in differences.exemptions])
    yield from _section("Definitions", [_definition(each) for each in differences.redefinitions])
    if differences.weaker_settings:
        yield from _section(
            "Settings by which NEW lets more pass", [visible(each) for each in differences.weaker_settings]
        )
    if differences.held:
        yield from _section(
            "Held by a running tokgate, since NEW does not name them under `lifted`", [", ".join(differences.held)]
        )
    if replay is not None:
        yield from _replayed(replay, top, color)


def _section(title: str, lines: list[str]) -> Iterator[str]:
    yield ""
    yield title if lines else f"{title}: no difference"
    yield from (f"  {line}" for line in lines)


def _group(group: Group, within: Span, color: bool) -> str:
    spans = [_span(span, within, group.zone) for span in group.spans[:_SPANS]]
    if len(group.spans) > _SPANS:
        spans.append(
            f"and {len(group.spans) - _SPANS} times more, the last {_span(group.spans[-1], within, group.zone)}"
        )
    zone = "" if group.zone == "UTC" else f" {group.zone}"
    where = f"{', '.join(group.services)} in {', '.join(group.networks)}"
    return f"{_change(group.before, group.after, color)}: {where}: {'; '.join(spans)}{zone}"


def _span(span: Span, within: Span, zone: str) -> str:
    """A span in words; without an end where it extends beyond the chosen one."""
    start = "" if span.start <= within.start else f"from {_time(span.start, zone)}"
    if span.end >= within.end:
        return f"{start} on" if start else "all the time"
    return f"{start} to {_time(span.end, zone)}" if start else f"until {_time(span.end, zone)}"


def _time(at: Instant, zone: str) -> str:
    return utc(at) if zone == "UTC" else local(at, zone)


def _change(before: str, after: str, color: bool) -> str:
    return f"{_painted(before, color)} -> {_painted(after, color)}"


def _painted(word: str, color: bool) -> str:
    return f"\x1b[1;{_TINTS[word.partition(' ')[0]]}m{word}\x1b[0m" if color else word


def _exemption(change: ExemptionChange, within: Span, zone: str) -> str:
    becomes = "exempt" if change.after is not None else "no longer exempt"
    name = change.after or change.before
    when = _span(change.span, within, zone)
    return f"{change.client} {becomes} from {change.ban} ({name}): {when}{'' if zone == 'UTC' else f' {zone}'}"


def _definition(found: Redefinition) -> str:
    """A definition's name, and what was added and removed; values of several words are in quotes."""
    signed = [f"{sign}{_value(each)}" for sign, said in (("+", found.added), ("-", found.removed)) for each in said]
    name = f"{found.kind}.{found.name}" + ("" if found.key is None else f".{found.key}")
    more = f" and {len(signed) - _MEANINGS} more" if len(signed) > _MEANINGS else ""
    return f"{name}: {' '.join(signed[:_MEANINGS])}{more}"


def _value(value: str) -> str:
    return f'"{visible(value)}"' if " " in value else visible(value)


def _replayed(replay: Replay, top: int, color: bool) -> Iterator[str]:
    yield ""
    when = "" if replay.first is None or replay.last is None else f" from {utc(replay.first)} to {utc(replay.last)}"
    yield f"Traffic: {replay.events:,} events{when}"
    yield f"  newly blocked: {replay.newly_blocked:,}"
    yield f"  newly allowed: {replay.newly_allowed:,}"
    yield f"  decided differently: {replay.changed:,}"
    for effect in replay.effects:
        yield ""
        yield f"{_change(effect.before, effect.after, color)}: {effect.count:,}"
        yield from _tallies(effect, top)
        yield from (f"  e.g. {_example(example)}" for example in effect.examples)


def _tallies(effect: Effect, top: int) -> Iterator[str]:
    for title, counts in (("networks", effect.networks), ("clients", effect.clients), ("names", effect.names)):
        yield f"  {title}: {_counts(counts, top)}"


def _counts(counts: KeyCounts, top: int) -> str:
    rows = [f"{visible(key)} {count:,}" for key, count in counts.top(top)]
    rest = counts.rest(top)
    return ", ".join(rows) + (f", others {rest:,}" if rest else "")


def _example(example: Example) -> str:
    asked = " ".join(visible(sighting.value) for sighting in example.flow.sightings)
    was, becomes = _because(example.before), _because(example.after)
    return f"{visible(example.flow.client)} {asked} at {utc(example.at)}: {was} -> {becomes}"


def _because(decision: Decision) -> str:
    what = decision.exemption or decision.ban
    return f"{decision.verdict} ({decision.reason}{f' {what}' if what else ''})"


def document(old: str, new: str, differences: Differences, replay: Replay | None, top: int) -> Difference:
    """The object. `from` and `to` of a difference are null where it extends beyond the chosen span."""
    within = differences.within
    return {
        "old": {"source": old, "version": differences.old.version},
        "new": {"source": new, "version": differences.new.version},
        "from": utc(within.start),
        "to": utc(within.end),
        "differs": differences.any or (replay is not None and replay.changed > 0),
        "verdicts": [
            {
                "network": each.network,
                "service": each.service,
                **_times(each.span, within),
                "before": _treatment(each.before),
                "after": _treatment(each.after),
            }
            for each in differences.verdict_changes
        ],
        "exemptions": [
            {
                "ban": each.ban,
                "client": str(each.client),
                **_times(each.span, within),
                "before": each.before,
                "after": each.after,
            }
            for each in differences.exemptions
        ],
        "definitions": [
            {
                "kind": each.kind,
                "name": each.name,
                "key": each.key,
                "added": list(each.added),
                "removed": list(each.removed),
            }
            for each in differences.redefinitions
        ],
        "held": list(differences.held),
        "weaker_settings": list(differences.weaker_settings),
        "traffic": None if replay is None else _traffic(replay, top),
    }


def _times(span: Span, within: Span) -> _Times:
    return {
        "from": None if span.start <= within.start else utc(span.start),
        "to": None if span.end >= within.end else utc(span.end),
    }


def _treatment(decision: Decision) -> Treatment:
    return {
        "verdict": decision.verdict,
        "phase": decision.phase,
        "ban": decision.ban,
        "response": decision.response,
        "reason": decision.reason,
    }


def _traffic(replay: Replay, top: int) -> Traffic:
    return {
        "events": replay.events,
        "unreadable": replay.unreadable,
        "other_version": replay.other_version,
        "first": _utc(replay.first),
        "last": _utc(replay.last),
        "changed": replay.changed,
        "newly_blocked": replay.newly_blocked,
        "newly_allowed": replay.newly_allowed,
        "effects": [_effect(effect, top) for effect in replay.effects],
    }


def _utc(at: Instant | None) -> str | None:
    return None if at is None else utc(at)


def _effect(effect: Effect, top: int) -> EffectOutput:
    return {
        "before": effect.before,
        "after": effect.after,
        "count": effect.count,
        "networks": _count_rows(effect.networks, top),
        "clients": _count_rows(effect.clients, top),
        "names": _count_rows(effect.names, top),
        "examples": [_example_output(example) for example in effect.examples],
    }


def _count_rows(counts: KeyCounts, top: int) -> Counts:
    return {
        "rows": [{"key": key, "count": count} for key, count in counts.top(top)],
        "other": counts.rest(top),
    }


def _example_output(example: Example) -> TrafficExample:
    return {
        "client": example.flow.client,
        "at": utc(example.at),
        "seen": [{"signal": sighting.signal, "value": sighting.value} for sighting in example.flow.sightings],
        "before": outcome(example.before),
        "after": outcome(example.after),
    }
