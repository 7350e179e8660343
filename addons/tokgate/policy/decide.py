"""The one `decide`: what happens to a client that asks for a name at an instant, and why.

Live traffic, explain, simulate, diff and policy tests all call it. The order of precedence is the numbered steps, from
`decide` down to `_strictness`; below are the questions that have no name in them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

from whenever import Instant

from tokgate.policy.decision import Decision, Phase, Reason, Response, Signal, Verdict
from tokgate.policy.membership import Identity, Membership
from tokgate.policy.schedule import ALWAYS, Inactive, Span
from tokgate.policy.services import ANYTHING, NO_MATCH, Hit, Match
from tokgate.policy.settings import OnError
from tokgate.policy.snapshot import DecisionCache, Snapshot, Track
from tokgate.policy.values.hostname import AddressLiteral, normalise

_LOOK_AHEAD: Final = 1000
"""How many transitions without effect are passed over in search of the next change."""

_IDLE: Final = {
    Inactive.UNANNOUNCED: Reason.NO_BAN,
    Inactive.ANNOUNCED: Reason.ANNOUNCED,
    Inactive.OUTSIDE_WINDOW: Reason.OUTSIDE_WINDOW,
    Inactive.EXPIRED: Reason.EXPIRED,
}
_ACTIVE: Final = {
    Phase.MONITOR: (Verdict.MONITOR, Reason.BAN_MONITOR),
    Phase.WARN: (Verdict.WARN, Reason.BAN_WARN),
    Phase.BLOCK: (Verdict.BLOCK, Reason.BAN_BLOCK),
}
# Of results that all allow, the most informative is reported: the last in this order.
_INFORMATIVENESS: Final = {
    reason: rank
    for rank, reason in enumerate(
        (
            Reason.NO_BAN,
            Reason.EXPIRED,
            Reason.ANNOUNCED,
            Reason.OUTSIDE_WINDOW,
            Reason.EXEMPT,
            Reason.EXCEPTED,
            Reason.STORE_FRONT,
        )
    )
}


@dataclass(frozen=True, slots=True)
class Sighting:
    """A name, address or URL, and the signal by which it was seen."""

    signal: Signal
    value: str

    @property
    def host(self) -> str | None:
        """The host as it was seen; None if the value is empty or a malformed URL."""
        if not self.signal.is_url:
            return self.value or None
        try:
            return urlsplit(self.value).hostname
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Judgement:
    """The decision over all signals of a connection; `mismatch` if these belong to different services.

    An address that belongs to no service is no mismatch, since services share addresses.
    """

    decision: Decision
    sighting: Sighting
    mismatch: bool


@dataclass(frozen=True, slots=True)
class BanResult:
    """What one ban decides about a query in one of the client's networks, and the span over which that holds."""

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


def decide_signals(
    snapshot: Snapshot, client: str, sightings: Sequence[Sighting], at: Instant, identity: Identity | None = None
) -> Judgement:
    """Decide each signal of a connection. The strictest verdict wins, of equal ones the first.

    Raises ValueError without sightings.
    """
    if not sightings:
        raise ValueError("a judgement needs at least one sighting")
    named = any(s.signal is not Signal.ADDRESS and s.value for s in sightings)
    decisions: list[tuple[Decision, Sighting]] = []
    for each in sightings:
        if named and each.signal is Signal.ADDRESS and snapshot.services.match(each.value) is NO_MATCH:
            continue  # by itself it would be under a ban on all; beside a name, the name says what is asked for
        decisions.append((decide(snapshot, client, each.value, at, each.signal, identity), each))
    decision, sighting = max(decisions, key=lambda pair: pair[0].verdict.severity)
    services = {d.service for d, s in decisions if s.signal is not Signal.ADDRESS or d.service is not None}
    return Judgement(decision, sighting, mismatch=len(services) > 1)


def decide(
    snapshot: Snapshot,
    client: str,
    host: str,
    at: Instant,
    signal: Signal = Signal.SNI,
    identity: Identity | None = None,
) -> Decision:
    """Decide one query. Never raises for any client or host; `host` is a URL if the signal is `url`.

    If an address literal matches by its address, the decision's signal is `address`.
    """
    # 1. The client's address and identity say which networks contain it.
    membership = snapshot.membership(client) if identity is None else snapshot.membership(client, identity)
    # 2. The observed name says which services match, and by which rule.
    match = snapshot.services.match(host) if signal is Signal.SNI else matched(snapshot, host, signal)
    if not membership.networks or (match is NO_MATCH and not snapshot.is_under_ban_on_all(membership)):
        return membership.without_match
    # 3.-5. Bans, exemptions, strictness: computed once for each kind of query and span of time, then cached.
    cache = snapshot.decision_cache(membership, match, signal)
    return cache.remembered(at) or _extend(snapshot, cache, at)


def matched(snapshot: Snapshot, host: str, signal: Signal) -> Match:
    """The services of a host, or of a URL if the signal is `url`."""
    return snapshot.services.match_url(host) if signal.is_url else snapshot.services.match(host)


def decide_kind(snapshot: Snapshot, membership: Membership, match: Match, at: Instant) -> Decision:
    """Decide for a membership and a match, without a client or host. Nothing is cached in the snapshot."""
    return _extend(snapshot, DecisionCache(membership, match, Signal.SNI), at)


def _extend(snapshot: Snapshot, cache: DecisionCache, at: Instant) -> Decision:
    """Decide at `at`, find the first later instant at which the decision differs, and cache it up to there."""
    decision, span = _judge(snapshot, cache, at)
    end = span.end
    for _ in range(_LOOK_AHEAD):
        if end == Instant.MAX:
            break
        later, later_span = _judge(snapshot, cache, end)
        if later != decision:
            decision = replace(decision, next_change=end)
            break
        end = later_span.end
    cache.remember(decision, Span(span.start, end))
    return decision


def _judge(snapshot: Snapshot, cache: DecisionCache, at: Instant) -> tuple[Decision, Span]:
    """The decision at `at` without `next_change`, and a span around `at` over which it is constant."""
    membership, match = cache.membership, cache.match
    signal = Signal.ADDRESS if match.hits and match.hits[0].rule.startswith("address:") else cache.signal
    # 3. and 4. What each ban says.
    found = list(ban_results(snapshot, membership, match, at))
    if match.problem is not None and all(result.verdict is Verdict.ALLOW for result in found):
        span = ALWAYS
        for result in found:
            span &= result.span
        return replace(membership.without_match, reason=Reason.INVALID_HOST), span
    if not found:
        named = next((hit for hit in match.hits if not hit.front), None)
        if named is None:  # a store's host, and no ban that inspects stores
            return membership.without_match, ALWAYS
        unbanned = replace(membership.without_match, reason=Reason.NO_BAN, service=named.service, rule=named.rule)
        return replace(unbanned, signal=signal), ALWAYS
    # 5. The strictest of them.
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
    span = ALWAYS
    for result in found:
        span &= result.span
    return decision, span


def ban_results(snapshot: Snapshot, membership: Membership, match: Match, at: Instant) -> Iterator[BanResult]:
    """The results of all bans whose networks and services both match; `tokgate explain` shows them."""
    for hit in match.hits:
        for network, prefix_length in membership.networks.items():
            for track in snapshot.tracks_for(hit.service, network):
                if not track.ban.on_all and (not hit.front or track.ban.inspect_stores):
                    yield evaluate_ban(track, hit, network, prefix_length, membership, at)
    if snapshot.is_under_ban_on_all(membership):
        named = tuple(hit for hit in match.hits if not hit.front) or (ANYTHING,)
        for network, prefix_length in membership.networks.items():
            for track in snapshot.on_all.get(network, ()):
                excepted = next((hit for hit in named if hit.service in track.ban.excepted), None)
                yield evaluate_ban(track, excepted or named[0], network, prefix_length, membership, at)


def evaluate_ban(
    track: Track, hit: Hit, network: str, prefix_length: int, membership: Membership, at: Instant
) -> BanResult:
    """Steps 3 and 4 for one ban: its phase and window, then its exemptions."""
    ban, state = track.ban, track.schedule.state_at(at)
    span = state.span

    def result(
        verdict: Verdict, reason: Reason, response: Response | None = None, exemption: str | None = None
    ) -> BanResult:
        phase = state.phase
        return BanResult(track, hit, network, prefix_length, verdict, reason, phase, exemption, response, span)

    # 3. The ban's phase at the instant, inside a window.
    if state.idle is not None or state.phase is None:
        return result(Verdict.ALLOW, _IDLE[state.idle or Inactive.UNANNOUNCED])
    # 4. An exemption takes the ban out for the clients that it names, until it ends.
    for name in sorted(membership.exemptions & track.exemptions.keys()):
        exempt = track.exemptions[name]
        span &= _around(exempt, at)
        if at in exempt:
            return result(Verdict.ALLOW, Reason.EXEMPT, exemption=name)
    if hit.service in ban.excepted:
        return result(Verdict.ALLOW, Reason.EXCEPTED)
    # A store's own host names no banned app yet: it is opened to read the URL, and nothing is refused.
    if hit.front:
        return result(Verdict.ALLOW, Reason.STORE_FRONT, Response.INSPECT)
    verdict, reason = _ACTIVE[state.phase]
    if state.overdue:
        reason = Reason.BAN_OVERDUE
    answers = verdict is Verdict.BLOCK or (verdict is Verdict.WARN and ban.response.shows_page)
    return result(verdict, reason, ban.response if answers else None)


def _around(span: Span, at: Instant) -> Span:
    """The longest span around `at` that lies wholly inside, or wholly outside, `span`."""
    if at < span.start:
        return Span(Instant.MIN, span.start)
    return span if at in span else Span(span.end, Instant.MAX)


def _strictness(result: BanResult) -> tuple[int, int, int, int, str, str]:
    """5. The strictest verdict wins; ties: narrowest network, earliest start, names. A sort key, smallest first."""
    ban = result.track.ban
    informativeness = 0 if result.verdict is not Verdict.ALLOW else -_INFORMATIVENESS[result.reason]
    starts = result.track.schedule.starts.timestamp(unit="nanosecond")
    return (-result.verdict.severity, informativeness, -result.prefix_length, starts, ban.name, result.network)


def is_under_block(snapshot: Snapshot, client: str, at: Instant, identity: Identity | None = None) -> bool:
    """Whether any ban blocks anything for a client at `at`. Cached."""
    return _block_of(snapshot, client, at, identity).verdict is Verdict.BLOCK


def decide_unreadable(
    snapshot: Snapshot, client: str, at: Instant, reason: Reason, identity: Identity | None = None
) -> Decision | None:
    """What happens to traffic that hides its destination or can't be read: refused to clients under a ban that blocks.

    It is no ban's refusal, and names none. `reason` is one of HIDDEN. None: this client is under no such ban.
    """
    found = _block_of(snapshot, client, at, identity)
    if found.verdict is not Verdict.BLOCK:
        return None
    return Decision(Verdict.BLOCK, reason, network=found.network, response=Response.REFUSE)


def decide_on_error(snapshot: Snapshot, host: str) -> Decision:
    """What `on_error` decides after `decide` raised: names of banned services by the setting, all others pass.

    It doesn't depend on networks or times, since one of these may be what failed. A ban on all bans what it doesn't
    except.
    """
    error = Reason.INTERNAL_ERROR
    hits = [hit for hit in snapshot.services.match(host).hits if not hit.front]
    hit = next((hit for hit in hits if hit.service in snapshot.banned_services), None)
    if hit is None:
        on_all = (ban for ban in snapshot.bans.values() if ban.on_all)
        if all(any(each.service in ban.excepted for each in hits) for ban in on_all):
            return Decision(Verdict.ALLOW, error)
        hit = hits[0] if hits else ANYTHING
    signal = Signal.ADDRESS if isinstance(normalise(host), AddressLiteral) else Signal.SNI
    verdict = Verdict.BLOCK if snapshot.settings.on_error is OnError.BLOCK else Verdict.ALLOW
    response = Response.REFUSE if verdict is Verdict.BLOCK else None
    return Decision(verdict, error, None, hit.service, hit.rule, signal, response=response)


_ALL_SERVICES: Final = Match(())
"""Stands for all services at once; no name matches it."""


def _block_of(snapshot: Snapshot, client: str, at: Instant, identity: Identity | None) -> Decision:
    """The decision of the first ban that blocks anything for a client, else `allow`. Cached."""
    membership = snapshot.membership(client) if identity is None else snapshot.membership(client, identity)
    cache = snapshot.decision_cache(membership, _ALL_SERVICES, Signal.ADDRESS)
    known = cache.remembered(at)
    if known is None:
        known, span = _block(snapshot, membership, at)
        cache.remember(known, span)
    return known


def _block(snapshot: Snapshot, membership: Membership, at: Instant) -> tuple[Decision, Span]:
    span = ALWAYS
    for track in snapshot.tracks:
        network = next((name for name in membership.networks if name in track.networks), None)
        if network is None:
            continue
        state = track.schedule.state_at(at)
        exempt = [track.exemptions[name] for name in membership.exemptions & track.exemptions.keys()]
        for each in (state.span, *(_around(one, at) for one in exempt)):
            span &= each
        if state.phase is Phase.BLOCK and state.idle is None and not any(at in one for one in exempt):
            ban = track.ban.name
            return Decision(
                Verdict.BLOCK, Reason.BAN_BLOCK, Phase.BLOCK, network=network, ban=ban, response=Response.REFUSE
            ), span
    return Decision(Verdict.ALLOW, Reason.NO_BAN), span
