"""What holds at an instant: the one value that status, explain, metrics, the start's lines and the log show.

No clock: the instant is passed in.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from whenever import Instant

from tokgate.policy.analysis.terms import Term, earlier_terms
from tokgate.policy.bans import Ban, Exemption
from tokgate.policy.decision import Phase
from tokgate.policy.membership import folded
from tokgate.policy.networks import Network
from tokgate.policy.schedule import Inactive
from tokgate.policy.snapshot import Snapshot, Track
from tokgate.policy.values.prefixes import Cover


@dataclass(frozen=True, slots=True)
class BanNow:
    """A ban in its networks of one time zone. `idle`: why it does not apply although its phase would."""

    ban: Ban
    zone: str
    networks: tuple[str, ...]
    phase: Phase | None
    idle: Inactive | None
    overdue: bool
    held: bool
    next: Instant | None
    """When any of this next changes; None if never."""
    ends: Instant | None
    """None if it has no end, or is over."""
    extends: tuple[Term, ...]
    extended_by: tuple[str, ...]

    @property
    def in_force(self) -> bool:
        """Whether it has an effect: it is neither idle nor expired."""
        return self.idle is None and self.phase is not Phase.EXPIRED

    @property
    def sentence(self) -> str:
        held = ", held: the files no longer state it" if self.held else ""
        return f"{self.phase}: {self.ban.title} [{self.ban.name}] for {', '.join(self.networks)}{held}"


@dataclass(frozen=True, slots=True)
class ExemptNow:
    """An exemption or override that takes a ban out for some of its clients. `networks`: the ban's, in its zone."""

    exemption: Exemption
    networks: tuple[str, ...]
    until: Instant


@dataclass(frozen=True, slots=True)
class Opened:
    """A network for none of whose clients a ban that is in force applies, since exemptions hold for all of them."""

    network: str
    ban: str
    by: tuple[ExemptNow, ...]
    """The exemptions that open it together; the network is closed again at the first `until` of them, if not before."""

    @property
    def sentence(self) -> str:
        names = ", ".join(each.exemption.name for each in self.by)
        who = ", ".join(dict.fromkeys(each.exemption.by for each in self.by if each.exemption.by))
        said = f" by {who}" if who else ""
        return f"the whole network {self.network} is exempt from {self.ban}{said} until {self.until}: {names}"

    @property
    def until(self) -> Instant:
        return min(each.until for each in self.by)


@dataclass(frozen=True, slots=True)
class NetworkNow:
    """What is refused, warned of or recorded for the clients of a network, and who of them is exempt."""

    network: str
    bans: tuple[BanNow, ...]
    """Those in force."""
    exempt: tuple[ExemptNow, ...]
    opened: tuple[Opened, ...]


@dataclass(frozen=True, slots=True)
class Now:
    """All that a policy calls for `at` an instant. `bans` has each ban of the policy, in each of its time zones."""

    at: Instant
    version: str
    bans: tuple[BanNow, ...]
    exempt: tuple[ExemptNow, ...]
    opened: tuple[Opened, ...]
    networks: tuple[NetworkNow, ...]
    """All networks of the policy."""
    held: tuple[str, ...]

    @property
    def in_force(self) -> tuple[BanNow, ...]:
        return tuple(each for each in self.bans if each.in_force)

    def sentences(self, most: int) -> Iterator[str]:
        """At most so many bans in force, how many more there are, and the networks that exemptions open."""
        yield from (each.sentence for each in self.in_force[:most])
        if len(self.in_force) > most:
            yield f"and {len(self.in_force) - most} more: tokgate timeline"
        yield from (each.sentence for each in self.opened)

    @property
    def summary(self) -> str:
        """How many bans are in force, or that none is, and when that changes: a line."""
        names = {each.ban.name for each in self.in_force}
        if names:
            return f"{len(names)} {'ban is' if len(names) == 1 else 'bans are'} in force"
        ahead = [each.next for each in self.bans if each.next is not None]
        return f"no ban is in force{f' until {min(ahead)}' if ahead else ''}"


def now_of(snapshot: Snapshot, at: Instant) -> Now:
    """What the policy calls for at that instant."""
    bans, exempt, opened = [], [], []
    for track in snapshot.tracks:
        ban = _ban(snapshot, track, at)
        bans.append(ban)
        held = [(name, span) for name, span in track.exemptions.items() if at in span]
        found = [ExemptNow(snapshot.policy.exemptions[name], track.networks, span.end) for name, span in held]
        exempt += found
        if ban.in_force and found:
            everywhere = [(name, _opens(snapshot.policy.networks[name], found)) for name in track.networks]
            opened += [Opened(name, track.ban.name, by) for name, by in everywhere if by]
    in_force = _by_network((each, each.networks) for each in bans if each.in_force)
    excused = _by_network((each, each.networks) for each in exempt)
    open_to_all = _by_network((each, (each.network,)) for each in opened)
    networks = tuple(
        NetworkNow(name, tuple(in_force[name]), tuple(excused[name]), tuple(open_to_all[name]))
        for name in snapshot.policy.networks
    )
    return Now(at, snapshot.version, tuple(bans), tuple(exempt), tuple(opened), networks, snapshot.policy.held)


def _by_network[T](found: Iterable[tuple[T, Iterable[str]]]) -> defaultdict[str, list[T]]:
    """What concerns networks, by the name of each, in the same order."""
    listed = defaultdict[str, list[T]](list)
    for each, networks in found:
        for name in dict.fromkeys(networks):
            listed[name].append(each)
    return listed


def _ban(snapshot: Snapshot, track: Track, at: Instant) -> BanNow:
    state, ends = track.schedule.state_at(at), track.schedule.ends
    return BanNow(
        ban=track.ban,
        zone=track.zone,
        networks=track.networks,
        phase=state.phase,
        idle=state.idle,
        overdue=state.overdue,
        held=track.ban.name in snapshot.policy.held,
        next=None if state.span.end == Instant.MAX else state.span.end,
        ends=None if ends is None or (ends <= at and not state.overdue) else ends,
        extends=tuple(earlier_terms(snapshot.bans, track.ban, track.zone)),
        extended_by=track.extended_by,
    )


def _opens(network: Network, exempt: Sequence[ExemptNow]) -> tuple[ExemptNow, ...]:
    """The exemptions that hold for all clients of a network, where they do: one alone, if one does."""
    alone = next((each for each in exempt if _covers(network, [each])), None)
    if alone is not None:
        return (alone,)
    return tuple(exempt) if len(exempt) > 1 and _covers(network, exempt) else ()


def _covers(network: Network, exempt: Sequence[ExemptNow]) -> bool:
    """Whether exemptions name all whom a network lists, in each way in which it lists any."""
    exemptions = [each.exemption for each in exempt]
    users = {folded(name) for each in exemptions for name in each.users}
    groups = {folded(name) for each in exemptions for name in each.groups}
    devices = {folded(name) for each in exemptions for name in each.devices}
    interfaces = {name for each in exemptions for name in each.interfaces}
    for part in network.parts:
        listed = {folded(str(device)) for device in part.devices if device.hardware}
        named = users.issuperset(map(folded, part.users)) and groups.issuperset(map(folded, part.groups))
        if not (named and interfaces.issuperset(part.interfaces) and devices.issuperset(listed)):
            return False
    cover, prefixes = Cover(prefix for each in exemptions for prefix in each.clients), [*network.prefixes]
    return all(map(cover.holds, prefixes)) and bool(prefixes or users or groups or devices or interfaces)
