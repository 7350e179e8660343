"""Transitions as an iCalendar feed (RFC 5545, RFC 7986); a weekly window is one event that recurs.

An event keeps its UID when its time changes, so that subscribed calendars move it instead of adding another.
"""

import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from icalendar import Calendar, Event
from whenever import Instant, Weekday

from tokgate.policy.analysis.timeline import Transition
from tokgate.policy.bans import Ban, OnExpiry
from tokgate.policy.decision import Phase
from tokgate.policy.schedule import Edge, Span, Window, resolve
from tokgate.policy.snapshot import Snapshot, Track
from tokgate.policy.values.time_text import both

_NAMESPACE: Final = uuid.UUID("9a0e5ad1-6c3c-5bd4-a1cb-2a4f3a1d6a53")
_REFRESH: Final = timedelta(hours=1)
_LONGEST_SEARCH: Final = 400
"""Days in which the first occurrence of a window is searched: holidays may take some out."""


def calendar(snapshot: Snapshot, found: Iterable[tuple[Transition, str]], within: Span, now: Instant) -> str:
    """The feed, with lines that end in CR LF; `now` is the DTSTAMP.

    `found` has transitions `within` a span, and their effects, windows aside.
    """
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
    for track in snapshot.tracks:
        for number in range(len(track.ban.windows)):
            event = _window(track, number, within, now)
            if event is not None:
                feed.add_component(event)
    feed.add_missing_timezones()
    return bytes(feed.to_ical()).decode()


def _event(snapshot: Snapshot, transition: Transition, effect: str, now: Instant, taken: set[str]) -> Event:
    ban, event = transition.ban, Event()
    event.add("uid", _uid(transition, taken))
    event.add("dtstamp", _utc(now))
    event.add("dtstart", _utc(transition.at))
    event.add("summary", f"{ban.title}: {effect}")
    event.add("description", "\n".join(_description(snapshot, transition)))
    event.add("categories", [transition.kind.value])
    event.add("transp", "TRANSPARENT")  # free/busy time is not affected
    if ban.reference is not None:
        event.add("url", ban.reference)
    return event


def _window(track: Track, number: int, within: Span, now: Instant) -> Event | None:
    """A ban's window, each week from its start to its end; None if the ban is in force at no time `within`.

    Public holidays are exceptions up to the end of the span.
    """
    ban, schedule, zone, window = track.ban, track.schedule, track.zone, track.ban.windows[number]
    starts = next(change.at for change in schedule.changes if change.phase is not Phase.ANNOUNCED)
    ends = None if ban.on_expiry is OnExpiry.HOLD else schedule.ends
    day = starts.to_tz(zone).date().subtract(days=1)
    days = (day.add(days=each) for each in range(_LONGEST_SEARCH))
    first = next((span for each in days if (span := window.occurrence(each, zone)) and span.end > starts), None)
    if first is None or first.start >= min(within.end, ends or Instant.MAX) or (ends or Instant.MAX) <= within.start:
        return None
    event = Event()
    event.add("uid", f"{uuid.uuid5(_NAMESPACE, '/'.join((ban.name, zone, 'window', str(number))))}@tokgate")
    event.add("dtstamp", _utc(now))
    event.add("dtstart", _local(first.start, zone))
    event.add("dtend", _local(first.end, zone))
    recurs = {"freq": "weekly", "byday": [_DAYS[weekday] for weekday in sorted(window.days, key=lambda d: d.value)]}
    event.add("rrule", recurs if ends is None else recurs | {"until": _utc(ends.subtract(seconds=1))})
    out = list(_holidays(window, zone, first.start, min(within.end, ends or Instant.MAX)))
    if out:
        event.add("exdate", out)
    event.add("summary", f"{ban.title}: {ban.action} in this window")
    event.add("description", "\n".join(_about(ban, track.networks)))
    event.add("categories", ["window"])
    event.add("transp", "TRANSPARENT")
    if ban.reference is not None:
        event.add("url", ban.reference)
    return event


_DAYS: Final = dict(zip(Weekday, ("MO", "TU", "WE", "TH", "FR", "SA", "SU"), strict=True))


def _holidays(window: Window, zone: str, first: Instant, last: Instant) -> Iterator[datetime]:
    """The starts of occurrences that public holidays take out."""
    day, end = first.to_tz(zone).date(), last.to_tz(zone).date()
    while window.except_holidays and day <= end:
        if day.day_of_week() in window.days and not window.begins_on(day):
            yield _local(resolve(day.at(window.start), zone, Edge.START), zone)
        day = day.add(days=1)


def _local(at: Instant, zone: str) -> datetime:
    """A date-time in a zone, to the second: what recurs follows its wall time."""
    return at.round("second", mode="floor").to_tz(zone).to_stdlib()


def _uid(transition: Transition, taken: set[str]) -> str:
    """A UID from what changes, and not when."""
    parts = [transition.ban.name, transition.zone, transition.kind, transition.after or "", transition.exemption or ""]
    uid = f"{uuid.uuid5(_NAMESPACE, '/'.join(parts))}@tokgate"
    if uid in taken:  # the same change twice
        uid = f"{uuid.uuid5(_NAMESPACE, '/'.join((*parts, transition.at.format_iso())))}@tokgate"
    taken.add(uid)
    return uid


def _description(snapshot: Snapshot, transition: Transition) -> Iterable[str]:
    said = list(_about(transition.ban, transition.networks))
    yield from (said[0], both(transition.at, transition.zone), *said[1:])
    if transition.exemption is not None:
        exemption = snapshot.policy.exemptions[transition.exemption]
        yield f"exemption for {', '.join(exemption.whom)}: {exemption.reason}"


def _about(ban: Ban, networks: Iterable[str]) -> Iterator[str]:
    yield f"ban {ban.name}: {', '.join(ban.services)} in {', '.join(networks)}"
    for title, value in (("authority", ban.authority), ("basis", ban.basis), ("contact", ban.contact)):
        if value is not None:
            yield f"{title}: {value}"


def _utc(at: Instant) -> datetime:
    """A UTC date-time in the format of RFC 5545, to the second."""
    return at.round("second", mode="floor").to_stdlib().astimezone(UTC)
