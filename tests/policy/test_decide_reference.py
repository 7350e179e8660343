"""The compiled decide against a slow and obvious one: scans for indexes, the standard library for whenever."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import pairwise, product
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whenever import Instant, ItemizedDelta, PlainDateTime, Time, Weekday

from labs.builders import snapshot
from tokgate.policy.analysis.timeline import next_transition, transitions
from tokgate.policy.bans import Action, Ban, Exemption, OnExpiry
from tokgate.policy.decide import decide, decide_unreadable
from tokgate.policy.decision import Decision, Reason, Response, Verdict
from tokgate.policy.networks import Network
from tokgate.policy.schedule import Edge, Moment, Weekly, Window, resolve
from tokgate.policy.services import NamePattern, PatternKind, Service
from tokgate.policy.settings import UnknownClients
from tokgate.policy.snapshot import Snapshot

# -- the reference ----------------------------------------------------------------------------------------------------

RANK = ["allow", "monitor", "warn", "block"]
TELLING = ["no-ban", "expired", "announced", "outside-window", "exempt", "excepted"]
BEGIN, END_OF_TIME = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)


def exact(moment: Moment, zone: str, last: bool) -> datetime:
    """A moment as UTC: walk a skipped wall time forward, take the earlier or later of a repeated one."""
    if isinstance(moment, Instant):
        return moment.to_stdlib()
    local = moment.to_stdlib()
    while True:
        candidate = local.replace(tzinfo=ZoneInfo(zone), fold=1 if last else 0)
        back = candidate.astimezone(UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        if back == local:
            return candidate.astimezone(UTC)
        local = local.replace(second=0) + timedelta(minutes=1)


def months_later(local: datetime, months: int) -> datetime:
    """The same day that many months on, or the last day of a shorter month."""
    year, month = divmod(local.year * 12 + local.month - 1 + months, 12)
    for day in range(local.day, 0, -1):
        try:
            return local.replace(year=year, month=month + 1, day=day)
        except ValueError:
            continue
    raise AssertionError


def in_window(window: Window, zone: str, now: datetime) -> bool:
    """Whether a window that began yesterday or today (on the wall) holds now."""
    today = now.astimezone(ZoneInfo(zone)).date()
    for day in (today - timedelta(days=1), today, today + timedelta(days=1)):
        if Weekday(day.isoweekday()) not in window.days:
            continue
        begin, end = window.start.to_stdlib(), window.end.to_stdlib()
        end_day: date = day if end > begin else day + timedelta(days=1)
        first = exact(PlainDateTime(datetime.combine(day, begin)), zone, last=False)
        until = exact(PlainDateTime(datetime.combine(end_day, end)), zone, last=True)
        if first <= now < until:
            return True
    return False


def stands(ban: Ban, zone: str, now: datetime) -> tuple[str | None, bool]:
    """The phase, and whether the ban is overdue."""
    ends = None
    if ban.expires is not None:
        ends = exact(ban.expires, zone, last=True)
    elif ban.duration is not None:
        local = (
            ban.starts.to_stdlib()
            if isinstance(ban.starts, PlainDateTime)
            else ban.starts.to_stdlib().astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        )
        later = months_later(local, dict(ban.duration.items())["months"])
        ends = exact(PlainDateTime(later), zone, last=True)
    if ends is not None and now >= ends:
        return (ban.action.value, True) if ban.on_expiry is OnExpiry.HOLD else ("expired", False)
    if now >= exact(ban.starts, zone, last=False):
        return ban.action.value, False
    if ban.warn_from is not None and now >= exact(ban.warn_from, zone, last=False):
        return "warn", False
    if ban.monitor_from is not None and now >= exact(ban.monitor_from, zone, last=False):
        return "monitor", False
    if ban.announced is not None and now < exact(ban.announced, zone, last=False):
        return None, False
    return "announced", False


def belongs(service: Service, host: str) -> bool:
    """Whether any pattern or prefix of the service holds the host."""
    try:
        address = ip_address(host)
    except ValueError:
        pass
    else:
        return any(address in prefix for prefix in service.addresses)
    for pattern in service.patterns:
        value = pattern.value
        if pattern.kind is PatternKind.EXACT and host == value:
            return True
        if pattern.kind is PatternKind.SUFFIX and (host == value or host.endswith("." + value)):
            return True
        if pattern.kind is PatternKind.REGEX and re.fullmatch(value, host):
            return True
        if pattern.kind is PatternKind.LABEL and host.split(".")[-2:] in ([value, "org"], [value, "com"]):
            return True
    return False


def holding(policy: Snapshot, client: str) -> tuple[IPv4Address | IPv6Address, dict[str, int]]:
    """The client's address, and its networks with the length of the prefix by which it is in each."""
    address = ip_address(client)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    within = {n.name: [c.prefixlen for c in n.cidrs if address in c] for n in policy.policy.networks.values()}
    return address, {name: max(lengths) for name, lengths in within.items() if lengths}


def judged(
    policy: Snapshot, ban: Ban, network: str, address: IPv4Address | IPv6Address, services: set[str], now: datetime
) -> tuple[str, str, str | None, str | None]:
    """Verdict, reason, phase and exemption of one ban in one network of the client's."""
    zone = policy.policy.networks[network].timezone
    phase, overdue = stands(ban, zone, now)
    holes = [
        e.name
        for e in policy.policy.exemptions.values()
        if e.ban == ban.name
        and any(address in c for c in e.clients)
        and (e.starts is None or exact(e.starts, zone, last=False) <= now)
        and now < exact(e.until, zone, last=True)
    ]
    if phase is None:
        return "allow", "no-ban", None, None
    if phase in ("announced", "expired"):
        return "allow", phase, phase, None
    if ban.windows and not any(in_window(w, zone, now) for w in ban.windows):
        return "allow", "outside-window", phase, None
    if holes:
        return "allow", "exempt", phase, min(holes)
    if services & set(ban.excepted):
        return "allow", "excepted", phase, None
    return phase, "ban-overdue" if overdue else f"ban-{phase}", phase, None


def reference(policy: Snapshot, client: str, host: str, now: datetime) -> dict[str, str | None]:
    """Verdict, reason, phase, ban, network and exemption, by scanning everything."""
    stated = policy.policy
    address, own = holding(policy, client)
    if not own:
        return {"verdict": stated.settings.unknown_clients.value, "reason": "unknown-client"}
    services = {s.name for s in stated.services.values() if belongs(s, host)}
    own_bans = [(ban, network) for ban in stated.bans.values() for network in set(ban.networks) & own.keys()]
    if not services and not any(ban.on_all for ban, _ in own_bans):
        return {"verdict": "allow", "reason": "invalid-host" if ".." in host else "no-service"}
    found = []
    for ban, network in own_bans:
        if not ban.on_all and not set(ban.services) & services:
            continue
        verdict, reason, phase, hole = judged(policy, ban, network, address, services, now)
        order = (
            -RANK.index(verdict),
            -TELLING.index(reason) if verdict == "allow" else 0,
            -own[network],
            exact(ban.starts, stated.networks[network].timezone, last=False),
            ban.name,
            network,
        )
        found.append((order, verdict, reason, phase, ban.name, network, hole))
    if not found:
        return {"verdict": "allow", "reason": "no-ban"}
    _, verdict, reason, phase, name, network, hole = min(found)
    if ".." in host and verdict == "allow":
        return {"verdict": "allow", "reason": "invalid-host", "ban": None}
    named = None if reason == "no-ban" else name
    return {
        "verdict": verdict,
        "reason": reason,
        "phase": phase,
        "ban": named,
        "network": network,
        "exemption": hole,
    }


def under_block(policy: Snapshot, client: str, now: datetime) -> bool:
    """Whether any ban blocks anything for the client."""
    address, own = holding(policy, client)
    return any(
        judged(policy, ban, network, address, set(), now)[0] == "block"
        for ban in policy.policy.bans.values()
        for network in set(ban.networks) & own.keys()
    )


# -- random policies --------------------------------------------------------------------------------------------------

ZONES = ["Europe/Brussels", "Asia/Kolkata", "Australia/Lord_Howe", "UTC"]
HOSTS = [
    "a.org", "x.a.org", "y.x.a.org", "b.com", "x.b.com", "a.com", "ab.org", "xa.org", "v1.b.com", "v22.b.com",
    "203.0.113.1", "203.0.113.200", "2001:db8:5::1", "a..org",
]  # fmt: skip
CLIENTS = [
    "192.0.2.1",
    "192.0.2.130",
    "192.0.3.1",
    "198.51.100.7",
    "2001:db8::1",
    "2001:db8:0:1::1",
    "::ffff:192.0.2.1",
]
CIDRS = [
    "192.0.2.0/24",
    "192.0.2.128/25",
    "192.0.2.0/31",
    "192.0.0.0/16",
    "2001:db8::/32",
    "2001:db8::/64",
    "0.0.0.0/0",
]
PREFIXES = ["203.0.113.0/24", "203.0.113.128/25", "2001:db8:5::/48"]
PATTERNS = [
    NamePattern(PatternKind.SUFFIX, "a.org"),
    NamePattern(PatternKind.SUFFIX, "x.a.org"),
    NamePattern(PatternKind.EXACT, "b.com"),
    NamePattern(PatternKind.REGEX, r"v[0-9]+\.b\.com"),
    NamePattern(PatternKind.LABEL, "a"),
    NamePattern(PatternKind.SUFFIX, "com"),
]

# Around both DST days of 2023 in Brussels and Lord Howe, where mistakes would hide.
DAYS = [date(2023, 3, 25), date(2023, 3, 26), date(2023, 4, 2), date(2023, 10, 1), date(2023, 10, 29)]
LOCAL = st.builds(
    lambda day, minute: PlainDateTime(datetime.combine(day, time()) + timedelta(minutes=minute)),
    st.sampled_from(DAYS),
    st.integers(0, 287).map(lambda fives: fives * 5),
)
INSTANTS = st.builds(
    lambda moment, zone, shift: Instant(exact(moment, zone, last=False) + timedelta(seconds=shift)),
    LOCAL,
    st.sampled_from(ZONES),
    st.sampled_from([-3600, -1, 0, 0, 1, 1800]),
)
MOMENTS = LOCAL | INSTANTS
CLOCK = st.builds(Time, st.integers(0, 23) | st.integers(1, 3), st.sampled_from([0, 15, 30]))
WINDOWS = st.builds(Window, st.frozensets(st.sampled_from(list(Weekday)), min_size=1), CLOCK, CLOCK)


def some(values: list[str], least: int = 1) -> st.SearchStrategy[tuple[str, ...]]:
    """A few of the values, each once."""
    return st.lists(st.sampled_from(values), min_size=least, max_size=3, unique=True).map(tuple)


@st.composite
def bans(draw: st.DrawFn, name: str) -> Ban:
    """A ban with its moments in order, as config/ ensures."""
    announced, monitor, warn, starts, ends = sorted(draw(st.lists(LOCAL, min_size=5, max_size=5)))
    action = draw(st.sampled_from(Action))
    on_all = draw(st.sampled_from([False, False, True]))
    end = draw(st.sampled_from(["expires", "duration", "none"]))
    return Ban(
        name=name,
        title=name,
        services=() if on_all else draw(some(["s0", "s1"])),
        on_all=on_all,
        excepted=draw(some(["s0", "s1"], 0)) if on_all else (),
        networks=draw(some(["n0", "n1", "n2"])),
        announced=draw(st.none() | st.just(announced)),
        monitor_from=draw(st.none() | st.just(monitor)) if action is not Action.MONITOR else None,
        warn_from=draw(st.none() | st.just(warn)) if action is Action.BLOCK else None,
        starts=starts,
        expires=ends if end == "expires" else None,
        duration=ItemizedDelta(months=draw(st.integers(1, 14))) if end == "duration" else None,
        on_expiry=draw(st.sampled_from(OnExpiry)),
        windows=tuple(draw(st.lists(WINDOWS, max_size=2))),
        action=action,
    )


@st.composite
def policies(draw: st.DrawFn) -> Snapshot:
    """A small random policy whose parts overlap a lot."""
    services = tuple(
        Service(
            f"s{i}",
            f"s{i}",
            tuple(draw(st.lists(st.sampled_from(PATTERNS), max_size=3, unique=True))),
            tuple(ip_network(p) for p in draw(some(PREFIXES, 0))),
        )
        for i in range(2)
    )
    networks = tuple(
        Network(f"n{i}", tuple(ip_network(c) for c in draw(some(CIDRS))), draw(st.sampled_from(ZONES)))
        for i in range(3)
    )
    stated = tuple(draw(bans(f"b{i}")) for i in range(draw(st.integers(1, 4))))
    holes = tuple(
        Exemption(
            name=f"e{i}",
            ban=draw(st.sampled_from([b.name for b in stated])),
            clients=tuple(ip_network(c) for c in draw(some(CIDRS))),
            starts=draw(st.none() | MOMENTS),
            until=draw(MOMENTS),
            reason="why not",
        )
        for i in range(draw(st.integers(0, 2)))
    )
    unknown = draw(st.sampled_from(UnknownClients))
    return snapshot(*stated, services=services, networks=networks, exemptions=holes, unknown_clients=unknown)


def told(decision: Decision) -> dict[str, str | None]:
    return {key: getattr(decision, key) for key in ("verdict", "reason", "phase", "ban", "network", "exemption")}


# -- properties -------------------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(
    policies(), st.lists(st.tuples(st.sampled_from(CLIENTS), st.sampled_from(HOSTS), INSTANTS), min_size=1, max_size=8)
)
def test_same_as_the_reference(policy: Snapshot, queries: list[tuple[str, str, Instant]]) -> None:
    """Verdict, reason, phase, ban, network and exemption agree for random policies, clients, names and instants."""
    for client, host, moment in queries:
        decision = told(decide(policy, client, host, moment))
        for key, value in reference(policy, client, host, moment.to_stdlib()).items():
            assert decision[key] == value, (key, client, host, moment)


@settings(max_examples=150)
@given(policies(), st.lists(st.tuples(st.sampled_from(CLIENTS), INSTANTS), min_size=1, max_size=8))
def test_what_can_not_be_read(policy: Snapshot, queries: list[tuple[str, Instant]]) -> None:
    """It is refused to clients for whom a ban blocks anything just then, and to nobody else."""
    for client, moment in queries:
        found = decide_unreadable(policy, client, moment, Reason.MISSING_SNI)
        assert (found is not None) == under_block(policy, client, moment.to_stdlib()), (client, moment)
        if found is not None:
            refused = Decision(Verdict.BLOCK, Reason.MISSING_SNI, network=found.network, response=Response.REFUSE)
            assert found == refused, "it is no ban's refusal"
            assert found.network in holding(policy, client)[1]


def some_transitions(policy: Snapshot, start: Instant) -> Iterator[Instant]:
    """The first transitions after an instant."""
    stream = transitions(policy, start, start.add(hours=24 * 40))
    return iter(sorted({t.at for _, t in zip(range(60), stream, strict=False)}))


@settings(max_examples=60)
@given(policies(), st.sampled_from(CLIENTS), st.sampled_from(HOSTS), INSTANTS)
def test_constant_between_transitions(policy: Snapshot, client: str, host: str, start: Instant) -> None:
    """Between two transitions of the timeline nothing about a decision changes."""
    edges = list(some_transitions(policy, start))
    for left, right in pairwise(edges):
        last = right.subtract(nanoseconds=1)
        middle = left.add(nanoseconds=int(right.difference(left).total("nanoseconds")) // 2)
        assert decide(policy, client, host, left) == decide(policy, client, host, middle)
        assert decide(policy, client, host, left) == decide(policy, client, host, last)
        assert next_transition(policy, left) == right


@settings(max_examples=100)
@given(policies(), st.sampled_from(CLIENTS), st.sampled_from(HOSTS), INSTANTS)
def test_next_change_is_the_first(policy: Snapshot, client: str, host: str, moment: Instant) -> None:
    """At `next_change` something differs, and one tick before it nothing does; without one, nothing does for days."""
    decision = decide(policy, client, host, moment)
    last = (decision.next_change or moment.add(hours=240)).subtract(nanoseconds=1)
    assert decide(policy, client, host, last) == decision
    if decision.next_change is not None:
        assert told(decide(policy, client, host, decision.next_change)) != told(decision)


@pytest.mark.parametrize("zone", ZONES)
def test_wall_times(zone: str) -> None:
    """Skipped times mean the end of the gap; repeated ones the earlier start and the later end."""
    for day, minute, second in product(DAYS, range(0, 300, 5), (0, -1)):
        moment = PlainDateTime(datetime.combine(day, time()) + timedelta(minutes=minute, seconds=second))
        assert resolve(moment, zone, Edge.START).to_stdlib() == exact(moment, zone, last=False)
        assert resolve(moment, zone, Edge.END).to_stdlib() == exact(moment, zone, last=True)


@settings(max_examples=400)
@given(
    st.lists(WINDOWS, min_size=1, max_size=3).map(tuple),
    st.sampled_from(DAYS),
    st.sampled_from(ZONES),
    st.booleans(),
    st.sampled_from([-1, 0, 1, 1800_000_000]),
)
def test_windows(windows: tuple[Window, ...], day: date, zone: str, last: bool, shift: int) -> None:
    """Around an edge of a window: open or not as the reference says, over the longest span of which that holds."""
    clock = windows[0].end if last else windows[0].start
    edge = Instant(exact(PlainDateTime(datetime.combine(day, clock.to_stdlib())), zone, last))
    weekly, moment = Weekly(windows, zone), edge.add(microseconds=shift)
    inside, span = weekly.state_at(moment)
    assert moment in span
    assert inside == any(in_window(window, zone, moment.to_stdlib()) for window in windows)
    middle = span.start.add(nanoseconds=int(span.end.difference(span.start).total("nanoseconds")) // 2)
    assert weekly.state_at(middle) == weekly.state_at(span.start) == (inside, span)
    assert weekly.state_at(span.end.subtract(nanoseconds=1)) == (inside, span)
    for changed in (span.start.subtract(nanoseconds=1), span.end):
        assert weekly.state_at(changed)[0] is not inside
