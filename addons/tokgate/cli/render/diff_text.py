"""The differences of two policies as text."""

from collections.abc import Iterator
from typing import Final

from whenever import Instant

from tokgate.cli.policy.differences import Differences, Group, grouped
from tokgate.cli.policy.replay import Effect, Example, KeyCounts, Replay
from tokgate.cli.terminal import shown
from tokgate.cli.time_arguments import common_zone
from tokgate.policy.analysis.comparison import ExemptionChange
from tokgate.policy.analysis.definitions import Redefinition
from tokgate.policy.decision import Decision
from tokgate.policy.schedule import Span
from tokgate.policy.values.text import local, utc

_TINTS: Final = {"block": "31", "warn": "33", "monitor": "36", "allow": "32", "exempt": "32"}
_SPANS: Final = 3
"""Maximum spans of a change that are shown: weekly windows make hundreds."""
_MEANINGS: Final = 10


def text(old: str, new: str, differences: Differences, replay: Replay | None, top: int, color: bool) -> Iterator[str]:
    """The lines of the output: verdicts, exemptions, definitions, and the replay if there is one."""
    within = differences.within
    yield f"old: {shown(old)} ({differences.old.version})"
    yield f"new: {shown(new)} ({differences.new.version})"
    yield f"from {utc(within.start)} to {utc(within.end)}"
    yield from _section("Verdicts", [_group(group, within, color) for group in grouped(differences)])
    zone = common_zone(differences.new.policy.networks.values())
    yield from _section("Exemptions", [_exemption(each, within, zone) for each in differences.exemptions])
    yield from _section("Definitions", [_definition(each) for each in differences.redefinitions])
    if differences.weaker_settings:
        yield from _section(
            "Settings by which NEW lets more pass", [shown(each) for each in differences.weaker_settings]
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
    return f'"{shown(value)}"' if " " in value else shown(value)


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
    rows = [f"{shown(key)} {count:,}" for key, count in counts.top(top)]
    rest = counts.rest(top)
    return ", ".join(rows) + (f", others {rest:,}" if rest else "")


def _example(example: Example) -> str:
    asked = " ".join(shown(sighting.value) for sighting in example.flow.sightings)
    was, becomes = _because(example.before), _because(example.after)
    return f"{shown(example.flow.client)} {asked} at {utc(example.at)}: {was} -> {becomes}"


def _because(decision: Decision) -> str:
    what = decision.exemption or decision.ban
    return f"{decision.verdict} ({decision.reason}{f' {what}' if what else ''})"
