"""Which bans concern the kernel at an instant, and when that changes."""

from collections.abc import Iterable, Iterator
from typing import Final

from whenever import Instant, TimeDelta

from tokgate.policy.bans import OnExpiry
from tokgate.policy.decision import Phase
from tokgate.policy.schedule import Span
from tokgate.policy.snapshot import Snapshot, Track

AHEAD: Final = TimeDelta(hours=24)
"""How long before a ban begins its clients come to the gates: what is open when it starts is then known there."""
_ACTING: Final = (Phase.WARN, Phase.BLOCK)


def current(snapshot: Snapshot, now: Instant) -> tuple[Track, ...]:
    """Bans, announced or in force, that are not over at `now`."""
    return tuple(track for track in snapshot.tracks if not _over(track, now))


def in_sight(snapshot: Snapshot, now: Instant) -> tuple[Track, ...]:
    """Bans that are not over at `now`, and that monitor, warn or block within AHEAD from then."""
    return tuple(track for track in current(snapshot, now) if _begins(track) - now <= AHEAD)


def acting(tracks: Iterable[Track], now: Instant) -> Iterator[Track]:
    """The bans that warn or block at `now`, whatever their windows."""
    return (track for track in tracks if track.schedule.state_at(now).phase in _ACTING)


def unchanged(snapshot: Snapshot, now: Instant) -> Span:
    """The span around `now` in which the same table is due, as long as the policy stays."""
    changes = [at for track in snapshot.tracks for at in _changes(track)]
    start = max((at for at in changes if at <= now), default=Instant.MIN)
    return Span(start, min((at for at in changes if at > now), default=Instant.MAX))


def _over(track: Track, now: Instant) -> bool:
    ends = track.schedule.ends
    return ends is not None and ends <= now and track.ban.on_expiry is not OnExpiry.HOLD


def _begins(track: Track) -> Instant:
    """The first instant at which it does anything."""
    return next(change.at for change in track.schedule.changes if change.phase is not Phase.ANNOUNCED)


def _changes(track: Track) -> Iterator[Instant]:
    begins = _begins(track)
    yield begins - AHEAD
    yield from (change.at for change in track.schedule.changes if change.at >= begins)
