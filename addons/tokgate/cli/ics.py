"""Transitions as an iCalendar feed (RFC 5545, RFC 7986), for people who plan by their calendar.

An event keeps its UID when its time changes, so that a calendar that has subscribed moves it instead of adding another.
"""

import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from icalendar import Calendar, Event
from whenever import Instant

from tokgate.policy.instants import both
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.timeline import Kind, Transition

_NAMESPACE: Final = uuid.UUID("9a0e5ad1-6c3c-5bd4-a1cb-2a4f3a1d6a53")
_REFRESH: Final = timedelta(hours=1)
_RECURRING: Final = (Kind.WINDOW_OPENS, Kind.WINDOW_CLOSES)


def calendar(snapshot: Snapshot, found: Iterable[tuple[Transition, str]], now: Instant) -> str:
    """The feed, lines ending in CR LF; `found` are transitions and what they change in words, `now` stamps them."""
    feed = Calendar()
    feed.add("prodid", "-//tokgate//timeline//EN")
    feed.add("version", "2.0")
    feed.add("calscale", "GREGORIAN")
    feed.add("method", "PUBLISH")
    feed.add("name", "tokgate bans")
    feed.add("x-wr-calname", "tokgate bans")  # what clients read that predate RFC 7986
    feed.add("refresh-interval", _REFRESH, parameters={"VALUE": "DURATION"})
    feed.add("x-published-ttl", "PT1H")
    taken: set[str] = set()
    for transition, effect in found:
        feed.add_component(_event(snapshot, transition, effect, now, taken))
    return bytes(feed.to_ical()).decode()


def _event(snapshot: Snapshot, transition: Transition, effect: str, now: Instant, taken: set[str]) -> Event:
    ban, event = transition.ban, Event()
    event.add("uid", _uid(transition, taken))
    event.add("dtstamp", _utc(now))
    event.add("dtstart", _utc(transition.at))
    event.add("summary", f"{ban.title}: {effect}")
    event.add("description", "\n".join(_description(snapshot, transition)))
    event.add("categories", [transition.kind.value])
    event.add("transp", "TRANSPARENT")  # nobody is busy because a ban starts
    if ban.reference is not None:
        event.add("url", ban.reference)
    return event


def _uid(transition: Transition, taken: set[str]) -> str:
    """By what changes, not by when; only what comes again and again is told apart by its day."""
    parts = [transition.ban.name, transition.zone, transition.kind, transition.after or "", transition.exemption or ""]
    if transition.kind in _RECURRING:
        parts.append(transition.at.to_tz(transition.zone).date().format_iso())
    uid = f"{uuid.uuid5(_NAMESPACE, '/'.join(parts))}@tokgate"
    if uid in taken:  # the same change twice: two windows of one day
        uid = f"{uuid.uuid5(_NAMESPACE, '/'.join((*parts, transition.at.format_iso())))}@tokgate"
    taken.add(uid)
    return uid


def _description(snapshot: Snapshot, transition: Transition) -> Iterable[str]:
    ban = transition.ban
    yield f"ban {ban.name}: {', '.join(ban.services)} in {', '.join(transition.networks)}"
    yield both(transition.at, transition.zone)
    for title, value in (("authority", ban.authority), ("basis", ban.basis), ("contact", ban.contact)):
        if value is not None:
            yield f"{title}: {value}"
    if transition.exemption is not None:
        exemption = snapshot.policy.exemptions[transition.exemption]
        yield f"exemption for {', '.join(map(str, exemption.clients))}: {exemption.reason}"


def _utc(at: Instant) -> datetime:
    """To the second, as RFC 5545 has it."""
    return at.round("second", mode="floor").to_stdlib().astimezone(UTC)
