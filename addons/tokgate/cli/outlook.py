"""What lies ahead for a valid policy: bans and exemptions about to end, and bans that another one makes useless."""

import linecache
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from whenever import Instant

from tokgate.config.diagnostics import Code, Diagnostic, Level
from tokgate.policy.bans import OnExpiry
from tokgate.policy.instants import both
from tokgate.policy.origin import Origin
from tokgate.policy.reminders import near_from
from tokgate.policy.shadowing import shadows
from tokgate.policy.snapshot import Snapshot, Track

_NOWHERE: Final = Origin("policy", 1, 1)


@dataclass(frozen=True, slots=True)
class Ending:
    """A ban, or the exemption named from it, that is about to end in the networks of one time zone."""

    track: Track
    at: Instant
    exemption: str | None = None


def endings(snapshot: Snapshot, now: Instant) -> tuple[Ending, ...]:
    """What ends as soon as the longest of `settings.reminders` looks ahead, the next first."""
    found: dict[tuple[str, str, Instant], Ending] = {}
    for track in snapshot.tracks:
        ends = track.schedule.ends
        if ends is not None and _is_near(snapshot, ends, track.zone, now):
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
    """Whether nobody need think of the end: an override is short by nature, or the ban itself is over by then."""
    ends = track.schedule.ends
    lapsed = ends is not None and ends <= at and track.ban.on_expiry is OnExpiry.LAPSE
    return lapsed or snapshot.policy.exemptions[exemption].override


def outlook(snapshot: Snapshot, found: tuple[Ending, ...]) -> Iterator[Diagnostic]:
    """The warnings that need a valid policy, with their places."""
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


def source_line(origin: Origin) -> str | None:
    """The line that an origin points to; None if the file was changed or went away since it was read."""
    linecache.checkcache(origin.file)
    return linecache.getline(origin.file, origin.line).rstrip("\r\n") or None


def warning(code: Code, text: str, origin: Origin | None, word: str) -> Diagnostic:
    """A warning about a word of the policy, with its line."""
    if origin is None:
        return Diagnostic(Level.WARNING, _NOWHERE, text, code)
    return Diagnostic(Level.WARNING, origin, text, code, source_line(origin), len(word))
