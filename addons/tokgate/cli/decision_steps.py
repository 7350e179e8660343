"""The steps that led to a decision, in the numbered order of `policy.decide`, as text.

Reads the same results of bans that `decide` ranks, and decides nothing: the winner is taken from the decision.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final, TypedDict

from whenever import Instant

from tokgate.cli.decision_query import Question, judge
from tokgate.cli.terminal import visible
from tokgate.policy.analysis.terms import earlier_terms
from tokgate.policy.decide import BanResult, Sighting, ban_results, decide, matched
from tokgate.policy.decision import Decision, Phase, Reason, Verdict
from tokgate.policy.membership import Identity, Membership, folded
from tokgate.policy.networks import Device, Network, hardware_address
from tokgate.policy.schedule import ALWAYS
from tokgate.policy.services import Match
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.values import Origin
from tokgate.policy.values.hostname import AddressLiteral, IPAddress, normalise, parse_address
from tokgate.policy.values.text import both, readable


class StepOutput(TypedDict):
    """A numbered step of the decision. `lines` led to it; `others` were considered and don't count."""

    number: int
    title: str
    lines: list[str]
    others: list[str]


def steps(snapshot: Snapshot, query: Question) -> Iterator[StepOutput]:
    """The steps for a query; with host and URL, steps 2 to 5 occur once for each."""
    membership = snapshot.membership(query.client, query.identity)
    excepted = dict(_excepted(snapshot, query, membership))
    known = membership.networks.keys() | excepted
    outside = ((n.name, n.origin) for n in snapshot.policy.networks.values() if n.name not in known)
    client = (*_client(snapshot, query, membership), *excepted.values())
    yield step(1, "Client", client, _others(outside, "does not contain it"))
    sightings = query.sightings
    for sighting in sightings:
        match = matched(snapshot, sighting.value, sighting.signal)
        decision = decide(snapshot, query.client, sighting.value, query.at, sighting.signal, query.identity)
        found = tuple(ban_results(snapshot, membership, match, query.at))
        counted = {result.track.ban.name for result in found}
        yield step(2, f"Name seen in {sighting.signal}" if len(sightings) > 1 else "Name", _name(sighting, match))
        yield step(3, "Bans", _bans(snapshot, found, membership, match), _other_bans(snapshot, counted, match))
        holes = _exemptions(snapshot, found, membership, query.at)
        yield step(4, "Exemptions", holes, _other_exemptions(snapshot, counted, membership))
        yield step(5, "Strictest", _strictest(decision, found))
    if len(sightings) > 1:
        judgement = judge(snapshot, query)
        differ = ("the signals belong to different services: logged as tokgate.mismatch",) if judgement.mismatch else ()
        said = f"{judgement.decision.verdict}, as {judgement.sighting.signal} says"
        yield step(6, "Strictest over all signals", (said, *differ))


def step(number: int, title: str, lines: Iterable[str], others: Iterable[str] = ()) -> StepOutput:
    return {"number": number, "title": title, "lines": list(lines), "others": list(others)}


def _client(snapshot: Snapshot, query: Question, membership: Membership) -> Iterator[str]:
    client, address = query.client, parse_address(query.client)
    if address is None:
        yield f"{visible(client)} is no IP address, so it is in no network"
    elif str(address) != client:
        yield f"{visible(client)} is read as {address}"
    if not membership.networks:
        yield f"in no network of the policy: settings.unknown_clients says {snapshot.settings.unknown_clients}"
    for name in membership.networks:
        network = snapshot.policy.networks[name]
        through = " and ".join(statements(network, address, query.identity, membership.networks))
        yield f"in {name} through {visible(through)}, time zone {network.timezone}{place(network.origin)}"


def _excepted(snapshot: Snapshot, query: Question, membership: Membership) -> Iterator[tuple[str, str]]:
    """The networks that list the client and except it, with a line about each."""
    address, inside = parse_address(query.client), membership.networks
    for name, network in snapshot.policy.networks.items():
        out = " and ".join(exceptions(network, address, query.identity, inside)) if name not in inside else ""
        if out:
            yield name, f"not in {name}, which excepts {visible(out)}{place(network.origin)}"


_SHOWN: Final = 5
"""Maximum findings without effect that are named; the rest is counted."""


def _others(others: Iterable[tuple[str, Origin | None]], why: str) -> Iterator[str]:
    """Findings without effect, with their positions."""
    rest = list(others)
    yield from (f"{name} {why}{place(origin)}" for name, origin in rest[:_SHOWN])
    if len(rest) > _SHOWN:
        yield f"{len(rest) - _SHOWN} more: {why}"


def _name(sighting: Sighting, match: Match) -> Iterator[str]:
    if match.problem is not None:
        kind = "absolute URL with a host name" if sighting.signal.is_url else "host name"
        yield f"{visible(sighting.value)} is no {kind}: {match.problem}"
        return
    if sighting.signal.is_url:
        yield f"the URL is {visible(sighting.value)}"
    else:
        name = normalise(sighting.value)
        kind = "address" if isinstance(name, AddressLiteral) else "name"
        spelt = "" if str(name) == sighting.value else f", as {visible(sighting.value)} is read"
        yield f"the {kind} {name}{spelt}"
    if not match.hits:
        yield "no service claims it"
    for hit in match.hits:
        front = ", which only shows that the store is asked, not for which app" if hit.front else ""
        yield f"belongs to {hit.service} by {hit.rule}{front}{place(hit.origin)}"


def _bans(snapshot: Snapshot, found: Sequence[BanResult], membership: Membership, match: Match) -> Iterator[str]:
    if not membership.networks:
        yield "none: bans hold for networks"
    elif not match.hits and not found:
        yield "none: bans hold for services"
    elif not found:
        yield "none covers this service in these networks"
    for result in found:
        zone = result.track.zone
        yield (
            f"{result.track.ban.name} ({result.hit.service} in {result.network})"
            f"{'' if result.phase is None else f', phase {result.phase}'}: "
            f"{_says(result, zone)}{place(result.track.ban.origin)}"
        )
        for term in earlier_terms(snapshot.bans, result.track.ban, zone):
            span = f"from {both(term.starts, zone)} until {both(term.ends, zone)}"
            yield f"  it extends {term.ban.name}, in force {span}{place(term.ban.origin)}"


def _other_bans(snapshot: Snapshot, counted: Collection[str], match: Match) -> Iterator[str]:
    """The other bans, grouped by why they have no effect."""
    asked = {hit.service for hit in match.hits}
    rest = [ban for ban in snapshot.bans.values() if ban.name not in counted]
    elsewhere = [(ban.name, ban.origin) for ban in rest if ban.on_all or asked & set(ban.services)]
    others = [(ban.name, ban.origin) for ban in rest if not (ban.on_all or asked & set(ban.services))]
    yield from _others(elsewhere, "is not for this client's networks")
    yield from _others(others, "is not for this service")


def _says(result: BanResult, zone: str) -> str:
    """Whether a ban has an effect, and why."""
    schedule = result.track.schedule
    until = "" if result.span.end == ALWAYS.end else f" until {both(result.span.end, zone)}"
    ended = "" if schedule.ends is None else both(schedule.ends, zone)
    match result.reason:
        case Reason.NO_BAN:
            return f"does not count, it is not announced{until}"
        case Reason.ANNOUNCED:
            return f"does not count yet, it starts {both(schedule.starts, zone)}"
        case Reason.OUTSIDE_WINDOW:
            return f"does not count, it is outside its windows{until}"
        case Reason.EXPIRED:
            over = next(change.at for change in schedule.changes if change.phase is Phase.EXPIRED)
            by = f", {' and '.join(result.track.extended_by)} took over" if result.track.extended_by else ""
            return f"does not count, it ended {both(over, zone)}{by}"
        case Reason.EXEMPT:
            return f"does not count, exemption {result.exemption} takes it out{until}"
        case Reason.EXCEPTED:
            return f"does not count, {result.hit.service} is in its `except`{until}"
        case Reason.STORE_FRONT:
            return f"refuses nothing here, but opens the store to read which app is asked for{until}"
        case Reason.BAN_OVERDUE:
            return f"counts as {result.verdict}, held past its end {ended}"
        case _:
            return f"counts as {result.verdict}{until}"


def _exemptions(snapshot: Snapshot, found: Sequence[BanResult], membership: Membership, at: Instant) -> Iterator[str]:
    tracks = {result.track: None for result in found}
    if not membership.exemptions:
        yield "none names this client"
        return
    holes = [
        (name, hole, t.zone) for t in tracks for name, hole in t.exemptions.items() if name in membership.exemptions
    ]
    if not holes:
        yield "none that names this client is from these bans"
    for name, span, zone in holes:
        exemption = snapshot.policy.exemptions[name]
        if at in span:
            state = f"in force until {both(span.end, zone)}"
        elif at < span.start:
            state = f"starts {both(span.start, zone)}"
        else:
            state = f"ended {both(span.end, zone)}"
        yield f"{name} from {exemption.ban}, {state}: {exemption.reason}{place(exemption.origin)}"


def _other_exemptions(snapshot: Snapshot, counted: Collection[str], membership: Membership) -> Iterator[str]:
    stated = snapshot.policy.exemptions.values()
    rest = [e for e in stated if e.name not in membership.exemptions and e.ban in counted]
    yield from _others(((f"{e.name} from {e.ban}", e.origin) for e in rest), "is not for this client")
    foreign = [e for e in stated if e.ban not in counted]
    yield from _others(((f"{e.name} from {e.ban}", e.origin) for e in foreign), "is from a ban that has no say here")


def _strictest(decision: Decision, found: Sequence[BanResult]) -> Iterator[str]:
    yield f"{decision.verdict}, because {decision.reason}"
    said = (decision.ban, decision.service, decision.network)
    winner = next((each for each in found if (each.track.ban.name, each.hit.service, each.network) == said), None)
    if winner is None:  # no ban has an effect
        return
    for other in found:
        if other is not winner:
            yield f"{_label(winner, other)} goes before {_label(other, winner)}: {_advantage(winner, other)}"


def _label(result: BanResult, beside: BanResult) -> str:
    """The ban of a result; of two results of one ban also the service and the network."""
    name = result.track.ban.name
    return name if name != beside.track.ban.name else f"{name} ({result.hit.service} in {result.network})"


def _advantage(winner: BanResult, other: BanResult) -> str:
    """Why a result precedes another, by the rules of `decide` in their order."""
    if winner.verdict is not other.verdict:
        return f"{winner.verdict} is stricter than {other.verdict}"
    if winner.verdict is Verdict.ALLOW and winner.reason is not other.reason:
        return f"{winner.reason} tells more than {other.reason}"
    if winner.prefix_length != other.prefix_length:
        return f"its network is narrower, /{winner.prefix_length} against /{other.prefix_length}"
    if winner.track.schedule.starts != other.track.schedule.starts:
        return "it starts earlier"
    if winner.track.ban.name != other.track.ban.name:
        return "its name sorts first"
    return "it was found first"


def step_lines(told: StepOutput, *, everything: bool = False) -> Iterator[str]:
    """A step as lines of text; with `everything` also the findings without effect."""
    yield f"{told['number']}. {told['title']}"
    yield from (f"   {readable(line)}" for line in told["lines"])
    yield from (f"   - {readable(line)}" for line in told["others"] if everything)


def statements(
    network: Network, address: IPAddress | None, identity: Identity | None, inside: Collection[str]
) -> Iterator[str]:
    """The statements that match, the most specific first; `inside` are the networks of the client."""
    who = identity or Identity()
    for device in network.devices:
        how = _known_by(device, address, who)
        if how is not None:
            yield f"{_described(device)} by {how}{place(device.origin)}"
    if who.user is not None and folded(who.user) in map(folded, network.users):
        yield f"the user {who.user}"
    prefixes = [prefix for prefix in network.cidrs if address is not None and address in prefix]
    if prefixes:
        yield str(max(prefixes, key=lambda prefix: prefix.prefixlen))
    theirs = set(map(folded, who.groups))
    yield from (f"the group {group}" for group in network.groups if folded(group) in theirs)
    if who.interface in network.interfaces:
        yield f"the interface {who.interface}"
    yield from (f"its network {part.name}" for part in network.members if part.name in inside)


def exceptions(
    network: Network, address: IPAddress | None, identity: Identity | None, inside: Collection[str]
) -> Iterator[str]:
    """The exceptions that keep a client out of a network that lists it, in words."""
    excepted = [prefix for prefix in network.except_cidrs if address is not None and address in prefix]
    out = [*map(str, excepted), *(name for name in network.except_networks if name in inside)]
    if out and any(statements(network, address, identity, inside)):
        yield from out


def _known_by(device: Device, address: IPAddress | None, who: Identity) -> str | None:
    """The attributes of the client that match the device."""
    if address is not None and any(address == prefix.network_address for prefix in device.addresses):
        return str(address)
    if who.device is None:
        return None
    hardware = hardware_address(who.device)
    if hardware is not None and hardware in device.hardware:
        return hardware
    return "its name" if device.name is not None and folded(device.name) == folded(who.device) else None


def _described(device: Device) -> str:
    of = f" of {device.owner}" if device.owner else ""
    paid = f", paid for by {' and '.join(device.paid_by)}," if device.paid_by else ""
    return f"the device {device}{of}{paid}"


def place(origin: Origin | None) -> str:
    """Where in the files something is stated, in brackets behind a space; empty if nowhere."""
    return "" if origin is None else f" [{origin.file}:{origin.line}]"
