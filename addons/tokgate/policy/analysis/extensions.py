"""Bans that extend others: one measure in several terms, each of which begins where the last one ended."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from whenever import Instant

from tokgate.policy.bans import Ban
from tokgate.policy.snapshot import schedule_of


@dataclass(frozen=True, slots=True)
class Term:
    """An earlier ban that another extends, in one time zone."""

    ban: Ban
    starts: Instant
    ends: Instant | None


def earlier_terms(bans: Mapping[str, Ban], ban: Ban, zone: str) -> Iterator[Term]:
    """The bans that this one extends, directly or through others, the latest first."""
    seen = {ban.name}
    while ban.extends is not None and ban.extends in bans and ban.extends not in seen:
        ban = bans[ban.extends]
        seen.add(ban.name)
        schedule = schedule_of(ban, zone)
        yield Term(ban, schedule.starts, schedule.ends)
