"""The one `decide`: what happens to a client that asks for a name at an instant, and why.

Live traffic, explain, simulate, diff and policy tests all call it. The order of precedence is design: read `weigh` and
`_judge` top to bottom.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from whenever import Instant

from tokgate.policy.bans import OnError
from tokgate.policy.decision import Decision, Phase, Reason, Response, Signal, Verdict
from tokgate.policy.identity import Identity
from tokgate.policy.names import AddressLiteral, normalise
from tokgate.policy.schedule import ALWAYS, Span, WhyNot
from tokgate.policy.services import NO_MATCH, Hit, Match
from tokgate.policy.snapshot import Course, Membership, Snapshot, Track

_LOOK_AHEAD: Final = 1000
"""How many transitions without effect are passed over in search of the next change."""

_IDLE: Final = {
    WhyNot.UNANNOUNCED: Reason.NO_BAN,
    WhyNot.ANNOUNCED: Reason.ANNOUNCED,
    WhyNot.OUTSIDE_WINDOW: Reason.OUTSIDE_WINDOW,
    WhyNot.EXPIRED: Reason.EXPIRED,
}
_ACTIVE: Final = {
    Phase.MONITOR: (Verdict.MONITOR, Reason.BAN_MONITOR),
    Phase.WARN: (Verdict.WARN, Reason.BAN_WARN),
    Phase.BLOCK: (Verdict.BLOCK, Reason.BAN_BLOCK),
}
# Among findings that all allow, the one that tells most is reported: last is best.
_TELLING: Final = {
    reason: rank
    for rank, reason in enumerate(
        (
            Reason.NO_BAN,
            Reason.EXPIRED,
            Reason.ANNOUNCED,
            Reason.OUTSIDE_WINDOW,
            Reason.EXEMPT,
            Reason.STORE_FRONT,
        )
    )
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one ban says of a query in one of the client's networks, and the span over which it says so."""

    track: Track
    hit: Hit
    network: str
    prefix_length: int
    verdict: Verdict
    reason: Reason
    phase: Phase | None
    exemption: str | None
    response: Response | None
    span: Span


@dataclass(frozen=True, slots=True)
class Sighting:
    """A name, address or URL, and the signal by which it was seen."""

    signal: Signal
    value: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """The decision over all signals of a connection; `mismatch` when they belong to different services.

    An address that belongs to no service contradicts nothing: shared addresses are the rule.
    """

    decision: Decision
    sighting: Sighting
    mismatch: bool


def decide(
    snapshot: Snapshot,
    client: str,
    host: str,
    at: Instant,
    signal: Signal = Signal.SNI,
    identity: Identity | None = None,
) -> Decision:
    """Decide one query. Never raises for any client or host; `host` is a URL when the signal is `url`.

    An address literal is reported with the signal `address`, whatever it stood for.
    """
    # 1. The client's address, and who else it is known to be, say which networks contain it.
    membership = snapshot.membership(client) if identity is None else snapshot.membership(client, identity)
    if not membership.networks:
        return membership.unconcerned
    # 2. The observed name says which services it belongs to, and by which rule.
    match = snapshot.services.match_url(host) if signal is Signal.URL else snapshot.services.match(host)
    if match is NO_MATCH:
        return membership.unconcerned
    # 3.-5. Bans, exemptions, strictness: once for each kind of query and span of time, then remembered.
    course = snapshot.course(membership, match, signal)
    return course.remembered(at) or _extend(snapshot, course, at)


def decide_kind(snapshot: Snapshot, membership: Membership, match: Match, at: Instant) -> Decision:
    """Decide for a kind of query that no client or host need stand for, such as one network and one service."""
    return _extend(snapshot, Course(membership, match, Signal.SNI), at)


def decide_signals(
    snapshot: Snapshot, client: str, sightings: Sequence[Sighting], at: Instant, identity: Identity | None = None
) -> Judgement:
    """6. Signals that disagree are each decided; the strictest wins, and the first of equals."""
    if not sightings:
        raise ValueError("a judgement needs at least one sighting")
    decisions = [(decide(snapshot, client, s.value, at, s.signal, identity), s) for s in sightings]
    decision, sighting = max(decisions, key=lambda pair: pair[0].verdict.severity)
    services = {d.service for d, s in decisions if s.signal is not Signal.ADDRESS or d.service is not None}
    return Judgement(decision, sighting, mismatch=len(services) > 1)


def findings(snapshot: Snapshot, membership: Membership, match: Match, at: Instant) -> Iterator[Finding]:
    """What each ban says whose networks and services both match: the steps that explain shows."""
    for hit in match.hits:
        for network, prefix_length in membership.networks.items():
            for track in snapshot.tracks_for(hit.service, network):
                if not hit.front or track.ban.inspect_stores:
                    yield weigh(track, hit, network, prefix_length, membership, at)


def weigh(track: Track, hit: Hit, network: str, prefix_length: int, membership: Membership, at: Instant) -> Finding:
    """What one ban says of a query."""
    ban, standing = track.ban, track.schedule.standing(at)
    span = standing.span

    def finding(verdict: Verdict, reason: Reason, response: Response | None = None, hole: str | None = None) -> Finding:
        phase = standing.phase
        return Finding(track, hit, network, prefix_length, verdict, reason, phase, hole, response, span)

    # 3. The ban's phase at the instant, inside a window.
    if standing.idle is not None or standing.phase is None:
        return finding(Verdict.ALLOW, _IDLE[standing.idle or WhyNot.UNANNOUNCED])
    # 4. An exemption takes the ban out for the clients it names, until it ends.
    for name in sorted(membership.exemptions & track.exemptions.keys()):
        hole = track.exemptions[name]
        span &= _around(hole, at)
        if at in hole:
            return finding(Verdict.ALLOW, Reason.EXEMPT, hole=name)
    # A store's own host names no banned app yet: opened to read the URL, nothing refused.
    if hit.front:
        return finding(Verdict.ALLOW, Reason.STORE_FRONT, Response.INSPECT)
    verdict, reason = _ACTIVE[standing.phase]
    if standing.overdue:
        reason = Reason.BAN_OVERDUE
    answers = verdict is Verdict.BLOCK or (verdict is Verdict.WARN and ban.response is Response.PAGE)
    return finding(verdict, reason, ban.response if answers else None)


def _around(hole: Span, at: Instant) -> Span:
    """The longest span around `at` over which it is inside, or outside, the hole."""
    if at < hole.start:
        return Span(Instant.MIN, hole.start)
    return hole if at in hole else Span(hole.end, Instant.MAX)


def _strictness(finding: Finding) -> tuple[int, int, int, int, str, str]:
    """5. The strictest verdict wins; ties: narrowest network, earliest start, names. Smallest first."""
    ban = finding.track.ban
    telling = 0 if finding.verdict is not Verdict.ALLOW else -_TELLING[finding.reason]
    starts = finding.track.schedule.starts.timestamp(unit="nanosecond")
    return (-finding.verdict.severity, telling, -finding.prefix_length, starts, ban.name, finding.network)


def _judge(snapshot: Snapshot, course: Course, at: Instant) -> tuple[Decision, Span]:
    """The decision at `at`, without its next change, and a span over which nothing that bears on it changes."""
    membership, match = course.membership, course.match
    signal = course.signal if match.hits else None
    if signal is not None and match.hits[0].rule.startswith("address:"):
        signal = Signal.ADDRESS
    network = next(iter(membership.networks))
    if match.problem is not None:
        return Decision(Verdict.ALLOW, Reason.INVALID_HOST, network=network), ALWAYS
    found = list(findings(snapshot, membership, match, at))
    span = ALWAYS
    for finding in found:
        span &= finding.span
    if not found:
        named = next((hit for hit in match.hits if not hit.front), None)
        if named is None:  # a store's host, and no ban that inspects stores
            return membership.unconcerned, ALWAYS
        return Decision(Verdict.ALLOW, Reason.NO_BAN, None, named.service, named.rule, signal, network), ALWAYS
    best = min(found, key=_strictness)
    decision = Decision(
        verdict=best.verdict,
        reason=best.reason,
        phase=best.phase,
        service=best.hit.service,
        rule=best.hit.rule,
        signal=signal,
        network=best.network,
        ban=None if best.reason is Reason.NO_BAN else best.track.ban.name,
        exemption=best.exemption,
        response=best.response,
    )
    return decision, span


def _extend(snapshot: Snapshot, course: Course, at: Instant) -> Decision:
    """Decide at `at`, look ahead to the first instant at which the decision differs, and remember it up to there."""
    decision, span = _judge(snapshot, course, at)
    end = span.end
    for _ in range(_LOOK_AHEAD):
        if end == Instant.MAX:
            break
        later, later_span = _judge(snapshot, course, end)
        if later != decision:
            decision = replace(decision, next_change=end)
            break
        end = later_span.end
    course.remember(decision, Span(span.start, end))
    return decision


def fallback(snapshot: Snapshot, host: str) -> Decision:
    """What `on_error` decides when deciding raised: it reaches names of banned services only, all else flows.

    Independent of networks, time and bans, so that it holds when one of these is what fails.
    """
    error = Reason.INTERNAL_ERROR
    hit = next((hit for hit in snapshot.services.match(host).hits if hit.service in snapshot.banned_services), None)
    if hit is None or hit.front:
        return Decision(Verdict.ALLOW, error)
    signal = Signal.ADDRESS if isinstance(normalise(host), AddressLiteral) else Signal.SNI
    verdict = Verdict.BLOCK if snapshot.settings.on_error is OnError.BLOCK else Verdict.ALLOW
    response = Response.REFUSE if verdict is Verdict.BLOCK else None
    return Decision(verdict, error, None, hit.service, hit.rule, signal, response=response)
