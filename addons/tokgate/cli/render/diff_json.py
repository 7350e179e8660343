"""The differences of two policies as one JSON object."""

from typing import Any

from whenever import Instant

from tokgate.cli.decision_query import outcome
from tokgate.cli.policy.differences import Differences
from tokgate.cli.policy.replay import Effect, Example, KeyCounts, Replay
from tokgate.policy.schedule import Span
from tokgate.policy.values.text import utc


def document(old: str, new: str, differences: Differences, replay: Replay | None, top: int) -> dict[str, Any]:
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
                "before": _treatment(outcome(each.before)),
                "after": _treatment(outcome(each.after)),
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
        "traffic": None if replay is None else _replayed(replay, top),
    }


def _times(span: Span, within: Span) -> dict[str, str | None]:
    return {
        "from": None if span.start <= within.start else utc(span.start),
        "to": None if span.end >= within.end else utc(span.end),
    }


def _treatment(said: dict[str, object]) -> dict[str, object]:
    return {key: said[key] for key in ("verdict", "phase", "ban", "response", "reason")}


def _replayed(replay: Replay, top: int) -> dict[str, Any]:
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


def _effect(effect: Effect, top: int) -> dict[str, Any]:
    return {
        "before": effect.before,
        "after": effect.after,
        "count": effect.count,
        "networks": _counts(effect.networks, top),
        "clients": _counts(effect.clients, top),
        "names": _counts(effect.names, top),
        "examples": [_example(example) for example in effect.examples],
    }


def _counts(counts: KeyCounts, top: int) -> dict[str, Any]:
    return {
        "rows": [{"key": key, "count": count} for key, count in counts.top(top)],
        "other": counts.rest(top),
    }


def _example(example: Example) -> dict[str, Any]:
    return {
        "client": example.flow.client,
        "at": utc(example.at),
        "seen": [{"signal": sighting.signal, "value": sighting.value} for sighting in example.flow.sightings],
        "before": outcome(example.before),
        "after": outcome(example.after),
    }
