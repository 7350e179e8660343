"""Records about traffic, built from the observation and the decision. No clock, no I/O.

Allowed traffic has no record: it is only counted, without names.
"""

import uuid
from dataclasses import dataclass, replace
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog.records.ecs_fields import MAX_USER, common, described, observed, without_destination
from tokgate.blocklog.records.folding import Fold
from tokgate.blocklog.records.record import (
    EventAction,
    Record,
    Stamp,
    by_whom,
    clean,
    counted,
    frame,
    pruned,
    term,
    timestamp,
    wall_time,
)
from tokgate.policy.bans import Ban
from tokgate.policy.decide import Judgement, Sighting
from tokgate.policy.decision import Decision, Reason, Signal, Verdict
from tokgate.policy.membership import Identity, folded
from tokgate.policy.observation import Observation, Stage
from tokgate.policy.snapshot import Snapshot

REFUSED: Final = {
    Stage.TLS: EventAction.TLS_HANDSHAKE_REFUSED,
    Stage.QUIC: EventAction.QUIC_REFUSED,
    Stage.CONNECT: EventAction.CONNECT_REFUSED,
    Stage.HTTP: EventAction.HTTP_REQUEST_BLOCKED,
    Stage.DNS: EventAction.DNS_QUERY_BLOCKED,
    Stage.ADDRESS: EventAction.CONNECTION_REFUSED,
    Stage.LIVE: EventAction.CONNECTION_CUT,
}
_ENDING: Final = {
    EventAction.CONNECTION_CUT: ("end", "denied"),
    EventAction.TLS_OPENED: ("info",),
    EventAction.HTTP_REQUEST_WARNED: ("info",),
    EventAction.WARNING_CONTINUED: ("allowed",),
    EventAction.CONNECTION_WARNED: ("info",),
    EventAction.WOULD_BLOCK: ("allowed",),
    EventAction.EXEMPTION_USED: ("allowed",),
    EventAction.PASSED_ON_ERROR: ("allowed",),
}
_MODE: Final = {Verdict.BLOCK: "enforce", Verdict.WARN: "warn", Verdict.MONITOR: "monitor"}
_DID: Final = {
    EventAction.TLS_HANDSHAKE_REFUSED: "was refused {what}",
    EventAction.TLS_OPENED: "had its connection to {what} opened to show the page",
    EventAction.QUIC_REFUSED: "was refused {what} over QUIC",
    EventAction.CONNECT_REFUSED: "was refused a tunnel to {what}",
    EventAction.HTTP_REQUEST_BLOCKED: "was refused {what} over HTTP",
    EventAction.HTTP_REQUEST_WARNED: "was warned before {what}",
    EventAction.WARNING_CONTINUED: "continues to {what} past the warning",
    EventAction.DNS_QUERY_BLOCKED: "was refused the address of {what}",
    EventAction.CONNECTION_REFUSED: "was refused a connection to {what}",
    EventAction.CONNECTION_WARNED: "reached {what} with a warning",
    EventAction.CONNECTION_CUT: "was cut off from {what}",
    EventAction.WOULD_BLOCK: "reached {what} and would have been refused",
    EventAction.EXEMPTION_USED: "reached {what}",
    EventAction.PASSED_ON_ERROR: "reached {what} unjudged",
}

_WITHOUT_BAN: Final = {
    Reason.UNKNOWN_CLIENT: "the client belongs to no network of the policy",
    Reason.INVALID_CLIENT: "the client's address makes no sense",
    Reason.INVALID_HOST: "the name makes no sense",
    Reason.MISSING_SNI: "the connection names no host",
    Reason.NAME_CHANGED: "the connection named another host after its server had asked again",
    Reason.UNREADABLE: "the connection can't be read, and some server might read it",
    Reason.ECH_OUTER: "the connection shows only the public name of an ECH provider",
    Reason.INTERNAL_ERROR: "deciding failed, and the policy says what holds then",
}
NAMES_SHOWN: Final = 5
"""Most names in the record of repeats with different names; the rest is counted."""
MAX_GROUPS: Final = 64
"""Most groups in a record."""
_RULES: Final = uuid.UUID("6e2c7f0a-4f0f-5d57-9c50-6f1f9d1c2b7e")
"""Namespace of rule.uuid: the same ban has the same uuid on every gateway."""


def is_notable(decision: Decision) -> bool:
    """Whether the decision has a record; traffic that no ban or error concerns has none."""
    on_error = decision.reason is Reason.INTERNAL_ERROR and decision.service is not None  # a banned one is reached
    return decision.verdict is not Verdict.ALLOW or decision.exemption is not None or on_error


def action_of(decision: Decision, seen: Observation) -> EventAction | None:
    """The `event.action` of a decision about this observation; None if there is nothing to log."""
    if not is_notable(decision):
        return None
    if decision.verdict is Verdict.ALLOW:
        return EventAction.EXEMPTION_USED if decision.exemption is not None else EventAction.PASSED_ON_ERROR
    if decision.verdict is Verdict.MONITOR:
        return EventAction.WOULD_BLOCK
    if decision.is_unreadable:
        return EventAction.UNREADABLE_REFUSED
    if seen.opened and seen.stage in (Stage.TLS, Stage.QUIC):
        return EventAction.TLS_OPENED
    if decision.verdict is Verdict.WARN and seen.continued_until is not None:
        return EventAction.WARNING_CONTINUED
    if decision.verdict is Verdict.WARN:
        return EventAction.HTTP_REQUEST_WARNED if seen.stage is Stage.HTTP else EventAction.CONNECTION_WARNED
    return REFUSED[seen.stage]


def traffic_record(stamp: Stamp, seen: Observation, judgement: Judgement, snapshot: Snapshot) -> Record | None:
    """The record of a decision; None if there is nothing to log (see `is_notable`)."""
    decision = judgement.decision
    action = action_of(decision, seen)
    if action is None:
        return None
    if action is EventAction.UNREADABLE_REFUSED:
        return _unreadable_record(stamp, seen, decision, snapshot)
    terms = policy_terms(decision, snapshot)
    where = f" ({decision.network})" if decision.network is not None else ""
    did = _DID[action].replace("{what}", described(seen, judgement))
    if action is EventAction.EXEMPTION_USED and terms.exemption_words is not None:
        did += f" under exemption {terms.exemption_words}; otherwise refused"
    why = terms.words if terms.words is not None else _WITHOUT_BAN.get(decision.reason, f"reason {decision.reason}")
    message = f"{_who(seen)}{where} {did}: {why}."
    if seen.continued_until is not None:
        message += f" The page is not shown again until {wall_time(seen.continued_until, terms.zone)}."
    base = {Stage.DNS: ("protocol",), Stage.HTTP: ("connection", "access"), Stage.CONNECT: ("connection", "access")}
    record = frame(
        stamp,
        action,
        message,
        category=("network", "web") if seen.stage in (Stage.CONNECT, Stage.HTTP) else ("network",),
        kinds=base.get(seen.stage, ("connection",)) + _ENDING.get(action, ("denied",)),
        reason=terms.reason,
        code=decision.reason.value,
    )
    record.update(observed(seen, judgement, action))
    if (ban := terms.ban) is not None:
        rule = {
            "id": ban.name,
            "name": ban.title,
            "category": decision.service,
            "ruleset": clean(ban.origin.file) if ban.origin is not None else None,
            "version": snapshot.version,
            "description": ban.reason or ban.description or ban.basis,
            "reference": ban.reference,
            "uuid": str(uuid.uuid5(_RULES, ban.name)),
        }
        record["rule"] = pruned(rule)
    record["tokgate"] |= decided(judgement, terms, snapshot)
    if seen.identity is not None:
        _identified(record, seen.identity, snapshot)
    return record


def _unreadable_record(stamp: Stamp, seen: Observation, decision: Decision, snapshot: Snapshot) -> Record:
    """The record of what nobody knows the destination of: it names no ban, no host and no address but the client's.

    It has no verdict either, so that whoever counts by verdict counts refusals under bans alone.
    """
    who = f"{_who(seen)} ({decision.network})"
    did = "was cut off" if seen.stage is Stage.LIVE else "was refused a connection"
    message = f"{who} {did}: {_WITHOUT_BAN[decision.reason]}. This is no ban's refusal."
    action = EventAction.UNREADABLE_REFUSED
    kinds = ("connection", "end", "denied") if seen.stage is Stage.LIVE else ("connection", "denied")
    record = frame(stamp, action, message, category=("network",), kinds=kinds, code=decision.reason.value)
    unnamed = Judgement(decision, Sighting(Signal.ADDRESS, ""), mismatch=False)
    record.update(observed(without_destination(seen), unnamed, action))
    record["tokgate"] |= {"reason": decision.reason.value, "network": decision.network}
    record["tokgate"] |= {"policy": {"version": snapshot.version}}
    if seen.identity is not None:
        _identified(record, seen.identity, snapshot)
    return record


def _who(seen: Observation) -> str:
    """The client by its address, and whoever signed in before that."""
    user = None if seen.identity is None else seen.identity.user
    return clean(seen.client.ip) if user is None else f"{clean(user, MAX_USER)} at {clean(seen.client.ip)}"


def _identified(record: Record, identity: Identity, snapshot: Snapshot) -> None:
    """Add the client's groups, as far as the policy names them, and its interface."""
    groups = sorted(clean(group, 256) for group in identity.groups if folded(group) in snapshot.identifies.groups)
    if groups:
        record["tokgate"]["groups"] = groups[:MAX_GROUPS]
    if identity.interface is not None:
        record["observer"]["ingress"] = {"interface": {"name": clean(identity.interface, 64)}}


def repeats_record(
    stamp: Stamp, seen: Observation, judgement: Judgement, snapshot: Snapshot, fold: Fold[Any], of: str
) -> Record | None:
    """The record that stands for the repeats in a fold of the event with the id `of`; None if there are none."""
    if fold.first is None or fold.last is None:
        return None
    seen, names = common(seen, judgement), fold.names
    if names is not None:
        decision, sighting = replace(judgement.decision, rule=None), replace(judgement.sighting, value="")
        judgement = replace(judgement, decision=decision, sighting=sighting)
        seen = replace(seen, names=(), destination=None, http=None, dns=None)
    record = traffic_record(stamp, seen, judgement, snapshot)
    if record is None:
        return None
    first, last = timestamp(fold.first), timestamp(fold.last)
    times = "once more" if fold.count == 1 else f"{fold.count} times more"
    told: Record = {"count": fold.count, "first": first, "last": last, "of": of}
    under = ""
    if names is not None:
        shown = list(names)[:NAMES_SHOWN]
        under = f", with {counted(len(names), 'name')} ({clean(', '.join(shown))})"
        told["names"] = {"count": len(names), "first": [clean(name) for name in shown]}
    record["message"] += f" This happened {times}{under}, from {first} to {last}."
    record["tokgate"]["repeats"] = told
    return record


@dataclass(frozen=True, slots=True)
class PolicyTerms:
    """The ban and the exemption behind a decision, until when they hold, and both as phrases."""

    ban: Ban | None = None
    until: Instant | None = None
    words: str | None = None
    exemption_reason: str | None = None
    exemption_until: Instant | None = None
    exemption_words: str | None = None
    zone: str = "UTC"

    @property
    def reason(self) -> str | None:
        """`event.reason`: the ban's title and its basis."""
        if self.ban is None:
            return None
        return self.ban.title if self.ban.basis is None else f"{self.ban.title}: {self.ban.basis}"


def decided(judgement: Judgement, terms: PolicyTerms, snapshot: Snapshot) -> Record:
    """The fields under `tokgate` for the decision, its ban and its exemption."""
    decision, ban = judgement.decision, terms.ban
    return pruned(
        {
            "verdict": decision.verdict.value,
            "mode": _MODE.get(decision.verdict, "exempt" if decision.exemption is not None else "error"),
            "reason": decision.reason.value,
            "phase": decision.phase,
            "service": decision.service,
            "rule": decision.rule,
            "signal": decision.signal,
            "network": decision.network,
            "ban": decision.ban,
            "authority": ban and ban.authority,
            "basis": ban and ban.basis,
            "contact": ban and ban.contact,
            "until": terms.until and timestamp(terms.until),
            "exemption": decision.exemption,
            "exemption_reason": terms.exemption_reason,
            "exemption_until": terms.exemption_until and timestamp(terms.exemption_until),
            "response": decision.response,
            "next_change": decision.next_change and timestamp(decision.next_change),
            "mismatch": judgement.mismatch,
            "policy": {"version": snapshot.version},
        }
    )


def policy_terms(decision: Decision, snapshot: Snapshot) -> PolicyTerms:
    """The terms of a decision that `snapshot` made; without a ban they are empty."""
    ban = snapshot.bans.get(decision.ban) if decision.ban is not None else None
    if ban is None:
        return PolicyTerms()
    track = None
    if decision.service is not None and decision.network is not None:
        tracks = snapshot.tracks_for(decision.service, decision.network)
        track = next((each for each in tracks if each.ban.name == decision.ban), None)
    ends = track.schedule.ends if track is not None else None
    zone = track.zone if track is not None else "UTC"
    words = f"{by_whom(ban)}, {term(ends, zone, overdue=decision.reason is Reason.BAN_OVERDUE)}"
    exemption = snapshot.policy.exemptions.get(decision.exemption) if decision.exemption is not None else None
    if exemption is None:
        return PolicyTerms(ban, ends, words, zone=zone)
    until = track.exemptions[exemption.name].end if track is not None and exemption.name in track.exemptions else None
    said = f"{exemption.name} ({exemption.reason}" + (f", until {wall_time(until, zone)})" if until else ")")
    return PolicyTerms(ban, ends, words, exemption.reason, until, said, zone)
