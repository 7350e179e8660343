"""The differences between two policies, with equal ones grouped."""

from collections.abc import Iterable
from dataclasses import dataclass

from tokgate.cli.policy.replay import treatment
from tokgate.policy.analysis.comparison import (
    ExemptionChange,
    VerdictChange,
    exemption_changes,
    verdict_changes,
)
from tokgate.policy.analysis.definitions import Redefinition, redefinitions, weaker_settings
from tokgate.policy.analysis.held_bans import vanished
from tokgate.policy.schedule import Span
from tokgate.policy.snapshot import Snapshot


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
