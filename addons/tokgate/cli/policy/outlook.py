"""Warnings about a valid policy: bans and exemptions that end soon, bans without effect beside another one, and bans
whose clients are given by IPv4 or IPv6 addresses alone.
"""

import linecache
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from whenever import Instant

from tokgate.config.diagnostics import Code, Diagnostic, Level
from tokgate.policy.analysis.redundant_bans import shadows
from tokgate.policy.analysis.timeline import near_from
from tokgate.policy.bans import Ban, OnExpiry
from tokgate.policy.networks import Network, with_parts
from tokgate.policy.settings import UnknownClients
from tokgate.policy.snapshot import Snapshot, Track
from tokgate.policy.values import Origin
from tokgate.policy.values.text import both

_NOWHERE: Final = Origin("policy", 1, 1)


@dataclass(frozen=True, slots=True)
class Ending:
    """A ban, or one of its exemptions, that ends soon in the networks of one time zone."""

    track: Track
    at: Instant
    exemption: str | None = None


def endings(snapshot: Snapshot, now: Instant) -> tuple[Ending, ...]:
    """The bans that end within the longest of `settings.reminders`, the next first."""
    found: dict[tuple[str, str, Instant], Ending] = {}
    for track in snapshot.tracks:
        ends = track.schedule.ends
        if ends is not None and not track.extended_by and _is_near(snapshot, ends, track.zone, now):
            found[track.ban.name, track.zone, ends] = Ending(track, ends)
        for name, hole in track.exemptions.items():
            near = hole.start <= now and _is_near(snapshot, hole.end, track.zone, now)
            if near and not _passes(snapshot, track, name, hole.end):
                found.setdefault((track.ban.name, name, hole.end), Ending(track, hole.end, name))
    return tuple(sorted(found.values(), key=lambda ending: ending.at))


def _is_near(snapshot: Snapshot, ends: Instant, zone: str, now: Instant) -> bool:
    begins = near_from(snapshot, ends, zone)
    return begins is not None and begins <= now < ends


def _passes(snapshot: Snapshot, track: Track, exemption: str, at: Instant) -> bool:
    """Whether an end needs no warning: of an override, or of an exemption that outlives its ban."""
    ends = track.schedule.ends
    lapsed = ends is not None and ends <= at and track.ban.on_expiry is OnExpiry.LAPSE
    return lapsed or snapshot.policy.exemptions[exemption].override


def outlook(snapshot: Snapshot, found: tuple[Ending, ...]) -> Iterator[Diagnostic]:
    """Warnings of what ends soon or has ended, with their positions in the files."""
    for ending in found:
        ban, when = ending.track.ban, both(ending.at, ending.track.zone)
        if ending.exemption is None:
            after = "is then held until somebody decides" if ban.on_expiry is OnExpiry.HOLD else "then lapses"
            text = f"the ban `{ban.name}` ends {when} for {', '.join(ending.track.networks)}, and {after}"
            yield warning(Code.BAN_ENDS, text, ban.origin, ban.name)
        else:
            exemption = snapshot.policy.exemptions[ending.exemption]
            text = f"the exemption `{exemption.name}` from `{ban.name}` ends {when}: {exemption.reason}"
            yield warning(Code.EXEMPTION_ENDS, text, exemption.origin, exemption.name)
    for shadow in shadows(snapshot):
        where = "" if shadow.by.origin is None else f" ({shadow.by.origin})"
        text = (
            f"the ban `{shadow.ban.name}` changes nothing: at every instant `{shadow.by.name}`{where} is at least as "
            "strict for the same services and networks"
        )
        yield warning(Code.BAN_USELESS, text, shadow.ban.origin, shadow.ban.name)

    for network in unused(snapshot):
        text = f"no ban names the network `{network.name}`: nothing is decided about its clients"
        yield warning(Code.UNUSED_NETWORK, text, network.origin, network.name)
    for ban, held in one_family(snapshot):
        text = (
            f"no network of the ban `{ban.name}` has an IPv{10 - held} address: what its clients ask for over "
            f"IPv{10 - held} passes (`settings.unknown_clients: block` refuses it)"
        )
        yield warning(Code.ONE_FAMILY, text, ban.origin, ban.name)


def unused(snapshot: Snapshot) -> Iterator[Network]:
    """Networks that no ban names, itself or through another network; none where membership matters by itself."""
    if not snapshot.bans or snapshot.settings.unknown_clients is UnknownClients.BLOCK:
        return
    named = with_parts((name for ban in snapshot.bans.values() for name in ban.networks), snapshot.policy.networks)
    yield from (network for name, network in snapshot.policy.networks.items() if name not in named)


def one_family(snapshot: Snapshot) -> Iterator[tuple[Ban, int]]:
    """Bans whose clients are given by addresses of one family alone, with its version."""
    if snapshot.settings.unknown_clients is UnknownClients.BLOCK:
        return
    for ban in snapshot.bans.values():
        networks = [snapshot.policy.networks[name] for name in ban.networks]
        versions = {prefix.version for network in networks for prefix in network.prefixes}
        by_identity = any(
            n.users or n.groups or n.interfaces or n.devices for network in networks for n in network.parts
        )
        if len(versions) == 1 and not by_identity:
            yield ban, versions.pop()


def source_line(origin: Origin) -> str | None:
    """The line at a position; None if the file has changed since it was read."""
    linecache.checkcache(origin.file)
    return linecache.getline(origin.file, origin.line).rstrip("\r\n") or None


def warning(code: Code, text: str, origin: Origin | None, word: str) -> Diagnostic:
    """A warning about a word of the policy, with its line."""
    if origin is None:
        return Diagnostic(Level.WARNING, _NOWHERE, text, code)
    return Diagnostic(Level.WARNING, origin, text, code, source_line(origin), len(word))
